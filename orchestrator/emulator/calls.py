"""What comes in and what goes out: one HTTP call and its reply, without any HTTP library."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec

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


@dataclass(frozen=True, slots=True)
class Reply:
    """What the caller gets, `delay_seconds` after the call arrived.

    With `drop`, the connection is then closed without a single byte of an answer.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_seconds: float = 0.0
    drop: bool = False


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
