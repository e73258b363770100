"""A server for the simulation: it holds runs whose fate is decided beforehand."""

from dataclasses import dataclass, field, replace
from enum import StrEnum, auto

from orchestrator.core.failures import Cause, Failure
from orchestrator.core.model import (
    NO_USAGE,
    Family,
    Outcome,
    Prepared,
    RunError,
    Seen,
    Status,
    ToolCall,
    Usage,
)

WAIT_FOR_OUTPUTS = {Family.ASSISTANTS, Family.AGENT_SESSIONS}


class End(StrEnum):
    """What becomes of the last run of a request."""

    COMPLETED = auto()
    INCOMPLETE = auto()
    FAILED = auto()  # for a reason that is no use trying again
    UNKNOWN = auto()  # a status that nobody knows
    VANISHES = auto()  # 404 for ever
    HANGS = auto()  # pending for ever


class Cancelling(StrEnum):
    """How a server takes a cancel."""

    AT_ONCE = auto()
    NEVER_ENDS = auto()
    REFUSED = auto()


class Trouble(StrEnum):
    """What may befall one call."""

    NONE = auto()
    LOST_BEFORE = auto()  # the work was not done
    LOST_AFTER = auto()  # it was
    BROKEN = auto()
    TURNED_AWAY = auto()
    BUSY = auto()
    MISSING = auto()  # the run is not visible yet


FAILURES = {
    Trouble.LOST_BEFORE: Failure(Cause.NOT_SENT, "the connection was reset"),
    Trouble.LOST_AFTER: Failure(Cause.CONNECTION_LOST, "no answer"),
    Trouble.BROKEN: Failure(Cause.SERVER_ERROR, "bad gateway", status_code=502),
    Trouble.TURNED_AWAY: Failure(Cause.RATE_LIMITED, "slow down", retry_after_seconds=3.0),
    Trouble.BUSY: Failure(Cause.CONFLICT, "busy", status_code=409),
    Trouble.MISSING: Failure(Cause.NOT_FOUND, "no such run", status_code=404),
}

OUTCOMES = {
    End.COMPLETED: Outcome.COMPLETED,
    End.INCOMPLETE: Outcome.INCOMPLETE,
    End.FAILED: Outcome.FAILED,
    End.UNKNOWN: Outcome.UNKNOWN,
    End.VANISHES: Outcome.EXPIRED,
    End.HANGS: Outcome.TIMED_OUT,
}


@dataclass(frozen=True, slots=True)
class Fate:
    """What will happen to one request."""

    family: Family = Family.RESPONSES
    admitted_at: float = 0.0
    work_seconds: float = 1.0  # of each run and each turn
    turns: tuple[int, ...] = ()  # the number of tool calls in each
    fails: int = 0  # runs that fail by the server's fault, before one that doesn't
    end: End = End.COMPLETED
    troubles: tuple[Trouble, ...] = ()  # of its calls, in order; the rest go well
    stale_looks: int = 0  # times it goes on asking for outputs that it has accepted
    cancelling: Cancelling = Cancelling.AT_ONCE
    lag_seconds: float = 0.0  # lists don't show it for so long
    thread: str = ""
    stops: tuple[tuple[float, bool], ...] = ()  # when it is not wanted any more, cancel or not
    via_batch: bool = False

    @property
    def outcome(self) -> Outcome:
        """How it ends when nobody stops it; no trouble may change that."""
        return OUTCOMES[self.end]


@dataclass(slots=True)
class Remote:
    """A run on the server."""

    run_id: str
    fate: Fate
    created_at: float
    ready_at: float
    fails: bool
    turn: int = 0
    stale: int = 0
    cancelled: bool = False
    hangs: bool = False


