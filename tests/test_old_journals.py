"""A journal of every schema that was ever released must be gone on with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from support.emulator_client import BASE_URL, emulator_client
from support.journals import inline
from test_journal_opening import loaded
from test_mixed_families import RULE

from orchestrator.adapters.journal import JournalFile
from orchestrator.adapters.progress import progress_for
from orchestrator.adapters.request_file import RequestFile
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings
from orchestrator.execution import Beginning, Manner
from orchestrator.execution.execute import execute_with
from orchestrator.execution.folder import source_of
from orchestrator.execution.opening import digest_of_defaults
from orchestrator.jobfile import read_job

KILLED = sorted((Path(__file__).parent / "journals/killed").glob("*.sql"))

TOOLS = '''
async def look_up(order_id: str) -> str:
    """Look up an order."""
    return f"{order_id} is on its way"
'''


def job_of(dump, folder):
    """The job whose execution was killed; its settings stand in no journal."""
    shutil.copy(dump.with_suffix(".jsonl"), folder / "requests.jsonl")
    (folder / "tools.py").write_text(TOOLS)
    (folder / "job.toml").write_text('via = "batch"\n' if "batch" in dump.name else "")
    job = read_job(folder)
    return replace(job, settings=replace(job.settings, seed=1))


def move_here(job, folder):
    """The journal knows its source by a path that is not there any more; the bytes of its files."""
    with JournalFile(folder) as journal, RequestFile(job.requests) as requests:
        facts = journal.facts
        assert facts.file_digest == requests.digest()
        assert facts.defaults_digest == digest_of_defaults(job)
        journal.set_facts(msgspec.structs.replace(facts, source=source_of(job), server=BASE_URL))
        for name, count in zip(("results", "errors"), journal.written_bytes, strict=True):
            (folder / f"{name}.jsonl").write_bytes(b"x" * (count - 1) + b"\n" if count else b"")
        return {known.custom_id for known in journal.digests() if known.has_ended}


@pytest.mark.parametrize("dump", KILLED, ids=lambda dump: dump.stem)
async def test_a_journal_of_every_schema_is_gone_on_with(dump, tmp_path):
    """What had ended stays, and what was in flight or not begun ends once."""
    job = job_of(dump, tmp_path)
    (tmp_path / "out").mkdir()
    folder = loaded(dump, tmp_path / "out")
    had_ended = move_here(job, folder)

    told = []
    report = await execute_with(
        emulator_client(Emulator(Settings(seed=1, rules=(RULE,)))),
        BASE_URL,
        job,
        Beginning(out=folder),
        progress_for(None, name="old", quiet=True),
        Manner(tell=told.append),
        in_thread=inline,
    )

    assert report.stopped is None
    assert f"{len(had_ended)} of {report.summary['requests']} requests have ended, " in told[0]
    lines = [
        json.loads(line)["custom_id"]
        for name in ("results", "errors")
        for line in (folder / f"{name}.jsonl").read_text().splitlines()
        if line.startswith("{")
    ]
    given = (tmp_path / "requests.jsonl").read_text().splitlines()
    wanted = {json.loads(line)["custom_id"] for line in given}
    assert len(lines) == len(set(lines))
    assert wanted - had_ended <= set(lines) <= wanted
    assert sum(report.summary["outcomes"].values()) == len(wanted)
