"""The time, as the event loop tells it; a test's loop tells a virtual one."""

import asyncio
import time


def unix_now() -> float:
    """Seconds since 1970, for what people and servers read."""
    return time.time()  # noqa: TID251 - this is the clock that everybody else asks


class LoopClock:
    """The running loop's clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        """Seconds, monotonic; only differences mean anything."""
        return self._loop.time()

    def unix(self) -> float:
        """Seconds since 1970."""
        return unix_now()
