"""Sorts out what a server's refusal means, by its status code and what its body says.

Refusals come as answers to calls, and as lines in the files of a batch.
"""

from dataclasses import replace

from orchestrator.core.failures import Cause, Failure
from orchestrator.ports import CallFailed

# 402 and these codes mean that no waiting helps: somebody has to pay.
# Source: the vendor's guide on error codes, and codes seen on compatible servers.
QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "quota_exceeded",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit_balance_exhausted",
        "access_terminated",
    }
)

CAUSE_OF_STATUS = {
    400: Cause.BAD_REQUEST,
    401: Cause.AUTHENTICATION,
    402: Cause.QUOTA,
    403: Cause.PERMISSION,
    404: Cause.NOT_FOUND,
    408: Cause.SERVER_ERROR,  # the server gave up reading; nothing was done
    409: Cause.CONFLICT,
    429: Cause.RATE_LIMITED,
}

# An error message for people ends here; some servers send pages.
MESSAGE_CHARACTERS_MAX = 500


def refusal(status_code: int, body: object) -> Failure:
    """The failure that an answer with this status and this body is, of whatever shape that is."""
    codes, message = _what_it_says(body)
    cause = CAUSE_OF_STATUS.get(status_code)
    if cause is None:
        cause = Cause.SERVER_ERROR if status_code >= 500 else Cause.BAD_REQUEST  # noqa: PLR2004 - HTTP
    # 400 too: that is how some say that the billing limit is reached.
    if cause is not Cause.SERVER_ERROR and not QUOTA_CODES.isdisjoint(codes):
        cause = Cause.QUOTA
    return Failure(
        cause=cause,
        message=f"HTTP {status_code}: {message}",
        code=codes[0] if codes else "",
        status_code=status_code,
    )


def free_of_charge(failed: CallFailed) -> CallFailed:
    """What costs nothing is sent again when its answer was lost, and is not counted as lost."""
    failure = failed.failure
    return CallFailed(replace(failure, cause=Cause.SERVER_ERROR)) if failure.maybe_done else failed


def _what_it_says(body: object) -> tuple[list[str], str]:
    """Codes, the most telling first, and message."""
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    codes: list[str] = []
    message: object = body
    if isinstance(body, dict):
        codes = [str(body[key])[:100] for key in ("code", "type") if body.get(key)]
        message = body.get("message") or body.get("detail") or body.get("error") or body
    text = " ".join(str(message).split())
    return codes, text[:MESSAGE_CHARACTERS_MAX]
