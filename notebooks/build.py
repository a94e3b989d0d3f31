"""Runs the notebooks in full, stores them with their outputs, and a picture of each for README.md.

``python notebooks/build.py [01 02 …]``, or ``make notebooks`` for all. A notebook is written in
``NN_name.py``; ``NN_name.ipynb`` is made from it here, by nothing else. The picture is what the
cell with the tag "picture" shows.
"""

import base64
import re
import sys
from pathlib import Path

import jupytext
import nbclient
import nbformat

HERE = Path(__file__).parent

KERNEL_FILE = re.compile(r"[\w/.-]*ipykernel_\d+/\d+\.py")


def run(path: Path) -> nbformat.NotebookNode:
    """Execute a notebook in full, in its own folder."""
    notebook = jupytext.read(path)
    client = nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(HERE)}},
    )
    client.execute()
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # not random: what did not change does not differ
    # Nor the kernel's number and folder, where an output names the source lines of a cell.
    return nbformat.reads(KERNEL_FILE.sub("cell", nbformat.writes(notebook)), as_version=4)


def picture(notebook: nbformat.NotebookNode) -> tuple[str, bytes]:
    """The suffix and the content of the tagged picture."""
    for cell in notebook.cells:
        if "picture" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                data = output.get("data", {})
                found = re.search(r"data:image/svg\+xml;base64,([^\"]*)", data.get("text/html", ""))
                if found:
                    return ".svg", base64.b64decode(found[1])
                if "image/png" in data:
                    return ".png", base64.b64decode(data["image/png"])
    raise ValueError('No cell with the tag "picture" shows one.')


def main(numbers: list[str]) -> None:
    """Build the notebooks of these numbers, or all."""
    (HERE / "pictures").mkdir(exist_ok=True)
    for path in sorted(HERE.glob("[0-9][0-9]_*.py")):
        if numbers and path.name[:2] not in numbers:
            continue
        print(path.name, flush=True)
        notebook = run(path)
        jupytext.write(notebook, path.with_suffix(".ipynb"), fmt="ipynb")
        for old in (HERE / "pictures").glob(f"{path.stem}.*"):
            old.unlink()
        suffix, content = picture(notebook)
        (HERE / "pictures" / path.stem).with_suffix(suffix).write_bytes(content)


if __name__ == "__main__":
    main(sys.argv[1:])
