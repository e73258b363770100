"""The emulator's Batch API: a batch's life, what its files hold, and what the books say of it."""

import asyncio
import json
from pathlib import Path

import openai
import pytest
from support.batch_calls import (
    CHAT,
    batch_at,
    batch_emulator,
    chat_line,
    jsonl,
    lines_of,
    many,
    new_batch,
)
from support.emulator_client import content, emulator_client, get, post

from orchestrator.emulator.rules import Rule

REAL_OUTPUT = Path("../shared/data/requests/genai_navirag_65_output.jsonl")
REAL_INPUT = Path("../shared/data/requests/genai_navirag_65_input.jsonl")


class TestLife:
    async def test_from_upload_to_results_with_the_official_client(self):
        """Create, poll, list and download, every answer validated strictly."""
        client = emulator_client(batch_emulator(), _strict_response_validation=True)
        file = await client.files.create(file=("in.jsonl", jsonl(many(4))), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id,
            endpoint=CHAT,
            completion_window="24h",
            metadata={"shard": "7"},
            output_expires_after={"anchor": "created_at", "seconds": 3600},
        )
        seen = [batch.status]
        while batch.status not in {"completed", "failed"}:
            await asyncio.sleep(0.5)
            batch = await client.batches.retrieve(batch.id)
            if batch.status != seen[-1]:
                seen.append(batch.status)
        listed = [one async for one in client.batches.list(limit=100)]
        output = await client.files.content(batch.output_file_id)
        answers = [json.loads(line) for line in output.text.splitlines()]
        file = await client.files.retrieve(batch.output_file_id)

        assert seen == ["validating", "in_progress", "finalizing", "completed"]
        assert batch.completed_at - batch.created_at == 13
        assert batch.metadata == {"shard": "7"}
        assert batch.request_counts.completed == 4
        assert batch.usage.total_tokens == 16
        assert batch.model == "m"
        assert listed == [batch]
        assert {one["custom_id"] for one in answers} == {"c0", "c1", "c2", "c3"}
        assert file.purpose == "batch_output"
        assert file.expires_at - file.created_at == 3600

    async def test_failed_and_cancelled_with_the_official_client(self):
        """The other ends validate strictly too; an ended batch cannot be cancelled."""
        client = emulator_client(batch_emulator(), _strict_response_validation=True)
        ids = []
        for lines in ([{"custom_id": "x"}], many(10)):
            file = await client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id, endpoint=CHAT, completion_window="24h"
            )
            ids.append(batch.id)
        await asyncio.sleep(5)
        failed = await client.batches.retrieve(ids[0])
        cancelling = await client.batches.cancel(ids[1])
        await asyncio.sleep(3)
        cancelled = await client.batches.retrieve(ids[1])

        assert (failed.status, failed.errors.data[0].line) == ("failed", 1)
        assert cancelling.status == "cancelling"
        assert cancelled.status == "cancelled"
        assert cancelled.cancelled_at - cancelled.cancelling_at == 3
        with pytest.raises(openai.ConflictError, match="status 'cancelled'"):
            await client.batches.cancel(ids[1])

    def test_counts_and_usage_rise_while_it_is_in_progress(self):
        """Half of the time, half of the lines and half of what they cost."""
        emulator = batch_emulator()
        batch_id = new_batch(emulator, many(100, text="same"))
        seen = [batch_at(emulator, batch_id, now) for now in (0, 1, 2, 6, 11, 99)]
        usage = [batch["usage"]["total_tokens"] for batch in seen]

        assert [one["request_counts"]["total"] for one in seen] == [0, *[100] * 5]
        assert [one["request_counts"]["completed"] for one in seen] == [0, 0, 10, 50, 100, 100]
        assert usage == [0, 0, 40, 200, 400, 400]

    def test_without_a_time_of_its_own_it_takes_as_long_as_its_lines(self):
        """Ten lines of 1 s, five at a time: 2 s; a slow one holds up nobody else."""
        emulator = batch_emulator(batch_seconds=None, batch_lines_at_once=5)
        plain = new_batch(emulator, many(10))
        slow = new_batch(emulator, [*many(9), chat_line("s", "slow")])

        assert batch_at(emulator, plain, 3)["status"] == "finalizing"
        assert batch_at(emulator, slow, 3.9)["request_counts"]["completed"] in {8, 9}
        assert batch_at(emulator, slow, 50)["status"] == "in_progress"
        assert batch_at(emulator, slow, 55)["status"] == "completed"

    def test_an_hour_between_looks_changes_nothing(self):
        """Whoever looks once sees what he would have seen who looked all the time."""
        shown = []
        for looks in ([1000], [number / 10 for number in range(200)] + [1000]):
            emulator = batch_emulator(batch_seconds=None, batch_expire_after_lines=7)
            batch_id = new_batch(emulator, [*many(20), chat_line("s", "slow")])
            batches = [batch_at(emulator, batch_id, now) for now in looks]
            shown.append((batches[-1], lines_of(emulator, batches[-1]["output_file_id"], 1000)))

        assert shown[0] == shown[1]


