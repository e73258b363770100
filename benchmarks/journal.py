"""What a journal costs: per request while it is written, and for reading it back at a resume.

    python benchmarks/journal.py --rate 5000 --seconds 5 --finished 1000000

Requests are told at a steady rate, as a driver tells them: admitted, a create that goes out once
this is on disk, a run, an end whose line is "written" once that is on disk. `loop_us` is what a
request costs the thread of the event loop, `all_us` what it costs the whole process, both in CPU
time and without what the pacing alone costs; `late_ms` is how long `after` took for 1 in 100.
Then a journal of so many finished requests and a few thousand unfinished ones is made and read as a
resume does. The result is one JSON object on standard output.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio

from orchestrator.adapters.clock import LoopClock
from orchestrator.adapters.journal import Journal, JournalFile
from orchestrator.adapters.journal.rows import Rows, admission, ending
from orchestrator.adapters.result_file import result_line
from orchestrator.core.entries import CreateSent
from orchestrator.core.events import RunCreated
from orchestrator.core.model import (
    Answer,
    Family,
    Outcome,
    Request,
    Result,
    RunError,
    Seen,
    Status,
    Usage,
)

BODY = json.dumps({"id": "resp_0123456789", "output": [{"text": "word " * 150}]}).encode()
TICK_SECONDS = 0.002
UNFINISHED = 5_000


@dataclass(frozen=True)
class NoBody:
    """A body that nobody asks for."""

    def read(self) -> bytes:
        return b"{}"


def request_of(number: int) -> Request:
    name = f"request-{number:07}"
    return Request(
        name,
        "/v1/responses",
        Family.RESPONSES,
        "gpt-5-mini",
        500,
        NoBody(),
        number,
        digest=b"digested",
    )


def result_of(number: int, request: Request) -> Result:
    outcome, error = Outcome.COMPLETED, None
    if number % 100 == 0:
        outcome, error = Outcome.FAILED, RunError("server_error", "The server had an error.")
    answer = Answer(200, "req_0123456789abcdef", BODY)
    usage = Usage(120, 200, 0, 64)
    return Result(request, outcome, answer, error, usage, f"resp_{number:032}", 1, 2, 0, 3.5, 1)


@dataclass
class Teller:
    """Tells a journal of requests one after the other, and counts what came back."""

    journal: Journal | None
    clock: LoopClock
    told: int = 0
    done: int = 0
    bytes_written: int = 0
    waits: list[float] = field(default_factory=list)

    def tell(self, number: int) -> None:
        self.told += 1
        request = request_of(number)
        if self.journal is None:
            result_line(result_of(number, request))
            return
        now = self.clock.now()
        self.journal.admitted(number, request, now)
        self.journal.keep(CreateSent(number), now)
        self.journal.after(partial(self.created, number, request, now))

    def created(self, number: int, request: Request, told_at: float) -> None:
        assert self.journal is not None
        now = self.clock.now()
        self.waits.append(now - told_at)
        seen = Seen(f"resp_{number:032}", Status.PENDING, "queued")
        self.journal.keep(RunCreated(number, seen), now)
        self.journal.ended(number, result_of(number, request), now)
        self.journal.after(partial(self.ended, number))

    def ended(self, number: int) -> None:
        assert self.journal is not None
        self.done += 1
        self.bytes_written += 1_000
        self.journal.written(number, self.bytes_written, 0)


async def pace(tell: Callable[[int], None], rate: int, seconds: float) -> None:
    began, number = anyio.current_time(), 0
    while (passed := anyio.current_time() - began) < seconds:
        for _ in range(int(passed * rate) - number):
            number += 1
            tell(number)
        await anyio.sleep(TICK_SECONDS)


async def cost(folder: Path | None, rate: int, seconds: float) -> dict[str, float]:
    """CPU seconds of the loop's thread and of the process, with a journal or without."""
    clock, commits = LoopClock(), 0
    file = None if folder is None else JournalFile(folder)
    journal = None
    if file is not None:
        journal = Journal(
            file, clock,
            line_of=result_line, costs_of=lambda _: (0.0, 0.0),
            sync=lambda: None, counts=lambda: b"{}", on_full=print,
        )  # fmt: skip
        write = file.write

        def counted(rows: Rows) -> bool:
            nonlocal commits
            commits += 1
            return write(rows)

        file.write = counted  # type: ignore[method-assign]  # to count them
    teller = Teller(journal, clock)
    loop, process, wall = time.thread_time(), time.process_time(), time.perf_counter()
    async with anyio.create_task_group() as group:
        if journal is not None:
            group.start_soon(journal.run)
        await pace(teller.tell, rate, seconds)
        while journal is not None and teller.done < teller.told:  # noqa: ASYNC110 - coarse is enough
            await anyio.sleep(TICK_SECONDS)
        group.cancel_scope.cancel()
    found = {
        "loop": time.thread_time() - loop,
        "process": time.process_time() - process,
        "wall": time.perf_counter() - wall,
        "told": teller.told,
        "commits": commits,
        "wait": sorted(teller.waits)[len(teller.waits) * 99 // 100] if teller.waits else 0.0,
    }
    if journal is not None:
        journal.close()
    return found


def writing(rate: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        alone = anyio.run(cost, None, rate, seconds)
        kept = anyio.run(cost, Path(name), rate, seconds)
        size = (Path(name) / "journal.sqlite").stat().st_size
    told = kept["told"]
    return {
        "requests_per_second": round(told / kept["wall"]),
        "loop_us": round((kept["loop"] / told - alone["loop"] / alone["told"]) * 1e6, 1),
        "all_us": round((kept["process"] / told - alone["process"] / alone["told"]) * 1e6, 1),
        "commits_per_second": round(kept["commits"] / kept["wall"], 1),
        "late_ms": round(kept["wait"] * 1e3, 1),
        "bytes_per_request": round(size / told),
    }


def fill(folder: Path, finished: int) -> None:
    """A journal of so many finished requests, and unfinished ones after them."""
    with JournalFile(folder) as file:
        file.begin(0.0)
        for start in range(1, finished + UNFINISHED, 10_000):
            rows = Rows(float(start), 4 * start, 0)
            for number in range(start, min(start + 10_000, finished + UNFINISHED + 1)):
                request, at = request_of(number), float(number)
                rows.requests.append(admission(number, request, 4 * number, at))
                rows.events.append((number, 4 * number + 1, at, "create_sent", "{}"))
                seen = f'{{"run_id":"resp_{number:032}","status":"pending","said":"queued"}}'
                rows.events.append((number, 4 * number + 2, at, "run_created", seen))
                if number <= finished:
                    result = result_of(number, request)
                    end = ending(number, result, 4 * number + 3, at, (0.0, 0.0))
                    rows.endings.append(end)
            file.write(rows)


def reading(finished: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name), finished)
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found: dict[str, float] = {}
        began = time.perf_counter()
        with JournalFile(Path(name)) as file:
            steps: dict[str, Callable[[], object]] = {
                "lines": lambda: sum(1 for _ in file.lines()),
                "digests": lambda: sum(1 for _ in file.digests()),
                "unfinished": lambda: len(file.unfinished()),
                "replay": lambda: sum(1 for _ in file.replay(0.0)),
                "ended_groups": file.ended_groups,
                "numbers": lambda: (file.number_max, file.batch_number_min, file.group_max),
            }
            for step, do in steps.items():
                step_began = time.perf_counter()
                do()
                found[f"{step}_seconds"] = round(time.perf_counter() - step_began, 2)
        found["all_seconds"] = round(time.perf_counter() - began, 2)
        after_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found["more_mib"] = round((after_kib - before_kib) / 1024, 1)
        found["file_mib"] = round((Path(name) / "journal.sqlite").stat().st_size / 2**20)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--finished", type=int, default=1_000_000)
    wanted = parser.parse_args()

    result = {
        "writing": writing(wanted.rate, wanted.seconds),
        "reading": reading(wanted.finished) if wanted.finished else {},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
