"""What the emulator tells webhook endpoints: of every end, once, and again until it is heard."""

import base64
from itertools import pairwise
from math import inf

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.emulator_client import call_of, content, get, post
from support.webhook_carrier import SECRET, URL, carry

from orchestrator.emulator.durations import Fixed, Uniform
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.server import unix_now
from orchestrator.emulator.settings import Settings
from orchestrator.emulator.webhooks import ATTEMPTS_MAX, RETRIED_SECONDS_MAX

AGENTS = {"headers": {"openai-beta": "agents=v1"}}
CLIENT = openai.OpenAI(api_key="any", webhook_secret=SECRET)
RULES = [
    Rule(match="^fail", status="failed"),
    Rule(match="^short", status="incomplete"),
    Rule(match="^hang", status="hang"),
    Rule(match="^odd", status="pondering"),
    Rule(match="^lost", lose_run=True),
    Rule(match="^tools", tool_calls=[ToolRequest("one"), ToolRequest("two")], answer="done"),
    Rule(match="^broken", status="session_failed"),
]


def told_emulator(**options):
    """An emulator with an endpoint from the start; a run is queued for 1 s and takes 2."""
    timing = {"queue_seconds": Fixed(1), "run_seconds": Fixed(2), "rules": RULES}
    hooked = {"webhook_url": URL, "webhook_secret": SECRET, "epoch": unix_now()}
    return Emulator(Settings(**{**timing, **hooked, **options}))


def background(text):
    return {"model": "m", "input": text, "background": True}


def unwrapped(delivery):
    """The event, as OpenAI's own client lets it in."""
    return CLIENT.webhooks.unwrap(delivery.body, delivery.headers)


def told(carried):
    """(when, type, run id) of what was delivered."""
    events = [(at, unwrapped(delivery)) for at, delivery in carried]
    return [(at, event.type, event.data.id) for at, event in events]


@pytest.mark.parametrize(
    ("text", "end"),
    [("hello", "completed"), ("fail", "failed"), ("short", "incomplete"), ("tools", "completed")],
)
def test_the_end_of_a_background_response_is_told_when_it_comes(text, end):
    """One event, at the end, although nobody asks; signed as OpenAI signs."""
    emulator = told_emulator()
    run_id = content(post(emulator, "/responses", background(text), now=10.0))["id"]

    assert emulator.next_delivery_at() == 13.0
    assert emulator.deliveries(12.9) == []
    assert told(carry(emulator, inf)) == [(13.0, f"response.{end}", run_id)]
    assert emulator.next_delivery_at() is None


@pytest.mark.parametrize("text", ["hang", "odd", "lost"])
def test_what_never_ends_is_never_told(text):
    """No event about a run that hangs, has a status that nobody knows, or was lost."""
    emulator = told_emulator()
    post(emulator, "/responses", background(text))

    assert carry(emulator, 1e9) == []


@pytest.mark.parametrize("text", ["hello", "hang"])
def test_a_cancelled_response_is_told_as_cancelled(text):
    """The planned end is not told any more, cancelling twice is told once."""
    emulator = told_emulator()
    run_id = content(post(emulator, "/responses", background(text)))["id"]
    for now in (2.0, 2.5):
        post(emulator, f"/responses/{run_id}/cancel", now=now)
    told_of = told(carry(emulator, inf))
    post(emulator, f"/responses/{run_id}/cancel", now=50.0)

    assert told_of == [(2.0, "response.cancelled", run_id)]
    assert carry(emulator, inf) == []


def test_a_cancel_that_comes_too_late_changes_nothing():
    """A run that was over is told as what it ended as, even if nobody had asked for it yet."""
    emulator = told_emulator()
    run_id = content(post(emulator, "/responses", background("hello")))["id"]
    post(emulator, f"/responses/{run_id}/cancel", now=9.0)

    assert [kind for _, kind, _ in told(carry(emulator, inf))] == ["response.completed"]


def test_answers_that_are_waited_for_are_not_told():
    """A response that is not in the background has no event, nor has a chat completion."""
    emulator = told_emulator()
    post(emulator, "/responses", {"model": "m", "input": "hello"})
    post(emulator, "/chat/completions", {"model": "m", "messages": [{"role": "user"}]})

    assert carry(emulator, inf) == []


