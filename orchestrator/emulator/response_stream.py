"""A response as the events of a stream, in the order and the words of OpenAI's own."""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import msgspec

STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}

# A text comes in pieces of so many characters; a long answer is some hundred of them.
PIECE_CHARACTERS = 200

# What the last event is called; a response that is anything else ends without one.
LAST_EVENTS = ("completed", "failed", "incomplete")

Event = tuple[str, dict[str, Any]]


def stream_of(response: Mapping[str, Any]) -> bytes:
    """The whole stream that ends with this response."""
    sequence = count()
    return b"".join(_encoded(kind, fields, next(sequence)) for kind, fields in _events(response))


def _encoded(kind: str, fields: Mapping[str, Any], number: int) -> bytes:
    said = msgspec.json.encode({"type": kind, "sequence_number": number, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + said + b"\n\n"


def _events(response: Mapping[str, Any]) -> Iterator[Event]:
    begun = {
        **response,
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "output": [],
        "usage": None,
    }
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(response["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        empty: dict[str, Any] = {"arguments": ""} if "arguments" in item else {"content": []}
        added = {**item, **empty, "status": "in_progress"}
        yield "response.output_item.added", {"output_index": index, "item": added}
        yield from _arguments(item, place) if "arguments" in item else _texts(item, place)
        yield "response.output_item.done", {"output_index": index, "item": item}
    if response["status"] in LAST_EVENTS:
        yield f"response.{response['status']}", {"response": response}


def _arguments(item: Mapping[str, Any], place: Mapping[str, Any]) -> Iterator[Event]:
    kind, arguments = "response.function_call_arguments", item["arguments"]
    for piece in _pieces(arguments):
        yield f"{kind}.delta", {**place, "delta": piece}
    yield f"{kind}.done", {**place, "arguments": arguments}


def _texts(item: Mapping[str, Any], place: Mapping[str, Any]) -> Iterator[Event]:
    for index, part in enumerate(item["content"]):
        here = {**place, "content_index": index}
        yield "response.content_part.added", {**here, "part": {**part, "text": ""}}
        for piece in _pieces(part["text"]):
            yield "response.output_text.delta", {**here, "delta": piece, "logprobs": []}
        yield "response.output_text.done", {**here, "text": part["text"], "logprobs": []}
        yield "response.content_part.done", {**here, "part": part}


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield text[start : start + PIECE_CHARACTERS]
