"""Where an execution keeps its things: a new folder, or that of one to be gone on with."""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from orchestrator.adapters.clock import unix_now
from orchestrator.adapters.journal import JournalFile, JournalReader
from orchestrator.adapters.result_file import FOLDER_MODE, SUMMARY_NAME, prepare_folder
from orchestrator.errors import NothingToRetry, OutputFolderUnusable
from orchestrator.jobfile import Job

EXECUTIONS = Path("executions")  # where output folders are made when none was given

# A file name has at most 255 bytes, a letter up to 4, and the date has to follow.
NAME_CHARACTERS_MAX = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """How an execution begins.

    Attributes:
        out: Its folder; None: the last one of the same source, or a new one under `executions/`.
        fresh: Start anew, in a new folder, even if there is one to be gone on with.
        retry_failed: Send again what did not complete before.
        accept_changes: Go on although lines of the input were changed.
    """

    out: Path | None = None
    fresh: bool = False
    retry_failed: bool = False
    accept_changes: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The folder of the execution to be gone on with; without it a new one starts.

    `finished` is the last one of the same source, where that is why a new one starts.
    """

    folder: Path | None = None
    finished: Path | None = None


def choose(job: Job, server: str, beginning: Beginning) -> Choice:
    """Whether to go on, and where.

    Raises:
        NothingToRetry: What failed is to be sent again, and there is nothing.
    """
    out = beginning.out
    if beginning.fresh:
        return Choice()
    if out is not None:
        last, where = (out if JournalFile.is_there(out) else None), f" in {out}"
    else:
        last, where = _last_execution(job, server), f" on {server} under {EXECUTIONS}/"
    if last is None and beginning.retry_failed:
        raise NothingToRetry(source=job.source, where=where)
    if last is not None and out is None and not beginning.retry_failed and _is_finished(last):
        return Choice(finished=last)
    return Choice(folder=last)


@contextmanager
def looking(job: Job) -> Iterator[None]:
    """Let nobody else look for an execution of this source meanwhile, and start another one.

    Whoever else does waits here, and finds ours.
    """
    with job.requests.open("rb") as source:
        with suppress(OSError):  # a file system without locks: then there is nobody to wait for
            fcntl.flock(source, fcntl.LOCK_EX)
        yield


def new_folder(job: Job, beginning: Beginning) -> Path:
    """An empty folder, made now; never one that holds another execution.

    Raises:
        OutputFolderTaken: It holds results of which there is no journal.
        OutputFolderUnusable: It can't be made or written to.
    """
    folder = beginning.out
    if folder is None:
        folder = _named_folder(job)
    elif beginning.fresh and JournalFile.is_there(folder):
        folder = _beside(folder)
    prepare_folder(folder)
    return folder


def _last_execution(job: Job, server: str) -> Path | None:
    """The newest execution of this source on this server, whether finished or not.

    One that can't be read may be the one: passing over it would pay for everything again.

    Raises:
        JournalUnusable: A journal there can't be read.
    """
    named = re.compile(rf"{re.escape(_name_of(job))}-\d{{8}}-\d{{6}}(?:-\d+)?")
    folders = EXECUTIONS.iterdir() if EXECUTIONS.is_dir() else ()
    ours = (source_of(job), server)
    found: list[tuple[float, str, Path]] = []
    for folder in folders:
        if named.fullmatch(folder.name) is None or not JournalFile.is_there(folder):
            continue
        with JournalReader.open(folder) as journal:
            facts = journal.facts
        # Not by the name: that is the local time, which goes back in autumn.
        if facts is not None and (facts.source, facts.server) == ours:
            found.append((facts.started_at_unix, folder.name, folder))
    return max(found)[2] if found else None


def _is_finished(folder: Path) -> bool:
    """Whether everything has ended, and its summary says so."""
    with JournalReader.open(folder) as journal:
        facts = journal.facts
        has_ended = facts is not None and journal.ended_count >= facts.requests
    return has_ended and (folder / SUMMARY_NAME).exists()


def source_of(job: Job) -> str:
    """What tells one source from another, wherever the command is given."""
    return str(job.source.resolve())


def _named_folder(job: Job) -> Path:
    """A folder whose name says what and when; it is made here, so nobody else gets the same."""
    when = datetime.fromtimestamp(unix_now(), UTC).astimezone()
    name = f"{_name_of(job)}-{when:%Y%m%d-%H%M%S}"
    try:
        EXECUTIONS.mkdir(FOLDER_MODE, exist_ok=True)
        return _made(EXECUTIONS / name)
    except OSError as error:
        problem = error.strerror or str(error)
        raise OutputFolderUnusable(path=EXECUTIONS, problem=problem) from None


def _beside(folder: Path) -> Path:
    """A new folder beside this one, with a number after its name."""
    try:
        return _made(folder.resolve())
    except OSError as error:
        problem = error.strerror or str(error)
        raise OutputFolderUnusable(path=folder.parent, problem=problem) from None


def _made(wanted: Path) -> Path:
    """The folder, made; where it is there already, the first free name with a number after it."""
    folder = wanted
    for number in count(2):
        with suppress(FileExistsError):
            folder.mkdir(FOLDER_MODE)
            break
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _name_of(job: Job) -> str:
    is_bare_file = job.source == job.requests
    what = job.source.stem if is_bare_file else job.source.resolve().parent.name
    return re.sub(r"[^\w.-]+", "_", what)[:NAME_CHARACTERS_MAX].lstrip(".-") or "job"
