"""Streams of agent sessions: the client's own helper reads events and answers tools."""

import asyncio

import openai
import pytest
from support.agent_sessions import HOSTED, LOOK, RULES, emulator_with, sessions_of, start

from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.server import serve
from orchestrator.emulator.settings import Settings


async def test_the_clients_own_stream_answers_tools():
    """`sessions.stream` with handlers, through the race, to the final answer."""
    emulator = emulator_with(pending_call_lag_seconds=0.3)
    sessions = sessions_of(emulator)
    created = await sessions.create(agent={"model": "m", "tools": [LOOK]}, **HOSTED)
    asked = []

    async def look(arguments):
        asked.append(arguments)
        return {"seen": True}

    def smell(arguments):
        raise ValueError(arguments)

    handlers = {"look": look, "smell": smell}
    for _ in range(2):
        async with sessions.stream(created.id, input="tools", tool_handlers=handlers) as stream:
            result = await stream.get_final_result()

    assert result.output_text == 'tool said: {"seen":true}; Tool handler failed.'
    assert result.turn.status == "completed"
    assert asked == [{"at": "it"}] * 2
    counts = emulator.books.snapshot(99)["calls"]
    assert counts["POST /v1/agents/sessions/{session_id}/events"]["400"] > 0


async def test_a_stream_tells_each_event_once_and_in_order():
    """What the client sees of a plain turn, of a failed one, and of one that waits for approval."""
    sessions = sessions_of(emulator_with())
    created = await sessions.create(agent={"model": "m"}, **HOSTED)
    async with sessions.stream(created.id, input="hello") as stream:
        kinds = [event.type.removeprefix("agent.session.") async for event in stream]
    async with sessions.stream(created.id, input="fail") as stream:
        with pytest.raises(openai.OpenAIError, match="result: failed"):
            await stream.get_final_result()
    await asyncio.sleep(1)
    async with sessions.stream(created.id, input="approve") as stream:
        with pytest.raises(openai.OpenAIError, match="result: requires_action"):
            await stream.get_final_result()

    assert kinds == [
        "turn.created",
        "turn.item.added",
        "in_progress",
        "turn.in_progress",
        "turn.item.added",
        "turn.item.done",
        "turn.completed",
        "idle",
    ]


async def test_a_session_can_be_created_as_a_stream():
    """The events come from the creation to the end of the turn, and then the stream ends."""
    sessions = sessions_of(emulator_with())
    stream = await start(
        sessions, "tools", stream=True, tool_handlers={"look": str, "smell": lambda _: None}
    )
    result = await stream.get_final_result()
    plain = await start(sessions, "hello", stream=True)
    kinds = [event.type async for event in plain]

    assert result.output_text == "tool said: {'at': 'it'}; "
    assert kinds[0] == "agent.session.created"
    assert kinds[-1] == "agent.session.idle"


@pytest.mark.real_time
async def test_streams_over_a_socket():
    """The client's stream over real HTTP; leaving early leaves nothing behind."""
    settings = Settings(queue_seconds=Fixed(0.01), run_seconds=Fixed(0.02), rules=RULES)
    emulator = Emulator(settings)
    before = asyncio.all_tasks()
    async with (
        serve(emulator) as base_url,
        openai.AsyncOpenAI(api_key="any", base_url=base_url, max_retries=0) as client,
    ):
        sessions = client.beta.agents.sessions
        created = await sessions.create(agent={"model": "m"}, **HOSTED)
        handlers = {"look": str, "smell": str}
        async with sessions.stream(created.id, input="tools", tool_handlers=handlers) as stream:
            result = await stream.get_final_result()
        async with sessions.stream(created.id, input="tools") as stream:
            first = await anext(stream)

    assert result.output_text == "tool said: {'at': 'it'}; {}"
    assert first.type == "agent.session.turn.created"
    assert asyncio.all_tasks() <= before
