"""The Files API: upload, list, retrieve, download, delete."""

from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from math import inf
from typing import Any

from orchestrator.emulator.calls import Call, Reply, json_reply
from orchestrator.emulator.file_store import StoredFile
from orchestrator.emulator.pages import page_of
from orchestrator.emulator.refusals import Refusal, refuse_invalid, refuse_missing
from orchestrator.emulator.state import Route, State, Visit

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
BYTES_MAX = 512 * 1024 * 1024  # "Individual files can be up to 512 MB"
LIST_LIMIT_MAX = 10_000  # also the default, as the reference has it

# "By default, files with purpose=batch expire after 30 days"; also the longest that can be asked.
EXPIRES_SECONDS_MIN = 3600
EXPIRES_SECONDS_MAX = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Upload:
    """One field of a form: its bytes, and the name of the file where it is one."""

    filename: str | None
    content: bytes


def create(state: State, visit: Visit) -> Reply:
    """POST /files."""
    form = read_form(visit.call)
    uploaded, purpose = form.get("file"), _text(form, "purpose")
    if uploaded is None:
        refuse_missing("file")
    if purpose is None:
        refuse_missing("purpose")
    if purpose not in PURPOSES:
        message = f"'{purpose}' is not one of {list(PURPOSES)} - 'purpose'"
        refuse_invalid(message, param="purpose")
    filename = uploaded.filename or "upload"
    if purpose == "batch" and not filename.endswith(".jsonl"):
        refuse_invalid("Invalid file format for Batch API. Must be .jsonl")
    if len(uploaded.content) > BYTES_MAX:
        raise Refusal(413, f"File is too large: the maximum is {BYTES_MAX} bytes.")
    seconds = _expires_seconds(form, purpose)
    state.admit_control(visit)
    file = StoredFile(
        id=state.new_id("file-", visit.key),
        filename=filename,
        purpose=purpose,
        created_at=visit.now,
        expires_at=visit.now + seconds,
        content=uploaded.content,
    )
    state.files.add(file)
    return json_reply(_shown(state, file))


def retrieve(state: State, visit: Visit) -> Reply:
    """GET /files/{id}."""
    state.admit_control(visit)
    return json_reply(_shown(state, _find(state, visit)))


def download(state: State, visit: Visit) -> Reply:
    """GET /files/{id}/content: the very bytes, which are kept as one piece."""
    state.admit_control(visit)
    file = _find(state, visit)
    state.files.sent(file)
    return Reply(200, {"content-type": "application/octet-stream"}, file.content)


def delete(state: State, visit: Visit) -> Reply:
    """DELETE /files/{id}."""
    state.admit_control(visit)
    file = _find(state, visit)
    state.files.delete(file)
    return json_reply({"id": file.id, "object": "file", "deleted": True})


def list_files(state: State, visit: Visit) -> Reply:
    """GET /files, newest first unless asked otherwise."""
    state.admit_control(visit)
    state.batches.advance(visit.now)
    files = state.files.newest_first(visit.now)
    if visit.call.query.get("order", "desc") == "asc":
        files.reverse()
    purpose = visit.call.query.get("purpose")
    if purpose:
        files = [file for file in files if file.purpose == purpose]
    listed, has_more = page_of(visit.call, files, default=LIST_LIMIT_MAX, most=LIST_LIMIT_MAX)
    state.books.listed(visit.route, len(listed))
    page = {
        "object": "list",
        "data": [_shown(state, file) for file in listed],
        "first_id": listed[0].id if listed else None,
        "last_id": listed[-1].id if listed else None,
        "has_more": has_more,
    }
    return json_reply(page)


ROUTES = (
    Route("POST", "/files", create),
    Route("GET", "/files", list_files),
    Route("GET", "/files/{id}", retrieve),
    Route("DELETE", "/files/{id}", delete),
    Route("GET", "/files/{id}/content", download),
)


def read_form(call: Call) -> dict[str, Upload]:
    """The fields of a multipart form; a 400 where the body is none.

    The standard library's mail parser reads it. It gives every byte back as it came (a test tries
    this with any bytes) and takes about 3 s for 100 MB, which is time enough for an emulator.
    """
    kind = call.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        message = "Invalid Content-Type header. Expected multipart/form-data."
        refuse_invalid(message, code="unsupported_content_type")
    head = f"Content-Type: {kind}\r\n\r\n".encode("latin-1", "replace")
    form: dict[str, Upload] = {}
    for part in BytesParser(policy=HTTP).parsebytes(head + call.body).iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            form[name] = Upload(part.get_filename(), content)
    return form


def _text(form: Mapping[str, Upload], name: str) -> str | None:
    field = form.get(name)
    return None if field is None else field.content.decode(errors="replace")


def _expires_seconds(form: Mapping[str, Upload], purpose: str) -> float:
    anchor, seconds = _text(form, "expires_after[anchor]"), _text(form, "expires_after[seconds]")
    if anchor is None and seconds is None:
        return EXPIRES_SECONDS_MAX if purpose == "batch" else inf
    whole = int(seconds) if seconds and seconds.isascii() and seconds.isdecimal() else None
    return check_expiry("expires_after", anchor, whole)


def check_expiry(param: str, anchor: str | None, seconds: int | None) -> int:
    """The seconds after which a file expires; a 400 where they are not from an hour to 30 days."""
    if anchor != "created_at":
        message = f"Invalid value: '{anchor}'. Supported values are: 'created_at'."
        refuse_invalid(message, param=f"{param}.anchor", code="invalid_value")
    if seconds is None or not EXPIRES_SECONDS_MIN <= seconds <= EXPIRES_SECONDS_MAX:
        message = (
            f"Invalid '{param}.seconds': expected a whole number from {EXPIRES_SECONDS_MIN} to "
            f"{EXPIRES_SECONDS_MAX}, got {seconds}."
        )
        refuse_invalid(message, param=f"{param}.seconds")
    return seconds


def _find(state: State, visit: Visit) -> StoredFile:
    # What a batch leaves behind is there as soon as its time has come, whoever asks first.
    state.batches.advance(visit.now)
    file = state.files.find(visit.run_id or "", visit.now)
    if file is None:
        raise Refusal(404, f"No such File object: {visit.run_id}", param="id")
    return file


def _shown(state: State, file: StoredFile) -> dict[str, Any]:
    expires = None if file.expires_at == inf else int(state.unix(file.expires_at))
    return {
        "id": file.id,
        "object": "file",
        "bytes": len(file.content),
        "created_at": int(state.unix(file.created_at)),
        "expires_at": expires,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }
