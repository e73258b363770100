"""A disk that is full in the middle of an execution, and has room again later."""

import resource
import shutil

import pytest
from support.both_books import compare, lines_of
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
from support.small_disk import small_disk

from orchestrator.adapters.journal.ballast import BALLAST_BYTES

pytestmark = [pytest.mark.slow, pytest.mark.real_time]

REQUESTS = 300
WORDS = ("--max-in-flight", 60)
ROOM_BYTES = 32 * 2**20  # more than the journal needs, before its log is put into it


@pytest.fixture
def requests(tmp_path):
    requests = list(requests_of(REQUESTS))
    write_requests(tmp_path, requests)
    return requests


@pytest.fixture
def emulator(tmp_path):
    rules = str(write_rules(tmp_path))
    with emulator_process("--rules", rules, "--durations", "0.5") as running:
        yield running


def compared(folder, out, emulator, requests):
    """Both sides' books, when the execution has ended."""
    asked = [request["custom_id"] for request in requests]
    found = compare(asked, out, emulator.creates(), handler_calls(folder))
    assert found.wrong == []
    assert (found.missing, found.twice, found.not_completed) == (0, 0, 0)
    assert found.created_again_though_known == 0
    assert summary_of(out)["creates_lost"] == found.lost_ours
    return found


def test_a_full_disk(tmp_path, emulator, requests):
    """Exit code 3 and what to do; what was out is kept in the reserve, and nothing is lost."""
    with small_disk(tmp_path, BALLAST_BYTES + ROOM_BYTES) as disk:
        out = disk.path / "out"
        with started(tmp_path, emulator, *WORDS, out=out) as process:
            wait_until(lambda: len(emulator.creates()) > 200, process)
            disk.fill()
            _, err = process.communicate(timeout=60)
        assert process.returncode == 3, err
        assert "no room" in err or "full" in err
        assert "run the same command again" in err
        assert "a bug" not in err
        created = len(emulator.creates())
        assert created < 1.5 * REQUESTS  # a request takes one or two

        # What the end of the process made free is not left to the next: it says so at once.
        disk.fill()
        with started(tmp_path, emulator, *WORDS, out=out) as process:
            _, err = process.communicate(timeout=60)
        assert process.returncode in {2, 3}
        assert "Make room, then run the same command again" in err
        assert len(emulator.creates()) == created

        disk.make_room()
        with started(tmp_path, emulator, *WORDS, out=out) as process:
            _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        found = compared(tmp_path, out, emulator, requests)
    # What was out when the disk was full was answered, and fitted into the reserve.
    assert found.lost_ours == 0


def test_results_alone(tmp_path, emulator, requests):
    """Only results.jsonl is on a full disk: the journal keeps what can't be written there."""
    out = tmp_path / "out"
    with small_disk(tmp_path, 2**20) as disk:
        with started(tmp_path, emulator, *WORDS) as process:
            wait_until((out / "results.jsonl").exists, process)
        (out / "results.jsonl").rename(tmp_path / "results.jsonl")
        shutil.move(tmp_path / "results.jsonl", disk.path)
        (out / "results.jsonl").symlink_to(disk.path / "results.jsonl")

        with started(tmp_path, emulator, *WORDS) as process:
            wait_until(lambda: (out / "results.jsonl").stat().st_size > 20_000, process)
            disk.fill()
            _, err = process.communicate(timeout=60)
        assert process.returncode == 3, err
        assert "results.jsonl can't be written any more" in err
        assert "a bug" not in err
        lines = lines_of(out / "results.jsonl")
        assert 0 < len(lines) < REQUESTS

        disk.make_room()
        with started(tmp_path, emulator, *WORDS) as process:
            _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        compared(tmp_path, out, emulator, requests)


def test_a_limit_on_the_size_of_files(tmp_path, emulator, requests):
    """It is met as a full disk is: exit code 3, and without the limit nothing is lost."""

    def limit():
        # The reserve can just be made; the log of the journal grows beyond it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (BALLAST_BYTES, BALLAST_BYTES))

    with started(tmp_path, emulator, *WORDS, preexec_fn=limit) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "a bug" not in err

    with started(tmp_path, emulator, *WORDS) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    compared(tmp_path, tmp_path / "out", emulator, requests)
