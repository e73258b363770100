"""Agent sessions: one request is one session and its first turn.

Rules: an idle session alone is no success; the latest root turn decides, and tells of errors. One
list call answers for a whole group of sessions; lists lag, so what is not in it is asked for by
itself. A create has no idempotency key: where its answer was lost, a list by our name for it tells
whether it worked, before another one is sent. Tool results are accepted, not done, when the call
returns, so the session is looked at again; they carry an idempotency key, so that a repetition is
none.
"""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

import msgspec

from orchestrator.apis.composing import RUN_KEY, add_metadata, fields_of, joined, raw, run_name
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
    ToolOutput,
    Usage,
)
from orchestrator.ports import CallFailed, CallKind

BETA = {"OpenAI-Beta": "agents=v1"}
PATH = "/agents/sessions"
GROUP_KEY = "orchestrator_group"
PAGE_MAX = 100

STATUS_OF = {
    "idle": Status.COMPLETED,  # or not begun: the turn tells, when the result is fetched
    "in_progress": Status.PENDING,
    "requires_action": Status.REQUIRES_ACTION,
    "failed": Status.FAILED,
}

TURN_STATUS_OF = {
    "queued": Status.PENDING,
    "in_progress": Status.PENDING,
    "waiting": Status.PENDING,
    "completed": Status.COMPLETED,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
    "canceled": Status.CANCELLED,
}

# What a handler of this name can answer: the action's type, and the id to answer with.
APPROVALS = {"mcp_approval_request", "computer_use_approval_request"}

# The action was announced before the server was ready to take its result.
NOT_YET_WORDS = "Unknown pending tool call"


