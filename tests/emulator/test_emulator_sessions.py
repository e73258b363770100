"""Agent sessions: OpenAI's own client, validating strictly, goes through all that can happen."""

import asyncio

import openai
import pytest
from support.agent_sessions import BARE, BETA, HOSTED, LOOK, emulator_with, sessions_of, start
from support.emulator_client import content, get, post


async def root_turn(sessions, session_id):
    turns = [turn async for turn in sessions.turns.list(session_id)]
    return next(turn for turn in turns if turn.subagent_id is None)


def result_of(action, **fields):
    return {
        "type": "agent.session.input.tool_result",
        "turn_id": action.turn_id,
        "call_id": action.call_id,
        "success": True,
        "output": f"{action.name} done",
        **fields,
    }


async def test_a_session_is_idle_before_its_turn_and_idle_after_it():
    """Only the turn's status tells the two apart."""
    sessions = sessions_of(emulator_with())
    created = await start(sessions, "hello", metadata={"k": "v"}, spend_control={"limit": 500})
    seen = []
    for _ in range(3):
        session = await sessions.retrieve(created.id)
        turn = await root_turn(sessions, created.id)
        seen.append((session.status, turn.status))
        await asyncio.sleep(1.6)
    session = await sessions.retrieve(created.id)
    turn = await sessions.turns.retrieve(turn.id, session_id=created.id)
    items = [item async for item in sessions.items.list(created.id, order="asc")]
    of_turn = [item async for item in sessions.turns.items.list(turn.id, session_id=created.id)]

    assert seen == [("idle", "queued"), ("in_progress", "in_progress"), ("idle", "completed")]
    assert (turn.started_at - turn.created_at, turn.completed_at - turn.created_at) == (1, 3)
    assert [(item.role, item.content[0].text) for item in items] == [
        ("user", "hello"),
        ("assistant", "hello"),
    ]
    assert [item.id for item in of_turn] == [item.id for item in reversed(items)]
    assert items[1].phase == "final_answer"
    assert session.metadata == {"k": "v"}
    assert session.spend_control.limit == 500
    assert session.usage == turn.usage
    assert turn.usage.total_tokens == 4


async def test_tool_results_one_by_one():
    """The turn goes on when the last result is in; the same key twice is the same event."""
    emulator = emulator_with()
    sessions = sessions_of(emulator)
    created = await start(sessions, "tools", agent={"model": "m", "tools": [LOOK]})
    await asyncio.sleep(3.1)
    waiting = await sessions.retrieve(created.id)
    look, smell = waiting.required_actions
    for _ in range(2):
        await sessions.events.create(created.id, events=[result_of(look)], idempotency_key="one")
    half = await sessions.retrieve(created.id)
    failure = result_of(smell, success=False, output=None, error="no nose")
    await sessions.events.create(created.id, events=[failure], idempotency_key="two")
    going_on = await sessions.retrieve(created.id)
    await asyncio.sleep(2.1)
    turn = await root_turn(sessions, created.id)
    items = [item async for item in sessions.items.list(created.id, order="asc")]

    assert (waiting.status, look.name, look.arguments) == (
        "requires_action",
        "look",
        '{"at": "it"}',
    )
    assert [action.name for action in half.required_actions] == ["smell"]
    assert (going_on.status, going_on.required_actions) == ("in_progress", [])
    assert turn.status == "completed"
    assert [item.type for item in items] == [
        "message",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
        "message",
    ]
    assert [item.status for item in items[1:5]] == ["completed", "failed", "completed", "failed"]
    assert items[5].output_text == "tool said: look done; no nose"
    books = emulator.books.snapshot(9)
    assert books["calls"]["POST /v1/agents/sessions/{session_id}/events"] == {"202": 3}
    assert books["runs"] == {"created": 1, "by_status": {"completed": 1}}
    assert books["tokens"]["output"] == turn.usage.output_tokens


