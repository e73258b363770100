"""The emulator's Files API: what is uploaded comes back as it was, for as long as it is kept."""

import asyncio
import io

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batch_calls import form_of, upload
from support.emulator_client import call_of, content, emulator_client, get, post

from orchestrator.emulator.calls import Call
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.files import read_form
from orchestrator.emulator.settings import Settings

DAY = 86_400


def refused(emulator, fields):
    headers, body = form_of(fields)
    reply = post(emulator, "/v1/files", body, headers=headers)
    return reply.status, content(reply)["error"]["message"]


async def test_a_file_from_upload_to_deletion():
    """The official client uploads, looks, lists, downloads and deletes."""
    client = emulator_client(Emulator(), _strict_response_validation=True)
    sent = b'{"custom_id": "\xc3\xa9"}\r\n\n\x00'
    file = await client.files.create(file=("mine.jsonl", sent), purpose="batch")
    seen = await client.files.retrieve(file.id)
    listed = [one.id async for one in client.files.list()]
    back = await client.files.content(file.id)
    deleted = await client.files.delete(file.id)

    assert (file.filename, file.bytes, file.purpose) == ("mine.jsonl", len(sent), "batch")
    assert file.expires_at - file.created_at == 30 * DAY
    assert seen == file
    assert listed == [file.id]
    assert back.content == sent
    assert deleted.deleted
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        await client.files.retrieve(file.id)


async def test_a_file_object_and_an_expiry_of_its_own():
    """An open file goes as well as bytes, and the time to live can be chosen."""
    client = emulator_client(Emulator(), _strict_response_validation=True)
    stream = io.BytesIO(b"some text")
    stream.name = "notes.txt"
    file = await client.files.create(
        file=stream,
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    await asyncio.sleep(3599)
    assert (await client.files.content(file.id)).text == "some text"
    await asyncio.sleep(1)

    with pytest.raises(openai.NotFoundError):
        await client.files.content(file.id)
    assert [one.id async for one in client.files.list()] == []


@given(st.one_of(st.binary(), st.text("\r\n-b\x0b\x0c\x85é\u2028\0").map(str.encode)))
def test_any_bytes_come_through_a_form(sent):
    """Whatever is in a file, line ends of all kinds included, is read as it was sent."""
    headers, body = form_of({"purpose": "batch", "file": ("in.jsonl", sent)}, boundary="bb7")
    form = read_form(Call("POST", "/v1/files", headers=headers, body=body))

    assert form["file"].content == sent
    assert form["file"].filename == "in.jsonl"
    assert form["purpose"].content == b"batch"


def test_uploads_that_are_refused():
    """What is missing or wrong is named."""
    emulator = Emulator()
    file = ("in.jsonl", b"{}")
    expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "10"}

    assert refused(emulator, {"purpose": "batch"}) == (400, "Missing required parameter: 'file'.")
    assert refused(emulator, {"file": file})[1] == "Missing required parameter: 'purpose'."
    assert "'lunch' is not one of" in refused(emulator, {"file": file, "purpose": "lunch"})[1]
    assert "Must be .jsonl" in refused(emulator, {"file": ("a.txt", b""), "purpose": "batch"})[1]
    assert "3600" in refused(emulator, {"file": file, "purpose": "batch", **expiry})[1]
    assert post(emulator, "/v1/files", {"file": "x"}).status == 400
    assert emulator.books.snapshot(0)["files"] == {}


def test_lists_by_purpose_order_and_page():
    """Newest first unless asked otherwise, page by page, one purpose only."""
    emulator = Emulator()
    ids = [upload(emulator, b"{}", now=number) for number in range(5)]
    other = upload(emulator, b"x", now=5, purpose="user_data")

    def listed(query):
        page = content(get(emulator, f"/v1/files?{query}", now=6))
        return [file["id"] for file in page["data"]], page["has_more"]

    assert listed("") == ([other, *reversed(ids)], False)
    assert listed("purpose=batch&order=asc&limit=2") == (ids[:2], True)
    assert listed(f"purpose=batch&order=asc&limit=3&after={ids[1]}") == (ids[2:], False)
    assert get(emulator, "/v1/files?after=file-x", now=6).status == 400
    assert get(emulator, "/v1/files?limit=0", now=6).status == 400


def test_the_same_upload_is_the_same_whatever_its_boundary():
    """A client draws a new boundary each time; chance and the books do not depend on it."""
    records = []
    for boundary in ("one", "two"):
        emulator = Emulator(Settings(faults={"slow": 0.5}))
        upload(emulator, b"{}", boundary=boundary)
        records.append(emulator.books.calls()[0])

    assert records[0] == records[1]


def test_content_is_given_out_as_one_piece():
    """Big files are not put together again for each download."""
    emulator = Emulator()
    file_id = upload(emulator, b"x" * 1000)
    replies = [get(emulator, f"/v1/files/{file_id}/content") for _ in range(2)]

    assert replies[0].body is replies[1].body


def test_the_books_count_files_by_purpose():
    """How many there were, how big, how many are left, and what was downloaded."""
    emulator = Emulator()
    first, _ = upload(emulator, b"12345"), upload(emulator, b"123")
    get(emulator, f"/v1/files/{first}/content")
    emulator.handle(call_of("DELETE", f"/v1/files/{first}"), 1)
    upload(emulator, b"1", purpose="user_data")

    books = emulator.books.snapshot(2)["files"]
    assert books["batch"] == {
        "created": 2,
        "bytes": 8,
        "deleted": 1,
        "there": 1,
        "bytes_downloaded": 5,
    }
    assert books["user_data"]["there"] == 1
    assert emulator.books.snapshot(31 * DAY)["files"]["batch"]["there"] == 0


def test_calls_about_files_count_only_if_set():
    """Uploads and looks use up no requests, unless the settings say so."""
    for control_calls_count, status in ((False, 200), (True, 429)):
        emulator = Emulator(Settings(rpm=1, control_calls_count=control_calls_count))
        upload(emulator, b"{}")
        assert get(emulator, "/v1/files").status == status
