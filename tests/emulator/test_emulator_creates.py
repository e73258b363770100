"""What the books tell of each create: what it was, whether its answer arrived, what came after."""

import asyncio
import json
import socket
from contextlib import suppress

import httpx2
import openai
import pytest
from support.agent_sessions import RULES, sessions_of, start
from support.emulator_client import emulator_client, get, post

from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.server import Application, serve
from orchestrator.emulator.settings import Settings

QUICK = {"queue_seconds": Fixed(0), "run_seconds": Fixed(1), "rules": RULES}
BARE = {"delivered": True, "looked_at": 0, "listed": 0, "continued": 0, "cancelled": 0}


def emulator_with(**settings):
    return Emulator(Settings(**{**QUICK, **settings}))


def each(emulator):
    """All creates, as the pages over HTTP have them."""
    found = []
    while page := creates_page(emulator, after=len(found), limit=2):
        numbers = [one.pop("number") for one in page]
        assert numbers == [len(found) + n for n in range(1, len(page) + 1)]
        found += page
    return found


def creates_page(emulator, **query):
    path = "/emulator/creates?" + "&".join(f"{name}={value}" for name, value in query.items())
    return json.loads(get(emulator, path, key="").body)["creates"]


def only(emulator, *names):
    (created,) = each(emulator)
    return {name: created[name] for name in names or BARE}


def background(text="hi", **more):
    return {"model": "m", "input": text, "background": True, **more}


async def test_a_response_from_its_create_to_its_end():
    """Looks, a continuation and a cancel, each counted for what it was about."""
    emulator = emulator_with()
    client = emulator_client(emulator)
    metadata = {"custom_id": "r1", "mine": "x"}
    first = await client.responses.create(**background(metadata=metadata))
    for _ in range(3):
        await asyncio.sleep(1)
        await client.responses.retrieve(first.id)
    second = await client.responses.create(**background("go on", previous_response_id=first.id))
    await client.responses.cancel(second.id)

    one, two = each(emulator)
    assert one.pop("at_seconds") < 1
    assert one == {
        **BARE,
        "kind": "response",
        "key": "r1",
        "run_id": first.id,
        "metadata": metadata,
        "looked_at": 3,
        "continued": 1,
    }
    assert (two["kind"], two["run_id"], two["cancelled"]) == ("response_turn", second.id, 1)
    assert two["key"] in emulator.books.snapshot(0)["creates"]["by_digest"]


async def test_a_session_in_lists_and_by_its_id():
    """A list shows it to whomever; who asks for it by its id, or answers it, knows of it."""
    emulator = emulator_with()
    sessions = sessions_of(emulator)
    session = await start(sessions, "tools", metadata={"custom_id": "s"}, agent={"model": "m"})
    async for _ in sessions.list():
        pass
    assert only(emulator, "kind", "key", *BARE) == {
        **BARE,
        "kind": "agent_session",
        "key": "s",
        "listed": 1,
    }
    await asyncio.sleep(5)
    await sessions.retrieve(session.id)
    async for _ in sessions.turns.list(session.id):
        pass
    await sessions.events.create(session.id, events=[{"type": "agent.session.input.cancel"}])

    assert only(emulator) == {**BARE, "listed": 1, "looked_at": 2, "cancelled": 1}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_an_assistants_run_and_its_messages():
    """Its messages are asked for by its id; those of the thread are not its own."""
    emulator = emulator_with()
    beta = emulator_client(emulator).beta.threads
    run = await beta.create_and_run(assistant_id="a", metadata={"custom_id": "t"})
    await beta.runs.list(run.thread_id)
    await beta.messages.list(run.thread_id)
    await beta.messages.list(run.thread_id, run_id=run.id)
    await beta.runs.cancel(run.id, thread_id=run.thread_id)

    expected = {**BARE, "listed": 1, "looked_at": 1, "cancelled": 1}
    assert only(emulator) == expected
    assert only(emulator, "kind", "key") == {"kind": "assistants_run", "key": "t"}


async def test_what_answers_at_once():
    """Chat has an id and metadata, its later turns a kind of their own; embeddings have neither."""
    emulator = emulator_with()
    client = emulator_client(emulator)
    messages = [{"role": "user", "content": "hi"}]
    chat = await client.chat.completions.create(
        model="m", messages=messages, metadata={"custom_id": "c"}
    )
    called = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages += [
        {"role": "assistant", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "call_1", "content": "out"},
    ]
    await client.chat.completions.create(model="m", messages=messages)
    await client.embeddings.create(model="m", input="hi")

    told = [(one["kind"], one["run_id"], one["delivered"]) for one in each(emulator)]
    assert told[0] == ("chat", chat.id, True)
    assert [kind for kind, *_ in told] == ["chat", "chat_turn", "embedding"]
    assert (each(emulator)[0]["key"], told[2][1]) == ("c", "")


@pytest.mark.parametrize("fault", ["drop_after", "malformed"])
async def test_an_answer_that_is_lost_or_cut_was_not_delivered(fault):
    """The work is done all the same."""
    emulator = emulator_with(faults={fault: 1.0})
    with suppress(openai.APIError, json.JSONDecodeError):
        await emulator_client(emulator).responses.create(**background())

    assert only(emulator)["delivered"] is False


async def test_an_answer_that_tells_of_no_session_was_not_delivered():
    """Who is told 502 does not learn that there is one."""
    emulator = emulator_with(deviations=["sessions_failed_turn_502"])
    with pytest.raises(openai.InternalServerError):
        await start(sessions_of(emulator), "fail")

    assert only(emulator)["delivered"] is False


async def test_a_refused_create_is_none():
    """Nothing was done, so there is nothing to tell of."""
    emulator = emulator_with()
    post(emulator, "/v1/responses", {"model": "m"})

    assert each(emulator) == []


async def test_the_application_without_a_connection():
    """Whoever carries the call is believed to deliver the answer, streams when they are over."""
    emulator = emulator_with()
    transport = httpx2.ASGITransport(app=Application(emulator))
    async with httpx2.AsyncClient(transport=transport, base_url="http://e/v1") as client:
        headers = {"authorization": "Bearer any", "openai-beta": "agents=v1"}
        for path, body in (
            ("/responses", background()),
            ("/agents/sessions", {"environment": {"type": "none"}, "agent": {"model": "m"}}),
        ):
            stream = {"input": "hi", "stream": True} if "agents" in path else {}
            await client.post(path, json={**body, **stream}, headers=headers)

    assert [one["delivered"] for one in each(emulator)] == [True, True]


def send(base_url, path, body):
    """A call on a socket of its own. Nobody reads what comes, but by hand."""
    host, port = base_url.removeprefix("http://").removesuffix("/v1").split(":")
    caller = socket.create_connection((host, int(port)), timeout=5)
    sent = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: e\r\nauthorization: Bearer any\r\n"
    caller.sendall(f"{head}content-length: {len(sent)}\r\n\r\n".encode() + sent)
    return caller


async def until(condition):
    """Give the server its turns."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - nothing tells of what a socket has seen
            await asyncio.sleep(0.001)


@pytest.mark.real_time
@pytest.mark.parametrize("reads", [True, False])
async def test_a_caller_that_dies_after_the_answer_went_out(reads):
    """What it has not read it has not got; the system resets its connection."""
    emulator = emulator_with()
    async with serve(emulator) as base_url:
        caller = send(base_url, "/v1/responses", background())
        await until(lambda: each(emulator) and only(emulator)["delivered"])
        if reads:
            assert b'"id"' in caller.recv(65_536)
        caller.close()
        if not reads:
            await until(lambda: not only(emulator)["delivered"])

    assert only(emulator)["delivered"] is reads


@pytest.mark.real_time
async def test_a_caller_that_is_gone_when_its_call_is_read():
    """The answer goes to nobody, although the connection does not show it yet."""
    emulator = emulator_with()
    async with serve(emulator) as base_url:
        send(base_url, "/v1/responses", background()).close()
        await until(lambda: each(emulator) and not only(emulator)["delivered"])
        await asyncio.sleep(0.01)

    assert only(emulator)["delivered"] is False


@pytest.mark.real_time
async def test_a_caller_that_dies_while_it_waits():
    """The answer takes a while; nobody is there when it comes."""
    emulator = emulator_with(run_seconds=Fixed(0.1))
    async with serve(emulator) as base_url:
        chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        caller = send(base_url, "/v1/chat/completions", chat)
        await until(lambda: each(emulator))
        caller.close()
        await asyncio.sleep(0.15)

    assert only(emulator)["delivered"] is False


@pytest.mark.real_time
async def test_a_kept_alive_connection_delivers_every_answer():
    """The next call shows that the answer before was read; so does an orderly end."""
    emulator = emulator_with()
    async with serve(emulator) as base_url, httpx2.AsyncClient() as client:
        for number in range(5):
            headers = {"authorization": "Bearer any"}
            body = background(str(number))
            await client.post(f"{base_url}/responses", json=body, headers=headers)

    assert [one["delivered"] for one in each(emulator)] == [True] * 5