async def test_results_that_fit_no_waiting_call_are_refused():
    """Unknown calls, answered ones and other turns; and a key does not change its meaning."""
    sessions = sessions_of(emulator_with())
    created = await start(sessions, "tools")
    await asyncio.sleep(3.1)
    look, smell = (await sessions.retrieve(created.id)).required_actions
    unknown = result_of(look, call_id="call_x")
    with pytest.raises(openai.BadRequestError, match="Unknown pending tool call: call_x") as no:
        await sessions.events.create(created.id, events=[unknown], idempotency_key="k")
    with pytest.raises(openai.BadRequestError, match="Unknown pending"):
        await sessions.events.create(created.id, events=[result_of(look, turn_id="turn_x")])
    with pytest.raises(openai.BadRequestError, match="Unknown pending"):
        await sessions.events.create(created.id, events=[result_of(look), result_of(look)])
    await sessions.events.create(created.id, events=[result_of(look)], idempotency_key="k")
    with pytest.raises(openai.BadRequestError, match="same parameters"):
        await sessions.events.create(created.id, events=[result_of(smell)], idempotency_key="k")
    with pytest.raises(openai.BadRequestError, match="Unknown pending"):
        await sessions.events.create(created.id, events=[result_of(look)], idempotency_key="l")

    assert no.value.code == "invalid_request_error"
    assert len((await sessions.retrieve(created.id)).required_actions) == 1


async def test_a_call_can_be_shown_before_it_can_be_answered():
    """The known race: 400 for a moment, then the same key is accepted."""
    sessions = sessions_of(emulator_with(pending_call_lag_seconds=0.5))
    created = await start(sessions, "stale")
    await asyncio.sleep(3.1)
    (look,) = (await sessions.retrieve(created.id)).required_actions
    with pytest.raises(openai.BadRequestError, match="Unknown pending tool call"):
        await sessions.events.create(created.id, events=[result_of(look)], idempotency_key="k")
    await asyncio.sleep(0.5)
    await sessions.events.create(created.id, events=[result_of(look)], idempotency_key="k")
    seen = [(await sessions.retrieve(created.id)).status for _ in range(3)]

    # The rule shows the answered call twice more.
    assert seen == ["requires_action", "requires_action", "in_progress"]


async def test_approvals_are_given_and_refused():
    """An MCP call is approved, a page is denied and a login cancelled."""
    sessions = sessions_of(emulator_with())
    paying, browsing = await start(sessions, "approve"), await start(sessions, "browse")
    await asyncio.sleep(3.1)
    (pay,) = (await sessions.retrieve(paying.id)).required_actions
    (origin,) = (await sessions.retrieve(browsing.id)).required_actions
    approved = {
        "type": "agent.session.input.mcp_approval_request_result",
        "request_id": pay.request_id,
        "response": {"type": "mcp_tool_call", "decision": "approve"},
    }
    denied = {
        "type": "agent.session.input.computer_use_approval_request_result",
        "request_id": origin.request_id,
        "response": {"type": "browser_origin_access", "decision": "deny"},
    }
    with pytest.raises(openai.BadRequestError, match="Unknown pending"):
        await sessions.events.create(browsing.id, events=[approved])
    await sessions.events.create(paying.id, events=[approved])
    await sessions.events.create(browsing.id, events=[denied])
    await asyncio.sleep(2.1)
    (login,) = (await sessions.retrieve(browsing.id)).required_actions
    answer = {"type": "browser_authentication", "action": "cancel"}
    await sessions.events.create(
        browsing.id, events=[{**denied, "request_id": login.request_id, "response": answer}]
    )
    await asyncio.sleep(2.1)
    paid = [item async for item in sessions.items.list(paying.id)]
    browsed = [item async for item in sessions.items.list(browsing.id)]

    assert (pay.type, pay.request.name) == ("mcp_approval_request", "pay")
    assert (origin.request.type, login.request.type) == (
        "browser_origin_access",
        "browser_authentication",
    )
    assert paid[0].output_text == "tool said: approve"
    assert [item.type for item in paid[:2]] == ["message", "mcp_call"]
    assert browsed[0].output_text == "tool said: cancel"


