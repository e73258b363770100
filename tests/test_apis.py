"""Servers that speak the API in their own way: every request ends rightly, and nothing breaks."""

import json

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_server import FakeServer, answer_of, client_of

from orchestrator.adapters.request_file.given import BodyInMemory
from orchestrator.apis.composing import fields_of, joined
from orchestrator.apis.responses import add_metadata
from orchestrator.core import invariants
from orchestrator.core.model import Family, Outcome, Request
from orchestrator.service import Orchestrator

RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"

GONE = answer_of({"detail": "Not Found"}, 404)


def response(**more):
    return {"id": "resp_1", "object": "response", "status": "completed", "output": [], **more}


def message(**more):
    return {"id": "c1", "choices": [{"index": 0, "message": {"role": "assistant", **more}}]}


def call(name="lookup", arguments='{"order_id": "O-1"}', **more):
    return {"type": "function_call", "name": name, "arguments": arguments, **more}


def chat_call(name="lookup", arguments='{"order_id": "O-1"}', **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


class Lookup:
    """A tool that remembers what it was asked."""

    def __init__(self):
        self.order_ids = []

    async def lookup(self, order_id: str) -> str:
        """Look up an order."""
        self.order_ids.append(order_id)
        return f"{order_id} is on its way"


async def play(answer, body=None, *, url=RESPONSES, tools=(), **options):
    """One request against this server: the result and the server."""
    server = answer if isinstance(answer, FakeServer) else FakeServer(answer)
    body = {"model": "m", "input": "hi", **(body or {})}
    if url == CHAT:
        body["messages"] = [{"role": "user", "content": body.pop("input")}]
    async with Orchestrator(client_of(server), seed=1, tools=tools, **options) as orchestrator:
        result = await orchestrator.run({"url": url, "body": body})
        invariants.check(orchestrator._driver.scheduler)
        assert orchestrator.totals.in_flight == 0
    return result, server


def first_then(first, *rest):
    """A server whose answers come in this order; the last one stays."""
    left = [first, *rest]
    return FakeServer(lambda _: left.pop(0) if len(left) > 1 else left[0])


# Background responses.


async def test_a_server_that_knows_no_background():
    """The create call brings the result, and there is nothing to ask for afterwards."""
    result, server = await play(first_then(response(), GONE))

    assert result.outcome is Outcome.COMPLETED
    assert server.places == ["POST /v1/responses"]


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ({}, Outcome.COMPLETED),
        ({"status": None}, Outcome.COMPLETED),
        ({"status": ""}, Outcome.COMPLETED),
        ({"status": "COMPLETED"}, Outcome.UNKNOWN),
        ({"status": 5}, Outcome.UNKNOWN),
        ({"status": ["completed"]}, Outcome.UNKNOWN),
        ({"status": {"x": "y" * 10_000}}, Outcome.UNKNOWN),
        ({"status": "canceled"}, Outcome.CANCELLED),
        ({"status": "expired"}, Outcome.EXPIRED),
    ],
)
async def test_statuses_of_any_kind(said, outcome):
    """No status: the answer is the result. A strange one: an error that names it."""
    result, server = await play(lambda _: {"id": "r", "output": [], **said})

    assert result.outcome is outcome
    assert len(server.requests) == 1
    if outcome is Outcome.UNKNOWN:
        assert str(said["status"])[:20] in result.error.message
        assert len(result.error.message) < 200


