"""The Responses API: create (in the background or not), retrieve, cancel, continue with outputs."""

from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any

import msgspec

from orchestrator.emulator.answers import Answer, Question, tokens_of
from orchestrator.emulator.calls import Reply, json_reply
from orchestrator.emulator.chance import draw
from orchestrator.emulator.conversation import (
    Conversation,
    Part,
    answer_schema,
    check_metadata,
    check_tokens_max,
    must_call,
    read_tools,
    refuse_stream,
    text_of,
)
from orchestrator.emulator.deviations import Deviation
from orchestrator.emulator.refusals import (
    Refusal,
    refuse_invalid,
    refuse_missing,
    refuse_missing_run,
)
from orchestrator.emulator.response_stream import STREAM_HEADERS, stream_of
from orchestrator.emulator.runs import BILLED, ENDS, NEVER, Run
from orchestrator.emulator.state import Route, State, Visit

# Servers that accept cancelling what is over answer `cancelled` or 409; this share is the latter.
CONFLICT_SHARE = 0.5


class Item(msgspec.Struct):
    """One item of the input: a message, a function call, or a function call's output."""

    type: str = "message"
    role: str = "user"
    content: str | list[Part] | None = None
    call_id: str | None = None
    output: str | list[Part] | None = None


class ResponseRequest(msgspec.Struct):
    """The body of a create call, as far as the emulator looks at it or shows it again."""

    model: str | None = None
    input: str | list[Item] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    store: bool | None = None
    stream: bool | None = None
    metadata: dict[str, str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    truncation: str | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None


@dataclass(slots=True, kw_only=True)
class ResponseRun(Run):
    """A response, and what is needed to show it and to continue it.

    `calls` are (call id, name, arguments) of the tool calls it asks for; `turn` and `text` tell
    where the conversation stood when it was created.
    """

    request: ResponseRequest
    answer: Answer
    calls: tuple[tuple[str, str, str], ...]
    text: str
    turn: int

    @property
    def background(self) -> bool:
        """Whether it was created to be asked for later."""
        return bool(self.request.background)

    @property
    def stored(self) -> bool:
        """Whether it can be retrieved and continued."""
        return self.request.store is not False


def create(state: State, visit: Visit) -> Reply:
    """POST /responses."""
    request = visit.read(ResponseRequest)
    model = state.check_model(request.model)
    visit.metadata = request.metadata
    if Deviation.RESPONSES_NO_BACKGROUND in state.deviations:
        request.background = None
    streams = _streams(state, request)
    _check(request)
    previous = _previous(state, request, visit.now)
    conversation = _read_input(request, previous)
    tools = read_tools(request.tools)
    forced = must_call(request.tool_choice, tools)
    input_tokens = tokens_of(request.instructions or "", *conversation.texts)
    state.admit(visit, model, max(request.max_output_tokens or 0, input_tokens))
    answer = state.answers.answer(
        Question(
            model=model,
            text=conversation.text,
            key=visit.body_digest,
            turn=conversation.turn,
            outputs=conversation.outputs,
            tools=tools,
            must_call=forced,
            metadata=request.metadata or {},
            tokens_max=request.max_output_tokens,
            schema=answer_schema((request.text or {}).get("format")),
        )
    )
    request.input = None  # it is not shown again, and a million of them would fill the memory
    run = _new_run(state, visit, request, answer, conversation, input_tokens)
    visit.run_id = run.id
    state.runs.add(run, visit.now)
    state.created(visit, "response" if previous is None else "response_turn", run.id)
    if previous is not None:
        state.books.creates.continued(previous.id)
    watch_end(state, run)
    if run.background and not streams:
        return json_reply(_shown(state, run, run.status(visit.now)))
    delay = state.settings.hang_seconds if run.ends_as == NEVER else run.ends_at - visit.now
    shown = _shown(state, run, run.status(visit.now + delay))
    if streams:
        return Reply(200, STREAM_HEADERS, stream_of(shown), delay)
    return json_reply(shown, delay_seconds=delay)


def retrieve(state: State, visit: Visit) -> Reply:
    """GET /responses/{id}."""
    refuse_stream(visit.call.query.get("stream") == "true")
    run = _find(state, visit)
    state.admit_check(visit, run.model)
    status = run.status(visit.now)
    if status in ENDS and run.stale_checks > 0:
        run.stale_checks -= 1
        status = "in_progress"
    final = status in ENDS or status == "cancelled"
    state.books.checked(run.id, final=final)
    if not final and state.settings.poll_after_ms is not None:
        visit.headers["openai-poll-after-ms"] = str(state.settings.poll_after_ms)
    return json_reply(_shown(state, run, status))


def cancel(state: State, visit: Visit) -> Reply:
    """POST /responses/{id}/cancel."""
    run = _find(state, visit)
    state.admit_check(visit, run.model)
    if not run.background:
        refuse_invalid("Cannot cancel a synchronous response.")
    status = run.status(visit.now)
    if Deviation.RESPONSES_CANCEL_AFTER_END in state.deviations and status in ENDS:
        if draw(state.settings.seed, "cancel", run.id) < CONFLICT_SHARE:
            raise Refusal(409, f"Cannot cancel a response with status '{status}'.")
        return json_reply(_shown(state, run, "cancelled"))
    state.books.creates.cancelled(run.id)
    state.runs.cancel(run, visit.now)
    state.watched.move(run.id, visit.now)
    return json_reply(_shown(state, run, run.status(visit.now)))


def watch_end(state: State, run: ResponseRun) -> None:
    """See to it that endpoints are told when the response ends, if it is in the background."""
    if run.background and not run.lost:
        state.watch(run.id, run.over_at, partial(_look, state, run))


ROUTES = (
    Route("POST", "/responses", create),
    Route("GET", "/responses/{id}", retrieve),
    Route("POST", "/responses/{id}/cancel", cancel),
)


def _look(state: State, run: ResponseRun, at: float) -> float | None:
    if not run.is_over(at):
        return run.over_at
    state.webhooks.happened(f"response.{run.status(at)}", run.id, run.over_at)
    return None


def _streams(state: State, request: ResponseRequest) -> bool:
    """Whether the answer is a stream; OpenAI's own streams are not played here."""
    if Deviation.RESPONSES_STREAMS in state.deviations:
        return request.stream is not False
    refuse_stream(request.stream)
    return False


def _check(request: ResponseRequest) -> None:
    check_metadata(request.metadata)
    check_tokens_max("max_output_tokens", request.max_output_tokens)
    if request.input is None:
        refuse_missing("input")
    if request.background and request.store is False:
        refuse_invalid("Background mode requires store to be true.", param="store")


def _find(state: State, visit: Visit) -> ResponseRun:
    run = state.runs.find(visit.run_id or "", visit.now)
    if not isinstance(run, ResponseRun) or not run.stored:
        refuse_missing_run(f"Response with id '{visit.run_id}' not found.")
    return run


def _previous(state: State, request: ResponseRequest, now: float) -> ResponseRun | None:
    run_id = request.previous_response_id
    if run_id is None:
        return None
    run = state.runs.find(run_id, now)
    param = "previous_response_id"
    if not isinstance(run, ResponseRun) or not run.stored:
        message = f"Previous response with id '{run_id}' not found."
        refuse_invalid(message, param=param, code="previous_response_not_found")
    if run.status(now) not in BILLED:
        message = f"Previous response with id '{run_id}' is {run.status(now)}, not completed."
        refuse_invalid(message, param=param)
    return run


def _read_input(request: ResponseRequest, previous: ResponseRun | None) -> Conversation:
    """What the input says; every tool call needs exactly one output, every output a call."""
    conversation = Conversation()
    if previous is not None:
        calls = [call_id for call_id, _, _ in previous.calls]
        conversation = Conversation(previous.text, previous.turn + bool(calls), calls)
    given = request.input
    for item in [Item(content=given)] if isinstance(given, str) else given or []:
        if item.type == "message":
            conversation.say(item.role, text_of(item.content))
        elif item.type == "function_call" and item.call_id:
            conversation.ask(item.call_id)
        elif item.type == "function_call_output" and not conversation.answer(
            item.call_id or "", text_of(item.output)
        ):
            message = f"No tool call found for function call output with call_id {item.call_id}."
            refuse_invalid(message, param="input")
    for call_id in conversation.unanswered:
        refuse_invalid(f"No tool output found for function call {call_id}.", param="input")
    return conversation


def _new_run(
    state: State,
    visit: Visit,
    request: ResponseRequest,
    answer: Answer,
    conversation: Conversation,
    input_tokens: int,
) -> ResponseRun:
    run_id = state.new_id("resp_", visit.key)
    if state.hangs(visit):
        answer = replace(answer, status=NEVER)
    queued = state.seconds(state.settings.queue_seconds, "queue", run_id)
    started_at = visit.now + (queued if request.background else 0.0)
    return ResponseRun(
        id=run_id,
        model=visit.model or "",
        created_at=visit.now,
        started_at=started_at,
        ends_at=inf
        if answer.status == NEVER
        else started_at + state.answer_seconds(answer, run_id),
        ends_as=answer.status,
        input_tokens=input_tokens,
        output_tokens=answer.output_tokens,
        lost=answer.lose_run,
        stale_checks=answer.stale_checks,
        request=request,
        answer=answer,
        calls=tuple(
            (state.new_id("call_", run_id, position), call.name, call.arguments)
            for position, call in enumerate(answer.tool_calls)
        ),
        text=conversation.text,
        turn=conversation.turn,
    )


def _shown(state: State, run: ResponseRun, status: str) -> dict[str, Any]:
    """The response as JSON, as it looks with this status."""
    request, answer = run.request, run.answer
    done = status in BILLED
    failed = status == "failed"
    code, text = answer.error_code or "server_error", answer.error_message or "An error occurred."
    return {
        "id": run.id,
        "object": "response",
        "created_at": state.unix(run.created_at),
        "completed_at": state.unix(run.ends_at) if status == "completed" else None,
        "status": status,
        "background": run.background,
        "error": {"code": code, "message": text} if failed else None,
        "incomplete_details": {"reason": answer.reason} if status == "incomplete" else None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": None,
        "metadata": request.metadata or {},
        "model": run.model,
        "output": _output(state, run, status) if done else [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": None, "summary": None, **(request.reasoning or {})},
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": run.stored,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": {"type": "text"}, **(request.text or {})},
        "tool_choice": request.tool_choice or "auto",
        "tools": request.tools or [],
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": request.truncation or "disabled",
        "usage": _usage(run) if done else None,
        "user": request.user,
    }


def _output(state: State, run: ResponseRun, status: str) -> list[dict[str, Any]]:
    if run.calls:
        return [
            {
                "id": state.new_id("fc_", call_id),
                "type": "function_call",
                "status": "completed",
                "call_id": call_id,
                "name": name,
                "arguments": arguments,
            }
            for call_id, name, arguments in run.calls
        ]
    said = {"type": "output_text", "text": run.answer.text, "annotations": [], "logprobs": []}
    message = {
        "id": state.new_id("msg_", run.id),
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [said],
    }
    return [message]


def _usage(run: Run) -> dict[str, Any]:
    return {
        "input_tokens": run.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": run.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": run.input_tokens + run.output_tokens,
    }
