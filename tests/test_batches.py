"""Requests that go by the Batch API: packed, watched, taken apart, the undone sent again."""

import asyncio
import json

import pytest
from support.emulator_client import emulator_client
from support.engine import compare_books, play

from orchestrator.core import invariants
from orchestrator.core.model import Family, Outcome
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings
from orchestrator.ports import CallKind
from orchestrator.service import Orchestrator

DAY_SECONDS = 86_400


def chats(number, **body):
    for n in range(number):
        messages = [{"role": "user", "content": f"where is O-{n}?"}]
        yield {
            "custom_id": f"c{n}",
            "url": "/v1/chat/completions",
            "body": {"messages": messages, **body},
        }


def lines_of(played):
    return played.books["batches"]["lines"]


def calls_of(played, kind):
    return sum(record.kind is kind for record in played.calls)


def said(result):
    return json.loads(result.answer.body)["choices"][0]["message"]["content"]


async def test_a_file_goes_up_as_one_batch_and_comes_back_as_results():
    """A hundred requests cost an upload, a create, a few looks and a download."""
    played = await play(chats(100), via="batch")

    assert list(played.outcomes.values()) == [Outcome.COMPLETED] * 100
    assert all(f"O-{n}" in said(played.results[f"c{n}"]) for n in range(100))
    assert played.served("POST /v1/chat/completions") == 0
    assert played.served("POST /v1/batches") == played.served("POST /v1/files") == 1
    assert played.served("GET /v1/files/{id}/content") == 1
    assert lines_of(played) == dict.fromkeys(("sent", "answered", "billed"), 100) | dict.fromkeys(
        ("failed", "expired", "cancelled"), 0
    )
    tokens = sum(result.usage.total_tokens for result in played.results.values())
    assert tokens == sum(played.books["tokens"].values())
    assert all(r.batch_usage == r.usage for r in played.results.values())


async def test_each_url_and_model_has_a_batch_of_its_own():
    """A batch is for one endpoint and one model; what no batch takes goes as ever."""
    urls = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
        "/v1/responses": {"input": "hello", "background": True},
        "/v1/embeddings": {"input": ["hello", "there"]},
        "/v1/completions": {"prompt": "hello"},
        "/v1/moderations": {"input": "hello"},
        "/v1/threads/runs": {"assistant_id": "asst_1"},
        "/v1/agents/sessions": {
            "input": "hello",
            "agent": {"model": "gpt-5"},
            "environment": {"type": "none"},
        },
    }
    requests = [
        {"custom_id": f"{url} {model} {n}", "url": url, "body": {**body, "model": model}}
        for url, body in urls.items()
        for model in ("gpt-5", "gpt-5-mini")
        for n in range(3)
        if "session" not in url
    ]
    session = urls["/v1/agents/sessions"]
    requests.append({"custom_id": "s", "url": "/v1/agents/sessions", "body": session})

    played = await play(requests, via="batch")

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert played.served("POST /v1/batches") == 5 * 2
    assert played.served("POST /v1/threads/{thread_id}/runs") == 6
    for url in ("/v1/responses", "/v1/embeddings", "/v1/chat/completions"):
        assert played.served(f"POST {url}") == 0


@pytest.mark.parametrize(
    ("options", "body", "batches"),
    [
        ({"batch_lines": 30}, {}, 4),
        ({"enqueued_tokens": 2_000}, {"user": "x" * 40}, None),
    ],
    ids=["lines", "tokens"],
)
async def test_a_shard_stays_within_the_limits(options, body, batches):
    """More than a batch takes goes into several."""
    emulator = Settings(batch_lines_max=30, batch_enqueued_tokens=options.get("enqueued_tokens"))
    if batches is None:
        emulator = Settings(batch_enqueued_tokens=2_000)

    played = await play(chats(100, **body), emulator, via="batch", **options)

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert played.books["batches"]["by_status"] == {"completed": played.served("POST /v1/batches")}
    assert lines_of(played)["sent"] == 100
    if batches is not None:
        assert played.served("POST /v1/batches") == batches


async def test_the_queue_limit_is_learned_from_the_refusal():
    """The first batch is too much for the queue; from then on they are sent one by one."""
    played = await play(chats(400), Settings(batch_enqueued_tokens=900), via="batch")

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    refused = played.books["batches"]["by_status"]["failed"]
    assert 1 <= refused <= 6
    assert lines_of(played)["billed"] == 400


