"""The whole engine at work: faults, limits and numbers, in virtual time."""

import asyncio
from bisect import bisect_left
from collections import Counter
from itertools import pairwise

import anyio
import pytest
from support.engine import play

from orchestrator.core.learned import RUNS_MIN
from orchestrator.core.model import Outcome
from orchestrator.emulator.durations import Fixed, Lognormal
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings

FAULTS = ["error_500", "error_503", "error_429", "slow", "drop_before", "drop_after", "hang"]


def prompts(number, **more):
    return ({"custom_id": f"r{n}", "prompt": f"say {n}", **more} for n in range(number))


def mixed(number):
    """Half in the background, a quarter chat, a quarter responses at once."""
    for n in range(number):
        text = f"say {n}"
        if n % 4 == 0:
            body = {"messages": [{"role": "user", "content": text}]}
            yield {"custom_id": f"r{n}", "url": "/v1/chat/completions", "body": body}
        else:
            body = {"input": text, "background": n % 4 != 1}
            yield {"custom_id": f"r{n}", "url": "/v1/responses", "body": body}


def check_right(played, number, deadline_seconds):
    """Every request has one outcome, and the right one.

    Faults pass, so a request completes, unless its run hung (then it timed out) or it met more
    faults in a row than attempts are made.
    """
    assert len(played.results) == number
    creates = played.books["creates"]["by_digest"]
    for result in played.results.values():
        if result.outcome is Outcome.TIMED_OUT:
            assert result.seconds >= deadline_seconds
        elif result.outcome is Outcome.COMPLETED:
            assert f"say {result.custom_id[1:]}".encode() in result.answer.body
        else:
            assert result.outcome is Outcome.FAILED
            assert result.error.code in {"server_error", "connection_lost", "rate_limit_exceeded"}
    assert sum(creates.values()) >= number - played.orchestrator.totals.outcomes[Outcome.FAILED]


