"""Assistants: OpenAI's own client and its helpers, validating strictly, see all nine statuses."""

import asyncio

import openai
import pytest
from support.emulator_client import content, emulator_client, get, post

from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings

# The client says so at each call; servers that speak this API remain.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning")

BETA = {"headers": {"openai-beta": "assistants=v2"}}
LOOK = {"type": "function", "function": {"name": "look", "description": "looks", "parameters": {}}}
RULES = (
    Rule(match="^tools", tool_calls=[ToolRequest("look", {"at": "it"}), ToolRequest("smell")]),
    Rule(match="^rounds", turns=[[ToolRequest("look")], [ToolRequest("smell")]]),
    Rule(match="^stale", tool_calls=[ToolRequest("look")], stale_checks=2),
    Rule(match="^fail", status="failed", error_code="rate_limit_exceeded", error_message="oh"),
    Rule(match="^short", status="incomplete", answer="cut off"),
    Rule(match="^hang", status="hang"),
    Rule(match="^lost", lose_run=True),
    Rule(match="^odd", status="reticulating"),
    Rule(match="^twice", http_status=429, error_code="rate_limit_exceeded", times=1),
)


def emulator_with(**settings):
    return Emulator(Settings(queue_seconds=Fixed(1), run_seconds=Fixed(2), rules=RULES, **settings))


def threads_of(emulator):
    return emulator_client(emulator, _strict_response_validation=True).beta.threads


def said(text):
    return {"messages": [{"role": "user", "content": text}]}


async def start(threads, text, **options):
    return await threads.create_and_run(assistant_id="asst_1", thread=said(text), **options)


async def see(threads, run):
    return await threads.runs.retrieve(run.id, thread_id=run.thread_id)


def outputs_of(run, **outputs):
    calls = run.required_action.submit_tool_outputs.tool_calls
    return [
        {"tool_call_id": call.id, "output": outputs.get(call.function.name, call.function.name)}
        for call in calls
    ]


async def answers_of(threads, run):
    messages = threads.messages.list(run.thread_id, run_id=run.id)
    return [message.content[0].text.value async for message in messages]


async def test_the_script_that_everybody_starts_from():
    """Assistant, thread, message, run; poll with backoff; print the newest message."""
    client = emulator_client(emulator_with(), _strict_response_validation=True)
    assistant = await client.beta.assistants.create(
        model="gpt-4o-mini", name="Helper", instructions="Be kind.", tools=[LOOK]
    )
    thread = await client.beta.threads.create()
    await client.beta.threads.messages.create(thread.id, role="user", content="What is up?")
    run = await client.beta.threads.runs.create(thread.id, assistant_id=assistant.id)
    seen, wait = [run.status], 0.5
    while run.status in {"queued", "in_progress"}:
        await asyncio.sleep(wait)
        wait *= 1.5
        run = await client.beta.threads.runs.retrieve(run.id, thread_id=thread.id)
        seen.append(run.status)
    messages = await client.beta.threads.messages.list(thread.id)

    assert list(dict.fromkeys(seen)) == ["queued", "in_progress", "completed"]
    assert messages.data[0].content[0].text.value == "What is up?"
    assert [message.role for message in messages.data] == ["assistant", "user"]
    assert (messages.data[0].run_id, messages.data[0].assistant_id) == (run.id, assistant.id)
    assert (run.model, run.instructions, run.tools[0].function.name) == (
        "gpt-4o-mini",
        "Be kind.",
        "look",
    )
    assert (run.started_at - run.created_at, run.completed_at - run.created_at) == (1, 3)
    assert run.usage.total_tokens == run.usage.prompt_tokens + run.usage.completion_tokens
    assert await client.beta.assistants.retrieve(assistant.id) == assistant


