"""Webhooks and checks together, with the whole engine and the emulator: the bars, and the traps."""

from collections import Counter

import anyio
import pytest
from support.emulator_client import emulator_client
from support.engine import MODEL
from support.hybrid import play_hybrid
from support.memory_journal import MemoryJournal
from support.webhook_carrier import SECRET, URL
from test_mixed_families import EVERY, RULE, LookUp, is_right, mixed, on_sessions

from orchestrator.adapters.webhook import Verdict
from orchestrator.adapters.webhook.app import STATUS
from orchestrator.core.model import Outcome
from orchestrator.emulator.durations import Fixed, Lognormal
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings
from orchestrator.service import Orchestrator
from orchestrator.wiring import Keeping

GAP_SECONDS = 300.0
FEW = 20
MANY = 2_000


def prompts(number):
    for n in range(number):
        yield {"custom_id": f"r{n}", "body": {"input": f"Name river {n}."}}


def sessions(number):
    for n in range(number):
        url, body = on_sessions(f"Name river {n}.")
        yield {"custom_id": f"s{n}", "url": url, "body": body}


def batched(number):
    for n in range(number):
        body = {"messages": [{"role": "user", "content": f"Name river {n}."}]}
        yield {"custom_id": f"c{n}", "url": "/v1/chat/completions", "body": body}


def takes(seconds, **faults):
    """An emulator whose runs take so long, and what befalls their webhooks."""
    return {"queue_seconds": Fixed(0.0), "run_seconds": Fixed(seconds), "faults": faults}


def all_completed(heard, number):
    return list(heard.outcomes.values()) == [Outcome.COMPLETED] * number


class TestBars:
    """With 2,000 requests; they take a while, so a smaller crowd is in the fast tests."""

    @pytest.fixture(params=[pytest.param(FEW), pytest.param(MANY, marks=pytest.mark.slow)])
    def number(self, request):
        return request.param

    async def test_one_check_for_each_run(self, number):
        """As soon as it has ended, and never before; the first of all is looked at once more."""
        heard = await play_hybrid(prompts(number), emulator=takes(20), max_in_flight=number)

        assert all_completed(heard, number)
        assert heard.checks <= number + 1
        assert heard.late_max < 0.1

    async def test_a_twentieth_lost(self, number):
        """At most 1.10 checks a run, and where all take as long, none noticed late by the gap."""
        emulator = takes(20, webhook_lost=0.05 if number == MANY else 0.2)
        heard = await play_hybrid(prompts(number), emulator=emulator, max_in_flight=number)

        assert all_completed(heard, number)
        assert heard.checks_per_run <= 1.10
        assert heard.totals.webhooks_heard < number
        assert heard.late_max <= 15.0  # ten until somebody looks, and then one leads to the next
        assert heard.totals.hearing_changes == []

    @pytest.mark.slow
    async def test_all_lost_from_some_moment_on(self):
        """Polling again within one gap; seconds, where many runs are at work."""
        emulator = takes(20) | {"webhook_outage_from_seconds": 25.0}
        heard = await play_hybrid(prompts(MANY), emulator=emulator, max_in_flight=MANY, rpm=MANY)

        assert all_completed(heard, MANY)
        [change] = heard.totals.hearing_changes
        assert (change.family, change.are_heard) == ("responses", False)
        assert 25 < change.at < 25 + GAP_SECONDS / 4
        assert heard.late_max < GAP_SECONDS / 4

    async def test_doubled_overtaken_and_forged(self, number):
        """The same results; whatever was forged is refused."""
        part = 0.1 if number == MANY else 0.4  # of a few, some have to be met as well
        faults = dict.fromkeys(["webhook_doubled", "webhook_overtaken", "webhook_forged"], part)
        heard = await play_hybrid(
            prompts(number), emulator=takes(20, **faults), max_in_flight=number
        )

        assert all_completed(heard, number)
        assert heard.verdicts[Verdict.ACCEPTED] == number
        assert heard.verdicts[Verdict.REPEATED] > 0
        for way, verdict in (("forged", Verdict.FORGED), ("replayed", Verdict.STALE)):
            told = heard.books.webhooks.summary()
            assert heard.verdicts[verdict] == told[f"{way}_refused"] > 0
            assert f"{way}_accepted" not in told
        assert heard.checks <= number + 1


async def test_an_event_overtakes_the_answer_to_its_create():
    """It is kept until the id is known, and the run is looked at then."""
    emulator = takes(0.05, webhook_early=1.0)
    heard = await play_hybrid(prompts(20), emulator=emulator)

    assert all_completed(heard, 20)
    assert heard.totals.webhooks_early > 0
    assert heard.totals.webhooks_unknown == 0
    assert heard.late_max < 1.0
    assert heard.checks <= 21


@pytest.mark.slow
async def test_every_family_with_tools():
    """Responses and sessions by events, the rest as ever; each turn has its own."""
    tool = LookUp()
    emulator = {"rules": (RULE,), "run_seconds": Lognormal(4.0, 0.5)}
    heard = await play_hybrid(mixed(30), emulator=emulator, tools=[tool.tool()])

    assert all_completed(heard, 30)
    assert all(is_right(result) for result in heard.results.values())
    families = Counter(result.request.family for result in heard.results.values())
    told = families["responses"] + families["agent_sessions"]
    assert heard.totals.webhooks_heard == 2 * told
    assert heard.totals.hearing_changes == []


@pytest.mark.slow
async def test_sessions_share_their_looks():
    """One list call for an event serves all that have ended meanwhile."""
    heard = await play_hybrid(sessions(FEW), emulator=takes(20))

    assert all_completed(heard, FEW)
    assert heard.checks <= FEW
    assert heard.late_max < 0.2


@pytest.mark.slow
async def test_batches():
    """The end of a batch is heard of, too."""
    emulator = {"batch_seconds": Fixed(100.0)}
    heard = await play_hybrid(batched(6), emulator=emulator, via="batch", batch_lines=3)

    assert all_completed(heard, 6)
    assert heard.totals.webhooks_heard == 2
    assert heard.late_max < 1.0
    assert heard.checks <= 2 + 3  # looks while nothing had ever been heard


@pytest.mark.slow
async def test_everything_at_once_changes_no_outcome():
    """All families and tools, calls that fail, and webhooks of every kind of trouble."""
    faults = dict.fromkeys(["error_500", "error_429", "slow", "drop_before"], 0.05)
    faults |= {"webhook_lost": 0.2, "webhook_doubled": 0.2, "webhook_late": 0.2}
    faults |= {"webhook_overtaken": 0.2, "webhook_forged": 0.2, "webhook_early": 0.2}
    emulator = {"rules": (RULE,), "run_seconds": Lognormal(4.0, 1.0), "faults": faults}
    heard = await play_hybrid(mixed(300, EVERY), emulator=emulator, tools=[LookUp().tool()])

    assert all_completed(heard, 300)
    assert all(is_right(result) for result in heard.results.values())


class TestWhatIsRemembered:
    @pytest.mark.parametrize("killed_at", [0.5, 3.0, 5.05, 6.0])
    async def test_a_process_is_killed(self, killed_at):
        """The next one looks at what it missed, once, and takes nothing that it missed for silence.

        What comes twice is a repeat to it, too.
        """
        emulator = Emulator(
            Settings(webhook_url=URL, webhook_secret=SECRET, epoch=0.0, **takes(5.0))
        )
        journal, told = MemoryJournal(), []
        requests = [request | {"custom_id": f"r{n}"} for n, request in enumerate(prompts(FEW))]
        await self.work(emulator, requests, journal, told, until=killed_at)
        known = {request.custom_id for request in journal.requests.values()}
        assert len(known) == FEW
        await anyio.sleep(2.0)
        before, journal = journal, journal.reborn()
        journal.webhook_ids = before.webhook_ids
        orchestrator = await self.work(emulator, [], journal, told)

        assert len(journal.results) == FEW
        assert {result.outcome for result in journal.results.values()} == {Outcome.COMPLETED}
        assert max(result.checks for result in journal.results.values()) <= 2
        assert orchestrator.totals.hearing_changes == []
        for delivery in told[:3]:
            again = orchestrator.webhooks.take(delivery.body, delivery.headers, arrived_at=10.0)
            assert again is Verdict.REPEATED

    async def work(self, emulator, requests, journal, told, until=60.0):
        """What a process does until it is killed, or has done everything."""
        past = journal.past() if journal.requests else None
        keeping = Keeping(
            name="run-x", journal=journal, past=past, webhook_ids=tuple(journal.webhook_ids)
        )
        orchestrator = Orchestrator(
            emulator_client(emulator, latency_seconds=0.01),
            keeping=keeping,
            webhook_secrets=[SECRET],
            seed=1,
            model=MODEL,
        )
        with anyio.move_on_after(until):
            async with orchestrator, anyio.create_task_group() as tasks:
                tasks.start_soon(self.carry, emulator, orchestrator.webhooks, told)
                with anyio.CancelScope() as living:
                    living.deadline = anyio.current_time() + until - 0.01
                    async for _ in orchestrator.run_many(requests):
                        pass
                if living.cancelled_caught:
                    journal.die()
                    orchestrator._driver.close()
                    orchestrator._engine.cancel()
                tasks.cancel_scope.cancel()
        return orchestrator

    async def carry(self, emulator, receiver, told):
        while True:
            now = anyio.current_time()
            for delivery in emulator.deliveries(now):
                verdict = receiver.take(delivery.body, delivery.headers, arrived_at=now)
                emulator.delivered(delivery, STATUS[verdict], now)
                told.append(delivery)
            await anyio.sleep(0.05)


class TestSilence:
    async def test_nobody_calls_the_endpoint(self):
        """A wrong url, a closed port: it costs seconds, and a line in the log tells."""
        emulator = takes(2, webhook_lost=1.0)
        heard = await play_hybrid(prompts(FEW), emulator=emulator)

        assert all_completed(heard, FEW)
        assert heard.late_max < 15

    @pytest.mark.slow
    async def test_one_kind_of_event_is_missing(self):
        """Sessions ask for tools by webhook, and end without one: the family is polled."""
        tool = LookUp()
        url, body = on_sessions("where is O-1?")
        requests = [{"custom_id": f"O-{n}", "url": url, "body": body} for n in range(25)]
        emulator = {"rules": (RULE,), "run_seconds": Fixed(20.0)}
        heard = await play_hybrid(
            requests,
            emulator=emulator,
            tools=[tool.tool()],
            max_in_flight=5,
            only=lambda delivery: b"session.idle" not in delivery.body,
        )

        assert all_completed(heard, 25)
        assert not heard.totals.hearing_changes[0].are_heard
        assert len(heard.totals.hearing_changes) == 1
