"""Requests and tokens per minute, judged strictly: no sliding 60 seconds ever hold more.

Windows are half open: a call at time t is judged against everything in (t - 60, t]. That is
stricter than the real service, which refills continuously; who keeps this limit keeps that one.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Literal, NamedTuple

from orchestrator.emulator.refusals import Refusal

WINDOW_SECONDS = 60.0
MILLISECONDS = 1000

Metric = Literal["requests", "tokens"]
_METRIC_NAMES: Mapping[Metric, str] = {
    "requests": "requests per min (RPM)",
    "tokens": "tokens per min (TPM)",
}


class Use(NamedTuple):
    """One call's place in the window."""

    at: float
    tokens: int
    admitted: bool


@dataclass(slots=True)
class Window:
    """What one model was asked for in the last 60 seconds, and the most it ever was.

    `requests` counts refused calls too where the settings say so; `admitted` never does.
    """

    uses: deque[Use] = field(default_factory=deque)
    requests: int = 0
    tokens: int = 0
    admitted: int = 0
    admitted_max: int = 0
    tokens_max: int = 0
    admitted_by_minute: dict[int, int] = field(default_factory=dict)

    def slide(self, now: float) -> None:
        """Forget what is 60 seconds old."""
        uses = self.uses
        while uses and uses[0].at <= now - WINDOW_SECONDS:
            gone = uses.popleft()
            self.requests -= 1
            self.tokens -= gone.tokens
            self.admitted -= gone.admitted

    def take(self, tokens: int, now: float) -> None:
        """Note an admitted call."""
        self.uses.append(Use(now, tokens, admitted=True))
        self.requests += 1
        self.tokens += tokens
        self.admitted += 1
        # A window's most is reached when its last call comes in, so looking here misses nothing.
        self.admitted_max = max(self.admitted_max, self.admitted)
        self.tokens_max = max(self.tokens_max, self.tokens)
        minute = int(now // WINDOW_SECONDS)
        self.admitted_by_minute[minute] = self.admitted_by_minute.get(minute, 0) + 1

    def refuse(self, now: float) -> None:
        """Note a refused call that counts all the same."""
        self.uses.append(Use(now, 0, admitted=False))
        self.requests += 1

    def request_wait(self, limit: int, now: float) -> float:
        """Seconds until one more request fits."""
        excess = self.requests + 1 - limit
        return self.uses[excess - 1].at + WINDOW_SECONDS - now if excess > 0 else 0.0

    def token_wait(self, limit: int, tokens: int, now: float) -> float:
        """Seconds until so many more tokens fit; they must fit into an empty window."""
        excess = self.tokens + tokens - limit
        for use in self.uses:
            if excess <= 0:
                break
            excess -= use.tokens
            wait = use.at + WINDOW_SECONDS - now
            if excess <= 0:
                return wait
        return 0.0

    def reset_seconds(self, now: float) -> float:
        """Seconds until nothing of the window is left."""
        return max(0.0, self.uses[-1].at + WINDOW_SECONDS - now) if self.uses else 0.0


class Limits:
    """The limits of every model, and who was let in."""

    def __init__(self, rpm: int | None, tpm: int | None, *, refused_count: bool) -> None:
        self._rpm = rpm
        self._tpm = tpm
        self._refused_count = refused_count
        self.windows: dict[str, Window] = {}
        self.refused: dict[Metric, int] = {"requests": 0, "tokens": 0}

    def admit(self, model: str, tokens: int, now: float) -> dict[str, str]:
        """Let a call in and give the headers its answer carries, or raise the 429 as a Refusal.

        Tokens are charged here, once; what an answer leaves unused is not given back.
        """
        window = self.windows.get(model)
        if window is None:
            window = self.windows[model] = Window()
        window.slide(now)
        if self._rpm is not None and window.requests + 1 > self._rpm:
            raise self._refusal(window, model, "requests", tokens, now)
        if self._tpm is not None and window.tokens + tokens > self._tpm:
            raise self._refusal(window, model, "tokens", tokens, now)
        window.take(tokens, now)
        return self._headers(window, now)

    def _refusal(
        self, window: Window, model: str, metric: Metric, tokens: int, now: float
    ) -> Refusal:
        by_requests = metric == "requests"
        used, asked = (window.requests, 1) if by_requests else (window.tokens, tokens)
        limit = (self._rpm if by_requests else self._tpm) or 0
        if self._refused_count:
            window.refuse(now)
        self.refused[metric] += 1
        headers = self._headers(window, now)
        scope = f"for {model} in organization org-emulator on {_METRIC_NAMES[metric]}"
        if asked > limit:
            message = (
                f"Request too large {scope}: Limit {limit}, Requested {asked}. The input or "
                "output tokens must be reduced in order to run successfully."
            )
            return Refusal(429, message, metric, "rate_limit_exceeded", headers=headers)
        # Whichever limit refused, who comes back after the wait must meet neither.
        wait = 0.0
        if self._rpm is not None:
            wait = window.request_wait(self._rpm, now)
        if self._tpm is not None:
            wait = max(wait, window.token_wait(self._tpm, tokens, now))
        milliseconds = max(1, ceil(wait * MILLISECONDS))
        headers["retry-after"] = str(max(1, ceil(wait)))
        headers["retry-after-ms"] = str(milliseconds)
        message = (
            f"Rate limit reached {scope}: Limit {limit}, Used {used}, Requested {asked}. "
            f"Please try again in {go_duration(milliseconds / MILLISECONDS)}."
        )
        return Refusal(429, message, metric, "rate_limit_exceeded", headers=headers)

    def _headers(self, window: Window, now: float) -> dict[str, str]:
        headers: dict[str, str] = {}
        if self._rpm is None and self._tpm is None:
            return headers
        reset = go_duration(window.reset_seconds(now))
        if self._rpm is not None:
            headers["x-ratelimit-limit-requests"] = str(self._rpm)
            headers["x-ratelimit-remaining-requests"] = str(max(0, self._rpm - window.requests))
            headers["x-ratelimit-reset-requests"] = reset
        if self._tpm is not None:
            headers["x-ratelimit-limit-tokens"] = str(self._tpm)
            headers["x-ratelimit-remaining-tokens"] = str(max(0, self._tpm - window.tokens))
            headers["x-ratelimit-reset-tokens"] = reset if window.tokens else "0s"
        return headers


def go_duration(seconds: float) -> str:
    """A duration as Go prints it, to the millisecond above: 12ms, 1s, 1.5s, 1m30s, 6m0s, 1h0m0s."""
    milliseconds = ceil(round(seconds * MILLISECONDS, 6))
    if milliseconds <= 0:
        return "0s"
    if milliseconds < MILLISECONDS:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60 * MILLISECONDS)
    hours, minutes = divmod(minutes, 60)
    shown = f"{rest / MILLISECONDS:g}s"
    if hours:
        return f"{hours}h{minutes}m{shown}"
    return f"{minutes}m{shown}" if minutes else shown
