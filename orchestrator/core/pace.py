"""How an execution stands at one moment, and how long it will take yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

# Moments that the pace is told from. Twice as far apart each time they are too many, so they
# always cover everything since the start.
MOMENTS_MAX = 64
MOMENTS_APART_SECONDS = 1.0

# A step that took so many times the usual one means that nobody looked: the process was suspended
# or the machine asleep. Nothing could end then, so it counts as a usual step.
STEP_TIMES_MAX = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """How an execution stands at one moment, for the progress display."""

    total: int | None  # requests, None when the source does not say
    waiting: int  # requests that have no run on the server yet, those not yet read included
    running: int
    tools: int  # runs that wait for our tool handlers
    done: int  # completed
    failed: int  # ended in any other way
    calls_per_minute: float
    rpm: float | None  # the limit in force, None when nobody told one
    tokens_in: int
    tokens_out: int
    cost_usd: float | None  # None when there is no price
    seconds_left: float | None  # None while it can't be told
    seconds_passed: float
    batches: int = 0  # on the server now; with them run all their lines
    answered_in_batches: int = 0  # lines of these that the server has answered, results to come

    @property
    def ended(self) -> int:
        return self.done + self.failed


@dataclass(frozen=True, slots=True)
class Moment:
    """How many requests had ended at a time."""

    seconds: float
    ended: int


class Pace:
    """How fast requests end, from a bounded number of moments since the start."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self._apart_seconds = MOMENTS_APART_SECONDS

    def note(self, now: float, ended: int) -> None:
        """So many requests had ended at `now`, seconds on any clock that does not go back."""
        moment = Moment(now, ended)
        if len(self.moments) >= 2 and now - self.moments[-2].seconds < self._apart_seconds:  # noqa: PLR2004 - the newest and the one before it
            self.moments[-1] = moment
            return
        self.moments.append(moment)
        if len(self.moments) > MOMENTS_MAX:
            self.moments = self.moments[::2]
            self._apart_seconds *= 2

    def seconds_left(self, left: int | None) -> float | None:
        """How long `left` more requests will take; None while that can't be told."""
        return seconds_left(self.moments, left)


def seconds_left(moments: Sequence[Moment], left: int | None) -> float | None:
    """How long `left` more requests will take, going by the later half of those that ended.

    The half moves along with the execution: a slow start is forgotten, a pause weighs less and
    less, and there is always an estimate once a request has ended. None before that, and when
    nobody knows how many are left.
    """
    if left is None or not moments:
        return None
    if left <= 0:
        return 0.0
    half = (moments[0].ended + moments[-1].ended) / 2
    start = max(index for index, moment in enumerate(moments) if moment.ended <= half)
    seconds = _seconds_awake(moments[start:])
    ended = moments[-1].ended - moments[start].ended
    return left * seconds / ended if ended > 0 and seconds > 0 else None


def _seconds_awake(moments: Sequence[Moment]) -> float:
    steps = [after.seconds - before.seconds for before, after in pairwise(moments)]
    if not steps:
        return 0.0
    usual = median(steps)
    return sum(step if step <= STEP_TIMES_MAX * usual else usual for step in steps)
