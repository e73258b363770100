"""Reads what servers say, whatever they say: unknown fields, wrong types, missing parts.

Only the fields that the core needs are looked at, and never trusted to have the documented type.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

import msgspec

from orchestrator.core.failures import Cause, Failure
from orchestrator.core.model import NO_USAGE, RunError, Usage
from orchestrator.ports import CallFailed

# A usage that is not a whole number below this is no usage.
TOKENS_MAX = 10**12

# The year 5138; beyond it is no time but a mistake.
UNIX_SECONDS_MAX = 1e11


def malformed(what: str) -> CallFailed:
    """The failure for an answer that can't be read."""
    return CallFailed(Failure(Cause.MALFORMED, f"the answer can't be read: {what}"))


def decoded(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CallFailed: It is something else.
    """
    try:
        value = _value_of(body)
    except (ValueError, RecursionError) as error:
        raise malformed(f"{error} (it begins with {body[:40]!r})") from error
    if not isinstance(value, dict):
        raise malformed(f"a JSON object was expected, not {type(value).__name__}")
    return value


def _value_of(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Half of a surrogate pair: JSON's grammar allows it, and a model that is cut off in the
        # middle of an emoji writes it. It is read as "?".
        value = json.loads(body, parse_constant=_refuse_constant)
        text = json.dumps(value, ensure_ascii=False)
        return msgspec.json.decode(text.encode("utf-8", "replace"))


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is no JSON"
    raise ValueError(message)


def text_of(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""


def id_in(body: bytes) -> str:
    """The id of what was made.

    Raises:
        CallFailed: There is none.
    """
    found = text_of(decoded(body), "id")
    if not found:
        raise malformed("what was made has no id")
    return found


def objects_of(value: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects in a list; whatever else stands in it is passed over."""
    found = value.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def object_of(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def number_of(value: Mapping[str, Any], key: str) -> float | None:
    """A time in Unix seconds; some servers write it as ISO text."""
    found = value.get(key)
    if isinstance(found, str):
        try:
            found = datetime.fromisoformat(found).timestamp()
        except ValueError:
            return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if 0 <= found < UNIX_SECONDS_MAX else None


def usage_of(value: Mapping[str, Any]) -> Usage:
    """Tokens, by the names of either API (input/output, or prompt/completion)."""
    usage = object_of(value, "usage")
    if not usage:
        return NO_USAGE
    inputs = object_of(usage, "input_tokens_details") or object_of(usage, "prompt_tokens_details")
    outputs = object_of(usage, "output_tokens_details") or object_of(
        usage, "completion_tokens_details"
    )
    return Usage(
        input_tokens=_tokens(usage, "input_tokens") or _tokens(usage, "prompt_tokens"),
        output_tokens=_tokens(usage, "output_tokens") or _tokens(usage, "completion_tokens"),
        cached_tokens=_tokens(inputs, "cached_tokens"),
        reasoning_tokens=_tokens(outputs, "reasoning_tokens"),
    )


def _tokens(value: Mapping[str, Any], key: str) -> int:
    found = value.get(key)
    return found if type(found) is int and 0 <= found < TOKENS_MAX else 0


def error_of(value: Mapping[str, Any], key: str, otherwise: str) -> RunError:
    """A run's own error; `otherwise` is the code where it names none."""
    error = value.get(key)
    if isinstance(error, str):
        return RunError(otherwise, error)
    if not isinstance(error, dict):
        return RunError(otherwise, "the server gives no reason")
    message = text_of(error, "message") or "the server gives no reason"
    code = error.get("code") or error.get("type") or otherwise
    return RunError(str(code), message)


def arguments_of(value: Mapping[str, Any]) -> str:
    """A tool call's arguments as JSON text; some servers send them as an object."""
    found = value.get("arguments")
    if found is None:
        return ""
    return found if isinstance(found, str) else msgspec.json.encode(found).decode()
