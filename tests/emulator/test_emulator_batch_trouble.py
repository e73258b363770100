"""The emulator's Batch API where things go wrong: failed files, early ends, deviations, faults."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batch_calls import (
    CHAT,
    ask_for_batch,
    batch_at,
    batch_emulator,
    chat_line,
    jsonl,
    lines_of,
    many,
    new_batch,
    upload,
)
from support.emulator_client import content, get, post

from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.settings import Settings


def errors_of(lines, **settings):
    """What a batch of these lines fails with: (code, line, param) of each error."""
    emulator = batch_emulator(**settings)
    batch = batch_at(emulator, new_batch(emulator, lines), 1)
    assert batch["status"] == "failed"
    assert batch["failed_at"] == batch["created_at"] + 1
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)
    return [(one["code"], one["line"], one["param"]) for one in batch["errors"]["data"]]


class TestFailing:
    @pytest.mark.parametrize(
        ("lines", "errors"),
        [
            (b"", [("empty_file", None, None)]),
            (b"\n \r\n", [("empty_file", None, None)]),
            ([chat_line("a"), chat_line("a")], [("duplicate_custom_id", 2, "custom_id")]),
            ([chat_line("a"), chat_line("b", url="/v1/x")], [("url_mismatch", 2, "url")]),
            ([chat_line("a"), chat_line("b", model="n")], [("model_mismatch", 2, "body.model")]),
            ([chat_line("a", model="o")], [("model_not_found", 1, "body.model")]),
            ([chat_line("a", model=None)], [("missing_required_parameter", 1, "body.model")]),
            ([chat_line("")], [("missing_required_parameter", 1, "custom_id")]),
            ([chat_line(7)], [("invalid_type", 1, None)]),
            ([{**chat_line("a"), "method": "GET"}], [("invalid_method", 1, "method")]),
            ([{**chat_line("a"), "body": "x"}], [("invalid_type", 1, "body")]),
            (b'\n{"a":\n{"b":\n', [("invalid_json_line", 2, None), ("invalid_json_line", 3, None)]),
            (b"\xff\n", [("invalid_json_line", 1, None)]),
        ],
    )
    def test_what_is_wrong_with_a_file_fails_the_batch(self, lines, errors):
        """Created all the same; the errors name the line and the parameter."""
        assert errors_of(lines, models=["m", "n"]) == errors

    def test_too_many_lines_and_too_big_a_file(self):
        """The limits are OpenAI's unless set."""
        big = jsonl(many(10))

        assert errors_of(many(11), batch_lines_max=10) == [("too_many_tasks", None, None)]
        assert errors_of(big, batch_bytes_max=len(big) - 1) == [("file_too_large", None, None)]
        assert Settings().batch_lines_max == 50_000
        assert Settings().batch_bytes_max == 209_715_200

    def test_too_many_embedding_inputs(self):
        """50,000 inputs are the most, in however few lines."""
        body = {"model": "m", "input": ["x"] * 25_001}
        lines = [
            {"custom_id": name, "method": "POST", "url": "/v1/embeddings", "body": body}
            for name in "ab"
        ]
        emulator = batch_emulator()
        batch = batch_at(emulator, new_batch(emulator, lines, endpoint="/v1/embeddings"), 1)

        assert batch["errors"]["data"][0]["code"] == "too_many_tasks"

    def test_no_more_than_a_hundred_errors_are_told(self):
        """A file of nothing but mistakes is not answered with as many errors."""
        assert len(errors_of(b"{\n" * 1000)) == 100

    def test_create_calls_that_are_refused(self):
        """Endpoint, window, file, purpose, metadata and expiry are looked at right away."""
        emulator = batch_emulator()
        notes = upload(emulator, b"x", purpose="user_data")

        def refusal(**options):
            reply = ask_for_batch(emulator, many(1), **options)
            error = content(reply)["error"]
            return reply.status, error["param"]

        assert refusal(endpoint="/v1/files") == (400, "endpoint")
        assert refusal(endpoint=None) == (400, "endpoint")
        assert refusal(completion_window="48h") == (400, "completion_window")
        assert refusal(input_file_id="file-x") == (400, "input_file_id")
        assert refusal(input_file_id=notes) == (400, "input_file_id")
        assert refusal(metadata={"k": "x" * 513}) == (400, "metadata")
        assert refusal(output_expires_after={"anchor": "created_at", "seconds": 1}) == (
            400,
            "output_expires_after.seconds",
        )
        assert get(emulator, "/v1/batches/batch_x").status == 404

    def test_enqueued_tokens_are_limited_per_model(self):
        """The second batch fails until the first is over; another model has room of its own."""
        emulator = batch_emulator(batch_enqueued_tokens=90_000)
        lines = [chat_line("a", "x" * 4 * 50_000, model="gpt-4o")]
        first = new_batch(emulator, lines)
        second = new_batch(emulator, lines, now=1)
        other = new_batch(emulator, [{**lines[0], "body": {**lines[0]["body"], "model": "m"}}])
        third = new_batch(emulator, lines, now=13)

        error = batch_at(emulator, second, 13)["errors"]["data"][0]
        assert error["code"] == "token_limit_exceeded"
        assert error["message"] == (
            "Enqueued token limit reached for gpt-4o in organization org-emulator. Limit: 90,000 "
            "enqueued tokens. Please try again once some in_progress batches have been completed."
        )
        seen = [batch_at(emulator, one, 20)["status"] for one in (first, second, other, third)]
        assert seen == ["completed", "failed", "completed", "in_progress"]

    def test_who_looks_late_sees_the_same_room(self):
        """Whether there was room is decided at the time of validating, not of looking."""
        emulator = batch_emulator(batch_enqueued_tokens=10)
        ids = [new_batch(emulator, [chat_line("a", "x" * 28)], now=now) for now in (0, 5, 13)]

        statuses = [batch_at(emulator, one, 1000)["status"] for one in ids]
        assert statuses == ["completed", "failed", "completed"]

    def test_batches_per_hour(self):
        """One more is refused, until an hour has passed."""
        emulator = batch_emulator(batches_per_hour=2)
        statuses = [
            ask_for_batch(emulator, many(1), now=now).status for now in (0, 1, 2, 3600, 3601)
        ]

        assert statuses == [200, 200, 429, 200, 200]