async def test_the_clients_own_helpers():
    """Create and poll, submit and poll, create thread and run and poll; two rounds of tools."""
    emulator = emulator_with()
    threads = threads_of(emulator)
    thread = await threads.create(**said("tools"), metadata={"k": "v"})
    asked = await threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id="asst_1", tools=[LOOK]
    )
    done = await threads.runs.submit_tool_outputs_and_poll(
        run_id=asked.id, thread_id=thread.id, tool_outputs=outputs_of(asked, look="seen")[::-1]
    )
    run = await threads.create_and_run_poll(assistant_id="asst_1", thread=said("rounds"))
    names = []
    while run.status == "requires_action":
        names += [call["output"] for call in outputs_of(run)]
        run = await threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=outputs_of(run)
        )

    calls = asked.required_action.submit_tool_outputs.tool_calls
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("look", '{"at": "it"}'),
        ("smell", "{}"),
    ]
    assert (asked.status, asked.usage, done.status) == ("requires_action", None, "completed")
    assert await answers_of(threads, done) == ["tool said: seen; smell"]
    assert (names, run.status) == (["look", "smell"], "completed")
    assert (await threads.retrieve(thread.id)).metadata == {"k": "v"}
    books = emulator.books.snapshot(1000)
    assert books["runs"] == {"created": 2, "by_status": {"completed": 2}}
    assert books["tokens"] == {
        "input": done.usage.prompt_tokens + run.usage.prompt_tokens,
        "output": done.usage.completion_tokens + run.usage.completion_tokens,
    }
    assert books["checks"][done.id][1] == 1


@pytest.mark.parametrize(
    ("text", "status"),
    [("fail", "failed"), ("short", "incomplete"), ("hang", "expired"), ("odd", "reticulating")],
)
async def test_ends_of_other_kinds(text, status):
    """Failed with its error, incomplete with its reason and message, expired, never seen."""
    threads = emulator_client(emulator_with(run_expires_seconds=60)).beta.threads
    created = await start(threads, text)
    await asyncio.sleep(59 if status == "reticulating" else 61)
    run = await see(threads, created)

    assert run.status == status
    assert (run.last_error and run.last_error.code) == (
        "rate_limit_exceeded" if status == "failed" else None
    )
    assert (run.failed_at is not None) == (status == "failed")
    assert (run.incomplete_details is not None) == (status == "incomplete")
    assert (run.usage is not None) == (status != "reticulating")
    assert await answers_of(threads, run) == (["cut off"] if status == "incomplete" else [])


async def test_the_ends_pass_strict_validation():
    """Failed, incomplete and expired runs and their messages, as the client's types have them."""
    threads = threads_of(emulator_with(run_expires_seconds=60))
    runs = [await start(threads, text) for text in ("fail", "short", "hang")]
    await asyncio.sleep(61)
    seen = [await see(threads, run) for run in runs]
    messages = await threads.messages.list(runs[1].thread_id)

    assert [run.status for run in seen] == ["failed", "incomplete", "expired"]
    assert seen[0].last_error.message == "oh"
    assert seen[1].incomplete_details.reason == "max_completion_tokens"
    assert (messages.data[0].status, messages.data[0].incomplete_details.reason) == (
        "incomplete",
        "max_tokens",
    )


async def test_a_run_expires_while_a_tool_runs():
    """Outputs that come too late are refused, and the thread is free for another run."""
    threads = threads_of(emulator_with(run_expires_seconds=60))
    asked = await threads.create_and_run_poll(assistant_id="asst_1", thread=said("tools"))
    await asyncio.sleep(60)
    expired = await see(threads, asked)
    with pytest.raises(openai.BadRequestError, match='status "expired" do not accept'):
        await threads.runs.submit_tool_outputs(
            asked.id, thread_id=asked.thread_id, tool_outputs=outputs_of(asked)
        )
    again = await threads.runs.create(asked.thread_id, assistant_id="asst_1")

    assert asked.expires_at - asked.created_at == 60
    assert (expired.status, expired.required_action) == ("expired", None)
    assert again.status == "queued"
    assert [run.id async for run in threads.runs.list(asked.thread_id)] == [again.id, asked.id]


