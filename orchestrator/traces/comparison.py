"""Compares ways of polling at the same mean delay: that of the backoff which is there without them.

The learned policy and the offline optimum have a dial, the price of a check. It is found by search,
so that their mean delay is at most that of the backoff; what is compared is how many checks they
take then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt

from orchestrator.core.polling import Polling
from orchestrator.core.tally import percentile
from orchestrator.traces.reading import Trace
from orchestrator.traces.replaying import Replay, Tally

FIXED_SECONDS = (1.0, 2.5)
BACKOFF, LEARNED, OFFLINE = "backoff", "learned", "offline-optimum"

# The dial: where it may be, how many prices are tried, and when it is near enough.
PRICE_MIN, PRICE_MAX = 1e-4, 1e4
TRIES_MAX = 14
NEAR_ENOUGH = 0.985
TARGETED = 0.993
STEP_MIN, STEP_MAX = 1.25, 8.0

# On a short trace what is measured jumps with the price, so its neighbours are tried too.
RUNS_TO_TRY_AROUND = 20_000
AROUND = (0.75, 0.82, 0.9, 0.95, 1.05, 1.1, 1.2, 1.3)
APART_MIN = 1.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a policy costs, and what it is worth. The price is set where there is a dial."""

    policy: str
    checks_per_run: float
    delay_mean_seconds: float
    delay_p50_seconds: float
    delay_p95_seconds: float
    check_price_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All policies on one trace.

    Attributes:
        runs: That were counted.
        keys: That were learned apart.
        figures: By policy, in the order of the table.
        curves: For a plot: points of (checks per run, mean delay) as the dial is turned.
    """

    runs: int
    keys: int
    figures: list[Figures]
    curves: dict[str, list[tuple[float, float]]]


@dataclass(slots=True)
class _Dial:
    """Turns a dial until the mean delay is as wanted, or a little less."""

    measure: Callable[[float], Tally]
    target_seconds: float
    around: Sequence[float] = ()  # also tried, as multiples of the price that was nearest
    tried: dict[float, Tally] = field(default_factory=dict)

    def find(self, start: float) -> tuple[float, Tally]:
        """The price with the fewest checks of all that keep the delay, and what it did."""
        low: float | None = None
        high: float | None = None
        price = min(max(start, PRICE_MIN), PRICE_MAX)
        while len(self.tried) < TRIES_MAX or low is None:
            tally = self.tried[price] = self.measure(price)
            if tally.delay_mean_seconds <= self.target_seconds:
                low = price
                if tally.delay_mean_seconds >= NEAR_ENOUGH * self.target_seconds:
                    break
            else:
                high = price
            if low is not None and high is not None and high / low < APART_MIN:
                break
            price = self._next(price, tally.delay_mean_seconds, low, high)
            if price in self.tried:
                break
        near = min(self.tried, key=lambda price: abs(self._off(price)))
        for factor in self.around:
            self.tried[near * factor] = self.measure(near * factor)
        kept = {
            price: tally
            for price, tally in self.tried.items()
            if tally.delay_mean_seconds <= self.target_seconds
        }
        if not kept:  # no price in range is low enough: the lowest is the nearest
            kept = {price: tally for price, tally in self.tried.items() if price == min(self.tried)}
        best = min(kept, key=lambda price: (kept[price].checks, price))
        return best, kept[best]

    def _off(self, price: float) -> float:
        return self.tried[price].delay_mean_seconds - self.target_seconds

    def _next(self, price: float, delay: float, low: float | None, high: float | None) -> float:
        """Delays grow with about the square root of the price; halving makes sure of an end."""
        factor = (TARGETED * self.target_seconds / delay) ** 2 if delay else STEP_MAX
        guess = price * min(max(factor, 1 / STEP_MAX), STEP_MAX)
        # What is measured has steps: a guess that hardly moves would stay on one.
        if low is None:
            guess = min(guess, price / STEP_MIN)
        if high is None:
            guess = max(guess, price * STEP_MIN)
        if low is not None and high is not None and not low * 1.01 < guess < high / 1.01:
            guess = sqrt(low * high)
        return min(max(guess, PRICE_MIN), PRICE_MAX)

    def curve(self) -> list[tuple[float, float]]:
        points = {(t.checks_per_run, t.delay_mean_seconds) for t in self.tried.values()}
        return sorted(points)


def compare(trace: Trace, polling: Polling, *, skip: int = 0, curves: bool = False) -> Comparison:
    """All policies on a trace.

    Args:
        trace: The runs.
        polling: The backoff to compare with.
        skip: Of each key, so many runs are learned from, and not counted.
        curves: Whether the offline optimum's curve is wanted whole, for a plot.
    """
    replay = Replay(trace, polling, skip=skip)
    backoff = replay.backoff()
    figures = [_figures(f"fixed-{gap:g}s", replay.fixed(gap)) for gap in FIXED_SECONDS]
    figures.append(_figures(BACKOFF, backoff))
    offline = _Dial(replay.offline, backoff.delay_mean_seconds)
    price, tally = offline.find(1.0)
    best = _figures(OFFLINE, tally, price)
    around = AROUND if len(trace.runs) <= RUNS_TO_TRY_AROUND else ()
    learned = _Dial(replay.learned, backoff.delay_mean_seconds, around)
    # A dial that makes no difference to the optimum is near its middle, not at its end.
    price, tally = learned.find(min(max(price, 0.03), 30.0))
    figures += [_figures(LEARNED, tally, price), best]
    if curves:
        for factor in (0.25, 0.5, 2.0, 4.0):
            for dial in (offline, learned):
                at = factor * (best.check_price_seconds or 1.0)
                dial.tried.setdefault(at, dial.measure(at))
    drawn = {OFFLINE: offline.curve(), LEARNED: learned.curve()}
    return Comparison(replay.runs, replay.keys, figures, drawn)


def _figures(policy: str, tally: Tally, price: float | None = None) -> Figures:
    delays = sorted(tally.delays_seconds) or [0.0]
    return Figures(
        policy=policy,
        checks_per_run=tally.checks_per_run,
        delay_mean_seconds=tally.delay_mean_seconds,
        delay_p50_seconds=percentile(delays, 50),
        delay_p95_seconds=percentile(delays, 95),
        check_price_seconds=price,
    )
