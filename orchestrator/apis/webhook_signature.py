"""Tells genuine webhook events from forged ones, by the official SDK and any of several secrets.

The age of an event is judged here and not by the SDK: only so can a genuine event that is too old
be told from a forged one, and only so can it be judged by the time at which it arrived at a queue.
"""

import base64
import binascii
import time
from collections.abc import Mapping, Sequence
from functools import cache

from openai import DefaultHttpxClient, InvalidWebhookSignatureError, OpenAI

from orchestrator.apis.client import OPENAI_URL
from orchestrator.errors import WebhookSecretUnusable
from orchestrator.ports import SignatureFlaw, SignatureRefused, Verify

SIGNED_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")

# How far the timestamp may be from the arrival, both ways; the SDK's default and that of the
# Standard Webhooks libraries.
TOLERANCE_SECONDS = 300

# For the SDK, which is not to judge the age: longer than any timestamp that passes below is away.
ANY_AGE_SECONDS = 10**16
TIMESTAMP_CHARACTERS_MAX = 15

SECRET_PREFIX = "whsec_"  # noqa: S105 - how all of them begin


def verifier(secrets: Sequence[str]) -> Verify:
    """What tells whether an event was signed with one of these secrets.

    Args:
        secrets: One, or several while they are being rotated. One that begins with `whsec_` has
            its key in base64 behind that; any other is the key itself, as in the SDK. Spaces and
            line breaks around it are left out.

    Raises:
        WebhookSecretUnusable: There is none, or one of them can't be a secret. It is named by its
            position, never shown.
    """
    if not secrets:
        raise WebhookSecretUnusable(position=1, count=1, problem="it is missing")
    for position, secret in enumerate(secrets, 1):
        problem = _problem_with(secret.strip())
        if problem is not None:
            raise WebhookSecretUnusable(position=position, count=len(secrets), problem=problem)
    return _Verifier(tuple(secret.strip() for secret in secrets))


@cache
def _silent_client() -> OpenAI:
    """The SDK verifies by a client; this one never sends, so neither keys nor proxies matter."""
    http_client = DefaultHttpxClient(trust_env=False)
    return OpenAI(api_key="never sent", base_url=OPENAI_URL, http_client=http_client)


class _Verifier:
    """Holds the secrets; none of its own words (repr) shows them."""

    __slots__ = ("_secrets", "_webhooks")

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = secrets
        self._webhooks = _silent_client().webhooks

    def __call__(
        self, body: bytes, headers: Mapping[str, str], arrived_at: float | None = None
    ) -> None:
        """Return when the event is genuine and fresh; `SignatureRefused` tells why it is not."""
        signed = _signed(headers)
        timestamp = _seconds(signed["webhook-timestamp"])
        if not any(self._matches(body, signed, secret) for secret in self._secrets):
            raise SignatureRefused(SignatureFlaw.FORGED)
        if arrived_at is None:
            arrived_at = time.time()  # noqa: TID251 - senders stamp by the same clock of the world
        if abs(int(arrived_at) - timestamp) > TOLERANCE_SECONDS:
            raise SignatureRefused(SignatureFlaw.STALE)

    def _matches(self, body: bytes, signed: Mapping[str, str], secret: str) -> bool:
        try:
            self._webhooks.verify_signature(body, signed, secret=secret, tolerance=ANY_AGE_SECONDS)
        except (InvalidWebhookSignatureError, TypeError):
            # TypeError: a signature that is not ASCII can't be compared, and is none.
            return False
        except ValueError:  # the body is not UTF-8
            raise SignatureRefused(SignatureFlaw.MALFORMED) from None
        return True


def _signed(headers: Mapping[str, str]) -> dict[str, str]:
    """The three headers that count, by their names in lower case."""
    found = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower in SIGNED_HEADERS:
            found[lower] = value
    if any(not found.get(name) for name in SIGNED_HEADERS):
        raise SignatureRefused(SignatureFlaw.MALFORMED)
    return found


def _seconds(timestamp: str) -> int:
    try:
        if len(timestamp) <= TIMESTAMP_CHARACTERS_MAX:
            return int(timestamp)
    except ValueError:
        pass
    raise SignatureRefused(SignatureFlaw.MALFORMED)


def _problem_with(secret: str) -> str | None:
    if not secret:
        return "it is empty"
    if not secret.startswith(SECRET_PREFIX):
        return None if secret.isprintable() else "it has characters that no secret has"
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return f"what follows {SECRET_PREFIX} is not base64"
    return None if key else f"nothing follows {SECRET_PREFIX}"
