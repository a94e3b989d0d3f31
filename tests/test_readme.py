"""Runs the README's python code blocks in order, in one namespace, as a reader would.

A block that begins with "```python NAME" runs where the package of this name is installed.
"""

import importlib.util
import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_readme_code_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    text = README.read_text(encoding="utf-8")
    fence = r"^```python(?: (?P<package>\w+))?\n(?P<code>.*?)^```"
    blocks = list(re.finditer(fence, text, re.DOTALL | re.MULTILINE))
    assert blocks, "README.md has no ```python block."
    namespace = {"__name__": "readme"}
    for block in blocks:
        if block["package"] and importlib.util.find_spec(block["package"]) is None:
            continue
        lines_above = text[: block.start("code")].count("\n")  # tracebacks point into the README
        exec(compile("\n" * lines_above + block["code"], str(README), "exec"), namespace)
