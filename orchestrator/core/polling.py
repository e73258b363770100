"""When to look again at a run, and when to try again after a failure.

Both grow exponentially. A server's hint is a lower bound. Chance comes in as a number between
0 and 1, so that runs that were created together are not checked together for ever.
"""

from dataclasses import dataclass

# Both sides of the planned gap, so that the mean gap is the planned one.
JITTER = 0.1

# A check that comes later than this after the end finds the result gone (families.py); half of
# that leaves room for several failed checks in a row.
KEPT_PART_MAX = 0.5


@dataclass(frozen=True, slots=True)
class Polling:
    """Exponential backoff between the checks of one run, in seconds."""

    first_seconds: float = 0.5
    factor: float = 1.5
    gap_seconds_max: float = 5.0

    def gap_seconds(
        self, looks: int, hint_seconds: float | None, keeps_result_seconds: float, chance: float
    ) -> float:
        """The gap before the next check.

        Args:
            looks: Checks since the run was created or was last given tool outputs, from 0.
            hint_seconds: The server's wish (`openai-poll-after-ms`, `Retry-After`), if any.
            keeps_result_seconds: How long the API keeps a finished result.
            chance: Uniform in [0, 1), for the jitter.
        """
        # 1.5 ** 64 is far over every cap, and an unbounded power overflows one day.
        planned = min(self.first_seconds * self.factor ** min(looks, 64), self.gap_seconds_max)
        jittered = planned * (1 - JITTER + 2 * JITTER * chance)
        return min(max(jittered, hint_seconds or 0.0), keeps_result_seconds * KEPT_PART_MAX)


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
