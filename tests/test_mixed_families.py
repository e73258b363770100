"""All families in one source: one scheduler, one limiter, one set of tools for all of them."""

import asyncio
import json

import pytest
from support.engine import play

from orchestrator.core.model import Family, Outcome
from orchestrator.emulator.durations import Lognormal
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings
from orchestrator.ports import CallKind

RULE = Rule(match=r"(O-\d+)", tool_calls=[ToolRequest("look_up", {"order_id": "{1}"})])
FAULTS = ["error_500", "error_503", "error_429", "slow", "drop_before", "drop_after", "hang"]

AGENT = {"agent": {"model": "gpt-5-mini"}, "environment": {"type": "none"}}


def on_responses(text):
    return "/v1/responses", {"input": text}


def at_once(text):
    return "/v1/responses", {"input": text, "background": False}


def on_chat(text):
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}


def on_embeddings(text):
    return "/v1/embeddings", {"model": "text-embedding-3-small", "input": text}


def on_assistants(text):
    thread = {"messages": [{"role": "user", "content": text}]}
    return "/v1/threads/runs", {"assistant_id": "asst_1", "thread": thread}


def on_sessions(text):
    return "/v1/agents/sessions", {**AGENT, "input": text}


EVERY = (on_responses, at_once, on_chat, on_embeddings, on_assistants, on_sessions)
HELD = (on_assistants, on_sessions)


def mixed(number, kinds=EVERY):
    """Requests of all kinds in turn; each asks for the order that is its custom_id."""
    for n in range(number):
        url, body = kinds[n % len(kinds)](f"where is O-{n}?")
        yield {"custom_id": f"O-{n}", "url": url, "body": body}


class LookUp:
    """A tool that remembers which call it answered."""

    def __init__(self):
        self.orders, self.call_ids = [], []

    def tool(self):
        async def look_up(order_id: str, call_id: str) -> str:
            """Look up an order."""
            self.orders.append(order_id)
            self.call_ids.append(call_id)
            await asyncio.sleep(0.5)
            return f"{order_id} is on its way"

        return look_up


def is_right(result):
    """Its answer quotes what the tool said of its own order."""
    if result.request.url == "/v1/embeddings":
        return bool(json.loads(result.answer.body)["data"])
    return f"{result.custom_id} is on its way".encode() in result.answer.body


BY_BATCH = {Family.DIRECT, Family.ASSISTANTS, Family.AGENT_SESSIONS}


@pytest.mark.parametrize("number", [100, pytest.param(1_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("via", "expected"), [(None, {*BY_BATCH, Family.RESPONSES}), ("batch", BY_BATCH)]
)
async def test_one_source_with_all_families(number, via, expected):
    """Every request has its own answer, every tool call one handler; the books agree."""
    look_up = LookUp()

    played = await play(mixed(number), Settings(rules=[RULE]), tools=[look_up.tool()], via=via)

    assert list(played.outcomes.values()) == [Outcome.COMPLETED] * number
    assert all(is_right(result) for result in played.results.values())
    families = {result.request.family for result in played.results.values()}
    assert families == expected
    assert (played.served("POST /v1/batches") > 0) == (via == "batch")
    asked = [name for name, r in played.results.items() if r.request.url != "/v1/embeddings"]
    assert sorted(look_up.orders) == sorted(asked)
    assert len(set(look_up.call_ids)) == len(asked)


async def test_all_families_share_one_limit():
    """Every call of a model takes its permit from the same bucket: no 429, whatever the family."""
    requests = [
        {**request, "body": request["body"] | {"model": "gpt-5-mini"}}
        if "threads" in request["url"]
        else request
        for request in mixed(100)
    ]

    played = await play(
        requests,
        Settings(rules=[RULE], rpm=600, control_calls_count=True),
        tools=[LookUp().tool()],
        rpm=600,
    )

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert not [record for record in played.calls if record.status == "429"]


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [HELD, EVERY], ids=["runs that wait", "all families"])
async def test_all_faults_at_once(kinds):
    """Seven faults at 10 % each, 300 requests with tools: one right outcome for every request."""
    look_up = LookUp()
    emulator = Settings(seed=11, rules=[RULE], faults=dict.fromkeys(FAULTS, 0.1))

    played = await play(
        mixed(300, kinds),
        emulator,
        tools=[look_up.tool()],
        deadline_seconds=900,
        attempts_max=12,
    )

    assert len(played.results) == 300
    by_outcome = {outcome: [] for outcome in Outcome}
    for result in played.results.values():
        by_outcome[result.outcome].append(result)
    assert all(is_right(result) for result in by_outcome.pop(Outcome.COMPLETED))
    # A hung run is not waited for for ever: this is its right outcome.
    hung = by_outcome.pop(Outcome.TIMED_OUT)
    assert hung
    assert len(hung) < 60
    assert all(result.seconds >= 900 for result in hung)
    assert [result for results in by_outcome.values() for result in results] == []
    assert played.orchestrator.totals.creates_lost > 0


def sessions(number):
    for n in range(number):
        url, body = on_sessions(f"say {n}")
        yield {"custom_id": f"s{n}", "url": url, "body": body}


def status_calls(played):
    return sum(record.kind is CallKind.CHECK for record in played.calls)


# What is created together is listed together to the end. The wider durations spread, the longer a
# group lasts with few in it: at a sigma of 0.7 it is 44 checks a call.
@pytest.mark.slow
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(Settings().run_seconds, id="the emulator's own"),
        pytest.param(Lognormal(20.0, 0.5), id="20 s, spread widely"),
        pytest.param(Lognormal(60.0, 0.5), id="60 s, spread widely"),
        pytest.param(Lognormal(300.0, 0.5), id="300 s, spread widely"),
    ],
)
async def test_five_thousand_sessions_are_checked_by_the_hundred(seconds):
    """Status calls, single retrieves included, are at most 1/50 of the checks answered."""
    played = await play(sessions(5_000), Settings(run_seconds=seconds), max_in_flight=5_000)

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert played.orchestrator.totals.in_flight_max == 5_000
    assert played.served("GET /v1/agents/sessions/{session_id}") == 0
    assert status_calls(played) * 50 <= played.orchestrator.totals.checks
