"""The jobs in jobs/: whole, and ending well on the emulator, as the quickstart promises."""

import dataclasses
import json
from pathlib import Path

import pytest
from support.emulator_client import emulator_client

from orchestrator.adapters.request_file import RequestFile
from orchestrator.adapters.tools import Toolbox, load_tools
from orchestrator.core.model import Outcome
from orchestrator.emulator.emulator import Emulator
from orchestrator.jobfile import emulator_settings, read_job
from orchestrator.service import Orchestrator

JOBS = Path(__file__).parents[1] / "jobs"
HELLO, TICKETS = JOBS / "hello", JOBS / "support_tickets"
SERVICE = JOBS / "webhook_service"  # no job but a program: tests/test_webhook_service_job.py
FOLDERS = sorted(
    path
    for path in JOBS.iterdir()
    if path.is_dir() and path.name[0] not in "._" and path != SERVICE
)


class ListeningEmulator(Emulator):
    """Keeps what the model asked for and what it was told, as (tool, output) by call id."""

    def __init__(self, settings):
        super().__init__(settings)
        self.asked = {}
        self.told = {}

    def handle(self, call, now):
        reply = super().handle(call, now)
        given = json.loads(call.body or b"{}").get("input")
        for item in given if isinstance(given, list) else []:
            if isinstance(item, dict) and item.get("type") == "function_call_output":
                self.told[item["call_id"]] = item["output"]
        for item in json.loads(reply.body).get("output", []):
            if item["type"] == "function_call":
                self.asked[item["call_id"]] = item["name"]
        return reply

    def told_of(self, tool):
        """The outputs of a tool that reached the model."""
        return [output for call_id, output in self.told.items() if self.asked[call_id] == tool]


async def run(folder):
    """The emulator, the orchestrator and the results of a job that ran to its end."""
    job = read_job(folder)
    emulator = ListeningEmulator(emulator_settings(job))
    orchestrator = Orchestrator(
        emulator_client(emulator, latency_seconds=0.01),
        tools=load_tools(job.tools) if job.tools else (),
        **dataclasses.asdict(job.settings),
    )
    with RequestFile(job.requests, job.defaults) as file:
        async with orchestrator:
            results = [result async for result in orchestrator.run_many(file.requests())]
    return emulator, orchestrator, results


def test_folders_are_found():
    """The two jobs that the README speaks of are among the folders that are tested here."""
    assert {HELLO, TICKETS} <= set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_ready_to_run(folder):
    """Every folder in jobs/ is a whole job: requests, tools and settings for the emulator."""
    job = read_job(folder)
    with RequestFile(job.requests, job.defaults) as file:
        assert file.check().requests > 0
    assert job.tools is None or Toolbox(load_tools(job.tools)).names
    assert job.emulator is not None
    assert bool(emulator_settings(job).rules) == (job.emulator.rules is not None)


async def test_hello():
    """The hello job has a request of every kind and ends within seconds, all completed."""
    _, orchestrator, results = await run(HELLO)
    assert len(results) == 12
    assert {result.outcome for result in results} == {Outcome.COMPLETED}
    assert {result.request.url for result in results} == {
        "/v1/responses",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/moderations",
    }
    assert max(result.seconds for result in results) < 10
    assert orchestrator.totals.retries == 0


async def test_support_tickets():
    """All tickets end well: every tool is used, trouble passes, and failing tools are told of."""
    emulator, orchestrator, results = await run(TICKETS)
    assert len(results) == 120
    assert {result.outcome for result in results} == {Outcome.COMPLETED}
    assert {result.turns for result in results} == {0, 1, 2, 3}
    assert set(emulator.asked) == set(emulator.told)
    assert set(emulator.asked.values()) == set(Toolbox(load_tools(TICKETS / "tools.py")).names)
    refused = "The tool refund_amount failed: LedgerClosedError: ledger is closed for 2025"
    assert emulator.told_of("refund_amount").count(f'{{"error":"{refused}"}}') == 5
    assert any("There is no order O-9417" in told for told in emulator.told_of("lookup_order"))
    # The model tells what a tool gave, and apologises in words where one failed.
    answers = [result.answer.body for result in results]
    assert sum(rb"refund_cents\":" in answer for answer in answers) == 15
    assert not any(rb"error\":" in answer for answer in answers)
    assert orchestrator.totals.retries == 4
    assert not any(status == "429" for _, status in orchestrator.calls)


async def test_replacement_only_once():
    """The same call of open_replacement opens one replacement, another call a second one."""
    tools = {tool.__name__: tool for tool in load_tools(TICKETS / "tools.py")}
    replace = tools["open_replacement"]
    first = await replace("O-1061", "broken", "call_1")
    assert await replace("O-1061", "broken", "call_1") == first
    assert await replace("O-1061", "broken", "call_2") != first
