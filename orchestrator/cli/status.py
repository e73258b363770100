"""`orchestrator status`: where an execution stands, from its journal."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from orchestrator.adapters.journal import JournalReader, Standing, Where, standing
from orchestrator.adapters.prices import price_of
from orchestrator.cli.telling import tell
from orchestrator.core.tally import Tally
from orchestrator.errors import ExecutionMissing
from orchestrator.execution.counts import Counts

FAILURES_TOLD = 5
WEBHOOKS_TOLD = ("heard", "early", "late", "unknown", "missed")
REFUSED_TOLD = ("forged", "stale")

WORDS: dict[Where, str] = {
    Where.HERE: "to be sent",
    Where.IN_DOUBT: "sent, answer not known",
    Where.THERE: "on the server",
    Where.TOOLS: "with tools",
}

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of an execution.")]
AsJson = Annotated[bool, typer.Option("--json", help="As one JSON object, for programs.")]


def status(folder: Folder, as_json: AsJson = False) -> None:
    """Tell where an execution stands, while it runs or after.

    Exit codes: 0 told, 2 there is no such execution.
    """
    if not JournalReader.is_there(folder):
        raise ExecutionMissing(path=folder)
    with JournalReader.open(folder) as journal:
        now = standing(journal)
        tally = Tally(price_of)
        for group in journal.ended_groups():
            tally.count_before(group)
    if as_json:
        tell(msgspec.json.encode(_as_dict(folder, now, tally)).decode())
        return
    for line in _lines(folder, now, tally):
        tell(line)


def _lines(folder: Path, now: Standing, tally: Tally) -> Iterator[str]:
    facts = now.facts
    if facts is None:
        yield f"{folder}: ended before it had begun; the command that made it begins again"
        return
    yield f"{folder}: {facts.source} on {facts.server}, begun {_when(facts.started_at_unix)}"
    if now.session is not None:
        yield _at_work(now)
    counted = {outcome.value.replace("_", " "): n for outcome, n in tally.outcomes.items()}
    counted |= {WORDS[where]: n for where, n in now.unfinished.items()}
    counted["not begun"] = _not_begun(now, tally)
    told = ", ".join(f"{n:,} {name}" for name, n in counted.items() if n)
    yield f"{facts.requests:,} requests: {told}"
    tokens = tally.tokens
    cost = "" if tally.cost_usd is None else f", ${tally.cost_usd:,.4f}"
    yield f"tokens: {tokens.input_tokens:,} in, {tokens.output_tokens:,} out{cost}"
    counts = Counts.read(now.counts)
    if lost := counts.totals.get("creates_lost", 0):
        yield f"answers lost on the way: {lost:,}; that work may be paid for without a result"
    if came := {name: n for name, n in _webhooks(counts).items() if n}:
        yield f"webhooks: {', '.join(f'{n:,} {name}' for name, n in came.items())}"
    for group in tally.failures[:FAILURES_TOLD]:
        example = f"{group.example_custom_id}: {group.example_message}"
        yield f"  {group.count:,} {group.outcome}, {group.code}; e.g. {example}"


def _webhooks(counts: Counts) -> dict[str, int]:
    told = {name: counts.totals.get(f"webhooks_{name}", 0) for name in WEBHOOKS_TOLD}
    return told | {name: counts.webhooks.get(name, 0) for name in REFUSED_TOLD}


def _at_work(now: Standing) -> str:
    session = now.session
    if session is None:
        return ""
    if now.is_alive:
        since = _when(session.started_unix)
        return f"at work: process {session.pid}, the {_nth(session.number)} one, since {since}"
    worked = _when(session.started_unix + session.last_seconds - session.base_seconds)
    is_left = now.facts is not None and sum(now.by_outcome.values()) < now.facts.requests
    then = "; the same command goes on with it" if is_left else ""
    return f"not at work: the last of {session.number} processes wrote at {worked}{then}"


def _nth(number: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def _not_begun(now: Standing, tally: Tally) -> int:
    requests = now.facts.requests if now.facts is not None else 0
    return max(requests - tally.ended - sum(now.unfinished.values()), 0)


def _as_dict(folder: Path, now: Standing, tally: Tally) -> dict[str, Any]:
    facts, session, counts = now.facts, now.session, Counts.read(now.counts)
    return {
        "folder": str(folder),
        "source": facts.source if facts else None,
        "server": facts.server if facts else None,
        "started_at": _when(facts.started_at_unix) if facts else None,
        "pid": session.pid if session is not None and now.is_alive else None,
        "processes": session.number if session is not None else 0,
        "requests": facts.requests if facts else 0,
        "outcomes": {outcome.value: n for outcome, n in tally.outcomes.items()},
        "unfinished": {where.value: now.unfinished.get(where, 0) for where in Where},
        "not_begun": _not_begun(now, tally),
        "tokens": {"input": tally.tokens.input_tokens, "output": tally.tokens.output_tokens},
        "cost_usd": tally.cost_usd,
        "webhooks": _webhooks(counts),
        "creates_lost": counts.totals.get("creates_lost", 0),
        "failures": [
            {
                "outcome": group.outcome.value,
                "code": group.code,
                "count": group.count,
                "example_custom_id": group.example_custom_id,
                "example_message": group.example_message,
            }
            for group in tally.failures
        ],
    }


def _when(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).astimezone().isoformat(" ", "seconds")
