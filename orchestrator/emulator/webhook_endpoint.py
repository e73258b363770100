"""A place that webhooks are sent to: its address, what it wants to hear of, how it is signed for.

Signatures are those of Standard Webhooks: `v1,` and the base64 of HMAC-SHA256 over
`id.timestamp.body`. A secret that begins with `whsec_` is base64 behind that; any other is the key
as it stands, as OpenAI's client has it.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from ipaddress import ip_address
from math import inf
from urllib.parse import urlsplit

from orchestrator.emulator.chance import digest

SECRET_PREFIX = "whsec_"  # noqa: S105 - it begins every secret and is none
OLD_SECRET_SECONDS = 86_400.0  # "keep_old_secret_active_for_24_hours"
HINT_LETTERS = 4

# What an endpoint can be told of: the types that OpenAI's client 3.52 takes in `webhooks.create`.
EVENT_TYPES = (
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
    "eval.run.succeeded",
    "eval.run.failed",
    "eval.run.canceled",
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
    "realtime.call.incoming",
    "video.completed",
    "video.failed",
    "agent.environment.ready",
    "agent.environment.failed",
    "agent.environment.suspended",
    "agent.environment.expired",
    "agent.session.created",
    "agent.session.action_required",
    "agent.session.in_progress",
    "agent.session.idle",
    "agent.session.failed",
    "safety.alert.created",
)


@dataclass(slots=True)
class Endpoint:
    """One endpoint. `secrets` are (secret, valid until), the newest first; times in seconds."""

    id: str
    name: str
    url: str
    event_types: tuple[str, ...]
    created_at: float
    updated_at: float
    secrets: list[tuple[str, float]] = field(repr=False)
    rotations: int = 0

    def valid_secrets(self, now: float) -> list[str]:
        """Those to sign with, the newest first."""
        return [secret for secret, until in self.secrets if now < until]

    def rotate(self, secret: str, now: float, *, keep_old: bool) -> None:
        """Sign with this secret from now on, and for 24 hours with the newest old one too."""
        until = now + OLD_SECRET_SECONDS
        old = [(kept, until) for kept, _ in self.secrets[:1]] if keep_old else []
        self.secrets = [(secret, inf), *old]
        self.rotations += 1
        self.updated_at = now


def secret_for(seed: int, endpoint_id: str, rotations: int) -> str:
    """A secret of 32 bytes that follows from the seed, as everything here does."""
    halves = (digest(seed, "webhook secret", endpoint_id, rotations, half) for half in range(2))
    return SECRET_PREFIX + base64.b64encode(bytes.fromhex("".join(halves))).decode()


def signature(secret: str, webhook_id: str, timestamp: str, body: bytes) -> str:
    """One entry of the header `webhook-signature`."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode()


def problem_with_secret(secret: str) -> str | None:
    """What is wrong with a secret, never showing it; None for nothing."""
    try:
        key = _key(secret)
    except (binascii.Error, ValueError):
        return f"what follows {SECRET_PREFIX} is no base64"
    return None if key else "it is empty"


def problem_with_url(url: str) -> str | None:
    """Why nothing is sent to this address; None for nothing. Only this machine is sent to."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        return f"{url!r} is no address ({error})"
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        return f"{url!r} is no address; one such as http://127.0.0.1:8089/ is needed"
    if not (url.isascii() and url.isprintable() and " " not in url):
        return f"{url!r} has characters that no address has"
    if not is_loopback(host):
        return f"the emulator sends webhooks to this machine only, not to {host!r}; use 127.0.0.1"
    return None


def is_loopback(host: str) -> bool:
    """Whether this names the machine that we are on."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _key(secret: str) -> bytes:
    if secret.startswith(SECRET_PREFIX):
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    return secret.encode()
