"""The Assistants API: assistants, and runs on threads with all nine statuses."""

from dataclasses import dataclass, field
from math import inf
from typing import Any

import msgspec

from orchestrator.emulator.answers import Question, tokens_of
from orchestrator.emulator.assistant_runs import (
    AssistantRequest,
    RunRequest,
    fixed_fields,
    shown_run,
)
from orchestrator.emulator.calls import Reply, json_reply
from orchestrator.emulator.chance import digest
from orchestrator.emulator.conversation import (
    answer_schema,
    check_metadata,
    check_tokens_max,
    must_call,
    read_tools,
    refuse_stream,
    text_of,
)
from orchestrator.emulator.deviations import Deviation
from orchestrator.emulator.pages import page_of
from orchestrator.emulator.refusals import (
    refuse_invalid,
    refuse_missing,
    refuse_missing_run,
    refuse_not_found,
)
from orchestrator.emulator.state import Route, State, Visit
from orchestrator.emulator.threads import (
    BETA,
    AssistantRun,
    MessageRequest,
    Thread,
    ThreadRequest,
    check_messages,
    find_thread,
    new_thread,
    read_order,
    say,
    shown_list,
)
from orchestrator.emulator.tool_runs import OVER, first_answer, next_question
from orchestrator.emulator.writing import Api

# What an assistant that nobody created runs on.
MODEL_DEFAULT = "gpt-4o"


class ToolOutput(msgspec.Struct):
    """The output of one tool call."""

    tool_call_id: str | None = None
    output: str | None = None


class OutputsRequest(msgspec.Struct):
    """The body of POST .../submit_tool_outputs."""

    tool_outputs: list[ToolOutput] | None = None
    stream: bool | None = None


@dataclass(frozen=True, slots=True)
class Assistant:
    """An assistant; one that was never created has an id and nothing else."""

    id: str
    created_at: float = 0.0
    request: AssistantRequest = field(default_factory=AssistantRequest)


class Assistants:
    """All assistants by id."""

    def __init__(self) -> None:
        self.by_id: dict[str, Assistant] = {}


def create_assistant(state: State, visit: Visit) -> Reply:
    """POST /assistants."""
    state.check_beta(visit, "Assistants", BETA)
    request = visit.read(AssistantRequest)
    state.check_model(request.model)
    check_metadata(request.metadata)
    visit.metadata = request.metadata
    state.admit_control(visit)
    assistant = Assistant(state.new_id("asst_", visit.key, api=Api.ASSISTANTS), visit.now, request)
    state.memory(Assistants).by_id[assistant.id] = assistant
    return json_reply(_shown_assistant(state, assistant))


def retrieve_assistant(state: State, visit: Visit) -> Reply:
    """GET /assistants/{assistant_id}."""
    state.check_beta(visit, "Assistants", BETA)
    state.admit_control(visit)
    return json_reply(_shown_assistant(state, _assistant(state, visit.ids[0])))


def create_with_thread(state: State, visit: Visit) -> Reply:
    """POST /threads/runs: the thread and its first run in one call."""
    state.check_beta(visit, "Assistants", BETA)
    request = _read_request(state, visit)
    given = request.thread or ThreadRequest()
    check_metadata(given.metadata)
    check_messages("thread.messages", given.messages or [])
    tokens = sum(tokens_of(_text(message)) for message in given.messages or [])
    model = _model(state, request)
    state.admit(visit, model, max(request.max_completion_tokens or 0, tokens))
    return _start(state, visit, request, new_thread(state, visit, given))


def create_run(state: State, visit: Visit) -> Reply:
    """POST /threads/{thread_id}/runs; refused while another run has the thread for itself."""
    thread = find_thread(state, visit)
    request = _read_request(state, visit)
    extra = request.additional_messages or []
    check_messages("additional_messages", extra)
    texts = [*thread.conversation(state, visit.now).texts, *(_text(one) for one in extra)]
    # Of one thread's runs the bodies are all the same: what is asked stands in the thread.
    visit.body_digest = digest(visit.body_digest, *texts)
    tokens = max(request.max_completion_tokens or 0, tokens_of(*texts))
    state.admit(visit, _model(state, request), tokens)
    busy = thread.active_run(visit.now)
    if busy is not None and Deviation.ASSISTANTS_BUSY_THREAD_ACCEPTED not in state.deviations:
        refuse_invalid(f"Thread {thread.id} already has an active run {busy.id}.")
    return _start(state, visit, request, thread)


