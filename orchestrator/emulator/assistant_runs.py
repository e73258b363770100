"""What is asked of Assistants runs, and how they are shown, as JSON."""

from collections.abc import Sequence
from math import inf
from typing import Any

import msgspec

from orchestrator.emulator.state import State
from orchestrator.emulator.threads import AssistantRun, MessageRequest, ThreadRequest
from orchestrator.emulator.tool_runs import OVER, PendingCall
from orchestrator.emulator.writing import Api, Time


class AssistantRequest(msgspec.Struct):
    """The body of POST /assistants."""

    model: str | None = None
    name: str | None = None
    description: str | None = None
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    metadata: dict[str, str] | None = None
    response_format: str | dict[str, Any] | None = None
    temperature: float | None = None
    top_p: float | None = None


class RunRequest(msgspec.Struct):
    """The body that creates a run; `thread` only where a thread is created with it."""

    assistant_id: str | None = None
    thread: ThreadRequest | None = None
    model: str | None = None
    instructions: str | None = None
    additional_instructions: str | None = None
    additional_messages: list[MessageRequest] | None = None
    metadata: dict[str, str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: int | None = None
    max_prompt_tokens: int | None = None
    response_format: str | dict[str, Any] | None = None
    truncation_strategy: dict[str, Any] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None


def fixed_fields(
    request: RunRequest,
    of_assistant: AssistantRequest,
    tools: list[dict[str, Any]] | None,
    wanted: str | dict[str, Any] | None,
) -> dict[str, Any]:
    """What a run shows of what was asked for."""
    instructions = request.instructions or of_assistant.instructions or ""
    if request.additional_instructions:
        instructions = f"{instructions}\n{request.additional_instructions}".strip()
    temperature, top_p = request.temperature, request.top_p
    return {
        "instructions": instructions,
        "max_completion_tokens": request.max_completion_tokens,
        "max_prompt_tokens": request.max_prompt_tokens,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "response_format": wanted or "auto",
        "temperature": 1.0 if temperature is None else temperature,
        "tool_choice": request.tool_choice or "auto",
        "tools": tools or [],
        "top_p": 1.0 if top_p is None else top_p,
        "truncation_strategy": {
            "type": "auto",
            "last_messages": None,
            **(request.truncation_strategy or {}),
        },
    }


def shown_run(
    state: State, run: AssistantRun, status: str, now: float, calls: Sequence[PendingCall]
) -> dict[str, Any]:
    """The run as JSON, as it looks with this status."""

    def at(moment: float, *, there: bool = True) -> Time | None:
        return state.time(moment, Api.ASSISTANTS) if there and moment < inf else None

    answer, over = run.answer, status in OVER
    error = {
        "code": answer.error_code or "server_error",
        "message": answer.error_message or "Sorry, something went wrong.",
    }
    # The other APIs' word for the same reason.
    reason = {"max_output_tokens": "max_completion_tokens"}.get(
        answer.reason or "max_output_tokens", answer.reason
    )
    return {
        "id": run.id,
        "object": "thread.run",
        "created_at": at(run.created_at),
        "assistant_id": run.assistant_id,
        "thread_id": run.thread_id,
        "model": run.model,
        "status": status,
        "started_at": at(run.begun_at, there=run.begun_at <= now),
        "completed_at": at(run.ends_at, there=status == "completed"),
        "failed_at": at(run.ends_at, there=status == "failed"),
        "cancelled_at": at(run.over_at, there=status == "cancelled"),
        "expires_at": at(run.expires_at, there=not over or status == "expired"),
        "last_error": error if status == "failed" else None,
        "incomplete_details": {"reason": reason} if status == "incomplete" else None,
        "required_action": _required(calls) if status == "requires_action" else None,
        "usage": _usage(run.billed(now)) if over else None,
        **run.shown,
    }


def _required(calls: Sequence[PendingCall]) -> dict[str, Any]:
    asked = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.asked.name, "arguments": call.asked.arguments},
        }
        for call in calls
    ]
    return {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": asked}}


def _usage(tokens: tuple[int, int]) -> dict[str, Any]:
    tokens_in, tokens_out = tokens
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }
