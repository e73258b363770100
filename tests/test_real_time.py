"""Real sockets, real processes, real time: what the virtual tests can't show."""

import json
from pathlib import Path

import anyio
import pytest
from support.processes import emulator_process

from orchestrator.adapters.progress import Silence
from orchestrator.apis.client import make_client
from orchestrator.execution import Beginning, Manner, Way, execute
from orchestrator.jobfile import Overrides, read_job
from orchestrator.service import Orchestrator

pytestmark = [pytest.mark.slow, pytest.mark.real_time]

REQUESTS = Path(__file__).parents[2] / "shared" / "data" / "requests"
needs_data = pytest.mark.skipif(not REQUESTS.is_dir(), reason="../shared/data is not here")

FILES = {
    "cookbook_parallel_10k.jsonl": (10_000, {"url": "/v1/embeddings"}),
    "cookbook_nightly_support_qa_10.jsonl": (10, {}),
    "genai_navirag_65_input.jsonl": (65, {}),
    "batchlocallm_synthetic_100.jsonl": (100, {}),
}

# How the emulator calls what we count by kind.
KINDS = {
    "POST /v1/responses": "create",
    "POST /v1/chat/completions": "create",
    "POST /v1/embeddings": "create",
    "GET /v1/responses/{id}": "check",
}


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-the-emulator-only")


def json_lines(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


@needs_data
@pytest.mark.parametrize("name", FILES)
async def test_the_real_request_files_run_to_the_end(name, tmp_path):
    """Every line has exactly one result, and the emulator's books agree with ours call by call."""
    lines, overrides = FILES[name]
    job = read_job(REQUESTS / name, Overrides(**overrides))

    with emulator_process() as emulator:
        way = Way(base_url=emulator.base_url)
        beginning, manner = Beginning(out=tmp_path / "out"), Manner(log_level="debug")
        report = await execute(job, beginning, Silence(), manner, way=way)
        served, books = emulator.calls(), emulator.books()

    results = json_lines(tmp_path / "out/results.jsonl")
    asked = json_lines(REQUESTS / name)
    wanted = {given.get("custom_id", f"line-{n}") for n, given in enumerate(asked, 1)}
    assert len(results) == len(wanted) == lines
    assert {result["custom_id"] for result in results} == wanted
    assert (tmp_path / "out/errors.jsonl").read_bytes() == b""

    logged = json_lines(tmp_path / "out/log.jsonl")
    ended = [line for line in logged if line["event"] == "call.ended"]
    ours = {(line["call_id"], line["kind"], line["status"]) for line in ended}
    theirs = {(c["client_request_id"], KINDS[c["route"]], c["status"]) for c in served}
    assert ours == theirs
    assert len(theirs) == len(served) == books["calls_served"]

    counted = {kind: calls["total"] for kind, calls in report.summary["calls"].items()}
    assert sum(counted.values()) == books["calls_served"]
    assert report.summary["tokens"]["input"] == books["tokens"]["input"]
    assert report.summary["tokens"]["output"] == books["tokens"]["output"]
    assert report.all_completed


async def test_strict_limits_in_real_time():
    """600 and 6,000 a minute with a backlog: no 429, and 99 % of each full minute's permits."""
    served = {}

    async def keep_busy(rpm):
        with emulator_process("--rpm", str(rpm), "--durations", "0.05") as emulator:
            client = make_client(emulator.base_url)
            options = {"rpm": rpm, "model": "gpt-5-mini", "max_in_flight": rpm // 2}
            # Half of the calls are checks: enough requests for a minute and some more.
            requests = ({"prompt": f"say {n}"} for n in range(int(rpm * 0.6)))
            async with client, Orchestrator(client, **options) as orchestrator:
                results = [result async for result in orchestrator.run_many(requests)]
            assert {result.outcome.value for result in results} == {"completed"}
            served[rpm] = emulator.calls()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_busy, 600)
        tasks.start_soon(keep_busy, 6_000)

    for rpm, calls in served.items():
        assert not [call for call in calls if call["status"] == "429"]
        creates = [call["at_seconds"] for call in calls if call["route"].startswith("POST")]
        first = calls[0]["at_seconds"]
        minutes = int((creates[-1] - first) // 60)
        assert minutes >= 1
        for minute in range(minutes):
            start = first + 60 * minute
            used = sum(start <= call["at_seconds"] < start + 60 for call in calls)
            assert used >= 0.99 * rpm, (rpm, minute, used)
