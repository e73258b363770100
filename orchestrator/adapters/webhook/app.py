"""The HTTP side of webhooks: a Starlette application for any ASGI server.

It answers 200 once an event was judged and noted, before any work is done for it. Redirects count
as failures for the sender, so every path below its mount takes events, with a slash at the end or
without.
"""

import anyio
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from orchestrator.adapters.webhook.receiver import BODY_BYTES_MAX, Receiver, Verdict

# The bodies are a few hundred bytes: what takes longer than this is no good sender.
BODY_SECONDS_MAX = 10.0

# Senders try again after anything but 200. What is repeated or unknown is fine as it is.
STATUS = {
    Verdict.ACCEPTED: 200,
    Verdict.REPEATED: 200,
    Verdict.UNKNOWN_TYPE: 200,
    Verdict.FORGED: 403,
    Verdict.STALE: 403,
    Verdict.MALFORMED: 400,
    Verdict.TOO_LARGE: 413,
    Verdict.TOO_SLOW: 408,
    Verdict.WRONG_METHOD: 405,
    Verdict.FAILED: 503,
}

# After these the rest of the body may still be on its way: nobody reads it.
CLOSING = {Verdict.TOO_LARGE, Verdict.TOO_SLOW, Verdict.WRONG_METHOD}

POLICY_VIOLATION = 1008  # why a WebSocket is closed (RFC 6455, 7.4.1)


def webhook_app(receiver: Receiver, *, body_seconds_max: float = BODY_SECONDS_MAX) -> Starlette:
    """An application that takes events by POST, on every path of its own.

    Args:
        receiver: Judges them.
        body_seconds_max: How long a body may take to come.
    """
    app = Starlette()
    app.router.default = _Endpoint(receiver, body_seconds_max)  # there are no routes but this
    return app


class _Endpoint:
    """A raw ASGI application: a Request and a Response for each event would cost as much again."""

    def __init__(self, receiver: Receiver, body_seconds_max: float) -> None:
        self._receiver = receiver
        self._body_seconds_max = body_seconds_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        verdict = await self._verdict(scope, receive)
        if verdict is not None:
            await send(_start(verdict))
            await send({"type": "http.response.body", "body": _text(verdict)})

    async def _verdict(self, scope: Scope, receive: Receive) -> Verdict | None:
        """What becomes of a call; None when the caller left before its body was there."""
        if scope["method"] != "POST":
            return self._receiver.note(Verdict.WRONG_METHOD)
        body: bytes | Verdict | None = Verdict.TOO_SLOW
        with anyio.move_on_after(self._body_seconds_max):
            body = await _body(scope, receive)
        if body is None:
            return None
        if isinstance(body, Verdict):
            return self._receiver.note(body)
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name.lower().startswith(b"webhook-")
        }
        return self._receiver.take(body, headers)


async def _body(scope: Scope, receive: Receive) -> bytes | Verdict | None:
    """The whole body; TOO_LARGE as soon as that is known; None when the caller has left."""
    if _declared_bytes(scope) > BODY_BYTES_MAX:
        return Verdict.TOO_LARGE
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            return Verdict.TOO_LARGE
        if not message.get("more_body", False):
            return bytes(body)


def _declared_bytes(scope: Scope) -> int:
    """What content-length says; 0 where it says nothing that is a number: the body is counted."""
    for name, value in scope["headers"]:
        if name.lower() == b"content-length":
            # More digits than any size has: no number that is worth its parsing.
            return int(value[:20]) if value.isdigit() else 0
    return 0


def _start(verdict: Verdict) -> Message:
    # Made anew each time: middleware adds its own headers to the list.
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(_text(verdict))).encode()),
    ]
    if verdict is Verdict.WRONG_METHOD:
        headers.append((b"allow", b"POST"))
    if verdict in CLOSING:
        headers.append((b"connection", b"close"))
    return {"type": "http.response.start", "status": STATUS[verdict], "headers": headers}


def _text(verdict: Verdict) -> bytes:
    return f"{verdict}\n".encode()