class TestEndingEarly:
    def test_a_thousand_lines_that_expire_after_600(self):
        """600 results are kept and billed, 400 lines are in the error file."""
        emulator = batch_emulator(batch_expire_after_lines=600)
        batch_id = new_batch(emulator, many(1000))
        batch = batch_at(emulator, batch_id, 30)
        output = lines_of(emulator, batch["output_file_id"], 30)
        errors = lines_of(emulator, batch["error_file_id"], 30)

        assert batch["status"] == "expired"
        assert batch["expired_at"] - batch["created_at"] == 9  # 1 + 6 + 2
        assert len(output) == 600
        assert len(errors) == 400
        assert {one["custom_id"] for one in output + errors} == {f"c{n}" for n in range(1000)}
        message = "This request could not be executed before the completion window expired."
        for one in errors:
            assert one.keys() == {"id", "custom_id", "response", "error"}
            assert one["response"] is None
            assert one["error"] == {"code": "batch_expired", "message": message}
        books = emulator.books.snapshot(30)["batches"]
        assert books["each"][batch_id] == {
            "status": "expired",
            "sent": 1000,
            "answered": 600,
            "billed": 600,
            "failed": 0,
            "expired": 400,
            "cancelled": 0,
            "input_tokens": batch["usage"]["input_tokens"],
            "output_tokens": batch["usage"]["output_tokens"],
        }

    def test_its_time_is_up(self):
        """What hangs is expired after a day, or what is set."""
        emulator = batch_emulator(batch_expires_seconds=100)
        batch_id = new_batch(emulator, [chat_line("a"), chat_line("b", "hang")])

        assert batch_at(emulator, batch_id, 99)["status"] == "in_progress"
        assert batch_at(emulator, batch_id, 101)["status"] == "finalizing"
        batch = batch_at(emulator, batch_id, 102)
        assert (batch["status"], batch["request_counts"]["completed"]) == ("expired", 1)
        assert batch["expires_at"] - batch["created_at"] == 100
        assert Settings().batch_expires_seconds == 86_400

    def test_cancelling_keeps_what_is_done(self):
        """No line is done from then on; the rest is in the error file."""
        emulator = batch_emulator()
        batch_id = new_batch(emulator, many(10))
        shown = [
            content(post(emulator, f"/v1/batches/{batch_id}/cancel", now=now)) for now in (6, 7)
        ]
        batch = batch_at(emulator, batch_id, 9)

        assert [one["status"] for one in shown] == ["cancelling", "cancelling"]
        assert shown[0]["cancelling_at"] == shown[1]["cancelling_at"]
        assert batch["status"] == "cancelled"
        assert batch["finalizing_at"] is None
        assert len(lines_of(emulator, batch["output_file_id"], 9)) == 5
        errors = lines_of(emulator, batch["error_file_id"], 9)
        assert {one["error"]["code"] for one in errors} == {"batch_cancelled"}
        assert emulator.books.snapshot(9)["batches"]["lines"]["cancelled"] == 5

    def test_cancelled_before_anything_is_done(self):
        """While it is validating there are no lines yet, and no files afterwards."""
        emulator = batch_emulator()
        batch_id = new_batch(emulator, many(10))
        post(emulator, f"/v1/batches/{batch_id}/cancel", now=0.5)
        batch = batch_at(emulator, batch_id, 20)

        assert (batch["status"], batch["request_counts"]["total"]) == ("cancelled", 0)
        assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)

    @pytest.mark.parametrize("stuck_in", ["validating", "in_progress", "finalizing", "cancelling"])
    def test_stuck_for_ever(self, stuck_in):
        """A batch that never leaves a status, though its time is up; cancelling may free it."""
        emulator = batch_emulator(batch_stuck_in=stuck_in)
        batch_id = new_batch(emulator, many(10))
        if stuck_in == "cancelling":
            post(emulator, f"/v1/batches/{batch_id}/cancel", now=6)
        assert batch_at(emulator, batch_id, 10**6)["status"] == stuck_in
        post(emulator, f"/v1/batches/{batch_id}/cancel", now=10**6)

        batch = batch_at(emulator, batch_id, 10**6 + 3)
        assert batch["status"] == ("cancelling" if stuck_in == "cancelling" else "cancelled")
        if stuck_in == "finalizing":
            assert len(lines_of(emulator, batch["output_file_id"], 10**6 + 3)) == 10

    @given(
        count=st.integers(1, 12),
        expire_after=st.integers(1, 12),
        at_once=st.integers(1, 4),
        cancel_at=st.integers(0, 20),
    )
    def test_every_line_is_accounted_for_once(self, count, expire_after, at_once, cancel_at):
        """However it ends, the two files hold each line once, and the tokens are those of both."""
        emulator = batch_emulator(
            batch_seconds=None, batch_lines_at_once=at_once, batch_expire_after_lines=expire_after
        )
        lines = [chat_line(f"c{n}", "bad" if n % 4 == 3 else "hello") for n in range(count)]
        batch_id = new_batch(emulator, lines)
        post(emulator, f"/v1/batches/{batch_id}/cancel", now=cancel_at)
        batch = batch_at(emulator, batch_id, 100)
        files = [
            lines_of(emulator, file_id, 100) if file_id else []
            for file_id in (batch["output_file_id"], batch["error_file_id"])
        ]

        ids = [one["custom_id"] for one in files[0] + files[1]]
        assert len(ids) == len(set(ids)) == batch["request_counts"]["total"]
        assert len(ids) == (0 if cancel_at == 0 else count)
        assert len(files[0]) == batch["request_counts"]["completed"]
        spent = sum(one["response"]["body"]["usage"]["total_tokens"] for one in files[0])
        assert batch["usage"]["total_tokens"] == spent
        assert sum(emulator.books.snapshot(100)["tokens"].values()) == spent


