"""What happened: the only way in which the world reaches the core. Names are past tense."""

from dataclasses import dataclass

from orchestrator.core.failures import Failure
from orchestrator.core.model import Outcome, Request, Seen, ToolOutput


@dataclass(frozen=True, slots=True)
class RequestAdmitted:
    """A request was read and has a place in flight. No request before it had this `number`."""

    number: int
    request: Request


@dataclass(frozen=True, slots=True)
class RunCreated:
    """A create call was answered."""

    number: int
    seen: Seen


@dataclass(frozen=True, slots=True)
class RunPrepared:
    """A call that a create needs before it was answered: a file was uploaded, a thread made."""

    number: int
    continuation: bytes


@dataclass(frozen=True, slots=True)
class CreateFailed:
    """A create call was refused, or its answer was lost."""

    number: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class RunSeen:
    """A check was answered."""

    number: int
    seen: Seen


@dataclass(frozen=True, slots=True)
class CheckFailed:
    """A check was not answered, or refused."""

    number: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class RunMissing:
    """A list that should show this run did not; lists lag behind."""

    number: int


@dataclass(frozen=True, slots=True)
class ResultFetched:
    """A call for the result of a finished run was answered.

    The run may turn out not to have finished, or to have failed. With a `continuation` there is
    more to fetch, by a call of its own.
    """

    number: int
    seen: Seen


@dataclass(frozen=True, slots=True)
class LineAnswered:
    """A line in a batch's files, which is about the run `number`."""

    batch: int
    number: int
    answer: Seen | Failure


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """The result could not be fetched, or not yet."""

    number: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool handler returned, raised or ran out of time; all three give an output."""

    number: int
    output: ToolOutput


@dataclass(frozen=True, slots=True)
class OutputsAccepted:
    """The server took the tool outputs."""

    number: int
    seen: Seen


@dataclass(frozen=True, slots=True)
class OutputsFailed:
    """The server refused the tool outputs, or its answer was lost."""

    number: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class CancelAccepted:
    """A cancel call was answered; the run may still be on its way to the end."""

    number: int
    seen: Seen


@dataclass(frozen=True, slots=True)
class CancelFailed:
    """A cancel call was refused or not answered."""

    number: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class StopRequested:
    """This request is not wanted any more. Its remote run is cancelled, or left as it is.

    A call that is out and has no run to come back to may be answered for so long.
    """

    number: int
    outcome: Outcome
    reason: str
    cancel_remote: bool
    patience_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class WebhookArrived:
    """The server told that something has become of a run; `type` is what, in its own word.

    It may be about no run of ours, or of one whose create is not answered yet.
    """

    run_id: str
    type: str


@dataclass(frozen=True, slots=True)
class CreatesStopped:
    """Nothing new is to be created: an interrupt, a spent budget, a key that is refused."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class TimePassed:
    """It is `next_due` or later: due runs line up, deadlines that passed are acted upon."""


RunEvent = (
    RunCreated
    | RunPrepared
    | CreateFailed
    | RunSeen
    | CheckFailed
    | RunMissing
    | ResultFetched
    | FetchFailed
    | ToolFinished
    | OutputsAccepted
    | OutputsFailed
    | CancelAccepted
    | CancelFailed
    | StopRequested
)
Event = RunEvent | LineAnswered | RequestAdmitted | WebhookArrived | CreatesStopped | TimePassed
