"""Counts results into the summary of an execution, and how things stand while it runs.

Everything here stays small whatever the number of results: failures are kept as groups with one
example each, and the pace of an execution as a few dozen moments.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from orchestrator.core.alike import Failures, readable
from orchestrator.core.budget import Price, cost_usd
from orchestrator.core.failures import Cause
from orchestrator.core.model import NO_USAGE, Outcome, Result, RunError, Usage
from orchestrator.core.totals import Totals

# Codes come from servers, so their number has to be bounded; what comes later counts as OTHER.
FAILURE_CODES_MAX = 100
OTHER = "other"

# Also from servers. A code is read by programs, a message by people, who stop at a few lines.
CODE_CHARACTERS_MAX = 100
MESSAGE_CHARACTERS_MAX = 500

# As many models without a price are named; more would not be read.
UNPRICED_NAMED_MAX = 5

Kind = TypeVar("Kind", bound=str)


class EndedBefore(Protocol):
    """Requests of a model that ended alike, as a journal sums them up."""

    @property
    def outcome(self) -> Outcome: ...
    @property
    def code(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def cost_usd(self) -> float | None: ...
    @property
    def custom_id(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def cause(self) -> Cause | None: ...
    @property
    def is_reopened(self) -> bool: ...


class Tally:
    """Counts results as they come: outcomes, tokens, cost, and why requests failed.

    Args:
        price: What this usage of this model costs in USD, None where no price is known.
    """

    def __init__(self, price: Price) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.tokens: Usage = NO_USAGE
        self._price = price
        self._cost_usd = 0.0
        self._unpriced: set[str] = set()
        self._failures: dict[tuple[Outcome, str, Cause | None], Failures] = {}
        self._codes: set[str] = set()

    def count(self, result: Result) -> None:
        """Count one result; each request once."""
        self.outcomes[result.outcome] += 1
        if result.usage != NO_USAGE:
            self.tokens += result.usage
            self._add_cost(result.request.model, result.usage, result.batch_usage)
        if result.outcome is not Outcome.COMPLETED:
            self._add_failure(result.outcome, result.error, result.custom_id)

    def count_before(self, group: EndedBefore) -> None:
        """Count requests that an earlier process saw end.

        Of those that are sent again, only what they cost counts.
        """
        if group.usage != NO_USAGE:
            self.tokens += group.usage
            self._add_usd(group.model, group.cost_usd)
        if group.is_reopened:
            return
        self.outcomes[group.outcome] += group.count
        if group.outcome is not Outcome.COMPLETED:
            error = RunError(group.code, group.message, group.cause)
            self._add_failure(group.outcome, error, group.custom_id, group.count)

    @property
    def ended(self) -> int:
        """Requests counted."""
        return self.outcomes.total()

    @property
    def done(self) -> int:
        """Requests that completed."""
        return self.outcomes[Outcome.COMPLETED]

    @property
    def failed(self) -> int:
        """Requests that ended in any other way."""
        return self.ended - self.done

    @property
    def cost_usd(self) -> float | None:
        """What all that was counted costs, None when some of it has no known price."""
        return None if self._unpriced else self._cost_usd

    @property
    def cost_note(self) -> str | None:
        """Why there is no cost, in words; None when there is one."""
        if not self._unpriced:
            return None
        names = sorted(self._unpriced)[:UNPRICED_NAMED_MAX]
        more = " and others" if len(self._unpriced) > UNPRICED_NAMED_MAX else ""
        return f"no price is known for: {', '.join(names)}{more}"

    @property
    def failures(self) -> list[Failures]:
        """Why requests failed, the commonest reason first."""
        return sorted(self._failures.values(), key=lambda group: -group.count)

    def _add_cost(self, model: str, usage: Usage, batched: Usage) -> None:
        self._add_usd(model, cost_usd(self._price, model, usage, batched))

    def _add_usd(self, model: str, cost: float | None) -> None:
        if cost is not None:
            self._cost_usd += cost
        elif len(self._unpriced) <= UNPRICED_NAMED_MAX:
            self._unpriced.add(readable(model, CODE_CHARACTERS_MAX))

    def _add_failure(
        self, outcome: Outcome, error: RunError | None, custom_id: str, count: int = 1
    ) -> None:
        error = error or RunError("", "")
        code = self._bounded(readable(error.code or outcome, CODE_CHARACTERS_MAX))
        kind = (outcome, code, error.cause)
        group = self._failures.get(kind)
        if group is not None:
            group.count += count
            return
        self._failures[kind] = Failures(
            outcome=outcome,
            code=code,
            cause=error.cause,
            count=count,
            example_custom_id=readable(custom_id),
            example_message=readable(error.message, MESSAGE_CHARACTERS_MAX),
        )

    def _bounded(self, code: str) -> str:
        if code not in self._codes and len(self._codes) >= FAILURE_CODES_MAX:
            return OTHER
        self._codes.add(code)
        return code

    def _cost_and_note(self, totals: Totals) -> tuple[float | None, str | None]:
        """With lines whose end nobody knows there is no cost: a part would look like the whole."""
        unsettled = totals.lines_sent - totals.lines_answered - totals.lines_undone
        if unsettled > 0:
            note = f"{unsettled:,} lines of batches have no result here and may be paid for"
            return None, note
        return self.cost_usd, self.cost_note

    def summary(
        self,
        *,
        source: str,
        started_at: str,
        version: str,
        requests: int,
        totals: Totals,
        calls: Mapping[tuple[Kind, str], int],
        kinds: Iterable[str] = (),
        tasks_max: int,
        wall_seconds: float,
        stopped: RunError | None = None,
        budget: Mapping[str, Any] | None = None,
        webhooks: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """What summary.json says: plain values, every key always there.

        `outcomes` and `not_started` add up to `requests`. Percentiles are by nearest rank.

        Args:
            source: What was run, as the user named it.
            started_at: ISO 8601 in UTC.
            version: Of this program.
            requests: In the source.
            totals: What the scheduler counted.
            calls: HTTP calls by kind and by status code, or the cause where there was no answer.
            kinds: Kinds of calls that are in the summary also when there were none.
            tasks_max: The highest number of tasks seen alive.
            wall_seconds: From the first request read to the last result written.
            stopped: Why the execution was stopped early.
            budget: Limits and what was spent, None without a limit.
            webhooks: What came of them, None where none were taken.
        """
        cost, note = self._cost_and_note(totals)
        return {
            "source": readable(source),
            "started_at": started_at,
            "version": version,
            "wall_seconds": round(wall_seconds, 3),
            "requests": requests,
            "not_started": max(0, requests - self.ended),
            "outcomes": {str(outcome): self.outcomes[outcome] for outcome in Outcome},
            "calls": _calls_by_kind(calls, kinds),
            "checks_per_run": _ratio(totals.checks, totals.created_to_check),
            "detection_delay_seconds": _percentiles(totals.detection_delays_seconds),
            "http_429": sum(n for (_, status), n in calls.items() if status == "429"),
            "retries": totals.retries,
            "creates_lost": totals.creates_lost,
            "tool_failures": totals.tool_failures,
            "batches": _batches(totals),
            "turns": totals.turns,
            "tool_calls": totals.tool_calls,
            "tokens": {
                "input": self.tokens.input_tokens,
                "output": self.tokens.output_tokens,
                "cached": self.tokens.cached_tokens,
                "reasoning": self.tokens.reasoning_tokens,
            },
            "cost_usd": None if cost is None else round(cost, 6),
            "cost_note": note,
            "budget": budget,
            "webhooks": webhooks,
            "in_flight_max": totals.in_flight_max,
            "tasks_max": tasks_max,
            "failures": [group.as_dict() for group in self.failures],
            "stopped": None if stopped is None else _error_as_dict(stopped),
        }


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The smallest value that at least `percent` (1 to 100) of all values do not exceed.

    Raises:
        IndexError: There are no values.
    """
    rank = -(-percent * len(ascending) // 100)  # rounded up, in integers: 0.95 is no binary number
    return ascending[rank - 1]


def _calls_by_kind(
    calls: Mapping[tuple[Kind, str], int], kinds: Iterable[str]
) -> dict[str, dict[str, Any]]:
    by_kind: dict[str, dict[str, int]] = {str(kind): {} for kind in kinds}
    for (kind, status), count in sorted(calls.items()):
        by_kind.setdefault(str(kind), {})[str(status)] = count
    return {
        kind: {"total": sum(by_status.values()), "by_status": by_status}
        for kind, by_status in by_kind.items()
    }


def _batches(totals: Totals) -> dict[str, Any]:
    return {
        "created": totals.batches,
        "by_end": dict(totals.batches_by_end),
        "lines_sent": totals.lines_sent,
        "lines_answered": totals.lines_answered,
        "lines_undone": totals.lines_undone,
        "left": totals.batches_left,
    }


def _ratio(count: int, of: int) -> float | None:
    return round(count / of, 3) if of else None


def _percentiles(values: Iterable[float]) -> dict[str, float] | None:
    ascending = sorted(values)
    if not ascending:
        return None
    return {
        "p50": round(percentile(ascending, 50), 3),
        "p95": round(percentile(ascending, 95), 3),
        "max": round(ascending[-1], 3),
    }


def _error_as_dict(error: RunError) -> dict[str, str]:
    return {"code": readable(error.code), "message": readable(error.message)}