@pytest.mark.parametrize(
    "more",
    [
        {"output": None},
        {"output": "text"},
        {"output": {"type": "function_call"}},
        {"output": [None, 7, "x", [], {}]},
        {"usage": None},
        {"usage": []},
        {"usage": {"input_tokens": 1.5, "output_tokens": -3}},
        {"usage": {"input_tokens": "12", "output_tokens": True}},
        {"usage": {"input_tokens": 10**30, "input_tokens_details": [1]}},
        {"id": None},
        {"id": 7},
        {"id": ""},
        {"id": "no-prefix"},
        {"error": "text"},
        {"error": None, "incomplete_details": "text"},
        {"completed_at": "2026-01-01T00:00:00Z"},
        {"completed_at": 1_767_225_600},
        {"completed_at": 1_767_225_600.25},
        {"completed_at": 10**400},
        {"completed_at": -1e300},
        {"completed_at": True},
        {"metadata": None},
        {"unknown": "x" * 5_000_000, "more": [[[[]]]]},
        {"text": "half an emoji: \ud83d"},
    ],
)
async def test_completed_is_completed_whatever_else_is_said(more):
    """Odd fields cost nothing, neither in the answer to the create call nor in that to a check."""
    at_once, _ = await play(lambda _: response(**more))
    checked, server = await play(first_then(response(status="queued"), response(**more)))

    for result in (at_once, checked):
        assert result.outcome is Outcome.COMPLETED
        assert result.usage.total_tokens == 0
        assert b"completed" in result.answer.body
    assert server.places == ["POST /v1/responses", "GET /v1/responses/resp_1"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("it broke", "failed", "it broke"),
        (None, "failed", "no reason"),
        (["x"], "failed", "no reason"),
        ({}, "failed", "no reason"),
        ({"code": None, "message": "m"}, "failed", "m"),
        ({"code": 502, "message": ["m"]}, "502", "no reason"),
        ({"type": "invalid_prompt", "message": "m"}, "invalid_prompt", "m"),
    ],
)
async def test_errors_of_any_shape(error, code, words):
    """A failed run has a code for programs and a word for people."""
    result, server = await play(lambda _: response(status="failed", error=error))

    assert (result.outcome, result.error.code) == (Outcome.FAILED, code)
    assert words in result.error.message
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"7", b'{"id":', b"\xff\xfe", b"[" * 100_000, b'{"x": NaN}', b"{}"],
)
async def test_answers_that_are_none(body):
    """200 with something else inside: tried again a bounded number of times, then it failed."""
    result, server = await play(lambda _: answer_of(body), attempts_max=3)

    assert (result.outcome, result.error.code) == (Outcome.FAILED, "malformed_answer")
    assert len(server.requests) == 3


async def test_one_broken_answer_to_a_check_ends_nothing():
    """The run is paid for: it is looked at again."""
    server = first_then(response(status="queued"), answer_of(b'{"id": "resp_'), response())

    result, _ = await play(server)

    assert (result.outcome, result.checks) == (Outcome.COMPLETED, 2)


HOSTILE = [
    "../../v1/files",
    "..%2f..",
    "a?b=c",
    "a#b",
    "a/b",
    "a\\b",
    "http://evil.test/",
    "//evil.test",
    "ü😀",
    "a b\r\nX-Evil: 1",
    "\x00",
    "%",
    ";",
    "...",
    "x" * 1_000,
]


@pytest.mark.parametrize("run_id", HOSTILE)
async def test_a_hostile_id_stays_in_its_place(run_id):
    """Whatever id the server gives, it is one segment of the path and goes to the same host."""

    def answer(request):
        return response(id=run_id, status="queued" if request.method == "POST" else "completed")

    result, server = await play(answer)

    path = server.requests[1].url.raw_path.decode()
    assert result.outcome is Outcome.COMPLETED
    assert path.startswith("/v1/responses/")
    assert not set(path.removeprefix("/v1/responses/")) & set("/?#\\ \r\n")
    assert server.requests[1].url.host == "emulator.test"
    assert "x-evil" not in server.requests[1].headers
    assert json.loads(result.answer.body)["id"] == run_id == result.run_id


@given(run_id=st.text(min_size=1, max_size=30).filter(lambda text: text not in {".", ".."}))
async def test_any_id_is_asked_for_as_it_was_given(run_id):
    """What the server reads from the path, decoded, is the id that it gave."""

    def answer(request):
        return response(id=run_id, status="queued" if request.method == "POST" else "completed")

    result, server = await play(answer)

    assert result.outcome is Outcome.COMPLETED
    last = server.requests[1].url.raw_path.decode().removeprefix("/v1/responses/")
    assert "/" not in last
    assert httpx2.URL(f"http://x/{last}").path == f"/{run_id}"


@pytest.mark.parametrize("run_id", ["", ".", "..", None, 5, "x" * 1_001])
async def test_a_run_that_nobody_can_ask_for(run_id):
    """No id, or one that would lead elsewhere: no call goes out to another place."""
    result, server = await play(lambda _: response(id=run_id, status="queued"), attempts_max=2)

    assert (result.outcome, result.error.code) == (Outcome.FAILED, "malformed_answer")
    assert set(server.places) == {"POST /v1/responses"}


