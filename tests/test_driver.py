"""The loop: who gets the connections, what is bounded, and what a run costs."""

import asyncio
import json
from collections import Counter

import anyio
import pytest
from support.emulator_client import emulator_client
from support.fake_server import FakeServer, answer_of, client_of

from orchestrator.core import invariants
from orchestrator.core.model import Outcome
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings
from orchestrator.service import Orchestrator

CHAT = "/v1/chat/completions"
DONE = {"choices": [{"message": {"content": "done"}}]}


def now():
    return asyncio.get_running_loop().time()


def asks(model, number):
    return [
        {"custom_id": f"{model}{n}", "url": CHAT, "prompt": "hi", "model": model}
        for n in range(number)
    ]


def model_of(request):
    return json.loads(request.content)["model"]


async def ends(orchestrator, requests):
    """When each request ended, and how."""
    return {r.custom_id: (now(), r.outcome) async for r in orchestrator.run_many(requests)}


async def test_a_crowd_of_one_model_does_not_starve_the_others():
    """Two connections, a second a call, 200 calls of one model first: the others get a share."""
    server = FakeServer(lambda _: (1.0, DONE))
    requests = [*asks("a", 200), *asks("b", 5), *asks("c", 5)]

    async with Orchestrator(client_of(server), connections=2, seed=1) as orchestrator:
        ended = await ends(orchestrator, requests)

    # Each of the three lanes gets every third call, five times, and the trial call comes first.
    assert max(at for custom_id, (at, _) in ended.items() if custom_id[0] != "a") < 10
    assert max(at for at, _ in ended.values()) == pytest.approx(105, abs=3)


@pytest.mark.parametrize("connections", [1, 3])
async def test_lanes_take_turns(connections):
    """With one free connection at a time or several, who has waited longest is first."""
    server = FakeServer(lambda _: (0.1, DONE))
    requests = [*asks("a", 30), *asks("b", 30), *asks("c", 30)]

    async with Orchestrator(client_of(server), connections=connections, seed=1) as orchestrator:
        await ends(orchestrator, requests)

    order = [model_of(request) for request in server.requests]
    # The trial call and its first followers go out before the lanes have found their turns.
    for start in range(6, 87):
        assert set(order[start : start + 3]) == {"a", "b", "c"}


async def test_a_paused_model_does_not_slow_the_others():
    """One model is turned away for ten minutes; the other goes on as if alone."""

    def answer(request):
        if model_of(request) == "paused" and now() < 600:
            return 0.1, answer_of(b"", 429, {"retry-after": "600"})
        return 0.1, DONE

    server = FakeServer(answer)
    requests = [*asks("free", 1), *asks("paused", 50), *asks("free", 400)[1:]]

    async with Orchestrator(client_of(server), connections=4, seed=1) as orchestrator:
        ended = await ends(orchestrator, requests)

    outcomes = Counter(outcome for _, outcome in ended.values())
    assert outcomes == {Outcome.COMPLETED: 450}
    # 400 calls of 0.1 s over four connections, and a few lost to the model that was turned away.
    assert max(at for custom_id, (at, _) in ended.items() if custom_id[0] == "f") < 11.5
    assert max(at for at, _ in ended.values()) > 600


async def test_the_loop_does_not_turn_while_nothing_happens():
    """A run that is looked at every 5 s costs a turn or two per look, and none in between."""
    turns = 0
    emulator = Emulator(Settings(run_seconds=Fixed(1_000.0)))
    async with Orchestrator(emulator_client(emulator), model="m", seed=1) as orchestrator:
        driver = orchestrator._driver
        pass_time = driver._pass_time

        def counted():
            nonlocal turns
            turns += 1
            pass_time()

        driver._pass_time = counted
        result = await orchestrator.run({"prompt": "hi"})

    assert result.checks > 200
    assert turns < 4 * result.checks


@pytest.mark.slow
async def test_hundreds_of_callers_at_once_cost_what_a_source_costs():
    """Who waits for room is woken when there is some, and not at every end of any run."""
    looks = 0

    class Counting(Counter):
        def __getitem__(self, level):
            nonlocal looks
            looks += 1
            return super().__getitem__(level)

    emulator = Emulator(Settings(run_seconds=Fixed(1.0)))
    client = emulator_client(emulator)
    async with Orchestrator(client, model="m", max_in_flight=10, seed=1) as orchestrator:
        orchestrator._desk.room._taken = Counting()
        async with asyncio.TaskGroup() as tasks:
            for n in range(500):
                tasks.create_task(orchestrator.run({"prompt": f"say {n}"}))

    assert orchestrator.totals.outcomes == {Outcome.COMPLETED: 500}
    assert looks < 5_000