class TestFiles:
    def test_lines_are_answered_as_direct_calls_are(self):
        """The same body gives the same answer, tool calls included."""
        emulator = batch_emulator()
        lines = [chat_line("a", "hello"), chat_line("b", "tool")]
        batch = batch_at(emulator, new_batch(emulator, lines), 20)
        output = {one["custom_id"]: one for one in lines_of(emulator, batch["output_file_id"], 20)}
        direct = content(post(emulator, CHAT, lines[0]["body"], now=20))
        called = output["b"]["response"]["body"]["choices"][0]["message"]["tool_calls"]

        assert output["a"]["response"]["body"]["choices"] == direct["choices"]
        assert called[0]["function"] == {"name": "look", "arguments": '{"at": "it"}'}
        assert batch["error_file_id"] is None

    @pytest.mark.parametrize(
        ("endpoint", "body"),
        [
            ("/v1/responses", {"model": "m", "input": "x", "background": True}),
            ("/v1/embeddings", {"model": "m", "input": ["x", "y"]}),
            ("/v1/completions", {"model": "m", "prompt": "x"}),
            ("/v1/moderations", {"input": "x"}),
        ],
    )
    def test_every_endpoint(self, endpoint, body):
        """Each of them answers in a batch, and is finished when the batch is."""
        emulator = batch_emulator()
        line = {"custom_id": "a", "method": "POST", "url": endpoint, "body": body}
        batch = batch_at(emulator, new_batch(emulator, [line], endpoint=endpoint), 20)
        (answer,) = lines_of(emulator, batch["output_file_id"], 20)

        assert answer["response"]["status_code"] == 200
        assert answer["response"]["body"].get("status", "completed") == "completed"

    def test_a_response_made_by_a_line_can_be_continued(self):
        """Its tool calls are answered by a later call or a later line; it counts as no run."""
        emulator = batch_emulator()
        line = {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/responses",
            "body": {"model": "m", "input": "tool"},
        }
        batch = batch_at(emulator, new_batch(emulator, [line], endpoint="/v1/responses"), 20)
        (answer,) = lines_of(emulator, batch["output_file_id"], 20)
        response = answer["response"]["body"]
        output = {
            "type": "function_call_output",
            "call_id": response["output"][0]["call_id"],
            "output": "seen",
        }
        body = {"model": "m", "previous_response_id": response["id"], "input": [output]}
        runs = emulator.books.snapshot(20)["runs"]["created"]
        continued = content(post(emulator, "/v1/responses", body, now=10_000))

        assert continued["output"][0]["content"][0]["text"] == "tool said: seen"
        assert runs == 0

    def test_refused_lines_are_in_the_error_file(self):
        """With their status and error body, as OpenAI has it; they cost nothing."""
        emulator = batch_emulator()
        lines = [chat_line("a", "bad"), chat_line("b", "oops"), chat_line("c", "good")]
        batch = batch_at(emulator, new_batch(emulator, lines), 20)
        errors = {one["custom_id"]: one for one in lines_of(emulator, batch["error_file_id"], 20)}
        output = lines_of(emulator, batch["output_file_id"], 20)

        assert {name: one["response"]["status_code"] for name, one in errors.items()} == {
            "a": 400,
            "b": 500,
        }
        assert errors["a"]["error"] is None
        assert errors["a"]["response"]["body"]["error"]["code"] == "invalid_prompt"
        assert [one["custom_id"] for one in output] == ["c"]
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 3, "completed": 1, "failed": 2}

    def test_completed_with_everything_failed(self):
        """There is no output file then."""
        emulator = batch_emulator()
        batch = batch_at(emulator, new_batch(emulator, [chat_line("a", "bad")]), 20)

        assert (batch["status"], batch["output_file_id"]) == ("completed", None)
        assert len(lines_of(emulator, batch["error_file_id"], 20)) == 1

    def test_output_is_in_an_order_of_its_own(self):
        """Shuffled by the seed: another seed, another order, each line once."""
        orders = []
        for seed in (1, 1, 2):
            emulator = batch_emulator(seed=seed)
            batch = batch_at(emulator, new_batch(emulator, many(30)), 20)
            output = lines_of(emulator, batch["output_file_id"], 20)
            orders.append([one["custom_id"] for one in output])

        assert orders[0] == orders[1]
        assert orders[0] != orders[2]
        for order in orders:
            assert order != sorted(order, key=lambda name: int(name[1:]))
            assert sorted(order) == sorted(f"c{number}" for number in range(30))

    def test_the_content_of_an_output_is_put_together_once(self):
        """Two downloads give out the very same bytes."""
        emulator = batch_emulator()
        batch = batch_at(emulator, new_batch(emulator, many(3)), 20)
        path = f"/v1/files/{batch['output_file_id']}/content"

        assert get(emulator, path, now=20).body is get(emulator, path, now=21).body

    def test_output_files_are_there_when_the_batch_is_over_and_30_days_long(self):
        """Nobody has to look at the batch first."""
        emulator = batch_emulator()
        new_batch(emulator, many(3))

        def purposes(now):
            files = content(get(emulator, "/v1/files", now=now))["data"]
            return [file["purpose"] for file in files]

        assert purposes(12) == ["batch"]
        assert purposes(13) == ["batch_output", "batch"]
        assert purposes(30 * 86_400 + 12) == ["batch_output"]
        assert purposes(30 * 86_400 + 13) == []

    @pytest.mark.skipif(not REAL_OUTPUT.exists(), reason="the shared data is not here")
    def test_lines_look_like_those_of_a_real_output_file(self):
        """A real input file goes through, and each line has the fields that real ones have."""
        emulator = batch_emulator()
        batch = batch_at(emulator, new_batch(emulator, REAL_INPUT.read_bytes()), 20)
        real = [json.loads(line) for line in REAL_OUTPUT.read_text().splitlines()]
        ours = lines_of(emulator, batch["output_file_id"], 20)

        assert {one["custom_id"] for one in ours} == {one["custom_id"] for one in real}
        assert list(ours[0]) == list(real[0])
        assert list(ours[0]["response"]) == list(real[0]["response"])
        assert set(real[0]["response"]["body"]) <= set(ours[0]["response"]["body"])


