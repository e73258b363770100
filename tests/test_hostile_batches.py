"""Batch servers that answer wrongly: nothing is waited for for ever, nothing is lost uncounted."""

import asyncio
import gc

import httpx2
import pytest
from support.batch_server import BatchServer, chat_body, chats, jsonl, line, run_by_batch
from support.fake_server import answer_of, client_of

from orchestrator.core.model import Outcome
from orchestrator.service import Orchestrator


def outcomes(results):
    return {result.outcome for result in results.values()}


@pytest.mark.parametrize("answer", [httpx2.ReadError("lost"), {"ok": True}])
async def test_creates_whose_answers_are_lost_are_bounded(answer):
    """Each may be a batch that is paid: looking in between is no reason to go on for ever."""

    def create(_, ordinary):
        ordinary()
        return answer

    server = BatchServer(create=create, list=lambda *_: {"data": []})
    results, _ = await run_by_batch(server, chats(2))

    assert outcomes(results) == {Outcome.FAILED}
    assert server.counts["create"] <= 10
    assert {result.lost for result in results.values()} == {server.counts["create"]}


async def test_a_lost_create_without_a_list_to_look_at():
    """The batch can't be found, so it is created again, and its lines say so."""

    def create(server, ordinary):
        batch = ordinary()
        return httpx2.ReadError("lost") if server.counts["create"] == 1 else batch

    no_list = answer_of({"error": {"message": "no list"}}, 404)
    server = BatchServer(create=create, list=lambda *_: no_list)
    results, _ = await run_by_batch(server, chats(2))

    assert outcomes(results) == {Outcome.COMPLETED}
    assert {result.lost for result in results.values()} == {1}


async def test_an_upload_answered_without_an_id_loses_nothing():
    """Uploads cost nothing, so nothing counts as lost."""
    server = BatchServer(upload=lambda *_: {"ok": True})
    results, orchestrator = await run_by_batch(server, chats(2))

    assert outcomes(results) == {Outcome.FAILED}
    assert orchestrator.totals.creates_lost == 0


async def test_a_file_that_is_too_large_for_the_server_is_halved():
    """413 says no more than that; half as many lines may pass."""

    def upload(server, ordinary):
        file = ordinary()
        too_large = len(server.files[file["id"]]) > 2
        return answer_of({"error": {"message": "too large"}}, 413) if too_large else file

    server = BatchServer(upload=upload)
    results, _ = await run_by_batch(server, chats(4))

    assert outcomes(results) == {Outcome.COMPLETED}
    assert len(results) == 4


@pytest.mark.parametrize("status", [429, 402, 500, 404])
async def test_a_download_that_never_works_is_given_up(status):
    """The result is paid, so it is asked for often, but not for ever."""
    refusal = answer_of({"error": {"message": "no"}}, status)
    server = BatchServer(content=lambda *_: refusal)
    results, _ = await run_by_batch(server, chats(2))

    assert outcomes(results) <= {Outcome.UNKNOWN, Outcome.EXPIRED}
    assert server.counts["content"] <= 101
    assert server.counts["create"] == 1


async def test_a_list_that_does_not_work():
    """After a few failures each batch is asked for by itself."""
    refusal = answer_of({"error": {"message": "no"}}, 500)
    results, _ = await run_by_batch(BatchServer(list=lambda *_: refusal), chats(2))

    assert outcomes(results) == {Outcome.COMPLETED}


@pytest.mark.parametrize("status", ["completed", "expired", "cancelled", "failed"])
async def test_answers_without_a_file(status):
    """Lines were answered and paid; when their file is not named in time, a person has to look."""

    def ends(batch):
        batch |= {"status": status, "output_file_id": None, "completed_at": 4_000_000_000}

    server = BatchServer(ends=ends)
    results, _ = await run_by_batch(server, chats(2))

    assert outcomes(results) == {Outcome.UNKNOWN}
    assert {result.error.code for result in results.values()} == {"batch_output_missing"}
    assert server.counts["create"] == 1


NOTHING_DONE = {"request_counts": None, "output_file_id": None}