class TestDeviations:
    def shown(self, *names, lines=None, **settings):
        emulator = batch_emulator(deviations=names, **settings)
        given = many(2) if lines is None else lines
        batch = batch_at(emulator, new_batch(emulator, given), 20)
        return emulator, batch

    def test_error_file_ids(self):
        """An empty string, or an id whose file is empty."""
        _, blank = self.shown("batch_blank_error_id")
        emulator, empty = self.shown("batch_empty_error_file")

        assert blank["error_file_id"] == ""
        assert lines_of(emulator, empty["error_file_id"], 20) == []

    def test_bodies_as_text(self):
        """The body is JSON in a string."""
        emulator, batch = self.shown("batch_body_as_text")
        for one in lines_of(emulator, batch["output_file_id"], 20):
            assert json.loads(one["response"]["body"])["object"] == "chat.completion"

    def test_no_output_id(self):
        """Completed, everything answered and paid for, and no file is named."""
        _, batch = self.shown("batch_no_output_id")

        assert (batch["status"], batch["output_file_id"]) == ("completed", None)
        assert batch["request_counts"]["completed"] == 2

    def test_refused_lines_among_the_output(self):
        """A line of the output file can be a 400."""
        emulator, batch = self.shown("batch_refused_in_output", lines=[chat_line("a", "bad")])
        (one,) = lines_of(emulator, batch["output_file_id"], 20)

        assert one["response"]["status_code"] == 400
        assert batch["error_file_id"] is None

    def test_no_counts_on_failure(self):
        """request_counts is null where a batch failed, and only there."""
        _, failed = self.shown("batch_no_counts_on_failure", lines=b"")
        _, fine = self.shown("batch_no_counts_on_failure")

        assert failed["request_counts"] is None
        assert fine["request_counts"]["total"] == 2

    def test_responses_refused(self):
        """/v1/responses is no endpoint for batches."""
        emulator = batch_emulator(deviations=["batch_no_responses"])

        assert ask_for_batch(emulator, b"", endpoint="/v1/responses").status == 400
        assert ask_for_batch(emulator, b"", endpoint=CHAT).status == 200

    def test_unknown_names_are_a_mistake(self):
        """What can't be meant is said when the settings are made."""
        with pytest.raises(EmulatorMistake, match="unknown deviation 'x'; known are any_"):
            Settings(deviations=["x"])
        with pytest.raises(EmulatorMistake, match="batch_stuck_in must be one of"):
            Settings(batch_stuck_in="bed")
        with pytest.raises(EmulatorMistake, match="batches_per_hour must be 1 or more"):
            Settings(batches_per_hour=0)


