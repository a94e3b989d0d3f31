"""The comparison with stored benchmarks, on results that are made up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def results(path, ratios):
    figures = [
        {"what": w, "where": at, "ratio": r, "target": None} for (w, at), r in ratios.items()
    ]
    path.write_text(json.dumps({"machine": {}, "figures": figures}))
    return path


@pytest.fixture
def compare(tmp_path):
    def run(stored, measured, *options):
        files = results(tmp_path / "stored.json", stored), results(tmp_path / "new.json", measured)
        command = [sys.executable, "-m", "benchmarks.compare", *map(str, files), *options]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    return run


STORED = {("max / grad", "6 layers"): 1.5, ("max / grad", "2 layers"): 1.0}


def test_ratios_within_the_factor_pass(compare):
    done = compare(STORED, {("max / grad", "6 layers"): 2.9, ("max / grad", "2 layers"): 0.1})
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("6 layers") < done.stdout.index("2 layers")  # the worst first


def test_a_ratio_beyond_the_factor_fails(compare):
    measured = {("max / grad", "6 layers"): 3.1, ("max / grad", "2 layers"): 1.0}
    done = compare(STORED, measured)
    assert done.returncode == 1 and "1 of 2 ratios exceed 2 ×" in done.stderr
    assert compare(STORED, measured, "--factor", "3").returncode == 0


def test_a_ratio_that_is_not_a_number_fails(compare):
    done = compare(STORED, {("max / grad", "6 layers"): float("nan")})
    assert done.returncode == 1


def test_seconds_are_not_compared(compare):
    seconds = {("paths, seconds", "6 layers"): 1.0}
    done = compare(STORED | seconds, STORED | {key: 100 * s for key, s in seconds.items()})
    assert done.returncode == 0 and "seconds" not in done.stdout


def test_only_what_both_have_is_compared(compare):
    done = compare(STORED, {("max / grad", "6 layers"): 1.5, ("new / grad", "6 layers"): 99.0})
    assert done.returncode == 0 and "No ratio of 1 exceeds" in done.stdout


def test_nothing_in_common_is_an_error(compare):
    done = compare(STORED, {("max / grad", "other layers"): 1.0})
    assert done.returncode == 1 and "no figure in common" in done.stderr
