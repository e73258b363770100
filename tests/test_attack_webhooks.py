"""Strangers who reach the place of the webhooks, and a doctor that is interrupted."""

import asyncio
import socket
from contextlib import suppress

import anyio
import httpx2
import pytest
from support.webhooks import SECRET, Log

from orchestrator.adapters.webhook import serving
from orchestrator.adapters.webhook.app import webhook_app
from orchestrator.adapters.webhook.receiver import Receiver
from orchestrator.adapters.webhook.serving import serve_webhooks
from orchestrator.apis.webhook_signature import verifier
from orchestrator.cli.webhook_trial import Trial, try_webhooks
from orchestrator.errors import ServerUnreachable, SettingUnusable
from orchestrator.jobfile.address import Address, address_of

pytestmark = pytest.mark.real_time

VERIFY = verifier([SECRET])
CALL = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"


def receiving():
    return webhook_app(Receiver(verify=VERIFY, on_event=lambda _: None, log=Log()))


async def is_cut(reader):
    """Whether the connection ends soon."""
    try:
        return await asyncio.wait_for(reader.read(), 2) is not None
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize("after", [b"\r\n", b"\r\n\r\n", b"P"])
async def test_a_line_break_after_a_call_does_not_hold_the_connection(monkeypatch, after):
    """It ends the idle time and begins no call: so a stranger held it for ever, at no cost."""
    monkeypatch.setattr(serving, "HEAD_SECONDS_MAX", 0.05)
    async with serve_webhooks(receiving(), "127.0.0.1", 0) as url:
        parts = httpx2.URL(url)
        reader, writer = await asyncio.open_connection(parts.host, parts.port)
        writer.write(CALL)
        await reader.readuntil(b"malformed\n")
        writer.write(after)

        assert await is_cut(reader)
        writer.close()


async def test_two_calls_with_a_line_break_between():
    """Old clients send one after a body; it is no fault."""
    async with serve_webhooks(receiving(), "127.0.0.1", 0) as url:
        parts = httpx2.URL(url)
        reader, writer = await asyncio.open_connection(parts.host, parts.port)
        for piece in (CALL, b"\r\n" + CALL):
            writer.write(piece)
            assert b"400" in await reader.readuntil(b"malformed\n")
        writer.close()


async def test_trailers_are_bounded():
    """The parser keeps them and nobody reads them: 100 MB of them were kept."""
    async with serve_webhooks(receiving(), "127.0.0.1", 0) as url:
        parts = httpx2.URL(url)
        _, writer = await asyncio.open_connection(parts.host, parts.port)
        head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"1\r\na\r\n0\r\n")
        sent, line = 0, b"x: " + b"y" * 60_000 + b"\r\n"
        with suppress(ConnectionError):
            while sent < 50_000_000:
                writer.write(line)
                await writer.drain()
                sent += len(line)
        assert sent < 50_000_000
        writer.close()


async def test_connections_without_a_word_are_bounded(monkeypatch):
    """Each is a descriptor that the engine needs for its own calls and files."""
    monkeypatch.setattr(serving, "CONNECTIONS_MAX", 3)
    async with serve_webhooks(receiving(), "127.0.0.1", 0) as url:
        parts = httpx2.URL(url)
        open_ones = [await asyncio.open_connection(parts.host, parts.port) for _ in range(3)]
        reader, writer = await asyncio.open_connection(parts.host, parts.port)

        assert await is_cut(reader)
        for _, one in [*open_ones, (reader, writer)]:
            one.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of asyncio
async def test_nothing_is_let_in_after_the_end():
    """What was accepted a moment before has no connection to be cut yet.

    Its event was answered with 200 after the journal was closed; from Python 3.12 on the end waits
    for it, as long as it stays.
    """
    async with serve_webhooks(receiving(), "127.0.0.1", 0) as url:
        await asyncio.sleep(0.01)
        stranger = socket.create_connection(("127.0.0.1", httpx2.URL(url).port))
        stranger.settimeout(0)
        for _ in range(3):  # accepted, and not made yet
            await asyncio.sleep(0)
    answer = b""
    with stranger, suppress(ConnectionError, BlockingIOError):  # cut, or never looked at
        stranger.send(CALL)
        await asyncio.sleep(0.05)
        answer = stranger.recv(100)
    assert answer == b""


class Slow:
    """A server that makes the endpoint, and whose answer is never heard."""

    def __init__(self, problem=None):
        self.problem = problem

    async def create(self, url, *, name, event_types):
        if self.problem is not None:
            raise self.problem
        await anyio.sleep(60)


async def test_an_interrupt_while_the_endpoint_is_made_is_told():
    """Nobody knows its id, so a person has to look."""
    told = []
    trial = Trial(Address("127.0.0.1", 0), "https://example.org/", "", (), 1.0)
    with anyio.move_on_after(0.02):
        await try_webhooks(Slow(), trial, told.append)
    with pytest.raises(ServerUnreachable):
        await try_webhooks(Slow(ServerUnreachable(server="S", problem="lost")), trial, told.append)

    assert len(told) == 2
    assert all("orchestrator webhooks list" in line for line in told)


@pytest.mark.parametrize("port", ["0" * 5_000 + "1", "0000065536999", "65536"])
def test_a_port_of_many_digits(port):
    """It is told as a mistake, not as a bug."""
    with pytest.raises(SettingUnusable, match="65535 at most"):
        address_of("webhooks", f"127.0.0.1:{port}")
