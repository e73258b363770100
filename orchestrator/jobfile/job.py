"""What to run and how: a job.toml or a bare request file, with the command line's words on top."""

from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

import msgspec

from orchestrator.adapters.request_file import RequestDefaults
from orchestrator.core.settings import Settings
from orchestrator.errors import JobUnusable, SettingUnusable, SourceMissing
from orchestrator.jobfile.address import Address, address_of
from orchestrator.jobfile.places import (
    JOB_FILE,
    check_ending,
    mode_of,
    refuse_folder,
    refuse_missing_requests,
)
from orchestrator.jobfile.table import EmulatorTable, JobTable, read_table

REQUESTS_DEFAULT = "requests.jsonl"
TOOLS_DEFAULT = "tools.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What was said on the command line; None where nothing was."""

    url: str | None = None
    model: str | None = None
    rpm: float | None = None
    tpm: float | None = None
    checks_rpm: float | None = None
    check_price_seconds: float | None = None
    max_in_flight: int | None = None
    connections: int | None = None
    tools: Path | None = None
    deadline_seconds: float | None = None
    run_deadline_seconds: float | None = None
    execution_deadline_seconds: float | None = None
    max_cost_usd: float | None = None
    max_tokens: int | None = None
    same_failures_max: int | None = None
    lost_creates: str | None = None
    via: str | None = None
    enqueued_tokens: int | None = None
    direct_below: int | None = None
    delete_files: bool | None = None
    webhooks: str | None = None


OVERRIDABLE = (
    "via",
    "enqueued_tokens",
    "direct_below",
    "delete_files",
    "rpm",
    "tpm",
    "checks_rpm",
    "check_price_seconds",
    "max_in_flight",
    "connections",
    "deadline_seconds",
    "run_deadline_seconds",
    "execution_deadline_seconds",
    "max_cost_usd",
    "max_tokens",
    "same_failures_max",
    "lost_creates",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to run and how.

    Attributes:
        name: What people call it.
        source: The job.toml, or the request file where there is none.
        requests: The request file; it exists, but nobody has looked into it.
        defaults: For the lines that don't say it themselves.
        settings: The limits to keep.
        tools: The Python file of the tools; None: the job has none.
        listen: Where webhooks are taken; None: nowhere.
        emulator: How the emulator behaves for it, see `emulator_settings`.
    """

    name: str
    source: Path
    requests: Path
    defaults: RequestDefaults
    settings: Settings
    tools: Path | None = None
    listen: Address | None = None
    emulator: EmulatorTable | None = None


def read_job(source: Path, overrides: Overrides | None = None) -> Job:
    """The job in a folder, or the one that a bare request file is.

    Raises:
        SourceMissing: There is nothing at `source`.
        SourceUnusable: It is no job folder and no file of JSON lines.
        JobUnusable: Its job.toml has a mistake, or points to what is not there.
        SettingUnusable: One of the overrides can't be used.
    """
    said = overrides or Overrides()
    mode = mode_of(source)
    if mode is None:
        raise SourceMissing(path=source)
    if S_ISDIR(mode):
        return _read_folder(source, said)
    check_ending(source, mode)
    return _job(source, source.stem, source, JobTable(), said)


def _read_folder(folder: Path, said: Overrides) -> Job:
    path = folder / JOB_FILE
    if mode_of(path) is None:
        refuse_folder(folder)
    table = read_table(path)
    if table.name is not None and not (table.name.strip() and table.name.isprintable()):
        problem = f"the name {table.name!r} can't be read by people"
        cure = "Write a few words on one line, or leave it out: the folder has a name."
        raise JobUnusable(path=path, problem=problem, cure=cure)
    requests = folder / (table.requests or REQUESTS_DEFAULT)
    mode = mode_of(requests)
    if mode is None:
        refuse_missing_requests(path, requests, table.requests)
    check_ending(requests, mode)
    return _job(path, table.name or folder.resolve().name, requests, table, said)


def _job(source: Path, name: str, requests: Path, table: JobTable, said: Overrides) -> Job:
    """The job that the table asks for, the overrides put on top."""
    by_table = {
        "limits": msgspec.structs.asdict(table.limits),
        "batch": msgspec.structs.asdict(table.batch),
        "webhooks": {"webhook_gap_seconds": table.webhooks.gap_seconds},
        "": {"via": table.via},
    }
    given = {
        name: {field: value for field, value in fields.items() if value is not None}
        for name, fields in by_table.items()
    }
    limits = {field: value for fields in given.values() for field, value in fields.items()}
    overriding = {
        field: value for field in OVERRIDABLE if (value := getattr(said, field)) is not None
    }
    defaults = table.defaults
    # First as the file has them: what is wrong there must not be hidden by an override, and the
    # message must name the file.
    try:
        for where, fields in given.items():
            Settings(**(fields | ({"via": "batch"} if where == "batch" else {})))
        where = "defaults"
        RequestDefaults(defaults.url, defaults.model, defaults.body)
        where = "webhooks"
        listen = address_of("listen", table.webhooks.listen)
    except SettingUnusable as error:
        # In its table it goes by a shorter name.
        said_there = f"{error.name.removeprefix('webhook_')} = {error.value!r}: {error.problem}"
        raise JobUnusable(
            path=source,
            problem=f"[{where}] {said_there}" if where else said_there,
            cure=error.cure or "Correct it, or leave it out for the default.",
        ) from None
    if given["batch"] and "via" not in limits | overriding:
        problem = "there is a [batch] table, and nothing says that this job goes by batches"
        cure = 'Write via = "batch" at the top or say --via batch, or leave the table out.'
        raise JobUnusable(path=source, problem=problem, cure=cure)
    settings = Settings(**(limits | overriding))
    return Job(
        name=name,
        source=source,
        requests=requests,
        defaults=RequestDefaults(
            defaults.url if said.url is None else said.url,
            defaults.model if said.model is None else said.model,
            defaults.body,
            via_batch=settings.via_batch,
        ),
        settings=settings,
        tools=_tools(source, table) if said.tools is None else said.tools,
        listen=listen if said.webhooks is None else address_of("webhooks", said.webhooks),
        emulator=table.emulator,
    )


def _tools(source: Path, table: JobTable) -> Path | None:
    """The job's own tools: those it names, or a tools.py in its folder."""
    if source.name != JOB_FILE:
        return None
    path = source.parent / (table.tools or TOOLS_DEFAULT)
    if path.is_file():
        return path
    if table.tools is None:
        return None
    problem = f'there is no file for tools = "{table.tools}"'
    cure = f"It is looked for at {path}; correct the name, or leave it out when there are no tools."
    raise JobUnusable(path=source, problem=problem, cure=cure)
