"""Webhooks over real sockets: they reach whoever listens on this machine, and nobody else."""

import asyncio
from contextlib import asynccontextmanager

import httpx2
import pytest
from support.emulator_client import ThreadlessOpenAI
from support.webhook_carrier import SECRET

from orchestrator.emulator import webhook_sender
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.server import serve, unix_now
from orchestrator.emulator.settings import Settings

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Listener:
    """A small server by hand: notes each post, and answers with these bytes, or closes on None."""

    def __init__(self, *answers):
        self.answers = answers
        self.posts = []
        self.connections = 0
        self.news = asyncio.Event()

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines[1:] if line)
                body = await reader.readexactly(int(headers["content-length"]))
                answer = self.answers[min(len(self.posts), len(self.answers) - 1)]
                self.posts.append((lines[0], headers, body))
                self.news.set()
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        writer.close()

    async def count(self, posts):
        """Wait until so many have arrived."""
        async with asyncio.timeout(5):
            while len(self.posts) < posts:
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def listening(*answers):
    listener = Listener(*answers)
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield listener, f"http://127.0.0.1:{port}/hook?a=b"
    finally:
        server.close()


class ToldEmulator(Emulator):
    """Says when it was told what came of its deliveries."""

    def __init__(self, settings):
        super().__init__(settings)
        self.news = asyncio.Event()

    def delivered(self, delivery, status, now):
        super().delivered(delivery, status, now)
        self.news.set()

    async def until_over(self, count):
        """Wait until so many events have been heard or given up."""
        async with asyncio.timeout(5):
            while sum(one["over"] for one in self.books.webhooks.page(0, 99)) < count:
                self.news.clear()
                await self.news.wait()


def told(url, **settings):
    timing = {"queue_seconds": Fixed(0), "run_seconds": Fixed(0.01), "epoch": unix_now()}
    hooked = {"webhook_url": url, "webhook_secret": SECRET, "webhook_retry_seconds": 0.01}
    return ToldEmulator(Settings(**{**timing, **hooked, **settings}))


async def run_some(base_url, count):
    async with ThreadlessOpenAI(api_key="any", base_url=base_url, max_retries=0) as client:
        runs = [
            await client.responses.create(model="m", input=f"x{n}", background=True)
            for n in range(count)
        ]
    return {run.id for run in runs}


@pytest.mark.real_time
async def test_events_reach_a_server_over_a_socket():
    """Each end arrives soon after it came, signed, over few connections that are kept."""
    async with listening(OK) as (listener, url), serve(emulator := told(url)) as base_url:
        ids = await run_some(base_url, 20)
        await emulator.until_over(20)
    client = ThreadlessOpenAI(api_key="any", webhook_secret=SECRET)
    events = [client.webhooks.unwrap(body, headers) for _, headers, body in listener.posts]

    assert {event.data.id for event in events} == ids
    assert {line for line, _, _ in listener.posts} == {"POST /hook?a=b HTTP/1.1"}
    assert listener.connections < 20
    assert emulator.books.webhooks.counts == {"sent": 20, "answered": 20}


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 307 There\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_tried_again(answer):
    """A closed connection, nonsense, a refusal and a redirect: the next attempt is heard."""
    async with listening(answer, OK) as (listener, url), serve(emulator := told(url)) as base_url:
        await run_some(base_url, 1)
        await emulator.until_over(1)
    (one,) = emulator.books.webhooks.page(0, 9)

    assert (one["attempts"], one["status"]) == (2, 200)
    assert len({headers["webhook-id"] for _, headers, _ in listener.posts}) == 1


@pytest.mark.slow
@pytest.mark.real_time
async def test_a_connection_that_was_closed_meanwhile_is_no_failure():
    """What goes out on a connection that the other side has left goes out again at once."""
    async with listening(OK, None, OK) as (listener, url), serve(emulator := told(url)) as base_url:
        await run_some(base_url, 1)
        await emulator.until_over(1)
        await run_some(base_url, 1)
        await emulator.until_over(2)

    assert emulator.books.webhooks.counts == {"sent": 2, "answered": 2}
    assert len(listener.posts) == 3


@pytest.mark.slow
@pytest.mark.real_time
async def test_an_endpoint_that_says_nothing_holds_up_nobody(monkeypatch):
    """A delivery has a time limit; the others go out beside it."""
    monkeypatch.setattr(webhook_sender, "TIME_LIMIT_SECONDS", 0.05)
    async with listening(b"", OK) as (listener, url), serve(emulator := told(url)) as base_url:
        await run_some(base_url, 2)
        await emulator.until_over(2)

    assert len(listener.posts) == 3
    assert emulator.books.webhooks.counts["unanswered"] == 1
    assert emulator.books.webhooks.counts["answered"] == 2


@pytest.mark.slow
@pytest.mark.real_time
async def test_a_test_event_over_a_socket():
    """The call waits for what the endpoint answers, and fails soon where nobody listens."""
    async with listening(OK) as (_, url), serve(told(url)) as base_url:
        async with ThreadlessOpenAI(api_key="any", base_url=base_url, max_retries=0) as client:
            (endpoint,) = (await client.webhooks.list()).data
            answered = await client.webhooks.test(endpoint.id, event_type="batch.expired")
        async with httpx2.AsyncClient(headers={"authorization": "Bearer any"}) as plain:
            place = f"{base_url}/webhook_endpoints/{endpoint.id}"
            await plain.post(place, json={"url": "http://127.0.0.1:1/"})
            refused = await plain.post(f"{place}/test", json={"event_type": "batch.expired"})

    assert answered.status_code == 200
    assert refused.status_code == 400
    assert refused.headers["x-request-id"]
    assert "could not be delivered" in refused.json()["error"]["message"]


@pytest.mark.slow
@pytest.mark.real_time
async def test_stopping_leaves_no_task_and_no_connection():
    """A server that stops in the middle of a delivery stops at once."""
    before = asyncio.all_tasks()
    async with listening(b"") as (listener, url):
        inside = asyncio.all_tasks()
        async with asyncio.timeout(2), serve(told(url)) as base_url:
            await run_some(base_url, 3)
            await listener.count(1)
        left = {task for task in asyncio.all_tasks() - inside if "serve" not in repr(task)}

    assert left == set()
    assert before <= inside
