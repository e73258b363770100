"""Webhook events are judged, handed on once, and answered, whatever a stranger sends."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount
from support.webhooks import KEY, SECRET, Log, body_of, call, call_raw, headers_of, now

from orchestrator.adapters.webhook import receiver as receiver_module
from orchestrator.adapters.webhook.app import BODY_SECONDS_MAX, STATUS, webhook_app
from orchestrator.adapters.webhook.receiver import (
    BODY_BYTES_MAX,
    UNKNOWN_TYPES_MAX,
    Receiver,
    Verdict,
    WebhookEvent,
)
from orchestrator.apis.webhook_signature import verifier
from orchestrator.ports import SignatureFlaw

VERIFY = verifier([SECRET])

# Lists in lists in lists, in a place where nobody looks.
DEEP = b'{"type": "response.completed", "more": ' + b"[" * 100_000


class Receiving:
    """A receiver, what it handed on, and what it logged."""

    def __init__(self, **given):
        self.events = []
        self.new_ids = []
        self.log = Log()
        given = {"on_event": self.events.append, "on_new_id": self.new_ids.append, **given}
        self.receiver = Receiver(verify=VERIFY, log=self.log, **given)
        self.app = webhook_app(self.receiver)

    @property
    def counts(self):
        return dict(self.receiver.counts)

    def take(self, body=None, webhook_id="wh_1", **signed):
        body = body_of() if body is None else body
        return self.receiver.take(body, headers_of(body, webhook_id, **signed))

    async def post(self, body=None, webhook_id="wh_1", **how):
        body = body_of() if body is None else body
        status, _, text = await call(self.app, body, headers_of(body, webhook_id).items(), **how)
        return status, text


class TestEvents:
    @pytest.mark.parametrize(
        "kind",
        [
            *(f"response.{end}" for end in ("completed", "failed", "cancelled", "incomplete")),
            *(f"batch.{end}" for end in ("completed", "failed", "expired", "cancelled")),
            *(f"agent.session.{what}" for what in ("action_required", "idle", "failed")),
        ],
    )
    def test_of_runs_are_handed_on(self, kind):
        """Whoever waits for a run is told its id and what happened, for every family."""
        receiving = Receiving()
        assert receiving.take(body_of("some_id", kind)) is Verdict.ACCEPTED
        assert receiving.events == [WebhookEvent("wh_1", kind, "some_id")]
        assert receiving.new_ids == ["wh_1"]

    @pytest.mark.parametrize(
        "body",
        [
            body_of("video_1", "video.completed"),
            body_of("x", "responses"),
            body_of("", "response.completed"),
            b'{"type": "response.completed"}',
            b'{"type": "response.completed", "data": {"id": 7}}',
            b'{"type": "response.completed", "data": null}',
            b'{"type": 7, "data": {"id": "resp_1"}}',
            b"[1]",
            b"7",
        ],
    )
    def test_of_other_things_are_accepted_and_counted(self, body):
        """A type that is not known, or an event without a run, costs its sender nothing."""
        receiving = Receiving()
        assert receiving.take(body) is Verdict.UNKNOWN_TYPE
        assert (receiving.events, receiving.counts) == ([], {"unknown_type": 1})
        assert receiving.take(body) is Verdict.REPEATED

    def test_unknown_types_are_counted_by_name(self):
        """Up to a hundred names, however many there are."""
        receiving = Receiving()
        for number in range(300):
            receiving.take(body_of(kind=f"video.{number % 150}"), f"wh_{number}")
        assert receiving.receiver.unknown_types["video.7"] == 2
        assert len(receiving.receiver.unknown_types) == UNKNOWN_TYPES_MAX
        assert len(receiving.log.lines) == UNKNOWN_TYPES_MAX

    @pytest.mark.parametrize("body", [b"", b"{", b'{"type": ', DEEP])
    def test_that_are_no_json(self, body):
        """A genuine event that can't be read is refused."""
        assert Receiving().take(body) is Verdict.MALFORMED

    def test_from_strangers_are_refused(self):
        """Forged, stale and malformed events are counted apart, and handed to nobody."""
        receiving = Receiving()
        assert receiving.take(key=b"wrong") is Verdict.FORGED
        assert receiving.take(timestamp=now() - 1000) is Verdict.STALE
        assert receiving.receiver.take(body_of(), {}) is Verdict.MALFORMED
        assert receiving.take(b" " * (BODY_BYTES_MAX + 1)) is Verdict.TOO_LARGE
        assert receiving.take(webhook_id="w" * 257) is Verdict.MALFORMED
        assert receiving.counts == {"forged": 1, "stale": 1, "malformed": 2, "too_large": 1}
        assert receiving.events == receiving.new_ids == []

    def test_every_flaw_is_a_verdict(self):
        """What the verifier says can be counted."""
        assert {flaw.value for flaw in SignatureFlaw} <= {verdict.value for verdict in Verdict}


