"""The life of an orchestrator: every way into the block, out of it, and through it."""

import asyncio
import gc
from contextlib import aclosing
from contextvars import ContextVar

import anyio
import pytest
from support.emulator_client import emulator_client
from support.fake_server import FakeServer, client_of

from orchestrator import service
from orchestrator.core import invariants
from orchestrator.core.model import Outcome
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings
from orchestrator.errors import (
    DriverBroken,
    ExecutionStopped,
    KeyMissing,
    OrchestratorClosed,
    RequestUnusable,
)
from orchestrator.service import Orchestrator

CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True, scope="module")
def _only_what_is_new():
    """What the other tests hold need not be looked through after each of these."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
async def nothing_is_left():
    """After every test: no task of ours, and nothing that warns when it is collected."""
    before = asyncio.all_tasks()
    yield
    gc.collect()
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}


class World:
    """An emulator, and orchestrators that talk to it."""

    def __init__(self, *rules, run_seconds=1.0, **settings):
        settings = {"queue_seconds": Fixed(0.0), "run_seconds": Fixed(run_seconds), **settings}
        self.emulator = Emulator(Settings(rules=rules, **settings))

    def orchestrator(self, **options):
        options = {"model": "gpt-5-mini", "seed": 1, **options}
        return Orchestrator(emulator_client(self.emulator, latency_seconds=0.01), **options)

    @property
    def runs(self):
        """How the runs stand on the server after an hour and more, by status."""
        return self.emulator.books.snapshot(10**6)["runs"]["by_status"]

    @property
    def created(self):
        return self.emulator.books.snapshot(0)["runs"]["created"]


def ask(text="hello", **more):
    return {"prompt": text, **more}


def asks(number):
    return [ask(f"say {n}", custom_id=f"r{n}") for n in range(number)]


class Boom(Exception):  # noqa: N818 - it is nobody's error but the test's
    pass


async def start(tasks, orchestrator, number, **more):
    """Some runs in flight, in tasks that outlive the block; their fates are collected."""
    fates = []

    async def one(n):
        try:
            fates.append((await orchestrator.run(ask(f"say {n}", **more))).outcome)
        except Exception as error:  # noqa: BLE001 - a fate too
            fates.append(type(error))

    for n in range(number):
        tasks.start_soon(one, n)
    await anyio.sleep(3)
    return fates


HOUR = 3_000.0


@pytest.mark.parametrize("cancel_on_exit", [True, False])
@pytest.mark.parametrize("way", ["end", "exception", "cancelled", "timeout"])
async def test_every_way_out_of_the_block(cancel_on_exit, way):
    """What runs ends as stopped, remote runs are cancelled if asked, errors come as they are."""
    world = World(run_seconds=HOUR)
    boom = Boom("mine")
    fates = []

    async def block():
        nonlocal fates
        async with world.orchestrator(cancel_on_exit=cancel_on_exit) as orchestrator:
            fates = await start(tasks, orchestrator, 5)
            if way == "exception":
                raise boom
            if way != "end":
                await anyio.sleep(10**6)

    async with anyio.create_task_group() as tasks:
        if way == "exception":
            with pytest.raises(Boom) as caught:
                await block()
            assert caught.value is boom
        elif way == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(60):
                    await block()
        elif way == "cancelled":
            with anyio.move_on_after(60) as scope:
                await block()
            assert scope.cancelled_caught
        else:
            await block()

    assert fates == [Outcome.STOPPED] * 5
    assert world.runs == ({"cancelled": 5} if cancel_on_exit else {"completed": 5})


async def test_keyboard_interrupt_in_the_block_comes_out_alone():
    """Ctrl-C is no group of errors, and leaves no task."""
    world = World(run_seconds=HOUR)

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it is the block that is left
        async with world.orchestrator(cancel_on_exit=True) as orchestrator:
            with anyio.move_on_after(3):
                await orchestrator.run(ask())
            raise KeyboardInterrupt

    assert world.runs == {"cancelled": 1}


async def test_a_caller_that_gives_up_cancels_its_run():
    """A timeout around run() ends that run on the server, and no other."""
    world = World(Rule(match="slow", run_seconds=HOUR))

    async with world.orchestrator() as orchestrator:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await orchestrator.run(ask("slow"))
        result = await orchestrator.run(ask("quick"))

    assert result.outcome is Outcome.COMPLETED
    assert world.runs == {"cancelled": 1, "completed": 1}


async def test_a_caller_that_gives_up_a_direct_call_frees_its_connection():
    """What answers at once is cancelled by cutting the call: it must not hold its connection."""
    server = FakeServer(
        lambda request: None if b"hang" in request.content else {"choices": [{"message": {}}]}
    )

    async with Orchestrator(client_of(server), model="m", url=CHAT, connections=1) as orchestrator:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await orchestrator.run(ask("hang"))
        result = await orchestrator.run(ask("quick"))
        now = asyncio.get_running_loop().time()

    assert result.outcome is Outcome.COMPLETED
    assert now < 20
    assert {status: n for (_, status), n in orchestrator.calls.items()} == {
        "cancelled": 3,
        "200": 1,
    }


async def test_a_closed_orchestrator_says_so():
    """Before the block and after it: a clear error, also for the numbers that are not there yet."""
    orchestrator = World().orchestrator()
    for ask_something in (
        lambda: orchestrator.totals,
        lambda: orchestrator.calls,
        lambda: orchestrator.tasks_max,
        lambda: orchestrator.stopped,
        lambda: orchestrator.rpm_of("m"),
        lambda: orchestrator.stop("x"),
    ):
        with pytest.raises(OrchestratorClosed):
            ask_something()
    for _ in range(2):
        with pytest.raises(OrchestratorClosed):
            await orchestrator.run(ask())
        with pytest.raises(OrchestratorClosed):
            await anext(orchestrator.run_many([ask()]))
        async with orchestrator:
            pass
    assert orchestrator.totals.admitted == 0
    orchestrator.stop("after the block there is nothing to stop")


async def test_an_orchestrator_can_be_entered_again_but_not_twice_at_once():
    """The second time it is as new: what stopped the first time is forgotten."""
    world = World(Rule(match="poor", http_status=429, error_code="insufficient_quota"))
    orchestrator = world.orchestrator()
    async with orchestrator:
        with pytest.raises(OrchestratorClosed):
            async with orchestrator:
                pass
        orchestrator.stop("enough")
        assert (await orchestrator.run(ask())).outcome is Outcome.STOPPED

    async with orchestrator:
        assert (await orchestrator.run(ask())).outcome is Outcome.COMPLETED
        with pytest.raises(ExecutionStopped):
            async for _ in orchestrator.run_many([ask("poor")]):
                pass


async def test_two_orchestrators_share_a_client_and_nothing_else():
    """Two blocks in one process: leaving one does not disturb the other."""
    world = World()
    client = emulator_client(world.emulator)
    async with Orchestrator(client, model="m") as one, Orchestrator(client, model="m") as two:
        async with Orchestrator(client, model="m") as three:
            assert (await three.run(ask())).outcome is Outcome.COMPLETED
        results = [r async for r in one.run_many(asks(10))]
        results += [r async for r in two.run_many(asks(10))]

    assert {result.outcome for result in results} == {Outcome.COMPLETED}
    assert not client.is_closed()
    ids = [record.client_request_id for record in world.emulator.books.calls()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("cancelled", [True, False])
async def test_the_client_is_closed_when_it_is_ours(cancelled, monkeypatch):
    """Made by us, closed by us, also when the block is left by cancellation; a given one is not."""
    server = FakeServer(lambda _: {"id": "r", "output": []})
    monkeypatch.setattr(service, "make_client", lambda: client_of(server))
    with anyio.move_on_after(5):
        async with Orchestrator(model="m") as orchestrator:
            await orchestrator.run(ask())
            if cancelled:
                await anyio.sleep(10**6)

    assert server.closed


async def test_no_key_is_told_when_the_block_is_entered(monkeypatch):
    """Nothing was started, and the block can be entered once there is a key."""
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    orchestrator = Orchestrator()

    with pytest.raises(KeyMissing):
        async with orchestrator:
            pass

    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    async with orchestrator:
        pass


# run_many and its sources.


async def consume(orchestrator, source, mistake=None):
    """The custom ids of all results, and the error at their end; `mistake` follows the first."""
    seen = []
    try:
        async for result in orchestrator.run_many(source):
            seen.append(result.custom_id)
            if mistake is not None:
                raise mistake  # noqa: TRY301 - from inside the loop is the point
    except Exception as error:  # noqa: BLE001 - it is looked at
        return sorted(seen), error
    return sorted(seen), None


async def spaced(requests, seconds):
    for request in requests:
        await anyio.sleep(seconds)
        yield request


@pytest.mark.parametrize(
    "source", [iter, list, tuple, lambda r: spaced(r, 0.5), lambda r: spaced(r, 0)]
)
async def test_any_iterable_is_a_source(source):
    """Lists, iterators, and asynchronous ones, slow or not."""
    async with World().orchestrator() as orchestrator:
        seen, error = await consume(orchestrator, source(asks(5)))

    assert (seen, error) == (["r0", "r1", "r2", "r3", "r4"], None)


async def test_a_source_that_breaks_gives_its_results_first():
    """What was read before the error still ends, then the error comes as it is."""
    boom = Boom()

    def source():
        yield from asks(5)
        raise boom

    async with World().orchestrator() as orchestrator:
        assert await consume(orchestrator, source()) == (["r0", "r1", "r2", "r3", "r4"], boom)
        assert (await orchestrator.run(ask())).outcome is Outcome.COMPLETED


async def test_a_bad_request_in_the_middle():
    """The same for a request that can't be used; nothing after it was read."""
    left = iter([*asks(3), {"body": 7}, *asks(3)])

    async with World().orchestrator() as orchestrator:
        seen, error = await consume(orchestrator, left)

    assert seen == ["r0", "r1", "r2"]
    assert isinstance(error, RequestUnusable)
    assert len(list(left)) == 3


