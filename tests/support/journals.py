"""A journal with something to tell, without threads and in virtual time."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from orchestrator.adapters.clock import LoopClock
from orchestrator.adapters.journal import JOURNAL_NAME, Journal, JournalFile, JournalReader
from orchestrator.core.model import (
    Answer,
    Family,
    Outcome,
    Request,
    Result,
    RunError,
    Seen,
    Status,
    Usage,
)

PENDING = Seen("resp_1", Status.PENDING, "queued")


@dataclass(frozen=True)
class NoBody:
    def read(self):
        return b"{}"


def request_of(custom_id="a", *, line=1, model="m", digest=b"8 bytes."):
    body = NoBody()
    return Request(
        custom_id, "/v1/responses", Family.RESPONSES, model, 1, body, line, digest=digest
    )


def result_of(
    request=None, outcome=Outcome.COMPLETED, *, error=None, usage=None, run_id="resp_1", sent=1
):
    answer = Answer(200, "req_1", b"{}")
    return Result(
        request=request or request_of(),
        outcome=outcome,
        answer=answer,
        error=error,
        usage=usage or Usage(10, 5, 2, 1),
        run_id=run_id,
        creates=1,
        checks=2,
        turns=3,
        seconds=1.5,
        sent=sent,
        lost=0,
        batch_usage=Usage(1, 0, 0, 0),
    )


def failed(request, code="server_error", message="It broke."):
    return result_of(request, Outcome.FAILED, error=RunError(code, message))


def line_of(result):
    return f"{result.custom_id} {result.outcome}\n".encode("utf-8", "replace")


async def inline(work):
    """The writer's work done in the loop, so that time may be virtual."""
    await anyio.lowlevel.checkpoint()
    return work()


@dataclass
class Surroundings:
    """What is around a journal, and what it told of itself."""

    synced: int = 0
    full: list[str] = field(default_factory=list)
    counts: bytes = b'{"done": 1}'

    def sync(self):
        self.synced += 1

    def journal(self, folder_or_file, in_thread=inline):
        """A journal in this folder, with a session that begins now."""
        opened = folder_or_file
        file = JournalFile(opened) if isinstance(opened, Path) else opened
        return Journal(
            file,
            LoopClock(),
            line_of=line_of,
            costs_of=lambda _: (0.25, 0.0),
            sync=self.sync,
            counts=lambda: self.counts,
            on_full=self.full.append,
            in_thread=in_thread,
        )


async def everything_written(journal):
    """Let the journal's task write all that was told so far."""
    written = anyio.Event()
    journal.after(written.set)
    await written.wait()


def copied(folder, to):
    """The files as they are at this moment: what is there when the process is killed now."""
    to.mkdir()
    for suffix in ("", "-wal"):
        if (source := folder / f"{JOURNAL_NAME}{suffix}").exists():
            shutil.copy(source, to)
    return to


def custom_ids(folder):
    """Who was admitted, as a reader sees it."""
    with JournalReader.open(folder) as reader:
        return [known.custom_id for known in reader.digests()]
