"""What the emulator says: echo, rules, answers files, samples of schemas, vectors."""

import json

import pytest
from support.emulator_client import content, post

from orchestrator.emulator.answers import read_answers
from orchestrator.emulator.at_once import vector
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.rules import Rule, read_rules
from orchestrator.emulator.schema_sample import sample
from orchestrator.emulator.settings import Settings


def emulator_with(**settings):
    return Emulator(Settings(run_seconds=Fixed(0), **settings))


def said(emulator, given, **body):
    reply = post(emulator, "/responses", {"model": "m", "input": given, **body})
    assert reply.status == 200, reply.body
    return content(reply)["output"][0]["content"][0]["text"]


def test_echo_repeats_the_last_user_text():
    """Not the instructions, not what came before."""
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": [{"type": "input_text", "text": "two"}]},
    ]

    assert said(emulator_with(), messages, instructions="count") == "two"


@pytest.mark.parametrize(
    ("tokens_max", "status", "text"), [(3, "completed", "x" * 12), (2, "incomplete", "x" * 8)]
)
def test_an_answer_above_its_tokens_is_cut(tokens_max, status, text):
    """A maximum smaller than the answer makes it incomplete, an exact one doesn't."""
    body = {"model": "m", "input": "x" * 12, "max_output_tokens": tokens_max}
    response = content(post(emulator_with(), "/responses", body))

    assert response["status"] == status
    assert response["output"][0]["content"][0]["text"] == text
    assert response["usage"]["output_tokens"] == tokens_max
    reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
    assert response["incomplete_details"] == reason


def test_chat_cut_short_ends_for_length():
    """Both names of the maximum count."""
    for name in ("max_tokens", "max_completion_tokens"):
        body = {"model": "m", "messages": [{"role": "user", "content": "x" * 12}], name: 1}
        choice = content(post(emulator_with(), "/chat/completions", body))["choices"][0]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["content"] == "xxxx"


def test_the_first_rule_that_matches_answers():
    """In order, by text and by model; groups by number and by name; other braces stay."""
    emulator = emulator_with(
        rules=[
            Rule(match="hello", model="other", answer="never"),
            Rule(match=r"hello (?P<name>\w+) (\w+)", answer='{name} {2} {0} {nobody} {"a": 1}'),
            Rule(match="hello", answer="hi"),
        ]
    )

    assert said(emulator, "oh hello Ann Lee") == 'Ann Lee hello Ann Lee {nobody} {"a": 1}'
    assert said(emulator, "hello!") == "hi"
    assert said(emulator, "goodbye") == "goodbye"


def test_a_rule_can_refuse_the_call():
    """Status, type, code, message and `retry-after` as the rule says."""
    rule = Rule(
        http_status=429,
        error_code="insufficient_quota",
        error_type="insufficient_quota",
        error_message="You exceeded your current quota.",
        retry_after_seconds=3,
    )
    emulator = emulator_with(rules=[rule])
    for path, body in (
        ("/responses", {"input": "x"}),
        ("/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/completions", {"prompt": "x"}),
        ("/embeddings", {"input": "x"}),
        ("/moderations", {"input": "x"}),
    ):
        reply = post(emulator, path, {"model": "m", **body})
        assert reply.status == 429
        assert reply.headers["retry-after"] == "3"
        assert content(reply)["error"] == {
            "message": "You exceeded your current quota.",
            "type": "insufficient_quota",
            "code": "insufficient_quota",
            "param": None,
        }
    assert emulator.books.snapshot(0)["creates"]["by_digest"] == {}


def test_a_rule_can_hold_only_for_the_first_times():
    """The same request fails once and then works; another one has its own count."""
    rule = Rule(match="flaky", status="failed", error_code="server_error", times=1)
    emulator = emulator_with(rules=[rule])

    def status(text):
        return content(post(emulator, "/responses", {"model": "m", "input": text}))["status"]

    assert [status("flaky one"), status("flaky one"), status("flaky one")] == [
        "failed",
        "completed",
        "completed",
    ]
    assert status("flaky two") == "failed"


def test_a_failure_without_a_run_is_a_500():
    """Chat has no status to show, so its call fails."""
    emulator = emulator_with(rules=[Rule(status="failed", error_message="oh")])
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    reply = post(emulator, "/chat/completions", body)

    assert reply.status == 500
    assert content(reply)["error"]["message"] == "oh"


