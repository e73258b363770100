"""OpenAI's own client, validating strictly, understands every answer of the emulator."""

import asyncio

import httpx2
import openai
import pytest
from support.emulator_client import emulator_client

from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings

USER = {"role": "user", "content": "hello"}
TOOL = {
    "type": "function",
    "name": "look",
    "description": "looks",
    "parameters": {"type": "object", "properties": {}, "required": []},
    "strict": True,
}
RULES = (
    Rule(match="^tool", tool_calls=[ToolRequest("look", {"at": "it"})]),
    Rule(match="^fail", status="failed", error_code="server_error", error_message="oh"),
    Rule(match="^short", status="incomplete"),
)


def strict_client(latency_seconds=0.0, **settings):
    timing = {"queue_seconds": Fixed(1), "run_seconds": Fixed(2), "rules": RULES}
    emulator = Emulator(Settings(**{**timing, **settings}))
    return emulator_client(
        emulator, latency_seconds=latency_seconds, _strict_response_validation=True
    )


async def test_a_background_response_through_all_its_statuses():
    """Create, retrieve while queued and in progress, and when it is completed."""
    client = strict_client()
    created = await client.responses.create(
        model="m",
        input="hello",
        background=True,
        instructions="be kind",
        metadata={"k": "v"},
        reasoning={"effort": "low"},
        text={"verbosity": "low"},
        tools=[TOOL],
        max_output_tokens=100,
    )
    seen = [created.status]
    for _ in range(2):
        await asyncio.sleep(1.6)
        response = await client.responses.retrieve(created.id)
        seen.append(response.status)

    assert seen == ["queued", "in_progress", "completed"]
    assert response.output_text == "hello"
    assert response.metadata == {"k": "v"}
    assert response.instructions == "be kind"
    assert response.usage.input_tokens == 3
    assert response.usage.output_tokens_details.reasoning_tokens == 0
    assert response.completed_at - response.created_at == pytest.approx(3)


async def test_failed_incomplete_and_cancelled_responses():
    """The other ends a run can have."""
    client = strict_client()
    ids = {}
    for text in ("fail", "short", "cancel"):
        response = await client.responses.create(model="m", input=text, background=True)
        ids[text] = response.id
    cancelled = await client.responses.cancel(ids["cancel"])
    await asyncio.sleep(4)
    failed = await client.responses.retrieve(ids["fail"])
    short = await client.responses.retrieve(ids["short"])

    assert cancelled.status == "cancelled"
    assert (failed.status, failed.error.code, failed.error.message) == (
        "failed",
        "server_error",
        "oh",
    )
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")


async def test_tool_calls_of_a_response():
    """Function calls, and the continuation with their outputs."""
    client = strict_client()
    asked = await client.responses.create(model="m", input="tool", tools=[TOOL])
    outputs = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "seen"}
        for item in asked.output
    ]
    answered = await client.responses.create(
        model="m", previous_response_id=asked.id, input=outputs, tools=[TOOL]
    )

    assert (asked.output[0].name, asked.output[0].arguments) == ("look", '{"at": "it"}')
    assert answered.output_text == "tool said: seen"


async def test_chat_completions_with_and_without_tools():
    """A text, several choices, and a tool call."""
    client = strict_client()
    started = asyncio.get_running_loop().time()
    said = await client.chat.completions.create(model="m", messages=[USER], n=2)
    took = asyncio.get_running_loop().time() - started
    asked = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "tool"}]
    )

    assert took == pytest.approx(2, abs=0.01)
    assert [choice.message.content for choice in said.choices] == ["hello", "hello"]
    assert said.usage.completion_tokens == 4
    assert asked.choices[0].message.tool_calls[0].function.name == "look"
    assert asked.choices[0].finish_reason == "tool_calls"


async def test_completions():
    """One choice for each prompt."""
    client = strict_client()
    said = await client.completions.create(model="m", prompt=["one", "two two two"], max_tokens=1)

    assert [(choice.text, choice.finish_reason) for choice in said.choices] == [
        ("one", "stop"),
        ("two ", "length"),
    ]