def session_with(emulator, text, **more):
    body = {"agent": {"model": "m"}, "environment": {"type": "none"}, "input": text, **more}
    return content(post(emulator, "/agents/sessions", body, **AGENTS))


def test_a_session_is_told_step_by_step():
    """Created, at work, an event for each action that it needs, at work again, and at rest."""
    emulator = told_emulator()
    session_id = session_with(emulator, "tools")["id"]
    before = carry(emulator, 100.0)
    shown = content(get(emulator, f"/agents/sessions/{session_id}", now=100.0, **AGENTS))
    results = [
        {
            "type": "agent.session.input.tool_result",
            "turn_id": action["turn_id"],
            "call_id": action["call_id"],
            "success": True,
            "output": "x",
        }
        for action in shown["required_actions"]
    ]
    post(
        emulator, f"/agents/sessions/{session_id}/events", {"events": results}, now=100.0, **AGENTS
    )
    after = carry(emulator, inf)

    kinds = [(at, kind.removeprefix("agent.session.")) for at, kind, _ in told(before + after)]
    assert kinds == [
        (0.0, "created"),
        (1.0, "in_progress"),
        (3.0, "action_required"),
        (3.0, "action_required"),
        (100.0, "in_progress"),
        (102.0, "idle"),
    ]
    assert {run_id for _, _, run_id in told(before + after)} == {session_id}
    asked = unwrapped(before[2][1])
    assert asked.data.required_action.type == "function_call"
    assert unwrapped(before[0][1]).data.environment_type == "none"


def test_a_session_that_fails_and_one_that_is_cancelled():
    """Failed is told as failed; a cancelled turn leaves the session idle."""
    emulator = told_emulator(cancelling_seconds=0.5)
    session_with(emulator, "broken")
    session_id = session_with(emulator, "hello")["id"]
    cancel = {"events": [{"type": "agent.session.input.cancel"}]}
    post(emulator, f"/agents/sessions/{session_id}/events", cancel, now=1.5, **AGENTS)
    ends = [(at, kind) for at, kind, _ in told(carry(emulator, inf)) if at > 1.5]

    assert ends == [(2.0, "agent.session.idle"), (3.0, "agent.session.failed")]


def test_a_session_that_waits_for_its_environment():
    """The created event says where to connect to, and the connection goes on by itself."""
    connects = Rule(match="^host", tool_calls=[ToolRequest("it", {}, "environment_connection")])
    emulator = told_emulator(rules=[connects], environment_seconds=5.0)
    session_with(emulator, "host", environment={"type": "self_hosted"})
    carried = carry(emulator, inf)

    created = unwrapped(carried[0][1])
    assert created.data.connect.remote_url.startswith("wss://")
    assert created.data.environment_id is not None
    assert [at for at, _, _ in told(carried)] == [0.0, 1.0, 3.0, 8.0, 10.0]


def test_a_deleted_session_is_not_spoken_of():
    """What is gone has no events, and nothing breaks."""
    emulator = told_emulator()
    session_id = session_with(emulator, "hello")["id"]
    emulator.handle(call_of("DELETE", f"/agents/sessions/{session_id}", **AGENTS), 50.0)

    assert len(carry(emulator, 49.0)) <= 3
    carry(emulator, inf)