def test_an_answers_file_is_searched_by_text_and_by_id(tmp_path):
    """By the last user text, by a metadata value, or by the id at the end of a metadata value."""
    path = tmp_path / "answers.jsonl"
    path.write_text(
        '{"custom_id": "q-1", "answer": "one"}\n\n'
        '{"input": "two?", "answer": "two"}\r\n'
        '{"prompt": "three?", "answer": {"n": 3}}\n'
    )
    emulator = emulator_with(answers=read_answers(path))

    assert said(emulator, "?", metadata={"key": "q-1"}) == "one"
    assert said(emulator, "?", metadata={"run": "night/7:q-1"}) == "one"
    assert said(emulator, "two?") == "two"
    assert said(emulator, "three?") == '{"n": 3}'
    assert said(emulator, "four?", metadata={"key": "q-4"}) == "four?"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2: not valid JSON"),
        ('["x"]', "line 2: needs an"),
        ('{"custom_id": "x"}', "line 2: needs an"),
        ('{"answer": "x"}', "line 2: needs an"),
    ],
)
def test_an_answers_file_that_is_wrong_says_where(tmp_path, line, complaint):
    """File, line, and what it needs."""
    path = tmp_path / "answers.jsonl"
    path.write_text('{"input": "a", "answer": "b"}\n' + line)

    with pytest.raises(EmulatorMistake, match=f"answers.jsonl, {complaint}"):
        read_answers(path)


def test_rules_come_from_toml_or_json(tmp_path):
    """Both forms give the same rules."""
    toml, in_json = tmp_path / "rules.toml", tmp_path / "rules.json"
    toml.write_text(
        '[[rules]]\nmatch = "a"\ntool_calls = [{name = "t", arguments = {x = "{0}"}}]\n'
        '[[rules]]\nstatus = "failed"\ntimes = 2\n'
    )
    rules = [
        {"match": "a", "tool_calls": [{"name": "t", "arguments": {"x": "{0}"}}]},
        {"status": "failed", "times": 2},
    ]
    in_json.write_text(json.dumps(rules))

    assert read_rules(toml) == read_rules(in_json)
    assert read_rules(toml)[1] == Rule(status="failed", times=2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[rules]\n", "not valid TOML.*line 1"),
        ('answer = "x"\n', "no rules in it"),
        ('[[rules]]\n[[rules]]\nanswr = "x"\n', "rule 2: .*answr"),
        ("[[rules]]\nmatch = '('\n", "rule 1: .*no regular expression"),
        ("[[rules]]\nhttp_status = 200\n", "rule 1: .*400 to 599"),
        ("[[rules]]\ntimes = -1\n", "rule 1: .*times must be 0 or more"),
        ("[[rules]]\ntool_calls = []\nturns = []\n", "rule 1: .*one of the two"),
    ],
)
def test_rules_that_are_wrong_say_where(tmp_path, text, complaint):
    """File, rule, and what is wrong with it."""
    path = tmp_path / "rules.toml"
    path.write_text(text)

    with pytest.raises(EmulatorMistake, match=f"rules.toml.*{complaint}"):
        read_rules(path)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"a": "text"},
        ),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {}),
        ({"enum": ["x", "y"]}, "x"),
        ({"const": 5}, 5),
        ({"type": ["null", "integer"]}, 0),
        ({"type": "number", "exclusiveMinimum": 1}, 2),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"type": "string", "minLength": 6}, "textxx"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 0),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer", "minimum": 3}}}, 3),
        ({"allOf": [{"properties": {"a": {}}, "required": ["a"]}]}, {"a": None}),
        (None, None),
        ("nonsense", None),
    ],
)
def test_a_sample_is_the_least_a_schema_allows(schema, value):
    """Required things only, first choices, smallest numbers."""
    assert sample(schema) == value


def test_a_schema_that_holds_itself_ends():
    """A tree without a bottom is cut, not followed for ever."""
    tree = {"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["child"]}

    assert json.dumps(sample(tree)).count("child") < 50


def test_an_answer_keeps_to_the_schema_that_is_asked_for():
    """Structured output without a rule gets a minimal value."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    text = {"format": {"type": "json_schema", "name": "n", "schema": schema}}
    chat = {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    }
    emulator = emulator_with()

    assert said(emulator, "x", text=text) == '{"n": 0}'
    choice = content(post(emulator, "/chat/completions", chat))["choices"][0]
    assert choice["message"]["content"] == '{"n": 0}'


def test_vectors_follow_from_the_text_alone():
    """The same text, the same direction; another text, another; always of length 1."""
    assert vector("a", 8) == vector("a", 8)
    assert vector("a", 8) != vector("b", 8)
    for dimensions in (1, 8, 16, 17, 1536):
        numbers = vector("a", dimensions)
        assert len(numbers) == dimensions
        assert sum(number**2 for number in numbers) == pytest.approx(1)