def retrieve(state: State, visit: Visit) -> Reply:
    """GET /threads/{thread_id}/runs/{run_id}."""
    run = _find(state, visit)
    state.admit_check(visit, run.model)
    status, calls = run.status(visit.now), run.calls
    if run.stale_looks > 0:
        run.stale_looks -= 1
        status, calls = "requires_action", run.answered
    elif run.stale_checks > 0 and status in OVER and not run.calls:
        run.stale_checks -= 1
        status = "in_progress"
    state.books.checked(run.id, final=status in OVER)
    if status not in OVER and state.settings.poll_after_ms is not None:
        visit.headers["openai-poll-after-ms"] = str(state.settings.poll_after_ms)
    return json_reply(shown_run(state, run, status, visit.now, calls))


def list_runs(state: State, visit: Visit) -> Reply:
    """GET /threads/{thread_id}/runs."""
    thread = find_thread(state, visit)
    state.admit_control(visit)
    runs = [run for run in thread.runs if not run.lost]
    if read_order(visit) == "desc":
        runs.reverse()
    page, more = page_of(visit.call, runs)
    for run in page:
        state.books.checked(run.id, final=run.status(visit.now) in OVER)
        state.books.creates.listed(run.id)
    state.books.listed(visit.route, len(page))
    now = visit.now
    shown = [shown_run(state, run, run.status(now), now, run.calls) for run in page]
    return json_reply(shown_list(shown, more=more))


def submit(state: State, visit: Visit) -> Reply:
    """POST .../submit_tool_outputs: all outputs of the run's calls in one submission, once."""
    run = _find(state, visit)
    request = visit.read(OutputsRequest)
    refuse_stream(request.stream)
    if request.tool_outputs is None:
        refuse_missing("tool_outputs")
    outputs = [one.output or "" for one in request.tool_outputs]
    tokens = run.input_tokens + run.output_tokens + tokens_of(*outputs)
    state.admit(visit, run.model, tokens)
    status = run.status(visit.now)
    if status != "requires_action":
        message = f'Runs in status "{status}" do not accept tool outputs.'
        if Deviation.ASSISTANTS_SECOND_SUBMIT_404 in state.deviations:
            refuse_not_found(message)
        refuse_invalid(message)
    by_id = {one.tool_call_id: one.output or "" for one in request.tool_outputs}
    expected = [call.id for call in run.calls]
    if sorted(expected) != sorted(one.tool_call_id or "" for one in request.tool_outputs):
        got = [one.tool_call_id for one in request.tool_outputs]
        refuse_invalid(f"Expected tool outputs for call_ids {expected}, got {got}")
    question = next_question(run, [by_id[call_id] for call_id in expected])
    answer = state.answers.answer(question)
    run.answered, run.stale_looks = run.calls, run.answer.stale_checks
    # The run waits in the queue a second time.
    queued = state.seconds(state.settings.queue_seconds, "queue", f"{run.id}/{question.turn}")
    run.go_on(state, question, answer, visit.now + queued)
    run.input_tokens = tokens
    state.books.creates.continued(run.id)
    return json_reply(shown_run(state, run, run.status(visit.now), visit.now, run.calls))


def cancel(state: State, visit: Visit) -> Reply:
    """POST .../cancel. The run is `cancelling` for a moment."""
    run = _find(state, visit)
    if Deviation.ASSISTANTS_CANCEL_WANTS_NO_BODY in state.deviations:
        _refuse_empty_json(visit)
    state.admit_check(visit, run.model)
    status = run.status(visit.now)
    if status in OVER:
        refuse_invalid(f"Cannot cancel run with status '{status}'.")
    state.books.creates.cancelled(run.id)
    if run.cancelled_at is None:
        stuck = Deviation.ASSISTANTS_STUCK_CANCELLING in state.deviations
        run.cancelled_at = visit.now + (inf if stuck else state.settings.cancelling_seconds)
    return json_reply(shown_run(state, run, "cancelling", visit.now, run.calls))


