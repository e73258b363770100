"""The values that everything else speaks of: requests, runs, what was seen of them, and outcomes.

Words are used as the README's glossary has them. Times are seconds on the driver's clock, as
floats; only their differences mean anything.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from orchestrator.core.failures import Cause, Failure


class Family(StrEnum):
    """How an API does its work, which decides the states a run goes through."""

    RESPONSES = "responses"  # /v1/responses in the background: create, check, continue
    ASSISTANTS = "assistants"  # runs on threads
    AGENT_SESSIONS = "agent_sessions"  # a session's turn
    BATCH = "batch"  # one run carries the requests of many lines, as a file
    DIRECT = "direct"  # endpoints that answer at once


class Outcome(StrEnum):
    """The final state of a request; each request has exactly one."""

    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"  # the server forgot the run before we could fetch its result
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"  # the model stopped early, for example at max_output_tokens
    TIMED_OUT = "timed_out"  # our deadline passed
    STOPPED = "stopped"  # the execution ended before the request did
    UNKNOWN = "unknown"  # the server said something that we don't understand


class Status(StrEnum):
    """What a server says of a run, in one vocabulary for all families."""

    PENDING = "pending"
    REQUIRES_ACTION = "requires_action"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"
    UNKNOWN = "unknown"


# What a status means for the request when nothing more can come of the run.
OUTCOME_OF: Mapping[Status, Outcome] = MappingProxyType(
    {
        Status.COMPLETED: Outcome.COMPLETED,
        Status.FAILED: Outcome.FAILED,
        Status.EXPIRED: Outcome.EXPIRED,
        Status.CANCELLED: Outcome.CANCELLED,
        Status.INCOMPLETE: Outcome.INCOMPLETE,
        Status.UNKNOWN: Outcome.UNKNOWN,
    }
)


class Body(Protocol):
    """Where a request's body is. The core never reads it: a body may stay in the input file."""

    def read(self) -> bytes:
        """The body as JSON text."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One line of input.

    `tokens` is the estimate that is reserved with the limiter before the request is sent:
    characters / 4 plus the `output_tokens` that the body allows. With `via_batch` the request
    goes out as a line of a batch; `body_bytes` and `inputs` say how much of a batch it takes.
    """

    custom_id: str
    url: str
    family: Family
    model: str
    tokens: int
    body: Body = field(repr=False)
    line: int = 0  # in the input file, from 1; 0 when there is no file
    thread: str = ""  # requests with the same thread are run one after another
    via_batch: bool = False
    body_bytes: int = 0
    inputs: int = 1  # texts to be embedded, which batches count
    output_tokens: int = 0  # of all choices; 0 when the body names no limit
    digest: bytes = b""  # of what is sent, to tell later whether the line was changed


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for one call of a tool. `arguments` is JSON text as the model wrote it."""

    call_id: str
    name: str
    arguments: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool call gave, as the text that the model will read."""

    call_id: str
    output: str = field(repr=False)
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that the server counted."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # part of input_tokens
    reasoning_tokens: int = 0  # part of output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def __mul__(self, times: int) -> "Usage":
        return Usage(
            self.input_tokens * times,
            self.output_tokens * times,
            self.cached_tokens * times,
            self.reasoning_tokens * times,
        )

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class RunError:
    """A run's own error, or ours about it: a code for programs and a message for people.

    `cause` is there when a call failed.
    """

    code: str
    message: str
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer as it came in, for the results file. `body` is JSON text, unparsed."""

    status_code: int
    request_id: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Times:
    """When the server did what, in Unix seconds by its clock; None where it does not say."""

    queued: float | None = None
    started: float | None = None
    completed: float | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call that a create needs before it was answered; `continuation` tells the next one."""

    continuation: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BatchSeen:
    """What is seen of a batch beside its status.

    Attributes:
        answered: Lines that the server has answered so far, refusals included.
        line_errors: What its validation says of lines, by their place in the file from 1.
        output_missing: Whether lines were answered and no file with the answers is named.
        queue_tokens_max: Prompt tokens that may wait for a model, when that is why it was refused.
        lines: What came of lines, by the number of their run (0 where it is nobody's); read lazily,
            and only once.
    """

    answered: int = 0
    line_errors: Mapping[int, RunError] = field(default_factory=dict)
    output_missing: bool = False
    queue_tokens_max: int | None = None
    lines: Iterable[tuple[int, "Seen | Failure"]] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a call or a webhook told us about a run.

    `unanswerable` is why what the run asks for can't be given; the run is then not waited for.
    `lives_seconds` is how long after its creation the server stops waiting for tool outputs, or
    working on a batch. `found` says that a create whose answer was lost had worked after all.
    """

    run_id: str
    status: Status
    said: str  # the status in the server's own word
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = NO_USAGE
    error: RunError | None = None
    look_again_seconds: float | None = None  # the server's hint
    finished_seconds_ago: float | None = None  # by the server's clock, so not to be relied on
    answer: Answer | None = None
    continuation: bytes | None = field(default=None, repr=False)  # for the family: how to go on
    unanswerable: RunError | None = None
    lives_seconds: float | None = None
    times: Times | None = None
    batch: BatchSeen | None = None
    found: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a request: its outcome and what there is to show for it.

    `answer` is the last answer of the server (also of a failed run, where there was one),
    `usage` counts all turns and all attempts that we know of.
    """

    request: Request
    outcome: Outcome
    answer: Answer | None
    error: RunError | None
    usage: Usage
    run_id: str
    creates: int  # runs created for this request, tool turns not counted
    checks: int
    turns: int  # times that tool outputs were submitted
    seconds: float  # from the first create to the end, 0 when nothing was sent
    number: int = 0  # of the request, in the order in which they were admitted
    sent: int = 0  # create calls, answered or not; 0: this request has cost nothing
    # Calls whose answer was lost, and runs that were replaced and never said that they ended: their
    # work may be paid for nothing.
    lost: int = 0
    lost_usage: Usage = NO_USAGE  # what these may have used, at most
    times: Times | None = None  # of the last run, where its server tells them
    batch_usage: Usage = NO_USAGE  # part of `usage`: at the price of the Batch API

    @property
    def custom_id(self) -> str:
        return self.request.custom_id
