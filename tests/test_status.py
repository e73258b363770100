"""`orchestrator status` and `orchestrator story`: what an execution's journal tells people."""

import asyncio
import json
import re

import pytest
from support.command import AT_ONCE, command_in, write_job
from support.virtual_loop import VirtualTimeLoop
from test_journal_opening import told

pytestmark = pytest.mark.real_time


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    return command_in(tmp_path, monkeypatch, capsys)


def test_an_execution_that_has_ended(command, tmp_path):
    """How many ended and how, what it cost, and that nobody is at work."""
    write_job(tmp_path / "job", ["x", "y"], AT_ONCE)
    assert command("run", "job", "--emulator", "--out", "out", "-q").code == 0

    ended = command("status", "out")
    assert ended.code == 0
    first, second, third, fourth = ended.out.splitlines()
    assert first.startswith(f"out: {tmp_path}/job/job.toml on emulator, begun ")
    assert second.startswith("not at work: the last of 1 processes wrote at ")
    assert third == "2 requests: 2 completed"
    assert re.fullmatch(r"tokens: \d+ in, \d+ out, \$0\.\d{4}", fourth)

    stands = json.loads(command("status", "out", "--json").out)
    assert stands["outcomes"] == {"completed": 2}
    assert (stands["requests"], stands["not_begun"], stands["pid"]) == (2, 0, None)

    story = command("story", "out", "line-2")
    assert story.code == 0
    what = [line.split("  ", 1)[1] for line in story.out.splitlines()]
    assert what[0] == "read from line 2 as number 2, for gpt-5-nano"
    assert what[1] == "create sent"
    assert what[2].startswith("created: ")
    assert what[-1] == "ended as completed"


def test_an_execution_that_has_not(command, tmp_path):
    """Where its requests stand, why some failed, and what happened to a line of a batch."""
    (tmp_path / "out").mkdir()
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(told(tmp_path / "out"))

    ended = command("status", "out")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[1].endswith("; the same command goes on with it")
    assert lines[2].startswith("9 requests: 1 completed, 1 failed, ")
    for part in ("2 on the server", "1 sent, answer not known", "2 to be sent", "2 with tools"):
        assert part in lines[2]
    assert lines[-1] == "  1 failed, server_error; e.g. r6: It broke."

    story = command("story", "out", "r6").out
    assert "its batch: file sent, with 3 lines" in story
    assert "  -- process 2 --\n" in story
    assert story.endswith("ended as failed: server_error: It broke.\n")


def test_what_is_not_there(command, tmp_path):
    """Another folder, or a request that nobody has heard of, is a mistake that is told."""
    write_job(tmp_path / "job", ["x"], AT_ONCE)
    assert command("run", "job", "--emulator", "--out", "out", "-q").code == 0

    ended = command("story", "out", "nobody")
    assert ended.code == 2
    assert "no request with the custom_id 'nobody'" in ended.err
    for words in (("status", "job"), ("story", "nowhere", "a")):
        ended = command(*words)
        assert ended.code == 2
        assert "journal" in ended.err
