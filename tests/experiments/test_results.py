"""Result tables: runs are written once, and a grid goes on."""

import pytest

from semijax.experiments.results import ResultTable


def test_runs_in_the_table_are_not_missing(tmp_path):
    table = ResultTable(tmp_path / "folder" / "results.csv", ("task", "seed"))
    keys = [("a", 0), ("a", 1), ("b, c", 0)]
    assert [*table.missing(keys)] == keys
    table.append([{"task": "a", "seed": 1, "value": 0.1}, {"task": "a", "seed": 1, "value": 0.2}])
    asked = []
    for task, seed in table.missing(keys):
        asked.append((task, seed))
        table.append([{"task": task, "seed": seed, "value": 1 / 3}])
    assert asked == [("a", 0), ("b, c", 0)] and not [*table.missing(keys)]
    assert table.of([("b, c", 0)])["value"].tolist() == [1 / 3]
    assert len(table.read()) == 4


def test_another_process_may_write_a_run_in_between(tmp_path):
    table = ResultTable(tmp_path / "results.csv", ("seed",))
    missing = table.missing([(0,), (1,)])
    assert next(missing) == (0,)
    table.append([{"seed": 0}, {"seed": 1}])
    assert not [*missing]


def test_rows_with_other_columns_are_refused(tmp_path):
    table = ResultTable(tmp_path / "results.csv", ("seed",))
    table.append([{"seed": 0, "value": 1.0}])
    with pytest.raises(ValueError, match="has the columns seed, value, and the new rows have seed"):
        table.append([{"seed": 1}])
