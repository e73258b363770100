"""What was sent in the last minute, in slots, so that it costs the same at any rate."""

from collections import deque

from orchestrator.adapters.limiter.pace import WINDOW_SECONDS

# A slot leaves the window as a whole, when its last instant does; half a second costs 0.8 % of the
# limit.
SLOT_SECONDS = 0.5

# A rate is told from no less than this: a volley at the very start is no rate.
RATE_SECONDS_MIN = 1.0


class Window:
    """A sliding sum over `WINDOW_SECONDS`. Times come in as arguments and never go back."""

    def __init__(self) -> None:
        self._slots: deque[list[float]] = deque()  # [slot, amount], oldest first
        self._total = 0.0

    def total(self, now: float) -> float:
        """What the window holds now."""
        while self._slots and self._leaves_at(self._slots[0][0]) <= now:
            self._total -= self._slots.popleft()[1]
        if not self._slots:
            self._total = 0.0  # what rounding left behind
        return self._total

    def add(self, amount: float, now: float) -> None:
        self.total(now)  # lets go of what has left, also where nobody asks
        slot = now // SLOT_SECONDS
        if not self._slots or self._slots[-1][0] != slot:
            self._slots.append([slot, 0.0])
        self._slots[-1][1] += amount
        self._total += amount

    def correct(self, difference: float, at: float) -> None:
        """What was added at `at` was really so much more or less; too late is too late."""
        slot = at // SLOT_SECONDS
        for entry in self._slots:
            if entry[0] == slot:
                entry[1] += difference
                self._total += difference
                return

    def rate(self, now: float) -> float:
        """What was sent per second, from the first of what the window holds until now."""
        total = self.total(now)
        if not self._slots:
            return 0.0
        return total / max(now - self._slots[0][0] * SLOT_SECONDS, RATE_SECONDS_MIN)

    def sent_until(self, at: float) -> float:
        """The part of what the window holds that was sent at `at` or before."""
        return sum(amount for slot, amount in self._slots if slot * SLOT_SECONDS <= at)

    def seconds_until(self, room: float, limit: float, now: float) -> float:
        """How long until `room` is free under `limit`, if nothing more is sent."""
        missing = self.total(now) + room - limit
        for slot, amount in self._slots:
            if missing <= 0:
                return 0.0
            missing -= amount
            if missing <= 0:
                return max(self._leaves_at(slot) - now, 0.0)
        # More than the limit can ever hold: it may go when the window is empty.
        return max(self._leaves_at(self._slots[-1][0]) - now, 0.0) if self._slots else 0.0

    @staticmethod
    def _leaves_at(slot: float) -> float:
        return (slot + 1) * SLOT_SECONDS + WINDOW_SECONDS
