"""Background responses: create, check, continue with tool outputs, cancel.

A response that asks for tools ends as `completed` with function calls in its output; the outputs
go into a new response that names it as `previous_response_id`. So a run changes its id with each
turn. There is no list endpoint: each check is a call of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from orchestrator.apis.composing import (
    RUN_KEY,
    Fields,
    add_metadata,
    fields_of,
    function_tool,
    joined,
    output_item,
    raw,
    release_tool_choice,
    says,
)
from orchestrator.apis.reading import (
    arguments_of,
    decoded,
    error_of,
    malformed,
    number_of,
    object_of,
    objects_of,
    text_of,
    usage_of,
)
from orchestrator.apis.transport import CALL_TIMEOUT_SECONDS, Reply, Transport
from orchestrator.core.actions import (
    CancelRun,
    CheckRuns,
    CreateRun,
    FetchResult,
    SubmitToolOutputs,
)
from orchestrator.core.failures import Failure
from orchestrator.core.model import Answer, Request, RunError, Seen, Status, ToolCall
from orchestrator.ports import CallFailed, CallKind, ToolSchema

PATH = "/responses"

STATUS_OF = {
    "queued": Status.PENDING,
    "in_progress": Status.PENDING,
    "cancelling": Status.PENDING,
    "completed": Status.COMPLETED,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
    "canceled": Status.CANCELLED,
    "incomplete": Status.INCOMPLETE,
    "expired": Status.EXPIRED,
}

# In a path these mean another place, however they are written.
NO_IDS = frozenset({"", ".", ".."})

# Longer than any id that was ever seen, and short enough for every server's limit on addresses.
ID_CHARACTERS_MAX = 1_000


class Responses:
    """The family of background responses.

    Args:
        transport: The way out.
        tools: Offered to the model by requests that name no tools themselves. When there are none,
            a response with function calls is a result like any other.
        key: Begins the value of our `metadata` key, unique for an execution.
    """

    def __init__(self, transport: Transport, tools: Sequence[ToolSchema], key: str) -> None:
        self._transport = transport
        self._tools = [function_tool(tool) for tool in tools]
        self._key = key

    async def create(self, action: CreateRun) -> Seen:
        """Start the response in the background."""
        fields = fields_of(action.request.body.read())
        fields["background"] = raw(value=True)
        self._complete(fields, action.request, f"{action.number}.{action.attempt}")
        return await self._post(CallKind.CREATE, fields, action.request, action.deadline_at)

    async def submit(self, action: SubmitToolOutputs) -> Seen:
        """Continue with the tool outputs in a new response.

        Instructions, tools and settings are not carried over by the API, so they are sent again;
        the conversation is.
        """
        fields = fields_of(action.request.body.read())
        fields["background"] = raw(value=True)
        release_tool_choice(fields)
        fields["input"] = raw([output_item(output) for output in action.outputs])
        if not says(fields, "conversation"):  # a conversation knows its last response itself
            fields["previous_response_id"] = raw(action.run_id)
        self._complete(fields, action.request, f"{action.number}.after.{action.run_id}")
        return await self._post(CallKind.SUBMIT, fields, action.request, action.deadline_at)

    async def check(self, action: CheckRuns) -> Mapping[int, Seen | Failure]:
        """Retrieve each response."""
        seen: dict[int, Seen | Failure] = {}
        for run in action.runs:
            try:
                reply = await self._transport.send(
                    CallKind.CHECK,
                    "GET",
                    f"{PATH}/{quote(run.run_id, safe='')}",
                    lane=run.request.model,
                    timeout_seconds=CALL_TIMEOUT_SECONDS,
                )
                seen[run.number] = self._seen(reply)
            except CallFailed as failed:
                seen[run.number] = failed.failure
        return seen

    async def cancel(self, action: CancelRun) -> Seen:
        """Cancel the response; one that has just ended comes back as it ended."""
        reply = await self._transport.send(
            CallKind.CANCEL,
            "POST",
            f"{PATH}/{quote(action.run_id, safe='')}/cancel",
            lane=action.request.model,
            timeout_seconds=CALL_TIMEOUT_SECONDS,
        )
        return self._seen(reply)

    async def fetch(self, action: FetchResult) -> Seen:
        """Never asked: the check that sees the end brings the result."""
        raise NotImplementedError(action)

    async def _post(
        self, kind: CallKind, fields: Fields, request: Request, deadline_at: float
    ) -> Seen:
        left = deadline_at - self._transport.clock.now()
        reply = await self._transport.send(
            kind,
            "POST",
            PATH,
            joined(fields),
            lane=request.model,
            # A server that ignores `background` answers when the work is done.
            timeout_seconds=max(left, 1.0),
        )
        return self._seen(reply)

    def _complete(self, fields: Fields, request: Request, name: str) -> None:
        if self._tools and "tools" not in fields:
            fields["tools"] = raw(self._tools)
        add_metadata(fields, {RUN_KEY: f"{self._key}/{name}"}, request)

    def _seen(self, reply: Reply) -> Seen:
        return seen_of(reply, self._transport.clock.unix(), answers_tools=bool(self._tools))


def seen_of(reply: Reply, unix_now: float, *, answers_tools: bool) -> Seen:
    """What a response object says.

    Raises:
        CallFailed: It is no response, or one that we could never ask for again.
    """
    response = decoded(reply.body)
    run_id, said = text_of(response, "id"), _said(response)
    # Servers that know no background leave the status out: the answer is the result.
    status = STATUS_OF.get(said, Status.UNKNOWN) if said else Status.COMPLETED
    if not said and not isinstance(response.get("output"), list):
        raise malformed("it has neither a status nor an output")
    if status is Status.PENDING and (run_id in NO_IDS or len(run_id) > ID_CHARACTERS_MAX):
        raise malformed(f"its id {run_id[:40]!r} is none that can be asked for")
    tool_calls = _tool_calls(response) if answers_tools and status is Status.COMPLETED else ()
    if status is Status.PENDING:
        return Seen(run_id, status, said, look_again_seconds=reply.look_again_seconds)
    return Seen(
        run_id=run_id,
        status=Status.REQUIRES_ACTION if tool_calls else status,
        said=said,
        tool_calls=tool_calls,
        usage=usage_of(response),
        error=_error(response, status),
        look_again_seconds=reply.look_again_seconds,
        finished_seconds_ago=_finished_seconds_ago(response, unix_now),
        answer=Answer(reply.status_code, reply.request_id, reply.body),
    )


def _said(response: Mapping[str, Any]) -> str:
    """The status; one that is no text is no status either, and is named like any unknown one."""
    found = response.get("status")
    return found if isinstance(found, str) else "" if found is None else repr(found)[:100]


def _tool_calls(response: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(
            text_of(item, "call_id") or f"call_{position}",
            text_of(item, "name"),
            arguments_of(item),
        )
        for position, item in enumerate(objects_of(response, "output"))
        if item.get("type") == "function_call"
    )


def _error(response: Mapping[str, Any], status: Status) -> RunError | None:
    if status is Status.FAILED:
        return error_of(response, "error", otherwise="failed")
    if status is Status.INCOMPLETE:
        reason = text_of(object_of(response, "incomplete_details"), "reason") or "incomplete"
        return RunError(reason, f"the response is incomplete: {reason}")
    if status in {Status.CANCELLED, Status.EXPIRED}:
        return RunError(status.value, f"the response was {status.value} on the server")
    return None


def _finished_seconds_ago(response: Mapping[str, Any], unix_now: float) -> float | None:
    completed_at = number_of(response, "completed_at")
    return None if completed_at is None else unix_now - completed_at
