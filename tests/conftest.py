"""How the tests compile: quickly, and nothing twice.

Most of what they compile runs once, so XLA is told to optimize little; SEMIJAX_OPTIMIZED=1 has it
optimize as it does for users. What it has compiled is kept for all processes and later runs, until
the week is over: then the folder is emptied, and everything is compiled anew.
"""

import ctypes
import datetime
import gc
import importlib
import importlib.metadata
import os
import pathlib
import shutil

import pytest

JAXLIB = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
CACHES = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "semijax-tests"


def compile_quickly():
    """Settings by the environment, so that the processes that tests start have them too."""
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    # Each halves the time on one JAX, and is unknown to the other or of no use there.
    if JAXLIB < (0, 11):
        flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    else:
        flags = "--xla_disable_hlo_passes=fusion"
    os.environ.setdefault("XLA_FLAGS", flags)


def keep_what_is_compiled():
    """The folder of this week, without those of other weeks; what there is to say of it."""
    year, week, _ = datetime.date.today().isocalendar()
    folder = CACHES / f"{year}-W{week:02}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"no compilation cache: {error}"
    for other in CACHES.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    files = sum(1 for _ in folder.iterdir())
    return f"compilation cache: {'warm' if files else 'cold'}, {files} files in {folder}"


OPTIMIZED = os.environ.get("SEMIJAX_OPTIMIZED") == "1"
if not OPTIMIZED:
    compile_quickly()
if "JAX_COMPILATION_CACHE_DIR" in os.environ:  # a worker's, or the user's own
    CACHE = f"compilation cache: {os.environ['JAX_COMPILATION_CACHE_DIR']}"
else:
    CACHE = keep_what_is_compiled()

import jax  # noqa: E402, the settings are read at the import


def pytest_report_header():
    return [f"optimization: {'as for users' if OPTIMIZED else 'little'}", CACHE]


@pytest.fixture(scope="session")
def keras_on_jax(tmp_path_factory):
    """Keras, on JAX, and without the settings in the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "jax")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        yield importlib.import_module("keras")


MEMORY = 3 * 2**29
"""The bytes of a process from which on it forgets what it has traced and compiled."""

MAPPINGS = 20_000
"""The same for memory mappings: programs take some, Linux grants 65,530, and one more crashes."""

PROCESS = pathlib.Path("/proc/self")


@pytest.fixture(autouse=True)
def _forget_when_large():
    yield
    if PROCESS.exists() and (_resident_bytes() > MEMORY or _mappings() > MAPPINGS):
        jax.clear_caches()
        gc.collect()
        # glibc keeps what lies between blocks in use, which is most of it.
        ctypes.CDLL(None).malloc_trim(0)


def _resident_bytes():
    return int((PROCESS / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _mappings():
    return (PROCESS / "maps").read_bytes().count(b"\n")
