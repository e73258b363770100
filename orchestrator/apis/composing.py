"""Makes bodies out of bodies: what the user wrote goes out byte for byte, with our fields added."""

from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.core.actions import CreateRun
from orchestrator.core.model import Request, ToolOutput
from orchestrator.ports import ToolSchema

# Limits of `metadata` (API reference).
METADATA_KEYS_MAX = 16
METADATA_CHARACTERS_MAX = 512

# Our key for the name of a run; what was lost is found by it.
RUN_KEY = "orchestrator_run"

Fields = dict[str, msgspec.Raw]

_fields = msgspec.json.Decoder(Fields)


def fields_of(body: bytes) -> Fields:
    """The fields of a JSON object, their values as they are written."""
    return _fields.decode(body)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def joined(fields: Mapping[str, msgspec.Raw]) -> bytes:
    return msgspec.json.encode(fields)


def says(fields: Fields, name: str) -> bool:
    """Whether a field is there and is not null."""
    return bytes(fields.get(name, b"null")) != b"null"


def array_of(value: msgspec.Raw | bytes | None) -> list[msgspec.Raw]:
    """The entries of a JSON array, as they are written."""
    return [] if value is None else msgspec.json.decode(value, type=list[msgspec.Raw])


def function_tool(schema: ToolSchema) -> dict[str, Any]:
    """A tool as /v1/responses wants it.

    Not `strict`: that demands every parameter to be required, and our handlers check what comes.
    """
    return {
        "type": "function",
        "name": schema.name,
        "description": schema.description,
        "parameters": schema.parameters,
        "strict": False,
    }


def chat_tool(schema: ToolSchema) -> dict[str, Any]:
    """A tool as /v1/chat/completions wants it."""
    function = {
        "name": schema.name,
        "description": schema.description,
        "parameters": schema.parameters,
    }
    return {"type": "function", "function": function}


def output_item(output: ToolOutput) -> dict[str, str]:
    """A tool output as /v1/responses wants it."""
    return {"type": "function_call_output", "call_id": output.call_id, "output": output.output}


def output_message(output: ToolOutput) -> dict[str, str]:
    """A tool output as /v1/chat/completions wants it."""
    return {"role": "tool", "tool_call_id": output.call_id, "content": output.output}


def release_tool_choice(fields: Fields) -> None:
    """Once its tools were called, a model that was forced to call one may answer.

    Sent again with every turn, a forced choice would make it call tools for ever.
    """
    choice = bytes(fields.get("tool_choice", b'"auto"')).strip()
    if choice not in {b'"auto"', b'"none"', b"null"}:
        fields["tool_choice"] = raw("auto")


def run_name(key: str, action: CreateRun) -> str:
    """What a run is called in our `metadata`: the same however often its create is sent.

    So it is after a restart, too. Another run of the same request has another name.
    """
    return f"{key}/{action.number}.{action.creates + 1}"


def add_metadata(fields: Fields, ours: Mapping[str, str], request: Request) -> None:
    """Put our key, and the custom_id for people, beside the user's metadata, where they fit."""
    merged: Fields = {}
    if says(fields, "metadata"):
        try:
            merged = fields_of(bytes(fields["metadata"]))
        except msgspec.ValidationError:
            return  # no object: the server will say what it thinks of it
    for key, value in {**ours, "custom_id": request.custom_id}.items():
        if len(merged) < METADATA_KEYS_MAX and len(value) <= METADATA_CHARACTERS_MAX:
            merged.setdefault(key, raw(value))
    if merged:
        fields["metadata"] = raw(merged)
