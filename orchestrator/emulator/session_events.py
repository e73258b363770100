"""The events of agent sessions: input that is sent, and the stream of what happens."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from orchestrator.emulator.answers import tokens_of
from orchestrator.emulator.calls import Reply
from orchestrator.emulator.conversation import Part, text_of
from orchestrator.emulator.refusals import refuse_invalid, refuse_missing, refuse_missing_run
from orchestrator.emulator.session_json import output_item
from orchestrator.emulator.session_life import Session, Sessions, Turn
from orchestrator.emulator.session_story import (
    add_item,
    begin_turn,
    note,
    settle,
    take_outputs,
)
from orchestrator.emulator.state import Route, State, Visit
from orchestrator.emulator.tool_runs import PendingCall
from orchestrator.emulator.writing import Api

BETA = "agents=v1"
STREAM_HEADERS = {"content-type": "text/event-stream", "cache-control": "no-cache"}
ERROR_CODE = "invalid_request_error"

INPUT = "agent.session.input."
APPROVALS = {
    f"{INPUT}mcp_approval_request_result": "mcp_approval_request",
    f"{INPUT}computer_use_approval_request_result": "computer_use_approval_request",
}
MESSAGE, TOOL_RESULT, CANCEL = f"{INPUT}message", f"{INPUT}tool_result", f"{INPUT}cancel"
KNOWN = {MESSAGE, TOOL_RESULT, CANCEL, *APPROVALS}
DECISIONS = ("approve", "deny", "cancel", "submit")


class InputMessage(msgspec.Struct):
    """What the user says."""

    content: str | list[Part]
    role: str = "user"


class InputEvent(msgspec.Struct):
    """One event that is sent to a session; which fields it has depends on its type."""

    type: str
    input: list[InputMessage] | None = None
    turn_id: str | None = None
    call_id: str | None = None
    success: bool | None = None
    output: str | list[Part] | None = None
    error: str | None = None
    request_id: str | None = None
    response: dict[str, Any] | None = None


class EventsRequest(msgspec.Struct):
    """The body of POST .../events."""

    events: list[InputEvent]


class EventFeed:
    """What happens in a session from now on, as server-sent events.

    With `one_turn` it is over when the session comes to rest, else only when nobody reads on.
    """

    def __init__(self, state: State, session: Session, *, one_turn: bool) -> None:
        self._state = state
        self._session = session
        self._one_turn = one_turn
        self._pieces: list[bytes] = []
        self.over = False
        session.listeners.append(self)

    def hear(self, kind: str, piece: bytes) -> None:
        """An event of this type, as it goes over the wire."""
        if self.over:
            return
        self._pieces.append(piece)
        self.over = self._one_turn and kind in {"agent.session.idle", "agent.session.failed"}

    def take(self, now: float) -> Sequence[bytes]:
        """The events that are new."""
        settle(self._state, self._session, now)
        pieces, self._pieces = self._pieces, []
        return pieces

    def next_at(self) -> float:
        """When something happens by itself."""
        return self._session.next_step_at()

    def close(self) -> None:
        """Nobody reads any more."""
        if self in self._session.listeners:
            self._session.listeners.remove(self)


def find_session(state: State, visit: Visit) -> Session:
    """The session that the path names first, caught up to now."""
    state.check_beta(visit, "Agents", BETA)
    visit.run_id = visit.ids[0]
    session = state.memory(Sessions).by_id.get(visit.ids[0])
    if session is None or session.lost:
        refuse_missing_run(f"Session '{visit.ids[0]}' not found.", code="resource_not_found")
    settle(state, session, visit.now)
    return session


def texts_of(messages: str | Sequence[InputMessage]) -> list[str]:
    """What the user says, message by message."""
    if isinstance(messages, str):
        return [messages]
    texts = [text_of(message.content) for message in messages]
    if not texts or any(message.role != "user" for message in messages):
        refuse_invalid("Invalid 'input': user messages are needed.", param="input", code=ERROR_CODE)
    return texts


def create(state: State, visit: Visit) -> Reply:
    """POST /agents/sessions/{session_id}/events: accepted, which is not yet done."""
    session = find_session(state, visit)
    request = visit.read(EventsRequest)
    if not request.events:
        refuse_missing("events")
    texts = [text for event in request.events for text in _said(event)]
    state.admit(visit, session.model, tokens_of(*texts))
    key = visit.call.headers.get("idempotency-key")
    if key is not None and key in session.keys:
        if session.keys[key] != visit.body_digest:
            refuse_invalid(
                "Keys for idempotent requests can only be used with the same parameters they were "
                "first used with.",
                code=ERROR_CODE,
            )
        return Reply(202)
    _apply(state, visit, session, request.events)
    # A refused event leaves no key behind: the same key may try again.
    if key is not None:
        session.keys[key] = visit.body_digest
    return Reply(202)


def stream(state: State, visit: Visit) -> Reply:
    """GET /agents/sessions/{session_id}/events: what happens from now on, until nobody reads."""
    session = find_session(state, visit)
    state.admit_check(visit, session.model)
    return Reply(200, STREAM_HEADERS, feed=EventFeed(state, session, one_turn=False))


ROUTES = (
    Route("POST", "/agents/sessions/{session_id}/events", create),
    Route("GET", "/agents/sessions/{session_id}/events", stream),
)


def _said(event: InputEvent) -> list[str]:
    """The texts of an event that the model will read."""
    if event.input is not None:
        return texts_of(event.input)
    return [_output(event)]


def _output(event: InputEvent) -> str:
    return text_of(event.output) if event.success is not False else event.error or ""


def _apply(state: State, visit: Visit, session: Session, events: Sequence[InputEvent]) -> None:
    """Do what the events ask for; nothing is done if one of them is refused."""
    now = visit.now
    if session.status(now) == "failed":
        refuse_invalid("The session has failed.", code=ERROR_CODE)
    for event in events:
        if event.type not in KNOWN:
            message = f"Invalid value: '{event.type}'."
            refuse_invalid(message, param="events.type", code=ERROR_CODE)
    outputs = _read_outputs(state, visit, session, events)
    said = [text for one in events if one.type == MESSAGE for text in texts_of(one.input or [])]
    turn = session.open_turn(now)
    if said and turn is not None:
        message = "The session cannot accept additional input while a request is running."
        refuse_invalid(message, code="active_turn_not_steerable")
    if outputs and turn is not None:
        take_outputs(state, session, turn, now, outputs)
        _note_results(state, session, turn, events)
    if said:
        begin_turn(state, visit, session, said)
        settle(state, session, now)
    cancelled = any(event.type == CANCEL for event in events)
    if cancelled:
        state.books.creates.cancelled(session.id)
    if outputs or said:
        state.books.creates.continued(session.id)
    if cancelled and turn is not None and turn.cancelled_at is None:
        turn.cancelled_at = now + state.settings.cancelling_seconds
    note(state, session, now)


def _read_outputs(
    state: State, visit: Visit, session: Session, events: Sequence[InputEvent]
) -> dict[str, str]:
    """What the events answer, by call id; every one answers a call that waits for it."""
    outputs: dict[str, str] = {}
    for event in events:
        if event.type == TOOL_RESULT:
            call = _pending(state, session, "function_call", event.call_id, visit)
            if event.turn_id != session.turns[-1].id or call.id in outputs:
                _refuse_unknown(event.call_id)
            outputs[call.id] = _output(event)
        elif event.type in APPROVALS:
            call = _pending(state, session, APPROVALS[event.type], event.request_id, visit)
            outputs[call.id] = _decision(event.response or {})
    return outputs


def _pending(
    state: State, session: Session, kind: str, call_id: str | None, visit: Visit
) -> PendingCall:
    """The call that waits for this; refused for a moment after it appears, where so set."""
    turn = session.open_turn(visit.now)
    waiting: Sequence[PendingCall] = ()
    if turn is not None and turn.status(visit.now) == "waiting":
        known_at = turn.ends_at + state.settings.pending_call_lag_seconds
        waiting = turn.unanswered() if visit.now >= known_at else ()
    fitting = (call for call in waiting if call.id == call_id and call.asked.type == kind)
    found = next(fitting, None)
    if found is None:
        _refuse_unknown(call_id)
    return found


def _refuse_unknown(call_id: str | None) -> NoReturn:
    refuse_invalid(f"Unknown pending tool call: {call_id}", code=ERROR_CODE)


def _decision(response: Mapping[str, Any]) -> str:
    """What was decided about an approval, in one word."""
    decision = response.get("decision", response.get("action"))
    if decision not in DECISIONS:
        message = f"Invalid value: '{decision}'. Supported values are: {', '.join(DECISIONS)}."
        refuse_invalid(message, param="events.response", code=ERROR_CODE)
    return str(decision)


def _note_results(state: State, session: Session, turn: Turn, events: Sequence[InputEvent]) -> None:
    """Write what came in into the session's items."""
    items = {item["id"]: item for item in session.items}
    for event in events:
        call_id = event.call_id or event.request_id
        asked = items.get(state.new_id("item_", call_id or "", api=Api.SESSIONS))
        if call_id is None or asked is None:
            continue
        if asked["type"] == "function_call":
            success = event.success is not False
            asked["status"] = "completed" if success else "failed"
            item = output_item(state, turn, call_id, _output(event), success=success)
            add_item(state, session, turn, item)
        else:
            approved = (event.response or {}).get("decision") == "approve"
            asked["status"] = "completed" if approved else "failed"