class TestRepeats:
    @given(st.lists(st.integers(0, 9)), st.sets(st.integers(0, 9)))
    def test_are_handed_on_once(self, deliveries, before):
        """In any order, and also when an earlier process has handled them."""
        receiving = Receiving(seen_before=[f"wh_{number}" for number in before])
        verdicts = Counter(receiving.take(webhook_id=f"wh_{n}") for n in deliveries)
        new = [f"wh_{n}" for n in dict.fromkeys(deliveries) if n not in before]
        assert [event.webhook_id for event in receiving.events] == new == receiving.new_ids
        assert verdicts[Verdict.ACCEPTED] == len(new)
        assert verdicts[Verdict.REPEATED] == len(deliveries) - len(new)

    def test_with_another_body_or_time_are_repeats_too(self):
        """The sender signs each delivery anew."""
        receiving = Receiving()
        receiving.take()
        assert receiving.take(timestamp=now() + 60) is Verdict.REPEATED
        assert receiving.take(key=b"wrong") is Verdict.FORGED

    def test_of_the_oldest_are_forgotten(self, monkeypatch):
        """What is remembered is bounded, and the newest are what is kept."""
        monkeypatch.setattr(receiver_module, "IDS_MAX", 3)
        receiving = Receiving(seen_before=["old_1", "old_2", "wh_1"])
        for webhook_id in ("wh_2", "wh_3"):
            receiving.take(webhook_id=webhook_id)
        assert receiving.take(webhook_id="wh_1") is Verdict.REPEATED
        assert receiving.take(webhook_id="old_2") is Verdict.ACCEPTED

    @pytest.mark.parametrize("broken", ["on_event", "on_new_id"])
    def test_of_what_failed_are_welcome(self, broken):
        """An event whose handling raised is not remembered: its sender tries again."""
        trouble = [RuntimeError("first"), None]

        def fail_once(_):
            if (error := trouble.pop(0)) is not None:
                raise error

        receiving = Receiving(**{broken: fail_once})
        assert receiving.take() is Verdict.FAILED
        assert receiving.take() is Verdict.ACCEPTED
        assert receiving.take() is Verdict.REPEATED
        assert [line[:2] for line in receiving.log.lines] == [("exception", "webhook.failed")]


class TestLog:
    def test_a_flood_does_not_fill_it(self):
        """A thousand forged events are four lines: the 1st, 10th, 100th and 1,000th."""
        receiving = Receiving()
        for _ in range(1_000):
            receiving.take(key=b"wrong")
        times = [fields["times"] for _, _, fields in receiving.log.lines]
        assert times == [1, 10, 100, 1_000]
        assert receiving.counts == {"forged": 1_000}

    def test_has_no_secrets(self):
        """No line has the secret, a signature or a body."""
        receiving = Receiving()
        receiving.take(key=b"wrong")
        receiving.take(timestamp=1)
        receiving.take(b"{")
        said = str(receiving.log.lines)
        assert len(receiving.log.lines) == 3
        assert SECRET not in said
        assert KEY.decode() not in said
        assert "v1," not in said


