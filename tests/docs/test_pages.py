"""Runs the Python blocks of the README and of the site's pages, as a reader would.

The blocks of a page share a namespace. One that begins with "```python NAME" runs where the package
of this name is installed. A "```text" block after a Python block is what that block prints; numbers
may differ in rounding.
"""

import contextlib
import importlib.util
import io
import math
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT = ("_build", "generated", "notebooks")
FENCE = re.compile(
    r"^```python(?: (?P<package>\w+))?\n(?P<code>.*?)^```$(?:\n+```text\n(?P<printed>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:e[+-]?\d+)?")


def pages():
    found = [ROOT / "README.md"]
    for path in sorted((ROOT / "docs").rglob("*.md")):
        if not set(path.parts) & set(BUILT) and FENCE.search(path.read_text(encoding="utf-8")):
            found.append(path)
    return found


def numbers_and_text(printed):
    """The numbers, and all else without white space."""
    numbers = [float(number) for number in NUMBER.findall(printed)]
    return numbers, "".join(NUMBER.sub("#", printed).split())


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_runs_and_prints_what_it_shows(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    monkeypatch.setenv("MPLBACKEND", "agg")
    text = path.read_text(encoding="utf-8")
    namespace = {"__name__": "page"}
    for block in FENCE.finditer(text):
        if block["package"] and importlib.util.find_spec(block["package"]) is None:
            continue
        lines_above = text[: block.start("code")].count("\n")  # tracebacks point into the page
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile("\n" * lines_above + block["code"], str(path), "exec"), namespace)
        if block["printed"] is not None:
            numbers, words = numbers_and_text(output.getvalue())
            shown_numbers, shown_words = numbers_and_text(block["printed"])
            assert words == shown_words
            for printed, shown in zip(numbers, shown_numbers, strict=True):
                assert math.isclose(printed, shown, rel_tol=1e-3, abs_tol=0.0101)


def test_the_readme_is_one_page_and_names_the_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert "make demo" in text and "make test" in text
