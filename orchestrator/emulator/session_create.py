"""The reply to the creation of an agent session, by servers that wait for its turn and others."""

from dataclasses import replace
from math import inf

from orchestrator.emulator.calls import Reply, json_reply
from orchestrator.emulator.deviations import Deviation
from orchestrator.emulator.refusals import Refusal
from orchestrator.emulator.session_json import shown_session
from orchestrator.emulator.session_life import Session, Sessions
from orchestrator.emulator.state import State

LIVE_MAX = 12  # "after a dozen", as it was seen


def check_room(state: State, now: float) -> None:
    """Refuse one more session where a dozen live."""
    limited = Deviation.SESSIONS_LIVE_MAX in state.deviations
    if limited and state.memory(Sessions).live_count(now) >= LIVE_MAX:
        message = f"Too many live sessions: {LIVE_MAX} at most."
        raise Refusal(429, message, "requests", "too_many_sessions")


def reply_to_create(state: State, session: Session, now: float) -> Reply:
    """How the session looks now or, where create waits for the turn, when it comes to rest."""
    seconds = _seconds_to_rest(state, session, now)
    turn = session.turns[-1] if session.turns else None
    fails = turn is not None and turn.status(now + seconds) == "failed"
    if fails and Deviation.SESSIONS_FAILED_TURN_502 in state.deviations:
        refused = Refusal(502, "The turn failed.", "server_error", "bad_gateway").reply()
        return replace(refused, delay_seconds=seconds)
    if Deviation.SESSIONS_BLOCKING_CREATE not in state.deviations:
        seconds = 0.0
    return json_reply(shown_session(state, session, now + seconds), delay_seconds=seconds)


def _seconds_to_rest(state: State, session: Session, now: float) -> float:
    """How long until the turn has ended or waits; what does neither is held as a direct call is."""
    if not session.turns:
        return 0.0
    ends_at = session.turns[-1].ends_at
    return state.settings.hang_seconds if ends_at == inf else ends_at - now
