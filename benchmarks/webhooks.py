"""How many signed webhook events a second are taken while the engine runs, and how fast.

    python benchmarks/webhooks.py --rate 2000 --seconds 20

The process that is measured has the engine, with runs in flight on an emulator, and the receiver,
served by uvicorn on loopback. The load comes from another process over kept-alive connections, at
times that were set before: an event that had to wait for its turn counts from the time at which it
should have been sent. What the numbers mean: `accepted_per_second` should be the rate, `p99_ms` is
under 20 ms, `cpu_part` is the part of one core that the process took, engine and receiver together,
and `idle_cpu_part` what the engine took alone. `load_average` tells what else the machine did, and
`machine_p99_ms` how late the sender itself was woken from its sleep, which is no receiver's doing.
The result is one JSON object on standard output.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio

from orchestrator import Orchestrator
from orchestrator.adapters.webhook import Verdict, serve_webhooks
from orchestrator.apis.client import make_local_client

KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"fedcba9876543210fedcba98").decode()

IDLE_SECONDS = 5.0

# Calls of the engine: 50 a second, with a thousand runs in flight.
RPM = 3_000
IN_FLIGHT = 1_000
RUN_SECONDS = 60


def signed_call(number: int, host: str, timestamp: int) -> bytes:
    """One event as it goes over the wire, with the headers that senders have."""
    event = {"id": f"evt_{number}", "object": "event", "created_at": timestamp}
    event |= {"type": "response.completed", "data": {"id": f"resp_{number:048x}"}}
    body = json.dumps(event).encode()
    webhook_id = f"wh_{number:032x}"
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    head = (
        f"POST /webhooks HTTP/1.1\r\nhost: {host}\r\nuser-agent: OpenAI/1.0\r\naccept: */*\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"webhook-id: {webhook_id}\r\nwebhook-timestamp: {timestamp}\r\n"
        f"webhook-signature: v1,{signature}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """A kept-alive connection: one event at a time, and the time of its answer."""

    def __init__(self, free: "asyncio.Queue[Connection]", delays: list[float]) -> None:
        self._free = free
        self._delays = delays
        self._due = 0.0
        self._answer = b""
        self.refused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._free.put_nowait(self)

    def send(self, call: bytes, due: float) -> None:
        self._due = due
        self._transport.write(call)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        body = self._answer.partition(b"\r\n\r\n")[2]
        if not body.endswith(b"\n"):
            return
        self._answer = b""
        if body == b"accepted\n":
            self._delays.append(time.perf_counter() - self._due)
        else:
            self.refused += 1
        self._free.put_nowait(self)


async def send_events(url: str, rate: int, seconds: int, connections: int) -> dict[str, Any]:
    """Send so many events a second for so long; how long each waited for its answer."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    assert host is not None
    assert port is not None
    timestamp = int(time.time())  # noqa: TID251 - what is signed is the time of the world
    calls = [signed_call(n, parts.netloc, timestamp) for n in range(rate * seconds)]
    free: asyncio.Queue[Connection] = asyncio.Queue()
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    every = []
    for _ in range(connections):
        _, connection = await loop.create_connection(lambda: Connection(free, delays), host, port)
        every.append(connection)
    late: list[float] = []
    began = time.perf_counter()
    for number, call in enumerate(calls):
        due = began + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
            late.append(time.perf_counter() - due)
        (await free.get()).send(call, due)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            for _ in every:
                await free.get()
    delays.sort()
    late.sort()
    return {
        "sent": len(calls),
        "accepted": len(delays),
        "refused": sum(connection.refused for connection in every),
        "seconds": round(time.perf_counter() - began, 2),
        **{f"p{part}_ms": round(delays[len(delays) * part // 100] * 1000, 2) for part in (50, 99)},
        "max_ms": round(delays[-1] * 1000, 2),
        "machine_p99_ms": round(late[len(late) * 99 // 100] * 1000, 2),
    }


@contextmanager
def emulator() -> Iterator[str]:
    """An emulator in a process of its own; its base url."""
    command = [sys.executable, "-m", "orchestrator", "emulator", "--port", "0"]
    command += ["--rpm", str(RPM), "--durations", str(RUN_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"(http://\S+)", process.stdout.readline())
        assert found is not None
        try:
            yield found[1]
        finally:
            process.terminate()


async def endless() -> AsyncIterator[dict[str, str]]:
    number = 0
    while True:
        number += 1
        yield {"prompt": f"say {number}"}


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(base_url: str, wanted: argparse.Namespace) -> dict[str, Any]:
    """The engine and the receiver in this process, the load in another."""

    async def keep_busy() -> None:
        async for _ in orchestrator.run_many(endless()):
            pass

    async with (
        make_local_client(base_url) as client,
        Orchestrator(
            client,
            rpm=RPM,
            model="gpt-5-mini",
            max_in_flight=IN_FLIGHT,
            webhook_secrets=[OTHER_SECRET] * (wanted.secrets - 1) + [SECRET],
        ) as orchestrator,
        serve_webhooks(orchestrator.webhook_app, "127.0.0.1", 0) as url,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(keep_busy)
        await anyio.sleep(2.0)  # past the first call, for which all others wait
        cpu = cpu_seconds()
        await anyio.sleep(IDLE_SECONDS)
        idle_cpu_part = (cpu_seconds() - cpu) / IDLE_SECONDS
        command = [sys.executable, __file__, "--load", url, "--rate", str(wanted.rate)]
        command += ["--seconds", str(wanted.seconds), "--connections", str(wanted.connections)]
        calls, cpu, began = orchestrator.calls.total(), cpu_seconds(), time.perf_counter()
        load = json.loads((await anyio.run_process(command)).stdout)
        wall_seconds = time.perf_counter() - began
        cpu_part = (cpu_seconds() - cpu) / load["seconds"]
        calls_per_second = (orchestrator.calls.total() - calls) / wall_seconds
        tasks.cancel_scope.cancel()
        taken = orchestrator.webhooks.counts
        assert taken.total() == taken[Verdict.ACCEPTED] == load["accepted"]
    return {
        "rate": wanted.rate,
        "secrets": wanted.secrets,
        "connections": wanted.connections,
        **load,
        "accepted_per_second": round(load["accepted"] / load["seconds"]),
        "cpu_part": round(cpu_part, 3),
        "idle_cpu_part": round(idle_cpu_part, 3),
        "engine_calls_per_second": round(calls_per_second, 1),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--secrets", type=int, default=1)
    parser.add_argument("--load", metavar="URL", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.load:
        load = send_events(wanted.load, wanted.rate, wanted.seconds, wanted.connections)
        print(json.dumps(asyncio.run(load)))
        return
    with emulator() as base_url:
        print(json.dumps(anyio.run(measure, base_url, wanted)))


if __name__ == "__main__":
    main()