async def test_all_outputs_come_in_one_submission_and_once():
    """Missing, unknown and doubled outputs are refused; so is a second submission."""
    threads = threads_of(emulator_with())
    asked = await threads.create_and_run_poll(assistant_id="asst_1", thread=said("tools"))
    outputs = outputs_of(asked)
    place = {"run_id": asked.id, "thread_id": asked.thread_id}
    unknown = {"tool_call_id": "call_x", "output": "?"}
    for wrong in (outputs[:1], [*outputs, unknown], [outputs[0], outputs[0]], []):
        with pytest.raises(openai.BadRequestError, match="Expected tool outputs for call_ids"):
            await threads.runs.submit_tool_outputs(**place, tool_outputs=wrong)
    accepted = await threads.runs.submit_tool_outputs(**place, tool_outputs=outputs)
    with pytest.raises(openai.BadRequestError, match='status "queued" do not accept'):
        await threads.runs.submit_tool_outputs(**place, tool_outputs=outputs)

    assert accepted.status == "queued"


async def test_answered_calls_can_still_be_shown():
    """The known trap: the status is stale for the next looks."""
    emulator = emulator_with()
    threads = threads_of(emulator)
    asked = await threads.create_and_run_poll(assistant_id="asst_1", thread=said("stale"))
    await threads.runs.submit_tool_outputs(
        asked.id, thread_id=asked.thread_id, tool_outputs=outputs_of(asked)
    )
    seen = [await see(threads, asked) for _ in range(3)]

    assert [run.status for run in seen] == ["requires_action", "requires_action", "queued"]
    assert seen[1].required_action == asked.required_action


async def test_a_thread_has_one_active_run():
    """No second run and no message meanwhile; both work as soon as it is over."""
    threads = threads_of(emulator_with())
    run = await start(threads, "hello")
    thread_id = run.thread_id
    message = {"role": "user", "content": "and?"}
    busy = f"Thread {thread_id} already has an active run {run.id}."
    with pytest.raises(openai.BadRequestError, match=busy):
        await threads.runs.create(thread_id, assistant_id="asst_1")
    locked = f"Can't add messages to {thread_id} while a run {run.id} is active."
    with pytest.raises(openai.BadRequestError, match=locked):
        await threads.messages.create(thread_id, **message)
    await asyncio.sleep(3.1)
    second = await threads.runs.create_and_poll(
        thread_id=thread_id, assistant_id="asst_1", additional_messages=[message]
    )
    texts = [
        (one.role, one.content[0].text.value)
        async for one in threads.messages.list(thread_id, order="asc", limit=3)
    ]

    assert second.status == "completed"
    assert texts == [
        ("user", "hello"),
        ("assistant", "hello"),
        ("user", "and?"),
        ("assistant", "and?"),
    ]


async def test_cancelling_takes_a_moment():
    """`cancelling` is not the end; what is over can't be cancelled; the thread is free again."""
    threads = threads_of(emulator_with(cancelling_seconds=0.5))
    run = await start(threads, "hang")
    place = {"run_id": run.id, "thread_id": run.thread_id}
    cancelling = await threads.runs.cancel(**place)
    still = await see(threads, run)
    with pytest.raises(openai.BadRequestError, match="already has an active run"):
        await threads.runs.create(run.thread_id, assistant_id="asst_1")
    await asyncio.sleep(0.6)
    cancelled = await see(threads, run)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel run with status 'cancelled'"):
        await threads.runs.cancel(**place)

    assert [cancelling.status, still.status, cancelled.status] == [
        "cancelling",
        "cancelling",
        "cancelled",
    ]
    assert cancelled.cancelled_at is not None
    assert cancelled.usage.total_tokens == 0


async def test_what_is_not_there_is_not_found():
    """Threads, runs, messages, lost runs, and assistants where the settings want real ones."""
    threads = threads_of(emulator_with(any_assistant=False))
    thread = await threads.create(**said("hello"))
    with pytest.raises(openai.NotFoundError, match="No assistant found with id 'asst_1'"):
        await threads.runs.create(thread.id, assistant_id="asst_1")
    with pytest.raises(openai.NotFoundError, match="No run found with id 'run_x'"):
        await threads.runs.retrieve("run_x", thread_id=thread.id)
    with pytest.raises(openai.NotFoundError, match="No message found"):
        await threads.messages.retrieve("msg_x", thread_id=thread.id)
    assert (await threads.delete(thread.id)).deleted
    with pytest.raises(openai.NotFoundError, match=f"No thread found with id '{thread.id}'"):
        await threads.retrieve(thread.id)

    threads = threads_of(emulator_with())
    lost = await start(threads, "lost")
    with pytest.raises(openai.NotFoundError):
        await see(threads, lost)


