"""What comes in and what goes out: one HTTP call and its reply, without any HTTP library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec

from orchestrator.emulator.creates import Created

JSON_HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP call as it arrived.

    Header names are lower case. `path` is without the query.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Feed(Protocol):
    """A body that comes in pieces while time passes and other calls arrive."""

    @property
    def over(self) -> bool:
        """Whether nothing comes after what `take` gave."""

    def take(self, now: float) -> Sequence[bytes]:
        """The pieces that are new."""

    def next_at(self) -> float:
        """When to look again, unless another call comes first; inf for only then."""

    def close(self) -> None:
        """Nobody reads any more."""


class Later(Protocol):
    """An answer that is known only when something else has happened."""

    def take(self, now: float) -> "Reply | None":
        """The answer, if it is known by now."""

    def next_at(self) -> float:
        """When it is known at the latest."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the caller gets, `delay_seconds` after the call arrived.

    With `drop`, the connection is then closed without a single byte of an answer. With `reset`,
    the answer is whole, and the connection is reset when the next call on it begins. With a `feed`,
    its pieces follow the body. With `later`, status and body are those of the reply that it gives
    in the end, beside these headers. `created` is what the whole answer would tell of: whoever
    carries it says there whether it was delivered.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_seconds: float = 0.0
    drop: bool = False
    reset: bool = False
    feed: Feed | None = None
    later: Later | None = None
    created: Created | None = None


def json_reply(value: Any, status: int = 200, delay_seconds: float = 0.0) -> Reply:
    """A reply whose body is this value as JSON."""
    return Reply(status, JSON_HEADERS, msgspec.json.encode(value), delay_seconds)


def parse_query(query: str) -> dict[str, str]:
    """The query string as a dict; of a repeated name the last value counts."""
    return dict(parse_qsl(query, keep_blank_values=True)) if query else {}


def plain_path(path: str) -> tuple[str, ...]:
    """The path's segments, without what different clients put before them.

    `/v1/responses`, `/responses` and Azure's `/openai/v1/responses` and
    `/openai/deployments/NAME/chat/completions` are the same places here.
    """
    segments = tuple(segment for segment in path.split("/") if segment)
    if segments[:1] == ("openai",):
        segments = segments[1:]
    if segments[:1] == ("v1",):
        segments = segments[1:]
    if segments[:1] == ("deployments",):
        segments = segments[2:]
    return segments
