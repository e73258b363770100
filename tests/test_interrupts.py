"""Executions that are interrupted by real signals, and gone on with: both sides' books agree."""

import signal
from time import perf_counter

import pytest
from support.both_books import Journaled, compare, lines_of
from support.executions import (
    handler_calls,
    requests_of,
    started,
    summary_of,
    wait_until,
    write_requests,
    write_rules,
)
from support.processes import emulator_process

pytestmark = [pytest.mark.slow, pytest.mark.real_time]

REQUESTS = 120
# In flight at any moment; with runs of a second most are on the server then.
WORDS = ("--max-in-flight", 40)
DURATIONS = "1.2"


@pytest.fixture
def requests(tmp_path):
    requests = list(requests_of(REQUESTS))
    write_requests(tmp_path, requests)
    return requests


@pytest.fixture
def emulator(tmp_path):
    rules = str(write_rules(tmp_path))
    with emulator_process("--rules", rules, "--durations", DURATIONS) as running:
        yield running


def go_on(folder, emulator, requests):
    """The same command until it has ended; everything must be there, once, and explained."""
    with started(folder, emulator, *WORDS) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.startswith("going on with out: ")
    asked = [request["custom_id"] for request in requests]
    found = compare(asked, folder / "out", emulator.creates(), handler_calls(folder))
    assert found.wrong == []
    assert (found.missing, found.twice, found.created_again_though_known) == (0, 0, 0)
    assert summary_of(folder / "out")["creates_lost"] == found.lost_ours
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once(tmp_path, emulator, requests, number):
    """Nothing new is created, what is out may be answered, and runs on the server are left."""
    with started(tmp_path, emulator, *WORDS) as process:
        wait_until(lambda: len(emulator.creates()) >= 60, process)
        process.send_signal(number)
        sent_at = perf_counter()
        before = len(emulator.creates())
        out, _ = process.communicate(timeout=60)
        seconds = perf_counter() - sent_at
    created = emulator.creates()

    assert process.returncode == 130
    assert seconds < 10  # docker's patience
    # Calls that were out already, at most as many as there are connections.
    assert len(created) - before <= 40
    assert not any(one["cancelled"] for one in created)
    assert "the same command, without --fresh, goes on" in out
    summary = summary_of(tmp_path / "out")
    assert summary["stopped"]["code"] == "interrupted"
    assert summary["not_started"] + sum(summary["outcomes"].values()) == REQUESTS

    found = go_on(tmp_path, emulator, requests)
    # Everything that was out was waited for.
    assert found.lost_ours == 0


def test_twice(tmp_path, emulator, requests):
    """The second signal ends it at once, and nothing is lost."""
    with started(tmp_path, emulator, *WORDS) as process:
        wait_until(lambda: len(emulator.creates()) >= 60, process)
        process.send_signal(signal.SIGINT)
        # Two in a row may arrive as one.
        sent_at = perf_counter()
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
        seconds = perf_counter() - sent_at
        _, err = process.communicate()

    assert process.returncode == 130
    assert seconds < 2
    assert "ended at once. The same command goes on" in err
    go_on(tmp_path, emulator, requests)


