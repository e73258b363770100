"""The emulator's own books: what it served, so that a test can compare both sides call by call."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.emulator.batch_life import Batches
from orchestrator.emulator.creates import Creates
from orchestrator.emulator.file_store import Files
from orchestrator.emulator.limits import Limits
from orchestrator.emulator.runs import Runs
from orchestrator.emulator.webhooks import Webhooks

# The newest calls that are kept one by one; about 0.5 GB when all are there.
RECORDS_MAX = 1_000_000


class Record(NamedTuple):
    """One served call."""

    sequence: int
    at_seconds: float
    route: str
    status: str
    model: str | None
    run_id: str | None
    client_request_id: str | None
    request_id: str
    fault: str | None
    metadata: Mapping[str, str] | None
    body_digest: str | None


class Books:
    """Counts and records what the pretend API served; the emulator's own pages do not count."""

    def __init__(
        self, runs: Runs, limits: Limits, files: Files, batches: Batches, webhooks: Webhooks
    ) -> None:
        self._runs = runs
        self._files = files
        self._batches = batches
        self.webhooks = webhooks
        self._limits = limits
        self._records: list[Record] = []
        self._calls: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._faults: Counter[str] = Counter()
        self._direct_tokens = [0, 0]
        self.creates = Creates()
        self._checks: dict[str, list[int]] = {}
        self._lists: dict[str, list[int]] = {}

    @property
    def calls_served(self) -> int:
        """All calls, answered or dropped."""
        return sum(counts.total() for counts in self._calls.values())

    def write(self, record: Record) -> None:
        """Note a call."""
        self._calls[record.route][record.status] += 1
        self._records.append(record)
        # Cut by a tenth at a time: cutting one by one would move a million entries a call.
        if len(self._records) > RECORDS_MAX * 1.1:
            del self._records[: len(self._records) - RECORDS_MAX]

    def met(self, fault: str) -> None:
        """Note a fault that was played."""
        self._faults[fault] += 1

    def spent(self, tokens_in: int, tokens_out: int) -> None:
        """Note the tokens of an answer that was no run."""
        self._direct_tokens[0] += tokens_in
        self._direct_tokens[1] += tokens_out

    def checked(self, run_id: str, *, final: bool) -> None:
        """Note that somebody looked at a run and saw it unfinished or finished."""
        self._checks.setdefault(run_id, [0, 0])[final] += 1

    def listed(self, route: str, count: int) -> None:
        """Note that one list call answered for so many runs or sessions."""
        counts = self._lists.setdefault(route, [0, 0, 0])
        counts[0] += 1
        counts[1] += count
        counts[2] = max(counts[2], count)

    def calls(self, after: int = 0, limit: int = 1000) -> Sequence[Record]:
        """Calls in order, from the one that follows number `after`."""
        if not self._records:
            return []
        start = max(0, after + 1 - self._records[0].sequence)
        return self._records[start : start + limit]

    def snapshot(self, now: float) -> dict[str, Any]:
        """Everything counted, as one JSON-ready value."""
        run_tokens = self._runs.billed(now)
        batch_tokens = self._batches.billed(now)
        statuses = self._runs.by_status(now)
        windows = self._limits.windows
        return {
            "at_seconds": now,
            "calls_served": self.calls_served,
            "calls": {route: dict(counts) for route, counts in self._calls.items()},
            "runs": {"created": sum(statuses.values()), "by_status": statuses},
            "refused_by_limit": dict(self._limits.refused),
            "faults": dict(self._faults + self.webhooks.played),
            "tokens": {
                "input": self._direct_tokens[0] + run_tokens[0] + batch_tokens[0],
                "output": self._direct_tokens[1] + run_tokens[1] + batch_tokens[1],
            },
            "models": {
                model: {
                    "requests_in_60_seconds_max": window.admitted_max,
                    "tokens_in_60_seconds_max": window.tokens_max,
                    "admitted_by_minute": dict(window.admitted_by_minute),
                }
                for model, window in windows.items()
            },
            "creates": self.creates.summary(),
            # run id: [checks that saw it unfinished, checks that saw it finished]
            "checks": {run_id: list(seen) for run_id, seen in self._checks.items()},
            # route: [list calls, things they answered for in all, things of the longest answer]
            "lists": {route: list(counts) for route, counts in self._lists.items()},
            "files": self._files.summary(now),
            "batches": self._batches.summary(now),
            "webhooks": self.webhooks.summary(),
        }
