"""`orchestrator run` as a person or a script meets it: exit codes, messages, files."""

import json
import stat

import pytest
from support.command import (
    AT_ONCE,
    BACKGROUND,
    GOOD,
    KEY,
    Ended,
    assert_told_in_two_lines,
    command_in,
    json_lines,
    write_job,
)

from orchestrator.execution import folder as folders
from orchestrator.execution.running import Execution
from orchestrator.version import __version__

pytestmark = pytest.mark.real_time


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    return command_in(tmp_path, monkeypatch, capsys)


@pytest.fixture
def emulator(emulator_with_rules):
    return emulator_with_rules


SUMMARY_FIELDS = {
    *("source", "started_at", "version", "wall_seconds", "requests", "not_started", "outcomes"),
    *("calls", "checks_per_run", "detection_delay_seconds", "http_429", "retries", "creates_lost"),
    *("turns", "tool_calls", "tokens", "cost_usd", "cost_note", "in_flight_max", "tasks_max"),
    *("failures", "stopped"),
    *("tool_failures", "batches", "budget", "webhooks"),
}

ROUTES = {"POST /v1/responses": "create", "GET /v1/responses/{id}": "check"}


# How an execution ends.


@pytest.mark.parametrize(
    "words",
    ["--rpm 1e308", "--tpm 1e308", "--deadline inf", "--connections 1", "--max-in-flight 1"],
)
def test_odd_numbers_that_can_be_meant(command, tmp_path, words):
    """Numbers at the edge of their range work."""
    write_job(tmp_path / "job", ["x", "y"])
    ended = command("run", "job", "--emulator", *words.split())
    assert (ended.code, ended.out.splitlines()[0][:24]) == (0, "2 requests: 2 completed ")


def test_one_that_fails_makes_it_one(command, emulator, tmp_path):
    """Exit code 1, the others complete, and the failure is told with an example."""
    write_job(tmp_path / "job", ["x", "fail", "y"], BACKGROUND)
    ended = command("run", "job", "--base-url", emulator.base_url, "--out", "out")
    assert ended.code == 1
    told = ended.out.splitlines()
    assert told[0].startswith("3 requests: 2 completed, 1 failed (")
    assert told[1].startswith("  1 failed, invalid_prompt; e.g. line-2: ")
    assert told[2:] == ["output: out"]
    (failed,) = json_lines(tmp_path / "out/errors.jsonl")
    assert (failed["custom_id"], failed["outcome"]) == ("line-2", "failed")
    assert failed["run_id"].startswith("resp_")


@pytest.mark.parametrize(
    ("prompt", "code", "cure"),
    [
        ("refuse", "invalid_api_key", "Look at OPENAI_API_KEY"),
        ("spent", "insufficient_quota", "Look at the account's plan"),
    ],
)
def test_a_refused_key_and_an_empty_account_stop_it(
    command, emulator, tmp_path, prompt, code, cure
):
    """Exit code 3 after exactly one call, with the cure; also when it is quiet."""
    write_job(tmp_path / "job", [f"{prompt} {n}" for n in range(20)])
    before = emulator.books()["calls_served"]
    ended = command("run", "job", "--base-url", emulator.base_url, "--quiet", "--out", "out")
    assert ended.code == 3
    assert_told_in_two_lines(ended)
    assert cure in ended.err
    assert emulator.books()["calls_served"] == before + 1
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["stopped"]["code"] == code
    assert summary["outcomes"]["stopped"] + summary["not_started"] == 20


def test_what_comes_out_is_whole_and_agrees_with_the_books(command, emulator, tmp_path):
    """Every id once, files for the user alone, every number there, and both sides' books agree."""
    same = {"url": "/v1/responses", "body": {"model": "gpt-5-nano", "input": "x"}}
    lines = [{"custom_id": f"id-{n}", **same} for n in range(20)]
    fails = {"url": "/v1/responses", "body": {"model": "gpt-5-nano", "input": "fail"}}
    write_job(tmp_path / "job", [*lines, {"custom_id": "id-20", **fails}])
    before = len(emulator.calls())
    ended = command("run", "job", "--base-url", emulator.base_url, "--out", "out")
    out = tmp_path / "out"
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("end: job 21 of 21 (100 %)")

    results, errors = json_lines(out / "results.jsonl"), json_lines(out / "errors.jsonl")
    found = [line["custom_id"] for line in results + errors]
    assert sorted(found) == sorted(f"id-{n}" for n in range(21))
    assert [line["custom_id"] for line in errors] == ["id-20"]

    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()}
    names = ("results.jsonl", "errors.jsonl", "summary.json", "log.jsonl")
    names += ("journal.sqlite", "journal.lock")
    assert modes == dict.fromkeys(names, 0o600)

    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) == SUMMARY_FIELDS
    assert set(summary["detection_delay_seconds"]) == {"p50", "p95", "max"}
    served = emulator.calls()[before:]
    kinds = [ROUTES[call["route"]] for call in served]
    assert kinds.count("create") == summary["calls"]["create"]["total"] == 21
    assert kinds.count("check") == summary["calls"]["check"]["total"]
    assert summary["checks_per_run"] == round(kinds.count("check") / 21, 3)
    assert summary["http_429"] == summary["retries"] == summary["not_started"] == 0
    assert summary["version"] == __version__
    assert summary["stopped"] is None


