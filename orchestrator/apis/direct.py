"""Endpoints that answer at once: the answer is the result, or asks for tools.

These are chat completions, embeddings, completions, moderations, and responses that are not to run
in the background.

Rules: no run is left on the server, so the conversation of a tool loop is ours to keep. It goes
through `continuation`: the messages (or input items) so far, as JSON text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.apis.composing import (
    Fields,
    array_of,
    chat_tool,
    fields_of,
    function_tool,
    joined,
    output_item,
    output_message,
    raw,
    release_tool_choice,
    says,
)
from orchestrator.apis.reading import (
    arguments_of,
    decoded,
    error_of,
    malformed,
    object_of,
    objects_of,
    text_of,
    usage_of,
)
from orchestrator.apis.responses import seen_of
from orchestrator.apis.transport import Reply, Transport
from orchestrator.core.actions import (
    BatchLine,
    CancelRun,
    CheckRuns,
    CreateRun,
    FetchResult,
    SubmitToolOutputs,
)
from orchestrator.core.failures import Failure
from orchestrator.core.families import CHAT_URL, RESPONSES_URL
from orchestrator.core.model import Answer, Request, Seen, Status, ToolCall
from orchestrator.ports import CallKind, ToolSchema

# The one field that holds the result; an answer without it is not one.
RESULT_FIELD = {
    CHAT_URL: "choices",
    "/v1/completions": "choices",
    "/v1/embeddings": "data",
    "/v1/moderations": "results",
}


class Direct:
    """The family of endpoints that answer at once.

    Args:
        transport: The way out.
        tools: Offered to the model by requests that name no tools themselves. When there are none,
            an answer with tool calls is a result like any other.
    """

    def __init__(self, transport: Transport, tools: Sequence[ToolSchema]) -> None:
        self._transport = transport
        self.answers_tools = bool(tools)
        self._tools = {
            CHAT_URL: [chat_tool(tool) for tool in tools],
            RESPONSES_URL: [function_tool(tool) for tool in tools],
        }

    async def create(self, action: CreateRun) -> Seen:
        """Send the request and wait for its answer."""
        fields = self.fields_for(action)
        return await self._ask(CallKind.CREATE, fields, action.request, action.deadline_at)

    async def submit(self, action: SubmitToolOutputs) -> Seen:
        """Send the conversation so far with the tool outputs at its end."""
        fields = self.fields_for(action)
        return await self._ask(CallKind.SUBMIT, fields, action.request, action.deadline_at)

    def fields_for(self, action: CreateRun | SubmitToolOutputs | BatchLine) -> Fields:
        """The body of a call, as it goes out by itself or as a line of a batch."""
        fields = self._fields(action.request)
        if isinstance(action, CreateRun) or not action.outputs:
            return fields
        release_tool_choice(fields)
        so_far = array_of(action.continuation or b"[]")
        if action.request.url == CHAT_URL:
            fields["messages"] = raw(so_far + [raw(output_message(o)) for o in action.outputs])
        else:
            fields["input"] = raw(so_far + [raw(output_item(o)) for o in action.outputs])
        return fields

    def seen_in(self, reply: Reply, fields: Fields, url: str) -> Seen:
        """What an answer says, however it came. Raises CallFailed where it can't be read."""
        if url == RESPONSES_URL:
            return self._response_seen(reply, fields)
        return self._answer_seen(reply, fields, url)

    async def check(self, action: CheckRuns) -> Mapping[int, Seen | Failure]:
        """Never asked: the table of states has no checks for this family."""
        raise NotImplementedError(action)

    async def cancel(self, action: CancelRun) -> Seen:
        """Never asked: there is nothing left on the server."""
        raise NotImplementedError(action)

    async def fetch(self, action: FetchResult) -> Seen:
        """Never asked: the answer is the result."""
        raise NotImplementedError(action)

    def _fields(self, request: Request) -> Fields:
        fields = fields_of(request.body.read())
        if self._tools.get(request.url) and "tools" not in fields:
            fields["tools"] = raw(self._tools[request.url])
        return fields

    async def _ask(
        self, kind: CallKind, fields: Fields, request: Request, deadline_at: float
    ) -> Seen:
        left = deadline_at - self._transport.clock.now()
        reply = await self._transport.send(
            kind,
            "POST",
            request.url.removeprefix("/v1"),
            joined(fields),
            lane=request.model,
            timeout_seconds=max(left, 1.0),
        )
        return self.seen_in(reply, fields, request.url)

    def _response_seen(self, reply: Reply, fields: Fields) -> Seen:
        unix_now = self._transport.clock.unix()
        seen = seen_of(reply, unix_now, answers_tools=self.answers_tools)
        if seen.status is Status.PENDING:
            # Asked for at once, and put into the background all the same: nobody would look again.
            return Seen(seen.run_id, Status.UNKNOWN, seen.said)
        if seen.status is not Status.REQUIRES_ACTION:
            return seen
        items = objects_of(decoded(reply.body), "output")
        if says(fields, "conversation"):
            return _with_continuation(seen, [])  # the server keeps it
        if bytes(fields.get("store", b"")) == b"false":
            # What the server has not stored it can't be reminded of, unless it comes along whole.
            items = [i for i in items if i.get("type") != "reasoning" or i.get("encrypted_content")]
        return _with_continuation(seen, [*_input_items(fields), *map(raw, items)])

    def _answer_seen(self, reply: Reply, fields: Fields, url: str) -> Seen:
        answer = decoded(reply.body)
        run_id = text_of(answer, "id") or reply.request_id
        kept = Answer(reply.status_code, reply.request_id, reply.body)
        result = answer.get(RESULT_FIELD[url])
        if result is None and not answer.get("error"):
            raise malformed(f"it has no {RESULT_FIELD[url]!r}")
        if not result and answer.get("error"):
            # Some gateways answer 200 with an error inside.
            error = error_of(answer, "error", otherwise="failed")
            return Seen(run_id, Status.FAILED, "error", error=error, answer=kept)
        message = _message(answer) if url == CHAT_URL else {}
        tool_calls = _tool_calls(message) if self.answers_tools else ()
        seen = Seen(
            run_id=run_id,
            status=Status.REQUIRES_ACTION if tool_calls else Status.COMPLETED,
            said=str(reply.status_code),
            tool_calls=tool_calls,
            usage=usage_of(answer),
            answer=kept,
        )
        if not tool_calls:
            return seen
        return _with_continuation(seen, [*array_of(fields.get("messages")), raw(message)])


