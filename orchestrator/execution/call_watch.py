"""Looks at every call of an execution: logs it, and says so when no call finds a server."""

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from orchestrator.apis.transport import CallRecord
from orchestrator.core.failures import Cause

# A server that is being started refuses a call or two; at the usual backoff this is after a few
# seconds, when a person begins to wonder.
CALLS_UNANSWERED_MAX = 4


class CallWatch:
    """Logs every call, and says so once when no call finds a server.

    Args:
        log: Gets a line for each call at level debug.
        warn: Told in a sentence for people.
        server: Host and port, for that sentence.
    """

    def __init__(self, log: FilteringBoundLogger, warn: Callable[[str], None], server: str) -> None:
        self._log = log
        self._warn = warn
        self._server = server
        self._unanswered: int | None = 0  # None: the server was there, or it was said

    def ended(self, record: CallRecord) -> None:
        """A call ended, with or without an answer."""
        self._log.debug(
            "call.ended",
            call_id=record.call_id,
            kind=record.kind.value,
            status=record.status,
            seconds=round(record.seconds, 4),
        )
        if self._unanswered is None:
            return
        if record.status != Cause.NOT_SENT.value:
            self._unanswered = None
            return
        self._unanswered += 1
        if self._unanswered >= CALLS_UNANSWERED_MAX:
            self._log.warning("server.unreachable", server=self._server)
            self._warn(
                f"no connection to {self._server} in {self._unanswered} calls; it goes on trying. "
                "Is the base url right, the server up, the network there? Ctrl-C ends it."
            )
            self._unanswered = None
