"""Request files of any content: mixtures, garbage, real ones and large ones."""

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.adapters.request_file import RequestDefaults, RequestFile
from orchestrator.core.families import CHAT_URL, EMBEDDINGS_URL, RESPONSES_URL, URLS
from orchestrator.errors import UserMistake

REAL_FILES = Path(__file__).parents[2] / "shared" / "data" / "requests"

WITH_MODEL = RequestDefaults(model="gpt-5-nano")

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text("abü", max_size=3), values)
    ),
    max_leaves=8,
)
extras = st.dictionaries(st.text("xyzé ", min_size=1, max_size=3), json_values, max_size=3)
blanks = st.sampled_from([b"", b" ", b"\t \r"])
ends = st.sampled_from([b"\n", b"\r\n", b" \n\n"])


@st.composite
def mixed_files(draw):
    """A file of valid lines of all kinds, and the bodies that must come out of it."""
    pieces, bodies = [draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))], []
    for number in range(draw(st.integers(1, 6))):
        extra = draw(extras)
        body = {"model": "m", draw(st.sampled_from(["input", "messages"])): draw(st.text("aü"))}
        body |= extra
        line, sent = draw(
            st.sampled_from(
                [
                    ({"custom_id": f"id {number}", "body": body}, body),
                    (body, body),
                    ({"custom_id": f"{number}"} | body, body),
                    ({"prompt": "p"} | extra, {"input": "p", "model": "default"} | extra),
                ]
            )
        )
        ascii_only = draw(st.booleans())
        pieces += [draw(blanks), json.dumps(line, ensure_ascii=ascii_only).encode(), draw(ends)]
        bodies.append(sent)
    if draw(st.booleans()):
        pieces[-1] = b""
    return b"".join(pieces), bodies


@given(mixed_files())
def test_any_mixture_of_valid_lines_comes_out_as_it_went_in(tmp_path_factory, mixture):
    """What is sent has the values that were written, whatever the line's kind and dress."""
    whole, bodies = mixture
    path = tmp_path_factory.getbasetemp() / "mixture.jsonl"
    path.write_bytes(whole)

    with RequestFile(path, RequestDefaults(model="default")) as file:
        assert file.check().requests == len(bodies)
        assert [json.loads(request.body.read()) for request in file] == bodies


MEMBERS = (
    *("custom_id", "method", "url", "body", "model", "input", "prompt", "messages", "stream"),
    *("store", "background", "n", "max_tokens", "metadata"),
)
garbage = st.lists(
    st.binary(max_size=40)
    | st.sampled_from([b"\n", b'{"prompt":', b'"\\ud800"', b"}", b"[", b"\xef\xbb\xbf", b"null"])
    | json_values.map(lambda value: json.dumps(value).encode() + b"\n")
    | st.dictionaries(
        st.sampled_from(MEMBERS),
        json_values | st.sampled_from([*URLS, "POST", {"model": "m", "input": 1e300}]),
    ).map(lambda value: json.dumps(value).encode() + b"\n"),
    max_size=4,
).map(b"".join)


@given(garbage)
@example(b"\xef\xbb\xbf[")
@example(b'{"prompt":"\\ud800","model":"m"}')
@example(b'{"url":"\\ud800"}')
@example(b'{"\\ud800":1}')
@example(b'{"input":"","model":"m","n":1e999,"max_tokens":-0}')
def test_garbage_passes_or_is_the_users_mistake(tmp_path_factory, whole):
    """Nothing in a file brings the program down, and what passes can be sent."""
    path = tmp_path_factory.getbasetemp() / "garbage.jsonl"
    path.write_bytes(whole)
    try:
        with RequestFile(path, WITH_MODEL) as file:
            summary = file.check()
            bodies = [json.loads(request.body.read()) for request in file]
    except UserMistake as mistake:
        message = str(mistake)
    else:
        message = ""
        assert summary.requests == len(bodies) > 0
    assert message.isprintable()


@pytest.mark.skipif(not REAL_FILES.is_dir(), reason="the real request files are not here")
@pytest.mark.parametrize(
    ("name", "url", "count"),
    [
        ("cookbook_parallel_10k.jsonl", EMBEDDINGS_URL, 10_000),
        ("cookbook_nightly_support_qa_10.jsonl", RESPONSES_URL, 10),
        ("genai_navirag_65_input.jsonl", CHAT_URL, 65),
        ("batchlocallm_synthetic_100.jsonl", CHAT_URL, 100),
    ],
)
def test_real_files(name, url, count):
    """Files that people published are read as they are."""
    lines = (REAL_FILES / name).read_text().splitlines()
    with RequestFile(REAL_FILES / name) as file:
        assert file.check().by_url == {url: count}
        for request, text in zip(file, lines, strict=True):
            line = json.loads(text)
            body = line.get("body", line)
            if "body" not in line:
                body.pop("metadata", None)
            assert json.loads(request.body.read()) == body
            assert request.custom_id == line.get("custom_id", f"line-{request.line}")


@pytest.mark.slow
def test_a_large_file_is_never_in_memory(tmp_path):
    """It takes 8 bytes a line and a few buffers, a fraction of the file's size."""
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for number in range(100_000):
            line = {"custom_id": f"request-{number}", "model": "m", "input": "x" * 300}
            file.write(json.dumps(line) + "\n")

    tracemalloc.start()
    with RequestFile(path) as requests:
        assert requests.check().requests == 100_000
        assert sum(1 for _ in requests) == 100_000
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most_bytes < 3 * 2**20 < path.stat().st_size / 10
