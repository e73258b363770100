"""The emulator without sockets, in virtual time: an HTTP transport, and OpenAI's client on it."""

import asyncio
import json
from contextlib import suppress

import httpx2
import openai

from orchestrator.emulator.calls import Call, Reply
from orchestrator.emulator.emulator import Emulator
from support.webhook_carrier import carry

BASE_URL = "http://emulator.test/v1"


class EmulatorTransport(httpx2.AsyncBaseTransport):
    """Hands requests to `Emulator.handle`; time is the running loop's.

    `latency_seconds` passes before a request arrives and again before its answer does, so limits
    are judged at arrival. A dropped connection is a RemoteProtocolError, as httpx2 has it when a
    server goes away without an answer.
    """

    def __init__(self, emulator: Emulator, *, latency_seconds: float = 0.0) -> None:
        self.emulator = emulator
        self.latency_seconds = latency_seconds
        self.open_calls = 0
        self.open_calls_max = 0
        self.streams: set[FeedStream] = set()
        self.on_webhook = lambda delivery: 200

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.open_calls += 1
        self.open_calls_max = max(self.open_calls_max, self.open_calls)
        try:
            return await self._exchange(request)
        finally:
            self.open_calls -= 1

    async def _exchange(self, request: httpx2.Request) -> httpx2.Response:
        call = Call(
            method=request.method,
            path=request.url.path,
            query=dict(request.url.params),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.aread(),
        )
        await self._pass(request, self.latency_seconds)
        reply = self.emulator.handle(call, asyncio.get_running_loop().time())
        for stream in self.streams:
            stream.look()
        if reply.later is not None:
            reply = self._settled(reply)
        await self._pass(request, reply.delay_seconds + self.latency_seconds)
        if reply.drop:
            message = "Server disconnected without sending a response."
            raise httpx2.RemoteProtocolError(message, request=request)
        if reply.feed is not None:
            stream = FeedStream(reply, self.streams)
            headers = dict(reply.headers)
            return httpx2.Response(reply.status, headers=headers, stream=stream, request=request)
        if reply.created is not None:
            reply.created.delivered = True
        return httpx2.Response(
            reply.status, headers=dict(reply.headers), content=reply.body, request=request
        )

    def _settled(self, reply: Reply) -> Reply:
        """What a call is answered that waits for a webhook: it is delivered meanwhile."""
        now = asyncio.get_running_loop().time()
        carry(self.emulator, now, self.on_webhook)
        settled = reply.later.take(now)
        return settled or reply.later.take(reply.later.next_at())

    async def _pass(self, request: httpx2.Request, seconds: float) -> None:
        """Let time pass, but no longer than the request's read timeout."""
        timeout = request.extensions.get("timeout", {}).get("read")
        if timeout is not None and seconds > timeout:
            await asyncio.sleep(timeout)
            message = "The read operation timed out"
            raise httpx2.ReadTimeout(message, request=request)
        if seconds > 0:
            await asyncio.sleep(seconds)


class FeedStream(httpx2.AsyncByteStream):
    """A reply's feed as a body: its pieces come when their time has come or another call did it."""

    def __init__(self, reply, streams) -> None:
        self._feed = reply.feed
        self._created = reply.created
        self._streams = streams
        self._news = asyncio.Event()
        streams.add(self)

    def look(self) -> None:
        self._news.set()

    async def __aiter__(self):
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            for piece in self._feed.take(loop.time()):
                yield piece
            if self._feed.over:
                if self._created is not None:
                    self._created.delivered = True
                return
            at = self._feed.next_at()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if at == float("inf") else at):
                    await self._news.wait()

    async def aclose(self) -> None:
        self._feed.close()
        self._streams.discard(self)


class ThreadlessOpenAI(openai.AsyncOpenAI):
    """OpenAI's client without the worker thread in which it looks up the operating system.

    It does that once, before its first call, and waiting for a thread is a deadlock in virtual
    time (or, when the thread is quick, isn't: a test would fail now and then).
    """

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self._platform = "Unknown"


def emulator_client(
    emulator: Emulator, *, latency_seconds: float = 0.0, **options: object
) -> openai.AsyncOpenAI:
    """OpenAI's own client, talking to this emulator in virtual time; retries are off."""
    transport = EmulatorTransport(emulator, latency_seconds=latency_seconds)
    settings = {"api_key": "any", "base_url": BASE_URL, "max_retries": 0, **options}
    return ThreadlessOpenAI(http_client=httpx2.AsyncClient(transport=transport), **settings)


def call_of(method, path, body=None, *, key="any", headers=()) -> Call:
    """A call as a client would send it; a body that is no bytes goes out as JSON."""
    sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    path, _, query = path.partition("?")
    pairs = dict(pair.split("=") for pair in query.split("&") if pair)
    return Call(method, path, pairs, {"authorization": f"Bearer {key}", **dict(headers)}, sent)


def post(emulator: Emulator, path, body=None, *, now=0.0, **options) -> Reply:
    """The emulator's reply to a POST."""
    return emulator.handle(call_of("POST", path, body, **options), now)


def get(emulator: Emulator, path, *, now=0.0, **options) -> Reply:
    """The emulator's reply to a GET."""
    return emulator.handle(call_of("GET", path, **options), now)


def content(reply: Reply):
    """What the reply's body says."""
    return json.loads(reply.body)
