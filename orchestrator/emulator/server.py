"""The HTTP around the emulator: an ASGI application, and uvicorn's parser on a loopback socket.

uvicorn's own Server is not used: it takes over signals, wakes ten times a second and needs a
tenth of a second to stop. Its protocol class alone does all that is needed here.
"""

import asyncio
import errno
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from math import inf
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from orchestrator.emulator.calls import Call, Feed, Later, Reply, parse_query
from orchestrator.emulator.creates import Created
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.webhook_endpoint import is_loopback
from orchestrator.emulator.webhook_sender import Sender

Clock = Callable[[], float]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# How the application asks its server to cut a connection, now or when the next call on it begins;
# ASGI itself has no words for it.
DROP = "emulator.drop"
RESET_NEXT = "emulator.reset_next"

# How it says that the whole answer about something that was created has gone out.
DELIVERED = "emulator.delivered"

# Closing with this option set (on, after 0 seconds) is a reset: the caller sees ECONNRESET.
LINGER_NOT = struct.pack("ii", 1, 0)

# Kept-alive connections are closed by the client, not by us, unless they are silent this long.
KEEP_ALIVE_SECONDS = 75

# Connections that may wait to be accepted, for clients that open very many at once.
BACKLOG = 2048


class ConnectionDropped(Exception):  # noqa: N818 - it plays a fault, it is none
    """The connection would be cut here, and whoever carries this call has no way to cut it."""


def unix_now() -> float:
    """Unix seconds, to start an emulator whose times look like today's."""
    return time.time()  # noqa: TID251 - the emulator imports nothing of ours, the Clock neither


