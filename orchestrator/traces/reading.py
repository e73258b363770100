"""Reads durations from a CSV file, or from what an earlier execution has kept."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

from orchestrator.adapters.journal import JournalFile, JournalReader
from orchestrator.core.lifetimes import LAST_SECONDS
from orchestrator.errors import TraceUnusable

JOURNAL_ENDING = ".sqlite"

# A trace is held in memory, and replayed a dozen times.
RUNS_MAX = 5_000_000

# A column is looked at as far as this when none was named.
ROWS_LOOKED_AT = 100
_DURATION_NAME = re.compile(r"second|latency|duration|elapsed|time|_m?s$", re.IGNORECASE)

MILLISECONDS_ENDING = "_ms"


@dataclass(frozen=True, slots=True)
class Trace:
    """Recorded durations.

    Attributes:
        runs: Key and seconds of each, in the order in which they are there.
        column: Where the durations were.
        left_out: Rows without a duration from 0 s to a day, and those that were not wanted.
    """

    runs: Sequence[tuple[str, float]]
    column: str
    left_out: int


def read_trace(
    path: Path, *, column: str | None = None, key: str | None = None, leave_out: str | None = None
) -> Trace:
    """The durations in a file or in an execution's folder.

    Args:
        path: A CSV file, the folder of an execution, or its journal.
        column: The one with the durations, in seconds, or in milliseconds if its name ends in
            "_ms"; None: the only one that looks like it.
        key: A column; runs that differ there are learned apart. None: all are alike; those of an
            execution are told apart by model and url.
        leave_out: COLUMN=VALUE; such rows are left out.

    Raises:
        TraceUnusable: There are no durations to be found.
    """
    folder = path.parent if path.name.endswith(JOURNAL_ENDING) else path
    if JournalFile.is_there(folder):
        trace = _of_execution(folder)
    else:
        trace = _of_table(path, column, key, leave_out)
    if not trace.runs:
        problem = "it has no durations"
        raise TraceUnusable(path=path, problem=problem, cure="Give one of runs that have ended.")
    return trace


def _of_execution(folder: Path) -> Trace:
    with JournalReader.open(folder) as journal:
        durations = list(islice(journal.durations(), RUNS_MAX))
    runs = [(key, seconds) for key, seconds in durations if 0.0 <= seconds <= LAST_SECONDS]
    return Trace(runs, "seconds", len(durations) - len(runs))


def _of_table(path: Path, column: str | None, key: str | None, leave_out: str | None) -> Trace:
    try:
        with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
            return _read(path, file, column, key, leave_out)
    except OSError as error:
        problem = error.strerror or "it can't be read"
        cure = "Give a CSV file, or the folder of an execution."
        raise TraceUnusable(path=path, problem=problem, cure=cure) from None
    except csv.Error as error:
        cure = "Give a CSV file with a line of names at the top."
        raise TraceUnusable(path=path, problem=f"it is no CSV ({error})", cure=cure) from None


def _read(
    path: Path, file: TextIO, column: str | None, key: str | None, leave_out: str | None
) -> Trace:
    rows: Iterator[list[str]] = csv.reader(file)
    names = next(rows, [])
    if names and all(_number(cell) is not None for cell in names):
        # No line of names: columns are called by their number.
        rows, names = chain([names], rows), [str(number) for number in range(1, len(names) + 1)]
    first = list(islice(rows, ROWS_LOOKED_AT))
    place = _place(path, names, column) if column else _likely(path, names, first)
    key_place = _place(path, names, key) if key else None
    unwanted_name, _, unwanted = (leave_out or "").partition("=")
    unwanted_place = _place(path, names, unwanted_name) if leave_out else None
    by = 1000.0 if names[place].endswith(MILLISECONDS_ENDING) else 1.0
    runs: list[tuple[str, float]] = []
    left_out = 0
    for row in chain(first, rows):
        seconds = _number(row[place]) if place < len(row) else None
        is_unwanted = unwanted_place is not None and row[unwanted_place : unwanted_place + 1] == [
            unwanted
        ]
        if seconds is None or not 0.0 <= seconds / by <= LAST_SECONDS or is_unwanted:
            left_out += bool(row)
            continue
        name = row[key_place] if key_place is not None and key_place < len(row) else ""
        runs.append((name, seconds / by))
        if len(runs) > RUNS_MAX:
            cure = "Give a part of it."
            raise TraceUnusable(path=path, problem=f"it has over {RUNS_MAX:,} rows", cure=cure)
    return Trace(runs, names[place], left_out)


def _place(path: Path, names: Sequence[str], name: str) -> int:
    if name in names:
        return names.index(name)
    known = ", ".join(islice(names, 20))
    raise TraceUnusable(path=path, problem=f"no column is called {name!r}", cure=f"Use: {known}.")


def _likely(path: Path, names: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """The only column of numbers, or the only one of these that is called like a duration."""
    numeric = list(_numeric(names, list(rows)))
    named = [place for place in numeric if _DURATION_NAME.search(names[place])]
    for places in (named, numeric):
        if len(places) == 1:
            return places[0]
    known = ", ".join(names[place] for place in named or numeric)
    problem = "which column has the durations can't be told" if numeric else "it has no numbers"
    cure = f"Name it with --column: {known}." if known else "Give a CSV file with durations."
    raise TraceUnusable(path=path, problem=problem, cure=cure)


def _numeric(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[int]:
    for place in range(len(names)):
        cells = [row[place] for row in rows if place < len(row) and row[place].strip()]
        if cells and all(_number(cell) is not None for cell in cells):
            yield place


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
