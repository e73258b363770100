"""Assistants runs from the request to the result, on the emulator in virtual time."""

import asyncio
import json
from dataclasses import replace

import pytest
from support.emulator_client import emulator_client
from support.engine import compare_books, play

from orchestrator.core.model import Outcome
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings
from orchestrator.service import Orchestrator

MAKE_THREAD = "POST /v1/threads"
ON_THREAD = "POST /v1/threads/{thread_id}/runs"
SUBMIT = "POST /v1/threads/{thread_id}/runs/{run_id}/submit_tool_outputs"
CANCEL = "POST /v1/threads/{thread_id}/runs/{run_id}/cancel"
MESSAGES = "GET /v1/threads/{thread_id}/messages"
LOOK_UP = ToolRequest("look_up", {"order_id": "{0}"})


def asking(*texts):
    """One run with its own thread for each text, which is its custom_id too."""
    for text in texts:
        thread = {"messages": [{"role": "user", "content": text}]}
        body = {"assistant_id": "asst_1", "thread": thread}
        yield {"custom_id": text, "url": "/v1/threads/runs", "body": body}


def on_thread(thread, *texts):
    for text in texts:
        message = {"role": "user", "content": text}
        body = {"assistant_id": "asst_1", "additional_messages": [message]}
        yield {"custom_id": text, "url": f"/v1/threads/{thread}/runs", "body": body}


class LookUp:
    """A tool that remembers its calls; the first ones may take longer."""

    def __init__(self, *seconds, then_seconds=0.5):
        self.calls = []
        self.stopped = 0
        self._seconds = list(seconds)
        self._then = then_seconds

    def tool(self):
        async def look_up(order_id: str, call_id: str) -> str:
            """Look up an order."""
            self.calls.append((order_id, call_id))
            try:
                await asyncio.sleep(self._seconds.pop(0) if self._seconds else self._then)
            except asyncio.CancelledError:
                self.stopped += 1
                raise
            return f"{order_id} is on its way"

        return look_up


async def test_the_result_is_the_run_with_its_messages():
    """In the order in which they were said, with what the server tells of times and tokens."""
    rule = Rule(answer="It is on its way.")
    settings = Settings(queue_seconds=Fixed(1), run_seconds=Fixed(3), rules=[rule])

    played = await play(asking("where"), settings)

    result = played.results["where"]
    run = json.loads(result.answer.body)
    (message,) = run["messages"]
    assert (result.outcome, run["status"], run["object"]) == (
        Outcome.COMPLETED,
        "completed",
        "thread.run",
    )
    assert message["content"][0]["text"]["value"] == "It is on its way."
    assert result.run_id == f"{run['thread_id']}/{run['id']}"
    times = result.times
    assert times.started - times.queued == 1
    assert times.completed - times.started == 3
    assert result.usage.output_tokens == run["usage"]["completion_tokens"] > 0
    assert played.served(MESSAGES) == 1


async def test_all_outputs_of_a_turn_go_out_in_one_submission():
    """Two calls, then one more: two submissions, and each handler is called once."""
    turns = [[LOOK_UP, LOOK_UP], [LOOK_UP]]
    look_up = LookUp()

    played = await play(
        asking("O-1", "O-2"),
        Settings(rules=[Rule(match=r"O-\d+", turns=turns)]),
        tools=[look_up.tool()],
    )

    for custom_id, result in played.results.items():
        assert (result.outcome, result.turns) == (Outcome.COMPLETED, 2)
        assert f"{custom_id} is on its way".encode() in result.answer.body
    assert played.books["calls"][SUBMIT] == {"200": 4}
    assert len(look_up.calls) == len({call_id for _, call_id in look_up.calls}) == 6


async def test_a_status_that_lags_is_not_answered_again():
    """Accepted outputs, and the run shows the old calls for a while: nothing is sent twice."""
    look_up = LookUp()
    rule = Rule(match=r"O-\d+", tool_calls=[LOOK_UP], stale_checks=4)

    played = await play(asking("O-1"), Settings(rules=[rule]), tools=[look_up.tool()])

    assert played.outcomes == {"O-1": Outcome.COMPLETED}
    assert (played.served(SUBMIT), len(look_up.calls)) == (1, 1)


async def test_a_run_that_hangs_is_cancelled_at_the_deadline():
    """Also where `cancelling` takes a while."""
    settings = Settings(rules=[Rule(status="hang")], cancelling_seconds=5)

    played = await play(asking("never"), settings, deadline_seconds=60)

    result = played.results["never"]
    assert (result.outcome, result.error.code) == (Outcome.TIMED_OUT, "deadline_exceeded")
    assert 65 <= result.seconds <= 75
    assert played.books["runs"]["by_status"] == {"cancelled": 1}