def test_cancel(tmp_path, emulator, requests):
    """With --on-interrupt cancel no run goes on on the server; all of them are sent again."""
    with started(tmp_path, emulator, *WORDS, "--on-interrupt", "cancel") as process:
        wait_until(lambda: len(emulator.creates()) >= 60, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    done = {line["custom_id"] for line in lines_of(tmp_path / "out/results.jsonl")}
    created = emulator.creates()
    goes_on = [
        one["run_id"]
        for one in created
        if one["key"] not in done and not one["kind"].startswith("chat")
        if not one["cancelled"] and not one["continued"]
    ]
    assert any(one["cancelled"] for one in created)
    assert goes_on == []

    with started(tmp_path, emulator, *WORDS) as process:
        _out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    asked = sorted(request["custom_id"] for request in requests)
    lines = lines_of(tmp_path / "out/results.jsonl")
    assert sorted(line["custom_id"] for line in lines) == asked
    assert not any(line.get("answers_lost") for line in lines)
    assert lines_of(tmp_path / "out/errors.jsonl") == []


def test_two_processes(tmp_path, emulator, requests):
    """The second is refused with the first one's pid, and disturbs nothing; --fresh goes beside."""
    with started(tmp_path, emulator, *WORDS) as first:
        wait_until(lambda: len(emulator.creates()) >= 20, first)
        with started(tmp_path, emulator, *WORDS) as second:
            out, err = second.communicate(timeout=60)
        assert second.returncode == 2
        assert out == ""
        assert str(first.pid) in err
        with started(tmp_path, emulator, *WORDS, "--fresh", "--max-in-flight", 1) as fresh:
            wait_until((tmp_path / "out-2/journal.sqlite").exists, fresh)
        _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    lines = lines_of(tmp_path / "out/results.jsonl")
    assert len(lines) == len({line["custom_id"] for line in lines}) == REQUESTS


def test_a_request_in_flight_whose_line_is_gone(tmp_path, emulator, requests):
    """It is refused by its name; accepted, it is forgotten, and the others go on."""
    with started(tmp_path, emulator, *WORDS) as process:
        wait_until(lambda: Journaled.read(tmp_path / "out").known.get("O-0"), process)
        process.kill()
        process.communicate()
    done = {line["custom_id"] for line in lines_of(tmp_path / "out/results.jsonl")}
    assert "O-0" not in done
    write_requests(tmp_path, requests[1:])

    with started(tmp_path, emulator, *WORDS) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "namely 1 (O-0)" in err

    with started(tmp_path, emulator, *WORDS, "--accept-changes") as process:
        _, err = process.communicate(timeout=120)
    lines = lines_of(tmp_path / "out/results.jsonl")
    assert sorted(line["custom_id"] for line in lines) == sorted(
        request["custom_id"] for request in requests[1:]
    )


def test_failures_are_sent_again_to_a_server_that_was_mended(tmp_path):
    """The same port, other rules: only what failed is sent again, and the cost counts both."""
    requests = list(requests_of(40))
    write_requests(tmp_path, requests)
    broken = (
        "[[rules]]\nmatch = 'O-[0-9]?[05]\\D'\nhttp_status = 400\n"
        + write_rules(tmp_path).read_text()
    )
    (tmp_path / "broken.toml").write_text(broken)
    with emulator_process(
        "--rules", str(tmp_path / "broken.toml"), "--durations", "0.1"
    ) as emulator:
        port = emulator.root_url.rpartition(":")[2]
        with started(tmp_path, emulator) as process:
            process.communicate(timeout=60)
    assert process.returncode == 1
    failed = [line["custom_id"] for line in lines_of(tmp_path / "out/errors.jsonl")]
    assert len(failed) == 8
    before = summary_of(tmp_path / "out")

    words = ("--rules", str(write_rules(tmp_path)), "--durations", "0.1", "--port", port)
    with emulator_process(*words) as emulator:
        with started(tmp_path, emulator, "--retry-failed") as process:
            _, err = process.communicate(timeout=60)
        sent = {one["key"] for one in emulator.creates()}

    assert process.returncode == 0, err
    assert sent == set(failed)
    results = [line["custom_id"] for line in lines_of(tmp_path / "out/results.jsonl")]
    assert sorted(results) == sorted(request["custom_id"] for request in requests)
    assert lines_of(tmp_path / "out/errors.jsonl") == []
    aside = [line["custom_id"] for line in lines_of(tmp_path / "out/errors-1.jsonl")]
    assert aside == failed
    summary = summary_of(tmp_path / "out")
    assert summary["outcomes"]["completed"] == summary["requests"] == 40
    assert summary["tokens"]["output"] > before["tokens"]["output"]
    assert summary["calls"]["create"]["by_status"]["400"] == 8
