"""Files and batches of the emulator without a client: lines, uploads, what comes of them."""

import json

from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings
from support.emulator_client import content, get, post

CHAT = "/v1/chat/completions"

RULES = (
    Rule(match="^bad", http_status=400, error_code="invalid_prompt", error_message="no"),
    Rule(match="^oops", http_status=500),
    Rule(match="^tool", tool_calls=[ToolRequest("look", {"at": "it"})]),
    Rule(match="^slow", run_seconds=50),
    Rule(match="^hang", status="hang"),
)


def chat_line(custom_id, text="hello", *, model="m", url=CHAT, **body):
    """One line of an input file; `body` is added to its body."""
    messages = [{"role": "user", "content": text}]
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": url,
        "body": {"model": model, "messages": messages, **body},
    }


def jsonl(lines) -> bytes:
    """The lines as the content of a file."""
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def form_of(fields, *, boundary="border"):
    """A multipart form's headers and body; a value may be (filename, bytes)."""
    pieces = []
    for name, value in fields.items():
        filename, given = value if isinstance(value, tuple) else (None, str(value).encode())
        named = f'; filename="{filename}"' if filename else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        pieces.append(head.encode() + given + b"\r\n")
    body = b"".join(pieces) + f"--{boundary}--\r\n".encode()
    return {"content-type": f"multipart/form-data; boundary={boundary}"}, body


def upload(emulator: Emulator, given: bytes, *, now=0.0, purpose="batch", boundary="border"):
    """The id of a new file."""
    fields = {"purpose": purpose, "file": ("in.jsonl", given)}
    headers, body = form_of(fields, boundary=boundary)
    return content(post(emulator, "/v1/files", body, now=now, headers=headers))["id"]


def ask_for_batch(emulator: Emulator, lines, *, now=0.0, endpoint=CHAT, **options):
    """The reply to creating a batch of these lines (or of these bytes)."""
    given = lines if isinstance(lines, bytes) else jsonl(lines)
    file_id = upload(emulator, given, now=now)
    body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h", **options}
    return post(emulator, "/v1/batches", body, now=now)


def new_batch(emulator: Emulator, lines, **options) -> str:
    """The id of a new batch of these lines."""
    return content(ask_for_batch(emulator, lines, **options))["id"]


def batch_at(emulator: Emulator, batch_id, now):
    """What the batch shows at this time."""
    return content(get(emulator, f"/v1/batches/{batch_id}", now=now))


def lines_of(emulator: Emulator, file_id, now):
    """The lines of a file."""
    reply = get(emulator, f"/v1/files/{file_id}/content", now=now)
    assert reply.status == 200
    return [json.loads(line) for line in reply.body.splitlines()]


def batch_emulator(**settings) -> Emulator:
    """Validating takes 1 s, all lines 10 s, finalizing 2 s, cancelling 3 s."""
    timing = {
        "batch_validating_seconds": Fixed(1),
        "batch_seconds": Fixed(10),
        "batch_finalizing_seconds": Fixed(2),
        "batch_cancelling_seconds": Fixed(3),
        "run_seconds": Fixed(1),
        "rules": RULES,
    }
    return Emulator(Settings(**{**timing, **settings}))


def many(count, text="hello"):
    """So many lines, c0, c1 and so on."""
    return [chat_line(f"c{number}", f"{text} {number}") for number in range(count)]