@dataclass(slots=True)
class Server:
    """Does what it is asked; troubles on the way are the world's affair."""

    runs: dict[str, Remote] = field(default_factory=dict)
    created: dict[str, int] = field(default_factory=dict)
    names: dict[str, tuple[str, int]] = field(default_factory=dict)  # by the run's id
    cancels_asked: set[str] = field(default_factory=set)

    def find(self, custom_id: str, creates: int, now: float) -> Seen | Prepared:
        """A run by the name that it was given, in a list that lags; else that there is none."""
        for run_id, name in self.names.items():
            if name == (custom_id, creates) and self.is_listed(run_id, now):
                return Seen(run_id, Status.PENDING, "listed", found=True)
        return Prepared(b"")

    def create(self, custom_id: str, fate: Fate, now: float, creates: int = 0) -> Seen:
        times = self.created[custom_id] = self.created.get(custom_id, 0) + 1
        run_id = f"{custom_id}/{times}"
        self.names[run_id] = (custom_id, creates)
        run = Remote(run_id, fate, now, now + fate.work_seconds, fails=times <= fate.fails)
        self.runs[run_id] = run
        if fate.family is Family.DIRECT:
            run.ready_at = now
        return self._look(run, now)

    def newest(self, custom_id: str) -> str:
        return f"{custom_id}/{self.created[custom_id]}"

    def check(self, run_id: str, now: float) -> Seen | Failure:
        run = self.runs[run_id]
        if run.fate.end is End.VANISHES and now >= run.ready_at and not run.cancelled:
            return FAILURES[Trouble.MISSING]
        return self._look(run, now)

    def is_listed(self, run_id: str, now: float) -> bool:
        run = self.runs[run_id]
        found = isinstance(self.check(run_id, now), Seen)
        return found and now >= run.created_at + run.fate.lag_seconds

    def fetch(self, run_id: str, finished: Seen, now: float) -> Seen:
        """The result; of a session first the turn, which tells whether it failed."""
        run = self.runs[run_id]
        if run.fate.family is not Family.AGENT_SESSIONS:
            return replace(finished, usage=NO_USAGE)
        if finished.continuation is not None:
            return replace(finished, usage=NO_USAGE, continuation=None)
        turn = _failed(run, "server_error") if run.fails else _end_of(run)
        return replace(turn, continuation=b"turn")

    def submit(self, run_id: str, call_ids: list[str], now: float) -> Seen:
        run = self.runs[run_id]
        assert set(call_ids) == {call.call_id for call in _asked(run, run.turn)}
        run.turn += 1
        run.stale = run.fate.stale_looks
        run.ready_at = now if run.fate.family is Family.DIRECT else now + run.fate.work_seconds
        return self._look(run, now)

    def cancel(self, run_id: str, now: float) -> Seen | Failure:
        run = self.runs[run_id]
        self.cancels_asked.add(run_id)
        waits = run.fate.family in WAIT_FOR_OUTPUTS and run.turn < len(run.fate.turns)
        if now >= run.ready_at and run.fate.end is not End.HANGS and not waits:
            return FAILURES[Trouble.BUSY]  # it has ended already
        match run.fate.cancelling:
            case Cancelling.REFUSED:
                return FAILURES[Trouble.BUSY]
            case Cancelling.NEVER_ENDS:
                run.hangs = True
            case Cancelling.AT_ONCE:
                run.cancelled = True
        return self._look(run, now)

    def _look(self, run: Remote, now: float) -> Seen:
        fate = run.fate
        if run.cancelled:
            return Seen(run.run_id, Status.CANCELLED, "cancelled")
        if run.stale > 0 and fate.family is not Family.DIRECT:
            run.stale -= 1
            return _requires_action(run, run.turn - 1)
        if now < run.ready_at or run.hangs:
            return Seen(run.run_id, Status.PENDING, "in_progress", look_again_seconds=1.5)
        if run.turn < len(fate.turns):
            return _requires_action(run, run.turn)
        end = _failed(run, "server_error") if run.fails else _end_of(run)
        if fate.family is Family.AGENT_SESSIONS and end.status is not Status.PENDING:
            return Seen(run.run_id, Status.COMPLETED, "idle")  # the turn says how it ended
        return end


def _requires_action(run: Remote, turn: int) -> Seen:
    return Seen(run.run_id, Status.REQUIRES_ACTION, "requires_action", _asked(run, turn))


def _asked(run: Remote, turn: int) -> tuple[ToolCall, ...]:
    # Direct endpoints may number the calls of each turn from 0.
    name = "" if run.fate.family is Family.DIRECT else f"{run.run_id}/{turn}/"
    return tuple(ToolCall(f"{name}{n}", "look_up", "{}") for n in range(run.fate.turns[turn]))


def _failed(run: Remote, code: str) -> Seen:
    return Seen(run.run_id, Status.FAILED, "failed", error=RunError(code, code))


def _end_of(run: Remote) -> Seen:
    match run.fate.end:
        case End.FAILED:
            return _failed(run, "invalid_prompt")
        case End.UNKNOWN:
            return Seen(run.run_id, Status.UNKNOWN, "daydreaming")
        case End.HANGS | End.VANISHES:
            return Seen(run.run_id, Status.PENDING, "in_progress")
        case End.INCOMPLETE:
            return Seen(run.run_id, Status.INCOMPLETE, "incomplete", usage=Usage(1, 1))
        case _:
            return Seen(run.run_id, Status.COMPLETED, "completed", usage=Usage(1, 1))
