"""Events that a function put on an SQS queue arrive, once, and none is lost."""

import base64
import json
import sys
from threading import Event
from threading import enumerate as enumerate_threads

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.sqs import pretend_sqs, run_until
from support.webhooks import SECRET, Log, body_of, headers_of, now

from orchestrator.adapters.webhook.queue import PAUSE_SECONDS_MAX, WebhookQueue
from orchestrator.adapters.webhook.receiver import Receiver
from orchestrator.apis.webhook_signature import verifier
from orchestrator.errors import ExtraMissing, QueueUnusable

# Threads are real, so the loop is the ordinary one.
pytestmark = pytest.mark.real_time

VERIFY = verifier([SECRET])

sqs = pytest.fixture(pretend_sqs)

URL = "https://sqs.eu-central-1.amazonaws.com/1/webhooks"


def message_of(body, **signed):
    return json.dumps({"headers": headers_of(body, **signed), "body": body.decode()})


class FakeQueue:
    """SQS as far as we use it: what is received is hidden until `come_again`.

    `fail` is raised by the next calls, one each. A long poll of an empty queue ends at once.
    """

    def __init__(self, *texts, sent_at=None, fail=()):
        self.waiting = [(str(number), text) for number, text in enumerate(texts)]
        self.hidden = {}
        self.sent_at = now() if sent_at is None else sent_at
        self.fail = list(fail)
        self.calls = 0

    def receive_message(self, **arguments):
        assert arguments["QueueUrl"] == URL
        self._fail()
        count = arguments["MaxNumberOfMessages"]
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        self.hidden |= dict(taken)
        attributes = {"SentTimestamp": str(self.sent_at * 1000)}
        return {
            "Messages": [
                {"ReceiptHandle": handle, "Body": text, "Attributes": attributes}
                for handle, text in taken
            ]
        }

    def delete_message_batch(self, **arguments):
        self._fail()
        handles = [entry["ReceiptHandle"] for entry in arguments["Entries"]]
        for handle in handles:
            del self.hidden[handle]
        return {"Successful": handles}

    def come_again(self):
        self.waiting += self.hidden.items()
        self.hidden = {}

    def _fail(self):
        self.calls += 1
        if self.fail and (error := self.fail.pop(0)) is not None:
            raise error


class Taking:
    """A receiver behind a queue."""

    def __init__(self, sqs, on_event=None, **settings):
        self.sqs = sqs
        self.events = []
        self.log = Log()
        on_event = on_event or self.events.append
        self.receiver = Receiver(verify=VERIFY, on_event=on_event, log=self.log)
        self.queue = WebhookQueue(self.receiver, URL, client=sqs, log=self.log, **settings)

    async def until(self, done):
        """Take events until this is so."""
        await run_until(self.queue, done)


async def test_events_are_taken_and_deleted():
    """Accepted, repeated, forged and stale ones alike: none of them needs to come again."""
    body = body_of()
    sqs = FakeQueue(
        message_of(body),
        message_of(body),
        message_of(body, webhook_id="wh_2", key=b"wrong"),
        message_of(body, webhook_id="wh_3", timestamp=now() - 1000),
        json.dumps({"headers": {}, "body": "x"}),
    )
    taking = Taking(sqs)
    await taking.until(lambda: taking.queue.counts["deleted"] == 5)
    assert [event.run_id for event in taking.events] == ["resp_1"]
    assert taking.receiver.counts == {
        "accepted": 1,
        "repeated": 1,
        "forged": 1,
        "stale": 1,
        "malformed": 1,
    }
    assert not sqs.hidden


async def test_more_than_one_answer_holds():
    """Many messages, with several polls at a time."""
    sqs = FakeQueue(*(message_of(body_of(f"resp_{n}"), webhook_id=f"wh_{n}") for n in range(105)))
    taking = Taking(sqs, polls_at_once=3)
    await taking.until(lambda: taking.queue.counts["deleted"] == 105)
    assert {event.run_id for event in taking.events} == {f"resp_{n}" for n in range(105)}


async def test_a_body_in_base64():
    """As a function has it that was given bytes."""
    body = body_of()
    encoded = {"headers": headers_of(body), "body_base64": base64.b64encode(body).decode()}
    taking = Taking(FakeQueue(json.dumps(encoded)))
    await taking.until(lambda: taking.queue.counts["deleted"] == 1)
    assert len(taking.events) == 1


async def test_an_event_that_waited():
    """A day in the queue makes no genuine event stale, and no stale one young."""
    body, sent_at = body_of(), now() - 86_400
    sqs = FakeQueue(
        message_of(body, timestamp=sent_at - 10),
        message_of(body, webhook_id="wh_2", timestamp=sent_at - 400),
        message_of(body, webhook_id="wh_3", timestamp=now()),
        sent_at=sent_at,
    )
    taking = Taking(sqs)
    await taking.until(lambda: taking.queue.counts["deleted"] == 3)
    assert [event.webhook_id for event in taking.events] == ["wh_1"]
    assert taking.receiver.counts == {"accepted": 1, "stale": 2}


