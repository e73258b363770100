"""Decodes a job.toml; what it can't mean is told with table, key and cure."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from orchestrator.errors import JobUnusable

_TOML_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)
_WRONG_KIND = re.compile(r"Expected `(.+)`, got `(.+)` - at `\$\.(.+)`")

# msgspec's words for what TOML can say, in a person's words. "null" is how it says optional.
KINDS: Mapping[str, str] = {
    "str": "text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


class DefaultsTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[defaults]`: for the lines that don't say it themselves."""

    url: str | None = None
    model: str | None = None
    body: dict[str, Any] = {}


class LimitsTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[limits]`: the fields of Settings, where they are told what they mean."""

    rpm: float | None = None
    tpm: float | None = None
    checks_rpm: float | None = None
    check_price_seconds: float | None = None
    connections: int | None = None
    max_in_flight: int | None = None
    tools_at_once: int | None = None
    tool_timeout_seconds: float | None = None
    turns_max: int | None = None
    attempts_max: int | None = None
    deadline_seconds: float | None = None
    run_deadline_seconds: float | None = None
    execution_deadline_seconds: float | None = None
    max_cost_usd: float | None = None
    max_tokens: int | None = None
    same_failures_max: int | None = None
    lost_creates: str | None = None
    seed: int | None = None


class EmulatorTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[emulator]`: how the emulator behaves when the job is tried on it.

    `rules` and `answers` are files. Durations are seconds, or the name of a CSV file of them
    (FILE or FILE:COLUMN). `faults` is a table of name = rate, or text as `--faults` takes it;
    `deviations` is a list of names, or text as `--deviations` takes it. Keys that begin with
    `batch_` or `webhook_` are the emulator's settings of the same name.
    """

    seed: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    faults: str | dict[str, float] | None = None
    queue_seconds: float | str | None = None
    run_seconds: float | str | None = None
    rules: str | None = None
    answers: str | None = None
    retention_seconds: float | None = None
    poll_after_ms: int | None = None
    deviations: list[str] | str | None = None
    batch_seconds: float | str | None = None
    batch_expire_after_lines: int | None = None
    batch_enqueued_tokens: int | None = None
    batch_expires_seconds: float | None = None
    webhook_retry_seconds: float | None = None
    webhook_late_seconds: float | None = None
    webhook_outage_from_seconds: float | None = None
    webhook_outage_until_seconds: float | None = None


class BatchTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[batch]`: for `via = "batch"`; fields of Settings, where they are told what they mean."""

    enqueued_tokens: int | None = None
    batch_lines: int | None = None
    direct_below: int | None = None
    delete_files: bool | None = None


class WebhooksTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[webhooks]`: where events of the server are taken. Secrets never stand in a file."""

    listen: str | None = None
    gap_seconds: float | None = None


class JobTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole job.toml."""

    name: str | None = None
    requests: str | None = None
    tools: str | None = None
    via: str | None = None
    defaults: DefaultsTable = DefaultsTable()
    limits: LimitsTable = LimitsTable()
    batch: BatchTable = BatchTable()
    webhooks: WebhooksTable = WebhooksTable()
    emulator: EmulatorTable | None = None


TABLES: Mapping[str, type[msgspec.Struct]] = {
    "": JobTable,
    "defaults": DefaultsTable,
    "limits": LimitsTable,
    "batch": BatchTable,
    "webhooks": WebhooksTable,
    "emulator": EmulatorTable,
}


def read_table(path: Path) -> JobTable:
    """What a job.toml says, decoded.

    Raises:
        JobUnusable: It can't be read, is no TOML, or has a key or a value that it can't have.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        problem = error.strerror or "it can't be read"
        cure = "Make it a file that you may read."
        raise JobUnusable(path=path, problem=problem, cure=cure) from None
    except UnicodeDecodeError as error:
        problem = f"it is no UTF-8 text (byte {error.start})"
        raise JobUnusable(path=path, problem=problem, cure="Save it as UTF-8.") from None
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _refuse_syntax(path, text, str(error))
    for table, key in _unknown_keys(given):
        _refuse_key(path, table, key)
    try:
        return msgspec.convert(given, JobTable)
    except msgspec.ValidationError as error:
        _refuse_kind(path, str(error))


def _unknown_keys(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(table, key) of what no table has; "" is the top of the file."""
    for table, struct in TABLES.items():
        content = given.get(table) if table else given
        if isinstance(content, dict):
            yield from ((table, key) for key in content if key not in struct.__struct_fields__)


def _refuse_syntax(path: Path, text: str, message: str) -> NoReturn:
    problem, line = message, str(text.count("\n") + 1)
    if found := _TOML_PLACE.fullmatch(message):
        problem, line = found[1], found[2] or line
    raise JobUnusable(
        path=path,
        problem=f"line {line} is no valid TOML ({problem})",
        cure="Each setting is a line like rpm = 600, and texts stand in quotes.",
    )


def _refuse_key(path: Path, table: str, key: str) -> NoReturn:
    where = f"[{table}] has" if table else "there is"
    known = TABLES[table].__struct_fields__
    elsewhere = [
        f"below [{name}]" if name else "at the top, above the first [table]"
        for name, struct in TABLES.items()
        if key in struct.__struct_fields__
    ]
    if elsewhere:
        cure = f"Write it {' or '.join(elsewhere)}."
    else:
        alike = get_close_matches(key, known, n=1)
        cure = f'Did you mean "{alike[0]}"? ' if alike else ""
        cure += f"Known here are {', '.join(known)}."
    raise JobUnusable(path=path, problem=f'{where} no setting "{key}"', cure=cure)


def _refuse_kind(path: Path, message: str) -> NoReturn:
    found = _WRONG_KIND.fullmatch(message)
    if found is None:
        raise JobUnusable(path=path, problem=message, cure="Correct it.")
    *tables, key = found[3].replace("[...]", "").split(".")
    place = f"[{'.'.join(tables)}] {key}" if tables else key
    wanted = " or ".join(KINDS[kind] for kind in found[1].split(" | ") if kind != "null")
    got = "a number with a point" if found[2] == "float" else KINDS.get(found[2], f"a {found[2]}")
    quotes = ", without quotes" if found[2] == "str" else ""
    raise JobUnusable(path=path, problem=f"{place} is {got}", cure=f"Write {wanted}{quotes}.")
