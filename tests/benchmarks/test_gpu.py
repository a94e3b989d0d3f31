"""The benchmark for GPUs, on tiny sizes and on the CPU: it runs, and finds no difference there."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import gpu

ROOT = Path(__file__).parents[2]


def run(*options):
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_it_runs_anywhere_on_tiny_sizes(tmp_path):
    output = tmp_path / "gpu.json"
    done = run("--quick", "--repeats", 1, "--output", output)
    assert done.returncode == 0, done.stderr
    ratios = {
        (f["what"], f["where"]): f["ratio"] for f in json.loads(output.read_text())["figures"]
    }
    differences = [r for (what, _), r in ratios.items() if "difference from the CPU" in what]
    assert len(differences) == 2 and max(differences) == 0
    for dtype in gpu.DTYPES:
        assert ratios["contract MaxProduct / matmul", f"16³, {dtype}"] > 0
    assert any("bfloat16" in where and what == "MaxProduct / grad" for what, where in ratios)


def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == 2 and "JAX finds no GPU here" in done.stderr
