"""What happens in agent sessions: step by step as time passes, and told to whoever listens.

`settle` catches a session up to a moment, in the order in which things would have happened.
Everything that looks at a session or changes it settles it first.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

import msgspec

from orchestrator.emulator.answers import Answer, Question, tokens_of
from orchestrator.emulator.refusals import Refusal
from orchestrator.emulator.session_json import (
    answer_message,
    asked_item,
    shown_session,
    shown_turn,
    user_message,
)
from orchestrator.emulator.session_life import CONNECTION, Session, Sessions, Step, Turn
from orchestrator.emulator.session_webhooks import announce
from orchestrator.emulator.state import State, Visit
from orchestrator.emulator.tool_runs import OVER, first_answer, next_question
from orchestrator.emulator.writing import Api

# A rule's status: the turn fails, and the session with it.
SESSION_FAILED = "session_failed"


def begin_turn(state: State, visit: Visit, session: Session, said: list[str]) -> Turn:
    """Start a turn with what the user says; it is queued first. Raises the rule's refusal."""
    settings, now = state.settings, visit.now
    question = Question(
        model=session.model,
        text=said[-1],
        key=visit.body_digest,
        tools=session.tools,
        metadata=session.metadata,
        schema=session.schema,
    )
    answer = first_answer(state, visit, question)
    turn_id = state.new_id("turn_", session.id, len(session.turns), api=Api.SESSIONS)
    seen_at = now + settings.turn_lag_seconds
    session.context_tokens += tokens_of(*said)
    connects = settings.environment_seconds
    turn = Turn(
        id=turn_id,
        model=session.model,
        created_at=seen_at,
        started_at=now,
        ends_at=inf,
        ends_as=answer.status,
        input_tokens=session.context_tokens,
        output_tokens=0,
        lost=answer.lose_run,
        question=question,
        answer=answer,
        agent_id=session.agent_id,
        session_id=session.id,
        said=said,
        environment_seconds=inf if connects is None else connects,
    )
    starts_at = seen_at + state.seconds(settings.queue_seconds, "queue", turn_id)
    turn.go_on(state, question, _of_turn(turn, answer), starts_at)
    session.lost = session.lost or answer.lose_run
    session.turns.append(turn)
    state.runs.add(turn, now)
    state.memory(Sessions).wake(session)
    return turn


def settle(state: State, session: Session, now: float) -> None:
    """Catch the session up to this moment."""
    while (at := session.next_step_at()) <= now:
        _step(state, session, session.turns[-1], at)
        note(state, session, at)


def note(state: State, session: Session, at: float) -> None:
    """Remember what the session looks like from now on."""
    session.active_at = at
    if session.keeps_history:
        session.history.append((at, shown_session(state, session, at)))
    watch_steps(state, session)


def watch_steps(state: State, session: Session) -> None:
    """See to it that endpoints are told of what happens in the session by itself."""
    state.watch(session.id, session.next_step_at(), partial(_look, state, session))


def take_outputs(
    state: State, session: Session, turn: Turn, at: float, outputs: Mapping[str, str]
) -> None:
    """Take these outputs of the turn's calls; when none is missing, the turn goes on.

    Raises the rule's refusal, and then nothing is taken.
    """
    taken = {**turn.outputs, **outputs}
    if any(call.id not in taken for call in turn.calls):
        turn.outputs = taken
        session.context_tokens += tokens_of(*outputs.values())
        return
    question = next_question(turn, [taken[call.id] for call in turn.calls])
    _go_on(state, session, turn, at, question, state.answers.answer(question))
    session.context_tokens += tokens_of(*outputs.values())
    turn.input_tokens = session.context_tokens


def tell(state: State, session: Session, kind: str, fields: Mapping[str, Any]) -> None:
    """Tell the listeners of an event; nobody hears of it later."""
    session.told += 1
    if not session.listeners:
        return
    kind = f"agent.session.{kind}"
    event_id = state.new_id("event_", session.id, session.told, api=Api.SESSIONS)
    said = msgspec.json.encode({"type": kind, "event_id": event_id, **fields})
    piece = b"event: " + kind.encode() + b"\ndata: " + said + b"\n\n"
    for listener in list(session.listeners):
        listener.hear(kind, piece)


