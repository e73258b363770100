"""Keeps what an execution has learned of how long runs take, for the next one of the same source.

It only saves checks, so whatever is wrong with the file is a warning in the log, and learning
begins anew.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from structlog.typing import FilteringBoundLogger

from orchestrator.adapters.journal import Facts, JournalFile, JournalReader
from orchestrator.adapters.result_file import FILE_MODE
from orchestrator.core.learned import KINDS_KEPT_MAX, Kept, Kind, Learned
from orchestrator.errors import OrchestratorError

LIFETIMES_NAME = "lifetimes.json"
VERSION = 1

# 200 kinds of some 500 bins, two counts each of up to 12 characters, are 2.4 MB.
BYTES_MAX = 8_000_000

# Folders beside that are looked into for one of the same source, the newest first.
FOLDERS_MAX = 20


class _Counts(msgspec.Struct):
    """One kind of runs; see `core.lifetimes.Lifetimes.counts`."""

    family: str
    model: str
    url: str
    after_outputs: bool
    ended: list[float]
    entered: list[float]


class _File(msgspec.Struct):
    """The whole file. A reader that does not know its version leaves it alone."""

    version: int
    kinds: list[_Counts]


def learned_before(
    folder: Path, facts: Facts, check_price_seconds: float, log: FilteringBoundLogger
) -> Learned:
    """What an execution begins with: what it has learned itself, or the newest one beside it has.

    Args:
        folder: Of the execution.
        facts: Of the execution: only one of the same source on the same server is its like.
        check_price_seconds: What a check is worth.
        log: Told when a file can't be used.
    """
    for path in _files(folder, facts):
        try:
            learned = Learned(check_price_seconds, _read(path))
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            problem = getattr(error, "strerror", None) or str(error) or "its numbers are no counts"
            log.warning("lifetimes.unreadable", path=str(path), problem=problem)
            break
        log.info("lifetimes.read", path=str(path))
        return learned
    return Learned(check_price_seconds)


def keep_learned(folder: Path, learned: Learned, log: FilteringBoundLogger) -> None:
    """Write what was learned into the folder, whole or not at all."""
    kinds = [_Counts(*kept.kind, list(kept.ended), list(kept.entered)) for kept in learned.kept()]
    if not kinds:
        return
    path, half = folder / LIFETIMES_NAME, folder / f".{LIFETIMES_NAME}"
    try:
        half.touch(mode=FILE_MODE)
        half.write_bytes(msgspec.json.encode(_File(VERSION, kinds)) + b"\n")
        half.replace(path)
    except (OSError, UnicodeEncodeError) as error:
        with suppress(OSError):
            half.unlink()
        log.warning("lifetimes.not_kept", path=str(path), problem=str(error))


def _files(folder: Path, facts: Facts) -> Iterator[Path]:
    """Where something may have been kept: here, else beside, the newest first."""
    if (folder / LIFETIMES_NAME).is_file():
        yield folder / LIFETIMES_NAME
        return
    dated: list[tuple[float, Path]] = []
    with suppress(OSError):
        paths = folder.resolve().parent.glob(f"*/{LIFETIMES_NAME}")
        dated = [(path.stat().st_mtime, path) for path in paths]
    for _, path in sorted(dated, reverse=True)[:FOLDERS_MAX]:
        if _is_alike(path.parent, facts):
            yield path


def _is_alike(folder: Path, facts: Facts) -> bool:
    if not JournalFile.is_there(folder):
        return False
    with suppress(OrchestratorError), JournalReader.open(folder) as journal:
        theirs = journal.facts
        return theirs is not None and (theirs.source, theirs.server) == (facts.source, facts.server)
    return False


def _read(path: Path) -> list[Kept]:
    with path.open("rb") as file:
        content = file.read(BYTES_MAX + 1)
    if len(content) > BYTES_MAX:
        problem = f"it has over {BYTES_MAX:,} bytes"
        raise ValueError(problem)
    read = msgspec.json.decode(content, type=_File)
    if read.version != VERSION:
        problem = f"it is of version {read.version}, not {VERSION}"
        raise ValueError(problem)
    return [
        Kept(
            Kind(each.family, each.model, each.url, each.after_outputs),
            tuple(each.ended),
            tuple(each.entered),
        )
        for each in reversed(read.kinds[:KINDS_KEPT_MAX])  # the newest is first there, last here
    ]
