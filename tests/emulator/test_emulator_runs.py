"""A remote run's life by time: statuses, cancelling, keeping, forgetting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.emulator_client import content, get, post

from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule
from orchestrator.emulator.settings import Settings

ORDER = ["queued", "in_progress", "completed"]


def emulator_with(**settings):
    timing = {"queue_seconds": Fixed(2), "run_seconds": Fixed(3)}
    return Emulator(Settings(**{**timing, **settings}))


def create(emulator, text="hello", *, now=0.0, **body):
    given_body = {"model": "m", "input": text, "background": True, **body}
    return content(post(emulator, "/responses", given_body, now=now))


def shown(emulator, run_id, now):
    return content(get(emulator, f"/responses/{run_id}", now=now))


def test_a_background_response_lives_by_time():
    """Queued, in progress, completed; created and completed at the times that are shown."""
    emulator = emulator_with(epoch=1000)
    created = create(emulator, now=10)
    run_id = created["id"]

    assert created["status"] == "queued"
    assert created["created_at"] == 1010
    assert created["output"] == []
    assert created["usage"] is None
    assert shown(emulator, run_id, 11.9)["status"] == "queued"
    assert shown(emulator, run_id, 12)["status"] == "in_progress"
    assert shown(emulator, run_id, 14.9)["status"] == "in_progress"
    done = shown(emulator, run_id, 15)
    assert done["status"] == "completed"
    assert done["completed_at"] == 1015
    assert done["output"][0]["content"][0]["text"] == "hello"
    assert done["usage"]["total_tokens"] == 4


@given(times=st.lists(st.floats(0, 10), max_size=20).map(sorted))
def test_a_status_never_goes_back(times):
    """Later looks never show an earlier status."""
    emulator = emulator_with()
    run_id = create(emulator)["id"]

    seen = [ORDER.index(shown(emulator, run_id, now)["status"]) for now in times]

    assert seen == sorted(seen)


def test_cancelling_is_idempotent():
    """The second cancel says what the first one said, and a finished run stays finished."""
    emulator = emulator_with()
    running, done = create(emulator)["id"], create(emulator, "other")["id"]

    for now in (4, 4.5, 100):
        cancelled = content(post(emulator, f"/responses/{running}/cancel", now=now))
        assert cancelled["status"] == "cancelled"
        assert cancelled["output"] == []
    assert shown(emulator, running, 100)["status"] == "cancelled"
    late = content(post(emulator, f"/responses/{done}/cancel", now=100))
    assert late["status"] == "completed"


def test_only_background_responses_can_be_cancelled():
    """A synchronous response is refused with a 400."""
    emulator = emulator_with()
    run_id = create(emulator, background=False)["id"]

    reply = post(emulator, f"/responses/{run_id}/cancel", now=1)

    assert reply.status == 400
    assert "synchronous" in content(reply)["error"]["message"]


def test_a_response_that_is_not_in_the_background_takes_its_time_at_once():
    """The reply comes after the run's seconds, and is completed."""
    reply = post(emulator_with(), "/responses", {"model": "m", "input": "hello"})

    assert reply.delay_seconds == 3  # never queued
    assert content(reply)["status"] == "completed"
    assert content(reply)["output"][0]["content"][0]["text"] == "hello"


def test_finished_runs_are_kept_for_a_while():
    """Ten minutes after its end a run can be retrieved, a moment later it is unknown."""
    emulator = emulator_with(retention_seconds=600)
    run_id = create(emulator)["id"]

    assert get(emulator, f"/responses/{run_id}", now=605).status == 200
    assert get(emulator, f"/responses/{run_id}", now=605.1).status == 404


def test_forgotten_runs_stay_in_the_books():
    """Memory is freed, counts and tokens remain."""
    emulator = emulator_with(retention_seconds=10)
    for number in range(5):
        create(emulator, f"text {number}")
    post(emulator, f"/responses/{create(emulator, 'stop')['id']}/cancel", now=1)
    before = emulator.books.snapshot(99)
    create(emulator, "new", now=100)

    after = emulator.books.snapshot(100)
    assert len(list(emulator._state.runs)) == 1
    assert before["runs"]["by_status"] == {"completed": 5, "cancelled": 1}
    assert after["runs"]["by_status"] == {"completed": 5, "cancelled": 1, "queued": 1}
    assert before["tokens"] == after["tokens"] == {"input": 10, "output": 10}


