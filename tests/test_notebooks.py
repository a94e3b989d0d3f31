"""The notebooks: they run, on small sizes, and what is stored of them is what they say."""

import pathlib
import re

import jupytext
import nbclient
import nbformat
import pytest

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py"))
NAMES = [path.stem for path in SOURCES]


def test_there_are_twelve_and_the_readme_shows_each():
    assert [name[:2] for name in NAMES] == [f"{n:02}" for n in range(1, 13)]
    readme = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        (picture,) = (NOTEBOOKS / "pictures").glob(f"{name}.*")
        assert f"({name}.ipynb)" in readme and f"(pictures/{picture.name})" in readme


@pytest.mark.notebook
@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    """On small sizes, in a folder of its own: two tests may write the same output."""
    monkeypatch.setenv("SEMIJAX_SMALL", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    (tmp_path / "results").symlink_to(NOTEBOOKS / "results")
    notebook = jupytext.read(path)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", resources=resources).execute()
    printed = [
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert not printed
    stored = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    assert prose(notebook) == prose(stored)


def prose(notebook):
    """The texts that a notebook computes from stored results."""
    return [
        output.data["text/markdown"]
        for cell in notebook.cells
        if "prose" in cell.metadata.get("tags", [])
        for output in cell.outputs
    ]


# Of Markdown cells, fractions and percentages that are no results: of definitions and of the paper.
FACTS = {
    "01": {"0.75", "0.6931", "25.3"},  # of a function worked out by hand
    "04": {"90%"},  # the paper's threshold
    "05": {"277.5"},  # the paper's
}


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_no_result_is_typed(path):
    """What a text says of results is computed from them."""
    for cell in jupytext.read(path).cells:
        if cell.cell_type != "markdown":
            continue
        text = re.sub(r"```.*?```|`[^`]*`|§[\d.]+|95%", "", cell.source, flags=re.DOTALL)
        found = {*re.findall(r"\d+\.\d+|\d+ ?%", text)}
        assert found <= FACTS.get(path.stem[:2], set()), cell.source


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_the_stored_notebook_is_its_source_with_outputs(path):
    stored = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    source = jupytext.read(path)
    assert [(c.cell_type, c.source) for c in stored.cells] == [
        (c.cell_type, c.source) for c in source.cells
    ]
    outputs = [o for cell in stored.cells for o in cell.get("outputs", [])]
    assert outputs and not any(o.output_type == "error" for o in outputs)
    assert not any(o.output_type == "stream" and o.name == "stderr" for o in outputs)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]  # in one go
