"""What the endpoints that answer at once have in common: how long they take, how they end."""

from orchestrator.emulator.answers import Answer
from orchestrator.emulator.refusals import Refusal
from orchestrator.emulator.runs import NEVER
from orchestrator.emulator.state import State, Visit


def direct_seconds(state: State, visit: Visit, answer: Answer, *, short: bool = False) -> float:
    """How long the caller waits. Raises the refusal where the answer is a failure.

    A run can fail and be shown as failed; here there is only the call, so it gets the 500.
    """
    if answer.status == "failed":
        code = answer.error_code or "server_error"
        message = answer.error_message or "An error occurred."
        raise Refusal(500, message, type="server_error", code=code)
    if state.hangs(visit) or answer.status == NEVER:
        return state.settings.hang_seconds
    if short and answer.run_seconds is None:
        return state.short_seconds(visit.key)
    return state.answer_seconds(answer, visit.key)


def finish_reason(answer: Answer) -> str:
    """Why the text ends where it ends. A status that nobody knows is a reason nobody knows."""
    if answer.status == "incomplete":
        return "length" if answer.reason == "max_output_tokens" else answer.reason or "length"
    if answer.status not in {"completed", NEVER}:
        return answer.status
    return "tool_calls" if answer.tool_calls else "stop"
