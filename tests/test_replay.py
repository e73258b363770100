"""Executions that are killed and gone on with: nothing is lost, what is known is not sent twice."""

from itertools import count

import anyio
import pytest
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

from orchestrator.core import invariants
from orchestrator.core.events import OutputsAccepted, RunCreated
from orchestrator.core.model import Outcome
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings
from orchestrator.service import Orchestrator
from orchestrator.wiring import Keeping

KINDS = {
    "responses": [on_responses],
    "at once": [at_once],
    "chat": [on_chat],
    "assistants": [on_assistants],
    "sessions": [on_sessions],
    "mixed": EVERY,
}
REQUESTS = 40
KILLS_MAX = 200


async def run_until_killed(emulator, requests, journal, seconds, **options):
    """What a process does until it is killed or has nothing left to do."""
    known = {request.custom_id for request in journal.requests.values()}
    left = [request for request in requests if request["custom_id"] not in known]
    client = emulator_client(emulator, latency_seconds=0.05)
    past = journal.past() if known else None
    keeping = Keeping(name="run-x", journal=journal, past=past)
    async with (
        Orchestrator(client, keeping=keeping, **options) as orchestrator,
        anyio.create_task_group() as tasks,
    ):

        async def kill():
            await anyio.sleep(seconds)
            journal.die()
            orchestrator._driver.close()
            orchestrator._engine.cancel()
            tasks.cancel_scope.cancel()

        tasks.start_soon(kill)
        async for _ in orchestrator.run_many(left):
            invariants.check(orchestrator._driver.scheduler)
        tasks.cancel_scope.cancel()


async def run_with_kills(emulator, requests, first_seconds, **options):
    """Run to the end, killed again and again; what is on the disk then."""
    requests, journal = list(requests), MemoryJournal()
    for killed in count():
        # Longer and longer, so that at last every call has the time to be answered.
        seconds = first_seconds * 1.1**killed
        await run_until_killed(emulator, requests, journal, seconds, seed=killed, **options)
        if not journal.dead:
            return journal
        assert killed < KILLS_MAX
        journal = journal.reborn()
    raise AssertionError


def assert_nothing_is_lost(journal, emulator):
    results = {result.custom_id: result for result in journal.results.values()}
    assert len(results) == len(journal.results) == REQUESTS
    assert {result.outcome for result in results.values()} == {Outcome.COMPLETED}
    # What a create brought about is known to us, or counted as lost.
    created = emulator.books.creates.page(0, 10**9)
    answered = [e for _, e in journal.entries if isinstance(e, RunCreated | OutputsAccepted)]
    assert len(created) - len(answered) <= sum(result.lost for result in results.values())


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("first_seconds", [pytest.param(0.4, marks=pytest.mark.slow), 3.0])
async def test_an_execution_that_is_killed_goes_on(kinds, first_seconds):
    """Every request ends once, and no run is created twice whose id was known."""
    emulator = Emulator(Settings(seed=3, rules=(RULE,)))
    requests, tools = mixed(REQUESTS, KINDS[kinds]), [LookUp().tool()]

    journal = await run_with_kills(
        emulator, requests, first_seconds, tools=tools, model="gpt-5-mini"
    )

    assert_nothing_is_lost(journal, emulator)


@pytest.mark.parametrize("first_seconds", [pytest.param(0.4, marks=pytest.mark.slow), 11.0])
async def test_batches_are_found_again(first_seconds):
    """A batch goes on without us, and its lines come back to the requests that they are of."""
    emulator = Emulator(Settings(seed=3, rules=(RULE,)))
    requests, tools = mixed(REQUESTS, [on_chat]), [LookUp().tool()]
    by_batch = {"via": "batch", "batch_lines": 7}

    journal = await run_with_kills(
        emulator, requests, first_seconds, tools=tools, model="gpt-5-mini", **by_batch
    )

    results = {result.custom_id: result for result in journal.results.values()}
    assert len(results) == len(journal.results) == REQUESTS
    assert {result.outcome for result in results.values()} == {Outcome.COMPLETED}
    assert sum(result.lost for result in results.values()) == 0
