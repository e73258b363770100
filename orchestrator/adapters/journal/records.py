"""What a journal tells of an execution."""

from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from orchestrator.core.failures import Cause
from orchestrator.core.model import Outcome, Usage


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an execution is, as it was when it began.

    Attributes:
        name: Of the execution, as servers are told it.
        source: The job or file, as the user wrote it.
        started_at_unix: Seconds since 1970.
        version: Of the program that began it.
        requests: Lines of the file.
        by_model: Lines by their model.
        file_bytes: Size of the request file.
        file_digest: Of its content, as hex.
        defaults_digest: Of what a job adds to each body, as hex.
        server: Where its calls go.
        via: How its requests go out.
        retries: How often what failed was sent again because the user asked for it.
        put_aside: For how many of these the file of errors was put aside.
    """

    name: str = ""
    source: str = ""
    started_at_unix: float = 0.0
    version: str = ""
    requests: int = 0
    by_model: dict[str, int] = msgspec.field(default_factory=dict)
    file_bytes: int = 0
    file_digest: str = ""
    defaults_digest: str = ""
    server: str = ""
    via: str = ""
    retries: int = 0
    put_aside: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """One process's work on an execution.

    Attributes:
        number: From 1.
        pid: Of the process.
        started_unix: When it began, in seconds since 1970.
        base_seconds: The execution's clock at that time. It stands still while nobody works.
        last_seconds: The same clock at the last commit.
        last_seq: The number of the last entry at the last commit.
        group_max: The largest group that a run was created into, at the last commit.
    """

    number: int
    pid: int
    started_unix: float
    base_seconds: float
    last_seconds: float
    last_seq: int
    group_max: int


class Known(NamedTuple):
    """A request that was admitted, with what tells whether its line was changed."""

    custom_id: str
    digest: bytes
    number: int
    line: int
    has_ended: bool
    kind: tuple[str, str]  # its url and its family


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A request that was admitted and has not ended."""

    number: int
    custom_id: str
    line: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Unwritten:
    """A line of a result that may not be in its file yet."""

    number: int
    is_completed: bool
    line: bytes


@dataclass(frozen=True, slots=True)
class EndedGroup:
    """Requests of a model that ended alike, with one of them as an example.

    Those that are `is_reopened` were sent again: they count for what they cost only.
    """

    outcome: Outcome
    code: str
    model: str
    count: int
    usage: Usage
    batch_usage: Usage
    lost_usage: Usage
    sent: int
    lost: int
    custom_id: str
    message: str
    cause: Cause | None
    cost_usd: float | None  # None where one of them has no known price
    lost_usd: float  # what answers that were lost may have cost besides
    is_reopened: bool