@pytest.mark.parametrize("number", [80, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_alone(fault, number):
    """One call in ten meets this fault; every request ends with exactly one right outcome."""
    emulator = Settings(seed=7, faults={fault: 0.1})

    played = await play(mixed(number), emulator, deadline_seconds=300)

    check_right(played, number, 300)
    hung = played.orchestrator.totals.outcomes[Outcome.TIMED_OUT]
    assert (hung > 0) == (fault == "hang")
    assert played.orchestrator.totals.outcomes[Outcome.COMPLETED] == number - hung


@pytest.mark.parametrize("number", [100, pytest.param(2_000, marks=pytest.mark.slow)])
async def test_all_faults_together(number):
    """Seven faults at 10 % each, all at once: one right outcome for every request."""
    emulator = Settings(seed=11, faults=dict.fromkeys(FAULTS, 0.1))

    played = await play(mixed(number), emulator, deadline_seconds=900, attempts_max=12)

    check_right(played, number, 900)
    totals = played.orchestrator.totals
    assert totals.outcomes[Outcome.COMPLETED] >= 0.8 * number
    assert totals.outcomes[Outcome.FAILED] <= 5
    # What may have been paid twice is counted: the emulator's extra runs are all known to us.
    runs = sum(played.books["creates"]["by_digest"].values())
    assert runs - number <= totals.creates_lost
    assert sum(result.lost for result in played.results.values()) == totals.creates_lost


@pytest.mark.parametrize("number", [100, pytest.param(400, marks=pytest.mark.slow)])
async def test_faults_with_tools(number):
    """Tool turns survive faults: each request's tool is called, and the result quotes it."""
    seen = []

    async def lookup(order_id: str) -> str:
        """Look up an order."""
        seen.append(order_id)
        await asyncio.sleep(0.5)
        return f"{order_id} is on its way"

    rule = Rule(match=r"(O-\d+)", tool_calls=[ToolRequest("lookup", {"order_id": "{1}"})])
    faults = {"error_500": 0.1, "drop_before": 0.1, "drop_after": 0.1, "slow": 0.1}
    requests = [{"custom_id": f"O-{n}", "prompt": f"where is O-{n}"} for n in range(number)]

    played = await play(
        requests, Settings(seed=3, rules=[rule], faults=faults), tools=[lookup], tools_at_once=8
    )

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert set(seen) == set(played.results)
    for custom_id, result in played.results.items():
        assert f"{custom_id} is on its way".encode() in result.answer.body


@pytest.mark.slow
async def test_ten_thousand_runs_cost_a_few_tasks():
    """5,000 in flight over 32 connections: never more than 32 + 16 tasks."""
    tasks_max = 0

    class CountingEmulator(Emulator):
        def handle(self, call, now):
            nonlocal tasks_max
            tasks_max = max(tasks_max, len(asyncio.all_tasks()))
            return super().handle(call, now)

    emulator = CountingEmulator(Settings(run_seconds=Lognormal(20.0, 0.5)))

    played = await play(prompts(10_000), emulator, max_in_flight=5_000, connections=32)

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert played.orchestrator.totals.in_flight_max == 5_000
    assert 32 <= tasks_max <= 32 + 16
    assert played.orchestrator.tasks_max <= 32 + 16


@pytest.mark.parametrize("rpm", [600, pytest.param(6_000, marks=pytest.mark.slow)])
async def test_the_strict_limit_is_never_met_and_hardly_a_permit_lost(rpm):
    """A backlog against a strict server: no 429, and 99 % of the permits of each full minute."""
    emulator = Emulator(Settings(rpm=rpm))

    requests = prompts(int(0.45 * rpm))
    played = await play(requests, emulator, rpm=rpm, max_in_flight=rpm // 2)

    served = emulator.books.calls(0, 10**9)
    times = [record.at_seconds for record in served]
    # As long as requests wait to be created, there is a backlog.
    busy = int([record.at_seconds for record in served if "{id}" not in record.route][-1] // 60)
    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert played.books["refused_by_limit"] in ({}, {"requests": 0, "tokens": 0})
    assert not any(record.status == "429" for record in played.calls)
    assert busy >= 1
    for minute in range(busy):
        used = bisect_left(times, 60 * (minute + 1)) - bisect_left(times, 60 * minute)
        assert used >= 0.99 * rpm


@pytest.mark.parametrize("number", [150, pytest.param(400, marks=pytest.mark.slow)])
async def test_the_strict_token_limit_is_never_met(number):
    """Tokens are reserved as the server reserves them: no 429 for tokens either."""
    requests = list(prompts(number, max_output_tokens=200))

    played = await play(requests, Settings(tpm=20_000), tpm=20_000)

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert not any(record.status == "429" for record in played.calls)


@pytest.mark.parametrize("number", [250, pytest.param(600, marks=pytest.mark.slow)])
async def test_the_limit_is_learned_from_the_headers(number):
    """Without --rpm the first answers tell the limit; a few 429 at the start at the most."""
    played = await play(prompts(number), Settings(rpm=600))

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert sum(record.status == "429" for record in played.calls) <= 10
    assert played.orchestrator.rpm_of("gpt-5-mini") == 600


@pytest.mark.slow
@pytest.mark.parametrize("number", [80, 400])
async def test_learned_gaps_save_checks(number):
    """By the emulator's books, there are fewer checks than by backoff, and no run is overlooked."""
    emulator = Emulator(Settings(queue_seconds=Fixed(0.0), run_seconds=Lognormal(8.0, 0.4)))

    played = await play(prompts(number), emulator, latency_seconds=0.0, max_in_flight=8)

    looks = Counter(record.run_id for record in emulator.books.calls(0, 10**9))
    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    # One call of each is its create. By backoff it would be 5.9 checks.
    assert looks.total() / len(looks) - 1 < 4


async def test_no_run_is_checked_before_it_is_due():
    """By the emulator's books, each check comes after its gap, as long as nothing is learned."""
    emulator = Emulator(Settings(queue_seconds=Fixed(0.0), run_seconds=Lognormal(8.0, 0.8)))

    await play(prompts(RUNS_MIN), emulator, latency_seconds=0.0)

    seen = {}
    for record in emulator.books.calls(0, 10**9):
        seen.setdefault(record.run_id, []).append(record.at_seconds)
    assert len(seen) >= RUNS_MIN
    for times in seen.values():
        for looks, (before, after) in enumerate(pairwise(times)):
            planned = min(0.5 * 1.5**looks, 5.0)
            assert after - before >= 0.9 * planned - 1e-4


@pytest.mark.parametrize("number", [150, pytest.param(400, marks=pytest.mark.slow)])
async def test_the_next_request_is_read_only_when_there_is_room(number):
    """A source of a million lines is read as runs end, never ahead of them."""
    ahead = 0
    ended = 0

    def source():
        nonlocal ahead
        for n in range(number):
            ahead = max(ahead, n + 1 - ended)
            yield {"custom_id": f"r{n}", "prompt": f"say {n}"}

    class CountingEmulator(Emulator):
        def handle(self, call, now):
            nonlocal ended
            reply = super().handle(call, now)
            ended += b'"status":"completed"' in reply.body
            return reply

    played = await play(source(), CountingEmulator(Settings()), max_in_flight=20)

    assert len(played.results) == number
    # Two for the one that was read and waits for room, and the results on their way back.
    assert ahead <= 20 + 32 + 2


@pytest.mark.parametrize("number", [50, pytest.param(500, marks=pytest.mark.slow)])
async def test_many_slow_tools_are_bounded(number):
    """A hundred tool calls, or a thousand: eight handlers at once."""
    running = running_max = 0

    async def lookup(order_id: str) -> str:
        """Look up an order."""
        nonlocal running, running_max
        running += 1
        running_max = max(running_max, running)
        await anyio.sleep(1.0)
        running -= 1
        return "ok"

    rule = Rule(match=r"(\d+)", tool_calls=[ToolRequest("lookup", {"order_id": "{1}"})] * 2)

    played = await play(prompts(number), Settings(rules=[rule]), tools=[lookup], tools_at_once=8)

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert running_max == 8