@pytest.mark.parametrize("source", [5, None, ask(), [None], [5]])
async def test_what_is_no_source_is_an_error(source):
    """A request instead of a list of them, and other slips of the pen."""
    async with World().orchestrator() as orchestrator:
        seen, error = await consume(orchestrator, source)

    assert seen == []
    assert isinstance(error, TypeError | RequestUnusable)


async def test_a_source_that_awaits_something_cancelled_ends_only_itself():
    """Its CancelledError is an error of the source, and no order to the engine."""

    async def source():
        yield ask()
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with World().orchestrator() as orchestrator:
        with pytest.raises(asyncio.CancelledError):
            async for _ in orchestrator.run_many(source()):
                pass
        assert (await orchestrator.run(ask())).outcome is Outcome.COMPLETED


@pytest.mark.parametrize("cancel_on_exit", [True, False])
@pytest.mark.parametrize("way", ["break", "aclose", "raise", "cancelled"])
async def test_leaving_an_endless_source(cancel_on_exit, way):
    """After the first result nothing more is read, and what was sent is not waited for."""
    world = World(Rule(match="say 0$", run_seconds=1.0), run_seconds=HOUR)
    read = 0

    def source():
        nonlocal read
        while True:
            yield ask(f"say {read}")
            read += 1

    async with world.orchestrator(cancel_on_exit=cancel_on_exit, max_in_flight=10) as orchestrator:
        if way == "break":
            async for _ in orchestrator.run_many(source()):
                break
        elif way == "aclose":
            async with aclosing(orchestrator.run_many(source())) as results:
                await anext(results)
        elif way == "raise":
            _, error = await consume(orchestrator, source(), Boom())
            assert type(error) is Boom
        else:
            with anyio.move_on_after(50):
                async for _ in orchestrator.run_many(source()):
                    pass
        gc.collect()
        await anyio.sleep(60)
        assert orchestrator.totals.in_flight == 0
        assert read <= 12

    assert world.runs.get("cancelled", 0) == (world.created - 1 if cancel_on_exit else 0)


