"""The Agents API: sessions, which one list call shows many at a time, their turns and items."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from orchestrator.emulator.answers import tokens_of
from orchestrator.emulator.calls import Reply, json_reply
from orchestrator.emulator.conversation import answer_schema, check_metadata, read_tools
from orchestrator.emulator.pages import page_of, read_limit
from orchestrator.emulator.refusals import refuse_invalid, refuse_missing, refuse_not_found
from orchestrator.emulator.session_create import check_room, reply_to_create
from orchestrator.emulator.session_events import (
    BETA,
    ERROR_CODE,
    STREAM_HEADERS,
    EventFeed,
    InputMessage,
    find_session,
    texts_of,
)
from orchestrator.emulator.session_json import shown_session, shown_turn, subagent_turn
from orchestrator.emulator.session_life import Session, Sessions, Turn
from orchestrator.emulator.session_story import begin_turn, note, settle, tell
from orchestrator.emulator.session_webhooks import announce
from orchestrator.emulator.state import Route, State, Visit
from orchestrator.emulator.writing import Api

# What an agent that was saved elsewhere runs on.
MODEL_DEFAULT = "gpt-4o"
ENVIRONMENTS = ("none", "openai_hosted", "self_hosted")


class SpendControl(msgspec.Struct):
    """How much a session may cost, in USD cents."""

    limit: int | None = None


class AgentRequest(msgspec.Struct):
    """The agent as far as the emulator looks at it or shows it again."""

    model: str | None = None
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    service_tier: str | None = None


class SessionRequest(msgspec.Struct):
    """The body of POST /agents/sessions."""

    environment: dict[str, Any] | None = None
    agent: AgentRequest | None = None
    agent_id: str | None = None
    input: str | list[InputMessage] | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_options: dict[str, Any] | None = None
    review: str | None = None
    spend_control: SpendControl | None = None
    stream: bool | None = None
    vault_ids: list[str] | None = None


def create(state: State, visit: Visit) -> Reply:
    """POST /agents/sessions; with `stream` the answer is what happens until the turn is over."""
    state.check_beta(visit, "Agents", BETA)
    request = visit.read(SessionRequest)
    visit.metadata = request.metadata
    _check(request)
    agent = request.agent or AgentRequest()
    model = state.check_model(agent.model or (MODEL_DEFAULT if request.agent_id else None))
    texts = [] if request.input is None else texts_of(request.input)
    instructions = tokens_of(agent.instructions or "")
    state.admit(visit, model, instructions + tokens_of(*texts))
    check_room(state, visit.now)
    session_id = state.new_id("session_", visit.key, api=Api.SESSIONS)
    agent_id = request.agent_id or state.new_id("agent_", session_id, api=Api.SESSIONS)
    session = Session(
        id=session_id,
        model=model,
        agent_id=agent_id,
        created_at=visit.now,
        active_at=visit.now,
        shown=_fixed(state, session_id, request, {"id": agent_id, "model": model}),
        metadata=request.metadata or {},
        tools=read_tools(agent.tools),
        schema=answer_schema((agent.text or {}).get("format")),
        context_tokens=instructions,
        keeps_history=state.settings.list_lag_seconds > 0,
    )
    feed = EventFeed(state, session, one_turn=True) if request.stream else None
    tell(state, session, "created", {"session": shown_session(state, session, visit.now)})
    if texts:
        begin_turn(state, visit, session, texts)
    announce(state, session, visit.now, "created")
    note(state, session, visit.now)
    settle(state, session, visit.now)
    state.memory(Sessions).add(session)
    visit.run_id = session_id
    state.created(visit, "agent_session", session_id)
    if feed is not None:
        return Reply(200, STREAM_HEADERS, feed=feed)
    return reply_to_create(state, session, visit.now)


def retrieve(state: State, visit: Visit) -> Reply:
    """GET /agents/sessions/{session_id}."""
    session = find_session(state, visit)
    state.admit_check(visit, session.model)
    shown = _looked_at(state, session, visit.now)
    if shown["status"] not in {"idle", "failed"} and state.settings.poll_after_ms is not None:
        visit.headers["openai-poll-after-ms"] = str(state.settings.poll_after_ms)
    return json_reply(shown)


def list_sessions(state: State, visit: Visit) -> Reply:
    """GET /agents/sessions; filtered lists are as old as the settings say."""
    state.check_beta(visit, "Agents", BETA)
    state.admit_control(visit)
    limit = read_limit(visit.call)
    data: list[dict[str, Any]] = []
    for shown in _found(state, visit):
        data.append(shown)
        if len(data) > limit:
            break
    more = len(data) > limit
    state.books.listed(visit.route, len(data[:limit]))
    return json_reply(_listed(state, visit, data[:limit], more=more))


def delete(state: State, visit: Visit) -> Reply:
    """DELETE /agents/sessions/{session_id}; what runs has to be cancelled first."""
    session = find_session(state, visit)
    state.admit_check(visit, session.model)
    if session.open_turn(visit.now) is not None:
        refuse_invalid("Cancel the session's running turn before deleting it.", code=ERROR_CODE)
    state.memory(Sessions).remove(session)
    return json_reply({"id": session.id, "object": "agent.session.deleted", "deleted": True})


def list_turns(state: State, visit: Visit) -> Reply:
    """GET /agents/sessions/{session_id}/turns."""
    session = find_session(state, visit)
    state.admit_check(visit, session.model)
    shown = []
    for turn in session.turns:
        if turn.created_at <= visit.now:
            shown.append(shown_turn(state, turn, visit.now))
            if state.settings.subagent_turns:
                shown.append(subagent_turn(state, turn, visit.now))
    return _page(visit, shown)


def retrieve_turn(state: State, visit: Visit) -> Reply:
    """GET /agents/sessions/{session_id}/turns/{turn_id}."""
    session = find_session(state, visit)
    state.admit_check(visit, session.model)
    turn = _turn(session, visit)
    return json_reply(shown_turn(state, turn, visit.now))


def list_items(state: State, visit: Visit) -> Reply:
    """GET /agents/sessions/{session_id}/items."""
    session = find_session(state, visit)
    state.admit_check(visit, session.model)
    return _page(visit, session.items)


def list_turn_items(state: State, visit: Visit) -> Reply:
    """GET /agents/sessions/{session_id}/turns/{turn_id}/items."""
    session = find_session(state, visit)
    state.admit_check(visit, session.model)
    turn = _turn(session, visit)
    return _page(visit, [item for item in session.items if item["turn_id"] == turn.id])


ROUTES = (
    Route("POST", "/agents/sessions", create),
    Route("GET", "/agents/sessions", list_sessions),
    Route("GET", "/agents/sessions/{session_id}", retrieve),
    Route("DELETE", "/agents/sessions/{session_id}", delete),
    Route("GET", "/agents/sessions/{session_id}/turns", list_turns),
    Route("GET", "/agents/sessions/{session_id}/turns/{turn_id}", retrieve_turn),
    Route("GET", "/agents/sessions/{session_id}/turns/{turn_id}/items", list_turn_items),
    Route("GET", "/agents/sessions/{session_id}/items", list_items),
)


def _check(request: SessionRequest) -> None:
    check_metadata(request.metadata)
    kind = (request.environment or {}).get("type")
    if request.environment is None:
        refuse_missing("environment")
    if kind not in ENVIRONMENTS:
        message = f"Invalid value: '{kind}'. Supported values are: {', '.join(ENVIRONMENTS)}."
        refuse_invalid(message, param="environment.type", code=ERROR_CODE)
    if request.input is None and (kind == "none" or request.stream):
        refuse_missing("input")
    if request.agent_id is None and (request.agent is None or not request.agent.model):
        refuse_missing("agent.model")
    limit = None if request.spend_control is None else request.spend_control.limit
    if limit is not None and limit < 1:
        message = f"Invalid 'spend_control.limit': expected a value >= 1, but got {limit} instead."
        refuse_invalid(message, param="spend_control.limit", code=ERROR_CODE)


def _turn(session: Session, visit: Visit) -> Turn:
    seen = (turn for turn in session.turns if turn.created_at <= visit.now)
    found = next((turn for turn in seen if turn.id == visit.ids[1]), None)
    if found is None:
        refuse_not_found(f"Turn '{visit.ids[1]}' not found.", code="resource_not_found")
    return found


def _looked_at(state: State, session: Session, now: float) -> dict[str, Any]:
    """The session as this look shows it; noted in the books."""
    done = session.is_done(now)
    shown = shown_session(state, session, now)
    if session.stale is not None and session.stale_looks > 0:
        session.stale_looks -= 1
        shown, done = session.stale, False
    elif done and session.turns[-1].stale_checks > 0:
        session.turns[-1].stale_checks -= 1
        shown, done = {**shown, "status": "in_progress"}, False
    state.books.checked(session.id, final=done)
    return shown


def _found(state: State, visit: Visit) -> Iterator[dict[str, Any]]:
    """What the list shows, in its order, from where it is to start."""
    query = visit.call.query
    order, after = query.get("order") or "desc", query.get("after")
    if order not in {"asc", "desc"}:
        refuse_invalid(f"Invalid value: '{order}'.", param="order", code=ERROR_CODE)
    by_id = state.memory(Sessions).by_id
    if after and after not in by_id:
        message = f"Invalid 'after': there is no '{after}' here."
        refuse_invalid(message, param="after", code=ERROR_CODE)
    filters = {
        name.removeprefix("metadata[").removesuffix("]"): value
        for name, value in query.items()
        if name.startswith("metadata[")
    }
    agent_id = query.get("agent_id")
    lag = state.settings.list_lag_seconds if filters or agent_id else 0.0
    waits = bool(after)
    for session in by_id.values() if order == "asc" else reversed(by_id.values()):
        if waits:
            waits = session.id != after
            continue
        if session.lost or (agent_id and session.agent_id != agent_id):
            continue
        if any(session.metadata.get(name) != value for name, value in filters.items()):
            continue
        shown = _as_of(state, session, visit.now, lag)
        if shown is not None:
            yield shown


def _as_of(state: State, session: Session, now: float, lag: float) -> dict[str, Any] | None:
    """What the session looked like so long ago, None if it was not there."""
    settle(state, session, now)
    if lag == 0:
        return shown_session(state, session, now)
    seen = (shown for at, shown in reversed(session.history) if at <= now - lag)
    return next(seen, None)


def _listed(
    state: State, visit: Visit, data: Sequence[Mapping[str, Any]], *, more: bool
) -> dict[str, Any]:
    sessions = state.memory(Sessions).by_id
    for shown in data:
        session = sessions[shown["id"]]
        done = session.is_done(visit.now) and shown["status"] in {"idle", "failed"}
        state.books.checked(session.id, final=done)
        state.books.creates.listed(session.id)
    return _as_list(data, more=more)


def _page(visit: Visit, shown: list[dict[str, Any]]) -> Reply:
    """A page of things that come oldest first."""
    ordered = shown if visit.call.query.get("order") == "asc" else shown[::-1]
    page, more = page_of(visit.call, [_Shown(one) for one in ordered])
    return json_reply(_as_list([one.fields for one in page], more=more))


class _Shown:
    """Something as JSON that stands in a list."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields

    @property
    def id(self) -> str:
        return str(self.fields["id"])