def add_item(
    state: State, session: Session, turn: Turn, item: dict[str, Any], index: int | None = None
) -> None:
    """Put an item into the session; `index` is its place in the turn's output, if it is any."""
    session.items.append(item)
    named = {"session_id": session.id, "turn_id": turn.id}
    tell(state, session, "turn.item.added", {"item": item, "output_index": index, **named})


def _look(state: State, session: Session, at: float) -> float | None:
    if session.id not in state.memory(Sessions).by_id:
        return None
    settle(state, session, at)
    return session.next_step_at()


def _step(state: State, session: Session, turn: Turn, at: float) -> None:
    """The next thing that happens to the turn."""
    status = turn.status(at)
    if turn.step is Step.UNSEEN:
        turn.step = Step.QUEUED
        _tell_turn(state, session, turn, at, "created")
        add_item(state, session, turn, user_message(state, turn))
    elif status in OVER:
        _end(state, session, turn, at, status)
    elif turn.step is Step.QUEUED:
        turn.step = Step.RUNNING
        _tell_session(state, session, at, "in_progress")
        _tell_turn(state, session, turn, at, "in_progress")
    elif turn.step is Step.RUNNING:
        turn.step = Step.WAITING
        for index, call in enumerate(turn.calls):
            item = asked_item(state, turn, call)
            if item is not None:
                add_item(state, session, turn, item, index)
        _tell_session(state, session, at, "requires_action")
    else:
        _connect(state, session, turn, at)


def _connect(state: State, session: Session, turn: Turn, at: float) -> None:
    """The environment is there; a rule's refusal fails the turn, as nobody is there to hear it."""
    waiting = [call.id for call in turn.unanswered() if call.asked.type == CONNECTION]
    try:
        take_outputs(state, session, turn, at, dict.fromkeys(waiting, "connected"))
    except Refusal as refusal:
        failure = Answer(
            status="failed", error_code=refusal.code, error_message=refusal.message, run_seconds=0
        )
        _go_on(state, session, turn, at, next_question(turn, []), failure)


def _go_on(
    state: State, session: Session, turn: Turn, at: float, question: Question, answer: Answer
) -> None:
    if turn.answer.stale_checks:
        session.stale = shown_session(state, session, at)
        session.stale_looks = turn.answer.stale_checks
    session.context_tokens += turn.output_tokens
    turn.go_on(state, question, _of_turn(turn, answer), at)
    turn.outputs = {}
    turn.step = Step.RUNNING
    _tell_session(state, session, at, "in_progress")


def _end(state: State, session: Session, turn: Turn, at: float, status: str) -> None:
    turn.step = Step.OVER
    named = {"session_id": session.id, "turn_id": turn.id}
    if status == "completed":
        item = answer_message(state, turn)
        add_item(state, session, turn, item, 0)
        tell(state, session, "turn.item.done", {"item": item, "output_index": 0, **named})
        session.context_tokens += turn.output_tokens
    _tell_turn(state, session, turn, at, status)
    _tell_session(state, session, at, session.status(at))


def _tell_turn(state: State, session: Session, turn: Turn, at: float, kind: str) -> None:
    if session.listeners:
        shown = shown_turn(state, turn, at)
        named = {"session_id": session.id, "turn_id": turn.id}
        told = {"turn": shown, "usage": shown["usage"], **named}
        tell(state, session, f"turn.{kind}", told)


def _tell_session(state: State, session: Session, at: float, kind: str) -> None:
    announce(state, session, at, kind)
    if session.listeners:
        tell(state, session, kind, {"session": shown_session(state, session, at)})


def _of_turn(turn: Turn, answer: Answer) -> Answer:
    """The answer in the words that turns have for how they end."""
    if answer.status == "incomplete":
        code = answer.error_code or answer.reason or "max_output_tokens"
        text = "The model reached its output token limit before finishing the response."
        message = answer.error_message or text
        return replace(answer, status="failed", error_code=code, error_message=message)
    if answer.status == SESSION_FAILED:
        turn.fails_session = True
        return replace(answer, status="failed")
    return answer
