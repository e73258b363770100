"""How long things take: always the same, by a lognormal, or like the values of a trace."""

import csv
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite
from pathlib import Path
from statistics import NormalDist
from typing import Protocol

from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.tables import read_text

_NORMAL = NormalDist()


class Durations(Protocol):
    """Where durations come from."""

    def seconds(self, chance: float) -> float:
        """The duration for a chance strictly between 0 and 1, in seconds, never negative."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Every duration is the same number of seconds."""

    value_seconds: float

    def __post_init__(self) -> None:
        """Refuse what no clock can show."""
        if not (isfinite(self.value_seconds) and self.value_seconds >= 0):
            message = f"a duration must be 0 or more seconds, got {self.value_seconds}"
            raise EmulatorMistake(message)

    def seconds(self, chance: float) -> float:  # noqa: ARG002 - there is no chance in it
        """Always the same."""
        return self.value_seconds


@dataclass(frozen=True, slots=True)
class Uniform:
    """Anything between two numbers of seconds, each as likely."""

    shortest_seconds: float
    longest_seconds: float

    def seconds(self, chance: float) -> float:
        """The point between shortest and longest."""
        return self.shortest_seconds + chance * (self.longest_seconds - self.shortest_seconds)


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Most durations near the median, a few very long: the shape of real answer times."""

    median_seconds: float
    sigma: float

    def seconds(self, chance: float) -> float:
        """The quantile of the lognormal at `chance`."""
        return self.median_seconds * exp(self.sigma * _NORMAL.inv_cdf(chance))


@dataclass(frozen=True, slots=True)
class Trace:
    """Durations that were measured once; each is as likely as any other."""

    values_seconds: Sequence[float]

    def seconds(self, chance: float) -> float:
        """One of the values."""
        return self.values_seconds[int(chance * len(self.values_seconds))]


def parse_durations(text: str) -> Durations:
    """Read `SECONDS`, `FILE` or `FILE:COLUMN`.

    Raises EmulatorMistake when it is neither a number of seconds nor a readable trace.
    """
    try:
        return Fixed(float(text))
    except EmulatorMistake:
        raise
    except ValueError:
        pass
    path, column = Path(text), None
    if not path.exists() and ":" in text:
        name, _, column = text.rpartition(":")
        path = Path(name)
    if not path.is_file():
        message = (
            f"durations {text!r} is neither a number of seconds nor a file; "
            "give a number such as 0.5, or a CSV file as FILE or FILE:COLUMN"
        )
        raise EmulatorMistake(message)
    return read_trace(path, column)


def read_trace(path: Path, column: str | None = None) -> Trace:
    """Read a column of seconds from a CSV file.

    Without a name it is the first column named like seconds ("second" in it, or ending in "_s" or
    "_ms"), else the first that holds a number. Milliseconds (a name that ends in "ms") are turned
    into seconds, empty cells are left out.
    """
    reader = csv.reader(read_text(path).splitlines())
    try:
        rows = [(reader.line_num, row) for row in reader if any(row)]
    except csv.Error as error:
        message = f"{path}, line {reader.line_num}: not valid CSV ({error})"
        raise EmulatorMistake(message) from error
    if not rows:
        message = f"{path}: no durations in it; one column of seconds is needed"
        raise EmulatorMistake(message)
    names = rows[0][1]
    if all(_is_number(cell) for cell in names if cell):
        names = [str(position) for position in range(1, len(names) + 1)]
    else:
        rows = rows[1:]
    place = _column_of(path, column, names, rows)
    scale = 0.001 if names[place].lower().endswith("ms") else 1.0
    cells = [(line, row[place].strip()) for line, row in rows if len(row) > place]
    values = array("d", [_cell(path, line, cell) * scale for line, cell in cells if cell])
    if not values:
        message = f"{path}: column {names[place]!r} has no durations in it"
        raise EmulatorMistake(message)
    return Trace(values)


def _column_of(
    path: Path, column: str | None, names: list[str], rows: list[tuple[int, list[str]]]
) -> int:
    if column is not None:
        if column in names:
            return names.index(column)
        message = f"{path}: no column {column!r}; there are {', '.join(names)}"
        raise EmulatorMistake(message)
    for place, name in enumerate(names):
        if "second" in name.lower() or name.lower().endswith(("_s", "_ms")):
            return place
    for place in range(len(names)):
        if rows and len(rows[0][1]) > place and _is_number(rows[0][1][place]):
            return place
    message = f"{path}: no column of numbers; name one as FILE:COLUMN"
    raise EmulatorMistake(message)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _cell(path: Path, line: int, cell: str) -> float:
    if _is_number(cell) and isfinite(float(cell)) and float(cell) >= 0:
        return float(cell)
    message = f"{path}, line {line}: {cell!r} is no duration; 0 or more seconds are needed"
    raise EmulatorMistake(message)