@pytest.mark.parametrize("told", [None, "", "soon", "9" * 30])
async def test_a_queue_that_is_silent_about_the_time(told):
    """Then the time is now: an old event is refused."""
    body = body_of()
    sqs = FakeQueue(message_of(body), message_of(body, webhook_id="2", timestamp=now() - 1000))
    receive = sqs.receive_message

    def without(**arguments):
        answer = receive(**arguments)
        for message in answer["Messages"]:
            message["Attributes"] = {} if told is None else {"SentTimestamp": told}
        return answer

    sqs.receive_message = without
    taking = Taking(sqs)
    await taking.until(lambda: taking.queue.counts["deleted"] == 2)
    assert taking.receiver.counts == {"accepted": 1, "stale": 1}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"headers": {}}', '{"headers": 1, "body": ""}', "[" * 100_000),
        '{"headers": {}, "body_base64": "a"}',
        '{"headers": {}, "body_base64": "\\u00e9"}',
    ],
)
async def test_messages_of_others_are_left_alone(text):
    """Were it the wrong queue, its owner would lose them."""
    taking = Taking(FakeQueue(text, message_of(body_of())))
    await taking.until(lambda: taking.queue.counts["deleted"] == 1)
    assert list(taking.sqs.hidden) == ["0"]
    assert taking.queue.counts["foreign"] == 1
    assert ("warning", "webhook_queue.foreign_message", {"queue": URL}) in taking.log.lines


async def test_what_failed_comes_again():
    """An event whose handling raised stays in the queue."""
    trouble = [RuntimeError("no"), None]

    def fail_once(_):
        if (error := trouble.pop(0)) is not None:
            raise error

    taking = Taking(FakeQueue(message_of(body_of())), on_event=fail_once)
    await taking.until(lambda: taking.receiver.counts["failed"] == 1)
    assert taking.queue.counts["deleted"] == 0
    taking.sqs.come_again()
    await taking.until(lambda: taking.queue.counts["deleted"] == 1)
    assert taking.receiver.counts == {"failed": 1, "accepted": 1}


async def test_a_message_whose_delete_failed_is_a_repeat():
    """It is handed on once, and deleted the second time."""
    taking = Taking(FakeQueue(message_of(body_of()), fail=[None, OSError("no way")]))
    await taking.until(lambda: taking.queue.counts["errors"] == 1)
    taking.sqs.come_again()
    taking.sqs.fail.clear()
    await taking.until(lambda: taking.queue.counts["deleted"] == 1)
    assert len(taking.events) == 1
    assert taking.receiver.counts == {"accepted": 1, "repeated": 1}


@pytest.fixture
def pauses(monkeypatch):
    """How long was slept, without the wait."""
    found = []

    async def paused(seconds):
        found.append(seconds)
        await checkpoint()

    monkeypatch.setattr(anyio, "sleep", paused)
    return found


async def test_an_empty_queue_is_no_busy_loop(pauses):
    """A server that knows no long polls is asked once a second."""
    taking = Taking(FakeQueue())
    await taking.until(lambda: len(pauses) == 3)
    assert pauses == pytest.approx([1.0] * 3, abs=0.5)


async def test_errors_are_waited_out(pauses):
    """They end nothing; pauses grow to a minute and begin anew; the log has the 1st, 10th, ..."""
    trouble = [*[OSError("no way")] * 12, None, None, OSError("again")]
    taking = Taking(FakeQueue(message_of(body_of()), fail=trouble))
    await taking.until(lambda: len(pauses) == 13)
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-2:] == [PAUSE_SECONDS_MAX, 1.0]
    assert taking.queue.counts == {"errors": 13, "received": 1, "deleted": 1}
    told = [fields for _, event, fields in taking.log.lines if event == "webhook_queue.error"]
    assert [fields["in_a_row"] for fields in told] == [1, 10, 1]
    assert told[0] == {"queue": URL, "problem": "OSError: no way", "in_a_row": 1}


async def test_the_extra_is_missing(monkeypatch):
    """Whoever has no boto3 is told what to install."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    taking = Taking(None)
    with pytest.raises(ExtraMissing, match=r"pip install 'run-orchestrator\[sqs\]'"):
        await taking.queue.run()


async def test_a_long_poll_holds_nothing_up():
    """Cancelled in the middle of one, the queue lets go at once, and so does the process."""
    began, over = Event(), Event()

    def wait(**_):
        began.set()
        over.wait(30)
        return {}

    sqs = FakeQueue()
    sqs.receive_message = wait
    taking = Taking(sqs)
    await taking.until(began.is_set)
    (thread,) = [thread for thread in enumerate_threads() if thread.name == "webhook queue"]
    assert thread.daemon
    over.set()
    thread.join(10)


@pytest.mark.slow  # boto3 and moto take seconds to import
class TestSqs:
    async def test_events_over_a_real_queue(self, sqs):
        """What was sent to it is taken from it, with the time at which it came in, and deleted."""
        body = body_of()
        for text in (message_of(body), message_of(body), "foreign"):
            sqs.client.send_message(QueueUrl=sqs.url, MessageBody=text)
        events = []
        receiver = Receiver(verify=VERIFY, on_event=events.append, log=Log())
        queue = WebhookQueue(receiver, sqs.url, log=Log())
        await run_until(queue, lambda: queue.counts["deleted"] == 2)
        assert [event.run_id for event in events] == ["resp_1"]
        assert receiver.counts == {"accepted": 1, "repeated": 1}
        assert sqs.left() == ["foreign"]

    async def test_a_queue_that_is_not_there(self, sqs):
        """It is an error of AWS like others: told, and waited out."""
        log = Log()
        receiver = Receiver(verify=VERIFY, on_event=pytest.fail, log=log)
        queue = WebhookQueue(receiver, sqs.url + "-not", log=log)
        await run_until(queue, lambda: queue.counts["errors"] == 1)
        ((level, _, fields),) = log.lines
        assert level == "warning"
        assert "QueueDoesNotExist" in fields["problem"]

    async def test_no_region(self, monkeypatch, tmp_path):
        """It is told before the first poll."""
        for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        receiver = Receiver(verify=VERIFY, on_event=pytest.fail, log=Log())
        with pytest.raises(QueueUnusable, match="region"):
            await WebhookQueue(receiver, URL, log=Log()).run()