async def test_a_cancelling_that_never_ends_is_left_alone():
    """The grace bounds the wait for it."""
    settings = Settings(rules=[Rule(status="hang")], cancelling_seconds=10_000)

    played = await play(asking("never"), settings, deadline_seconds=60)

    assert played.results["never"].outcome is Outcome.TIMED_OUT
    assert played.results["never"].seconds == pytest.approx(90, abs=1)


@pytest.mark.parametrize(
    ("rule", "outcome", "code", "creates"),
    [
        (Rule(answer="well"), Outcome.COMPLETED, None, 1),
        (Rule(status="incomplete"), Outcome.INCOMPLETE, "max_completion_tokens", 1),
        (Rule(status="cancelled"), Outcome.CANCELLED, "cancelled", 1),
        (Rule(status="expired"), Outcome.EXPIRED, "expired", 3),
        (Rule(status="expired", times=1), Outcome.COMPLETED, None, 2),
        (Rule(status="failed", error_code="invalid_prompt"), Outcome.FAILED, "invalid_prompt", 1),
        (Rule(status="failed", error_code="server_error", times=2), Outcome.COMPLETED, None, 3),
        (Rule(status="failed", error_code="server_error"), Outcome.FAILED, "server_error", 4),
        (Rule(status="dreaming"), Outcome.UNKNOWN, "unknown_status", 1),
        (Rule(http_status=400, error_code="no_good"), Outcome.FAILED, "no_good", 0),
        (Rule(lose_run=True), Outcome.EXPIRED, None, 1),
    ],
    ids=[
        "completed",
        "incomplete",
        "cancelled",
        "expired for ever",
        "expired once",
        "at fault",
        "the server's trouble",
        "the server's trouble for ever",
        "a status that nobody knows",
        "refused",
        "forgotten",
    ],
)
async def test_every_status_has_its_outcome(rule, outcome, code, creates):
    """`last_error` decides about a new run, an expired run gets two more, and nothing loops."""
    played = await play(asking("text"), Settings(rules=[rule]), attempts_max=4)

    result = played.results["text"]
    assert (result.outcome, result.creates) == (outcome, creates)
    if code is not None:
        assert result.error.code == code
    if outcome is Outcome.INCOMPLETE:
        assert json.loads(result.answer.body)["messages"]


async def test_a_run_that_expires_while_its_tool_works_is_run_again():
    """The handler is stopped when its run has expired; the second run gets a second call."""
    look_up = LookUp(1_000.0)
    settings = Settings(rules=[Rule(match=r"O-\d+", tool_calls=[LOOK_UP])], run_expires_seconds=60)

    played = await play(asking("O-1"), settings, tools=[look_up.tool()], tool_timeout_seconds=2_000)

    result = played.results["O-1"]
    assert (result.outcome, result.creates, result.turns) == (Outcome.COMPLETED, 2, 1)
    assert (len(look_up.calls), look_up.stopped) == (2, 1)
    assert 60 <= result.seconds <= 90
    assert played.books["runs"]["by_status"] == {"expired": 1, "completed": 1}


async def test_without_tools_a_run_that_asks_is_cancelled_and_failed():
    """Nobody waits for outputs that nobody gives."""
    rule = Rule(tool_calls=[LOOK_UP])

    played = await play(asking("O-1"), Settings(rules=[rule]))

    result = played.results["O-1"]
    assert (result.outcome, result.error.code) == (Outcome.FAILED, "no_tool_handlers")
    assert "no tools were given" in result.error.message
    assert result.seconds < 30
    assert played.books["calls"][CANCEL] == {"200": 1}
    assert played.books["runs"]["by_status"] == {"cancelled": 1}