async def test_embeddings_in_both_encodings():
    """The client asks for base64 unless told otherwise; both are the same vectors."""
    client = strict_client()
    # Strict validation happens before the client unpacks base64, so here it can't be strict.
    lenient = emulator_client(Emulator())
    packed = await lenient.embeddings.create(model="m", input=["a", "b"])
    plain = await client.embeddings.create(model="m", input=["a", "b"], encoding_format="float")
    options = {"model": "m", "encoding_format": "float"}
    long = await client.embeddings.create(input="a", dimensions=20, **options)
    tokens = await client.embeddings.create(input=[[1, 2, 3], [4]], **options)

    assert [len(one.embedding) for one in packed.data] == [8, 8]
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert packed.data[0].embedding != packed.data[1].embedding
    assert len(long.data[0].embedding) == 20
    assert tokens.usage.prompt_tokens == 4


async def test_moderations():
    """A text is flagged for what it names."""
    client = strict_client()
    judged = await client.moderations.create(input=["hello", "so much violence"])
    parts = await client.moderations.create(input=[{"type": "text", "text": "harassment"}])

    assert [result.flagged for result in judged.results] == [False, True]
    assert judged.results[1].categories.violence
    assert judged.results[1].category_scores.violence > 0.9
    assert [result.categories.harassment for result in parts.results] == [True]


async def test_models():
    """The list, one of it, and one that isn't there."""
    client = strict_client(models=["a", "b"])

    assert [model.id async for model in client.models.list()] == ["a", "b"]
    assert (await client.models.retrieve("a")).owned_by == "emulator"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("c")
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        await client.responses.create(model="c", input="x")


async def test_errors_come_as_the_clients_own_exceptions():
    """Authentication, validation, limits: each by its class, with code and request id."""
    client = strict_client(rpm=1, api_key="right")
    with pytest.raises(openai.AuthenticationError) as wrong:
        await client.responses.create(model="m", input="x")
    right = client.copy(api_key="right")
    with pytest.raises(openai.BadRequestError) as bad:
        await right.responses.create(model="m", input="x", stream=True)
    await right.responses.create(model="m", input="x", background=True)
    with pytest.raises(openai.RateLimitError) as limited:
        await right.responses.create(model="m", input="x", background=True)

    assert wrong.value.code == "invalid_api_key"
    assert bad.value.param == "stream"
    assert limited.value.code == "rate_limit_exceeded"
    assert limited.value.request_id.startswith("req_")
    assert limited.value.response.headers["retry-after"] == "60"


async def test_a_lost_connection_is_a_connection_error():
    """What a drop looks like to the client."""
    client = strict_client(faults={"drop_after": 1.0})

    with pytest.raises(openai.APIConnectionError) as dropped:
        await client.responses.create(model="m", input="x")

    assert isinstance(dropped.value.__cause__, httpx2.RemoteProtocolError)


async def test_a_call_that_takes_too_long_times_out():
    """The transport keeps the client's read timeout, in virtual time."""
    client = strict_client(faults={"hang": 1.0})
    started = asyncio.get_running_loop().time()

    with pytest.raises(openai.APITimeoutError):
        await client.chat.completions.create(model="m", messages=[USER], timeout=30)

    assert asyncio.get_running_loop().time() - started == pytest.approx(30, abs=0.01)


async def test_latency_passes_on_both_ways():
    """A call arrives after the latency, and its answer as long after that."""
    client = strict_client(latency_seconds=0.1)
    loop = asyncio.get_running_loop()
    started = loop.time()
    response = await client.responses.create(model="m", input="x", background=True)

    assert loop.time() - started == pytest.approx(0.2, abs=0.001)
    arrived = response.created_at - Settings().epoch
    assert arrived - started == pytest.approx(0.1, abs=0.001)
