"""Assistants runs: thread, run, checks, all tool outputs at once, messages.

OpenAI retired this API on 2026-08-26; servers with the same interface remain. A run is known by
its thread and its own id together, which the core sees as one. Of what such servers say, only ids
and the status are relied on: usage, times and metadata may be null, ids may have any form, and
messages may come in any order.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from orchestrator.apis.composing import (
    RUN_KEY,
    Fields,
    add_metadata,
    fields_of,
    joined,
    raw,
    run_name,
    says,
)
from orchestrator.apis.reading import (
    arguments_of,
    decoded,
    error_of,
    id_in,
    malformed,
    number_of,
    object_of,
    objects_of,
    text_of,
    usage_of,
)
from orchestrator.apis.refusals import free_of_charge
from orchestrator.apis.transport import CALL_TIMEOUT_SECONDS, Reply, Transport
from orchestrator.core.actions import (
    CancelRun,
    CheckRuns,
    CreateRun,
    FetchResult,
    SubmitToolOutputs,
)
from orchestrator.core.failures import Cause, Failure
from orchestrator.core.families import THREADS_RUNS_URL, thread_of
from orchestrator.core.model import (
    NO_USAGE,
    Answer,
    Prepared,
    Request,
    RunError,
    Seen,
    Status,
    Times,
    ToolCall,
)
from orchestrator.ports import CallFailed, CallKind

BETA = {"OpenAI-Beta": "assistants=v2"}

STATUS_OF = {
    "queued": Status.PENDING,
    "in_progress": Status.PENDING,
    "cancelling": Status.PENDING,  # not terminal
    "requires_action": Status.REQUIRES_ACTION,
    "completed": Status.COMPLETED,
    "incomplete": Status.INCOMPLETE,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
    "expired": Status.EXPIRED,
}

# One page of messages; a run that writes more than this has its newest ones in the result.
MESSAGES_MAX = 100

# A thread that somebody else uses may have had more runs since; ours is among the newest.
RUNS_MAX = 100

# What a body for thread and run in one says of the thread, and a body for a run must not.
OF_THREAD = ("thread", "tool_resources")

# In the server's words: a thread has one active run.
BUSY_WORDS = "already has an active run"

NO_HANDLERS = RunError(
    "no_tool_handlers", "the run asks for tool outputs, and no tools were given to answer it"
)


class Assistants:
    """The family of runs on threads.

    Args:
        transport: The way out.
        answers_tools: Whether there are handlers for the assistant's tools. The tools themselves
            are the assistant's affair and are not sent along.
        key: Begins the value of our `metadata` key, unique for an execution.
    """

    def __init__(self, transport: Transport, key: str, *, answers_tools: bool) -> None:
        self._transport = transport
        self._answers_tools = answers_tools
        self._key = key

    async def create(self, action: CreateRun) -> Seen | Prepared:
        """Make a thread where the request names none, then the run: one call at a time.

        Both in one call would leave a lost run on a thread that nobody knows.
        """
        request = action.request
        so_far = msgspec.json.decode(action.prepared or b"{}")
        thread = unquote(thread_of(request.url)) or so_far.get("thread_id", "")
        fields = fields_of(request.body.read())
        if not thread:
            return await self._make_thread(fields, action)
        if action.lost > so_far.get("lost", 0):
            return await self._look_for(action, thread, so_far)
        if request.url == THREADS_RUNS_URL:
            for name in OF_THREAD:
                fields.pop(name, None)
        add_metadata(fields, {RUN_KEY: run_name(self._key, action)}, request)
        left = action.deadline_at - self._transport.clock.now()
        try:
            return await self._post(
                CallKind.CREATE, _runs_of(thread), fields, request, max(left, 1.0)
            )
        except CallFailed as failed:
            raise CallFailed(_busy(failed.failure)) from failed

    async def _make_thread(self, fields: Fields, action: CreateRun) -> Prepared:
        """Costs nothing: one whose answer was lost is made again."""
        body = _thread_in(fields)
        try:
            reply = await self._send(CallKind.PREPARE, "POST", "/threads", action.request, body)
            thread_id = id_in(reply.body)
        except CallFailed as failed:
            raise free_of_charge(failed) from failed
        return Prepared(msgspec.json.encode({"thread_id": thread_id, "lost": action.lost}))

    async def _look_for(
        self, action: CreateRun, thread: str, so_far: dict[str, Any]
    ) -> Seen | Prepared:
        """A create whose answer was lost may have worked: then the thread has the run."""
        path = f"{_runs_of(thread)}?limit={RUNS_MAX}&order=desc"
        try:
            reply = await self._send(CallKind.PREPARE, "GET", path, action.request)
            listed = objects_of(decoded(reply.body), "data")
        except CallFailed as failed:
            if failed.failure.cause not in {Cause.NOT_FOUND, Cause.BAD_REQUEST}:
                raise free_of_charge(failed) from failed
            listed = []  # a server without a list
        name = run_name(self._key, action)
        for run in listed:
            # A thread that we made for this run has no other; some servers show no metadata.
            is_ours = "thread_id" in so_far or object_of(run, "metadata").get(RUN_KEY) == name
            if is_ours and text_of(run, "id"):
                run_id = f"{thread}/{text_of(run, 'id')}"
                return Seen(run_id, Status.PENDING, text_of(run, "status"), found=True)
        return Prepared(msgspec.json.encode({**so_far, "lost": action.lost}))

    async def check(self, action: CheckRuns) -> Mapping[int, Seen | Failure]:
        """Retrieve the run; this API can't list the runs of several threads."""
        seen: dict[int, Seen | Failure] = {}
        for run in action.runs:
            try:
                reply = await self._send(CallKind.CHECK, "GET", _place(run.run_id), run.request)
                seen[run.number] = self._seen(reply)
            except CallFailed as failed:
                seen[run.number] = failed.failure
        return seen

    async def submit(self, action: SubmitToolOutputs) -> Seen:
        """Submit all outputs of this turn; the API takes them only together."""
        outputs = [
            {"tool_call_id": output.call_id, "output": output.output} for output in action.outputs
        ]
        path = f"{_place(action.run_id)}/submit_tool_outputs"
        return await self._post(
            CallKind.SUBMIT, path, {"tool_outputs": raw(outputs)}, action.request
        )

    async def cancel(self, action: CancelRun) -> Seen:
        """Cancel the run; it is `cancelling` for a while."""
        path = f"{_place(action.run_id)}/cancel"
        # Some servers refuse an empty body under a JSON content type.
        return await self._post(CallKind.CANCEL, path, {}, action.request)

    async def fetch(self, action: FetchResult) -> Seen:
        """The run object as it was last seen, with its messages in order under `messages`."""
        thread, _, run_id = action.run_id.partition("/")
        path = f"/threads/{quote(thread, safe='')}/messages"
        query = f"?run_id={quote(run_id, safe='')}&order=desc&limit={MESSAGES_MAX}"
        reply = await self._send(CallKind.FETCH, "GET", path + query, action.request)
        messages = [
            message
            for message in reversed(objects_of(decoded(reply.body), "data"))
            if message.get("run_id") in {run_id, None} and message.get("role") != "user"
        ]
        messages.sort(key=lambda message: number_of(message, "created_at") or 0.0)
        seen = action.finished
        run = fields_of(seen.answer.body) if seen.answer else {}
        run["messages"] = raw(messages)
        answer = Answer(reply.status_code, reply.request_id, joined(run))
        return replace(seen, usage=NO_USAGE, answer=answer)

    async def _post(
        self,
        kind: CallKind,
        path: str,
        fields: Fields,
        request: Request,
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> Seen:
        reply = await self._send(kind, "POST", path, request, joined(fields), timeout_seconds)
        return self._seen(reply)

    async def _send(
        self,
        kind: CallKind,
        method: str,
        path: str,
        request: Request,
        body: bytes | None = None,
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> Reply:
        return await self._transport.send(
            kind,
            method,
            path,
            body,
            lane=request.model,
            timeout_seconds=timeout_seconds,
            headers=BETA,
        )

    def _seen(self, reply: Reply) -> Seen:
        unix_now = self._transport.clock.unix()
        return seen_of(reply, unix_now, answers_tools=self._answers_tools)


def seen_of(reply: Reply, unix_now: float, *, answers_tools: bool) -> Seen:
    """What a run object says.

    Raises:
        CallFailed: It is no run, or one that we could never ask for again.
    """
    run = decoded(reply.body)
    thread, run_id, said = text_of(run, "thread_id"), text_of(run, "id"), text_of(run, "status")
    if not (thread and run_id and said):
        raise malformed("it has no thread_id, no id or no status")
    status = STATUS_OF.get(said, Status.UNKNOWN)
    name = f"{thread}/{run_id}"
    if status is Status.PENDING:
        return Seen(name, status, said, look_again_seconds=reply.look_again_seconds)
    asks = status is Status.REQUIRES_ACTION
    tool_calls = _tool_calls(run) if asks else ()
    return Seen(
        run_id=name,
        status=status,
        said=said,
        tool_calls=tool_calls,
        unanswerable=_unanswerable(run, tool_calls, answers_tools=answers_tools) if asks else None,
        usage=NO_USAGE if asks else usage_of(run),  # it sums up the whole run
        error=_error(run, status),
        look_again_seconds=reply.look_again_seconds,
        finished_seconds_ago=_ago(run, unix_now),
        lives_seconds=_lives_seconds(run),
        times=Times(
            queued=number_of(run, "created_at"),
            started=number_of(run, "started_at"),
            completed=number_of(run, "completed_at"),
        ),
        answer=Answer(reply.status_code, reply.request_id, reply.body),
    )


def _tool_calls(run: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    action = object_of(run, "required_action")
    calls = objects_of(object_of(action, "submit_tool_outputs"), "tool_calls")
    return tuple(
        ToolCall(
            text_of(call, "id"),
            text_of(object_of(call, "function"), "name"),
            arguments_of(object_of(call, "function")),
        )
        for call in calls
    )


def _unanswerable(
    run: Mapping[str, Any], tool_calls: tuple[ToolCall, ...], *, answers_tools: bool
) -> RunError | None:
    if not tool_calls:
        kind = text_of(object_of(run, "required_action"), "type") or "nothing that we know"
        return RunError("unknown_action", f"the run asks for {kind}")
    return None if answers_tools else NO_HANDLERS


def _error(run: Mapping[str, Any], status: Status) -> RunError | None:
    if status is Status.FAILED:
        return error_of(run, "last_error", otherwise="failed")
    if status is Status.INCOMPLETE:
        reason = text_of(object_of(run, "incomplete_details"), "reason") or "incomplete"
        return RunError(reason, f"the run is incomplete: {reason}")
    if status in {Status.CANCELLED, Status.EXPIRED}:
        return RunError(status.value, f"the run was {status.value} on the server")
    return None


def _lives_seconds(run: Mapping[str, Any]) -> float | None:
    """By the server's own clock at both ends, for ours may differ from it."""
    created_at, expires_at = number_of(run, "created_at"), number_of(run, "expires_at")
    return None if created_at is None or expires_at is None else expires_at - created_at


def _ago(run: Mapping[str, Any], unix_now: float) -> float | None:
    ended = [number_of(run, key) for key in ("completed_at", "failed_at", "cancelled_at")]
    known = [at for at in ended if at is not None]
    return unix_now - known[0] if known else None


def _busy(failure: Failure) -> Failure:
    """A thread that has an active run is no bad request: its turn comes."""
    if failure.cause is Cause.BAD_REQUEST and BUSY_WORDS in failure.message:
        return Failure(
            Cause.BUSY,
            failure.message,
            failure.code,
            failure.status_code,
            failure.retry_after_seconds,
            failure.request_id,
        )
    return failure


def _thread_in(fields: Fields) -> bytes:
    """The body for the thread. It is its run's alone, so it has what the run's tools use."""
    thread = bytes(fields["thread"]) if says(fields, "thread") else b"{}"
    if not says(fields, "tool_resources"):
        return thread
    try:
        of_thread, of_run = fields_of(thread), fields_of(bytes(fields["tool_resources"]))
        name = "tool_resources"
        both = fields_of(bytes(of_thread[name])) if says(of_thread, name) else {}
    except msgspec.ValidationError:
        return thread  # no objects: the server will say what it thinks of it
    return joined({**of_thread, name: raw({**both, **of_run})})


def _runs_of(thread: str) -> str:
    return f"/threads/{quote(thread, safe='')}/runs"


def _place(run_id: str) -> str:
    thread, _, run = run_id.partition("/")
    return f"/threads/{quote(thread, safe='')}/runs/{quote(run, safe='')}"
