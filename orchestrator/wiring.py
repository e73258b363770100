"""Puts the parts of an engine together; knows all of them and does nothing else."""

import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from openai import AsyncOpenAI
from structlog.typing import FilteringBoundLogger

from orchestrator.adapters.clock import LoopClock
from orchestrator.adapters.limiter.limiter import Limiter
from orchestrator.adapters.no_journal import NoJournal
from orchestrator.adapters.prices import price_of
from orchestrator.adapters.tools import Toolbox
from orchestrator.adapters.webhook import Receiver, WebhookEvent
from orchestrator.apis.every import every_family, line_bytes
from orchestrator.apis.transport import CallRecord, Transport
from orchestrator.apis.webhook_signature import verifier
from orchestrator.core.entries import Past
from orchestrator.core.events import WebhookArrived
from orchestrator.core.learned import Learned
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.settings import Settings
from orchestrator.driver import Driver
from orchestrator.ports import Journal, Results


@dataclass(frozen=True, slots=True)
class Wired:
    """An engine, and the two of its parts that can be asked."""

    driver: Driver
    limiter: Limiter
    transport: Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How what is done outlives the process.

    Attributes:
        name: Begins the values of our `metadata` keys, by which runs are found again: the same for
            all processes that work on the same.
        journal: Keeps on disk what would be lost.
        past: What earlier processes left in flight, where there were any.
        webhook_ids: The webhooks that they heard, the oldest first.
        learned: What is known of how long runs take; goes on learning.
    """

    name: str = field(default_factory=lambda: f"run-{secrets.token_hex(6)}")
    journal: Journal = field(default_factory=NoJournal)
    past: Past | None = None
    webhook_ids: Sequence[str] = ()
    learned: Learned | None = None


def wire(
    client: AsyncOpenAI,
    settings: Settings,
    *,
    tools: Toolbox,
    results: Results,
    keeping: Keeping,
    log: FilteringBoundLogger,
    on_call: Callable[[CallRecord], None],
    on_stopped: Callable[[], None],
    hears: bool,
) -> Wired:
    """An engine that is ready to run.

    `hears` says whether webhooks may come. `on_call` is called after every HTTP call, and
    `on_stopped` once, when it is settled that nothing new will be created.
    """
    name, past = keeping.name, keeping.past
    clock = LoopClock()
    schemas = tools.schemas
    rules = settings.rules(line_bytes=line_bytes(schemas), hears=hears)
    lane, checks_rpm = rules.checks_lane, settings.checks_rpm
    limiter = Limiter(clock, settings.rpm, settings.tpm, checks_lane=lane, checks_rpm=checks_rpm)
    # What earlier processes called by these names must not be called so again.
    calls_name = name if past is None else f"{name}-{secrets.token_hex(2)}"
    transport = Transport(client, clock, name=calls_name, on_limits=limiter.told, on_call=on_call)
    chance = random.Random(settings.seed).random  # noqa: S311 - it only spreads the checks
    began_at = clock.now() - (past.seconds if past is not None else 0.0)
    driver = Driver(
        scheduler=Scheduler(rules, chance, price_of, began_at, keeping.learned),
        apis=every_family(transport, schemas, name, delete_files=settings.delete_files),
        limiter=limiter,
        tools=tools,
        results=results,
        journal=keeping.journal,
        clock=clock,
        log=log,
        connections=settings.connections,
        tools_at_once=settings.tools_at_once,
        on_stopped=on_stopped,
    )
    return Wired(driver, limiter, transport)


def wire_webhooks(
    secrets: Sequence[str],
    on_webhook: Callable[[WebhookArrived], None],
    keeping: Keeping,
    log: FilteringBoundLogger,
) -> Receiver:
    """What takes webhooks: each that is genuine and new is handed on.

    Raises:
        WebhookSecretUnusable: One of the secrets can't be one.
    """

    def on_event(event: WebhookEvent) -> None:
        on_webhook(WebhookArrived(event.run_id, event.type))

    return Receiver(
        verify=verifier(secrets),
        on_event=on_event,
        seen_before=keeping.webhook_ids,
        on_new_id=keeping.journal.heard,
        log=log,
    )