async def test_an_expired_batch_keeps_what_was_done_and_sends_the_rest_again():
    """1,000 lines, expired after 600: 600 kept, 400 sent again, 1,000 outcomes, none done twice."""
    played = await play(
        chats(1_000), Settings(batch_expire_after_lines=600, batch_seconds=None), via="batch"
    )

    assert list(played.outcomes.values()) == [Outcome.COMPLETED] * 1_000
    assert played.books["batches"]["by_status"] == {"expired": 1, "completed": 1}
    lines = lines_of(played)
    assert (lines["sent"], lines["billed"], lines["expired"]) == (1_400, 1_000, 400)
    totals = played.orchestrator.totals
    assert (totals.lines_sent, totals.lines_answered, totals.lines_undone) == (1_400, 1_000, 400)
    assert totals.batches_by_end == {"expired": 1, "completed": 1}
    tokens = sum(result.usage.total_tokens for result in played.results.values())
    assert tokens == sum(played.books["tokens"].values())


@pytest.mark.slow
async def test_two_hundred_batches_are_looked_at_with_two_calls():
    """One list call answers for a hundred of them, whatever their place in the list."""
    emulator = Settings(batch_seconds=Fixed(3_600))
    played = await play(chats(400), emulator, via="batch", batch_lines=2, rpm=60_000)

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert played.served("POST /v1/batches") == 200
    # In the first round the order of the list is not known yet.
    assert played.served("GET /v1/batches/{id}") <= 2
    looks = [r.at_seconds for r in played.emulator.books.calls(0, 10**9) if r.route == LIST]
    steady = [at for at in looks if 600 < at <= 3_000]
    # The gap is a minute, less the jitter of whichever is first.
    assert len(steady) <= 2 * (2_400 / 54 + 1)
    assert played.orchestrator.totals.checks / 200 > len(looks) / 2 - 5


LIST = "GET /v1/batches"


async def test_the_model_may_call_tools():
    """The outputs go out as lines of another batch, with the conversation so far."""
    rule = Rule(match=r"(O-\d+)", tool_calls=[ToolRequest("look_up", {"order_id": "{1}"})])

    async def look_up(order_id: str) -> str:
        """Look up an order."""
        return f"{order_id} is on its way"

    played = await play(chats(20), Settings(rules=[rule]), tools=[look_up], via="batch")

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert all(f"O-{n} is on its way" in said(played.results[f"c{n}"]) for n in range(20))
    assert played.served("POST /v1/batches") == 2
    assert {result.turns for result in played.results.values()} == {1}


async def test_lines_that_failed_on_the_server_go_into_the_next_batch():
    """A line that met a 500 is tried again, as a call would be."""
    played = await play(chats(200), Settings(faults={"error_line": 0.2}), via="batch")

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    lines = lines_of(played)
    assert lines["failed"] > 20
    assert lines["sent"] == 200 + lines["failed"]


async def test_lines_that_are_refused_fail_by_themselves():
    """What the server says of a line is that request's error; the others have their results."""
    requests = [*chats(5), *chats(3, n=0)]
    for n, request in enumerate(requests):
        request["custom_id"] = f"r{n}"

    played = await play(requests, via="batch")

    assert list(played.outcomes.values()).count(Outcome.COMPLETED) == 5
    failed = [result for result in played.results.values() if result.outcome is Outcome.FAILED]
    assert len(failed) == 3
    assert all("HTTP 400" in result.error.message for result in failed)


async def test_all_lines_refused():
    """A batch that completed without an output file has nothing but errors, and each is told."""
    played = await play(chats(4, n=0), via="batch")

    assert set(played.outcomes.values()) == {Outcome.FAILED}
    assert played.books["batches"]["by_status"] == {"completed": 1}


async def test_what_the_validation_says_of_a_line():
    """A line that fails the whole batch is taken out, and the others are sent again."""
    client = emulator_client(Emulator(Settings(models=["gpt-5-mini"])))
    async with Orchestrator(client, model="gpt-5-mini", via="batch", seed=1) as orchestrator:
        requests = [*chats(3), {"custom_id": "x", "prompt": "hello", "model": "gpt-0"}]
        results = {r.custom_id: r async for r in orchestrator.run_many(requests)}

    assert results["x"].outcome is Outcome.FAILED
    assert results["x"].error.code == "model_not_found"
    assert {results[f"c{n}"].outcome for n in range(3)} == {Outcome.COMPLETED}


@pytest.mark.slow
async def test_a_batch_stuck_in_finalizing_is_cancelled_after_its_day():
    """It is not waited for for ever; what was done until then is kept, and not sent twice."""
    played = await play(chats(10), Settings(batch_stuck_in="finalizing"), via="batch")

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert all(r.seconds > DAY_SECONDS for r in played.results.values())
    assert played.served("POST /v1/batches/{id}/cancel") == played.served("POST /v1/batches") == 1