@pytest.mark.parametrize(("seconds", "status"), [(None, "requires_action"), (5, "idle")])
async def test_an_environment_connects_by_itself_or_never(seconds, status):
    """Nothing in the API answers this action; only cancelling ends the wait."""
    sessions = sessions_of(emulator_with(environment_seconds=seconds))
    created = await start(
        sessions, "connect", environment={"type": "self_hosted", "workspace_directory": "/w"}
    )
    await asyncio.sleep(3.1)
    (action,) = (await sessions.retrieve(created.id)).required_actions
    await asyncio.sleep(1000)
    later = await sessions.retrieve(created.id)

    assert (action.type, action.environment_id) == ("environment_connection", "env_1")
    assert later.status == status


@pytest.mark.parametrize(
    ("text", "session_status", "code"),
    [
        ("fail", "idle", "sandbox_error"),
        ("short", "idle", "max_output_tokens"),
        ("break", "failed", "server_error"),
    ],
)
async def test_turns_that_fail(text, session_status, code):
    """The session is idle or failed; the turn tells why."""
    sessions = sessions_of(emulator_with(subagent_turns=True))
    created = await start(sessions, text)
    await asyncio.sleep(3.1)
    session, turn = await sessions.retrieve(created.id), await root_turn(sessions, created.id)
    newest = (await sessions.turns.list(created.id)).data[0]

    assert (session.status, turn.status, turn.error.code) == (session_status, "failed", code)
    assert session.error == ("broken" if text == "break" else None)
    assert newest.subagent_id is not None


async def test_cancelling_takes_a_moment():
    """The turn goes on for a while, then it is cancelled and the session idle."""
    sessions = sessions_of(emulator_with(cancelling_seconds=0.5))
    created = await start(sessions, "tools")
    await asyncio.sleep(3.1)
    cancel = {"type": "agent.session.input.cancel"}
    for _ in range(2):
        await sessions.events.create(created.id, events=[cancel])
    at_once = await sessions.retrieve(created.id)
    await asyncio.sleep(0.6)
    session, turn = await sessions.retrieve(created.id), await root_turn(sessions, created.id)
    await sessions.events.create(created.id, events=[cancel])
    gone = await sessions.delete(created.id)
    with pytest.raises(openai.NotFoundError):
        await sessions.retrieve(created.id)

    assert (at_once.status, session.status, turn.status) == ("in_progress", "idle", "cancelled")
    assert gone.deleted


async def test_another_message_starts_another_turn():
    """But only when no turn is open; a session without input waits for its first one."""
    sessions = sessions_of(emulator_with(turn_lag_seconds=2))
    created = await sessions.create(agent_id="agent_1", **HOSTED)
    message = {
        "type": "agent.session.input.message",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
    }
    assert created.agent.id == "agent_1"
    for count in (1, 2):
        await sessions.events.create(created.id, events=[message])
        assert len([turn async for turn in sessions.turns.list(created.id)]) == count - 1
        with pytest.raises(openai.BadRequestError) as busy:
            await sessions.events.create(created.id, events=[message])
        with pytest.raises(openai.BadRequestError, match="Cancel the session's running turn"):
            await sessions.delete(created.id)
        await asyncio.sleep(6)
        turns = [turn.status async for turn in sessions.turns.list(created.id)]
        assert turns == ["completed"] * count
    assert busy.value.code == "active_turn_not_steerable"


async def test_lists_filter_and_page():
    """By metadata and agent, newest first or oldest first, a page at a time."""
    emulator = emulator_with()
    sessions = sessions_of(emulator)
    ids = [
        (await start(sessions, "x", metadata={"job": "a", "n": str(n)}, agent_id="agent_1")).id
        for n in range(5)
    ]
    other = (await start(sessions, "x", metadata={"job": "b"})).id
    lost = (await start(sessions, "lost", metadata={"job": "a"})).id
    found = [session.id async for session in sessions.list(metadata={"job": "a"}, limit=2)]
    oldest = [session.id async for session in sessions.list(agent_id="agent_1", order="asc")]
    both = [session.id async for session in sessions.list(metadata={"job": "a", "n": "3"})]
    everything = [session.id async for session in sessions.list()]
    with pytest.raises(openai.NotFoundError):
        await sessions.retrieve(lost)
    for options in ({"limit": 101}, {"after": "session_x"}):
        with pytest.raises(openai.BadRequestError):
            await sessions.list(**options)

    assert found == ids[::-1]
    assert oldest == ids
    assert both == [ids[3]]
    assert everything == [other, *ids[::-1]]
    # 3 + 1 + 1 + 1 list calls answered for 5 + 5 + 1 + 6 sessions, 6 at most.
    books = emulator.books.snapshot(0)
    assert books["lists"] == {"GET /v1/agents/sessions": [6, 17, 6]}
    assert books["checks"][ids[3]] == [4, 0]


