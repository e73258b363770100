"""The whole engine and the emulator, with its webhooks carried to it in virtual time."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from orchestrator.adapters import clock
from orchestrator.adapters.webhook.app import STATUS
from orchestrator.core import invariants
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings
from orchestrator.service import Orchestrator
from support.emulator_client import emulator_client
from support.engine import INVARIANTS_EVERY, MODEL
from support.webhook_carrier import SECRET, URL

# Batches are looked at ten times a second, and a network takes its time.
CARRIED_EVERY_SECONDS = 0.05


@dataclass
class Heard:
    """An execution with webhooks that is over."""

    results: dict = field(default_factory=dict)
    verdicts: Counter = field(default_factory=Counter)
    checks: int = 0
    calls: Counter = field(default_factory=Counter)
    totals: object = None
    books: object = None

    @property
    def late_max(self):
        """Seconds from the end of a run, or its wish for tools, to our noticing."""
        return max(self.totals.detection_delays_seconds, default=0.0)

    @property
    def outcomes(self):
        return {custom_id: result.outcome for custom_id, result in self.results.items()}

    @property
    def checks_per_run(self):
        return self.checks / self.totals.created_to_check


async def play_hybrid(requests, *, emulator=None, only=lambda delivery: True, **options):
    """Run all requests to the end; an endpoint is told of everything, or of `only` some."""
    loop = asyncio.get_running_loop()
    settings = {"webhook_url": URL, "webhook_secret": SECRET, "epoch": 0.0}
    emulator = Emulator(Settings(**(settings | (emulator or {}))))
    heard = Heard(books=emulator.books)
    client = emulator_client(emulator, latency_seconds=0.01)
    options = {"model": MODEL, "seed": 1, "webhook_secrets": [SECRET], **options}
    async with (
        Orchestrator(client, **options) as orchestrator,
        anyio.create_task_group() as tasks,
        _one_clock(loop.time),
    ):
        tasks.start_soon(_carry, emulator, orchestrator.webhooks, heard, only)
        async for result in orchestrator.run_many(requests):
            if len(heard.results) % INVARIANTS_EVERY == 0:
                invariants.check(orchestrator._driver.scheduler)
            assert result.custom_id not in heard.results, "a second result for one request"
            heard.results[result.custom_id] = result
        tasks.cancel_scope.cancel()
    heard.totals = orchestrator.totals
    heard.calls = orchestrator.calls
    heard.checks = sum(n for (kind, _), n in orchestrator.calls.items() if kind == "check")
    return heard


@asynccontextmanager
async def _one_clock(now):
    """The server's times are those of the loop, and so are ours."""
    before, clock.unix_now = clock.unix_now, now
    try:
        yield
    finally:
        clock.unix_now = before


async def _carry(emulator, receiver, heard, only):
    """Deliver what is due, by the clock of the loop, which both sides go by."""
    while True:
        now = asyncio.get_running_loop().time()
        for delivery in emulator.deliveries(now):
            if not only(delivery):
                emulator.delivered(delivery, 200, now)
                continue
            verdict = receiver.take(delivery.body, delivery.headers, arrived_at=now)
            heard.verdicts[verdict] += 1
            status = STATUS[verdict]
            emulator.delivered(delivery, status, now)
        await anyio.sleep(CARRIED_EVERY_SECONDS)
