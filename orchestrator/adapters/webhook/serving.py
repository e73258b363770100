"""Serves the webhook application by ourselves, inside the engine's loop, where no service does.

uvicorn's own Server is not used: it takes over the signals, which are the engine's, and wakes ten
times a second. Its protocol class is, with the limits that it leaves to a proxy in front.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from orchestrator.adapters.webhook.receiver import BODY_BYTES_MAX
from orchestrator.errors import WebhookAddressUnusable

# Until the headers of a call are there, and between two calls.
HEAD_SECONDS_MAX = 10.0
IDLE_SECONDS_MAX = 30

# What may come before the headers end. h11 allows as much; senders need a few hundred bytes.
HEAD_BYTES_MAX = 64 * 1024

# Of a whole call. Framing and trailers count: the parser keeps trailers, and the app sees none.
MESSAGE_BYTES_MAX = HEAD_BYTES_MAX + 2 * BODY_BYTES_MAX

# Any more are cut at once: the sender tries again. A process has 1,024 descriptors unless it is
# told otherwise, and the engine's own connections, its journal and its results need some. In one
# turn the loop accepts as many as the backlog holds, and it takes a few turns to cut them.
CONNECTIONS_MAX = 256
BACKLOG = 128

PORT_MAX = 65_535

# uvicorn warns of each stranger's broken call; whoever scans the internet would fill stderr.
_silence = logging.getLogger("orchestrator.webhooks.uvicorn")
_silence.setLevel(logging.CRITICAL + 1)


class _Connections(ServerState):
    """Those that are open; none is let in after the end."""

    is_over = False


class _BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with limits for callers that never come to the point."""

    server_state: _Connections
    _message_bytes = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self.logger = self.access_logger = _silence
        self.access_log = False
        super().connection_made(transport)
        if self.server_state.is_over or len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if not self._in_head and self.cycle.response_complete:
            # A line break before the next call ends the idle time, and begins no call.
            self._in_head, self._message_bytes = True, 0
        self._message_bytes += len(data)
        super().data_received(data)
        if self._message_bytes > (HEAD_BYTES_MAX if self._in_head else MESSAGE_BYTES_MAX):
            self.transport.abort()
        elif self._in_head and self._head_timer is None:
            self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._in_head:  # a further call on this connection
            self._in_head, self._message_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._end_head_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head_timer()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self.transport.abort)

    def _end_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


@asynccontextmanager
async def serve_webhooks(app: ASGIApp, host: str, port: int) -> AsyncIterator[str]:
    """Serve inside the running loop until the block is left; gives `http://HOST:PORT/`.

    Leaving the block cuts what is open: whoever got no answer tries again. Signals are not touched.

    Args:
        app: The webhook application, or any other.
        host: The address to bind; who may reach it is the caller's affair.
        port: From 0 to 65535; 0 takes a free one.

    Raises:
        WebhookAddressUnusable: It is taken, or none of this machine's.
    """
    if not 0 <= port <= PORT_MAX:
        problem = f"a port is a number from 0 to {PORT_MAX}"
        raise WebhookAddressUnusable(host=host, port=port, problem=problem)
    config = Config(
        app,
        http=_BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=IDLE_SECONDS_MAX,
    )
    config.load()
    connections = _Connections()
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            lambda: _BoundedProtocol(config, connections, {}), host, port, backlog=BACKLOG
        )
    except (OSError, UnicodeError) as error:
        problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise WebhookAddressUnusable(host=host, port=port, problem=problem) from None
    try:
        yield _url_of(server.sockets[0])
    finally:
        server.close()
        connections.is_over = True  # some may be accepted and not made yet
        for connection in list(connections.connections):
            connection.transport.abort()
        with anyio.CancelScope(shield=True):  # they end at once, and before whatever they told
            while connections.tasks:
                await asyncio.wait(connections.tasks)
            await server.wait_closed()


async def refuse_address(host: str, port: int) -> None:
    """Find out whether webhooks can be served there, before anything else is begun.

    Raises:
        WebhookAddressUnusable: They can't.
    """
    async with serve_webhooks(_no_app, host, port):
        pass


async def _no_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Takes nothing: whoever calls now is cut off, and tries again."""


def _url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
