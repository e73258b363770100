"""Ctrl-C and SIGTERM: the first ends an execution in good order, the second the process at once.

Rules:

- Before an execution runs, nothing was sent and nothing has to be ended: the first is enough then,
  and is a KeyboardInterrupt.
- The handlers are plain ones, not the event loop's: they are called also while a big file is
  checked or a tool blocks the loop.
- The second asks nobody: lines are written whole, so there is nothing that could be torn.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from orchestrator.cli.exit_codes import INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Minds the two signals while its block is open. For the main thread only.

    Args:
        at_once: Called before the second signal ends the process, for the last words.
    """

    def __init__(self, at_once: Callable[[], None]) -> None:
        self._at_once = at_once
        self._stop: Callable[[str], None] | None = None
        self._count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ready(self, stop: Callable[[str], None]) -> None:
        """From now on there is something to end: the first signal calls this, with its name."""
        self._stop = stop

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler gets both
        if self._stop is None:
            raise KeyboardInterrupt
        self._count += 1
        if self._count == 1:
            self._stop(signal.Signals(number).name)
        elif self._count == 2:  # noqa: PLR2004 - the second; those after it find the work done
            with suppress(Exception):  # whatever was interrupted may be what the last words need
                self._at_once()
            os._exit(INTERRUPTED)
