"""Plays as many seeds as one likes: `cd tests; python -m simulation --seeds 50000 --workers 2`."""

import argparse
import sys
from time import perf_counter

from simulation.many import broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--workers", type=int, default=2, help="processes to play them")
    given = parser.parse_args()
    began = perf_counter()
    found = 0
    for _, story in broken(range(given.first, given.first + given.seeds), given.workers):
        found += 1
        print(f"{story}\n", flush=True)  # noqa: T201 - this is a script
    seconds = perf_counter() - began
    print(f"{given.seeds:,} seeds in {seconds:.0f} s, {found} broken")  # noqa: T201 - the same
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
