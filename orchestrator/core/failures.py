"""Failures sorted by cause: what a call that went wrong means, and what to do about it.

The transport names the cause; here, in one table with its reasons, stands what follows from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Cause(StrEnum):
    """Why a call failed."""

    NOT_SENT = "not_sent"  # the connection broke before the request went out
    CONNECTION_LOST = "connection_lost"  # no answer; the server may have done the work
    TIMED_OUT = "call_timed_out"  # no answer in time; the server may have done the work
    MALFORMED = "malformed_answer"  # an answer that can't be read; the work was probably done
    RATE_LIMITED = "rate_limited"
    QUOTA = "quota"
    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    BUSY = "busy"  # the thread has an active run
    BAD_REQUEST = "bad_request"
    SERVER_ERROR = "server_error"
    INTERNAL = "internal_error"  # our own fault
    PROCESS_ENDED = "process_ended"  # ours, before the answer; the server may have done the work
    UNDONE = "undone"  # its batch ended before its turn; nothing was done or paid


class Verdict(StrEnum):
    """What to do about a failed call."""

    RETRY = "retry"  # again after a backoff, a bounded number of times
    WAIT = "wait"  # again when the server has room; being turned away is not an attempt
    FAIL = "fail"  # this request will never work
    STOP = "stop"  # no request will work


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that went wrong."""

    cause: Cause
    message: str
    code: str = ""  # the server's error code, empty when it gave none
    status_code: int = 0  # 0 when there was no answer
    retry_after_seconds: float | None = None
    request_id: str = ""

    @property
    def maybe_done(self) -> bool:
        """Whether the server may have done the work, so that a new create may be paid twice."""
        return self.cause in MAYBE_DONE


MAYBE_DONE = frozenset(
    {Cause.CONNECTION_LOST, Cause.TIMED_OUT, Cause.MALFORMED, Cause.PROCESS_ENDED}
)

# For calls that create or continue a run.
VERDICT_ON_CREATE: Mapping[Cause, Verdict] = MappingProxyType(
    {
        Cause.NOT_SENT: Verdict.RETRY,  # nothing happened; sending again is safe
        Cause.CONNECTION_LOST: Verdict.RETRY,  # may be paid twice; counted and reported
        Cause.TIMED_OUT: Verdict.RETRY,
        Cause.MALFORMED: Verdict.RETRY,  # proxies break answers now and then
        Cause.PROCESS_ENDED: Verdict.WAIT,  # however often we are killed, it is not its failure
        Cause.RATE_LIMITED: Verdict.WAIT,
        Cause.QUOTA: Verdict.STOP,  # the docs: not to be retried, even with Retry-After
        Cause.AUTHENTICATION: Verdict.STOP,  # the same key gives the same answer
        Cause.PERMISSION: Verdict.FAIL,  # often one model; the next request may use another
        Cause.NOT_FOUND: Verdict.FAIL,  # a model or an endpoint that does not exist here
        Cause.CONFLICT: Verdict.RETRY,  # 409: the resource was busy
        Cause.BUSY: Verdict.WAIT,  # somebody else's run has to end first
        Cause.BAD_REQUEST: Verdict.FAIL,  # deterministic: the same body gives the same answer
        Cause.SERVER_ERROR: Verdict.RETRY,
        Cause.INTERNAL: Verdict.FAIL,  # a bug must not pay for the same work ten times
        Cause.UNDONE: Verdict.WAIT,  # goes into the next batch, until its deadline
    }
)

# For checks and cancels: the run is paid for, so one bad answer must never end it
# (a 502 on one status check that failed a whole batch: openclaw#88238).
VERDICT_ON_CHECK: Mapping[Cause, Verdict] = MappingProxyType(
    {
        **VERDICT_ON_CREATE,
        Cause.PERMISSION: Verdict.RETRY,
        Cause.NOT_FOUND: Verdict.RETRY,  # a new run may take a moment to be visible everywhere
        Cause.BAD_REQUEST: Verdict.RETRY,  # some servers answer 400 for a missing run
        Cause.BUSY: Verdict.RETRY,
        Cause.INTERNAL: Verdict.RETRY,
        Cause.QUOTA: Verdict.WAIT,  # looking costs nothing, and the work is paid
    }
)

# What happened, and why the verdicts are what they are; for the summary and the README.
REASONS: Mapping[Cause, tuple[str, str]] = MappingProxyType(
    {
        Cause.NOT_SENT: ("no connection", "nothing happened, so sending again is safe"),
        Cause.CONNECTION_LOST: (
            "the connection broke before the answer",
            "it may be paid twice, which is counted (`--lost-creates`)",
        ),
        Cause.TIMED_OUT: ("no answer in time", "the same"),
        Cause.MALFORMED: (
            "the answer can't be read",
            "proxies break answers now and then; three times, as each is paid",
        ),
        Cause.PROCESS_ENDED: (
            "the process was killed before the answer",
            "it may be paid twice, which is counted (`--lost-creates`)",
        ),
        Cause.SERVER_ERROR: ("5xx and 408", "the server's own trouble passes"),
        Cause.CONFLICT: ("409", "what it is about was busy"),
        Cause.RATE_LIMITED: ("429", "the limit leaves no room just now"),
        Cause.BUSY: ("400: the thread has an active run", "that one has to end first"),
        Cause.UNDONE: (
            "its batch ended before its turn",
            "nothing was done or paid; it goes into the next batch",
        ),
        Cause.BAD_REQUEST: ("400 and other 4xx", "the same body gets the same answer"),
        Cause.PERMISSION: ("403", "it is often one model; other requests may use another"),
        Cause.NOT_FOUND: ("404", "there is no such model or endpoint; a new run may be late"),
        Cause.QUOTA: (
            "402, or 429 with a code such as `insufficient_quota`",
            "the vendor says not to try again; to look costs nothing",
        ),
        Cause.AUTHENTICATION: ("401", "the same key gets the same answer"),
        Cause.INTERNAL: ("a bug of ours", "it must not pay for the same work ten times"),
    }
)

# A run that ended as `failed` names its reason. These are the server's own trouble and worth a
# new run; every other code (invalid_prompt, image_parse_error, ...) says that the request itself
# is at fault. Codes: openai 3.52 types, `ResponseError.code` and the agents' turn errors.
RETRYABLE_RUN_CODES = frozenset(
    {
        "server_error",
        "rate_limit_exceeded",
        "server_overloaded",
        "server_is_overloaded",
        "vector_store_timeout",
        "sandbox_error",
    }
)
