"""Puts the parts of an engine together; knows all of them and does nothing else."""

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from openai import AsyncOpenAI
from structlog.typing import FilteringBoundLogger

from orchestrator.adapters.clock import LoopClock
from orchestrator.adapters.limiter.limiter import Limiter
from orchestrator.adapters.prices import price_of
from orchestrator.adapters.tools import Toolbox
from orchestrator.apis.every import every_family, line_bytes
from orchestrator.apis.transport import CallRecord, Transport
from orchestrator.core.entries import Past
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


def wire(
    client: AsyncOpenAI,
    settings: Settings,
    *,
    tools: Toolbox,
    results: Results,
    journal: Journal,
    log: FilteringBoundLogger,
    name: str,
    past: Past | None,
    on_call: Callable[[CallRecord], None],
    on_stopped: Callable[[], None],
) -> Wired:
    """An engine that is ready to run.

    The values of our `metadata` keys begin with `name`. `past` is what earlier processes left,
    where there were any. `on_call` is called after every HTTP call, and `on_stopped` once, when it
    is settled that nothing new will be created.
    """
    clock = LoopClock()
    schemas = tools.schemas
    rules = settings.rules(line_bytes=line_bytes(schemas))
    lane, checks_rpm = rules.checks_lane, settings.checks_rpm
    limiter = Limiter(clock, settings.rpm, settings.tpm, checks_lane=lane, checks_rpm=checks_rpm)
    # What earlier processes called by these names must not be called so again.
    calls_name = name if past is None else f"{name}-{secrets.token_hex(2)}"
    transport = Transport(client, clock, name=calls_name, on_limits=limiter.told, on_call=on_call)
    chance = random.Random(settings.seed).random  # noqa: S311 - it only spreads the checks
    began_at = clock.now() - (past.seconds if past is not None else 0.0)
    driver = Driver(
        scheduler=Scheduler(rules, chance, price_of, began_at),
        apis=every_family(transport, schemas, name, delete_files=settings.delete_files),
        limiter=limiter,
        tools=tools,
        results=results,
        journal=journal,
        clock=clock,
        log=log,
        connections=settings.connections,
        tools_at_once=settings.tools_at_once,
        on_stopped=on_stopped,
    )
    return Wired(driver, limiter, transport)
