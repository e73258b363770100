"""The emulator's books: every call is in them, once, with what became of it."""

import json

from support.emulator_client import content, get, post

from orchestrator.emulator import books as books_module
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings


def emulator_with(**settings):
    return Emulator(Settings(queue_seconds=Fixed(1), run_seconds=Fixed(1), **settings))


def create(emulator, text, *, now=0.0, **options):
    body = {"model": "m", "input": text, "background": True, "metadata": {"key": text}}
    return post(emulator, "/v1/responses", body, now=now, **options)


def test_calls_are_counted_by_route_and_status():
    """Two creates, one 404, one refused by the limit."""
    emulator = emulator_with(rpm=2)
    for now in (0, 1, 2):
        create(emulator, "x", now=now)
    get(emulator, "/v1/responses/resp_x", now=3)

    books = emulator.books.snapshot(3)
    assert books["calls_served"] == 4
    assert books["calls"] == {
        "POST /v1/responses": {"200": 2, "429": 1},
        "GET /v1/responses/{id}": {"404": 1},
    }
    assert books["refused_by_limit"] == {"requests": 1, "tokens": 0}
    assert books["models"]["m"]["requests_in_60_seconds_max"] == 2


def test_double_creates_can_be_seen():
    """By the body's digest and by each metadata value."""
    emulator = emulator_with()
    for text in ("a", "b", "a"):
        create(emulator, text)

    creates = emulator.books.snapshot(0)["creates"]
    assert sorted(creates["by_digest"].values()) == [1, 2]
    assert creates["by_metadata"] == {"key": {"a": 2, "b": 1}}


def test_checks_are_counted_by_what_they_saw():
    """For each run: looks at it unfinished, looks at it finished."""
    emulator = emulator_with()
    run_id = content(create(emulator, "x"))["id"]
    for now in (0.5, 1.5, 1.9, 2):
        get(emulator, f"/v1/responses/{run_id}", now=now)

    assert emulator.books.snapshot(2)["checks"] == {run_id: [3, 1]}


def test_tokens_are_billed_when_an_answer_is_there():
    """A run costs nothing before its end, and nothing if it is cancelled; chat costs at once."""
    emulator = emulator_with()
    create(emulator, "x" * 8)
    cancelled = content(create(emulator, "y"))["id"]
    post(emulator, f"/v1/responses/{cancelled}/cancel", now=1)

    assert emulator.books.snapshot(1.9)["tokens"] == {"input": 0, "output": 0}
    assert emulator.books.snapshot(2)["tokens"] == {"input": 2, "output": 2}
    chat = {"model": "m", "messages": [{"role": "user", "content": "x" * 4}]}
    post(emulator, "/v1/chat/completions", chat, now=2)
    assert emulator.books.snapshot(2)["tokens"] == {"input": 3, "output": 3}


def test_each_call_is_on_record():
    """Who asked what when, and what came of it."""
    emulator = emulator_with(faults={"slow": 1.0})
    reply = create(emulator, "x", now=7, headers={"x-client-request-id": "mine"})
    run_id = content(reply)["id"]
    get(emulator, f"/v1/responses/{run_id}", now=8)

    first, second = content(get(emulator, "/emulator/calls"))["calls"]
    assert len(first.pop("body_digest")) == 32
    assert first == {
        "sequence": 1,
        "at_seconds": 7,
        "route": "POST /v1/responses",
        "status": "200",
        "model": "m",
        "run_id": run_id,
        "client_request_id": "mine",
        "request_id": reply.headers["x-request-id"],
        "fault": "slow",
        "metadata": {"key": "x"},
    }
    assert second["run_id"] == run_id
    assert second["body_digest"] is None


def test_records_come_in_pages():
    """`after` and `limit` walk through all of them, each once."""
    emulator = emulator_with()
    for number in range(25):
        create(emulator, str(number))
    seen, after = [], 0
    while page := content(get(emulator, f"/emulator/calls?after={after}&limit=10"))["calls"]:
        seen += [record["sequence"] for record in page]
        after = seen[-1]

    assert seen == list(range(1, 26))
    assert get(emulator, "/emulator/calls?after=x").status == 400


def test_only_the_newest_records_are_kept(monkeypatch):
    """Old ones go, counts stay, and paging still finds what is left."""
    monkeypatch.setattr(books_module, "RECORDS_MAX", 10)
    emulator = emulator_with()
    for number in range(100):
        create(emulator, str(number))

    kept = [record.sequence for record in emulator.books.calls()]
    assert 10 <= len(kept) <= 11
    assert kept[-1] == 100
    assert [record.sequence for record in emulator.books.calls(after=98)] == [99, 100]
    assert emulator.books.calls_served == 100


def test_checks_count_against_the_limit_only_if_set():
    """`checks_count` decides whether looking uses up requests."""
    for checks_count, status in ((True, 429), (False, 200)):
        emulator = emulator_with(rpm=2, checks_count=checks_count)
        run_id = content(create(emulator, "x"))["id"]
        get(emulator, f"/v1/responses/{run_id}")
        assert get(emulator, f"/v1/responses/{run_id}").status == status
        assert get(emulator, "/v1/models").status == 200  # never counts


def test_tokens_are_charged_as_the_larger_of_maximum_and_text():
    """A high maximum reserves tokens per minute, used or not."""
    emulator = emulator_with(tpm=100)
    body = {"model": "m", "input": "x" * 40, "background": True}

    first = post(emulator, "/responses", body)
    second = post(emulator, "/responses", {**body, "max_output_tokens": 80})

    assert first.headers["x-ratelimit-remaining-tokens"] == "90"
    assert second.headers["x-ratelimit-remaining-tokens"] == "10"
    assert post(emulator, "/responses", {**body, "max_output_tokens": 11}).status == 429


def test_the_books_page_says_what_the_books_say():
    """The same over HTTP as in Python, without a key, and not itself counted."""
    emulator = emulator_with()
    create(emulator, "x")
    page = get(emulator, "/emulator/books", key="", now=3)

    assert content(page) == json.loads(json.dumps(emulator.books.snapshot(3)))
    assert emulator.books.calls_served == 1
