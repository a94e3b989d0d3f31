"""Many random programs: ``python -m tests.random_programs --seeds 0:1000 --shrink 60``."""

import argparse
import collections
import time

import jax

from . import in_numpy
from .comparison import check_seed, compiled
from .drawing import FAMILIES
from .shrink import shrink


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:100", help="first:last+1")
    parser.add_argument("--families", nargs="*", choices=[*FAMILIES], help="only these")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--compiled", action="store_true", help="by XLA instead of NumPy")
    parser.add_argument("--shrink", type=int, default=0, help="how many smaller programs to try")
    parser.add_argument("--quiet", action="store_true", help="print the table alone")
    options = parser.parse_args()
    first, last = map(int, options.seeds.split(":"))
    run = compiled if options.compiled else in_numpy.run
    table = collections.defaultdict(collections.Counter)
    drawn, failed, begun = collections.Counter(), [], time.monotonic()
    for seed in range(first, last):
        if time.monotonic() - begun > options.seconds:
            last = seed
            break
        if seed % 50 == 49:
            jax.clear_caches()  # what was compiled for shapes of long ago
        try:
            program, differences = check_seed(seed, run, families=options.families)
        except Exception as error:  # one seed is not to stop the others
            failed.append(seed)
            print(f"# seed {seed}: {type(error).__name__}: {error}", flush=True)
            continue
        drawn.update({*program.families})
        if not differences:
            continue
        failed.append(seed)
        whats = dict.fromkeys(difference.what for difference in differences)
        if options.shrink:
            program = shrink(program, next(iter(whats)), options.shrink, run=run)
        for family in {*program.families} or {"(no step)"}:
            table[family].update([*whats])
        if not options.quiet:
            print(f"# seed {seed}: {', '.join(whats)}\n{program}\n# {differences[0]}\n", flush=True)
    print(f"{last - first} programs, {len(failed)} with differences: {failed}")
    for family, number in sorted(drawn.items()):
        found = ", ".join(f"{what} {n}" for what, n in table[family].most_common())
        print(f"{family:20} in {number:5} programs: {found or 'no differences'}")


if __name__ == "__main__":
    main()
