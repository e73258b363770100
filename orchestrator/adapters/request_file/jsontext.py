"""JSON text taken apart only as far as needed, with its problems told in words.

Values stay the text that they came as (`Raw`): decoding a line costs a fraction of a microsecond
and nothing is lost that way, be it a number that no float can hold or the order of keys.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

Raw = msgspec.Raw

SHOWN_CHARACTERS_MAX = 60  # of a wrong value in a message

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_STRING = msgspec.json.Decoder(str)
_NULL = Raw(b"null")
_KINDS = {b"{": "an object", b"[": "an array", b'"': "a string", b"t": "true", b"f": "false"}
_BYTE = re.compile(r" \(byte (\d+)\)$")
# An escape for half a character (a surrogate) without the other half beside it.
_HALF = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]")
_ONE_OBJECT = "Write each request as one JSON object on a line of its own."
# More digits than any count of tokens; int() refuses thousands of them.
_COUNT_DIGITS_MAX = 15


class LineError(Exception):
    """What is wrong with a line and what to do about it; whoever knows the file tells the user."""

    def __init__(self, *, problem: str, cure: str) -> None:
        self.problem = problem
        self.cure = cure
        self.custom_id: str | None = None
        super().__init__(problem)

    @property
    def named(self) -> str:
        """The custom_id as messages have it, empty where there is none."""
        return "" if self.custom_id is None else f" (custom_id {shown(self.custom_id)})"


def members(text: bytes) -> dict[str, Raw]:
    """The members of a JSON object, values as text.

    Raises:
        LineError: The text is no JSON object in UTF-8.
    """
    try:
        if not text.isascii():
            text.decode()
        return _OBJECT.decode(text)
    except UnicodeDecodeError as error:
        problem = f"the text is not UTF-8 (at byte {error.start + 1})"
        raise LineError(problem=problem, cure="Save the file as UTF-8.") from None
    except RecursionError:
        raise LineError(problem="the JSON is nested too deeply", cure="Make it flatter.") from None
    except msgspec.ValidationError:
        raise LineError(
            problem=f"this is {kind(text.strip())}, not a JSON object", cure=_ONE_OBJECT
        ) from None
    except msgspec.DecodeError as error:
        raise _broken(text, str(error)) from None


def _broken(text: bytes, said: str) -> LineError:
    """What is wrong with JSON that msgspec can't read, as precisely as its message allows."""
    at = _BYTE.search(said)
    rest = text[int(at[1]) :] if at else b""
    if b"\0" in text:
        return LineError(
            problem="there are NUL bytes in it",
            cure="The file is damaged or not UTF-8; save it as UTF-8.",
        )
    if rest.startswith((b"NaN", b"Infinity", b"-Infinity")):
        return LineError(problem="NaN and Infinity are not JSON", cure="Write null or a number.")
    if _HALF.search(text) and re.search("truncated|surrogate|hex escape", said):
        return LineError(
            problem=r"half of a pair of \ud... escapes is missing",
            cure="Write the whole character.",
        )
    if "truncated" in said:
        return LineError(problem="the JSON ends before it is complete", cure=_ONE_OBJECT)
    where = f" (near byte {int(at[1]) + 1})" if at else ""  # msgspec is one off now and then
    reason = _BYTE.sub("", said).removeprefix("JSON is malformed: ")
    return LineError(problem=f"this is not JSON: {reason}{where}", cure=_ONE_OBJECT)


def string(raw: bytes | Raw) -> str:
    """The value of a JSON string.

    Raises:
        LineError: It has escapes that stand for no character.
    """
    try:
        return _STRING.decode(raw)
    except msgspec.DecodeError as error:
        raise _broken(bytes(raw), str(error)) from None


def says(fields: Mapping[str, Raw], name: str) -> bool:
    """Whether the member is there and not null; programs write null for what they leave out."""
    return fields.get(name, _NULL) != _NULL


def flag(fields: Mapping[str, Raw], name: str) -> bool | None:
    """The value of a true-or-false member, None where it is missing or null.

    Raises:
        LineError: It is neither.
    """
    if not says(fields, name):
        return None
    raw = bytes(fields[name])
    if raw not in {b"true", b"false"}:
        raise LineError(
            problem=f'"{name}" is {kind(raw)}, not true or false',
            cure=f'Write "{name}": true or false.',
        )
    return raw == b"true"


def count(fields: Mapping[str, Raw], name: str) -> int:
    """The value of a whole-number member; 0 where there is nothing of the kind."""
    raw = bytes(fields.get(name, b""))
    return int(raw) if raw.isdigit() and len(raw) <= _COUNT_DIGITS_MAX else 0


def kind(raw: bytes) -> str:
    """What a JSON value is, in words."""
    return "null" if raw == b"null" else _KINDS.get(raw[:1], "a number")


def shown(value: str) -> str:
    """A value that came from outside, quoted, cut and harmless, for a message."""
    cut = value[:SHOWN_CHARACTERS_MAX] + ("..." if len(value) > SHOWN_CHARACTERS_MAX else "")
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def encoded(value: Any) -> bytes:
    """A Python value as JSON text.

    Raises:
        TypeError, ValueError: JSON has no such value (NaN, a date, half a surrogate pair).
        RecursionError: It is nested too deeply.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    message = f"JSON has no {type(value).__name__}"
    raise TypeError(message)