async def test_cancelling_that_never_ends():
    """It is looked at for the time of grace, then left alone."""

    def answer(request):
        return response(status="cancelling" if "cancel" in str(request.url) else "in_progress")

    result, server = await play(answer, deadline_seconds=60)

    assert result.outcome is Outcome.TIMED_OUT
    assert result.seconds < 95
    assert server.places.count("POST /v1/responses/resp_1/cancel") == 1


@pytest.mark.parametrize("status", [400, 404, 405, 409, 500, 503])
async def test_a_cancel_that_is_refused(status):
    """The run goes on there; with us it is over after the time of grace."""

    def answer(request):
        if str(request.url).endswith("/cancel"):
            return answer_of({"detail": "no"}, status)
        return response(status="in_progress")

    result, _ = await play(answer, deadline_seconds=60)

    assert result.outcome is Outcome.TIMED_OUT
    assert result.seconds < 95


@pytest.mark.parametrize("way", ["cancel", "check after 409"])
async def test_a_run_that_completed_while_it_was_cancelled(way):
    """The result is there and paid for: it counts."""
    cancelled = False

    def answer(request):
        nonlocal cancelled
        if str(request.url).endswith("/cancel"):
            cancelled = True
            return response() if way == "cancel" else answer_of({"detail": "too late"}, 409)
        return response() if cancelled else response(status="in_progress")

    result, _ = await play(answer, deadline_seconds=60)

    assert result.outcome is Outcome.COMPLETED


# Tools on background responses.


def in_turns(*outputs):
    """A server that asks with these output lists in turn, then completes."""
    turns = iter(outputs)
    numbers = iter(range(100))

    def answer(_):
        return response(id=f"resp_{next(numbers)}", output=next(turns, []))

    return FakeServer(answer)


async def test_arguments_as_an_object():
    """Some servers send them unpacked."""
    tool = Lookup()
    server = in_turns([call(arguments={"order_id": "O-7"}, call_id="a")])

    result, _ = await play(server, tools=[tool.lookup])

    assert (result.outcome, tool.order_ids) == (Outcome.COMPLETED, ["O-7"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("lookup", None),
        ("lookup", ""),
        ("lookup", "{"),
        ("lookup", 7),
        ("nobody", "{}"),
        (None, "{}"),
    ],
)
async def test_calls_that_no_tool_can_answer_are_told_to_the_model(name, arguments):
    """Unknown names and broken arguments are answered with an error, once."""
    tool = Lookup()
    server = in_turns([call(name, arguments, call_id="a")])

    result, _ = await play(server, tools=[tool.lookup])

    assert (result.outcome, result.turns, tool.order_ids) == (Outcome.COMPLETED, 1, [])
    (item,) = server.bodies[1]["input"]
    assert (item["call_id"], "error" in item["output"]) == ("a", True)


@pytest.mark.parametrize("call_ids", [["", ""], [None, None], ["a", "a"], [7, 7]])
async def test_call_ids_that_are_none_or_repeat(call_ids):
    """The run still goes on to its end."""
    tool = Lookup()
    server = in_turns([call(call_id=call_id) for call_id in call_ids])

    result, _ = await play(server, tools=[tool.lookup])

    assert (result.outcome, result.turns) == (Outcome.COMPLETED, 1)
    assert tool.order_ids


async def test_the_same_call_id_in_every_turn_of_another_response():
    """Some servers number calls from 0 each time: a new response asks anew."""
    tool = Lookup()
    server = in_turns([call(call_id="call_0")], [call(call_id="call_0")])

    result, _ = await play(server, tools=[tool.lookup])

    assert (result.outcome, result.turns, len(tool.order_ids)) == (Outcome.COMPLETED, 2, 2)


async def test_a_conversation_is_not_named_twice():
    """The API refuses `previous_response_id` beside `conversation`; the conversation is enough."""
    server = in_turns([call(call_id="a")])

    await play(server, {"conversation": "conv_1"}, tools=[Lookup().lookup])

    assert "previous_response_id" not in server.bodies[1]
    assert server.bodies[1]["conversation"] == "conv_1"