def _with_continuation(seen: Seen, entries: list[Any]) -> Seen:
    return Seen(
        run_id=seen.run_id,
        status=seen.status,
        said=seen.said,
        tool_calls=seen.tool_calls,
        usage=seen.usage,
        answer=seen.answer,
        continuation=bytes(raw(entries)),
    )


def _input_items(fields: Fields) -> list[Any]:
    """The input as a list of items; a string is one message of the user."""
    text = fields.get("input")
    if text is None:
        return []
    if bytes(text).lstrip().startswith(b"["):
        return list(array_of(text))
    return [raw({"role": "user", "content": text})]


def _message(answer: Mapping[str, Any]) -> dict[str, Any]:
    choices = objects_of(answer, "choices")
    return object_of(choices[0], "message") if choices else {}


def _tool_calls(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The calls that a message asks for; each gets an id of its own where it has none.

    The id is put into the message too: it goes back to the server beside the outputs that name it.
    """
    calls = objects_of(message, "tool_calls")
    given: set[str] = set()
    for position, call in enumerate(calls):
        call_id = text_of(call, "id")
        if not call_id or call_id in given:
            call["id"] = call_id = f"{call_id or 'call'}_{position}"
        given.add(call_id)
    return tuple(
        ToolCall(
            call["id"],
            text_of(object_of(call, "function"), "name"),
            arguments_of(object_of(call, "function")),
        )
        for call in calls
    )
