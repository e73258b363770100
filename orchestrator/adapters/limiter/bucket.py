"""The limits of one lane: pace, tokens, pauses, and what the server says about them."""

from orchestrator.adapters.limiter.pace import (
    WINDOW_SECONDS,
    Pace,
    burst_for,
    calls_per_second,
)
from orchestrator.adapters.limiter.window import Window
from orchestrator.ports import LimitsTold

# Tokens are let out in bursts of up to three seconds' worth.
TOKEN_BURST_PART = 0.05

# After a 429: a pause of at least this long, then half the rate, which grows by half every 5 s.
# An answer that names no time must still stop the flood that caused it.
PAUSE_SECONDS_MIN = 1.0
SLOW_START_PART = 0.5
GROWTH = 1.5
GROWTH_SECONDS = 5.0
SLOW_START_CALLS_PER_SECOND_MIN = 0.5
# Where we know no limit, the slow start is over at this many times its first rate.
SLOW_START_OVER = 8.0

# Strangers use the same quota when the server has counted so much more than we sent: two seconds'
# worth, for its window and ours are never cut at the same instant.
STRANGERS_SECONDS = 2.0
STRANGERS_CALLS_MIN = 5.0

INFINITE = float("inf")


class Bucket:
    """One lane. `rpm` and `tpm` are None where no limit is known. All times are `now`."""

    def __init__(self, rpm: float | None, tpm: float | None) -> None:
        self.rpm = rpm
        self.tpm = tpm
        self._pace = None if rpm is None else Pace(burst_for(rpm), calls_per_second(rpm))
        self._token_pace = None if tpm is None else _token_pace(tpm)
        self._calls = Window()
        self._tokens = Window()
        self._strange_calls = Window()
        self._strange_tokens = Window()
        self._looked_for_strangers_at = -INFINITE
        self._paused_until = -INFINITE
        self._slow_since: float | None = None
        self._slow_rate = 0.0  # calls per second when the slow start began
        self._slow_pace: Pace | None = None

    def tokens_free(self, now: float) -> float | None:
        """The tokens that a call sent now may reserve; None when none may be sent now."""
        if self._seconds_until_call(now) > 0:
            return None
        if self.tpm is None or self._token_pace is None:
            return INFINITE
        if self._token_pace.seconds_until(0) > 0:
            return 0.0
        used = self._tokens.total(now)
        # A request larger than the limit can only go alone; the server has the last word on it.
        return INFINITE if used <= 0 else max(self.tpm - used, 0.0)

    def take(self, tokens: float, now: float) -> None:
        """A call is sent now."""
        self._calls.add(1, now)
        for pace in (self._pace, self._slow_pace):
            if pace is not None:
                pace.take(1)
        if tokens:
            self._tokens.add(tokens, now)
            if self._token_pace is not None:
                self._token_pace.take(tokens)

    def seconds_until(self, tokens: float, now: float) -> float:
        """How long until a call that reserves these tokens may be sent; 0 when now."""
        wait = self._seconds_until_call(now)
        if self.tpm is None or self._token_pace is None or tokens <= 0:
            return wait
        return max(
            wait,
            self._token_pace.seconds_until(0),
            self._tokens.seconds_until(tokens, self.tpm, now),
        )

    def _seconds_until_call(self, now: float) -> float:
        wait = max(self._paused_until - now, 0.0)
        if self._pace is not None:
            wait = max(wait, self._pace.seconds_until(1))
        if self._slow_since is not None:
            wait = max(wait, self._slow_start_wait(now))
        return wait

    # What the server says.

    def refused(self, retry_after_seconds: float | None, now: float) -> None:
        """A call was turned away with 429. Of a refused volley only the first one slows us down."""
        pause = max(retry_after_seconds or 0.0, PAUSE_SECONDS_MIN)
        already_slow = now < self._paused_until
        self._paused_until = max(self._paused_until, now + pause)
        if already_slow:
            return
        before = self._calls.rate(now)
        if self.rpm is not None:
            before = min(before, calls_per_second(self.rpm))
        self._slow_rate = max(before * SLOW_START_PART, SLOW_START_CALLS_PER_SECOND_MIN)
        self._slow_since = self._paused_until
        self._slow_pace = Pace(1, self._slow_rate)

    def _slow_start_wait(self, now: float) -> float:
        if self._slow_since is None or self._slow_pace is None:
            return 0.0
        steps = max(now - self._slow_since, 0.0) // GROWTH_SECONDS
        allowed = self._slow_rate * GROWTH ** min(steps, 64)
        full = self._slow_rate * SLOW_START_OVER
        if allowed >= (full if self.rpm is None else calls_per_second(self.rpm)):
            self._slow_since = self._slow_pace = None
            return 0.0
        self._slow_pace.set_rate(allowed)
        return self._slow_pace.seconds_until(1)

    def told(self, limits: LimitsTold, sent_at: float, now: float) -> None:
        """The headers of an answer to a call sent at `sent_at`. Only what is stricter counts."""
        if _stricter(limits.requests_limit, self.rpm):
            self._take_over_rpm(float(limits.requests_limit or 1), now)
        if _stricter(limits.tokens_limit, self.tpm):
            self._take_over_tpm(float(limits.tokens_limit or 1))
        if now - self._looked_for_strangers_at >= 1.0:
            self._looked_for_strangers_at = now
            self._look_for_strangers(limits, sent_at, now)

    def _take_over_rpm(self, rpm: float, now: float) -> None:
        self.rpm = rpm
        self._pace = Pace(burst_for(rpm), calls_per_second(rpm))
        # What went out before we knew counts against the limit all the same.
        self._pace.take(min(self._calls.total(now), rpm))

    def _take_over_tpm(self, tpm: float) -> None:
        self.tpm = tpm
        self._token_pace = _token_pace(tpm)

    def _look_for_strangers(self, limits: LimitsTold, sent_at: float, now: float) -> None:
        """Others may use the same quota: what the server counted beyond ours is taken as used."""
        if self.rpm is not None and self._pace is not None:
            strange = _beyond(
                limits.requests_limit, limits.requests_remaining, self._calls, sent_at
            ) - self._strange_calls.total(now)
            if strange > max(self.rpm / 60 * STRANGERS_SECONDS, STRANGERS_CALLS_MIN):
                self._strange_calls.add(strange, now)
                self._pace.take(strange)
        if self.tpm is not None:
            strange = _beyond(limits.tokens_limit, limits.tokens_remaining, self._tokens, sent_at)
            if strange > self.tpm / 60 * STRANGERS_SECONDS:
                self._tokens.correct(strange, sent_at)

    def spent(self, reserved: float, used: float, taken_at: float) -> None:
        """A call used another number of tokens than it reserved."""
        self._tokens.correct(used - reserved, taken_at)


def _token_pace(tpm: float) -> Pace:
    return Pace(tpm * TOKEN_BURST_PART, tpm / WINDOW_SECONDS)


def _stricter(told: int | None, ours: float | None) -> bool:
    return told is not None and told > 0 and (ours is None or told < ours)


def _beyond(limit: int | None, remaining: int | None, ours: Window, sent_at: float) -> float:
    if limit is None or remaining is None:
        return 0.0
    return limit - remaining - ours.sent_until(sent_at)
