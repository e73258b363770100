"""Webhook events, signed as the specification says, and an ASGI caller without sockets."""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field

KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"another key of 24 bytes.").decode()


def now():
    """The clock that events are signed and verified by."""
    return int(time.time())  # noqa: TID251 - the SDK asks the same clock


def body_of(run_id="resp_1", kind="response.completed"):
    event = {"id": "evt_1", "object": "event", "created_at": 1, "type": kind}
    return json.dumps(event | {"data": {"id": run_id}}).encode()


def signature(body, webhook_id, timestamp, key=KEY):
    signed = webhook_id.encode() + b"." + str(timestamp).encode() + b"." + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def headers_of(body, webhook_id="wh_1", timestamp=None, key=KEY):
    timestamp = now() if timestamp is None else timestamp
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(body, webhook_id, timestamp, key),
    }


@dataclass
class Log:
    """Keeps what is logged, as (level, event, fields)."""

    lines: list = field(default_factory=list)

    def __getattr__(self, level):
        return lambda event, **fields: self.lines.append((level, event, fields))


async def call(app, body=b"", headers=None, *, method="POST", path="/", pieces=None, then=None):
    """Call an ASGI application; gives (status, headers, body), status 0 without an answer.

    `pieces` are parts of the body that come one by one, and `then` is awaited for what comes after
    them: without it, the body ends with the last.
    """
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers or ()]
    return await call_raw(app, body, raw, method=method, path=path, pieces=pieces, then=then)


async def call_raw(app, body, headers, *, method="POST", path="/", pieces=None, then=None):
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    coming = list(pieces if pieces is not None else [body])
    sent = []

    async def receive():
        if coming:
            piece = coming.pop(0)
            more = bool(coming) or then is not None
            return {"type": "http.request", "body": piece, "more_body": more}
        return await then() if then is not None else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        return 0, {}, b""
    start, *rest = sent
    return start["status"], dict(start["headers"]), b"".join(part["body"] for part in rest)