class TestHttp:
    async def test_answers(self):
        """200 for all that was genuine; anything else tells the sender to try again, or to stop."""
        receiving = Receiving()
        assert await receiving.post() == (200, b"accepted\n")
        assert await receiving.post() == (200, b"repeated\n")
        unknown = body_of(kind="video.completed")
        assert await receiving.post(unknown, "wh_2") == (200, b"unknown_type\n")
        assert await receiving.post(b"{", "wh_3") == (400, b"malformed\n")
        assert await call(receiving.app, body_of(), {}) == (
            400,
            {b"content-type": b"text/plain; charset=utf-8", b"content-length": b"10"},
            b"malformed\n",
        )
        forged = headers_of(body_of(), key=b"wrong").items()
        assert (await call(receiving.app, body_of(), forged))[0] == 403
        assert set(STATUS) == set(Verdict)

    async def test_a_failure_of_ours_is_one_of_ours(self):
        """503: the event is fine and comes again."""

        def fail(_):
            raise RuntimeError

        assert await Receiving(on_event=fail).post() == (503, b"failed\n")

    @pytest.mark.parametrize("path", ["/", "", "/webhooks", "/a/b/"])
    async def test_every_path_is_fine(self, path):
        """Nothing is redirected, which a sender would count as a failure."""
        assert (await Receiving().post(path=path))[0] == 200

    async def test_mounted(self):
        """It can be part of any service."""
        receiving = Receiving()
        service = Starlette(routes=[Mount("/hooks", app=receiving.app)])
        body = body_of()
        found = await call(service, body, headers_of(body).items(), path="/hooks/openai")
        assert found[0] == 200
        assert len(receiving.events) == 1

    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "X"])
    async def test_other_methods(self, method):
        """They are told what is allowed."""
        receiving = Receiving()
        status, headers, _ = await call(receiving.app, method=method)
        assert (status, headers[b"allow"]) == (405, b"POST")
        assert receiving.counts == {"wrong_method": 1}

    async def test_a_body_in_pieces(self):
        """The signature is over the whole of it."""
        body = body_of()
        assert (await Receiving().post(pieces=[body[:9], b"", body[9:]]))[0] == 200

    async def test_a_huge_body_with_its_size_told(self):
        """It is refused before any of it is read."""

        async def never():
            pytest.fail("the body was read")

        receiving = Receiving()
        told = {"content-length": str(BODY_BYTES_MAX + 1)}.items()
        status, headers, _ = await call(receiving.app, headers=told, pieces=[], then=never)
        assert (status, headers[b"connection"]) == (413, b"close")
        assert receiving.counts == {"too_large": 1}

    @pytest.mark.parametrize("told", [None, "7", "-1", "many", "0x7", "٣"])
    async def test_a_huge_body_without(self, told):
        """An endless one is read up to the limit, whatever was said of its size."""
        read = 0

        async def more():
            nonlocal read
            read += 1
            return {"type": "http.request", "body": b"x" * 1024, "more_body": True}

        headers = [] if told is None else [(b"content-length", told.encode())]
        receiving = Receiving()
        status, _, _ = await call_raw(receiving.app, b"", headers, pieces=[], then=more)
        assert (status, read) == (413, BODY_BYTES_MAX // 1024 + 1)

    async def test_a_slow_body(self):
        """Whoever sends a byte a second is cut off after ten."""

        async def trickle():
            await asyncio.sleep(1)
            return {"type": "http.request", "body": b"x", "more_body": True}

        receiving = Receiving()
        began = asyncio.get_running_loop().time()
        status, headers, _ = await call(receiving.app, pieces=[], then=trickle)
        assert (status, headers[b"connection"]) == (408, b"close")
        assert asyncio.get_running_loop().time() - began == pytest.approx(BODY_SECONDS_MAX, abs=0.1)
        assert receiving.counts == {"too_slow": 1}

    async def test_a_caller_that_leaves(self):
        """It gets no answer, and half a body is not judged."""

        async def leave():
            return {"type": "http.disconnect"}

        receiving = Receiving()
        status, _, _ = await call(receiving.app, pieces=[b"{"], then=leave)
        assert (status, receiving.counts) == (0, {})

    async def test_a_websocket_is_closed(self):
        """Nothing but HTTP is spoken here."""
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "websocket", "path": "/", "root_path": "", "headers": []}
        await Receiving().app(scope, None, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]

    async def test_middleware_may_add_headers(self):
        """What one answer was given is not on the next one."""
        counts = []

        async def add(message):
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-added", b"1"))
                counts.append(len(message["headers"]))

        receiving = Receiving()
        scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []}
        for _ in range(3):
            await receiving.app(dict(scope), None, add)
        assert counts[0] == counts[-1]

    @given(
        body=st.binary(max_size=200),
        headers=st.lists(
            st.tuples(
                st.sampled_from(
                    [b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"content-length"]
                ),
                st.binary(max_size=40) | st.just(str(now()).encode()),
            )
        ),
        method=st.sampled_from(["POST", "POST", "GET", "\u00e9"]),
    )
    def test_any_bytes_at_all(self, body, headers, method):
        """Nothing is raised; a stranger's call is answered with what it did wrong."""
        receiving = Receiving()

        async def answered():
            return await call_raw(receiving.app, body, headers, method=method)

        assert 400 <= asyncio.run(answered())[0] < 500
        assert receiving.events == []
