"""A run as the scheduler keeps it: small, because there may be a million of them."""

from dataclasses import dataclass, field

from orchestrator.core.model import (
    NO_USAGE,
    Outcome,
    Request,
    RunError,
    Seen,
    ToolCall,
    ToolOutput,
    Usage,
)
from orchestrator.core.states import AT_WORK, State


@dataclass(slots=True)
class Answering:
    """The tool calls of one turn and the outputs that have come so far."""

    calls: tuple[ToolCall, ...]
    continuation: bytes | None
    outputs: dict[str, ToolOutput] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return len(self.outputs) == len(self.calls)

    def asks(self, call: ToolCall) -> bool:
        """Whether this call is still one of this turn's."""
        return call in self.calls

    def in_order(self) -> tuple[ToolOutput, ...]:
        """The outputs in the order in which the model asked."""
        return tuple(self.outputs[call.call_id] for call in self.calls)


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run is not wanted any more, and what its request's outcome will be."""

    outcome: Outcome
    error: RunError
    cancel_remote: bool
    patience_seconds: float = 0.0  # how long the answers of calls that are out are waited for
    again: bool = False  # only this run is not wanted any more: its request may get another one


@dataclass(slots=True, eq=False)
class Shard:
    """What one batch carries: runs of one url and one model, each waiting for its line.

    `places` is the order of the lines in the file, settled when it is sent for the first time.
    `answered` is by the server's count, `delivered` counts lines that came back.
    """

    url: str
    model: str
    opened_at: float
    runs: "dict[int, Run]" = field(default_factory=dict)
    custom_ids: set[str] = field(default_factory=set)  # tell its lines apart
    places: tuple[int, ...] = ()
    bytes: int = 0
    tokens: int = 0
    inputs: int = 0
    answered: int = 0
    delivered: int = 0
    sent: bool = False  # with the create call, not with the upload
    unwanted: int = 0  # of its runs, those that end as soon as its id is known


@dataclass(slots=True, eq=False)
class Run:
    """One request on its way. Times are on the driver's clock; `inf` means not yet."""

    number: int
    request: Request
    state: State = State.WAITING
    run_id: str = ""
    started_at: float = float("inf")  # the first create was sent
    deadline_at: float = float("inf")
    run_deadline_at: float = float("inf")  # of the run, or of the turn, that was begun last
    due_at: float = 0.0  # the time that the schedule last held for it
    created_at: float = 0.0  # the newest run of the request was created
    began_at: float = 0.0  # that, or its tool outputs were accepted last
    pending_at: float = 0.0  # last time it was known not to be finished
    sent: int = 0  # create calls, answered or not
    lost: int = 0  # of all that it was sent, calls whose answer was lost
    lost_assumed: int = 0  # of these, those that the budget takes for spent
    reserved: bool = False  # the budget holds something back for it
    unanswered: int = 0  # of these, creates of the run that is wanted now
    looked_for: int = 0  # as many of them were looked for, and not found
    creates: int = 0
    checks: int = 0
    looks: int = 0  # checks since it was created or given tool outputs
    turns: int = 0
    attempts_failed: int = 0
    waits: int = 0  # times it was turned away by a rate limit
    failures: int = 0  # of the call that is wanted now, in a row
    missing: int = 0  # checks in a row that did not find it, other failures not counted
    refusals: int = 0  # of tool outputs that the run still waits for, in a row
    cancels: int = 0
    was_cancelled: bool = False  # the run, by an earlier process that was interrupted
    stale_looks: int = 0  # checks that asked for tool calls that were already answered
    usage: Usage = NO_USAGE
    answering: Answering | None = None
    answered: frozenset[str] = frozenset()  # ids of tool calls whose outputs were accepted
    stop: Stop | None = None
    expires_at: float = float("inf")  # the server waits for tool outputs until then
    runs_expired: int = 0
    finished: Seen | None = None  # what was seen last, while the result is fetched
    group: int = 0  # the runs that it is checked together with
    alone: bool = False  # the last list did not show it
    prepared: bytes | None = None  # how the call before ended, where a create takes several
    shard: Shard | None = None  # of a batch: what it carries
    batch: "Run | None" = None  # that carries it
    direct: bool = False  # is sent by itself, although it could go by a batch
    batch_usage: Usage = NO_USAGE  # part of `usage`

    @property
    def until(self) -> float:
        """When its time is over, that of its request or of the run that is at work."""
        if self.state in AT_WORK:
            return min(self.deadline_at, self.run_deadline_at)
        return self.deadline_at

    @property
    def is_wanted(self) -> bool:
        """Whether the request is; not so its run, when that is cancelled to be replaced."""
        return self.stop is None or self.stop.again
