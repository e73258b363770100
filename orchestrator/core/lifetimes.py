"""How long runs of a kind take, counted in bounded memory from what looks at them tell.

A look tells that a run was at work at one age and had ended by a later one, or had not. So what is
counted is, for each bin of ages, how many were at risk there and how many of these ended (Kaplan
and Meier 1958): a run in flight, and one that is given up, counts as far as it was seen, so that
the first to end do not make all look short. An end lies somewhere between two looks; its mass is
spread over the bins in between in proportion to what is believed so far (one step of the
self-consistent estimate: Turnbull 1976). Older counts fade, so changes over time are followed.
"""

from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import isfinite, log

# Bins grow by 3 %, from 50 ms to a day: no API answers a check sooner, and no run that is looked
# at by itself lives longer.
RATIO = 1.03
FIRST_SECONDS = 0.05
LAST_SECONDS = 86_400.0
_LOG_RATIO = log(RATIO)
BINS = int(log(LAST_SECONDS / FIRST_SECONDS) / _LOG_RATIO) + 2
AGES = (0.0, *(FIRST_SECONDS * RATIO**power for power in range(BINS)))
_MIDDLES = tuple((early + late) / 2 for early, late in pairwise(AGES))

# The belief before anything was seen, and where nothing was: of those that are at work at an age,
# half are at twice that age (a Pareto law of index 1, for which optimal gaps grow with the square
# root of the age). It weighs as much as this many runs. Measured on the traces of the benchmark: 3
# cost 5 % more checks, and less than 1 changes nothing.
PRIOR_RUNS = 1.0
PRIOR_HAZARD = 1.0 - 1.0 / RATIO

# Finished runs after which a count weighs half. At 500, schedules are 2 % dearer where nothing
# changes; what changes suddenly is forgotten on alarm (learned.py).
HALF_LIFE_RUNS = 1_000

# The unit in which new runs are counted grows instead of all counts shrinking, up to this.
_UNIT_MAX = 1e6


def bin_of(age: float) -> int:
    """The bin that an age lies in, the last one for all that are older."""
    if age <= FIRST_SECONDS:
        return 0
    return min(int(log(age / FIRST_SECONDS) / _LOG_RATIO) + 1, BINS - 1)


def place_of(age: float) -> int:
    """The nearest place in `AGES`."""
    if age <= FIRST_SECONDS:
        return 1 if age > FIRST_SECONDS / 2 else 0
    return min(int(log(age / FIRST_SECONDS) / _LOG_RATIO + 0.5) + 1, BINS - 1)


def _part_over(age: float, place: int) -> float:
    """The part of a bin that lies over an age in it."""
    return min(max((AGES[place + 1] - age) / (AGES[place + 1] - AGES[place]), 0.0), 1.0)


class Belief:
    """A distribution of lifetimes, as masses by bin.

    Attributes:
        masses: By bin.
        ended: By place in `AGES`, the mass up to there.
        summed: Likewise, the integral of age x density.
    """

    __slots__ = ("ended", "masses", "summed")

    def __init__(self, masses: Sequence[float]) -> None:
        self.masses = array("d", masses)
        self.ended = array("d", accumulate(masses, initial=0.0))
        self.summed = array("d", accumulate(map(float.__mul__, masses, _MIDDLES), initial=0.0))

    def left(self, age: float) -> float:
        """The part that is at work still at an age."""
        place = bin_of(age)
        over = _part_over(age, place)
        return 1.0 - self.ended[place] * over - self.ended[place + 1] * (1.0 - over)


def _masses(hazards: Sequence[float]) -> list[float]:
    left, masses = 1.0, []
    for hazard in hazards:
        mass = left * hazard
        masses.append(mass)
        left -= mass
    return masses


PRIOR = Belief(_masses([PRIOR_HAZARD] * BINS))


