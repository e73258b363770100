"""Plays many seeds, on several processors."""

import multiprocessing
import sys
import warnings
from collections.abc import Iterable, Iterator

from simulation.play import play

# A worker is given so many at a time, and replaced after so many.
SEEDS_AT_ONCE = 10
SEEDS_PER_WORKER = 2_000


def broken(seeds: Iterable[int], workers: int) -> Iterator[tuple[int, str]]:
    """Those of the seeds with which a promise is broken, each with its story."""
    context = multiprocessing.get_context("spawn")
    tasks = max(1, SEEDS_PER_WORKER // SEEDS_AT_ONCE)
    with context.Pool(workers, initializer=_begin, maxtasksperchild=tasks) as pool:
        for seed, story in pool.imap_unordered(complaint, seeds, chunksize=SEEDS_AT_ONCE):
            if story:
                yield seed, story


def first_broken(seeds_max: int) -> int | None:
    """How many seeds had to be played until a promise was broken; None when none was."""
    return next((seed + 1 for seed in range(seeds_max) if complaint(seed)[1]), None)


def complaint(seed: int) -> tuple[int, str]:
    """What is wrong with a seed; nothing is an empty text."""
    ignored.clear()
    try:
        play(seed)
    except AssertionError as error:
        return seed, str(error)
    return seed, "; ".join(ignored)


# Errors that Python could raise nowhere: of coroutines that nobody awaited, for example.
ignored: list[str] = []


def _begin() -> None:
    warnings.simplefilter("error")
    sys.unraisablehook = lambda about: ignored.append(repr(about.exc_value))
