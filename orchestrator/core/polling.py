"""When to look again at a run, and when to try again after a failure.

Both grow exponentially. A server's hint is a lower bound. Chance comes in as a number between
0 and 1, so that runs that were created together are not checked together for ever.
"""

from dataclasses import dataclass
from math import sqrt

# Both sides of the planned gap, so that the mean gap is the planned one.
JITTER = 0.1

# A check that comes later than this after the end finds the result gone (families.py); half of
# that leaves room for several failed checks in a row.
KEPT_PART_MAX = 0.5

# No server knows so long beforehand; one that asks for more would have its runs forgotten.
HINT_SECONDS_MAX = 600.0

# A call for a group costs the same for 100 runs as for the last one. At a price p for a call, and
# n runs that end at a rate h each, gaps of g cost p / g in calls and n h g / 2 in delay per second;
# their sum is least at g = sqrt(2 p / (n h)). So gaps grow with the square root of how few are left
# (for lots: Harris, "How many parts to make at once", 1913; for inspections: Keller, "Optimum
# checking schedules for systems subject to random failure", 1974). While half of the group is left
# they do not: measured with lognormal durations up to a sigma of 0.5, that is enough for 100 runs
# that were created together to have 50 checks a call (the least was 52.7).
PART_LEFT_THIN = 0.5


@dataclass(frozen=True, slots=True)
class Polling:
    """Exponential backoff between the checks of one run, in seconds.

    When less than half of the runs that are checked together is left, the cap grows from
    `gap_seconds_max` up to `thin_gap_seconds_max`.
    """

    first_seconds: float = 0.5
    factor: float = 1.5
    gap_seconds_max: float = 5.0
    thin_gap_seconds_max: float = 30.0

    def gap_seconds(
        self,
        looks: int,
        hint_seconds: float | None,
        keeps_result_seconds: float,
        chance: float,
        part_left: float = 1.0,
    ) -> float:
        """The gap before the next check.

        Args:
            looks: Checks since the run was created or was last given tool outputs, from 0.
            hint_seconds: The server's wish (`openai-poll-after-ms`, `Retry-After`), if any.
            keeps_result_seconds: How long the API keeps a finished result.
            chance: Uniform in [0, 1), for the jitter.
            part_left: How much of its group is in flight still, above 0 and up to 1.
        """
        # 1.5 ** 64 is far over every cap, and an unbounded power overflows one day.
        planned = min(self.first_seconds * self.factor ** min(looks, 64), self._cap(part_left))
        jittered = planned * (1 - JITTER + 2 * JITTER * chance)
        return self.within(jittered, hint_seconds, keeps_result_seconds)

    def within(
        self, gap_seconds: float, hint_seconds: float | None, keeps_result_seconds: float
    ) -> float:
        """A gap that was planned, with the server's wish and what it keeps."""
        hint = min(hint_seconds or 0.0, HINT_SECONDS_MAX)
        return min(max(gap_seconds, hint), keeps_result_seconds * KEPT_PART_MAX)

    def _cap(self, part_left: float) -> float:
        """Only the cap grows: a run that just began, or was given outputs, is checked as ever."""
        if part_left >= PART_LEFT_THIN:
            return self.gap_seconds_max
        grown = self.gap_seconds_max * sqrt(PART_LEFT_THIN / part_left)
        return min(grown, max(self.thin_gap_seconds_max, self.gap_seconds_max))


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff between attempts at one call, in seconds.

    Half of each gap is left to chance, so that calls that failed together come back apart.
    """

    first_seconds: float = 0.5
    factor: float = 2.0
    gap_seconds_max: float = 30.0

    def gap_seconds(self, failures: int, retry_after_seconds: float | None, chance: float) -> float:
        """The gap after this many failures in a row (1 or more).

        `retry_after_seconds` is a minimum: jitter comes on top, or all who were told the same
        time come back at the same time.
        """
        planned = min(
            self.first_seconds * self.factor ** min(failures - 1, 64), self.gap_seconds_max
        )
        jittered = planned * (0.5 + 0.5 * chance)
        return jittered + max(0.0, retry_after_seconds or 0.0)