def batch_of(emulator, count, now=0.0):
    lines = b"".join(
        b'{"custom_id":"%d","method":"POST","url":"/v1/responses","body":'
        b'{"model":"m","input":"say %d"}}\n' % (n, n)
        for n in range(count)
    )
    form = (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="x.jsonl"\r\n\r\n'
        + lines
        + b"\r\n--b--\r\n"
    )
    kind = {"headers": {"content-type": "multipart/form-data; boundary=b"}}
    file_id = content(post(emulator, "/files", form, now=now, **kind))["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "24h"}
    return content(post(emulator, "/batches", body, now=now))["id"]


@pytest.mark.parametrize(
    ("options", "end"),
    [
        ({}, "completed"),
        ({"batch_expire_after_lines": 3}, "expired"),
        ({"batch_lines_max": 3}, "failed"),
    ],
)
def test_the_end_of_a_batch_is_told(options, end):
    """Completed, expired or failed: once, within a tenth of a second; its lines are not told."""
    emulator = told_emulator(batch_seconds=Fixed(20), batch_finalizing_seconds=Fixed(0), **options)
    batch_id = batch_of(emulator, 10)
    ((at, kind, run_id),) = told(carry(emulator, inf))
    shown = content(get(emulator, f"/batches/{batch_id}", now=at))

    assert (kind, run_id) == (f"batch.{end}", batch_id)
    assert shown["status"] == end
    assert 0 <= at + emulator.settings.epoch - shown[f"{end}_at"] <= 1.1


def test_a_cancelled_batch_is_told_and_a_stuck_one_is_not():
    """The event comes when it is cancelled, not when it is cancelling; a stuck one needs that."""
    emulator = told_emulator(batch_seconds=Fixed(20), batch_cancelling_seconds=Fixed(7))
    batch_id = batch_of(emulator, 10)
    post(emulator, f"/batches/{batch_id}/cancel", now=5.0)
    stuck = told_emulator(batch_stuck_in="validating")
    stuck_id = batch_of(stuck, 3)

    assert told(carry(emulator, inf)) == [(12.0, "batch.cancelled", batch_id)]
    assert carry(stuck, 200.0) == []
    post(stuck, f"/batches/{stuck_id}/cancel", now=200.0)
    assert told(carry(stuck, inf)) == [(201.0, "batch.cancelled", stuck_id)]


def test_without_an_endpoint_nothing_is_watched():
    """An emulator that has nobody to tell has nothing to do between calls."""
    emulator = Emulator(Settings())
    post(emulator, "/responses", background("hello"))

    assert emulator.next_delivery_at() is None
    assert emulator.deliveries(1e9) == []


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["hello", "fail", "short", "hang", "cancel"]), max_size=20))
def test_each_ended_run_has_exactly_one_end_event(texts):
    """Whatever runs there are and however long they take: one event each, true to the run."""
    emulator = told_emulator(run_seconds=Uniform(0, 60))
    ids = []
    for number, text in enumerate(texts):
        reply = post(emulator, "/responses", background(f"{text} {number}"), now=float(number))
        ids.append(content(reply)["id"])
    for number, text in enumerate(texts):
        if text == "cancel":
            post(emulator, f"/responses/{ids[number]}/cancel", now=30.0)
    seen = {}
    for at, kind, run_id in told(carry(emulator, 200.0)):
        assert run_id not in seen
        seen[run_id] = kind
        shown = content(get(emulator, f"/responses/{run_id}", now=max(at, 30.0)))
        assert kind == f"response.{shown['status']}"

    assert set(seen) == {ids[n] for n, text in enumerate(texts) if text != "hang"}


@settings(max_examples=12)
@given(
    texts=st.lists(st.sampled_from(["hello", "fail", "tools", "hang", "broken"]), max_size=6),
    looks=st.lists(st.floats(0, 40), max_size=12),
)
def test_who_looks_changes_nothing(texts, looks):
    """Events are the same, and come at the same times, whether anybody asks for runs or not."""
    heard = []
    for times in ([], sorted(looks)):
        emulator = told_emulator(run_seconds=Uniform(0, 30), run_expires_seconds=20.0, epoch=0)
        batch_of(emulator, 3)
        for number, text in enumerate(texts):
            post(emulator, "/responses", background(f"{text} {number}"))
            session_with(emulator, f"{text} {number}")
        carried = []
        for now in times:
            for place in ("/agents/sessions", "/batches", "/emulator/books"):
                get(emulator, place, now=now, **AGENTS)
            carried += [(now, one) for one in emulator.deliveries(now)]
        carried += carry(emulator, 100.0)
        # Whoever looks late is told late, but of the same.
        page = {one["number"]: one for one in emulator.books.webhooks.page(0, 1000)}
        happened = [(page[one.number]["happened_at_seconds"], one.body) for _, one in carried]
        heard.append(sorted(happened))

    assert heard[0] == heard[1]