def _as_list(data: Sequence[Mapping[str, Any]], *, more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }


def _fixed(
    state: State, session_id: str, request: SessionRequest, named: Mapping[str, str]
) -> dict[str, Any]:
    """What a session shows of what was asked for."""
    agent = request.agent or AgentRequest()
    shown: dict[str, Any] = {
        "agent": {
            **named,
            "name": None,
            "instructions": agent.instructions,
            "multi_agent": {"enabled": False, "max_concurrent_subagents": None},
            "reasoning": {"effort": None, "summary": None, **(agent.reasoning or {})},
            "service_tier": agent.service_tier or "auto",
            "text": {"format": {"type": "text"}, "verbosity": "medium", **(agent.text or {})},
            "tools": [_tool(tool) for tool in agent.tools or []],
        },
        "environment": _environment(state, session_id, request.environment or {}),
        "vault_ids": request.vault_ids or [],
    }
    if request.spend_control is not None and request.spend_control.limit is not None:
        # What was spent is not known here: the emulator has no prices.
        shown["spend_control"] = {"limit": request.spend_control.limit, "consumed": None}
    if request.prompt_cache_options is not None:
        shown["prompt_cache_options"] = request.prompt_cache_options
    if request.review not in {None, "none"}:
        shown["review"] = request.review
    return shown


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        return dict(tool)
    defaults = {"defer_loading": False, "description": "", "parameters": {}}
    return {**defaults, **{name: value for name, value in tool.items() if value is not None}}


def _environment(state: State, session_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    kind = given["type"]
    if kind == "none":
        return {"type": kind}
    common = {
        "type": kind,
        "id": given.get("environment_id") or state.new_id("env_", session_id, api=Api.SESSIONS),
        "capability_directories": given.get("capability_directories") or [],
    }
    if kind == "self_hosted":
        directory = given.get("workspace_directory") or "/workspace"
        remote = f"wss://emulator.invalid/{common['id']}"
        return {**common, "remote_url": remote, "workspace_directory": directory}
    network = given.get("network") or {"access": "enabled"}
    packages = {"npm": [], "python": [], "system": [], **(given.get("packages") or {})}
    return {
        **common,
        "files": [],
        "network": {"allowed_domains": [], **network},
        "packages": packages,
        "plugins": [],
        "skills": [],
    }
