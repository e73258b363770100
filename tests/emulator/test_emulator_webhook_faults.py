"""What goes wrong with webhooks on request, the same for the same seed."""

from collections import Counter
from math import inf

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.emulator_client import content, get, post
from support.webhook_carrier import SECRET, URL, carry

from orchestrator.emulator.durations import Fixed, Uniform
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.faults import PER_WEBHOOK
from orchestrator.emulator.server import unix_now
from orchestrator.emulator.settings import Settings
from orchestrator.emulator.webhooks import Way

CLIENT = openai.OpenAI(api_key="any", webhook_secret=SECRET)


def troubled(count=1, seed=3, run_seconds=None, **options):
    """An emulator with an endpoint, some runs that end at 2 s, and these faults."""
    emulator = Emulator(
        Settings(
            seed=seed,
            queue_seconds=Fixed(1),
            run_seconds=run_seconds or Fixed(1),
            webhook_url=URL,
            webhook_secret=SECRET,
            epoch=unix_now(),
            **options,
        )
    )
    for number in range(count):
        body = {"model": "m", "input": f"say {number}", "background": True}
        post(emulator, "/responses", body)
    return emulator


def is_let_in(delivery):
    try:
        CLIENT.webhooks.unwrap(delivery.body, delivery.headers)
    except openai.InvalidWebhookSignatureError:
        return False
    return True


def test_lost():
    """It is never sent, and the books say so."""
    emulator = troubled(faults={"webhook_lost": 1.0})

    assert carry(emulator, inf) == []
    page = content(get(emulator, "/emulator/webhooks"))
    assert page["counts"] == {"events": 1, "lost": 1}
    assert (page["webhooks"][0]["lost"], page["webhooks"][0]["faults"]) == (True, ["webhook_lost"])
    assert emulator.books.snapshot(9.0)["faults"] == {"webhook_lost": 1}


def test_doubled():
    """It comes twice with the same id; the second one is not tried again."""
    emulator = troubled(faults={"webhook_doubled": 1.0})
    carried = carry(emulator, inf, lambda one: 200 if one.way is Way.TRUE else 500)

    assert [(at, one.way) for at, one in carried] == [(2.0, Way.TRUE), (2.0, Way.DOUBLED)]
    assert len({one.webhook_id for _, one in carried}) == 1
    assert all(is_let_in(one) for _, one in carried)
    assert emulator.books.webhooks.counts["doubled_refused"] == 1


def test_late():
    """It comes so many seconds after the end, signed when it is sent."""
    emulator = troubled(faults={"webhook_late": 1.0}, webhook_late_seconds=40.0)
    ((at, delivery),) = carry(emulator, inf)

    assert at == 42.0
    stamp = int(delivery.headers["webhook-timestamp"])
    assert stamp == int(emulator.settings.epoch + 42.0)


def test_overtaken():
    """Some events come after events that happened later, and none long after."""
    emulator = troubled(
        50,
        run_seconds=Uniform(0, 10),
        faults={"webhook_overtaken": 0.3},
        webhook_late_seconds=5.0,
    )
    carried = carry(emulator, inf)
    happened = [emulator.books.webhooks.page(0, 99)[one.number - 1] for _, one in carried]
    times = [one["happened_at_seconds"] for one in happened]

    assert len(times) == 50
    assert times != sorted(times)
    assert all(at - time <= 5.0 for (at, _), time in zip(carried, times, strict=True))


def test_forged():
    """Beside each true one comes one with its id that must not be let in, before it."""
    emulator = troubled(40, faults={"webhook_forged": 1.0})
    carried = [one for _, one in carry(emulator, inf, lambda one: 200 if is_let_in(one) else 400)]

    ways = Counter(one.way for one in carried)
    assert ways[Way.TRUE] == 40
    assert ways[Way.FORGED] + ways[Way.REPLAYED] == 40
    assert min(ways.values()) > 5
    assert all(is_let_in(one) == (one.way is Way.TRUE) for one in carried)
    firsts = {}
    for one in carried:
        firsts.setdefault(one.webhook_id, one.way)
    assert Way.TRUE not in firsts.values()
    counts = emulator.books.webhooks.counts
    for one in emulator.books.webhooks.page(0, 99):
        (extra,) = one["extras"].items()
        assert extra in {("forged_refused", 1), ("replayed_refused", 1)}
    assert counts["forged_refused"] + counts["replayed_refused"] == 40
    assert counts["answered"] == 40


def test_an_outage():
    """From a second on until another one all are lost, retries too; then they come again."""
    emulator = troubled(
        30,
        run_seconds=Uniform(0, 30),
        webhook_outage_from_seconds=10.0,
        webhook_outage_until_seconds=20.0,
    )
    times = [at for at, _ in carry(emulator, inf)]
    for_ever = troubled(3, webhook_outage_from_seconds=0.0)

    assert times
    assert not [at for at in times if 10.0 <= at < 20.0]
    assert emulator.books.webhooks.counts["lost"] == 30 - len(times) > 0
    assert carry(for_ever, inf) == []


def test_earlier_than_the_answer_to_the_create():
    """The create's answer waits until the webhook about its run is out."""
    emulator = troubled(0, faults={"webhook_early": 1.0})
    body = {"model": "m", "input": "x", "background": True}
    early = post(emulator, "/responses", body)
    asked = get(emulator, f"/responses/{content(early)['id']}")
    slow = troubled(0, faults={"webhook_early": 1.0}, run_seconds=Fixed(60))

    assert early.delay_seconds == pytest.approx(2.2)
    assert emulator.next_delivery_at() == 2.0
    assert asked.delay_seconds == 0
    assert post(slow, "/responses", body).delay_seconds == 0


@given(
    seed=st.integers(0, 1000),
    rates=st.dictionaries(st.sampled_from(sorted(PER_WEBHOOK)), st.floats(0, 1)),
    answers=st.lists(st.sampled_from([200, 200, 503, None]), min_size=1, max_size=7),
)
@settings(max_examples=15)
def test_whatever_goes_wrong_each_event_is_heard_once_or_lost(seed, rates, answers):
    """With any faults and answers: all is repeatable, and the true attempts end with an answer."""
    played = []
    for _ in range(2):
        emulator = troubled(8, seed=seed, run_seconds=Uniform(0, 5), faults=rates)
        asked = iter(range(10_000))
        carried = carry(emulator, inf, lambda _, asked=asked: answers[next(asked) % len(answers)])
        page = emulator.books.webhooks.page(0, 100)
        played.append([(at, one.webhook_id, one.way, one.attempt) for at, one in carried])

    assert played[0] == played[1]
    assert len(page) == 8
    true = Counter(one.number for _, one in carried if one.way is Way.TRUE)
    for one in page:
        assert one["over"]
        assert one["lost"] == (true[one["number"]] == 0)
        assert true[one["number"]] == one["attempts"] <= 20
    extras = Counter((one.number, one.way) for _, one in carried if one.way is not Way.TRUE)
    assert max(extras.values(), default=0) <= 1


def test_deviations():
    """Names in title case, another version's signature first, and a type that nobody knows."""
    names = ["webhooks_title_case", "webhooks_v1a_first", "webhooks_unknown_type"]
    carried = [one for _, one in carry(troubled(deviations=names), inf)]

    assert [CLIENT.webhooks.unwrap(one.body, one.headers).type for one in carried] == [
        "response.completed",
        "weather.changed",
    ]
    for one in carried:
        assert {"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} <= set(one.headers)
        assert [part[:3] for part in one.headers["Webhook-Signature"].split()] == ["v1a", "v1,"]
