"""Finds custom_ids that are used twice, in 8 bytes a line.

Only a fingerprint of each id is kept. Two equal ones are a suspicion, which a second look at the
real ids confirms or clears, so chance can't make a good file bad.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple

# Sorting makes Python numbers of a bucket's fingerprints, 40 bytes each: with 256 buckets that is
# 160 kB at a time for a million lines.
BUCKETS = 256


class Repeat(NamedTuple):
    """A line whose custom_id an earlier line has."""

    line: int
    custom_id: str
    first_line: int


def fingerprint(custom_id: str) -> int:
    """A number of 64 bits that hardly any other id has: 1 in 37 million for a million ids."""
    return int.from_bytes(blake2b(custom_id.encode(), digest_size=8).digest())


class Duplicates:
    """Takes the ids of a file one by one, then says which are there twice."""

    def __init__(self, fingerprint: Callable[[str], int] = fingerprint) -> None:
        self._fingerprint = fingerprint
        self._buckets = [array("Q") for _ in range(BUCKETS)]

    def add(self, custom_id: str) -> None:
        """Remember this id."""
        number = self._fingerprint(custom_id)
        self._buckets[number % BUCKETS].append(number)

    def suspects(self) -> frozenset[int]:
        """The fingerprints that were added more than once."""
        return frozenset(
            first
            for bucket in self._buckets
            for first, second in pairwise(sorted(bucket))
            if first == second
        )

    def confirmed(
        self, suspects: frozenset[int], numbered_ids: Iterable[tuple[int, str]]
    ) -> Iterator[Repeat]:
        """The real repeats among the suspects, in the order of the lines."""
        first_lines: dict[str, int] = {}
        for line, custom_id in numbered_ids:
            if self._fingerprint(custom_id) in suspects:
                first_line = first_lines.setdefault(custom_id, line)
                if first_line != line:
                    yield Repeat(line, custom_id, first_line)
