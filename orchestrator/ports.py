"""What the driver relies on: promises that apis and adapters keep, and that fakes keep in tests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from orchestrator.core.actions import (
    CancelRun,
    CheckRuns,
    CreateRun,
    FetchResult,
    SubmitToolOutputs,
)
from orchestrator.core.entries import Entry
from orchestrator.core.failures import Failure
from orchestrator.core.model import Prepared, Request, Result, Seen, ToolCall, ToolOutput


class CallKind(StrEnum):
    """What a call is for; calls are counted by kind."""

    CREATE = "create"
    CHECK = "check"
    SUBMIT = "submit"
    CANCEL = "cancel"
    FETCH = "fetch"
    PREPARE = "prepare"  # what a create needs before: a file, a thread, a look
    REMOVE = "remove"  # what nobody needs any more


class CallFailed(Exception):  # noqa: N818 - named for what happened, like all our errors
    """A call went wrong; the failure says how. Never leaves the driver."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class LimitsTold:
    """What a server says of its limits (`x-ratelimit-*`), per minute; None where it is silent."""

    requests_limit: int | None = None
    requests_remaining: int | None = None
    tokens_limit: int | None = None
    tokens_remaining: int | None = None


class SignatureFlaw(StrEnum):
    """Why the signature of a webhook event was refused."""

    FORGED = "forged"  # no secret of ours made it
    STALE = "stale"  # ours, but made too long before the event arrived, or too far in the future
    MALFORMED = "malformed"  # a header is missing, or what is there can't be a signed event


class SignatureRefused(Exception):  # noqa: N818 - named for what happened, like all our errors
    """A webhook event is not to be believed. Never leaves the receiver."""

    def __init__(self, flaw: SignatureFlaw) -> None:
        super().__init__(flaw)
        self.flaw = flaw


class Verify(Protocol):
    """Tells whether a webhook event comes from whom it should."""

    def __call__(
        self, body: bytes, headers: Mapping[str, str], arrived_at: float | None = None
    ) -> None:
        """Return when the event is genuine and fresh.

        Args:
            body: As it came, byte for byte.
            headers: Names in any case.
            arrived_at: When it arrived, in seconds since 1970, where it has waited since; None:
                now. It must come from whom we trust, never from the sender.

        Raises:
            SignatureRefused: It is not.
        """
        ...


class Clock(Protocol):
    """The time; virtual in tests."""

    def now(self) -> float:
        """Seconds, monotonic; only differences mean anything."""
        ...

    def unix(self) -> float:
        """Seconds since 1970, for what people and servers read."""
        ...


class Api(Protocol):
    """One API family: turns actions into calls and answers into what was seen.

    Every method raises `CallFailed` when the call as a whole failed.
    """

    async def create(self, action: CreateRun) -> Seen | Prepared:
        """The run, or what another create call needs that will be asked for."""
        ...

    async def check(self, action: CheckRuns) -> Mapping[int, Seen | Failure]:
        """What was seen of each run, by its number. A run left out was not in the list."""
        ...

    async def submit(self, action: SubmitToolOutputs) -> Seen: ...

    async def cancel(self, action: CancelRun) -> Seen: ...

    async def fetch(self, action: FetchResult) -> Seen:
        """The result of a finished run, or a part of it with a `continuation`."""
        ...


class Limiter(Protocol):
    """The right to send, per lane. Nothing here waits: the driver does all the waiting."""

    def tokens_free(self, lane: str) -> float | None:
        """The tokens that a call sent now may reserve; None when no call may be sent now."""
        ...

    def take(self, lane: str, tokens: int) -> None:
        """A call is sent now and reserves these tokens."""
        ...

    def seconds_until(self, lane: str, tokens: int) -> float:
        """How long until a call that reserves these tokens may be sent; 0 when now."""
        ...

    def spent(self, lane: str, reserved: int, used: int, taken_at: float) -> None:
        """A call that reserved tokens at `taken_at` used another number of them."""
        ...

    def refused(self, lane: str, retry_after_seconds: float | None) -> None:
        """The server turned a call away for its rate (429)."""
        ...


class ToolSchema(Protocol):
    """What the model is told of a tool. `parameters` is a JSON schema of type object."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def parameters(self) -> Mapping[str, Any]: ...


class Tools(Protocol):
    """The tool handlers."""

    async def call(self, call: ToolCall, request: Request) -> ToolOutput:
        """Run the handler. Errors, bad arguments and timeouts are outputs; nothing is raised."""
        ...


class Results(Protocol):
    """Where results go."""

    def record(self, number: int, result: Result) -> None: ...


class Journal(Protocol):
    """Keeps what would be lost with the process. Times are those of the driver's clock.

    What is told is on disk a little later, in the order in which it was told.
    """

    def admitted(self, number: int, request: Request, at: float) -> None:
        """A request has a place in flight."""
        ...

    def keep(self, entry: Entry, at: float) -> None:
        """A call goes out, or something happened that a replay needs."""
        ...

    def ended(self, number: int, result: Result, at: float) -> None:
        """A request has ended; from now on it is no part of a replay."""
        ...

    def heard(self, webhook_id: str) -> None:
        """A webhook was heard: when it comes again, to a later process too, it is a repeat."""
        ...

    def after(self, then: Callable[[], None]) -> None:
        """Call `then` once all that was told so far is on disk; at once where it is already.

        Never called when it can't be written.
        """
        ...

    async def run(self) -> None:
        """Write until cancelled.

        Raises:
            JournalFailed: It can't be written any more.
        """
        ...
