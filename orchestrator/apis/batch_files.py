"""The files of a batch: the lines that go up, and what came of them.

Rules: nothing is held in memory that grows with the file; a line that can't be read concerns only
the run whose line it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

import msgspec

from orchestrator.apis.composing import fields_of, joined
from orchestrator.apis.direct import Direct
from orchestrator.apis.reading import decoded, error_of, malformed, object_of, text_of
from orchestrator.apis.refusals import refusal
from orchestrator.apis.transport import Reply
from orchestrator.core.actions import BatchLine
from orchestrator.core.failures import RETRYABLE_RUN_CODES, Cause, Failure
from orchestrator.core.model import RunError, Seen, Times
from orchestrator.errors import OrchestratorError
from orchestrator.ports import CallFailed

HTTP_OK = 200
HTTP_LEAST, HTTP_MOST = 100, 599
DIGITS_MAX = 6

UTF8_BOM = b"\xef\xbb\xbf"

# No run has this number.
NOBODY = 0

# What is larger than this is kept in a file that only this process can see.
MEMORY_BYTES_MAX = 16 * 2**20

# Of lines that were not done (API reference: `batch_expired`; the other one by its example).
UNDONE_CODES = frozenset({"batch_expired", "batch_cancelled", "batch_canceled"})


def spooled() -> BinaryIO:
    """A file for what is too large for memory; it is gone when it is closed."""
    return cast("BinaryIO", SpooledTemporaryFile(max_size=MEMORY_BYTES_MAX))


def line_for(line: BatchLine, direct: Direct) -> bytes:
    """What goes up for one run."""
    body = msgspec.Raw(joined(direct.fields_for(line)))
    request = line.request
    entry = {
        "custom_id": request.custom_id,
        "method": "POST",
        "url": request.url,
        "body": body,
    }
    # Raw line breaks stand only between the tokens of a JSON text.
    return msgspec.json.encode(entry).replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


def answers_in(
    file: BinaryIO,
    lines: Sequence[BatchLine],
    direct: Direct,
    times: Times | None,
    masked: Callable[[str], str],
) -> Iterator[tuple[int, Seen | Failure]]:
    """What came of these lines, by the numbers of their runs; closes the file in the end.

    Each is told once, even if the file has it twice. What is nobody's is told as of run 0, so that
    whoever reads can let others have their turn.
    """
    by_id = {line.request.custom_id: line for line in lines}
    with file:
        file.seek(0)
        for text in file:
            try:
                entry = decoded(text.removeprefix(UTF8_BOM))
            except CallFailed as failed:
                yield NOBODY, failed.failure  # it counts as missing
                continue
            line = by_id.pop(str(entry.get("custom_id")), None)
            if line is None:
                yield NOBODY, Failure(Cause.MALFORMED, "nobody's line, or told before")
                continue
            answer = _answer_of(text, entry, line, direct)
            if isinstance(answer, Failure):
                yield line.number, replace(answer, message=masked(answer.message))
            else:
                yield line.number, replace(answer, times=times)


def _answer_of(
    text: bytes, entry: dict[str, Any], line: BatchLine, direct: Direct
) -> Seen | Failure:
    """What came of this line, whatever it looks like: it must not cost the others their answers."""
    try:
        return _answer(text, entry, line, direct)
    except CallFailed as failed:
        return failed.failure
    except OrchestratorError:
        raise
    except Exception as error:  # noqa: BLE001 - a bug with one line
        return Failure(Cause.INTERNAL, f"{type(error).__name__}: {error}")


def _answer(text: bytes, entry: dict[str, Any], line: BatchLine, direct: Direct) -> Seen | Failure:
    response = object_of(entry, "response")
    status_code = _status_in(response)
    if status_code is None:
        if response or not entry.get("error"):
            raise malformed("the line has neither a status code nor an error")
        return _no_response(error_of(entry, "error", otherwise="no_response"))
    request_id = text_of(response, "request_id")
    if status_code != HTTP_OK:
        failure = refusal(status_code, _said_in(response.get("body")))
        return replace(failure, request_id=request_id)
    fields = direct.fields_for(line) if direct.answers_tools else {}
    reply = Reply(status_code, request_id, _body_in(text, response.get("body")), None)
    return direct.seen_in(reply, fields, line.request.url)


def _status_in(response: Mapping[str, Any]) -> int | None:
    """The status code; some servers write it as text or with a point."""
    found = response.get("status_code")
    if isinstance(found, str) and found.isascii() and found.isdecimal():
        found = int(found[:DIGITS_MAX])
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return int(found) if HTTP_LEAST <= found <= HTTP_MOST and found == int(found) else None


def _said_in(body: object) -> object:
    """A refusal's body, decoded where it is JSON in a string."""
    if not isinstance(body, str):
        return body
    try:
        return decoded(body.encode("utf-8", "replace"))
    except CallFailed:
        return body


def _no_response(error: RunError) -> Failure:
    """A line that was not answered; why stands in its error."""
    if error.code in UNDONE_CODES:
        cause = Cause.UNDONE
    elif error.code in RETRYABLE_RUN_CODES:
        cause = Cause.SERVER_ERROR
    else:
        cause = Cause.BAD_REQUEST
    return Failure(cause, error.message, error.code)


def _body_in(text: bytes, body: object) -> bytes:
    """The answer's JSON as it stands in its line; some servers write it as a string."""
    if isinstance(body, str):
        return body.encode("utf-8", "replace")
    try:
        return bytes(fields_of(bytes(fields_of(text)["response"]))["body"])
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.encode(body)  # it was read with more patience
