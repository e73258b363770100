"""What the emulator refuses, and that no body, however odd, breaks it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.emulator_client import call_of, content, get, post

from orchestrator.emulator.calls import Call
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.settings import Settings

PATHS = ("/responses", "/chat/completions", "/completions", "/embeddings", "/moderations")
USER = [{"role": "user", "content": "x"}]


def error_of(reply):
    return content(reply)["error"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"null", b'"x"'])
def test_a_body_must_be_a_json_object(path, body):
    """Anything else is a 400."""
    assert post(Emulator(), path, body).status == 400


@pytest.mark.parametrize("path", PATHS[:-1])
@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": ""}])
def test_a_model_is_needed(path, model):
    """In OpenAI's words."""
    reply = post(Emulator(), path, {"input": "x", "messages": USER, "prompt": "x", **model})

    assert reply.status == 400
    assert error_of(reply)["message"] == "you must provide a model parameter"


@pytest.mark.parametrize(
    ("path", "param"),
    list(zip(PATHS, ["input", "messages", "prompt", "input", "input"], strict=True)),
)
def test_something_to_work_on_is_needed(path, param):
    """The missing parameter is named."""
    reply = post(Emulator(), path, {"model": "m"})

    assert reply.status == 400
    assert error_of(reply)["param"] == param


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/responses", {"input": 5}),
        ("/responses", {"input": "x", "max_output_tokens": 0}),
        ("/responses", {"input": "x", "metadata": {"row": 1}}),
        ("/responses", {"input": "x", "metadata": {str(n): "v" for n in range(17)}}),
        ("/responses", {"input": "x", "metadata": {"k": "v" * 513}}),
        ("/responses", {"input": "x", "metadata": {"k" * 65: "v"}}),
        ("/responses", {"input": "x", "stream": True}),
        ("/chat/completions", {"messages": []}),
        ("/chat/completions", {"messages": USER, "n": 0}),
        ("/chat/completions", {"messages": USER, "stream": True}),
        ("/chat/completions", {"messages": USER, "max_tokens": -1}),
        ("/completions", {"prompt": "x", "stream": True}),
        ("/completions", {"prompt": "x", "n": 1000}),
        ("/embeddings", {"input": []}),
        ("/embeddings", {"input": [[]]}),
        ("/embeddings", {"input": ["a", 1]}),
        ("/embeddings", {"input": "x", "dimensions": 0}),
        ("/embeddings", {"input": "x", "encoding_format": "hex"}),
        ("/moderations", {"input": []}),
    ],
)
def test_wrong_values_are_refused(path, body):
    """Each is a 400 whose body the client understands, and nothing was done."""
    emulator = Emulator()
    reply = post(emulator, path, {"model": "m", **body})

    assert reply.status == 400
    assert error_of(reply)["type"] == "invalid_request_error"
    assert emulator.books.snapshot(0)["creates"]["by_digest"] == {}


def test_metadata_as_big_as_allowed_is_taken():
    """16 pairs, names of 64 and values of 512 characters."""
    metadata = {f"{n}".rjust(64, "k"): "v" * 512 for n in range(16)}

    reply = post(Emulator(), "/responses", {"model": "m", "input": "x", "metadata": metadata})

    assert content(reply)["metadata"] == metadata


@pytest.mark.parametrize("header", [{}, {"authorization": ""}, {"authorization": "Bearer  "}])
def test_a_key_is_needed(header):
    """A missing or blank key is a 401."""
    reply = Emulator().handle(Call("GET", "/v1/models", {}, header), 0)

    assert reply.status == 401
    assert error_of(reply)["code"] == "invalid_api_key"


def test_only_the_right_key_gets_in_and_none_is_repeated():
    """With a key in the settings every other is refused, and not shown to anyone."""
    emulator = Emulator(Settings(api_key="right"))

    wrong = get(emulator, "/models", key="sk-secret")

    assert wrong.status == 401
    assert b"sk-secret" not in wrong.body
    assert get(emulator, "/models", key="right").status == 200
    azure = Call("GET", "/models", {}, {"api-key": "right"})
    assert emulator.handle(azure, 0).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/embeddings",
        "/embeddings",
        "/openai/v1/embeddings",
        "/openai/deployments/my-model/embeddings",
        "/v1/embeddings/",
    ],
)
def test_paths_mean_the_same_with_any_prefix(path):
    """With and without /v1, and as Azure's client writes them."""
    emulator = Emulator()

    assert post(emulator, path, {"model": "m", "input": "x"}).status == 200
    assert list(emulator.books.snapshot(0)["calls"]) == ["POST /v1/embeddings"]


def test_unknown_places_and_methods():
    """404 and 405, with bodies as OpenAI writes them."""
    emulator = Emulator()

    assert get(emulator, "/v1/nowhere").status == 404
    assert error_of(get(emulator, "/v1/nowhere"))["code"] == "unknown_url"
    assert get(emulator, "/v1/responses").status == 405
    assert get(emulator, "/").status == 404
    assert get(emulator, "/emulator/nowhere").status == 404
    assert post(emulator, "/emulator/books").status == 405


def test_every_answer_carries_the_usual_headers():
    """Good and bad answers alike."""
    emulator = Emulator()

    for reply in (
        get(emulator, "/models"),
        get(emulator, "/nowhere"),
        post(emulator, "/responses"),
    ):
        assert reply.headers["x-request-id"].startswith("req_")
        assert int(reply.headers["openai-processing-ms"]) >= 1
        assert reply.headers["openai-version"] == "2020-10-01"
        assert reply.headers["content-type"] == "application/json"


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NAMES = st.sampled_from(
    ["type", "role", "content", "text", "call_id", "output", "id", "tool_calls", "function", "name"]
) | st.text(max_size=3)
KINDS = st.sampled_from(["message", "function_call", "function_call_output", "tool", "user"])
VALUES = st.recursive(
    LEAVES | KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    "input messages prompt tools tool_choice metadata max_output_tokens max_tokens n stream "
    "background store previous_response_id text reasoning response_format dimensions"
)
BODIES = st.dictionaries(st.sampled_from(FIELDS.split()), VALUES, max_size=5)


@given(path=st.sampled_from(PATHS), body=BODIES)
def test_no_body_breaks_the_emulator(path, body):
    """Whatever JSON comes in, the answer is a result or a refusal, and valid JSON."""
    reply = post(Emulator(), path, {"model": "m", **body})

    assert reply.status in {200, 400}
    content(reply)


@given(path=st.sampled_from(PATHS), body=st.binary(max_size=40))
def test_no_bytes_break_the_emulator(path, body):
    """Nor do bytes that are no JSON at all."""
    assert post(Emulator(), path, body).status in {200, 400}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"rpm": 0}, "rpm must be 1 or more, got 0"),
        ({"tpm": -5}, "tpm must be 1 or more"),
        ({"retention_seconds": -1}, "retention_seconds must be 0 or more"),
        ({"slow_seconds": float("nan")}, "slow_seconds must be 0 or more"),
        ({"faults": {"all": 0.1}}, "parse_faults"),
        ({"faults": {"slow": 7}}, "from 0 to 1"),
    ],
)
def test_settings_that_cannot_be_meant(settings, complaint):
    """A wrong setting is refused when it is made, with its name."""
    with pytest.raises(EmulatorMistake, match=complaint):
        Settings(**settings)


def test_a_query_does_not_matter_to_the_place():
    """Azure's api-version and the like are read over."""
    call = call_of("GET", "/openai/models?api-version=2026-01-01")

    assert Emulator().handle(call, 0).status == 200
    assert json.loads(Emulator().handle(call, 0).body)["object"] == "list"