class Lifetimes:
    """Counts of one kind of runs. Ages are in seconds.

    Attributes:
        belief: What was made of the counts last.
    """

    __slots__ = ("_ended", "_entered", "_runs", "_unit", "belief")

    def __init__(self) -> None:
        self.belief = PRIOR
        self._ended = array("d", bytes(8 * BINS))
        # At risk in a bin are those that entered it or one before, less those that ended before;
        # whoever was only seen as far as an age leaves again there.
        self._entered = array("d", bytes(8 * (BINS + 1)))
        self._runs = 0.0
        self._unit = 1.0

    @property
    def runs(self) -> float:
        """Finished runs, the older ones counted for less."""
        return self._runs / self._unit

    def survived(self, known_age: float, age: float) -> None:
        """A run that was at work at `known_age` was so at `age` too."""
        self._enter(known_age, self._unit)
        self._enter(age, -self._unit)

    def ended(self, known_age: float, age: float) -> None:
        """A run that was at work at `known_age` had ended at `age`."""
        self._fade()
        unit = self._unit
        self._enter(known_age, unit)
        self._runs += unit
        first, last = bin_of(known_age), bin_of(age)
        masses = self.belief.masses[first : last + 1]
        masses[0] *= _part_over(known_age, first)
        if first < last:
            masses[-1] *= 1.0 - _part_over(age, last)
        total = sum(masses)
        if first == last or total < 1e-9:  # noqa: PLR2004 - believed to be impossible, yet it is so
            self._ended[last] += unit
            return
        for place, mass in enumerate(masses, first):
            self._ended[place] += unit * mass / total

    def believe(self) -> Belief:
        """Make a belief of the counts."""
        prior = PRIOR_RUNS * self._unit
        prior_ended = prior * PRIOR_HAZARD
        ended = _smoothed(self._ended)
        before = accumulate(self._ended, initial=0.0)
        at_risk = [
            max(entered - gone, 0.0)
            for entered, gone in zip(accumulate(self._entered), before, strict=False)
        ]
        hazards = [
            min((gone + prior_ended) / (risked + prior), 1.0)
            for gone, risked in zip(ended, _smoothed(at_risk[:BINS]), strict=True)
        ]
        self.belief = Belief(_masses(hazards))
        return self.belief

    def forget(self, runs_kept: float) -> None:
        """Let all counts together weigh as much as this many runs, if they weigh more."""
        if self.runs > runs_kept:
            self._scale(runs_kept / self.runs)

    def counts(self) -> tuple[list[float], list[float]]:
        """What `take` takes: by bin the ended, and those that entered, in runs."""
        return _short(self._ended, self._unit), _short(self._entered, self._unit)

    def take(self, ended: Sequence[float], entered: Sequence[float]) -> None:
        """Begin with these counts.

        Raises:
            ValueError: They can't be counts of anything.
        """
        if len(ended) > BINS or len(entered) > BINS + 1:
            raise ValueError
        if not all(map(isfinite, (*ended, *entered))) or min(ended, default=0.0) < 0.0:
            raise ValueError
        if sum(ended) > 2 * HALF_LIFE_RUNS or max(map(abs, entered), default=0.0) > _UNIT_MAX:
            raise ValueError
        self._ended[: len(ended)] = array("d", ended)
        self._entered[: len(entered)] = array("d", entered)
        self._runs = sum(ended)

    def _enter(self, age: float, count: float) -> None:
        """A bin that is entered in its middle counts for the part that is left of it."""
        place = bin_of(age)
        over = count * _part_over(age, place)
        self._entered[place] += over
        self._entered[place + 1] += count - over

    def _fade(self) -> None:
        self._unit *= 2.0 ** (1.0 / HALF_LIFE_RUNS)
        if self._unit > _UNIT_MAX:
            self._scale(1.0 / self._unit)
            self._unit = 1.0

    def _scale(self, by: float) -> None:
        self._ended = array("d", [count * by for count in self._ended])
        self._entered = array("d", [count * by for count in self._entered])
        self._runs *= by


def _smoothed(counts: Sequence[float]) -> list[float]:
    """Each bin with its neighbours, 1 2 3 2 1.

    A bin of 3 % has few ends of its own, and a schedule that believes their chance gaps pays for
    it. Wider kernels were measured, and cost more than they bring: they blur real edges.
    """
    padded = [counts[0], counts[0], *counts, counts[-1], counts[-1]]
    return [
        (one + five + 2.0 * (two + four) + 3.0 * three) / 9.0
        for one, two, three, four, five in zip(
            padded, padded[1:], padded[2:], padded[3:], padded[4:], strict=False
        )
    ]


def _short(counts: "array[float]", unit: float) -> list[float]:
    """In runs, to five digits, without the zeros at the end."""
    last = max((place for place, count in enumerate(counts) if count), default=-1)
    return [float(f"{count / unit:.5g}") for count in counts[: last + 1]]
