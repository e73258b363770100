"""The time, as the event loop tells it; a test's loop tells a virtual one."""

import asyncio
import time


class LoopClock:
    """The running loop's clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        """Seconds, monotonic."""
        return self._loop.time()

    def unix(self) -> float:
        """Seconds since 1970."""
        return time.time()  # noqa: TID251 - this is the Clock that everybody else asks
