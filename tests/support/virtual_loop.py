"""An event loop whose clock jumps: a day of sleep takes a millisecond, a deadlock has a name.

The loop's selector never waits. When nothing is ready, time moves to the next timer. A loop with
nothing ready and no timer set would hang for ever in real life; here it raises `Deadlock`.
Worker threads are a legitimate reason to wait for ever, so tests that use threads or sockets are
marked `real_time` and get the ordinary loop.
"""

import asyncio
import selectors
from typing import Any

# Each turn of the loop costs this much virtual time. Without it a timer that rounding puts a hair
# into the past-that-is-now is due for ever, and the loop spins (seen with aiolimiter).
TICK_SECONDS = 1e-6


class Deadlock(RuntimeError):  # noqa: N818 - named for what happened
    """Every task waits and no timer is set: nothing can ever happen again."""


class _JumpingSelector(selectors.SelectSelector):
    """Reports what is ready now, and turns the wish to wait into a jump of the clock."""

    loop: "VirtualTimeLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready or timeout == 0:
            self.loop.advance(TICK_SECONDS)
            return ready
        if timeout is None:
            message = "every task waits and no timer is set"
            raise Deadlock(message)
        self.loop.advance(max(timeout, TICK_SECONDS))
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that starts at time 0 and never sleeps."""

    def __init__(self) -> None:
        self._now = 0.0
        selector = _JumpingSelector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds
