"""Runs the README's python code blocks in order, in one namespace, as a reader would."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_readme_code_blocks_run():
    text = README.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert blocks, "README.md has no ```python block."
    namespace = {"__name__": "readme"}
    for block in blocks:
        lines_above = text[: block.start(1)].count("\n")  # tracebacks point into the README
        exec(compile("\n" * lines_above + block[1], str(README), "exec"), namespace)