def test_the_log_tells_what_happened_and_nothing_private(command, emulator, tmp_path):
    """JSON lines with dotted names and every call by its id; no key, no prompt, no answer."""
    write_job(tmp_path / "job", ["canary-of-the-prompt", "fail canary-of-the-prompt"], BACKGROUND)
    words = ("--base-url", emulator.base_url, "--out", "out", "--log-level", "debug")
    before = len(emulator.calls())
    ended = command("run", "job", *words)
    assert ended.code == 1
    lines = json_lines(tmp_path / "out/log.jsonl")
    assert all("." in line["event"] and line["timestamp"] and line["level"] for line in lines)
    logged = {line["call_id"] for line in lines if line["event"] == "call.ended"}
    assert logged == {call["client_request_id"] for call in emulator.calls()[before:]}
    said = (tmp_path / "out/log.jsonl").read_text() + ended.out + ended.err
    assert "canary" not in said
    assert KEY not in (tmp_path / "out/summary.json").read_text()


def test_quiet_is_silent(command, tmp_path):
    """--quiet prints neither progress nor closing lines."""
    write_job(tmp_path / "job", ["x"])
    assert command("run", "job", "--emulator", "--quiet") == Ended(0, "", "")


def test_the_emulator_asks_no_proxy(command, monkeypatch, tmp_path):
    """A proxy in the environment does not come between us and our own emulator."""
    write_job(tmp_path / "job", ["x"])
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert command("run", "job", "--emulator").code == 0


def test_a_base_url_may_end_in_a_slash(command, emulator, monkeypatch, tmp_path):
    """OPENAI_BASE_URL is taken with and without its last slash."""
    write_job(tmp_path / "job", ["x"])
    monkeypatch.setenv("OPENAI_BASE_URL", f"{emulator.base_url}/")
    assert command("run", "job").code == 0


# Where the output goes when nobody says.


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("job", "job"),
        ("my job\n(new)", "my_job_new_"),
        (".hidden", "hidden"),
        ("..--", "job"),
        ("ü" * 100, "ü" * 48),
    ],
)
def test_the_output_folder_is_named_after_the_job(command, monkeypatch, tmp_path, folder, name):
    """Any folder's name gives a safe one below executions/, whatever job.toml calls the job."""
    write_job(tmp_path / folder, ["x"], f'name = "../../elsewhere"\n{AT_ONCE}')
    monkeypatch.setattr(folders, "unix_now", lambda: 0.0)
    ended = command("run", tmp_path / folder, "--emulator")
    assert ended.code == 0
    (made,) = (tmp_path / "executions").iterdir()
    assert made.name[: -len("-19700101-000000")] == name
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert ended.out.endswith(f"output: executions/{made.name}\n")


def test_executions_in_the_same_second_do_not_meet(command, monkeypatch, tmp_path):
    """Each gets a folder of its own, numbered."""
    requests = tmp_path / "requests.jsonl"
    requests.write_bytes(GOOD)
    monkeypatch.setattr(folders, "unix_now", lambda: 0.0)
    for _ in range(3):
        assert command("run", requests, "--emulator", "-q").code == 0
    made = sorted(path.name for path in (tmp_path / "executions").iterdir())
    first = made[0]
    assert made == [first, f"{first}-2", f"{first}-3"]
    assert first.startswith("requests-")


# Words about words.


def test_version_and_help(command):
    """--version tells the version, -h the commands and options; both end with 0."""
    assert command("--version") == Ended(0, f"orchestrator {__version__}\n", "")
    assert "run" in command("-h").out
    shown = command("run", "-h")
    assert shown.code == 0
    assert "--max-in-flight" in shown.out
    assert "130 interrupted" in shown.out


def test_no_words_at_all(command):
    """A bare `orchestrator` shows what there is, and counts as a mistake."""
    ended = command()
    assert ended.code == 2
    assert "emulator" in ended.out + ended.err


def test_a_bug_is_told_in_a_line(command, monkeypatch, tmp_path):
    """An error that nobody thought of is a line with its innermost reason; 3, not 1 or 2."""
    write_job(tmp_path / "job", ["x"])
    broken = ExceptionGroup("outer", [ExceptionGroup("inner", [ZeroDivisionError("by zero")])])

    def breaking(*_, **__):
        raise broken

    monkeypatch.setattr(Execution, "run", breaking)
    ended = command("run", "job", "--emulator")
    assert ended.code == 3
    assert_told_in_two_lines(ended)
    assert "a bug of the program: ZeroDivisionError: by zero." in ended.err
