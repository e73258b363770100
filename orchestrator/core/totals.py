"""What the scheduler counts, for the summary and the progress display."""

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.core.model import Family, Outcome
from orchestrator.core.states import State

# What has been counted once and for all; the rest is how things stand.
COUNTED_ON = (
    "in_flight_max",
    "created",
    "created_to_check",
    "checks",
    "turns",
    "tool_calls",
    "retries",
    "waits",
    "tool_failures",
    "creates_lost",
    "batches",
    "lines_sent",
    "lines_answered",
    "lines_undone",
    "webhooks_heard",
    "webhooks_early",
    "webhooks_late",
    "webhooks_unknown",
    "webhooks_missed",
)


@dataclass(frozen=True, slots=True)
class HearingChange:
    """When the webhooks of a family were found silent, or heard again; `at` by our clock."""

    at: float
    family: Family
    are_heard: bool
    why: str


def _doubles() -> "array[float]":
    return array("d")


@dataclass(slots=True)
class Totals:
    """Counts since the start; `in_state` is how things stand now."""

    admitted: int = 0
    in_flight_max: int = 0  # batches not counted, but what they carry
    created: int = 0
    created_to_check: int = 0  # of these, runs that are looked at until they end
    checks: int = 0
    turns: int = 0
    tool_calls: int = 0
    retries: int = 0  # calls sent again and runs created again
    waits: int = 0  # calls turned away by a rate limit
    tool_failures: int = 0  # of the tool calls; the model was told
    # Calls whose answer was lost, and runs left behind: what they did may be paid for nothing.
    creates_lost: int = 0
    batches_open: int = 0
    batches: int = 0  # created
    batches_by_end: Counter[str] = field(default_factory=Counter)  # in the server's word
    lines_sent: int = 0  # in batches
    lines_answered: int = 0  # of these, with an answer or a refusal of their own
    lines_undone: int = 0  # of these, not done and not charged
    batches_there: int = 0  # on a server now
    batches_left: list[str] = field(default_factory=list)  # ids of those that go on without us
    lines_out: int = 0  # in batches that are out now
    lines_answered_there: int = 0  # of these, by the servers' counts
    webhooks_heard: int = 0  # that told of an end, or of a wish for tools, in time
    webhooks_early: int = 0  # of these, about runs whose id was not known yet
    webhooks_late: int = 0  # that told what had been noticed long before
    webhooks_unknown: int = 0  # about no run of ours
    webhooks_missed: int = 0  # ends and wishes for tools of which none told in time
    hearing_changes: list[HearingChange] = field(default_factory=list)  # by this process
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    in_state: Counter[State] = field(default_factory=Counter)  # batches not counted
    # Seconds from the end of a run (or its wish for tools) to our noticing, 8 bytes a run.
    detection_delays_seconds: "array[float]" = field(default_factory=_doubles)

    def kept(self) -> dict[str, int]:
        """What another process counts on from; how things stand now is none of it."""
        return {name: getattr(self, name) for name in COUNTED_ON}

    def count_on(self, kept: Mapping[str, int]) -> None:
        """Begin where an earlier process stood."""
        for name in COUNTED_ON:
            setattr(self, name, kept.get(name, 0))

    @property
    def ended(self) -> int:
        return self.outcomes.total()

    @property
    def in_flight(self) -> int:
        """Requests; batches are not among them."""
        return self.admitted - self.ended


def webhooks_as_dict(totals: Totals, began_at: float) -> dict[str, Any]:
    """What the summary says of webhooks; times are seconds since the execution began."""
    return {
        "heard": totals.webhooks_heard,
        "early": totals.webhooks_early,
        "late": totals.webhooks_late,
        "unknown": totals.webhooks_unknown,
        "missed": totals.webhooks_missed,
        "changes": [
            {
                "seconds": round(change.at - began_at, 3),
                "family": change.family.value,
                "are_heard": change.are_heard,
                "why": change.why,
            }
            for change in totals.hearing_changes
        ],
    }
