"""The same command again: after a failure, after an end, with another input or another server."""

import json

import pytest
from support.command import command_in, json_lines
from support.processes import emulator_process

RULES = """
[[rules]]
match = "^fails once"
http_status = 400
error_code = "invalid_prompt"
times = 1

[[rules]]
match = "^always fails"
http_status = 400
error_code = "invalid_prompt"
"""

pytestmark = pytest.mark.real_time


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    rules = tmp_path_factory.mktemp("emulator") / "rules.toml"
    rules.write_text(RULES)
    with emulator_process("--durations", "0.02", "--rules", str(rules)) as running:
        yield running


@pytest.fixture
def run(emulator, tmp_path, monkeypatch, capsys):
    """`orchestrator run` on the file of requests, into `out` unless another folder is given."""
    command = command_in(tmp_path, monkeypatch, capsys)

    def running(*words, source="requests.jsonl", out="out", base_url=emulator.base_url):
        where = () if out is None else ("--out", out)
        return command("run", source, "--base-url", base_url, *where, *words)

    return running


@pytest.fixture
def sent(emulator):
    """The custom_ids of what was created at the emulator since the last time it was asked."""
    seen = len(emulator.creates())

    def since():
        nonlocal seen
        new = emulator.creates(after=seen)
        seen += len(new)
        return sorted(each["key"] for each in new)

    return since


@pytest.fixture
def write(tmp_path):
    """Writes the file of requests: what each asks for, by its custom_id, in this order."""

    def writing(**texts):
        lines = []
        for custom_id, text in texts.items():
            body = {
                "model": "gpt-5-nano",
                "messages": [{"role": "user", "content": text}],
                "metadata": {"custom_id": custom_id},
            }
            line = {"custom_id": custom_id, "url": "/v1/chat/completions", "body": body}
            lines.append(json.dumps(line) + "\n")
        (tmp_path / "requests.jsonl").write_text("".join(lines))

    return writing


def ids_in(path):
    return sorted(line["custom_id"] for line in json_lines(path))


def test_only_what_failed_is_sent_again(run, sent, write, tmp_path):
    """One line each in the end; the errors of before are put aside, and the cost counts both."""
    write(a="hello", b="fails once", c="always fails")
    assert run().code == 1
    assert sent() == ["a"]
    before = json.loads((tmp_path / "out/summary.json").read_text())

    ended = run("--retry-failed")

    assert ended.code == 1
    assert ended.out.startswith("going on with out: 1 of 3 requests have ended, ")
    assert sent() == ["b"]
    assert ids_in(tmp_path / "out/results.jsonl") == ["a", "b"]
    assert ids_in(tmp_path / "out/errors.jsonl") == ["c"]
    assert ids_in(tmp_path / "out/errors-1.jsonl") == ["b", "c"]
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["outcomes"] == {**before["outcomes"], "completed": 2, "failed": 1}
    assert summary["calls"]["create"] == {"total": 5, "by_status": {"200": 2, "400": 3}}
    assert summary["tokens"]["output"] > before["tokens"]["output"]


@pytest.mark.slow
def test_what_failed_is_sent_again_without_saying_where(run, sent, write, tmp_path):
    """The last execution of this source is meant, also where it is finished."""
    write(a="hello", b="fails once now")
    assert run(out=None).code == 1
    assert run("--retry-failed", out=None).code == 0
    assert sent() == ["a", "b"]
    (folder,) = (tmp_path / "executions").iterdir()

    # Nothing has failed now, so nothing is put aside.
    assert run("--retry-failed", out=None).code == 0
    assert sorted(path.name for path in folder.glob("errors*")) == [
        "errors-1.jsonl",
        "errors.jsonl",
    ]


@pytest.mark.slow
def test_there_is_nothing_to_send_again(run, write):
    """Without an execution before it there is nothing that failed."""
    write(a="hello")
    ended = run("--retry-failed", out=None)
    assert ended.code == 2
    assert "Nothing was sent" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize(("text", "code"), [("hello", 0), ("always fails", 1)])
def test_a_finished_execution_has_nothing_left(run, sent, write, text, code):
    """With its folder given, it says so and exits by its outcomes; nothing is sent again."""
    write(a=text, b="hello")
    assert run().code == code
    sent()
    ended = run()
    assert ended.code == code
    assert ended.out.startswith("out has ended, and nothing is left to do; ")
    assert sent() == []


@pytest.mark.slow
def test_without_a_folder_a_finished_one_starts_anew(run, sent, write, tmp_path):
    """The command of every night: a new folder, and everything is sent."""
    write(a="hello")
    assert [run(out=None).code for _ in range(2)] == [0, 0]
    assert sent() == ["a", "a"]
    assert len(list((tmp_path / "executions").iterdir())) == 2


@pytest.mark.slow
def test_fresh_is_never_over_the_old_one(run, sent, write, tmp_path):
    """It gets a folder beside it, and the old one stays as it was."""
    write(a="hello")
    run()
    before = (tmp_path / "out/results.jsonl").read_bytes()
    ended = run("--fresh")
    assert ended.code == 0
    assert "out-2" in ended.out
    assert ids_in(tmp_path / "out-2/results.jsonl") == ["a"]
    assert (tmp_path / "out/results.jsonl").read_bytes() == before
    assert sent() == ["a", "a"]


