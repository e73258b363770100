"""When to look at a run again, learned from how long runs like it took.

A check too early costs a call, a check too late is delay; `check_price_seconds` says how many
seconds of delay a check is worth, and is the only dial. For each kind of runs (family, model, url,
and whether it waits for tools' outputs to be worked on) lifetimes.py counts what checks tell, with
runs that were only seen to be at work counted rightly (Kaplan and Meier 1958; Turnbull 1976), and
inspection.py places the checks where price x checks + delay is least (Barlow, Hunter and Proschan
1963; Keller 1974), for the run's age: a hint, a late check or a restart changes nothing else.

- **Too little is known** before the first dozen runs has ended: then, and past a day, the caller
  falls back to backoff. A belief of one run's weight, in which gaps grow with the square root of
  the age, fills what was not seen yet, and the far tail.
- **The price rises by itself**: a check that takes a permit while others wait for one delays all of
  them, together by as much as it waited itself. So the mean lateness of checks is added to it.
- **Changes**: counts fade with a half-life of 1,000 runs. Three tests (cumulative sums of log
  likelihood ratios: Page, "Continuous inspection schemes", 1954) ask after every look whether runs
  now end thrice as fast, thrice as slowly, or at ages when none did. On alarm what was learned is
  all but forgotten; unless runs have become slower, backoff finds out where they end now.
- **Exploration**: where nobody looks, nothing is learned. Jitter shifts each check a little, and 3
  in 100 runs are looked at once at a random moment before their first check.

- **Backoff stays** where the schedule does not promise to be a tenth cheaper, by the same belief.

Measured by benchmarks/policies.py, where the traces and the bounds are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import log, sqrt
from typing import NamedTuple

from orchestrator.core.inspection import Schedule, cheapest
from orchestrator.core.lifetimes import AGES, LAST_SECONDS, Belief, Lifetimes, bin_of, place_of
from orchestrator.core.polling import Polling

# Kinds that are kept, each in some 20 kB; those that were not met for longest go first.
KINDS_MAX = 1_000
KINDS_KEPT_MAX = 200  # for the next execution

# Finished runs before anything is believed.
RUNS_MIN = 12

# A schedule is made anew when so many more runs have ended, by part or by number.
GROWTH = 1.15
RUNS_BETWEEN_MAX = 60

# ... or when the price has changed by this factor.
PRICE_CHANGE = 1.25

# How far the price may rise over what was set, and how fast the mean of lateness follows.
PRICE_RISE_MAX = 16.0
LATENESS_WEIGHT = 1 / 64

# Of the gap, to both sides; and of the gap that would be best if the runs went on ending as they do
# just before the planned check, so that a check right behind a sharp edge stays behind it.
JITTER = 0.05
JITTER_OF_STEP = 0.25
PROBES = 0.03
GAP_SECONDS_MIN = 0.05

# What the tests ask: hazards so many times as high or low. An alarm comes falsely about once in
# exp(ALARM) looks. That runs are slower is seen by looking on; that they are faster is not, so some
# runs are looked at by backoff, and what these tell must confirm it.
CHANGE = 3.0
ALARM = 11.0
TRIAL_RUNS = 4
CONFIRMED = 3.0

# What was learned weighs as much as this many runs after a change.
RUNS_KEPT_SLOWER = 30.0
RUNS_KEPT_FASTER = 4.0

# A schedule must promise this much less than backoff: what it promises is flattered by the chance
# in what it was fitted to. Backoff is reckoned as far as some in a thousand are left.
GAIN = 0.9
BACKOFF_LOOKS_MAX = 200
BACKOFF_LEFT_MIN = 0.003

FASTER, SLOWER, ELSEWHERE = range(3)


class Kind(NamedTuple):
    """What runs have in common that take about as long."""

    family: str
    model: str
    url: str
    after_outputs: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """What was learned of a kind, for the next execution; see `Lifetimes.counts`."""

    kind: Kind
    ended: tuple[float, ...]
    entered: tuple[float, ...]


@dataclass(slots=True)
class _Known:
    """A kind: what is counted, and what follows from it."""

    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    runs: int = 0  # that ended since nothing was known
    runs_then: int = 0  # when the schedule was made
    price: float = 0.0  # likewise
    schedule: Schedule | None = None
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    is_better: bool = False  # than backoff, by what is believed
    trial: int = 0  # runs that have yet to end before an alarm is believed

    def is_stale(self, price: float) -> bool:
        if self.schedule is None:
            return self.runs >= RUNS_MIN
        grown = min(self.runs_then * GROWTH, self.runs_then + RUNS_BETWEEN_MAX)
        changed = not 1 / PRICE_CHANGE <= price / self.price <= PRICE_CHANGE
        return self.runs >= grown or changed

    def make_schedule(self, price: float, polling: Polling) -> None:
        belief = self.lifetimes.believe()
        self.schedule = cheapest(AGES, belief.ended, belief.summed, price, spread_within=True)
        self.price, self.runs_then = price, max(self.runs, RUNS_MIN)
        self.is_better = self.schedule.cost < GAIN * _backoff_cost(belief, polling, price)


class Learned:
    """Plans checks by what it was told of earlier ones. Times are in seconds, ages of runs.

    Args:
        check_price_seconds: The delay that is worth a check, greater than 0.
        kept: What an earlier execution has learned.
        polling: The backoff that the caller falls back to.
    """

    def __init__(
        self,
        check_price_seconds: float,
        kept: Iterable[Kept] = (),
        polling: Polling | None = None,
    ) -> None:
        self._polling = polling or Polling()
        self._price_set = check_price_seconds
        self._lateness = 0.0
        self._kinds: dict[Kind, _Known] = {}
        for each in islice(kept, KINDS_MAX):
            known = self._known(each.kind)
            known.lifetimes.take(each.ended, each.entered)
            known.runs = int(known.lifetimes.runs)

    @property
    def price_seconds(self) -> float:
        """What a check is worth now."""
        return min(self._price_set + self._lateness, self._price_set * PRICE_RISE_MAX)

    def check_sent(self, late_seconds: float) -> None:
        """A check goes out, so much later than planned."""
        late = min(max(late_seconds, 0.0), self._price_set * PRICE_RISE_MAX)
        self._lateness += (late - self._lateness) * LATENESS_WEIGHT

    def gap_seconds(self, kind: Kind, age: float, looks: int, chance: float) -> float | None:
        """The gap before the next check; None: too little is known.

        Args:
            kind: Of the run.
            age: Since it was created, or its tool outputs were accepted; it is at work still.
            looks: Checks since then.
            chance: Uniform in [0, 1).
        """
        known = self._kinds.get(kind)
        if known is None or not 0.0 <= age < LAST_SECONDS:
            return None
        price = self.price_seconds
        if known.is_stale(price):
            known.make_schedule(price, self._polling)
        if known.schedule is None or known.trial or not known.is_better:
            return None
        probes = looks == 0 and chance < PROBES
        if looks == 0:  # what is left of chance is as uniform
            chance = chance / PROBES if probes else (chance - PROBES) / (1 - PROBES)
        gap, jitter = _planned(known.schedule, known.lifetimes.belief, age, price)
        gap = gap * chance if probes else gap + jitter * (2 * chance - 1)
        return max(gap, GAP_SECONDS_MIN)

    def still_running(self, kind: Kind, known_age: float, age: float) -> None:
        """A run that was at work at `known_age` was so at `age` too."""
        known = self._known(kind)
        self._test(known, known_age, age, ended=False)
        known.lifetimes.survived(known_age, age)

    def ended(self, kind: Kind, known_age: float, age: float) -> None:
        """A run that was at work at `known_age` had ended, or asked for tools, at `age`."""
        known = self._known(kind)
        self._kinds[kind] = self._kinds.pop(kind)  # the newest is last
        self._test(known, known_age, age, ended=True)
        known.lifetimes.ended(known_age, age)
        known.runs += 1
        if known.trial:
            known.trial -= 1
            self._settle(known)

    def kept(self) -> Iterator[Kept]:
        """What was learned, for the next execution."""
        for kind, known in islice(reversed(self._kinds.items()), KINDS_KEPT_MAX):
            ended, entered = known.lifetimes.counts()
            yield Kept(kind, tuple(ended), tuple(entered))

    def _known(self, kind: Kind) -> _Known:
        known = self._kinds.get(kind)
        if known is None:
            if len(self._kinds) >= KINDS_MAX:
                del self._kinds[next(iter(self._kinds))]
            known = self._kinds[kind] = _Known()
        return known

    def _test(self, known: _Known, known_age: float, age: float, *, ended: bool) -> None:
        """Whether runs end otherwise than believed."""
        if known.schedule is None:
            return
        belief, lifetimes = known.lifetimes.belief, known.lifetimes
        # What was believed after n runs is not surer than 1 in n.
        doubt = 1.0 / (lifetimes.runs + 2.0)
        at_work = belief.left(age) / max(belief.left(known_age), 1e-9)
        at_work = min(max(at_work, doubt), 1.0 - doubt)
        others = (at_work**CHANGE, at_work ** (1 / CHANGE), at_work / 2)
        for test, other in enumerate(others):
            ratio = (1.0 - other) / (1.0 - at_work) if ended else other / at_work
            known.sums[test] = max(known.sums[test] + log(ratio), 0.0)
        if known.sums[SLOWER] > ALARM:
            known.sums = [0.0, 0.0, 0.0]
            lifetimes.forget(RUNS_KEPT_SLOWER)
            known.runs = known.runs_then = RUNS_MIN
        elif max(known.sums) > ALARM and not known.trial:
            known.sums = [0.0, 0.0, 0.0]
            known.trial = TRIAL_RUNS

    def _settle(self, known: _Known) -> None:
        """A run of the trial has ended: was the alarm false?"""
        is_confirmed = max(known.sums) > CONFIRMED
        if known.trial and not max(known.sums) > ALARM:
            return
        known.sums, known.trial = [0.0, 0.0, 0.0], 0
        if is_confirmed:
            known.lifetimes.forget(RUNS_KEPT_FASTER)
            known.runs, known.schedule = 0, None


def _backoff_cost(belief: Belief, polling: Polling, price: float) -> float:
    """About what backoff costs by a belief, as `Schedule.cost`."""
    age, left, cost = 0.0, 1.0, 0.0
    for looks in range(BACKOFF_LOOKS_MAX):
        gap = polling.gap_seconds(looks, None, LAST_SECONDS, 0.5)
        age += gap
        then = belief.left(age)
        cost += price * left + (left - then) * gap / 2
        left = then
        if left < BACKOFF_LEFT_MIN:
            break
    return cost


def _planned(schedule: Schedule, belief: Belief, age: float, price: float) -> tuple[float, float]:
    """The gap and how far chance may shift it."""
    place = bin_of(age)
    step = schedule.steps[place]
    if step and age + step < AGES[place + 1]:
        return step, step * JITTER
    place = place_of(age)
    if schedule.steps[place]:
        gap = max(AGES[place] - age, 0.0) + schedule.steps[place]
        return gap, schedule.steps[place] * JITTER
    target = schedule.following[place]
    gap = AGES[target] - age
    hazard = 1.0 - (1.0 - belief.ended[target]) / max(1.0 - belief.ended[target - 1], 1e-12)
    width = AGES[target] - AGES[target - 1]
    step = sqrt(2.0 * price * width / max(hazard, 1e-12))
    return gap, min(gap * JITTER, step * JITTER_OF_STEP)
