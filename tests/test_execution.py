"""Executions as processes: interrupts, full disks, closed streams, a terminal, memory."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import pytest
import structlog
from support.processes import emulator_process

from orchestrator.adapters.journal import JournalReader
from orchestrator.apis.transport import CallRecord
from orchestrator.core.failures import Cause
from orchestrator.execution.call_watch import CALLS_UNANSWERED_MAX, CallWatch
from orchestrator.ports import CallKind

MODEL = '[defaults]\nmodel = "gpt-5-nano"\n'
QUICK = f"{MODEL}[emulator]\nqueue_seconds = 0\nrun_seconds = 0.05\n"
FOR_EVER = f"{MODEL}[emulator]\nqueue_seconds = 0\nrun_seconds = 3600\n"

COMMAND = [sys.executable, "-m", "orchestrator", "run"]

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")

SECONDS_MAX = 30.0  # for what takes a second or two on an idle machine


def write_job(folder, requests, toml=QUICK, tools=None):
    """A job folder with so many requests."""
    folder.mkdir()
    (folder / "job.toml").write_text(toml)
    lines = (json.dumps({"prompt": f"prompt {n}"}) + "\n" for n in range(requests))
    (folder / "requests.jsonl").write_text("".join(lines))
    if tools is not None:
        (folder / "tools.py").write_text(tools)
    return folder


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@contextmanager
def running(folder, *words, **options):
    """`orchestrator run` with these words, in a process of its own, gone afterwards."""
    command = [*COMMAND, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    environment = {**os.environ, "OPENAI_API_KEY": "sk-of-a-test"}
    process = subprocess.Popen(command, cwd=folder, text=True, env=environment, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process):
    """What it printed, once it has ended."""
    out, err = process.communicate(timeout=SECONDS_MAX)
    assert "Traceback" not in (out or "") + (err or "")
    return out, err


def wait_until(condition, process):
    """Ask again and again; asking takes its time, so nothing sleeps."""
    until = perf_counter() + SECONDS_MAX
    while not condition():
        assert process.poll() is None, process.communicate()
        assert perf_counter() < until


def insist(process, number):
    """Send the signal until the process has ended: two in a row may arrive as one."""
    until = perf_counter() + SECONDS_MAX
    while process.poll() is None:
        assert perf_counter() < until
        process.send_signal(number)


def shell(folder, script):
    """What became of a script."""
    words = ["bash", "-c", script]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS_MAX
    )
    assert "Traceback" not in done.stderr
    return done


class LogLines:
    """The output of a logger, as (event, level)."""

    def __init__(self):
        self.events = []

    def take(self, logger, method, fields):
        self.events.append((fields["event"], method))
        raise structlog.DropEvent


class TestServerThatIsNotThere:
    """A person is told when no call finds a server, instead of waiting for minutes."""

    def watch(self):
        """A watch, what it warns of, and what it logs."""
        warned, log = [], LogLines()
        logger = structlog.wrap_logger(None, processors=[log.take])
        return CallWatch(logger, warned.append, "gone.example:1"), warned, log

    def call(self, status):
        return CallRecord("id", CallKind.CREATE, status, 0.1)

    def test_it_is_told_once(self):
        """After a few calls that no server answered, in one sentence; and in the log."""
        watch, warned, log = self.watch()
        for _ in range(CALLS_UNANSWERED_MAX - 1):
            watch.ended(self.call(Cause.NOT_SENT.value))
        assert warned == []
        for _ in range(10):
            watch.ended(self.call(Cause.NOT_SENT.value))
        (told,) = warned
        assert told.startswith("no connection to gone.example:1 in 4 calls")
        assert log.events.count(("server.unreachable", "warning")) == 1

    @pytest.mark.parametrize("status", ["200", "500", Cause.TIMED_OUT.value])
    def test_a_server_that_was_there_is_not_missed(self, status):
        """Once any call got through, failing connections are ordinary failures."""
        watch, warned, _ = self.watch()
        watch.ended(self.call(status))
        for _ in range(10):
            watch.ended(self.call(Cause.NOT_SENT.value))
        assert warned == []


def kept_ids(folder):
    """The ids of the runs that the journal knows of."""
    with JournalReader.open(folder) as journal:
        return {entry.seen.run_id for _, entry in journal.entries() if hasattr(entry, "seen")}


@pytest.mark.slow
@needs_linux
class TestInterrupts:
    """The first signal ends an execution in good order, the second at once."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_once(self, tmp_path, number):
        """130 in about a second; the journal has the ids of all that was in flight."""
        write_job(tmp_path / "job", 50)
        with (
            emulator_process("--durations", "3600") as emulator,
            running(
                tmp_path,
                "job",
                "--out",
                "out",
                "--max-in-flight",
                20,
                "--base-url",
                emulator.base_url,
            ) as process,
        ):
            # Calls may be out when the signal comes; their answers are lost. So wait for checks.
            wait_until(lambda: len(emulator.books()["checks"]) == 20, process)
            sent_at = perf_counter()
            process.send_signal(number)
            out, err = ended(process)
            seconds = perf_counter() - sent_at
            created = set(emulator.books()["checks"])

        assert process.returncode == 130
        assert seconds < 3
        assert out.startswith("50 requests: 20 stopped, 30 not started (")
        assert err.splitlines()[-1].startswith("end: job ")
        assert kept_ids(tmp_path / "out") == created
        assert number.name in err
        for name in ("results.jsonl", "errors.jsonl"):
            assert (tmp_path / "out" / name).read_bytes() == b""
        summary = json.loads((tmp_path / "out/summary.json").read_text())
        assert summary["stopped"]["code"] == "interrupted"
        assert summary["outcomes"]["stopped"] == summary["in_flight_max"] == 20
        assert summary["not_started"] == 30

    BLOCKING = (
        "import time\nfrom pathlib import Path\n\n\n"
        '{kind} wait() -> str:\n    """Wait."""\n    Path("called").touch()\n'
        '    time.sleep(3600)\n    return ""\n'
    )
    RULES = '[[rules]]\ntool_calls = [{ name = "wait", arguments = {} }]\n'

    def tool_job(self, tmp_path, kind):
        """A job whose only tool never returns; the tool makes a file when it is called."""
        toml = f'{MODEL}[emulator]\nrules = "rules.toml"\nqueue_seconds = 0\nrun_seconds = 0\n'
        job = write_job(tmp_path / "job", 1, toml, self.BLOCKING.format(kind=kind))
        (job / "rules.toml").write_text(self.RULES)
        return tmp_path / "called"

    def test_once_with_a_thread_that_hangs(self, tmp_path):
        """A tool's thread that can't be stopped does not hold the process."""
        called = self.tool_job(tmp_path, "def")
        with running(tmp_path, "job", "--emulator", "--out", "out") as process:
            wait_until(called.exists, process)
            process.send_signal(signal.SIGINT)
            out, _ = ended(process)
        assert process.returncode == 130
        assert out.startswith("1 requests: 1 stopped (")
        (run_id,) = kept_ids(tmp_path / "out")
        assert run_id.startswith("resp_")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_twice_when_the_loop_is_blocked(self, tmp_path, number):
        """Even where a tool blocks the whole loop, the second signal ends it at once."""
        called = self.tool_job(tmp_path, "async def")
        with running(tmp_path, "job", "--emulator", "--out", "out") as process:
            wait_until(called.exists, process)
            insist(process, number)
            out, err = ended(process)
        assert process.returncode == 130
        assert out == ""
        assert err.splitlines()[-1].startswith("orchestrator: interrupted again")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_before_anything_is_sent(self, tmp_path, number):
        """While the input is checked one signal is enough: 130, one line, no folder."""
        tools = 'from pathlib import Path\nPath("loaded").touch()\ndef f() -> int:\n    """F."""\n'
        write_job(tmp_path / "job", 300_000, FOR_EVER, tools)
        with running(tmp_path, "job", "--emulator") as process:
            wait_until((tmp_path / "loaded").exists, process)
            process.send_signal(number)
            out, err = ended(process)
        assert (process.returncode, out) == (130, "")
        assert err == "orchestrator: interrupted. Nothing was sent.\n"
        assert not (tmp_path / "executions").exists()


