"""One bucket for each lane: a lane is a model, or all checks where they have their own limit."""

from orchestrator.adapters.limiter.bucket import Bucket
from orchestrator.ports import Clock, LimitsTold


class Limiter:
    """The right to send.

    Args:
        clock: The loop's time.
        rpm: Requests per minute of each lane; None: unlimited until the server's headers tell.
        tpm: Tokens per minute of each lane; None likewise.
        checks_lane: The name of the lane for checks, where they have a limit of their own.
        checks_rpm: That limit.
    """

    def __init__(
        self,
        clock: Clock,
        rpm: float | None = None,
        tpm: float | None = None,
        *,
        checks_lane: str | None = None,
        checks_rpm: float | None = None,
    ) -> None:
        self._clock = clock
        self._rpm = rpm
        self._tpm = tpm
        self._buckets: dict[str, Bucket] = {}
        # Lanes whose server sends token headers: those are the truth, and usage corrects nothing.
        self._told_of_tokens: set[str] = set()
        if checks_lane is not None:
            self._buckets[checks_lane] = Bucket(checks_rpm, None)

    def _bucket(self, lane: str) -> Bucket:
        bucket = self._buckets.get(lane)
        if bucket is None:
            bucket = self._buckets[lane] = Bucket(self._rpm, self._tpm)
        return bucket

    def tokens_free(self, lane: str) -> float | None:
        """The tokens that a call sent now may reserve; None when no call may be sent now."""
        return self._bucket(lane).tokens_free(self._clock.now())

    def take(self, lane: str, tokens: int) -> None:
        """A call is sent now and reserves these tokens."""
        self._bucket(lane).take(tokens, self._clock.now())

    def seconds_until(self, lane: str, tokens: int) -> float:
        """How long until a call that reserves these tokens may be sent; 0 when now."""
        return self._bucket(lane).seconds_until(tokens, self._clock.now())

    def spent(self, lane: str, reserved: int, used: int, taken_at: float) -> None:
        """A call that reserved tokens at `taken_at` used another number of them.

        Some servers count what was reserved and give nothing back; they say so in their headers,
        and then only a higher use is counted.
        """
        if lane in self._told_of_tokens:
            used = max(used, reserved)
        self._bucket(lane).spent(reserved, used, taken_at)

    def refused(self, lane: str, retry_after_seconds: float | None) -> None:
        """The server turned a call away for its rate (429)."""
        self._bucket(lane).refused(retry_after_seconds, self._clock.now())

    def told(self, lane: str, limits: LimitsTold, sent_at: float) -> None:
        """What an answer's headers say, for a call sent at `sent_at`."""
        if limits.tokens_remaining is not None:
            self._told_of_tokens.add(lane)
        self._bucket(lane).told(limits, sent_at, self._clock.now())

    def rpm_of(self, lane: str) -> float | None:
        """The limit in force, for the progress display."""
        return self._bucket(lane).rpm
