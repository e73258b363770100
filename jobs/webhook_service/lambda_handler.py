"""An AWS Lambda function that takes webhook events and puts them on an SQS queue.

It needs this file only: Lambda's Python has boto3. Behind it may stand a function URL, an HTTP API
or a REST API (proxy integration), or a load balancer. The engine takes the events from the queue
and verifies them; with the secret at hand they are verified here as well, so that what is forged
never fills the queue. When the queue does not answer, the function fails, and the sender tries
again.

Environment:

- `QUEUE_URL`: the address of a standard queue. The function needs `sqs:SendMessage` on it, and
  nobody else should have that.
- `OPENAI_WEBHOOK_SECRET`: optional; several with spaces between while they are rotated.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import boto3

# Nothing else of a call is passed on: cookies and the like are none of the queue's business.
HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")

BODY_BYTES_MAX = 256 * 1024  # the same as in the engine
TOLERANCE_SECONDS = 300


def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:  # noqa: ARG001 - Lambda passes it
    """Put an event on the queue. Raises what boto3 raises, so that the sender tries again."""
    if _method(event) not in {"POST", ""}:
        return _answer(405)
    headers = _headers(event)
    body = _body(event)
    if body is None or not all(headers.get(name) for name in HEADERS):
        return _answer(400)
    if len(body) > BODY_BYTES_MAX:
        return _answer(413)
    secrets = os.environ.get("OPENAI_WEBHOOK_SECRET", "").split()
    if secrets and not any(_signed_with(secret, body, headers) for secret in secrets):
        return _answer(403)
    message = {"headers": headers, "body_base64": base64.b64encode(body).decode()}
    _sqs().send_message(QueueUrl=os.environ["QUEUE_URL"], MessageBody=json.dumps(message))
    return _answer(200)


@cache
def _sqs() -> Any:
    return boto3.client("sqs")


def _method(event: Mapping[str, Any]) -> str:
    """As either version of the events has it; empty where it is not told."""
    http = (event.get("requestContext") or {}).get("http") or {}
    return str(http.get("method") or event.get("httpMethod") or "")


def _headers(event: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a webhook, by their names in lower case."""
    single = event.get("headers") or {}
    # A load balancer may have lists instead.
    several = {name: values[-1] for name, values in (event.get("multiValueHeaders") or {}).items()}
    named = {name.lower(): str(value) for name, value in {**several, **single}.items()}
    return {name: named[name] for name in HEADERS if name in named}


def _body(event: Mapping[str, Any]) -> bytes | None:
    """The raw body; None when it is not what it says it is."""
    body = event.get("body") or ""
    try:
        if event.get("isBase64Encoded"):
            return base64.b64decode(body, validate=True)
        return str(body).encode()
    except (binascii.Error, UnicodeEncodeError):
        return None


def _signed_with(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Whether this secret signed the event a few minutes ago at most (Standard Webhooks 1.0)."""
    webhook_id, timestamp, signatures = (headers[name] for name in HEADERS)
    try:
        # The clock of the world: nobody's loop is running here.
        age_seconds = time.time() - int(timestamp[:15])  # noqa: TID251 - see above
        signed = b".".join((webhook_id.encode(), timestamp.encode(), body))
        given = [each.encode() for each in signatures.split()]
    except ValueError:
        return False
    prefix = "whsec_"
    plain = not secret.startswith(prefix)
    key = secret.encode() if plain else base64.b64decode(secret.removeprefix(prefix))
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(digest)
    genuine = any(hmac.compare_digest(expected, each) for each in given)
    return genuine and abs(age_seconds) <= TOLERANCE_SECONDS


def _answer(status: int) -> dict[str, Any]:
    return {"statusCode": status, "headers": {"content-type": "text/plain"}, "body": ""}
