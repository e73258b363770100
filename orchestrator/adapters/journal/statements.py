"""The SQL of the package, from the files beside it."""

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import chain
from typing import Any

# One statement for so many rows. The interpreter's lock is let go and taken again once for each
# statement, and beside a busy event loop it takes up to 5 ms to get it back: with one row a time
# commits took twice as long (12,000 requests a second, benchmarks/journal.py).
ROWS_PER_STATEMENT = 100

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def text_of(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _named(text: str) -> Mapping[str, str]:
    _, *parts = _NAME.split(text)
    return dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))


SQL = _named(text_of("statements.sql"))
UPGRADES = _named(text_of("upgrades.sql"))  # by the schema that they lead to


def run_rows(connection: sqlite3.Connection, name: str, rows: Sequence[Sequence[Any]]) -> None:
    """Do what the statement says for all of these rows, with few statements."""
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        part = rows[start : start + ROWS_PER_STATEMENT]
        connection.execute(_for_rows(name, len(part), len(part[0])), _flat(part))


def run_places(connection: sqlite3.Connection, name: str, values: Sequence[Any]) -> int:
    """Do what the statement says for all of these values; how many rows it changed."""
    changed = 0
    for start in range(0, len(values), ROWS_PER_STATEMENT):
        part = values[start : start + ROWS_PER_STATEMENT]
        changed += connection.execute(_for_places(name, len(part)), part).rowcount
    return changed


def _flat(rows: Iterable[Sequence[Any]]) -> list[Any]:
    return list(chain.from_iterable(rows))


@cache  # as many as there are sizes
def _for_rows(name: str, rows: int, width: int) -> str:
    row = f"({','.join('?' * width)})"
    return SQL[name].replace("{rows}", ",".join([row] * rows))


@cache  # as many as there are sizes
def _for_places(name: str, places: int) -> str:
    return SQL[name].replace("{places}", ",".join("?" * places))
