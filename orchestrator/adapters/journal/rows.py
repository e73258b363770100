"""What one commit writes, as rows."""

from dataclasses import dataclass, field
from typing import Any

from orchestrator.core.model import Outcome, Request, Result, Usage

# A message is there to be recognised by; the whole of it is in the line of the result.
MESSAGE_CHARACTERS_MAX = 500

# A trillion tokens are more than any request can use; the sums of eight million fit in 64 bits.
COUNT_MAX = 2**40

Row = tuple[Any, ...]


@dataclass(slots=True)
class Rows:
    """Written in one transaction, or not at all.

    Attributes:
        written: The numbers whose lines are in the result files, and safe there.
        last_seconds: The execution's clock when the last of it was told.
    """

    last_seconds: float
    last_seq: int
    group_max: int
    requests: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    batch_lines: list[Row] = field(default_factory=list)
    endings: list[Row] = field(default_factory=list)
    unwritten: list[Row] = field(default_factory=list)
    webhooks: list[Row] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    notes: dict[str, str | bytes] = field(default_factory=dict)
    is_done: bool = False

    def __bool__(self) -> bool:
        told = self.requests or self.events or self.endings or self.webhooks
        return bool(told or self.written or self.notes)


def storable(text: str) -> str | bytes:
    """A text as SQLite can take it: one with half of a surrogate pair as a blob."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def text_from(stored: str | bytes) -> str:
    """What `storable` made of a text, back."""
    return stored if isinstance(stored, str) else stored.decode("utf-8", "surrogatepass")


def admission(number: int, request: Request, seq: int, at: float) -> Row:
    return (
        number,
        request.line,
        storable(request.custom_id),
        request.digest,
        storable(request.url),
        storable(request.model),
        seq,
        at,
        request.family.value,
    )


def ending(
    number: int, result: Result, seq: int, at: float, costs: tuple[float | None, float]
) -> Row:
    """The end of a request; why it ended is kept only where it did not complete."""
    code = message = ""
    cause = None
    if result.outcome is not Outcome.COMPLETED and result.error is not None:
        code, message = result.error.code, result.error.message[:MESSAGE_CHARACTERS_MAX]
        cause = result.error.cause
    return (
        number,
        result.outcome.value,
        seq,
        at,
        storable(code),
        storable(message),
        storable(result.run_id),
        *_counts(result.usage),
        *_counts(result.batch_usage),
        result.creates,
        result.checks,
        result.turns,
        result.sent,
        result.lost,
        result.seconds,
        cause,
        min(result.lost_usage.input_tokens, COUNT_MAX),
        min(result.lost_usage.output_tokens, COUNT_MAX),
        *costs,
    )


def _counts(usage: Usage) -> tuple[int, int, int, int]:
    return (
        min(usage.input_tokens, COUNT_MAX),
        min(usage.output_tokens, COUNT_MAX),
        min(usage.cached_tokens, COUNT_MAX),
        min(usage.reasoning_tokens, COUNT_MAX),
    )
