"""What endpoints are told of agent sessions."""

from collections.abc import Mapping
from typing import Any

from orchestrator.emulator.session_life import Session
from orchestrator.emulator.state import State

# Streams and webhooks have different words for the same thing.
ACTION_REQUIRED = "action_required"
WORDS: Mapping[str, str] = {"requires_action": ACTION_REQUIRED}


def announce(state: State, session: Session, at: float, kind: str) -> None:
    """Tell endpoints of a session's new status; of each action that is required by itself."""
    if session.lost or not state.webhooks.endpoints:
        return
    kind = WORDS.get(kind, kind)
    name = f"agent.session.{kind}"
    if kind != ACTION_REQUIRED:
        state.webhooks.happened(name, session.id, at, _environment(session, kind))
        return
    for call in session.turns[-1].unanswered():
        action = {"required_action": {"type": call.asked.type}}
        state.webhooks.happened(name, session.id, at, action, key=call.id)


def _environment(session: Session, kind: str) -> dict[str, Any]:
    environment = session.shown["environment"]
    said = {"environment_type": environment["type"]}
    if "id" in environment:
        said["environment_id"] = environment["id"]
    if kind == "created" and "remote_url" in environment:
        return {**said, "connect": {"remote_url": environment["remote_url"]}}
    return said