class Application:
    """The emulator as an ASGI application: reads the body, waits the delay, answers.

    `clock` gives the emulator's time in seconds; without one it starts at 0 with the first call
    and follows the running loop. `on_call` is told that a call was handled, which may be what
    webhooks are sent for; they are the affair of whoever carries them.
    """

    def __init__(
        self,
        emulator: Emulator,
        clock: Clock | None = None,
        on_call: Callable[[], None] = lambda: None,
    ) -> None:
        self._emulator = emulator
        self._clock = clock
        self._on_call = on_call
        self._naps: set[asyncio.Future[None]] = set()
        self._news: set[asyncio.Future[None]] = set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one call."""
        if scope["type"] != "http":
            message = f"the emulator speaks only http, not {scope['type']}"
            raise RuntimeError(message)
        body = await _read_body(receive)
        if body is None:
            return
        reply = self._emulator.handle(_call(scope, body), self._now())
        self.look()  # any call may be what a stream waits for
        self._on_call()
        if reply.later is not None:
            settled = await self._settled(reply.later, receive)
            if settled is None:
                return
            reply = replace(settled, headers={**settled.headers, **reply.headers})
        if reply.delay_seconds > 0:
            await self._nap(reply.delay_seconds)
        if reply.drop:
            await _drop(scope, receive)
            return
        if reply.feed is not None:
            if await self._feed(reply, reply.feed, receive, send):
                _delivered(scope, reply)
            return
        await _send(send, reply)
        _delivered(scope, reply)
        if reply.reset:
            _reset_next(scope)

    async def _feed(self, reply: Reply, feed: Feed, receive: Receive, send: Send) -> bool:
        """Send the feed's pieces as they come, until it is over (True) or nobody reads."""
        loop = asyncio.get_running_loop()
        leaving = loop.create_task(_left(receive))
        try:
            await send(_start(reply))
            while not leaving.done():
                for piece in feed.take(self._now()):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                if feed.over:
                    await send({"type": "http.response.body", "body": b""})
                    return True
                await self._news_or_left(feed.next_at(), leaving)
            return False
        finally:
            feed.close()
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving

    async def _settled(self, later: Later, receive: Receive) -> Reply | None:
        """The answer as soon as it is known; None when the caller left before."""
        leaving = asyncio.get_running_loop().create_task(_left(receive))
        try:
            while (reply := later.take(self._now())) is None and not leaving.done():
                await self._news_or_left(later.next_at(), leaving)
            return reply
        finally:
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving

    async def _news_or_left(self, at: float, leaving: asyncio.Task[None]) -> None:
        news = asyncio.get_running_loop().create_future()
        self._news.add(news)
        seconds = None if at == inf else max(0.0, at - self._now())
        try:
            await asyncio.wait(
                {news, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            self._news.discard(news)

    def look(self) -> None:
        """Something has happened: let everybody who waits for that look."""
        for waiting in self._news:
            _wake(waiting)

    def wake_all(self) -> None:
        """End every delay now, so that a server can stop although calls wait for an hour."""
        for nap in self._naps:
            _wake(nap)

    def _now(self) -> float:
        if self._clock is None:
            self._clock = loop_clock()
        return self._clock()

    async def _nap(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        nap = loop.create_future()
        timer = loop.call_later(seconds, _wake, nap)
        self._naps.add(nap)
        try:
            await nap
        finally:
            timer.cancel()
            self._naps.discard(nap)


def loop_clock() -> Clock:
    """Seconds of the running loop, counted from now."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    return lambda: loop.time() - started


def _wake(nap: asyncio.Future[None]) -> None:
    if not nap.done():
        nap.set_result(None)


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body, or None when the caller left before it was there."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _call(scope: MutableMapping[str, Any], body: bytes) -> Call:
    query = scope.get("query_string", b"")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return Call(scope["method"], scope["path"], parse_query(query.decode("latin-1")), headers, body)


async def _send(send: Send, reply: Reply) -> None:
    await send(_start(reply))
    await send({"type": "http.response.body", "body": reply.body})


def _start(reply: Reply) -> Message:
    headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()
    ]
    if reply.feed is None:
        headers.append((b"content-length", str(len(reply.body)).encode()))
    return {"type": "http.response.start", "status": reply.status, "headers": headers}


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drop(scope: MutableMapping[str, Any], receive: Receive) -> None:
    cut = (scope.get("extensions") or {}).get(DROP)
    if cut is None:
        message = f"{scope['method']} {scope['path']}"
        raise ConnectionDropped(message)
    cut()
    # The server must have seen the end before we return: else it answers for us, with a 500.
    await _left(receive)


def _delivered(scope: MutableMapping[str, Any], reply: Reply) -> None:
    """Note that the answer has gone out. Without a connection nobody can know better."""
    if reply.created is None:
        return
    tell = (scope.get("extensions") or {}).get(DELIVERED)
    if tell is None:
        reply.created.delivered = True
    else:
        tell(reply.created)


def _reset_next(scope: MutableMapping[str, Any]) -> None:
    reset = (scope.get("extensions") or {}).get(RESET_NEXT)
    if reset is not None:  # without a connection nothing is to be reset
        reset()


class _CuttableProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with ways for the application to cut the connection.

    It knows more of an answer than that it went out: a caller that dies with the answer unread
    resets the connection, and one that sends its next call has read it.
    """

    _doomed = False
    _unread: Created | None = None

    def data_received(self, data: bytes) -> None:
        self._unread = None
        if self._doomed:
            # Closed at once, a good client would see it and open another connection unharmed.
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            self.transport.abort()
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {
            DROP: self.transport.abort,  # type: ignore[dict-item]  # ours
            RESET_NEXT: self._reset_next,  # type: ignore[dict-item]  # ours
            DELIVERED: self._delivered,  # type: ignore[dict-item]  # ours
        }

    def connection_lost(self, exc: Exception | None) -> None:
        if self._unread is not None and exc is not None:
            self._unread.delivered = False
        super().connection_lost(exc)

    def _delivered(self, created: Created) -> None:
        if not self.transport.is_closing():
            created.delivered = True
            self._unread = created

    def _reset_next(self) -> None:
        self._doomed = True


@asynccontextmanager
async def serve(
    emulator: Emulator, *, host: str = "127.0.0.1", port: int = 0, clock: Clock | None = None
) -> AsyncIterator[str]:
    """Serve on loopback inside the running loop; gives the base url, `http://127.0.0.1:PORT/v1`.

    Webhooks are sent meanwhile. Port 0 takes a free one. Leaving the block cuts every connection
    and leaves no task behind; signals are not touched. Raises EmulatorMistake when the host is not
    loopback or the port is taken.
    """
    _refuse_other_than_loopback(host)
    clock = clock or loop_clock()
    sender = Sender(emulator, clock)
    application = Application(emulator, clock, sender.look)
    sender.on_delivered = application.look
    config = Config(
        application,
        http=_CuttableProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    config.load()
    connections = ServerState()
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            lambda: _CuttableProtocol(config, connections, {}), host, port, backlog=BACKLOG
        )
    except OSError as error:
        raise _port_mistake(port, error) from error
    sending = loop.create_task(sender.run())
    try:
        yield _url_of(server.sockets[0])
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        server.close()
        for connection in list(connections.connections):
            connection.transport.abort()
        application.wake_all()
        while connections.tasks:
            await asyncio.wait(connections.tasks)
        await server.wait_closed()


def serve_forever(
    emulator: Emulator, port: int, announce: Callable[[str], None] = lambda _: None
) -> int:
    """Serve on loopback until SIGINT or SIGTERM; gives the number of calls that were served.

    `announce` is told the base url once calls can come in. Raises EmulatorMistake when the port is
    taken.
    """

    async def until_stopped() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows; there Ctrl-C is a KeyboardInterrupt
                loop.add_signal_handler(number, stopped.set)
        async with serve(emulator, port=port) as base_url:
            announce(base_url)
            await stopped.wait()

    with suppress(KeyboardInterrupt):
        asyncio.run(until_stopped())
    return emulator.books.calls_served


def _refuse_other_than_loopback(host: str) -> None:
    if not is_loopback(host):
        message = f"the emulator binds to loopback only, not to {host!r}; use 127.0.0.1"
        raise EmulatorMistake(message)


def _port_mistake(port: int, error: OSError) -> EmulatorMistake:
    if error.errno == errno.EADDRINUSE:
        return EmulatorMistake(f"port {port} is in use; choose another one, 0 takes a free one")
    return EmulatorMistake(f"port {port} can't be used ({error.strerror or error})")


def _url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
