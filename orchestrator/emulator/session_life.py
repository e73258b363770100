"""Agent sessions and their turns as functions of time; what happens in them is in session_story."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from math import inf
from typing import Any, ClassVar, Protocol

from orchestrator.emulator.answers import Tool
from orchestrator.emulator.calls import Feed
from orchestrator.emulator.tool_runs import OVER, PendingCall, ToolRun
from orchestrator.emulator.writing import Api

CONNECTION = "environment_connection"

# How long after it came to rest a session still takes up room. No server tells; a client that
# deletes what it has done with never notices.
LIVES_IDLE_SECONDS = 30.0

# The status that the session has while its turn has this one; any other is over, or unknown.
WHILE_TURN = {"queued": "idle", "in_progress": "in_progress", "waiting": "requires_action"}


class Step(IntEnum):
    """How far a turn's story is told."""

    UNSEEN = 0
    QUEUED = 1
    RUNNING = 2
    WAITING = 3
    OVER = 4


@dataclass(slots=True, kw_only=True)
class Turn(ToolRun):
    """One turn of a session; `outputs` are those of the newest calls, by call id."""

    API: ClassVar[Api] = Api.SESSIONS
    WAITS_AS: ClassVar[str] = "waiting"
    CANCELS_AS: ClassVar[str] = "in_progress"

    agent_id: str
    session_id: str
    said: Sequence[str]
    environment_seconds: float
    fails_session: bool = False
    step: Step = Step.UNSEEN
    outputs: dict[str, str] = field(default_factory=dict)

    def next_step_at(self) -> float:
        """When the next thing happens by itself; inf for never."""
        stop = inf if self.cancelled_at is None else self.cancelled_at
        match self.step:
            case Step.UNSEEN:
                return self.created_at
            case Step.QUEUED:
                return min(self.started_at, stop)
            case Step.RUNNING:
                return min(self.ends_at, stop)
            case Step.WAITING:
                return min(self._connects_at(), stop)
            case Step.OVER:
                return inf

    def _connects_at(self) -> float:
        waits = any(call.asked.type == CONNECTION for call in self.unanswered())
        return self.ends_at + self.environment_seconds if waits else inf

    def unanswered(self) -> list[PendingCall]:
        """The newest calls that still wait."""
        return [call for call in self.calls if call.id not in self.outputs]


class Listener(Feed, Protocol):
    """A stream that is told what happens."""

    def hear(self, kind: str, piece: bytes) -> None:
        """An event of this type, as it goes over the wire."""


@dataclass(slots=True, kw_only=True)
class Session:
    """A session. `shown` are the fields that never change.

    `keys` are the idempotency keys of accepted input, with what came with them. `history` is what
    it looked like since when, kept only where lists lag. `stale` is an old look that the next
    `stale_looks` retrieves still show. `told` counts the events.
    """

    id: str
    model: str
    agent_id: str
    created_at: float
    active_at: float
    shown: Mapping[str, Any]
    metadata: Mapping[str, str]
    tools: Sequence[Tool]
    schema: Any
    context_tokens: int
    keeps_history: bool
    lost: bool = False
    turns: list[Turn] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    history: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    stale: dict[str, Any] | None = None
    stale_looks: int = 0
    listeners: list[Listener] = field(default_factory=list)
    told: int = 0

    def turn_at(self, now: float) -> Turn | None:
        """The newest turn that can be seen."""
        return next((turn for turn in reversed(self.turns) if turn.created_at <= now), None)

    def status(self, now: float) -> str:
        """What the session is: idle before a turn starts, and idle whatever the turn ended as."""
        turn = self.turn_at(now)
        if turn is None:
            return "idle"
        status = turn.status(now)
        if status in OVER:
            return "failed" if turn.fails_session and status == "failed" else "idle"
        return WHILE_TURN.get(status, status)

    def open_turn(self, now: float) -> Turn | None:
        """The turn that is not over, seen or not."""
        turn = self.turns[-1] if self.turns else None
        return None if turn is None or turn.is_over(now) else turn

    def is_done(self, now: float) -> bool:
        """Whether there was a turn and it is over."""
        return bool(self.turns) and self.open_turn(now) is None

    def lives(self, now: float) -> bool:
        """Whether it takes up room: it works, or waits, or was idle for a short time only."""
        if not self.turns:
            return now < self.created_at + LIVES_IDLE_SECONDS
        return now < self.turns[-1].over_at + LIVES_IDLE_SECONDS

    def next_step_at(self) -> float:
        """When something happens by itself; inf for never."""
        return self.turns[-1].next_step_at() if self.turns else inf


class Sessions:
    """All sessions, in the order of their creation, and those that may live."""

    def __init__(self) -> None:
        self.by_id: dict[str, Session] = {}
        self._awake: dict[str, Session] = {}

    def add(self, session: Session) -> None:
        """Take a new session in."""
        self.by_id[session.id] = session
        self.wake(session)

    def wake(self, session: Session) -> None:
        """Something happens in the session."""
        self._awake[session.id] = session

    def remove(self, session: Session) -> None:
        """Let go of a session."""
        del self.by_id[session.id]
        self._awake.pop(session.id, None)

    def live_count(self, now: float) -> int:
        """How many live."""
        self._awake = {key: one for key, one in self._awake.items() if one.lives(now)}
        return len(self._awake)