class AgentSessions:
    """The family of agent sessions.

    Args:
        transport: The way out.
        tool_names: The tools that have handlers. A handler named `mcp_approval_request` or
            `computer_use_approval_request` answers those requests; it gets the request as its
            arguments and returns the decision.
        key: Begins the values of our `metadata` keys, unique for an execution.
    """

    def __init__(self, transport: Transport, key: str, *, tool_names: frozenset[str]) -> None:
        self._transport = transport
        self._tool_names = tool_names
        self._key = key

    async def create(self, action: CreateRun) -> Seen | Prepared:
        """Start a session with its first turn, or look whether it is there already."""
        so_far = msgspec.json.decode(action.prepared or b'{"lost":0}')
        if action.lost > so_far["lost"]:
            return await self._look_for(action)
        fields = fields_of(action.request.body.read())
        ours = {
            GROUP_KEY: f"{self._key}/{action.group}",
            RUN_KEY: run_name(self._key, action),
        }
        add_metadata(fields, ours, action.request)
        # Some servers answer only when the turn has ended.
        left = max(action.deadline_at - self._transport.clock.now(), 1.0)
        reply = await self._send(
            CallKind.CREATE, "POST", PATH, action.request, joined(fields), timeout_seconds=left
        )
        seen = self._seen(decoded(reply.body), reply)
        if seen.status is Status.COMPLETED:
            # Idle so soon is more likely not begun than ended.
            return Seen(seen.run_id, Status.PENDING, seen.said)
        return seen

    async def _look_for(self, action: CreateRun) -> Seen | Prepared:
        """A create whose answer was lost may have worked: then the session is in the list."""
        name = run_name(self._key, action)
        try:
            path = _page_by(RUN_KEY, name)
            reply = await self._send(CallKind.PREPARE, "GET", path, action.request)
            listed = objects_of(decoded(reply.body), "data")
        except CallFailed as failed:
            if failed.failure.cause not in {Cause.NOT_FOUND, Cause.BAD_REQUEST}:
                raise free_of_charge(failed) from failed
            listed = []  # a server without such lists
        for session in listed:
            # The server may know no filters, and show all that it has.
            run_id = text_of(session, "id")
            if run_id and object_of(session, "metadata").get(RUN_KEY) == name:
                # Lists lag: a look at the session itself tells how it stands.
                return Seen(run_id, Status.PENDING, text_of(session, "status"), found=True)
        return Prepared(msgspec.json.encode({"lost": action.lost}))

    async def check(self, action: CheckRuns) -> Mapping[int, Seen | Failure]:
        """List the group, or retrieve the one session that a list did not show."""
        first = action.runs[0]
        if not action.group:
            path = f"{PATH}/{quote(first.run_id, safe='')}"
            reply = await self._send(CallKind.CHECK, "GET", path, first.request)
            return {first.number: self._seen(decoded(reply.body), reply)}
        path = _page_by(GROUP_KEY, f"{self._key}/{action.group}")
        try:
            reply = await self._send(CallKind.CHECK, "GET", path, first.request)
        except CallFailed as failed:
            if failed.failure.cause in {Cause.NOT_FOUND, Cause.BAD_REQUEST}:
                return {}  # a server without such lists; it says nothing about the sessions
            raise
        listed = {text_of(s, "id"): s for s in objects_of(decoded(reply.body), "data")}
        return {
            run.number: self._listed(listed[run.run_id], reply)
            for run in action.runs
            if run.run_id in listed
        }

    def _listed(self, session: Mapping[str, Any], reply: Reply) -> Seen | Failure:
        """What the list says of one session; what is wrong with it is no fault of the others."""
        try:
            return self._seen(session, reply)
        except CallFailed as failed:
            return failed.failure

    async def submit(self, action: SubmitToolOutputs) -> Seen:
        """Send all results of this round as events."""
        asked = msgspec.json.decode(action.continuation or b"{}")
        if not all(asked.get(o.call_id, {}).get("turn_id") for o in action.outputs):
            turn = await self._latest_turn(action.run_id, action.request)
            for about in asked.values():
                about["turn_id"] = about.get("turn_id") or text_of(turn, "id")
        sent = [_result_event(asked.get(output.call_id, {}), output) for output in action.outputs]
        ids = "/".join([action.run_id, *(output.call_id for output in action.outputs)])
        key = blake2b(ids.encode(), digest_size=16).hexdigest()
        try:
            await self._events(CallKind.SUBMIT, action.run_id, action.request, sent, key)
        except CallFailed as failed:
            if NOT_YET_WORDS in failed.failure.message:
                # A known race, over in a moment; the same key makes the repetition harmless.
                soon = Failure(Cause.CONFLICT, failed.failure.message)
                raise CallFailed(soon) from failed
            raise
        return Seen(action.run_id, Status.PENDING, "accepted")

    async def cancel(self, action: CancelRun) -> Seen:
        """Cancel the active turn; it ends a moment later."""
        event = {"type": "agent.session.input.cancel"}
        await self._events(CallKind.CANCEL, action.run_id, action.request, [event], None)
        return Seen(action.run_id, Status.PENDING, "cancel accepted")

    async def fetch(self, action: FetchResult) -> Seen:
        """First the turn, which says whether this is a success; then its items."""
        if action.finished.continuation is None:
            turn = await self._latest_turn(action.run_id, action.request)
            return self._turn_seen(turn, action.finished)
        path = f"{PATH}/{quote(action.run_id, safe='')}/items?limit={PAGE_MAX}&order=desc"
        reply = await self._send(CallKind.FETCH, "GET", path, action.request)
        session = fields_of(action.finished.answer.body) if action.finished.answer else {}
        session["turn"] = msgspec.Raw(action.finished.continuation)
        # Where there are more than one page, the newest: the answer is among them.
        session["items"] = raw(objects_of(decoded(reply.body), "data")[::-1])
        answer = Answer(reply.status_code, reply.request_id, joined(session))
        return replace(action.finished, usage=NO_USAGE, continuation=None, answer=answer)

    async def _latest_turn(self, run_id: str, request: Request) -> dict[str, Any]:
        path = f"{PATH}/{quote(run_id, safe='')}/turns?limit={PAGE_MAX}&order=desc"
        reply = await self._send(CallKind.FETCH, "GET", path, request)
        turns = objects_of(decoded(reply.body), "data")
        roots = [turn for turn in turns if not turn.get("subagent_id")]
        return roots[0] if roots else {}

    def _turn_seen(self, turn: Mapping[str, Any], finished: Seen) -> Seen:
        said = text_of(turn, "status") or "no turn yet"
        status = TURN_STATUS_OF.get(said, Status.PENDING if not turn else Status.UNKNOWN)
        error = None
        if status is Status.FAILED:
            error = error_of(turn, "error", otherwise="failed")
        elif status is Status.CANCELLED:
            error = RunError("cancelled", "the turn was cancelled on the server")
        completed_at = number_of(turn, "completed_at")
        return Seen(
            run_id=finished.run_id,
            status=status,
            said=said,
            usage=_usage(turn, finished),
            error=error,
            times=Times(number_of(turn, "created_at"), number_of(turn, "started_at"), completed_at),
            continuation=msgspec.json.encode(turn),
            answer=finished.answer,
        )

    async def _events(
        self,
        kind: CallKind,
        run_id: str,
        request: Request,
        sent: list[dict[str, Any]],
        idempotency_key: str | None,
    ) -> Reply:
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        path = f"{PATH}/{quote(run_id, safe='')}/events"
        body = msgspec.json.encode({"events": sent})
        return await self._send(kind, "POST", path, request, body, headers=headers)

    async def _send(
        self,
        kind: CallKind,
        method: str,
        path: str,
        request: Request,
        body: bytes | None = None,
        *,
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        return await self._transport.send(
            kind,
            method,
            path,
            body,
            lane=request.model,
            timeout_seconds=timeout_seconds,
            headers={**BETA, **(headers or {})},
        )

    def _seen(self, session: Mapping[str, Any], reply: Reply) -> Seen:
        run_id, said = text_of(session, "id"), text_of(session, "status")
        if not (run_id and said):
            raise malformed("it has no id or no status")
        status = STATUS_OF.get(said, Status.UNKNOWN)
        if status is Status.PENDING:
            return Seen(run_id, status, said, look_again_seconds=reply.look_again_seconds)
        actions = objects_of(session, "required_actions")
        asks = status is Status.REQUIRES_ACTION
        error = None
        if status is Status.FAILED:
            error = error_of(session, "error", otherwise="failed")
        return Seen(
            run_id=run_id,
            status=status,
            said=said,
            tool_calls=tuple(map(_tool_call, actions)) if asks else (),
            unanswerable=self._unanswerable(actions) if asks else None,
            # A session's usage is a running sum: it is counted once, when its turn has ended.
            usage=usage_of(session) if status is Status.FAILED else NO_USAGE,
            error=error,
            answer=Answer(reply.status_code, reply.request_id, msgspec.json.encode(session)),
            continuation=_about(actions) if asks else None,
        )

    def _unanswerable(self, actions: list[dict[str, Any]]) -> RunError | None:
        for action in actions:
            kind = text_of(action, "type")
            if kind == "function_call":
                if not self._tool_names:
                    message = "the session asks for tools, and none were given to answer it"
                    return RunError("no_tool_handlers", message)
            elif kind not in APPROVALS or kind not in self._tool_names:
                message = f"the session asks for {kind or 'an action without a type'}, which has no"
                return RunError("unknown_action", f"{message} handler")
        return None if actions else RunError("unknown_action", "the session asks for nothing")


def _page_by(key: str, value: str) -> str:
    """The list of the sessions whose metadata has this value."""
    name = quote(f"metadata[{key}]", safe="")
    return f"{PATH}?{name}={quote(value, safe='')}&limit={PAGE_MAX}"


def _usage(turn: Mapping[str, Any], finished: Seen) -> Usage:
    """The turn's own, or the session's where the turn has none."""
    of_turn = usage_of(turn)
    if of_turn != NO_USAGE or finished.answer is None:
        return of_turn
    return usage_of(decoded(finished.answer.body))


def _tool_call(action: Mapping[str, Any]) -> ToolCall:
    if text_of(action, "type") in APPROVALS:
        request = {"request": action.get("request")}
        arguments = msgspec.json.encode(request).decode()
        return ToolCall(text_of(action, "request_id"), text_of(action, "type"), arguments)
    return ToolCall(text_of(action, "call_id"), text_of(action, "name"), arguments_of(action))


def _about(actions: list[dict[str, Any]]) -> bytes:
    """What must be said again with each answer, by its id."""
    about = {
        _tool_call(action).call_id: {
            "type": text_of(action, "type"),
            "turn_id": text_of(action, "turn_id"),
            "request": text_of(object_of(action, "request"), "type"),
        }
        for action in actions
    }
    return msgspec.json.encode(about)


def _result_event(about: Mapping[str, str], output: ToolOutput) -> dict[str, Any]:
    kind = about.get("type", "function_call")
    if kind in APPROVALS:
        return {
            "type": f"agent.session.input.{kind}_result",
            "request_id": output.call_id,
            "response": _decision(about, output),
        }
    result = {"error": output.output} if output.failed else {"output": output.output}
    return {
        "type": "agent.session.input.tool_result",
        "turn_id": about.get("turn_id", ""),
        "call_id": output.call_id,
        "success": not output.failed,
        **result,
    }


def _decision(about: Mapping[str, str], output: ToolOutput) -> dict[str, Any]:
    """What the handler decided: an object goes out as it is, a word as the decision.

    A handler that failed, or said something else, has approved nothing.
    """
    kind = about.get("request") or "mcp_tool_call"
    key, words, refusal = "decision", {"approve", "deny", "cancel"}, "deny"
    if kind == "browser_authentication":
        key, words, refusal = "action", {"cancel"}, "cancel"
    try:
        said = msgspec.json.decode(output.output)
    except msgspec.DecodeError:
        said = output.output.strip()
    if output.failed or not isinstance(said, dict | str):
        return {"type": kind, key: refusal}
    if isinstance(said, dict):
        return {"type": kind, **said}
    return {"type": kind, key: said if said in words else refusal}
