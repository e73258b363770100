"""Tool calls: asked for by rule or by force, continued with outputs, refused if they don't fit."""

import json

import pytest
from support.emulator_client import content, get, post

from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings

LOOKUP = Rule(
    match=r"order (?P<order>\d+)",
    tool_calls=[
        ToolRequest("find_order", {"order": "{order}"}),
        ToolRequest("find_customer", {"of": {"order": "{1}"}}),
    ],
    answer="found: {outputs}",
)
SEARCH = {
    "type": "function",
    "name": "search",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}, "limit": {"type": "integer", "minimum": 1}},
        "required": ["query", "limit"],
    },
}


def emulator_with(*rules):
    at_once = Fixed(0)
    return Emulator(Settings(rules=rules, queue_seconds=at_once, run_seconds=at_once))


def respond(emulator, given, **body):
    return post(emulator, "/responses", {"model": "m", "input": given, **body})


def outputs_of(response, **texts):
    """Outputs for every call of a response; the text is the tool's name unless given."""
    return [
        {
            "type": "function_call_output",
            "call_id": item["call_id"],
            "output": texts.get(item["name"], item["name"]),
        }
        for item in response["output"]
    ]


def text_of(response):
    return response["output"][0]["content"][0]["text"]


def test_a_rule_asks_for_tools_and_then_answers():
    """Two calls at once, with arguments from the text; then an answer that quotes both outputs."""
    emulator = emulator_with(LOOKUP)
    asked = content(respond(emulator, "Where is order 812?"))

    assert asked["status"] == "completed"
    assert [item["type"] for item in asked["output"]] == ["function_call"] * 2
    assert [json.loads(item["arguments"]) for item in asked["output"]] == [
        {"order": "812"},
        {"of": {"order": "812"}},
    ]
    outputs = outputs_of(asked, find_order="sent", find_customer="Ann")
    answered = content(respond(emulator, outputs, previous_response_id=asked["id"]))
    assert text_of(answered) == "found: sent; Ann"
    assert answered["previous_response_id"] == asked["id"]


def test_turns_ask_again_and_again():
    """Each list of `turns` is one round; without an answer the outputs are quoted."""
    rule = Rule(turns=[[ToolRequest("first")], [ToolRequest("second"), ToolRequest("third")]])
    emulator = emulator_with(rule)

    one = content(respond(emulator, "go"))
    two = content(respond(emulator, outputs_of(one), previous_response_id=one["id"]))
    end = content(respond(emulator, outputs_of(two), previous_response_id=two["id"]))

    assert [item["name"] for item in one["output"]] == ["first"]
    assert [item["name"] for item in two["output"]] == ["second", "third"]
    assert text_of(end) == "tool said: second; third"


def test_every_call_needs_its_output():
    """A missing output is a 400 that names the call."""
    emulator = emulator_with(LOOKUP)
    asked = content(respond(emulator, "order 1"))
    outputs = outputs_of(asked)

    reply = respond(emulator, outputs[:1], previous_response_id=asked["id"])

    missing = asked["output"][1]["call_id"]
    assert reply.status == 400
    assert content(reply)["error"]["message"] == (
        f"No tool output found for function call {missing}."
    )


def test_an_output_needs_its_call():
    """Outputs for unknown calls and second outputs for the same call are refused."""
    emulator = emulator_with(LOOKUP)
    asked = content(respond(emulator, "order 1"))
    outputs = outputs_of(asked)
    stranger = {"type": "function_call_output", "call_id": "call_x", "output": "?"}

    for wrong in ([*outputs, stranger], [*outputs, outputs[0]]):
        reply = respond(emulator, wrong, previous_response_id=asked["id"])
        assert reply.status == 400
        assert "No tool call found" in content(reply)["error"]["message"]


def test_a_conversation_sent_whole_needs_no_previous_response():
    """Calls and outputs in the input itself are matched the same way."""
    emulator = emulator_with(LOOKUP)
    asked = content(respond(emulator, "order 1", store=False))
    question = {"role": "user", "content": [{"type": "input_text", "text": "order 1"}]}

    whole = [question, *asked["output"], *outputs_of(asked)]

    assert text_of(content(respond(emulator, whole))) == "found: find_order; find_customer"
    assert respond(emulator, [question, *asked["output"]]).status == 400


def test_a_previous_response_must_be_there_and_done():
    """Unknown ids and unfinished responses can't be continued."""
    emulator = Emulator(Settings(queue_seconds=Fixed(5)))
    running = content(respond(emulator, "x", background=True))["id"]

    unknown = respond(emulator, "y", previous_response_id="resp_x")
    early = respond(emulator, "y", previous_response_id=running)

    assert content(unknown)["error"]["code"] == "previous_response_not_found"
    assert early.status == 400
    assert "queued" in content(early)["error"]["message"]


