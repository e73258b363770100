"""Replays ways of polling on recorded durations, one run after the other, in their order.

A policy sees what it would see: at each check, whether the run has ended. Nobody tells the learned
one when; servers that stamp the end make it better than it is here. Checks include the one that
finds the end, and take no time.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from random import Random

from orchestrator.core.inspection import cheapest
from orchestrator.core.learned import Kind, Learned
from orchestrator.core.polling import Polling
from orchestrator.traces.reading import Trace

ENDLESS = float("inf")


def _doubles() -> "array[float]":
    return array("d")


@dataclass(slots=True)
class Tally:
    """What a policy did on the runs that count."""

    checks: int = 0
    delays_seconds: "array[float]" = field(default_factory=_doubles)

    def add(self, checks: int, delay_seconds: float) -> None:
        self.checks += checks
        self.delays_seconds.append(max(delay_seconds, 0.0))

    @property
    def checks_per_run(self) -> float:
        return self.checks / max(len(self.delays_seconds), 1)

    @property
    def delay_mean_seconds(self) -> float:
        return sum(self.delays_seconds) / max(len(self.delays_seconds), 1)


class Replay:
    """A trace, and the policies on it.

    Args:
        trace: The runs.
        polling: The backoff, also that of the learned policy where it knows too little.
        skip: Of each key, so many runs are learned from, and not counted.
        seed: For the jitter.
    """

    def __init__(self, trace: Trace, polling: Polling, *, skip: int = 0, seed: int = 1) -> None:
        self._polling = polling
        self._seed = seed
        self._runs: list[tuple[Kind, float, bool]] = []  # whether it counts
        kinds: dict[str, Kind] = {}
        seen: dict[str, int] = {}
        self._by_key: dict[str, list[float]] = {}  # of those that count
        for key, seconds in trace.runs:
            kind = kinds.setdefault(key, Kind("", key, ""))
            seen[key] = seen.get(key, 0) + 1
            counts = seen[key] > skip
            self._runs.append((kind, seconds, counts))
            if counts:
                self._by_key.setdefault(key, []).append(seconds)
        self.keys = len(kinds)
        self.runs = sum(map(len, self._by_key.values()))
        self._known: list[_Ends] = []

    def fixed(self, gap_seconds: float) -> Tally:
        """A check every so many seconds."""
        tally = Tally()
        for _, seconds, counts in self._runs:
            if counts:
                checks = max(ceil(seconds / gap_seconds), 1)
                tally.add(checks, checks * gap_seconds - seconds)
        return tally

    def backoff(self) -> Tally:
        """Exponential backoff, with its jitter."""
        chance, polling, tally = Random(self._seed).random, self._polling, Tally()  # noqa: S311 - jitter
        for _, seconds, counts in self._runs:
            age, looks = 0.0, 0
            while age < seconds or not looks:
                age += polling.gap_seconds(looks, None, ENDLESS, chance())
                looks += 1
            if counts:
                tally.add(looks, age - seconds)
        return tally

    def learned(self, price_seconds: float) -> Tally:
        """The learned policy, beginning with nothing."""
        chance, polling, tally = Random(self._seed).random, self._polling, Tally()  # noqa: S311 - jitter
        learned = Learned(price_seconds, polling=polling)
        for kind, seconds, counts in self._runs:
            age, looks = 0.0, 0
            while True:
                luck = chance()
                gap = learned.gap_seconds(kind, age, looks, luck)
                if gap is None:
                    gap = polling.gap_seconds(looks, None, ENDLESS, luck)
                known_age, age, looks = age, age + gap, looks + 1
                if age >= seconds:
                    break
                learned.still_running(kind, known_age, age)
            learned.ended(kind, known_age, age)
            if counts:
                tally.add(looks, age - seconds)
        return tally

    def offline(self, price_seconds: float) -> Tally:
        """The optimum for the distribution of each key, which is that of the very runs.

        Nothing that does not change with time takes fewer checks; with few runs of a key nothing
        that has to learn comes near it.
        """
        if not self._known:
            self._known = [_Ends(durations) for durations in self._by_key.values()]
        tally = Tally()
        for ends in self._known:
            ends.measure(price_seconds, tally)
        return tally


class _Ends:
    """A known distribution of lifetimes: that of these durations."""

    def __init__(self, durations: Sequence[float]) -> None:
        self._durations = durations
        self._ages, self._ended, self._summed = [0.0], [0.0], [0.0]
        part = 1.0 / len(durations)
        gone = total = 0.0
        for seconds in sorted(durations):
            gone, total = gone + part, total + part * seconds
            if seconds > self._ages[-1]:
                self._ages.append(seconds)
                self._ended.append(min(gone, 1.0))
                self._summed.append(total)
            else:
                self._ended[-1], self._summed[-1] = min(gone, 1.0), total
        if len(self._ages) == 1:  # all of them took no time
            self._ages.append(1e-9)
            self._ended.append(1.0)
            self._summed.append(0.0)

    def measure(self, price: float, tally: Tally) -> None:
        following = cheapest(
            self._ages, self._ended, self._summed, price, spread_within=False
        ).following
        checks, place = [], 0
        while following[place]:
            place = following[place]
            checks.append(self._ages[place])
        for seconds in self._durations:
            found = bisect_left(checks, seconds)
            tally.add(found + 1, checks[found] - seconds)