@settings(max_examples=12)
@given(st.lists(st.sampled_from([None, 100, 199, 301, 404, 410, 500, 503]), min_size=1))
def test_retries_grow_and_end(answers):
    """What is not answered with 2xx comes again, each time after twice as long, for 72 hours."""
    emulator = told_emulator()
    post(emulator, "/responses", background("hello"))
    said = iter(range(10_000))
    carried = carry(emulator, inf, lambda delivery: answers[next(said) % len(answers)])

    times = [at for at, _ in carried]
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps == [5.0 * 2**n for n in range(len(gaps))]
    assert 10 < len(times) <= ATTEMPTS_MAX
    assert times[-1] <= times[0] + RETRIED_SECONDS_MAX < times[-1] + gaps[-1] * 2
    assert len({delivery.webhook_id for _, delivery in carried}) == 1
    assert [delivery.attempt for _, delivery in carried] == list(range(1, len(times) + 1))
    stamps = [int(delivery.headers["webhook-timestamp"]) for _, delivery in carried]
    assert stamps == [int(emulator.settings.epoch + at) for at in times]


def test_a_retry_that_is_heard_is_the_last():
    """After an answer nothing comes any more; the books tell both attempts."""
    emulator = told_emulator()
    run_id = content(post(emulator, "/responses", background("hello")))["id"]
    carried = carry(emulator, inf, lambda delivery: 500 if delivery.attempt == 1 else 204)
    page = content(get(emulator, "/emulator/webhooks", now=99.0))

    assert [at for at, _ in carried] == [3.0, 8.0]
    assert page["counts"] == {"events": 1, "sent": 2, "refused": 1, "retried": 1, "answered": 1}
    (one,) = page["webhooks"]
    assert (one["run_id"], one["type"]) == (run_id, "response.completed")
    assert (one["attempts"], one["status"], one["over"]) == (2, 204, True)
    assert (one["happened_at_seconds"], one["answered_at_seconds"]) == (3.0, 8.0)
    assert emulator.books.snapshot(99.0)["webhooks"] == page["counts"]


def test_the_books_tell_of_one_run():
    """All that was sent about a run can be asked for by its id, page by page."""
    emulator = told_emulator()
    session_id = session_with(emulator, "hello")["id"]
    post(emulator, "/responses", background("hello"))
    carry(emulator, inf)

    def page(query):
        return content(get(emulator, f"/emulator/webhooks?{query}", now=99.0))["webhooks"]

    kinds = [one["type"].rpartition(".")[2] for one in page(f"run_id={session_id}")]
    assert kinds == ["created", "in_progress", "idle"]
    assert len(page("limit=9")) == 4
    assert [one["number"] for one in page("after=1&limit=2")] == [2, 3]
    assert page("run_id=resp_none") == []


def test_only_so_many_are_given_as_can_be_sent():
    """Whoever carries them takes a few at a time, and loses none."""
    emulator = told_emulator()
    for number in range(5):
        post(emulator, "/responses", background(f"hello {number}"))

    assert [len(emulator.deliveries(3.0, 2)) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize(
    ("options", "told_of"),
    [
        ({"webhook_url": "http://example.org/"}, "sends webhooks to this machine only"),
        ({"webhook_url": "ftp://127.0.0.1/"}, "is no address"),
        ({"webhook_url": "http://127.0.0.1:99999/"}, "is no address"),
        ({"webhook_url": "http://127.0.0.1/a b"}, "has characters that no address has"),
        ({"webhook_secret": None}, "needs a webhook_secret"),
        ({"webhook_secret": "whsec_!!"}, "no base64"),
        ({"webhook_secret": "whsec_"}, "empty"),
        ({"webhook_retry_seconds": 0}, "webhook_retry_seconds must be above 0"),
        ({"webhook_late_seconds": -1}, "webhook_late_seconds must be 0 or more"),
    ],
)
def test_mistakes_are_told_and_no_secret_with_them(options, told_of):
    """What can't be meant is refused; the secret is in no message and in no repr."""
    with pytest.raises(EmulatorMistake, match=told_of) as caught:
        told_emulator(**options)

    assert "!!" not in str(caught.value)
    assert SECRET not in repr(told_emulator().settings)


def test_a_secret_without_prefix_is_the_key_itself():
    """As OpenAI's client has it: only what follows whsec_ is base64."""
    emulator = told_emulator(webhook_secret="plain words")
    post(emulator, "/responses", background("hello"))
    ((_, delivery),) = carry(emulator, inf)

    CLIENT.webhooks.verify_signature(delivery.body, delivery.headers, secret="plain words")
    encoded = "whsec_" + base64.b64encode(b"plain words").decode()
    CLIENT.webhooks.verify_signature(delivery.body, delivery.headers, secret=encoded)
