"""Reads an answer that comes as a stream of events although nobody asked for one.

Some servers stream unless they are told not to. What they send last holds the whole response, which
is paid for, so it is taken from there.
"""

import msgspec

DATA = b"data:"


def response_in(stream: bytes) -> bytes | None:
    """The newest response that the events hold, as JSON text; None when they hold none."""
    for line in reversed(stream.splitlines()):
        if not line.startswith(DATA):
            continue
        try:
            event = msgspec.json.decode(line.removeprefix(DATA), type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # "[DONE]", or torn
        if bytes(event.get("response", b"")).startswith(b"{"):
            return bytes(event["response"])
    return None
