"""The files of a batch: the lines that go up, and what came of them.

Rules: nothing is held in memory that grows with the file; a line that can't be read concerns only
the run whose line it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

import msgspec

from orchestrator.apis.composing import fields_of, joined
from orchestrator.apis.direct import Direct
from orchestrator.apis.reading import decoded, error_of, object_of, text_of
from orchestrator.apis.refusals import refusal
from orchestrator.apis.transport import Reply
from orchestrator.core.actions import BatchLine
from orchestrator.core.failures import RETRYABLE_RUN_CODES, Cause, Failure
from orchestrator.core.model import RunError, Seen, Times
from orchestrator.ports import CallFailed

HTTP_OK = 200

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
    file: BinaryIO, lines: Sequence[BatchLine], direct: Direct, times: Times | None
) -> Iterator[tuple[int, Seen | Failure]]:
    """What came of these lines, by the numbers of their runs; closes the file in the end.

    Each is told once, even if the file has it twice, and lines that nobody asked for are left out.
    """
    by_id = {line.request.custom_id: line for line in lines}
    with file:
        file.seek(0)
        for text in file:
            try:
                entry = decoded(text)
            except CallFailed:
                continue  # whose line it was can't be told; it counts as missing
            line = by_id.pop(text_of(entry, "custom_id"), None)
            if line is not None:
                yield line.number, _answer(text, entry, line, direct, times)


def _answer(
    text: bytes, entry: dict[str, Any], line: BatchLine, direct: Direct, times: Times | None
) -> Seen | Failure:
    response = object_of(entry, "response")
    status_code = response.get("status_code")
    if not isinstance(status_code, int):
        return _no_response(error_of(entry, "error", otherwise="no_response"))
    body = _body_in(text)
    request_id = text_of(response, "request_id")
    try:
        if status_code != HTTP_OK:
            said = response.get("body")
            failure = refusal(status_code, decoded(body) if isinstance(said, str) else said)
            return replace(failure, request_id=request_id)
        fields = direct.fields_for(line) if direct.answers_tools else {}
        reply = Reply(status_code, request_id, body, None)
        seen = direct.seen_in(reply, fields, line.request.url)
    except CallFailed as failed:
        return failed.failure
    return replace(seen, times=times)


def _no_response(error: RunError) -> Failure:
    """A line that was not answered; why stands in its error."""
    if error.code in UNDONE_CODES:
        cause = Cause.UNDONE
    elif error.code in RETRYABLE_RUN_CODES:
        cause = Cause.SERVER_ERROR
    else:
        cause = Cause.BAD_REQUEST
    return Failure(cause, error.message, error.code)


def _body_in(text: bytes) -> bytes:
    """The answer's JSON as it stands in its line; some servers write it as a string."""
    try:
        body = bytes(fields_of(bytes(fields_of(text)["response"]))["body"])
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError):
        return b""
    return msgspec.json.decode(body).encode() if body.startswith(b'"') else body
