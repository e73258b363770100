"""Agent sessions, their turns and items as JSON."""

from typing import Any, TypeVar

import msgspec

from orchestrator.emulator.deviations import Deviation
from orchestrator.emulator.session_life import CONNECTION, Session, Turn
from orchestrator.emulator.state import State
from orchestrator.emulator.tool_runs import OVER, PendingCall
from orchestrator.emulator.writing import Api

OtherwiseT = TypeVar("OtherwiseT")


def shown_session(state: State, session: Session, now: float) -> dict[str, Any]:
    """The session as it looks now."""
    status, turn = session.status(now), session.turn_at(now)
    failed = turn is not None and status == "failed"
    waits = turn is not None and status == "requires_action"
    costs = [turn.billed(now) for turn in session.turns if turn.is_over(now)]
    tokens = (sum(cost[0] for cost in costs), sum(cost[1] for cost in costs))
    return {
        "id": session.id,
        "object": "agent.session",
        "created_at": state.time(session.created_at, Api.SESSIONS),
        "last_active_at": state.time(min(session.active_at, now), Api.SESSIONS),
        "status": status,
        "error": _error(turn)["message"] if turn is not None and failed else None,
        "metadata": session.metadata,
        "required_actions": [_required(state, turn, call) for call in turn.unanswered()]
        if turn is not None and waits
        else [],
        "usage": usage(tokens) if costs else None,
        **session.shown,
    }


def shown_turn(state: State, turn: Turn, now: float) -> dict[str, Any]:
    """The turn as it looks now."""
    status = turn.status(now)
    over = status in OVER
    return {
        "id": turn.id,
        "object": "agent.session.turn",
        "agent_id": turn.agent_id,
        "session_id": turn.session_id,
        "subagent_id": None,
        "created_at": state.time(turn.created_at, Api.SESSIONS),
        "started_at": state.time(turn.begun_at, Api.SESSIONS) if turn.begun_at <= now else None,
        "completed_at": state.time(turn.over_at, Api.SESSIONS) if over else None,
        "status": status,
        "error": _error(turn) if status == "failed" else None,
        "usage": usage(turn.billed(now)) if over else None,
    }


def subagent_turn(state: State, turn: Turn, now: float) -> dict[str, Any]:
    """A turn of a helper of the root agent, failed and newer: not the one to go by."""
    failure = {"code": "sandbox_error", "message": "The subagent's sandbox went away."}
    return {
        **shown_turn(state, turn, now),
        "id": state.new_id("turn_", turn.id, "subagent", api=Api.SESSIONS),
        "subagent_id": state.new_id("subagent_", turn.id, api=Api.SESSIONS),
        "completed_at": state.time(turn.created_at, Api.SESSIONS),
        "status": "failed",
        "error": failure,
        "usage": None,
    }


def usage(tokens: tuple[int, int]) -> dict[str, Any]:
    """Tokens in and out as JSON."""
    return {
        "input_tokens": tokens[0],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens[1],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sum(tokens),
    }


def user_message(state: State, turn: Turn) -> dict[str, Any]:
    """What the user said to start the turn."""
    return {
        "id": state.new_id("msg_", turn.id, "user", api=Api.SESSIONS),
        "type": "message",
        "role": "user",
        "status": "completed",
        "phase": None,
        "turn_id": turn.id,
        "content": [{"type": "input_text", "text": text} for text in turn.said],
    }


def answer_message(state: State, turn: Turn) -> dict[str, Any]:
    """What the agent says at the end of the turn."""
    return {
        "id": state.new_id("msg_", turn.id, api=Api.SESSIONS),
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "phase": "final_answer",
        "turn_id": turn.id,
        "content": [{"type": "output_text", "text": turn.answer.text}],
    }


def asked_item(state: State, turn: Turn, call: PendingCall) -> dict[str, Any] | None:
    """What the agent asks for, as an item; None for what leaves no item."""
    common = {
        "id": state.new_id("item_", call.id, api=Api.SESSIONS),
        "turn_id": turn.id,
        "status": "in_progress",
    }
    asked = {"name": call.asked.name, "arguments": call.asked.arguments}
    if call.asked.type == "function_call":
        return {**common, **asked, "type": "function_call", "call_id": call.id}
    if call.asked.type == "mcp_approval_request":
        nothing = {"output": None, "error": None, "server_label": "emulator"}
        return {**common, **asked, **nothing, "type": "mcp_call"}
    return None


def output_item(
    state: State, turn: Turn, call_id: str, output: str, *, success: bool
) -> dict[str, Any]:
    """The result of a function call as an item."""
    return {
        "id": state.new_id("item_", call_id, "output", api=Api.SESSIONS),
        "type": "function_call_output",
        "call_id": call_id,
        "output": output if success else None,
        "error": None if success else output,
        "status": "completed" if success else "failed",
        "turn_id": turn.id,
    }


def _error(turn: Turn) -> dict[str, Any]:
    answer = turn.answer
    message = answer.error_message or "The model service encountered an unexpected error."
    return {"code": answer.error_code or "server_error", "message": message}


def _required(state: State, turn: Turn, call: PendingCall) -> dict[str, Any]:
    """What the session waits for, as this server writes it."""
    action = _action(turn, call)
    if Deviation.SESSIONS_NO_TURN_ID in state.deviations:
        action.pop("turn_id", None)
    if Deviation.SESSIONS_ARGUMENTS_OBJECT in state.deviations and "arguments" in action:
        action["arguments"] = _arguments(call, otherwise=call.asked.arguments)
    return action


def _action(turn: Turn, call: PendingCall) -> dict[str, Any]:
    kind, asked = call.asked.type, call.asked
    if kind == CONNECTION:
        return {"type": kind, "environment_id": asked.name}
    if kind == "function_call":
        return {
            "type": kind,
            "call_id": call.id,
            "turn_id": turn.id,
            "name": asked.name,
            "arguments": asked.arguments,
        }
    request = _mcp(call) if kind == "mcp_approval_request" else _browser(call)
    return {"type": kind, "request_id": call.id, "turn_id": turn.id, "request": request}


def _mcp(call: PendingCall) -> dict[str, Any]:
    return {
        "type": "mcp_tool_call",
        "name": call.asked.name,
        "arguments": call.asked.arguments,
        "message": f"Allow the tool {call.asked.name}?",
        "server_label": "emulator",
    }


def _browser(call: PendingCall) -> dict[str, Any]:
    given = _arguments(call, otherwise={})
    origin, reason = given.get("origin", "https://example.org"), given.get("reason")
    if call.asked.name != "browser_authentication":
        return {"type": "browser_origin_access", "origin": origin, "reason": reason}
    return {
        "type": "browser_authentication",
        "credential_origin": origin,
        "fields": [{"id": "user", "label": "User", "required": True, "type": "text"}],
        "options": [],
        "reason": reason,
    }


def _arguments(call: PendingCall, otherwise: OtherwiseT) -> dict[str, Any] | OtherwiseT:
    try:
        return msgspec.json.decode(call.asked.arguments, type=dict[str, Any])
    except msgspec.DecodeError:
        return otherwise
