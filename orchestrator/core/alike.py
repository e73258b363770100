"""Groups of requests that did not complete for the same reason, with an example each."""

from dataclasses import dataclass
from typing import Any

from orchestrator.core.failures import REASONS, Cause
from orchestrator.core.model import Outcome


@dataclass(slots=True)
class Failures:
    """Requests that did not complete for the same reason."""

    outcome: Outcome
    code: str
    cause: Cause | None  # None where no call failed: its run did, or its time or money was over
    count: int
    example_custom_id: str
    example_message: str

    def as_dict(self) -> dict[str, Any]:
        """For the summary."""
        return {
            "outcome": str(self.outcome),
            "code": self.code,
            "cause": None if self.cause is None else self.cause.value,
            "reason": None if self.cause is None else ": ".join(REASONS[self.cause]),
            "count": self.count,
            "example_custom_id": self.example_custom_id,
            "example_message": self.example_message,
        }


def readable(text: str, characters_max: int | None = None) -> str:
    """The text, cut, with "?" for what UTF-8 can't write: half of a surrogate pair."""
    return text[:characters_max].encode("utf-8", "replace").decode()