@pytest.mark.slow
async def test_a_batch_that_can_not_even_be_cancelled():
    """Its lines are sent again until their time is over, and count as perhaps paid each time."""
    emulator = Settings(batch_stuck_in="cancelling", batch_seconds=Fixed(10 * DAY_SECONDS))
    played = await play(chats(10), emulator, via="batch")

    assert set(played.outcomes.values()) == {Outcome.TIMED_OUT}
    assert all(3 * DAY_SECONDS <= r.seconds < 4 * DAY_SECONDS for r in played.results.values())
    assert all(result.lost for result in played.results.values())


@pytest.mark.parametrize("stuck_in", ["validating", "in_progress", "cancelling"])
async def test_a_batch_that_gets_nowhere(stuck_in):
    """A dead server's batches end by our deadline, at the latest."""
    emulator = Settings(batch_stuck_in=stuck_in, batch_seconds=None, batch_expires_seconds=3_600)
    played = await play(chats(5), emulator, via="batch", deadline_seconds=20_000)

    assert len(played.results) == 5
    assert {r.outcome for r in played.results.values()} <= {Outcome.TIMED_OUT, Outcome.COMPLETED}


DEVIATIONS = [
    "batch_blank_error_id",
    "batch_empty_error_file",
    "batch_body_as_text",
    "batch_refused_in_output",
    "batch_no_counts_on_failure",
]


@pytest.mark.parametrize("deviations", [[name] for name in DEVIATIONS] + [DEVIATIONS])
async def test_other_servers_files(deviations):
    """Completed, refused and unfinished lines are told apart, however the files are written."""
    emulator = Settings(deviations=deviations, batch_expire_after_lines=6)
    requests = [*chats(5), *chats(3, n=0)]
    for n, request in enumerate(requests):
        request["custom_id"] = f"r{n}"

    played = await play(requests, emulator, via="batch")

    outcomes = list(played.outcomes.values())
    assert (outcomes.count(Outcome.COMPLETED), outcomes.count(Outcome.FAILED)) == (5, 3)
    assert all(said(r) for r in played.results.values() if r.outcome is Outcome.COMPLETED)


async def test_a_batch_whose_output_is_never_named():
    """It is paid for, and to send it again would be paid again: a person has to look."""
    played = await play(chats(5), Settings(deviations=["batch_no_output_id"]), via="batch")

    assert set(played.outcomes.values()) == {Outcome.UNKNOWN}
    assert {r.error.code for r in played.results.values()} == {"batch_output_missing"}
    assert played.served("POST /v1/batches") == 1


async def test_an_endpoint_that_this_server_does_not_batch():
    """The refusal costs nothing and fails each request with the server's words."""
    requests = [{"custom_id": f"r{n}", "prompt": "hello"} for n in range(5)]
    played = await play(requests, Settings(deviations=["batch_no_responses"]), via="batch")

    assert set(played.outcomes.values()) == {Outcome.FAILED}
    assert all("/v1/responses" in r.error.message for r in played.results.values())
    assert played.served("POST /v1/files") == 1


async def test_small_rests_go_without_a_batch():
    """Fewer lines than the threshold are sent one by one, at the full price."""
    played = await play(
        chats(100), Settings(batch_expire_after_lines=95), via="batch", direct_below=10
    )

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert played.served("POST /v1/batches") == 1
    assert played.served("POST /v1/chat/completions") == 5
    by_batch = [r for r in played.results.values() if r.batch_usage.total_tokens]
    assert len(by_batch) == 95


@pytest.mark.parametrize("delete_files", [False, True])
async def test_uploaded_files_can_be_removed(delete_files):
    """The file that went up is gone when its batch is over; the output stays on the server."""
    played = await play(chats(5), via="batch", delete_files=delete_files)

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert played.served("DELETE /v1/files/{id}") == delete_files


async def test_a_create_whose_answer_was_lost_is_looked_for():
    """The batch is found by its name in the list, and is not created twice."""
    emulator = Settings(seed=3, faults={"drop_after": 0.3})
    played = await play(chats(50), emulator, via="batch", batch_lines=5)

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert [r for r in played.calls if r.status == "connection_lost"]
    assert lines_of(played)["sent"] == 50
    assert played.served("POST /v1/batches") >= 10