async def test_messages_page_and_filter():
    """Newest first, after and before an id, and only those of one run."""
    threads = threads_of(emulator_with())
    run = await threads.create_and_run_poll(
        assistant_id="asst_1",
        thread={"messages": [{"role": "user", "content": str(n)} for n in range(5)]},
    )
    listed = threads.messages.list(run.thread_id, limit=2)
    ids = [message.id async for message in listed]
    before = [one.id async for one in threads.messages.list(run.thread_id, before=ids[2])]
    of_run = [one.id async for one in threads.messages.list(run.thread_id, run_id=run.id)]
    one = await threads.messages.retrieve(ids[3], thread_id=run.thread_id)

    assert len(ids) == 6
    assert before == ids[:2]
    assert of_run == ids[:1]
    assert one.content[0].text.value == "2"


async def test_limits_and_the_poll_hint_hold_here_too():
    """Checks count against the model's limit, and unfinished runs say when to look again."""
    threads = threads_of(emulator_with(rpm=2, poll_after_ms=1500))
    started = asyncio.get_running_loop().time()
    run = await start(threads, "hello", model="m")
    raw = await threads.runs.with_raw_response.retrieve(run.id, thread_id=run.thread_id)
    with pytest.raises(openai.RateLimitError):
        await see(threads, run)
    await asyncio.sleep(61)
    await threads.runs.poll(run.id, run.thread_id)

    assert raw.headers["openai-poll-after-ms"] == "1500"
    assert asyncio.get_running_loop().time() - started < 62


def test_a_rule_counts_by_what_the_thread_says():
    """Bodies of runs on threads are all alike; `times` and the digests tell them apart."""
    emulator = emulator_with()
    statuses = []
    for text in ("twice a", "twice b", "twice a"):
        thread_id = content(post(emulator, "/threads", said(text), **BETA))["id"]
        body = {"assistant_id": "asst_1"}
        for _ in range(2):
            reply = post(emulator, f"/threads/{thread_id}/runs", body, **BETA)
            statuses.append(reply.status)

    # The third thread's first run is the rule's second: it goes through, and its second is busy.
    assert statuses == [429, 200, 429, 200, 200, 400]
    assert sorted(emulator.books.snapshot(0)["creates"]["by_digest"].values()) == [1, 2]


@pytest.mark.parametrize(
    ("place", "body", "param"),
    [
        ("/threads/runs", {}, "assistant_id"),
        ("/threads/runs", {"assistant_id": "a", "stream": True}, "stream"),
        (
            "/threads/runs",
            {"assistant_id": "a", "thread": {"messages": [{"role": "x", "content": "y"}]}},
            "thread.messages[0].role",
        ),
        ("/threads", {"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ("/threads", {"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ("/assistants", {"name": "x"}, None),
    ],
)
def test_bodies_that_are_refused(place, body, param):
    """Each with the parameter that is wrong."""
    reply = post(emulator_with(), place, body, **BETA)

    assert (reply.status, content(reply)["error"]["param"]) == (400, param)


def test_the_beta_header_is_wanted():
    """Without it 400 with the cure, unless the settings let everybody in."""
    refused = post(emulator_with(), "/threads", {})
    let_in = post(emulator_with(beta_headers=False), "/threads", {})

    assert content(refused)["error"]["code"] == "invalid_beta"
    assert (refused.status, let_in.status) == (400, 200)


def test_runs_without_expiry_hang_for_ever():
    """A run that nobody expires is in progress a year later, and is kept that long."""
    emulator = emulator_with(run_expires_seconds=None)
    body = {"assistant_id": "asst_1", "thread": said("hang")}
    run = content(post(emulator, "/threads/runs", body, **BETA))
    place = f"/threads/{run['thread_id']}/runs/{run['id']}"
    later = content(get(emulator, place, now=31_536_000, **BETA))

    assert (later["status"], later["expires_at"]) == ("in_progress", None)
    assert emulator.books.snapshot(31_536_000)["runs"]["by_status"] == {"in_progress": 1}