READABLE = {
    "a byte order mark": b"\xef\xbb\xbf" + jsonl([line("c0")]),
    "half an emoji": jsonl([line("c0", body=chat_body("hal\ud83d"))]),
    "a body in a string": jsonl([line("c0", body='{"choices": [{"message": {}}], "id": "x"}')]),
    "a status in a string": jsonl([line("c0", "200")]),
    "a status with a point": jsonl([line("c0", 200.0)]),
    "CRLF": jsonl([line("c0")]).replace(b"\n", b"\r\n"),
    "no line break at the end": jsonl([line("c0")]).rstrip(),
    "garbage around it": b"[1]\nnull\n{}\n\n{torn\n" + jsonl([line("x"), line("c0")]) + b"{",
    "the line twice": jsonl([line("c0"), line("c0", 400, {"error": {"message": "no"}})]),
}


@pytest.mark.parametrize("output", READABLE.values(), ids=READABLE.keys())
async def test_answers_that_can_be_read_are_read(output):
    """They are paid for; how the file is written is the server's affair."""
    server = BatchServer(output=lambda: output)
    results, _ = await run_by_batch(server, chats(1))

    assert outcomes(results) == {Outcome.COMPLETED}
    assert (results["c0"].lost, server.counts["create"]) == (0, 1)


@pytest.mark.parametrize(("status", "batches"), [(400, 1), (500, 10)])
async def test_refusals_in_plain_words(status, batches):
    """The status code tells what to do, whatever stands beside it."""
    server = BatchServer(output=lambda: jsonl([line("c0", status, "Too long: sk-SECRET")]))
    results, _ = await run_by_batch(server, chats(1))

    assert outcomes(results) == {Outcome.FAILED}
    assert results["c0"].error.message == f"HTTP {status}: Too long: ***"
    assert (results["c0"].lost, server.counts["create"]) == (0, batches)


async def test_a_file_of_nothing_but_garbage():
    """Nothing in it is anybody's: to send it all again would be paid again."""
    server = BatchServer(output=lambda: b"{torn\n" + jsonl([line("nobody")]))
    results, _ = await run_by_batch(server, chats(2))

    assert {result.error.code for result in results.values()} == {"batch_output_missing"}
    assert server.counts["create"] == 1


async def test_a_key_in_what_the_validation_says():
    """Some servers quote it; it must not get into results."""

    def ends(batch):
        errors = {"data": [{"code": "odd", "message": "key sk-SECRET, " + "9" * 5_000, "line": 1}]}
        batch |= {"status": "failed", "errors": errors, **NOTHING_DONE}

    results, _ = await run_by_batch(BatchServer(ends=ends), chats(1))

    message = results["c0"].error.message
    assert "sk-SECRET" not in message
    assert len(message) < 1_000


async def test_one_line_that_can_not_be_continued():
    """Its tool calls have no conversation to go into; the other lines have their answers."""

    async def look() -> str:
        """Look."""
        return "seen"

    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    asks = chat_body()
    asks["choices"][0]["message"]["tool_calls"] = [call]
    odd = {"custom_id": "odd", "url": "/v1/chat/completions", "body": {"messages": "hello"}}
    output = jsonl([line("odd", body=asks), line("c0"), line("c1")])
    server = BatchServer(output=lambda: output)
    results, _ = await run_by_batch(server, [*chats(2), odd], tools=[look])

    assert results["odd"].outcome is Outcome.FAILED
    assert {results["c0"].outcome, results["c1"].outcome} == {Outcome.COMPLETED}


async def test_no_file_stays_open_when_the_block_is_left():
    """Not even when it is left while a batch is being taken apart."""
    client = client_of(BatchServer().fake, api_key="any", max_retries=0)
    async with Orchestrator(client, model="m", via="batch", seed=1) as orchestrator:
        results = orchestrator.run_many(chats(600))
        async for _ in results:
            break
        await results.aclose()
    await asyncio.sleep(1)

    gc.collect()  # an open file would be a ResourceWarning, which is an error here


async def test_two_creates_with_the_same_id():
    """A mistake of the server's; whoever has an answer gets it."""
    server = BatchServer(create=lambda server, ordinary: ordinary() | {"id": "batch_0"})
    results, _ = await run_by_batch(server, chats(4), batch_lines=2)

    assert len(results) == 4


async def test_a_queue_that_is_always_full():
    """It is tried seldom, and given up after a hundred times."""

    def ends(batch):
        errors = {"data": [{"code": "token_limit_exceeded", "message": "Limit: 0 enqueued"}]}
        batch |= {"status": "failed", "errors": errors, **NOTHING_DONE}

    server = BatchServer(ends=ends)
    results, _ = await run_by_batch(server, chats(1))

    assert outcomes(results) <= {Outcome.FAILED, Outcome.TIMED_OUT}
    assert server.counts["create"] <= 102