def test_what_is_not_stored_cannot_be_retrieved():
    """`store: false` answers, and that was it."""
    emulator = emulator_with()
    run_id = create(emulator, background=False, store=False)["id"]

    assert get(emulator, f"/responses/{run_id}", now=5).status == 404


def test_background_needs_a_store():
    """A background response that isn't stored could never be asked for."""
    body = {"model": "m", "input": "x", "background": True, "store": False}
    reply = post(emulator_with(), "/responses", body)

    assert reply.status == 400
    assert content(reply)["error"]["param"] == "store"


def test_an_unknown_run_is_not_found():
    """404 with OpenAI's words, for looking and for cancelling."""
    emulator = emulator_with()

    for reply in (get(emulator, "/responses/resp_x"), post(emulator, "/responses/resp_x/cancel")):
        assert reply.status == 404
        assert content(reply)["error"]["message"] == "Response with id 'resp_x' not found."


@pytest.mark.parametrize(
    ("rule", "status", "detail"),
    [
        (
            Rule(status="failed", error_code="rate_limit_exceeded", error_message="busy"),
            "failed",
            {"error": {"code": "rate_limit_exceeded", "message": "busy"}},
        ),
        (
            Rule(status="incomplete", reason="content_filter"),
            "incomplete",
            {"incomplete_details": {"reason": "content_filter"}},
        ),
        (Rule(status="reticulating"), "reticulating", {"output": [], "usage": None}),
        (Rule(status="hang"), "in_progress", {"output": [], "usage": None}),
    ],
)
def test_a_rule_says_how_a_run_ends(rule, status, detail):
    """Failed, incomplete, a status nobody knows, or never."""
    emulator = emulator_with(rules=[rule])
    run_id = create(emulator)["id"]

    assert shown(emulator, run_id, 1)["status"] == "queued"
    for now in (50, 10_000 if status in {"reticulating", "in_progress"} else 51):
        assert shown(emulator, run_id, now) | detail == shown(emulator, run_id, now)
        assert shown(emulator, run_id, now)["status"] == status


def test_an_unknown_status_can_be_cancelled():
    """What never ends by itself ends when told."""
    emulator = emulator_with(rules=[Rule(status="reticulating")])
    run_id = create(emulator)["id"]

    assert content(post(emulator, f"/responses/{run_id}/cancel", now=9))["status"] == "cancelled"


def test_a_run_can_get_lost():
    """It was created and billed, and is unknown ever after."""
    emulator = emulator_with(rules=[Rule(match="lost", lose_run=True)])
    lost, kept = create(emulator, "get lost")["id"], create(emulator, "stay")["id"]

    assert get(emulator, f"/responses/{lost}", now=1).status == 404
    assert get(emulator, f"/responses/{kept}", now=1).status == 200
    assert emulator.books.snapshot(9)["runs"]["created"] == 2


def test_checks_can_be_stale():
    """The first looks after the end still show a run in progress."""
    emulator = emulator_with(rules=[Rule(stale_checks=2)])
    run_id = create(emulator)["id"]

    assert shown(emulator, run_id, 4)["status"] == "in_progress"
    seen = [shown(emulator, run_id, 6)["status"] for _ in range(3)]
    assert seen == ["in_progress", "in_progress", "completed"]


def test_a_rule_can_say_how_long():
    """`run_seconds` of a rule goes before the settings'."""
    emulator = emulator_with(rules=[Rule(run_seconds=100)])
    run_id = create(emulator)["id"]

    assert shown(emulator, run_id, 101)["status"] == "in_progress"
    assert shown(emulator, run_id, 102)["status"] == "completed"


def test_a_poll_hint_goes_out_where_it_is_set():
    """Unfinished runs carry `openai-poll-after-ms` only if the settings say so."""
    silent, hinting = emulator_with(), emulator_with(poll_after_ms=750)

    for emulator, hint in ((silent, None), (hinting, "750")):
        run_id = create(emulator)["id"]
        place = f"/responses/{run_id}"
        assert get(emulator, place, now=1).headers.get("openai-poll-after-ms") == hint
        assert "openai-poll-after-ms" not in get(emulator, place, now=9).headers