@pytest.mark.parametrize("seed", range(3))
async def test_all_faults_at_once(seed):
    """Calls that fail in every way: one outcome for each request, and nothing is done twice."""
    names = ["error_500", "error_503", "error_429", "slow", "drop_before", "drop_after"]
    faults = dict.fromkeys([*names, "error_line", "batch_expires"], 0.1)
    emulator = Settings(seed=seed, faults=faults)

    played = await play(chats(200), emulator, via="batch", batch_lines=20)

    assert list(played.outcomes.values()) == [Outcome.COMPLETED] * 200


async def test_one_request_that_is_not_wanted_any_more():
    """The others of its batch go on; when nobody is left, the batch is cancelled."""
    emulator = Emulator(Settings(batch_seconds=None, batch_expires_seconds=DAY_SECONDS))
    calls = []
    client = emulator_client(emulator)
    async with Orchestrator(
        client, model="m", via="batch", seed=1, on_call=calls.append
    ) as orchestrator:
        runs = [asyncio.create_task(orchestrator.run({"prompt": "hello"})) for _ in range(3)]
        await asyncio.sleep(2.5)
        runs[0].cancel()
        assert [(await run).outcome for run in runs[1:]] == [Outcome.COMPLETED] * 2
        runs = [asyncio.create_task(orchestrator.run({"prompt": "hello"})) for _ in range(3)]
        await asyncio.sleep(2.5)
        for run in runs:
            run.cancel()
        await asyncio.sleep(10)
        invariants.check(orchestrator._driver.scheduler)
        assert orchestrator.totals.batches_open == 0
    compare_books(calls, emulator.books.calls(0, 10**9))
    assert emulator.books.snapshot(10**9)["batches"]["by_status"] == {
        "completed": 1,
        "cancelled": 1,
    }


@pytest.mark.parametrize("cancel_remote", [False, True])
async def test_stopping_everything(cancel_remote):
    """Remote batches are left as they are, or cancelled; every request is told."""
    emulator = Emulator(Settings(batch_seconds=None))
    async with Orchestrator(
        emulator_client(emulator), model="m", via="batch", seed=1, cancel_on_exit=cancel_remote
    ) as orchestrator:
        runs = [asyncio.create_task(orchestrator.run({"prompt": "hello"})) for _ in range(3)]
        await asyncio.sleep(3)
        orchestrator.stop("enough", cancel_remote=cancel_remote)
        results = [await run for run in runs]

    assert {result.outcome for result in results} == {Outcome.STOPPED}
    assert all(result.run_id.startswith("batch_") for result in results)
    cancelled = emulator.books.snapshot(10**9)["batches"]["by_status"].get("cancelled", 0)
    assert cancelled == cancel_remote


async def test_a_batch_that_is_being_created_when_all_is_stopped():
    """Its id is waited for, for a moment: somebody may want to look for it on the server."""
    emulator = Emulator(Settings(faults={"slow": 1.0}, slow_seconds=1.0))
    async with Orchestrator(
        emulator_client(emulator), model="m", via="batch", seed=1
    ) as orchestrator:
        runs = [asyncio.create_task(orchestrator.run({"prompt": "hello"})) for _ in range(3)]
        await asyncio.sleep(3.5)  # 2 s to be closed, 1 s for the upload
        assert list(emulator.books.snapshot(10**9)["calls"]) == [
            "POST /v1/files",
            "POST /v1/batches",
        ]
        orchestrator.stop("enough")
        results = [await run for run in runs]

    assert {result.outcome for result in results} == {Outcome.STOPPED}
    assert all(result.run_id.startswith("batch_") for result in results)


async def test_a_refused_key_costs_one_call():
    """The upload is refused, nothing else is sent, and every request says why."""
    emulator = Settings(api_key="right")
    played = await play(chats(100), emulator, via="batch", batch_lines=10)

    assert played.stopped is not None
    assert len(played.calls) == 1
    assert set(played.outcomes.values()) <= {Outcome.STOPPED}


async def test_what_is_seen_of_a_batch_in_progress():
    """How many lines its server has answered is known before there is any result."""
    emulator = Emulator(Settings(batch_seconds=None))
    async with Orchestrator(emulator_client(emulator), model="m", via="batch", seed=1) as engine:
        many = engine.run_many(chats(1_000))
        first = asyncio.create_task(anext(many))
        await asyncio.sleep(20)
        answered, out = engine.totals.lines_answered_there, engine.totals.lines_out
        await first
        async for _ in many:
            pass

    assert 0 < answered < 1_000
    assert out == 1_000
    assert engine.totals.lines_out == engine.totals.lines_answered_there == 0


def test_batches_are_a_family():
    """Its name is in the table of families like the others."""
    assert Family.BATCH in set(Family)
    assert CallKind.PREPARE in set(CallKind)