class TestFaults:
    def test_batches_that_expire_in_part(self):
        """The fault lets a batch expire when some of it is done, the same part each time."""
        shares = set()
        for seed in (1, 1, 2):
            emulator = batch_emulator(seed=seed, faults={"batch_expires": 1.0})
            batch = batch_at(emulator, new_batch(emulator, many(100)), 20)
            assert batch["status"] == "expired"
            shares.add(batch["request_counts"]["completed"])

        assert len(shares) == 2
        assert all(1 <= share < 100 for share in shares)
        assert emulator.books.snapshot(20)["faults"] == {"batch_expires": 1}

    def test_lines_that_fail(self):
        """A part of the lines gets a 500; sent again they have another chance."""
        emulator = batch_emulator(faults={"error_line": 0.3})
        batch = batch_at(emulator, new_batch(emulator, many(200)), 20)
        failed = {one["custom_id"] for one in lines_of(emulator, batch["error_file_id"], 20)}
        again = batch_at(emulator, new_batch(emulator, many(200), now=20), 40)
        failed_again = {one["custom_id"] for one in lines_of(emulator, again["error_file_id"], 40)}

        assert 40 <= len(failed) <= 80
        assert failed != failed_again
        met = emulator.books.snapshot(40)["faults"]["error_line"]
        assert met == len(failed) + len(failed_again)

    def test_a_batch_that_hangs(self):
        """It is finalizing for ever; its lines are not hung one by one."""
        emulator = batch_emulator(faults={"hang": 1.0})
        batch = batch_at(emulator, new_batch(emulator, many(10)), 10**6)

        assert (batch["status"], batch["request_counts"]["completed"]) == ("finalizing", 10)

    def test_a_create_whose_answer_is_lost(self):
        """The batch is there all the same, and the list shows it with its metadata."""
        emulator = batch_emulator(faults={"drop_after": 1.0})
        reply = ask_for_batch(emulator, many(1), metadata={"key": "mine"})
        page = content(get(emulator, "/v1/batches"))

        assert reply.drop
        assert [one["metadata"] for one in page["data"]] == [{"key": "mine"}]
        assert emulator.books.snapshot(0)["creates"]["by_metadata"] == {"key": {"mine": 1}}
