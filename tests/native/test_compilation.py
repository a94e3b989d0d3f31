"""How the kernels are compiled: with IEEE's arithmetic, and one instruction set in one object."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import jaxlib
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "semijax/native"
CXX = os.environ.get("CXX", "c++")

pytestmark = pytest.mark.skipif(shutil.which(CXX) is None, reason="no C++ compiler here")


def compiled(source, *flags):
    include = f"{Path(jaxlib.__file__).parent}/include"
    command = [CXX, "-std=c++17", "-isystem", include, *flags, SOURCES / source]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("source", ["kernels.cc", "xla.cc"])
@pytest.mark.parametrize(
    "flags",
    ["-ffast-math", "-Ofast", "-ffinite-math-only", "-ffast-math -fno-finite-math-only"],
)
def test_arithmetic_that_is_not_ieee(source, flags):
    assert compiled(source, "-E", "-O2").returncode == 0
    found = compiled(source, "-E", "-O2", *flags.split())
    assert found.returncode != 0
    assert "compile without -ffast-math" in found.stderr


def symbols(object_file, *flags):
    run = subprocess.run(
        ["nm", "--demangle", "--format=posix", *flags, object_file],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.splitlines())


def test_nothing_is_shared_between_instruction_sets(tmp_path):
    targets = re.findall(r"add_kernels\((\w+)([^)]*)\)", (ROOT / "CMakeLists.txt").read_text())
    assert [name for name, _ in targets] == ["baseline", "avx2", "avx512"]
    is_x86 = "x86_64" in compiled("kernels.cc", "-dM", "-E").stdout
    for name, flags in targets if is_x86 else targets[:1]:
        # Without optimization, so that every function is in the object, not only in its callers.
        made = tmp_path / f"{name}.o"
        built = compiled(
            "kernels.cc", "-c", "-O0", f"-DSEMIJAX_TARGET={name}", *flags.split(), "-o", made
        )
        assert built.returncode == 0, built.stderr
        (defined,) = symbols(made, "--extern-only", "--defined-only")
        assert defined.startswith(f"semijax::{name}::run("), defined
        assert not [s for s in symbols(made, "--undefined-only") if "::" in s]