class TestListsAndBooks:
    def test_lists_are_newest_first_in_pages_of_at_most_100(self):
        """Two calls are enough for 150 batches."""
        emulator = batch_emulator()
        ids = [new_batch(emulator, many(1), now=number) for number in range(150)]

        def listed(query=""):
            page = content(get(emulator, f"/v1/batches?limit=100{query}", now=200))
            return [one["id"] for one in page["data"]], page["has_more"]

        first, more = listed()
        rest, no_more = listed(f"&after={first[-1]}")
        assert first + rest == ids[::-1]
        assert (len(first), more, no_more) == (100, True, False)
        assert len(content(get(emulator, "/v1/batches", now=200))["data"]) == 20
        assert get(emulator, "/v1/batches?limit=101", now=200).status == 400
        lists = emulator.books.snapshot(200)["lists"]["GET /v1/batches"]
        assert lists == [3, 170, 100]  # calls, batches answered for, most in one

    def test_lists_that_lag_show_the_past(self):
        """A new batch is missing, an ended one is still in progress, retrieving sees it right."""
        emulator = batch_emulator(list_lag_seconds=5)
        batch_id = new_batch(emulator, many(1))

        def listed(now):
            return content(get(emulator, "/v1/batches", now=now))["data"]

        assert listed(4.9) == []
        assert listed(5)[0]["status"] == "validating"
        assert batch_at(emulator, batch_id, 13)["status"] == "completed"
        (shown,) = listed(13)
        assert (shown["status"], shown["output_file_id"]) == ("in_progress", None)
        assert listed(18)[0] == batch_at(emulator, batch_id, 18)

    def test_lines_use_up_no_requests_and_are_billed_once(self):
        """A limit of one request a minute lets a batch of ten through; looking costs nothing."""
        emulator = batch_emulator(rpm=1, tpm=5)
        batch_id = new_batch(emulator, many(10))
        for now in (5, 20, 30):
            batch = batch_at(emulator, batch_id, now)
        books = emulator.books.snapshot(30)

        assert batch["request_counts"]["completed"] == 10
        assert books["refused_by_limit"] == {"requests": 0, "tokens": 0}
        assert books["models"] == {}
        assert books["tokens"] == {
            "input": batch["usage"]["input_tokens"],
            "output": batch["usage"]["output_tokens"],
        }
        assert books["batches"]["by_status"] == {"completed": 1}
        assert books["batches"]["lines"]["billed"] == 10
        assert books["checks"][batch_id] == [1, 2]
        assert list(books["creates"]["by_digest"].values()) == [1]

    def test_tokens_are_billed_as_lines_are_done(self):
        """The books follow the time even when nobody looks at the batch."""
        emulator = batch_emulator()
        new_batch(emulator, [chat_line(str(number), "four") for number in range(10)])
        inputs = [emulator.books.snapshot(now)["tokens"]["input"] for now in (1, 6, 11)]

        assert inputs == [0, 5, 10]

    def test_rules_for_the_first_times_count_lines_and_calls_together(self):
        """A line that fails twice works the third time, whichever way it is sent."""
        rules = [Rule(match="^once", http_status=500, times=2)]
        emulator = batch_emulator(rules=rules)
        line = chat_line("a", "once")
        sent = jsonl([line])
        body = sent[sent.index(b'"body": ') + 8 : -2]
        first = batch_at(emulator, new_batch(emulator, sent), 20)
        second = post(emulator, CHAT, body, now=20)
        third = batch_at(emulator, new_batch(emulator, sent, now=20), 40)

        assert first["request_counts"]["failed"] == 1
        assert second.status == 500
        assert third["request_counts"]["completed"] == 1