@pytest.mark.parametrize("url", [RESPONSES, CHAT])
async def test_tools_are_offered_only_where_the_body_names_none(url):
    """The user's own tools are left as they are, an empty list too."""
    answer = response() if url == RESPONSES else message(content="x")
    theirs = [{"type": "function", "name": "other", "function": {"name": "other"}}]

    _, none = await play(lambda _: answer, url=url, tools=[Lookup().lookup])
    _, some = await play(lambda _: answer, {"tools": theirs}, url=url, tools=[Lookup().lookup])
    _, empty = await play(lambda _: answer, {"tools": []}, url=url, tools=[Lookup().lookup])

    (offered,) = none.bodies[0]["tools"]
    assert "lookup" in {offered.get("name"), offered.get("function", {}).get("name")}
    assert (some.bodies[0]["tools"], empty.bodies[0]["tools"]) == (theirs, [])


# Endpoints that answer at once.


@pytest.mark.parametrize(
    ("url", "answer", "outcome"),
    [
        (CHAT, message(content=None), Outcome.COMPLETED),
        (CHAT, {"choices": []}, Outcome.COMPLETED),
        (CHAT, {"choices": [None]}, Outcome.COMPLETED),
        (CHAT, {"choices": {"message": {}}}, Outcome.COMPLETED),
        (CHAT, {"choices": [{"finish_reason": "length", "message": {}}]}, Outcome.COMPLETED),
        (CHAT, {"choices": [{"message": {}}], "error": None}, Outcome.COMPLETED),
        (CHAT, {"error": {"message": "m", "code": "x"}}, Outcome.FAILED),
        (CHAT, {"error": "x", "choices": None}, Outcome.FAILED),
        (CHAT, {"error": {"code": 400, "message": "m"}, "choices": []}, Outcome.FAILED),
        (EMBEDDINGS, {"data": []}, Outcome.COMPLETED),
        (EMBEDDINGS, {"error": {"message": "m"}}, Outcome.FAILED),
    ],
)
async def test_answers_at_once_of_any_shape(url, answer, outcome):
    """An answer is a result; 200 with nothing but an error inside is a failure."""
    result, server = await play(lambda _: answer, url=url)

    assert result.outcome is outcome
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [{}, {"choices": None}, {"choices": None, "error": None}])
async def test_an_answer_without_the_result_is_tried_again(answer):
    """It is no answer, so it may be a proxy's mistake."""
    result, server = await play(first_then(answer, message(content="x")), url=CHAT)

    assert result.outcome is Outcome.COMPLETED
    assert len(server.requests) == 2


async def test_chat_calls_without_ids_get_one_in_both_places():
    """The message that asks and the outputs that answer name the same ids, each its own."""
    tool = Lookup()
    calls = [chat_call(id=""), chat_call(), chat_call(id="a"), chat_call(id="a"), chat_call(id=3)]
    server = first_then(message(tool_calls=calls), message(content="done"))

    result, _ = await play(server, url=CHAT, tools=[tool.lookup])

    asked, *answered = server.bodies[1]["messages"][1:]
    ids = [asked_call["id"] for asked_call in asked["tool_calls"]]
    assert result.outcome is Outcome.COMPLETED
    assert [answer["tool_call_id"] for answer in answered] == ids
    assert len(set(ids)) == len(tool.order_ids) == 5
    assert ids[2] == "a"


async def test_half_an_emoji_does_not_stop_a_conversation():
    """A model that is cut off leaves half a surrogate pair; it goes back as a question mark."""
    calls = [chat_call(id="\ud83d", arguments='{"order_id": "\ud83d"}')]
    server = first_then(message(content="\ud83d", tool_calls=calls), message(content="done"))

    result, _ = await play(server, url=CHAT, tools=[Lookup().lookup])

    assert (result.outcome, result.turns) == (Outcome.COMPLETED, 1)
    assert server.bodies[1]["messages"][1]["content"] == "?"


@pytest.mark.parametrize("store", [None, True, False])
async def test_a_response_that_is_not_stored_is_continued_whole(store):
    """The conversation goes along; thoughts that only the store knows can't, unless encrypted."""
    thoughts = [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "reasoning", "id": "rs_2", "encrypted_content": "x"},
    ]
    server = first_then(response(output=[*thoughts, call(call_id="a")]), response())
    body = {"background": False} | ({} if store is None else {"store": store})

    result, _ = await play(server, body, tools=[Lookup().lookup])

    question, *said, output = server.bodies[1]["input"]
    assert result.outcome is Outcome.COMPLETED
    assert question == {"role": "user", "content": "hi"}
    assert said == [*(thoughts if store is not False else thoughts[1:]), call(call_id="a")]
    assert (output["type"], output["call_id"]) == ("function_call_output", "a")