async def test_a_caller_that_leaves_the_queue_gives_its_place_on():
    """Room is offered to one who is cancelled in that very moment: the next one gets it."""
    emulator = Emulator(Settings(run_seconds=Fixed(10.0), queue_seconds=Fixed(0.0)))
    client = emulator_client(emulator)
    async with Orchestrator(client, model="m", max_in_flight=1, seed=1) as orchestrator:
        first = asyncio.create_task(orchestrator.run({"prompt": "first"}))
        await anyio.sleep(1)
        second = asyncio.create_task(orchestrator.run({"prompt": "second"}))
        third = asyncio.create_task(orchestrator.run({"prompt": "third"}))
        first.add_done_callback(lambda _: second.cancel())
        result = await third
        invariants.check(orchestrator._driver.scheduler)

    assert result.outcome is Outcome.COMPLETED
    assert second.cancelled()


async def test_a_run_that_is_over_frees_its_connection():
    """Its call hangs, the grace after its deadline has passed: the connection is used again."""

    def answer(request):
        if model_of(request) == "hangs":
            return None
        return DONE

    async with Orchestrator(
        client_of(FakeServer(answer)), connections=1, seed=1, deadline_seconds=10**6
    ) as orchestrator:
        with anyio.move_on_after(1):
            async for _ in orchestrator.run_many(asks("hangs", 1)):
                pass
        with anyio.fail_after(60):
            ended = await ends(orchestrator, asks("quick", 3))

    assert {outcome for _, outcome in ended.values()} == {Outcome.COMPLETED}


async def test_tool_handlers_are_bounded_at_each_level():
    """Nested runs have places of their own, and those are bounded too."""
    at_work = Counter()
    highest = Counter()

    def begin(level):
        at_work[level] += 1
        highest[level] = max(highest[level], at_work[level])

    async def desk(question: str) -> str:
        """Ask the desk."""
        begin("desk")
        result = await orchestrator.run({"prompt": question})
        at_work["desk"] -= 1
        return result.outcome

    async def lookup(order_id: str) -> str:
        """Look up an order."""
        begin("lookup")
        await anyio.sleep(1)
        at_work["lookup"] -= 1
        return "ok"

    rules = (
        Rule(match="desk", tool_calls=[ToolRequest("desk", {"question": "deep"})]),
        Rule(match="deep", tool_calls=[ToolRequest("lookup", {"order_id": "O-1"})]),
    )
    settings = Settings(rules=rules, queue_seconds=Fixed(0.0), run_seconds=Fixed(0.0))
    orchestrator = Orchestrator(
        emulator_client(Emulator(settings)), model="m", tools=[desk, lookup], tools_at_once=2
    )
    async with orchestrator:
        async for result in orchestrator.run_many([{"prompt": "desk"}] * 20):
            assert result.outcome is Outcome.COMPLETED

    assert highest == {"desk": 2, "lookup": 2}
    assert at_work.total() == 0


async def test_no_tool_is_called_for_a_run_that_is_cancelled():
    """A handler that waited for its place has effects of its own, and nobody wants them now."""
    called = []

    async def book(flight: str) -> str:
        """Book a flight."""
        called.append(flight)
        await anyio.sleep(1.0)
        orchestrator.stop("enough", cancel_remote=True)
        await anyio.sleep(1.0)
        return "booked"

    asked = [ToolRequest("book", {"flight": name}) for name in ("first", "second")]
    settings = Settings(rules=[Rule(tool_calls=asked)], cancelling_seconds=5.0)
    thread = {"messages": [{"role": "user", "content": "fly"}]}
    request = {"url": "/v1/threads/runs", "body": {"assistant_id": "asst_1", "thread": thread}}
    client = emulator_client(Emulator(settings))
    async with Orchestrator(client, tools=[book], tools_at_once=1) as orchestrator:
        result = await orchestrator.run(request)

    assert result.outcome is Outcome.STOPPED
    assert called == ["first"]
