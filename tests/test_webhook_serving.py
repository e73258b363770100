"""Webhooks are served on a real socket inside the engine's loop, strangers within limits."""

import asyncio
import logging
import socket
from contextlib import suppress

import httpx2
import pytest
from support.webhooks import SECRET, Log, body_of, headers_of

from orchestrator.adapters.webhook import serving
from orchestrator.adapters.webhook.app import webhook_app
from orchestrator.adapters.webhook.receiver import BODY_BYTES_MAX, Receiver
from orchestrator.adapters.webhook.serving import HEAD_BYTES_MAX, serve_webhooks
from orchestrator.apis.webhook_signature import verifier
from orchestrator.errors import WebhookAddressUnusable

pytestmark = pytest.mark.real_time

VERIFY = verifier([SECRET])


class Receiving:
    def __init__(self):
        self.events = []
        self.receiver = Receiver(verify=VERIFY, on_event=self.events.append, log=Log())
        self.app = webhook_app(self.receiver)


async def exchanged(url, *pieces):
    """What comes back until the connection is closed; b"" when it is reset."""
    parts = httpx2.URL(url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_an_event_over_a_real_connection():
    """The real address is given, calls on one connection are answered, other methods too."""
    receiving = Receiving()
    async with (
        serve_webhooks(receiving.app, "127.0.0.1", 0) as url,
        httpx2.AsyncClient(trust_env=False) as client,
    ):
        for number in range(3):
            body = body_of(f"resp_{number}")
            answer = await client.post(
                url + "openai", content=body, headers=headers_of(body, f"wh_{number}")
            )
            assert (answer.status_code, answer.text) == (200, "accepted\n")
        assert (await client.get(url)).status_code == 405
    assert [event.run_id for event in receiving.events] == ["resp_0", "resp_1", "resp_2"]
    assert receiving.receiver.counts["accepted"] == 3


async def test_the_address_is_free_afterwards():
    """Leaving the block cuts what is open and leaves neither a task nor the port behind."""
    receiving = Receiving()
    async with serve_webhooks(receiving.app, "127.0.0.1", 0) as url:
        port = httpx2.URL(url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab")
        while len(asyncio.all_tasks()) == 1:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
    with suppress(ConnectionError):
        assert await reader.read() == b""  # an end is as good as a reset
    writer.close()
    async with serve_webhooks(receiving.app, "127.0.0.1", port):
        pass


@pytest.mark.parametrize(
    ("host", "port"),
    [("127.0.0.1", 70_000), ("127.0.0.1", -1), ("no such host.", 0), ("x" * 70, 0)],
)
async def test_an_address_that_is_none(host, port):
    """It is told what is wrong with it."""
    with pytest.raises(WebhookAddressUnusable, match="can't be received at"):
        async with serve_webhooks(Receiving().app, host, port):
            pass


async def test_a_port_that_is_taken():
    """It is named, with the cure."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WebhookAddressUnusable, match=f":{port}: .*in use.*a port that is free"):
            async with serve_webhooks(Receiving().app, "127.0.0.1", port):
                pass


async def test_strangers_fill_neither_memory_nor_log(caplog):
    """Endless headers are cut, broken calls refused, huge bodies cut, and nothing is printed."""
    receiving = Receiving()
    endless = b"POST / HTTP/1.1\r\nx: " + b"y" * (HEAD_BYTES_MAX + 1)
    huge = f"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BODY_BYTES_MAX + 1}\r\n\r\n".encode()
    with caplog.at_level(logging.DEBUG):
        async with serve_webhooks(receiving.app, "127.0.0.1", 0) as url:
            assert await exchanged(url, endless, b"y" * HEAD_BYTES_MAX) == b""
            assert (await exchanged(url, b"\x16\x03\x01 hello")).startswith(b"HTTP/1.1 400")
            assert (await exchanged(url, huge)).startswith(b"HTTP/1.1 413")
    assert [record for record in caplog.records if "asyncio" not in record.name] == []


async def test_a_caller_that_never_says_what_it_wants(monkeypatch):
    """It is cut off, before its first byte, in the middle of its headers, and in a second call."""
    monkeypatch.setattr(serving, "HEAD_SECONDS_MAX", 0.02)
    async with serve_webhooks(Receiving().app, "127.0.0.1", 0) as url:
        assert await exchanged(url) == b""
        assert await exchanged(url, b"POST / HTTP/1.1\r\nhost:") == b""
        got = await exchanged(url, b"POST / HTTP/1.1\r\nhost: a\r\n\r\n", b"POST / HTTP/1.1\r\n")
        assert got.count(b"HTTP/1.1 400") == 1


async def test_a_body_in_chunks():
    """A sender may leave out the size of its body."""
    receiving = Receiving()
    body = body_of()
    head = "".join(f"{name}: {value}\r\n" for name, value in headers_of(body).items())
    head = f"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{head}"
    chunked = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
    call = head.encode() + b"transfer-encoding: chunked\r\n\r\n" + chunked
    async with serve_webhooks(receiving.app, "127.0.0.1", 0) as url:
        assert (await exchanged(url, call)).endswith(b"accepted\n")


async def test_too_many_connections(monkeypatch):
    """They are cut at once, and come again."""
    monkeypatch.setattr(serving, "CONNECTIONS_MAX", 2)
    async with serve_webhooks(Receiving().app, "127.0.0.1", 0) as url:
        parts = httpx2.URL(url)
        open_ones = [await asyncio.open_connection(parts.host, parts.port) for _ in range(2)]
        call = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        assert await exchanged(url, call) == b""
        for _, writer in open_ones:
            writer.close()
