"""The library's leaky bucket, asked without waiting, and how it is set so that no window overflows.

A bucket of capacity k that leaks r calls a second lets at most k + ceil(r W) - 1 calls into a
half-open window of W seconds. So with r = (rpm - k + 1) / W no window of W seconds holds more than
rpm. (`AsyncLimiter(rpm, 60)` would let nearly twice the limit through in the first minute: a full
burst and the drip at once.)
"""

import math

from aiolimiter import AsyncLimiter

# Calls may arrive closer together than they were sent: opening a connection delays the first one by
# a round trip or two. This much longer than a minute costs half a percent of the permits.
JITTER_SECONDS = 0.3
WINDOW_SECONDS = 60 + JITTER_SECONDS

# The burst bridges the lateness of timers (a millisecond or two, more on a busy machine): a tenth
# of a second's worth of permits, at least two; one where permits are half a second apart anyway.
BURST_SECONDS = 0.1
RPM_WITH_BURST_MIN = 120

# A billionth of a permit is rounding, not usage.
ROUNDING = 1e-9


def burst_for(rpm: float) -> int:
    """The capacity of the bucket for this many requests per minute."""
    return 1 if rpm < RPM_WITH_BURST_MIN else max(2, math.floor(rpm / 60 * BURST_SECONDS))


def calls_per_second(rpm: float) -> float:
    """The leak that keeps every window within `rpm`."""
    return (rpm - burst_for(rpm) + 1) / WINDOW_SECONDS


class Pace(AsyncLimiter):
    """A bucket of `capacity` that leaks `per_second`; time is the running loop's."""

    def __init__(self, capacity: float, per_second: float) -> None:
        super().__init__(capacity, capacity / per_second)

    def take(self, amount: float) -> None:
        """Take this much, over the top if need be: then it is closed until that has leaked out."""
        self._leak()
        self._level += amount

    def seconds_until(self, amount: float) -> float:
        """How long until `amount` fits; 0 when it does now."""
        self._leak()
        over = self._level + amount - self.max_rate
        return over / self._rate_per_sec if over > ROUNDING else 0.0

    def set_rate(self, per_second: float) -> None:
        """Leak this fast from now on."""
        self._leak()
        self._rate_per_sec = per_second
        self.time_period = self.max_rate / per_second
