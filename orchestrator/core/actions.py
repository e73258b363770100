"""What to do: the only way in which the core reaches the world. Names are imperative.

Calls need a permit and a free connection, and are handed out one at a time, the most urgent first.
The rest is done at once.
"""

from dataclasses import dataclass

from orchestrator.core.model import Family, Request, Result, Seen, ToolCall, ToolOutput


@dataclass(frozen=True, slots=True)
class BatchLine:
    """What a batch does for one run: it sends the request, or the tool outputs of a turn."""

    number: int
    request: Request
    outputs: tuple[ToolOutput, ...] = ()
    continuation: bytes | None = None


@dataclass(frozen=True, slots=True)
class CreateRun:
    """Send the request. `attempt` counts from 1; `deadline_at` bounds how long to wait.

    `group` names the runs that will be checked together with it, where the family's API can.
    `prepared` is how the last call ended where a create takes several. `creates` counts the runs
    that the request has had before, so `number` and it name this one, whatever is sent again and
    whoever sends it. `lost` is how many of its creates were not answered: it may be there.
    `lines` is what a batch carries; they are given until something has been prepared.
    """

    number: int
    request: Request
    attempt: int
    deadline_at: float
    group: int = 0
    prepared: bytes | None = None
    creates: int = 0
    lost: int = 0
    lines: tuple[BatchLine, ...] = ()


@dataclass(frozen=True, slots=True)
class RunToCheck:
    """One run of a group of checks."""

    number: int
    run_id: str
    request: Request


@dataclass(frozen=True, slots=True)
class CheckRuns:
    """Ask for the status of these runs in one call.

    At least one of them is due; the others are of the same group, and a call that lists the group
    answers for them too. `group` is 0 when they can't be listed, or when a list did not show the
    run: then there is one run, to be asked for by itself.
    """

    runs: tuple[RunToCheck, ...]
    group: int = 0


@dataclass(frozen=True, slots=True)
class SubmitToolOutputs:
    """Give the model all outputs of this turn, in the order in which it asked."""

    number: int
    run_id: str
    request: Request
    outputs: tuple[ToolOutput, ...]
    continuation: bytes | None
    deadline_at: float


@dataclass(frozen=True, slots=True)
class CancelRun:
    """End the run on the server, so that it costs nothing more."""

    number: int
    run_id: str
    request: Request


@dataclass(frozen=True, slots=True)
class FetchResult:
    """Get the result of a finished run, one call at a time; `finished` is what was seen of it.

    `lines` is what a batch carries and nothing has come of yet.
    """

    number: int
    run_id: str
    request: Request
    finished: Seen
    lines: tuple[BatchLine, ...] = ()


@dataclass(frozen=True, slots=True)
class CallTool:
    """Start a tool handler; it runs beside the loop and ends in a `ToolFinished`."""

    number: int
    request: Request
    call: ToolCall


@dataclass(frozen=True, slots=True)
class StopTools:
    """Nobody waits for this run's tool handlers any more."""

    number: int


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """The request has ended; write its line and tell whoever waits for it."""

    number: int
    result: Result


@dataclass(frozen=True, slots=True)
class DropBatch:
    """A batch is over for us: whoever waits for one of its lines has been told.

    `said` is how it ended, in the server's word where it ended there. `is_over` is false when it
    may go on there, `lost` are runs that it carried and that may be paid for.
    """

    number: int
    run_id: str
    said: str
    is_over: bool = False
    lost: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TellOfWebhooks:
    """From now on the webhooks of a family are relied on, or its runs are polled; and why."""

    family: Family
    are_heard: bool
    why: str


Call = CreateRun | CheckRuns | SubmitToolOutputs | CancelRun | FetchResult
Deed = CallTool | StopTools | RecordOutcome | DropBatch | TellOfWebhooks
Action = Call | Deed