def test_a_changed_line_is_refused(run, sent, write, tmp_path):
    """It is named by its line and custom_id; accepted, what was sent stays as it was sent."""
    write(a="hello", b="hello")
    run()
    sent()
    results = (tmp_path / "out/results.jsonl").read_bytes()
    write(a="hello", b="good bye")

    ended = run()

    assert ended.code == 2
    assert "namely 2 (b)" in ended.err
    assert "--accept-changes" in ended.err
    assert run("--accept-changes").code == 0
    assert run().code == 0
    assert sent() == []
    assert (tmp_path / "out/results.jsonl").read_bytes() == results


def test_lines_may_move_and_be_added(run, sent, write, tmp_path):
    """What was sent is known by its custom_id; only what is new is sent."""
    write(a="hello", b="good bye")
    run()
    sent()
    write(b="good bye", c="new", a="hello")
    assert run().code == 0
    assert sent() == ["c"]
    assert ids_in(tmp_path / "out/results.jsonl") == ["a", "b", "c"]


@pytest.mark.slow
def test_lines_that_are_done_may_go(run, sent, write, tmp_path):
    """Their results stay, and they still count."""
    write(a="hello", b="good bye")
    run()
    sent()
    write(b="good bye", c="new")
    assert run().code == 0
    assert sent() == ["c"]
    assert json.loads((tmp_path / "out/summary.json").read_text())["requests"] == 3


def test_another_server_is_refused(run, sent, write):
    """What is known of runs there means nothing here."""
    write(a="hello")
    run()
    sent()
    ended = run(base_url="http://127.0.0.1:9/v1")
    assert ended.code == 2
    assert "another server: " in ended.err
    assert "--fresh" in ended.err


@pytest.mark.slow
def test_another_way_is_refused(run, sent, write):
    """What was to go by batch goes by batch."""
    write(a="hello")
    run()
    sent()
    ended = run("--via", "batch")
    assert ended.code == 2
    assert "another way (--via): the usual one, not batch" in ended.err
    assert sent() == []


@pytest.mark.slow
def test_another_source_is_refused(run, sent, write, tmp_path):
    """Its folder is not given to requests of another file."""
    write(a="hello")
    run()
    sent()
    (tmp_path / "requests.jsonl").rename(tmp_path / "others.jsonl")
    ended = run(source="others.jsonl")
    assert ended.code == 2
    assert "another source: " in ended.err
    assert sent() == []


def test_other_lines_in_the_place_of_those_that_are_done(run, sent, write, tmp_path):
    """A line is known by its custom_id and not by its number."""
    write(a="hello", b="good bye")
    run()
    sent()
    write(c="one", d="two", e="three")
    assert run().code == 0
    assert sent() == ["c", "d", "e"]
    assert ids_in(tmp_path / "out/results.jsonl") == ["a", "b", "c", "d", "e"]


@pytest.mark.slow
def test_a_line_that_failed_may_go(run, sent, write, tmp_path):
    """It can't be sent again, and the execution comes to its end without it."""
    write(a="hello", b="fails once then", c="always fails")
    run()
    sent()
    write(a="hello", b="fails once then")
    assert run("--retry-failed").code == 1  # c has failed, and stays so
    assert sent() == ["b"]
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["requests"], summary["not_started"]) == (3, 0)


@pytest.mark.slow
def test_another_model_is_told_as_what_it_is(run, sent, write, tmp_path):
    """The file is the same; what completes its lines is not."""
    (tmp_path / "requests.jsonl").write_text('{"prompt": "hello"}\n')
    assert run("--model", "gpt-5-nano").code == 0
    sent()
    ended = run("--model", "gpt-5-mini")
    assert ended.code == 2
    assert "by another --model or --url" in ended.err
    assert sent() == []


@pytest.mark.slow
def test_files_that_were_damaged_are_left_as_they_are(run, sent, write, tmp_path):
    """A refusal destroys nothing: who puts the file back goes on."""
    write(a="hello", b="good bye")
    run()
    sent()
    write(a="hello", b="good bye", c="new")
    results = tmp_path / "out/results.jsonl"
    whole = results.read_bytes()
    results.write_bytes(whole[:-1])
    assert run().code == 2
    assert results.read_bytes() == whole[:-1]
    results.unlink()
    assert run().code == 2
    assert not results.exists()
    results.write_bytes(whole)
    assert run().code == 0
    assert sent() == ["c"]


@pytest.mark.slow
def test_a_last_execution_that_cannot_be_read_is_not_passed_over(run, sent, write, tmp_path):
    """It may be the one to be gone on with: starting anew would pay for everything again."""
    write(a="hello")
    run(out=None)
    sent()
    (folder,) = (tmp_path / "executions").iterdir()
    (folder / "journal.sqlite").write_bytes(b"garbage" * 100)
    ended = run(out=None)
    assert ended.code == 2
    assert str(folder.name) in ended.err
    assert sent() == []
    assert run("--fresh", out=None).code == 0


@pytest.mark.slow
def test_errors_that_were_put_aside_may_be_removed(run, sent, write, tmp_path):
    """They are put aside once for each time that what failed is sent again."""
    write(a="hello", c="always fails")
    run()
    run("--retry-failed")
    (tmp_path / "out/errors-1.jsonl").unlink()
    assert run().code == 1
    assert ids_in(tmp_path / "out/errors.jsonl") == ["c"]
    (tmp_path / "out/errors-2.jsonl").write_text("mine")
    run("--retry-failed")
    assert (tmp_path / "out/errors-2.jsonl").read_text() == "mine"
    assert ids_in(tmp_path / "out/errors-3.jsonl") == ids_in(tmp_path / "out/errors.jsonl") == ["c"]
