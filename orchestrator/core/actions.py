"""What to do: the only way in which the core reaches the world. Names are imperative.

Calls need a permit and a free connection, and are handed out one at a time, the most urgent first.
The rest is done at once.
"""

from dataclasses import dataclass

from orchestrator.core.model import Request, Result, ToolCall, ToolOutput


@dataclass(frozen=True, slots=True)
class CreateRun:
    """Send the request. `attempt` counts from 1; `deadline_at` bounds how long to wait."""

    number: int
    request: Request
    attempt: int
    deadline_at: float


@dataclass(frozen=True, slots=True)
class RunToCheck:
    """One run of a group of checks."""

    number: int
    run_id: str
    request: Request


@dataclass(frozen=True, slots=True)
class CheckRuns:
    """Ask for the status of these runs, which are all due, in one call."""

    runs: tuple[RunToCheck, ...]


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


Call = CreateRun | CheckRuns | SubmitToolOutputs | CancelRun
Deed = CallTool | StopTools | RecordOutcome
Action = Call | Deed
