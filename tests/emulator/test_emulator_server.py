"""The emulator over a real socket, and the ASGI application without one."""

import asyncio
import time

import httpx2
import openai
import pytest
from support.emulator_client import ThreadlessOpenAI

from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.rules import Rule
from orchestrator.emulator.server import Application, ConnectionDropped, serve
from orchestrator.emulator.settings import Settings

QUICK = {"queue_seconds": Fixed(0), "run_seconds": Fixed(0)}


def client_of(base_url, **options):
    return ThreadlessOpenAI(api_key="any", base_url=base_url, max_retries=0, **options)


@pytest.mark.real_time
async def test_openais_client_talks_to_it_over_a_socket():
    """A background response and a large body, over real HTTP, on one kept-alive connection."""
    emulator = Emulator(Settings(**QUICK))
    async with serve(emulator) as base_url, client_of(base_url) as client:
        created = await client.responses.create(model="m", input="x" * 300_000, background=True)
        response = await client.responses.retrieve(created.id)
        async with httpx2.AsyncClient() as browser:
            books = (await browser.get(base_url.removesuffix("v1") + "emulator/books")).json()

    assert response.output_text == "x" * 300_000
    assert books["calls"]["POST /v1/responses"] == {"200": 1}
    assert books["creates"] == emulator.books.snapshot(0)["creates"]


@pytest.mark.real_time
async def test_a_drop_is_a_lost_connection_over_a_socket():
    """The client sees the connection die; the next call works, on a new connection."""
    settings = Settings(**QUICK, faults={"drop_after": 0.5}, seed=1)
    lost, answered = 0, 0
    emulator = Emulator(settings)
    async with serve(emulator) as base_url, client_of(base_url) as client:
        for number in range(20):
            try:
                await client.embeddings.create(model="m", input=str(number))
            except openai.APIConnectionError:
                lost += 1
            else:
                answered += 1

    counts = emulator.books.snapshot(0)["calls"]["POST /v1/embeddings"]
    assert counts == {"200": answered, "dropped_after": lost}
    assert lost > 0
    assert answered > 0


@pytest.mark.real_time
async def test_stopping_cuts_what_hangs_and_leaves_no_task():
    """A server with a call that would take an hour stops at once."""
    before, arrived = asyncio.all_tasks(), asyncio.Event()

    def clock():
        arrived.set()
        return 0.0

    emulator = Emulator(Settings(faults={"hang": 1.0}))
    async with asyncio.timeout(5):
        async with serve(emulator, clock=clock) as base_url, client_of(base_url) as client:
            hanging = asyncio.create_task(client.embeddings.create(model="m", input="x"))
            await arrived.wait()
        with pytest.raises(openai.APIConnectionError):
            await hanging

    assert asyncio.all_tasks() <= before


@pytest.mark.real_time
async def test_a_taken_port_is_told():
    """The second server on a port is refused with the port's number."""
    async with serve(Emulator()) as base_url:
        port = int(base_url.split(":")[2].removesuffix("/v1"))
        with pytest.raises(EmulatorMistake, match=f"port {port} is in use"):
            async with serve(Emulator(), port=port):
                pass


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "example.org", ""])  # noqa: S104 - refused
async def test_only_loopback_is_served(host):
    """Any other address is refused before anything is bound."""
    with pytest.raises(EmulatorMistake, match="loopback only"):
        async with serve(Emulator(), host=host):
            pass


def in_memory(emulator, **options):
    transport = httpx2.ASGITransport(Application(emulator, **options))
    return client_of("http://emulator.test/v1", http_client=httpx2.AsyncClient(transport=transport))


async def test_the_application_works_without_a_server():
    """Any in-memory ASGI transport will do, also in virtual time."""
    loop = asyncio.get_running_loop()
    client = in_memory(Emulator(Settings(run_seconds=Fixed(500))))
    started, real_started = loop.time(), time.perf_counter()

    said = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}]
    )

    assert said.choices[0].message.content == "hi"
    assert loop.time() - started == pytest.approx(500, abs=0.1)
    assert time.perf_counter() - real_started < 5


async def test_a_drop_without_a_server_is_an_exception():
    """Where nobody can cut a connection, the drop is raised as itself."""
    client = in_memory(Emulator(Settings(faults={"drop_before": 1.0})))

    with pytest.raises(ConnectionDropped, match="GET /v1/models"):
        await client.models.list()


async def test_the_clock_can_be_given():
    """Times are what the given clock says."""
    client = in_memory(Emulator(Settings(epoch=1000, rules=[Rule(run_seconds=0)])), clock=lambda: 7)

    response = await client.responses.create(model="m", input="x", background=True)

    assert response.created_at == 1007
