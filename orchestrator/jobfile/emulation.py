"""Turns a job's `[emulator]` table into the settings of an emulator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.emulator.answers import read_answers
from orchestrator.emulator.deviations import parse_deviations
from orchestrator.emulator.durations import Durations, Fixed, parse_durations
from orchestrator.emulator.faults import parse_faults
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.rules import read_rules
from orchestrator.emulator.settings import Settings
from orchestrator.errors import JobUnusable
from orchestrator.jobfile.job import Job
from orchestrator.jobfile.table import EmulatorTable

# Keys whose values are the settings of the same name.
PLAIN = (
    "seed",
    "rpm",
    "tpm",
    "retention_seconds",
    "poll_after_ms",
    "batch_expire_after_lines",
    "batch_enqueued_tokens",
    "batch_expires_seconds",
    "webhook_retry_seconds",
    "webhook_late_seconds",
    "webhook_outage_from_seconds",
    "webhook_outage_until_seconds",
)


def emulator_settings(job: Job) -> Settings:
    """How the emulator behaves for this job: its `[emulator]` table over the emulator's defaults.

    Raises:
        JobUnusable: A value can't be meant, or a file that it points to can't be used.
    """
    table = job.emulator or EmulatorTable()
    folder = job.source.parent
    given: dict[str, Any] = {
        name: getattr(table, name) for name in PLAIN if getattr(table, name) is not None
    }
    try:
        for name in ("queue_seconds", "run_seconds", "batch_seconds"):
            if (durations := getattr(table, name)) is not None:
                given[name] = _durations(durations, folder)
        if table.faults is not None:
            given["faults"] = parse_faults(_faults_text(table.faults, folder))
        if table.deviations is not None:
            said = table.deviations
            given["deviations"] = parse_deviations(
                said if isinstance(said, str) else ",".join(said)
            )
        if table.rules is not None:
            given["rules"] = read_rules(folder / table.rules)
        if table.answers is not None:
            given["answers"] = read_answers(folder / table.answers)
        return Settings(**given)
    except EmulatorMistake as mistake:
        raise JobUnusable(
            path=job.source,
            problem=f"[emulator] {mistake}",
            cure="Correct it, or run without the emulator, which alone needs it.",
        ) from mistake


def _durations(given: float | str, folder: Path) -> Durations:
    return parse_durations(str(folder / given)) if isinstance(given, str) else Fixed(given)


def _faults_text(given: str | Mapping[str, float], folder: Path) -> str:
    """Faults in the form of `--faults`, which knows the names and what `all` is short for."""
    if not isinstance(given, str):
        return ",".join(f"{name}={rate!r}" for name, rate in given.items())
    is_file = Path(given).suffix in {".toml", ".json"}
    return str(folder / given) if is_file else given