ROUTES = (
    Route("POST", "/assistants", create_assistant),
    Route("GET", "/assistants/{assistant_id}", retrieve_assistant),
    Route("POST", "/threads/runs", create_with_thread),
    Route("POST", "/threads/{thread_id}/runs", create_run),
    Route("GET", "/threads/{thread_id}/runs", list_runs),
    Route("GET", "/threads/{thread_id}/runs/{run_id}", retrieve),
    Route("POST", "/threads/{thread_id}/runs/{run_id}/submit_tool_outputs", submit),
    Route("POST", "/threads/{thread_id}/runs/{run_id}/cancel", cancel),
)


def _read_request(state: State, visit: Visit) -> RunRequest:
    request = visit.read(RunRequest)
    visit.metadata = request.metadata
    refuse_stream(request.stream)
    check_metadata(request.metadata)
    check_tokens_max("max_completion_tokens", request.max_completion_tokens)
    if not request.assistant_id:
        refuse_missing("assistant_id")
    _assistant(state, request.assistant_id)
    return request


def _assistant(state: State, assistant_id: str) -> Assistant:
    found = state.memory(Assistants).by_id.get(assistant_id)
    if found is None and not state.settings.any_assistant:
        refuse_not_found(f"No assistant found with id '{assistant_id}'.")
    return found or Assistant(assistant_id)


def _model(state: State, request: RunRequest) -> str:
    assistant = _assistant(state, request.assistant_id or "")
    return state.check_model(request.model or assistant.request.model or MODEL_DEFAULT)


def _find(state: State, visit: Visit) -> AssistantRun:
    thread = find_thread(state, visit)
    run = state.runs.find(visit.ids[1], visit.now)
    if not isinstance(run, AssistantRun) or run.thread_id != thread.id:
        refuse_missing_run(f"No run found with id '{visit.ids[1]}'.")
    return run


def _refuse_empty_json(visit: Visit) -> None:
    if "json" in visit.call.headers.get("content-type", "") and not visit.call.body:
        message = "Body cannot be empty when content-type is set to 'application/json'."
        refuse_invalid(message, code="empty_json_body")


def _text(message: MessageRequest) -> str:
    return text_of(message.content)


def _start(state: State, visit: Visit, request: RunRequest, thread: Thread) -> Reply:
    """Create the run; the limits have let it in."""
    now, settings = visit.now, state.settings
    of_assistant = _assistant(state, request.assistant_id or "").request
    offered = request.tools if request.tools is not None else of_assistant.tools
    tools = read_tools(offered)
    wanted = request.response_format or of_assistant.response_format
    extra = request.additional_messages or []
    conversation = thread.conversation(state, now)
    for message in extra:
        conversation.say(message.role, _text(message))
    question = Question(
        model=visit.model or "",
        text=conversation.text,
        key=visit.body_digest,
        tools=tools,
        must_call=must_call(request.tool_choice, tools),
        metadata=request.metadata or {},
        tokens_max=request.max_completion_tokens,
        schema=answer_schema(wanted),
    )
    answer = first_answer(state, visit, question)
    say(state, visit, thread, extra)
    shown = fixed_fields(request, of_assistant, offered, wanted)
    run_id = state.new_id("run_", visit.key, api=Api.ASSISTANTS)
    expires = inf if settings.run_expires_seconds is None else settings.run_expires_seconds
    run = AssistantRun(
        id=run_id,
        model=question.model,
        created_at=now,
        started_at=now,
        ends_at=inf,
        ends_as=answer.status,
        input_tokens=tokens_of(shown["instructions"], *conversation.texts),
        output_tokens=0,
        lost=answer.lose_run,
        question=question,
        answer=answer,
        expires_at=now + expires,
        thread_id=thread.id,
        assistant_id=request.assistant_id or "",
        shown=shown,
    )
    run.go_on(state, question, answer, now + state.seconds(settings.queue_seconds, "queue", run_id))
    thread.runs.append(run)
    state.runs.add(run, now)
    visit.run_id = run.id
    state.created(visit, "assistants_run", run.id)
    return json_reply(shown_run(state, run, run.status(now), now, run.calls))


def _shown_assistant(state: State, assistant: Assistant) -> dict[str, Any]:
    request = assistant.request
    return {
        "id": assistant.id,
        "object": "assistant",
        "created_at": state.time(assistant.created_at, Api.ASSISTANTS),
        "name": request.name,
        "description": request.description,
        "model": request.model or MODEL_DEFAULT,
        "instructions": request.instructions,
        "tools": request.tools or [],
        "metadata": request.metadata or {},
        "response_format": request.response_format or "auto",
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "tool_resources": None,
    }