async def test_a_slow_reader_holds_up_the_source():
    """Who fetches no results reads no requests either; then all come."""
    read = 0

    def source():
        nonlocal read
        for request in asks(100):
            read += 1
            yield request

    async with World().orchestrator(max_in_flight=5) as orchestrator:
        results = orchestrator.run_many(source())
        await anext(results)
        await anyio.sleep(1_000)
        # Five wait to be fetched, and what was in flight when the fifth came.
        assert read <= 1 + 5 + 5
        count = 1 + len([result async for result in results])

    assert count == 100


async def test_nothing_is_read_before_there_is_room():
    """The first request that has no place yet is not even taken from the source."""
    read = 0

    def source():
        nonlocal read
        for request in asks(10):
            read += 1
            yield request

    async with (
        World(run_seconds=100.0).orchestrator(max_in_flight=3) as orchestrator,
        aclosing(orchestrator.run_many(source())) as results,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(anext, results)
        await anyio.sleep(50)
        assert read == 3


async def test_several_sources_at_once():
    """Nested and side by side, they share the room and each gets its own results."""
    async with World().orchestrator(max_in_flight=4) as orchestrator:
        pairs = []
        async for outer in orchestrator.run_many(asks(6)):
            inner = [r.custom_id async for r in orchestrator.run_many(asks(3))]
            single = await orchestrator.run(ask(custom_id="one"))
            pairs.append((outer.custom_id, sorted(inner), single.custom_id))
        invariants.check(orchestrator._driver.scheduler)

    assert sorted(pairs) == [(f"r{n}", ["r0", "r1", "r2"], "one") for n in range(6)]


async def test_many_callers_share_the_room():
    """A thousand run() at once with room for three: all end, never more than three in flight."""
    async with World().orchestrator(max_in_flight=3) as orchestrator:
        async with asyncio.TaskGroup() as tasks:
            runs = [tasks.create_task(orchestrator.run(ask(f"say {n}"))) for n in range(100)]
            for caller in runs[50:60]:
                asyncio.get_running_loop().call_later(5, caller.cancel)

        assert orchestrator.totals.in_flight_max == 3
    done = [caller for caller in runs if not caller.cancelled()]
    assert len(done) == 90
    assert all(caller.result().outcome is Outcome.COMPLETED for caller in done)


# stop.


@pytest.mark.parametrize("cancel_remote", [True, False])
async def test_stop_ends_what_runs_and_creates_nothing_more(cancel_remote):
    """The results say `stopped`, later requests too, and nobody waits for ever."""
    world = World(run_seconds=HOUR)

    async with (
        world.orchestrator(max_in_flight=4) as orchestrator,
        anyio.create_task_group() as tasks,
    ):
        fates = await start(tasks, orchestrator, 8)
        orchestrator.stop("enough", cancel_remote=cancel_remote)
        await anyio.sleep(5)
        assert fates == [Outcome.STOPPED] * 8
        late = await orchestrator.run(ask())
        assert (late.outcome, late.error.message) == (Outcome.STOPPED, "enough")
        assert await consume(orchestrator, asks(3)) == ([], None)

    assert world.runs == ({"cancelled": 4} if cancel_remote else {"completed": 4})


async def never(*requests):
    """A source that has something now and then nothing for ever."""
    for request in requests:
        yield request
    await anyio.sleep(10**9)


async def test_stop_does_not_wait_for_a_source_that_has_nothing():
    """A queue may stay empty for ever: the results end all the same."""
    async with World().orchestrator() as orchestrator, anyio.create_task_group() as tasks:
        tasks.start_soon(consume, orchestrator, never())
        tasks.start_soon(consume, orchestrator, never(ask()))
        await anyio.sleep(30)
        orchestrator.stop("enough")
        await anyio.sleep(1)
        assert not orchestrator._desk._readers
        with anyio.fail_after(1):
            assert await consume(orchestrator, never()) == ([], None)


async def test_a_refused_key_does_not_wait_for_the_source():
    """The error comes although the source would have something only in a year."""
    async with World(api_key="another").orchestrator() as orchestrator:
        with anyio.fail_after(10):
            seen, error = await consume(orchestrator, never(ask(custom_id="a")))

    assert seen == ["a"]
    assert isinstance(error, ExecutionStopped)


async def test_a_reader_that_outlives_the_block_is_told():
    """Its source was not read to the end, and that is no quiet end of the results."""
    ends = []

    async def read(orchestrator, source):
        ends.append(await consume(orchestrator, source))

    async with anyio.create_task_group() as tasks, World().orchestrator() as orchestrator:
        tasks.start_soon(read, orchestrator, never(ask(custom_id="a")))
        await anyio.sleep(30)

    ((seen, error),) = ends
    assert seen == ["a"]
    assert isinstance(error, OrchestratorClosed)


# A bug of ours.


def break_it(orchestrator, how):
    """Let something inside raise what it never should."""
    if how == "create":
        orchestrator._driver._caller._checked = lambda *_: 1 / 0
        orchestrator._driver._caller._correct = lambda *_: 1 / 0
        orchestrator._driver._caller._log = None  # so that telling of it fails too
    elif how == "record":
        orchestrator._desk.record = lambda number, result: 1 / 0
    else:
        orchestrator._driver.scheduler.next_due = lambda: 1 / 0


@pytest.mark.parametrize("how", ["create", "record", "loop"])
async def test_when_the_engine_breaks_nobody_hangs(how):
    """Who waits for a result, for room, or for a source is told; the block can be left."""
    ends = []

    async def read(orchestrator, source):
        ends.append((await consume(orchestrator, source))[1])

    async with (
        anyio.create_task_group() as tasks,
        World().orchestrator(max_in_flight=2) as orchestrator,
    ):
        tasks.start_soon(read, orchestrator, never())
        tasks.start_soon(read, orchestrator, iter(asks(5)))
        await anyio.sleep(0.001)
        break_it(orchestrator, how)
        fates = await start(tasks, orchestrator, 5)
        await anyio.sleep(50)
        assert fates == [DriverBroken] * 5
        assert [type(error) for error in ends] == [DriverBroken] * 2
        with pytest.raises(DriverBroken, match="This is a bug"):
            await orchestrator.run(ask())
        with pytest.raises(DriverBroken):
            await anext(orchestrator.run_many([ask()]))


async def test_a_bug_in_one_answer_ends_one_request():
    """What a family can't digest fails that request; the engine goes on."""
    async with World().orchestrator() as orchestrator:
        apis = orchestrator._driver._caller._apis

        class Broken:
            async def create(self, action):
                if "bad" in action.request.body.read().decode():
                    raise Boom
                return await real.create(action)

            def __getattr__(self, name):
                return getattr(real, name)

        family, real = next(iter(apis.items()))
        orchestrator._driver._caller._apis = {**apis, family: Broken()}
        bad = await orchestrator.run(ask("bad"))
        good = await orchestrator.run(ask("good"))

    assert (bad.outcome, bad.error.code) == (Outcome.FAILED, "internal_error")
    assert good.outcome is Outcome.COMPLETED


async def test_a_callback_that_raises_costs_no_answer():
    """on_call is told; its mistake is its own."""
    told = []

    def on_call(record):
        told.append(record)
        raise Boom

    async with World().orchestrator(on_call=on_call) as orchestrator:
        result = await orchestrator.run(ask())

    assert result.outcome is Outcome.COMPLETED
    assert len(told) == orchestrator.calls.total()


# Tools.

ASK_DESK = Rule(match="desk", tool_calls=[ToolRequest("desk", {"question": "deep"})])
LOOKUP = Rule(match="deep", tool_calls=[ToolRequest("lookup", {"order_id": "O-1"})])


async def test_a_tool_that_runs_requests_itself():
    """One connection, one place for tools, one in flight: nested runs and their tools still end."""

    async def desk(question: str) -> str:
        """Ask the desk."""
        single = await orchestrator.run(ask(question))
        many = [r.outcome async for r in orchestrator.run_many([ask("deep a"), ask("deep b")])]
        return " ".join([single.outcome, *many])

    def lookup(order_id: str) -> str:
        """Look up an order."""
        return f"{order_id} is on its way"

    async def lookup_async(order_id: str) -> str:
        """Look up an order."""
        return lookup(order_id)

    lookup_async.__name__ = "lookup"
    world = World(ASK_DESK, LOOKUP)
    bounds = {"connections": 1, "tools_at_once": 1, "max_in_flight": 1}
    async with world.orchestrator(tools=[desk, lookup_async], **bounds) as orchestrator:
        async with asyncio.timeout(600):
            results = [r async for r in orchestrator.run_many([ask("desk")] * 4)]

    assert [result.outcome for result in results] == [Outcome.COMPLETED] * 4
    assert all(b"completed completed completed" in result.answer.body for result in results)
    assert world.created == 2 * (4 + 4 * 3)


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), BaseException("odd"), asyncio.CancelledError()]
)
async def test_a_tool_that_raises_anything_tells_the_model(error):
    """The run goes on, whatever the handler throws."""

    async def lookup(order_id: str) -> str:
        """Look up an order."""
        raise error

    async with World(LOOKUP).orchestrator(tools=[lookup]) as orchestrator:
        result = await orchestrator.run(ask("deep"))

    assert (result.outcome, result.turns) == (Outcome.COMPLETED, 1)
    assert type(error).__name__.encode() in result.answer.body


WHO = ContextVar("who", default="nobody")


async def test_a_tool_does_not_see_the_context_of_another():
    """Handlers start in the context in which the block was entered, and leave no trace in it."""
    seen = []

    async def lookup(order_id: str) -> str:
        """Look up an order."""
        seen.append(WHO.get())
        WHO.set("a handler before")
        return "ok"

    WHO.set("the block")
    async with World(LOOKUP).orchestrator(tools=[lookup], tools_at_once=1) as orchestrator:
        WHO.set("a caller")
        async for _ in orchestrator.run_many([ask("deep")] * 5):
            pass

    assert seen == ["the block"] * 5
