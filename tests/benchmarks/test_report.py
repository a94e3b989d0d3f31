"""What is kept of earlier measurements when a part is measured again."""

import json

from benchmarks import report
from benchmarks.table import Figure

MACHINE = {"processor": "one", "cores": 2}
OLD = [Figure("a", "here", 1.0, 2.0), Figure("b", "here", 3.0), Figure("a", "there", 4.0)]


def test_figures_of_other_parts_stay(tmp_path):
    path = tmp_path / "results.json"
    assert report.read(path, MACHINE) == []
    report.collect(OLD, MACHINE, path)
    assert report.read(path, MACHINE) == OLD
    assert report.read(path, {**MACHINE, "processor": "another"}) == []
    new = [Figure("b", "here", 5.0), Figure("c", "here", 6.0)]
    found = report.collect(new, MACHINE, path, report.read(path, MACHINE))
    assert found == [OLD[0], new[0], OLD[2], new[1]] == report.read(path, MACHINE)


def test_a_figure_may_be_measured_twice(tmp_path):
    path = tmp_path / "results.json"
    report.collect([OLD[0], OLD[0]], MACHINE, path)
    assert len(json.loads(path.read_text())["figures"]) == 2