def test_a_new_user_text_starts_anew():
    """After the answer the conversation can go on with another question."""
    emulator = emulator_with(LOOKUP)
    asked = content(respond(emulator, "order 1"))
    done = content(respond(emulator, outputs_of(asked), previous_response_id=asked["id"]))

    again = content(respond(emulator, "and order 2?", previous_response_id=done["id"]))
    thanks = content(respond(emulator, "thank you", previous_response_id=done["id"]))

    assert json.loads(again["output"][0]["arguments"]) == {"order": "2"}
    assert text_of(thanks) == "thank you"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "search"}])
def test_a_forced_tool_is_called_with_the_least_arguments(choice):
    """`tool_choice` makes the echo call the tool, once, with arguments its schema allows."""
    emulator = emulator_with()
    asked = content(respond(emulator, "x", tools=[SEARCH], tool_choice=choice))

    assert json.loads(asked["output"][0]["arguments"]) == {"query": "text", "limit": 1}
    options = {"tools": [SEARCH], "tool_choice": choice, "previous_response_id": asked["id"]}
    answered = content(respond(emulator, outputs_of(asked), **options))
    assert text_of(answered) == "tool said: search"


def test_tools_that_are_only_offered_are_not_called():
    """With `tool_choice` auto the echo answers."""
    assert text_of(content(respond(emulator_with(), "x", tools=[SEARCH]))) == "x"


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([], "required"),
        ([SEARCH], {"type": "function", "name": "other"}),
        ([SEARCH], "sometimes"),
        ([{"type": "function"}], "auto"),
    ],
)
def test_tools_that_do_not_fit_are_refused(tools, choice):
    """Choosing what isn't offered, or offering what has no name, is a 400."""
    assert respond(emulator_with(), "x", tools=tools, tool_choice=choice).status == 400


def test_broken_arguments_go_out_as_they_are():
    """A rule can make the model say arguments that are no JSON."""
    rule = Rule(tool_calls=[ToolRequest("search", '{"query": ')])

    assert content(respond(emulator_with(rule), "x"))["output"][0]["arguments"] == '{"query": '


CHAT_SEARCH = {
    "type": "function",
    "function": {name: SEARCH[name] for name in ("name", "parameters")},
}


def chat(emulator, messages, **body):
    return post(emulator, "/chat/completions", {"model": "m", "messages": messages, **body})


def test_chat_asks_for_tools_and_then_answers():
    """The whole conversation comes back with the outputs, and the answer quotes them."""
    emulator = emulator_with(LOOKUP)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "order 812"}]
    choice = content(chat(emulator, messages))["choices"][0]

    assert choice["finish_reason"] == "tool_calls"
    calls = choice["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["find_order", "find_customer"]
    outputs = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls]
    end = content(chat(emulator, [*messages, choice["message"], *outputs]))["choices"][0]
    assert end["finish_reason"] == "stop"
    assert end["message"]["content"] == "found: ok; ok"


def test_chat_refuses_outputs_that_do_not_fit():
    """Missing outputs and outputs without a call are 400s that say which."""
    emulator = emulator_with(LOOKUP)
    user = {"role": "user", "content": "order 812"}
    asked = content(chat(emulator, [user]))["choices"][0]["message"]
    first, second = [call["id"] for call in asked["tool_calls"]]
    output = {"role": "tool", "tool_call_id": first, "content": "ok"}

    missing = chat(emulator, [user, asked, output])
    stray = chat(emulator, [user, output])

    assert missing.status == stray.status == 400
    assert second in content(missing)["error"]["message"]
    assert first not in content(missing)["error"]["message"]
    assert "role 'tool' must be a response" in content(stray)["error"]["message"]


def test_chat_can_be_forced_to_call():
    """The nested form of `tool_choice` works as the flat one."""
    choice = {"type": "function", "function": {"name": "search"}}
    user = {"role": "user", "content": "x"}
    said = content(chat(emulator_with(), [user], tools=[CHAT_SEARCH], tool_choice=choice))

    call = said["choices"][0]["message"]["tool_calls"][0]["function"]
    assert json.loads(call["arguments"]) == {"query": "text", "limit": 1}


def test_a_continuation_is_a_run_of_its_own():
    """Both responses stay retrievable, each with its own output."""
    emulator = emulator_with(LOOKUP)
    asked = content(respond(emulator, "order 1", background=True))
    asked = content(get(emulator, f"/responses/{asked['id']}"))
    body = {"previous_response_id": asked["id"], "background": True}
    answered = content(respond(emulator, outputs_of(asked), **body))

    assert content(get(emulator, f"/responses/{asked['id']}"))["output"] == asked["output"]
    assert content(get(emulator, f"/responses/{answered['id']}"))["id"] != asked["id"]