async def test_filtered_lists_can_lag():
    """New sessions and changes come late; a retrieve and the whole list do not."""
    sessions = sessions_of(emulator_with(list_lag_seconds=2))
    created = await start(sessions, "hello", metadata={"job": "a"})

    async def listed(**filters):
        return [session.status async for session in sessions.list(**filters)]

    seen = []
    for _ in range(4):
        seen.append(await listed(metadata={"job": "a"}))
        await asyncio.sleep(1.5)
    assert seen == [[], [], ["in_progress"], ["in_progress"]]
    assert await listed(metadata={"job": "a"}) == ["idle"]
    assert await listed() == ["idle"]
    assert (await sessions.retrieve(created.id)).status == "idle"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"agent": {"model": "m"}, "input": "x"}, "environment"),
        ({"agent": {"model": "m"}, **BARE}, "input"),
        ({"input": "x", **BARE}, "agent.model"),
        ({"agent": {"model": "m"}, "input": "x", "environment": {"type": "x"}}, "environment.type"),
        (
            {"agent": {"model": "m"}, "input": "x", "spend_control": {"limit": 0}, **BARE},
            "spend_control.limit",
        ),
        ({"agent": {"model": "m"}, "input": [], **BARE}, "input"),
    ],
)
def test_bodies_that_make_no_session(body, param):
    """Each is refused with the parameter that is wrong."""
    reply = post(emulator_with(), "/agents/sessions", body, **BETA)

    assert (reply.status, content(reply)["error"]["param"]) == (400, param)


def test_the_beta_header_is_wanted():
    """Without it 400 with the cure, unless the settings let everybody in."""
    refused = get(emulator_with(), "/agents/sessions")
    let_in = get(emulator_with(beta_headers=False), "/agents/sessions")

    assert "OpenAI-Beta: agents=v1" in content(refused)["error"]["message"]
    assert (refused.status, let_in.status) == (400, 200)


def test_what_is_refused_leaves_nothing_behind():
    """A rule that refuses the create makes no session; one that is odd is shown for ever."""
    emulator = emulator_with(poll_after_ms=700)
    refused = post(
        emulator, "/agents/sessions", {"agent": {"model": "m"}, "input": "refuse", **BARE}, **BETA
    )
    odd = post(
        emulator, "/agents/sessions", {"agent": {"model": "m"}, "input": "odd", **BARE}, **BETA
    )
    place = f"/agents/sessions/{content(odd)['id']}"
    later = get(emulator, place, now=10_000, **BETA)

    assert refused.status == 500
    assert len(content(get(emulator, "/agents/sessions", **BETA))["data"]) == 1
    assert content(later)["status"] == "reticulating"
    assert later.headers["openai-poll-after-ms"] == "700"


@pytest.mark.parametrize("number", [500, pytest.param(5_000, marks=pytest.mark.slow)])
def test_sessions_are_checked_by_lists_of_a_hundred(number):
    """A list of a hundred is one call and a hundred checks in the books."""
    emulator = emulator_with()
    body = {"agent": {"model": "m"}, "metadata": {"job": "a"}, **BARE}
    for n in range(number):
        post(emulator, "/agents/sessions", {**body, "input": f"{n}"}, **BETA)
    place, after, calls = "/agents/sessions?limit=100&metadata[job]=a", "", 0
    while calls < 60:
        found = content(get(emulator, place + after, now=1.5, **BETA))
        calls += 1
        if not found["has_more"]:
            break
        after = f"&after={found['last_id']}"

    books = emulator.books.snapshot(2)
    assert calls == number // 100
    assert books["lists"] == {"GET /v1/agents/sessions": [number // 100, number, 100]}
    assert sum(sum(seen) for seen in books["checks"].values()) == number
