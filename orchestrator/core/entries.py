"""What a journal keeps of an execution, so that a replay brings every run back to where it stood.

Two kinds of entries: intents, which are there before their call leaves, and what happened. What
only looked at a run and found nothing new is left out; so is what time alone brings about.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeGuard

from orchestrator.core import events
from orchestrator.core.actions import Call, CancelRun, CreateRun, SubmitToolOutputs
from orchestrator.core.model import Request, Status, Usage
from orchestrator.core.states import State


@dataclass(frozen=True, slots=True)
class CreateSent:
    """A call of a create goes out. Without an answer after it, nobody knows what came of it.

    `group` is the one that the run is created into. `lines` are the runs that a batch carries, in
    the order of its file; given when the file is written.
    """

    number: int
    group: int = 0
    lines: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputsSent:
    """All tool outputs of a turn go out."""

    number: int


@dataclass(frozen=True, slots=True)
class BatchOver:
    """Nothing more comes of a batch; what it carried still is to be sent again.

    Of these runs, `lost` may have been done and paid for.
    """

    number: int
    lost: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelSent:
    """The server is told to cancel a run.

    The wish behind it ends with the process: one that finds the run cancelled later has to know
    that it was no one else's doing.
    """

    number: int


Intent = CreateSent | OutputsSent | CancelSent
Entry = Intent | BatchOver | events.RunEvent | events.LineAnswered


class Spent(Protocol):
    """What requests of one model have used."""

    @property
    def model(self) -> str: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def batch_usage(self) -> Usage: ...
    @property
    def lost_usage(self) -> Usage: ...
    @property
    def cost_usd(self) -> float | None: ...
    @property
    def lost_usd(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What earlier processes left of an execution: requests in flight, and what is known of them.

    `entries` gives them in order, with times on a clock that shows so much now. Numbers that were
    issued are known to the server, or stand in the journal, and are not issued again. `counts` is
    what was counted so far, by the names of `Totals`; `spent` is of requests that have ended, and
    `seconds` is how long processes were at work.
    """

    in_flight: Sequence[tuple[int, Request]]
    entries: Callable[[float], Iterable[tuple[float, Entry]]]
    numbers_issued: int = 0
    batches_issued: int = 0
    groups_issued: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    batches_by_end: Mapping[str, int] = field(default_factory=dict)
    spent: Sequence[Spent] = ()
    seconds: float = 0.0


# What comes of an intent, and what a tool handler brought: always kept. Without the first, nobody
# knows whether to send again; without the second, the handler would be called again.
_ALWAYS_KEPT = (
    events.RunCreated,
    events.RunPrepared,
    events.CreateFailed,
    events.OutputsAccepted,
    events.OutputsFailed,
    events.ToolFinished,
    events.LineAnswered,
)
_NEVER_KEPT = (
    events.RequestAdmitted,  # kept as a request, not as an entry
    events.StopRequested,  # ends what this process does, not what the next one may do
    events.WebhookArrived,  # the next process looks at every run in any case
    events.CreatesStopped,
    events.TimePassed,
)

# States between which a run goes to and fro while nothing new is learnt of it. A run that is at its
# end on the server is looked at once more after a restart, which costs nothing.
_AT_WORK = frozenset(
    {
        State.RUNNING,
        State.CHECKING,
        State.STOPPING,
        State.CANCELLING,
        State.FINISHED,
        State.FETCHING,
    }
)


def is_kept(event: events.Event, before: State | None, after: State | None) -> TypeGuard[Entry]:
    """Whether a replay needs this event; states are those of its run, None where there is none."""
    if isinstance(event, _NEVER_KEPT):
        return False
    if isinstance(event, _ALWAYS_KEPT):
        return before is not None or _can_be_gone_on_with(event)
    if before is None:
        return False
    if event.number < 0:
        return False  # of a batch its end is an entry of its own: it also ends with lines ended
    return before is not after and not {before, after} <= _AT_WORK


def _can_be_gone_on_with(event: events.Event) -> bool:
    """Whether what comes too late for this process is of use to the next one.

    An end is not: its result went nowhere. The line of a batch can be read again.
    """
    match event:
        case events.RunCreated(seen=seen) | events.OutputsAccepted(seen=seen):
            return seen.status in {Status.PENDING, Status.REQUIRES_ACTION}
        case events.LineAnswered():
            return False
        case _:
            return True


def intent_of(call: Call) -> Intent | None:
    """What has to be on disk before this call leaves; None where it may be made twice."""
    match call:
        case CreateRun(number=number, group=group, lines=lines):
            return CreateSent(number, group, tuple(line.number for line in lines))
        case SubmitToolOutputs(number=number):
            return OutputsSent(number)
        case CancelRun(number=number):
            return CancelSent(number)
        case _:
            return None