async def test_a_conversation_on_the_server_gets_only_what_is_new():
    """What it already knows is not sent again."""
    server = first_then(response(output=[call(call_id="a")]), response())
    body = {"background": False, "conversation": {"id": "conv_1"}}

    await play(server, body, tools=[Lookup().lookup])

    assert [item["type"] for item in server.bodies[1]["input"]] == ["function_call_output"]


@pytest.mark.parametrize("status", ["queued", "in_progress", "strange", "requires_action"])
async def test_a_direct_response_that_is_not_finished(status):
    """Asked for at once and not there: an error that says so, and no endless loop."""
    result, server = await play(lambda _: response(status=status), {"background": False})

    assert result.outcome is Outcome.UNKNOWN
    assert len(server.requests) == 1


# Metadata.

texts = st.text(max_size=4) | st.sampled_from(["orchestrator_run", "custom_id", "k"])


@given(
    theirs=st.dictionaries(texts, st.text(max_size=5) | st.integers() | st.none(), max_size=18),
    custom_id=st.text(min_size=1, max_size=5) | st.just("x" * 513) | st.just("x" * 512),
)
def test_our_metadata_stays_beside_theirs(theirs, custom_id):
    """Never over what is there, never more than 16 pairs or 512 characters."""
    fields = fields_of(json.dumps({"metadata": theirs}, ensure_ascii=False).encode())
    add_metadata(fields, {"orchestrator_run": "run/1"}, _request(custom_id))

    merged = json.loads(joined(fields))["metadata"]
    assert {key: merged[key] for key in theirs} == theirs
    added = merged.keys() - theirs.keys()
    assert added <= {"orchestrator_run", "custom_id"}
    assert len(merged) <= max(16, len(theirs))
    if len(theirs) < 15:
        assert merged["orchestrator_run"] == theirs.get("orchestrator_run", "run/1")
        assert ("custom_id" in merged) == ("custom_id" in theirs or len(custom_id) <= 512)


@pytest.mark.parametrize(("theirs", "added"), [(14, 2), (15, 1), (16, 0), (17, 0)])
def test_our_metadata_takes_only_free_places(theirs, added):
    """Sixteen pairs are the API's limit, and ours is the one that can be left out."""
    fields = fields_of(json.dumps({"metadata": {f"k{n}": "v" for n in range(theirs)}}).encode())
    add_metadata(fields, {"orchestrator_run": "run/1"}, _request("a"))

    assert len(json.loads(joined(fields))["metadata"]) == theirs + added


@pytest.mark.parametrize("metadata", ['"text"', "[1]", "7", "true"])
def test_metadata_that_is_no_object_is_left_alone(metadata):
    """The server will say what it thinks of it."""
    fields = fields_of(b'{"metadata": ' + metadata.encode() + b"}")
    add_metadata(fields, {"ours": "x"}, _request("a"))

    assert joined(fields).decode() == f'{{"metadata":{metadata}}}'


@pytest.mark.parametrize("body", ["{}", '{"metadata": null}', '{"metadata": {}}'])
def test_metadata_that_is_not_there_is_ours(body):
    """Null is nothing."""
    fields = fields_of(body.encode())
    add_metadata(fields, {"ours": "x"}, _request("a"))

    assert json.loads(joined(fields)) == {"metadata": {"ours": "x", "custom_id": "a"}}


def test_their_metadata_goes_out_as_it_was_written():
    """Numbers and escapes too."""
    fields = fields_of(b'{"metadata": {"a": 1.0, "b": "\\u00e9", "c": 1e5}}')
    add_metadata(fields, {}, _request("x"))

    assert joined(fields) == b'{"metadata":{"a":1.0,"b":"\\u00e9","c":1e5,"custom_id":"x"}}'


def _request(custom_id):
    return Request(custom_id, RESPONSES, Family.RESPONSES, "m", 1, BodyInMemory(b"{}"))


async def test_background_null_is_background():
    """As if it were not there: only `false` asks for an answer at once."""
    _, server = await play(lambda _: response(), {"background": None})

    assert server.bodies[0]["background"] is True
