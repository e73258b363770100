"""How long an execution of a million finished requests takes to go on, and in how much memory.

    python benchmarks/resume.py --finished 1000000 --left 3

A file of requests and the journal of an execution of it are made, in which only so many at the end
are left: half of them never begun, half sent without an answer. Then `orchestrator run` goes on
with it, on an emulator in another process. `first_call_seconds` is from the start of the process to
its first call, `memory_mib` the most that it ever had. With `--changed` the same once more with a
line added to the file, so that every line of it is compared. The result is one JSON object on
standard output.
"""

import argparse
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from orchestrator.adapters.journal.rows import Rows, admission, ending
from orchestrator.adapters.request_file import RequestFile
from orchestrator.core.model import Answer, Outcome, Request, Result, Usage
from orchestrator.execution import Beginning
from orchestrator.execution.opening import open_execution
from orchestrator.jobfile import Overrides, read_job

ROWS_PER_COMMIT = 20_000
LOOK_SECONDS = 0.05
SECONDS_MAX = 300
PORT = 18_481
BODY = {
    "model": "gpt-5-nano",
    "messages": [{"role": "user", "content": "Say in a word what this is about. " * 4}],
}


def line_of(number: int) -> str:
    line = {"custom_id": f"request-{number:07}", "url": "/v1/chat/completions", "body": BODY}
    return json.dumps(line) + "\n"


def ended(number: int, request: Request) -> Result:
    return Result(
        request, Outcome.COMPLETED, Answer(200, "req_0123456789abcdef", b"{}"), None,
        Usage(120, 200, 0, 64), f"chatcmpl-{number:032}", 1, 0, 0, 3.5, 1,
    )  # fmt: skip


def fill(out: Path, file: Path, base_url: str, finished: int) -> None:
    """The journal of an execution of this file in which so many requests have ended."""
    job = read_job(file, Overrides())
    with ExitStack() as stack:
        requests = stack.enter_context(RequestFile(file, job.defaults))
        beginning = Beginning(out=out)
        opened = open_execution(stack, job, requests, f"{base_url}/", beginning)
        opened.journal.begin(opened.facts.started_at_unix)
        sent = finished + (opened.facts.requests - finished) // 2
        numbered = enumerate(opened.left, 1)
        for start in range(0, sent, ROWS_PER_COMMIT):
            count = min(ROWS_PER_COMMIT, sent - start)
            rows = Rows(float(start + count), 4 * (start + count) + 3, 0)
            for number, request in islice(numbered, count):
                put(rows, number, request, is_finished=number <= finished)
            opened.journal.write(rows)


def put(rows: Rows, number: int, request: Request, *, is_finished: bool) -> None:
    seq, at = 4 * number, float(number)
    rows.requests.append(admission(number, request, seq, at))
    rows.events.append((number, seq + 1, at, "create_sent", "{}"))
    if is_finished:
        seen = f'{{"run_id":"chatcmpl-{number:032}","status":"completed","said":"200"}}'
        rows.events.append((number, seq + 2, at, "run_created", seen))
        result = ended(number, request)
        rows.endings.append(ending(number, result, seq + 3, at, (0.0, 0.0)))


@contextmanager
def emulator() -> Iterator[str]:
    command = [sys.executable, "-m", "orchestrator", "emulator", "--port", str(PORT)]
    process = subprocess.Popen([*command, "--durations", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"serving (http://\S+)/v1", process.stdout.readline())
        assert found
        yield found[1]
    finally:
        process.terminate()
        process.wait()


def calls_served(root_url: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{root_url}/emulator/calls?limit=1") as answer:
        return len(json.load(answer)["calls"])


def go_on(folder: Path) -> dict[str, float]:
    """`orchestrator run` on what is there, on an emulator of its own; what it took."""
    with emulator() as root_url:
        words = ["run", "requests.jsonl", "--out", "out", "--base-url", f"{root_url}/v1", "-q"]
        began, first = time.perf_counter(), 0.0
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words],
            cwd=folder,
            env={**os.environ, "OPENAI_API_KEY": "sk-of-a-benchmark"},
        )
        while True:
            if not first and calls_served(root_url):
                first = time.perf_counter() - began
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            assert time.perf_counter() - began < SECONDS_MAX
            select.select([], [], [], LOOK_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
    return {
        "first_call_seconds": round(first, 2),
        "all_seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "memory_mib": round(usage.ru_maxrss / 1024),
    }


def resume(finished: int, left: int, *, changed: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, out = folder / "requests.jsonl", folder / "out"
        with file.open("w") as lines:
            lines.writelines(line_of(number) for number in range(1, finished + left + 1))
        # A fixed port: it is the server that the execution was begun on.
        began = time.perf_counter()
        fill(out, file, f"http://127.0.0.1:{PORT}/v1", finished)
        found: dict[str, Any] = {
            "made_seconds": round(time.perf_counter() - began, 1),
            "journal_mib": round((out / "journal.sqlite").stat().st_size / 2**20),
            "requests_mib": round(file.stat().st_size / 2**20),
            "same_file": go_on(folder),
        }
        if changed:
            with file.open("a") as lines:
                lines.write(line_of(finished + left + 1))
            found["changed"] = go_on(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--finished", type=int, default=1_000_000)
    parser.add_argument("--left", type=int, default=4)
    parser.add_argument("--changed", action="store_true")
    wanted = parser.parse_args()
    found = resume(wanted.finished, wanted.left, changed=wanted.changed)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
