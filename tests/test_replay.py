"""Executions that are killed and gone on with: nothing is lost, nothing that is known is sent twice."""

from itertools import count

import anyio
import pytest
from orchestrator.core import invariants
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings
from orchestrator.service import Orchestrator
from support.emulator_client import emulator_client
from support.memory_journal import MemoryJournal
from test_mixed_families import (
    EVERY,
    RULE,
    LookUp,
    at_once,
    mixed,
    on_assistants,
    on_chat,
    on_responses,
    on_sessions,
)


class Killed(Exception):
    pass


async def run_with_kills(emulator, requests, kill_after, **options):
    """Run to the end, killed again and again; results by custom_id, and how often it was killed."""
    requests = list(requests)
    journal = MemoryJournal()
    given = 0
    kills = count()
    for killed in kills:
        past = journal.past() if killed else None
        known = {request.custom_id for request in journal.requests.values()}
        left = [request for request in requests if request["custom_id"] not in known]
        client = emulator_client(emulator, latency_seconds=0.05)
        orchestrator = Orchestrator(
            client, journal=journal, past=past, name="run-x", seed=killed, **options
        )
        try:
            async with orchestrator:
                async with anyio.create_task_group() as tasks:

                    async def kill(scope=tasks.cancel_scope, killed=killed):
                        await anyio.sleep(kill_after * 1.1**killed)
                        journal.die()
                        scope.cancel()

                    tasks.start_soon(kill)
                    async for _ in orchestrator.run_many(left):
                        invariants.check(orchestrator._driver.scheduler)
                    tasks.cancel_scope.cancel()
                if journal.dead:
                    raise Killed
            return journal, killed
        except Killed:
            journal = journal.reborn()
        assert killed < 300


KINDS = {
    "responses": [on_responses],
    "at once": [at_once],
    "chat": [on_chat],
    "assistants": [on_assistants],
    "sessions": [on_sessions],
    "mixed": EVERY,
}


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("kill_after", [0.4, 1.0, 3.0])
async def test_an_execution_that_is_killed_goes_on(kinds, kill_after):
    """Every request ends once, and no run is created twice whose id was known."""
    emulator = Emulator(Settings(seed=3, rules=(RULE,)))
    look_up = LookUp()
    journal, kills = await run_with_kills(
        emulator, mixed(40, KINDS[kinds]), kill_after, tools=[look_up.tool()], model="gpt-5-mini"
    )
    results = {result.custom_id: result for result in journal.results.values()}
    assert len(results) == len(journal.results) == 40
    print(kinds, kill_after, kills, sum(r.lost for r in results.values()), {r.outcome.value for r in results.values()})
    assert {r.outcome.value for r in results.values()} == {"completed"}, [r.error for r in results.values() if r.error]


@pytest.mark.parametrize("kill_after", [0.4, 3.0, 11.0, 200])
async def test_batches_that_are_killed_go_on(kill_after):
    """Every request ends once, and no run is created twice whose id was known."""
    emulator = Emulator(Settings(seed=3, rules=(RULE,)))
    look_up = LookUp()
    journal, kills = await run_with_kills(
        emulator, mixed(40, [on_chat]), kill_after, tools=[look_up.tool()], model="gpt-5-mini", via="batch", batch_lines=7,
    )
    results = {result.custom_id: result for result in journal.results.values()}
    assert len(results) == len(journal.results) == 40
    print(kill_after, kills, sum(r.lost for r in results.values()), {r.outcome.value for r in results.values()})
    assert {r.outcome.value for r in results.values()} == {"completed"}, [r.error for r in results.values() if r.error]