class Shared:
    """An emulator that others use as well; their calls are not in our books."""

    def __init__(self, **settings):
        self.emulator = Emulator(Settings(run_seconds=Fixed(2), **settings))
        self.others = emulator_client(self.emulator)

    async def new_thread(self):
        return (await self.others.beta.threads.create()).id

    async def play(self, requests, **options):
        calls, results = [], {}
        client = emulator_client(self.emulator, latency_seconds=0.01)
        async with Orchestrator(client, on_call=calls.append, seed=1, **options) as orchestrator:
            async for result in orchestrator.run_many(requests):
                results[result.custom_id] = result
        compare_books(calls, [record for record in self.records() if record.client_request_id])
        return results

    def records(self):
        return self.emulator.books.calls(0, 10**9)

    def created(self):
        """The texts whose runs were created, in order; with "refused" for every refusal."""
        return [
            record.metadata["custom_id"] if record.status == "200" else "refused"
            for record in self.records()
            if record.route == ON_THREAD and record.client_request_id
        ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's, about this API
async def test_requests_on_one_thread_run_one_after_another():
    """In the order of the input, never two at a time: the server has nothing to refuse."""
    shared = Shared()
    first, second = await shared.new_thread(), await shared.new_thread()
    requests = [
        request
        for n in range(10)
        for request in [*on_thread(first, f"a{n}"), *on_thread(second, f"b{n}")]
    ]

    results = await shared.play(requests)

    assert {result.outcome for result in results.values()} == {Outcome.COMPLETED}
    created = shared.created()
    assert [name for name in created if name[0] == "a"] == [f"a{n}" for n in range(10)]
    assert [name for name in created if name[0] == "b"] == [f"b{n}" for n in range(10)]
    for name, result in results.items():
        (message,) = json.loads(result.answer.body)["messages"]
        assert name in message["content"][0]["text"]["value"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_thread_goes_on_after_a_run_that_fails_or_hangs():
    """Whatever becomes of one run, the others of its thread have their turn."""
    rules = [
        Rule(match="^a0", status="failed", error_code="invalid_prompt"),
        Rule(match="^a1", status="hang"),
        Rule(match="^a2", http_status=400, error_code="no_good"),
        Rule(match="^a3", status="expired"),
    ]
    shared = Shared(rules=rules)
    thread = await shared.new_thread()

    results = await shared.play(
        on_thread(thread, *(f"a{n}" for n in range(5))), deadline_seconds=60
    )

    assert [results[f"a{n}"].outcome for n in range(5)] == [
        Outcome.FAILED,
        Outcome.TIMED_OUT,
        Outcome.FAILED,
        Outcome.EXPIRED,
        Outcome.COMPLETED,
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_thread_that_somebody_else_uses_is_waited_for():
    """A 400 that says so is no fault of the request, however long the other run takes."""
    shared = Shared(rules=[Rule(match="^theirs", run_seconds=500)])
    thread = await shared.new_thread()
    await shared.others.beta.threads.runs.create(
        thread,
        assistant_id="asst_2",
        additional_messages=[{"role": "user", "content": "theirs"}],
    )

    results = await shared.play(on_thread(thread, "ours"), attempts_max=2)

    assert results["ours"].outcome is Outcome.COMPLETED
    assert results["ours"].creates == 1
    *refused, created = shared.created()
    assert set(refused) == {"refused"}
    assert len(refused) <= 30
    assert created == "ours"


@pytest.mark.parametrize("number", [20, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", ["drop_after", "drop_before", "error_500", "error_429"])
async def test_faults_cost_no_result_and_no_second_call_of_a_handler(fault, number):
    """Outputs whose answer was lost are looked after; what was done is not done again."""
    look_up = LookUp()
    rule = Rule(match=r"O-\d+", turns=[[LOOK_UP, LOOK_UP], [LOOK_UP]])
    settings = Settings(seed=5, rules=[rule], faults={fault: 0.2})
    names = [f"O-{n}" for n in range(number)]

    played = await play(asking(*names), settings, tools=[look_up.tool()])

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert len(look_up.calls) == len({call_id for _, call_id in look_up.calls}) == 3 * number
    if fault == "drop_after":
        assert played.served(SUBMIT) == 2 * number


def reordered(reply):
    """Messages in no order to rely on, none of the times and none of the fields that may lack."""
    body = json.loads(reply.body)
    if body.get("object") == "list":
        body["data"] = sorted(body["data"], key=lambda message: message["id"])
    for name in ("usage", "expires_at", "metadata", "started_at", "completed_at"):
        if name in body:
            body[name] = None
    return replace(reply, body=json.dumps(body).encode())


async def test_a_server_that_leaves_out_what_it_can():
    """Usage, times and metadata null: the result is there all the same."""

    class Bare(Emulator):
        def handle(self, call, now):
            return reordered(super().handle(call, now))

    rule = Rule(match=r"O-\d+", tool_calls=[LOOK_UP])

    played = await play(asking("O-1"), Bare(Settings(rules=[rule])), tools=[LookUp().tool()])

    result = played.results["O-1"]
    assert (result.outcome, result.usage.total_tokens) == (Outcome.COMPLETED, 0)
    assert b"O-1 is on its way" in result.answer.body


async def test_a_prompt_is_enough_where_the_job_names_the_assistant():
    """A line of one prompt becomes the first message of a thread of its own."""
    requests = [{"prompt": f"say {n}", "url": "/v1/threads/runs"} for n in range(3)]

    played = await play(requests, body={"assistant_id": "asst_1"})

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert played.books["calls"][MAKE_THREAD] == {"200": 3}
    assert played.books["calls"][ON_THREAD] == {"200": 3}