@pytest.mark.slow
@needs_linux
def test_a_long_file_is_never_in_memory(tmp_path):
    """300,000 lines of 400 bytes: checked and begun within the memory that any job takes."""
    job = write_job(tmp_path / "job", 0, FOR_EVER)
    with (job / "requests.jsonl").open("w") as file:
        file.writelines(f'{{"prompt": "{n} {"x" * 400}"}}\n' for n in range(300_000))
    words = ("job", "--out", "out", "--max-in-flight", 100)
    with (
        emulator_process("--durations", "3600") as emulator,
        running(tmp_path, *words, "--base-url", emulator.base_url) as process,
    ):
        wait_until(lambda: len(emulator.books()["checks"]) == 100, process)
        status = Path(f"/proc/{process.pid}/status").read_text()
        (peak,) = map(int, re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE))
        process.send_signal(signal.SIGINT)
        ended(process)
    assert process.returncode == 130
    assert peak < 130_000  # in kilobytes; the file has 120,000, a small job takes about 75,000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirections", "code"),
    [
        (">&-", 0),
        ("2>&-", 0),
        (">/dev/full", 0),
        ("2>/dev/full", 0),
        ("| head -0", 0),
        ("2>&1 >/dev/null | head -0", 0),
        ("--nonsense 2>&-", 2),
        ("--nonsense 2>/dev/full", 2),
    ],
)
def test_streams_that_take_nothing(tmp_path, redirections, code):
    """A closed or full stream is nobody's mistake: the exit code tells of the requests."""
    write_job(tmp_path / "job", 2)
    words = shlex.join([*COMMAND, "job", "--emulator", "--out", "out"])
    done = shell(tmp_path, f"set -o pipefail; {words} {redirections}")
    assert done.returncode == code
    assert "Exception ignored" not in done.stderr
    assert "a bug" not in done.stderr + done.stdout
    assert code != 0 or len(json_lines(tmp_path / "out/results.jsonl")) == 2


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize("signals", [1, 2])
def test_a_terminal_is_left_as_it_was(monkeypatch, tmp_path, signals):
    """The live display hides the cursor and shows it again, also after Ctrl-C."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    kind = "def" if signals == 1 else "async def"
    called = TestInterrupts().tool_job(tmp_path, kind)
    words = ("job", "--emulator", "--out", "out")
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
    monkeypatch.setenv("TERM", "xterm")
    with running(tmp_path, *words, **streams) as process:
        wait_until(called.exists, process)
        if signals == 1:
            process.send_signal(signal.SIGINT)
            process.wait(SECONDS_MAX)
        else:
            insist(process, signal.SIGINT)
        assert termios.tcgetattr(theirs) == before
        os.close(theirs)
        shown = everything(ours)
    assert process.returncode == 130
    assert "Traceback" not in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert "waiting" in shown


def everything(descriptor):
    """What was written to a terminal whose other end is closed."""
    pieces = []
    try:
        while piece := os.read(descriptor, 65_536):
            pieces.append(piece)
    except OSError:  # Linux says so when there is no more
        pass
    os.close(descriptor)
    return b"".join(pieces).decode()
