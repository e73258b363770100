"""Sends the emulator's webhooks over real HTTP, to this machine only, a few at a time.

Connections are kept and used again: a new one for each of ten thousand webhooks would use up the
machine's ports.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Callable
from math import inf
from typing import NamedTuple
from urllib.parse import urlsplit

import h11

from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.webhook_endpoint import is_loopback
from orchestrator.emulator.webhooks import Delivery

SENDING_MAX = 32

# OpenAI wants an answer "within a few seconds".
TIME_LIMIT_SECONDS = 5.0

# Of what an endpoint answers only the status counts; more than this is not read.
ANSWER_BYTES_MAX = 65_536


class Place(NamedTuple):
    """Where a connection leads."""

    scheme: str
    host: str
    port: int


class Sender:
    """Carries deliveries from the emulator to their endpoints, and answers back.

    `now` is the emulator's clock. `on_delivered` is told whenever one has been answered, or not.
    """

    def __init__(self, emulator: Emulator, now: Callable[[], float]) -> None:
        self._emulator = emulator
        self._now = now
        self.on_delivered: Callable[[], None] = lambda: None
        self._busy = 0
        self._waits_until = inf
        self._woken = asyncio.Event()
        self._idle: defaultdict[Place, list[Connection]] = defaultdict(list)

    def look(self) -> None:
        """Something was called: wake up if it has to be told of sooner than is planned."""
        at = self._emulator.next_delivery_at()
        if at is not None and at < self._waits_until:
            self._woken.set()

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._woken.clear()
                    for delivery in self._due():
                        self._busy += 1
                        group.create_task(self._deliver(delivery))
                    await self._wait()
        finally:
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()

    def _due(self) -> list[Delivery]:
        if self._emulator.next_delivery_at() is None:
            return []
        return self._emulator.deliveries(self._now(), SENDING_MAX - self._busy)

    async def _wait(self) -> None:
        """Until something is to be sent and there is room for it."""
        at = self._emulator.next_delivery_at() if self._busy < SENDING_MAX else None
        self._waits_until = inf if at is None else at
        seconds = None if at is None else max(0.0, at - self._now())
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
        finally:
            self._waits_until = -inf

    async def _deliver(self, delivery: Delivery) -> None:
        status: int | None = None
        try:
            async with asyncio.timeout(TIME_LIMIT_SECONDS):
                status = await self._post(delivery)
        except (OSError, TimeoutError, h11.ProtocolError):
            pass  # no answer
        self._busy -= 1
        self._emulator.delivered(delivery, status, self._now())
        self._woken.set()
        self.on_delivered()

    async def _post(self, delivery: Delivery) -> int:
        parts = urlsplit(delivery.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        place = Place(parts.scheme, parts.hostname or "", port)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"host": parts.netloc.rpartition("@")[2], **delivery.headers}
        idle = self._idle[place]
        while idle:
            connection = idle.pop()
            try:
                return await self._post_on(connection, place, target, headers, delivery.body)
            except (OSError, h11.ProtocolError):
                # It may have been closed while nobody used it; sent twice is better than not.
                continue
        connection = await Connection.open(place)
        return await self._post_on(connection, place, target, headers, delivery.body)

    async def _post_on(
        self,
        connection: "Connection",
        place: Place,
        target: str,
        headers: dict[str, str],
        body: bytes,
    ) -> int:
        is_whole = False
        try:
            status = await connection.post(target, headers, body)
            is_whole = connection.renew()
        finally:
            if is_whole:
                self._idle[place].append(connection)
            else:
                connection.close()
        return status


class Connection:
    """One connection to an endpoint, for one post after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, place: Place) -> "Connection":
        """Connect. Raises OSError, also where the name leads away from this machine."""
        tls = ssl.create_default_context() if place.scheme == "https" else None
        reader, writer = await asyncio.open_connection(place.host, place.port, ssl=tls)
        if not is_loopback(writer.get_extra_info("peername")[0]):
            writer.transport.abort()
            message = f"{place.host} is not this machine"
            raise OSError(message)
        return cls(reader, writer)

    async def post(self, target: str, headers: dict[str, str], body: bytes) -> int:
        """Send one and read the status that it is answered with.

        Raises OSError or h11.ProtocolError when there is no answer.
        """
        headers = {**headers, "content-length": str(len(body))}
        request = h11.Request(method="POST", target=target, headers=list(headers.items()))
        for part in (request, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._http.send(part) or b"")
        await self._writer.drain()
        status, size = 0, 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(ANSWER_BYTES_MAX))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                size += len(event.data)
            if isinstance(event, h11.EndOfMessage) or size > ANSWER_BYTES_MAX:
                return status

    def renew(self) -> bool:
        """Make it ready for the next post; False where it can't be used again."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        return False

    def close(self) -> None:
        """Cut it."""
        self._writer.transport.abort()
