"""What the journal costs of the throughput: the same requests with it and without, in turn.

    python benchmarks/journaling.py --requests 3000 --rounds 5

An emulator in a process of its own answers at once; results are written to their files either way,
as `orchestrator run` writes them. `direct` are chat completions, one call each; `background` are
responses that are looked at. What counts is requests per second, the median of all rounds, and
`cost_part`, the part of the throughput that the journal takes; below 0 it is faster with it.
`cost_part_of_best` is of the quickest rounds, `cpu_part` of the CPU time of the engine's process:
both are disturbed less by what else the machine does. The result is one JSON object on standard
output.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from orchestrator import Orchestrator
from orchestrator.adapters.clock import LoopClock
from orchestrator.adapters.journal import Journal, JournalFile
from orchestrator.adapters.result_file import ResultFiles, result_line
from orchestrator.apis.client import make_local_client
from orchestrator.wiring import Keeping

KINDS = {"direct": "/v1/chat/completions", "background": "/v1/responses"}
WARM_UP = 200


class Took(NamedTuple):
    """What a round took, in seconds."""

    wall: float
    cpu: float


@contextmanager
def emulator() -> Iterator[str]:
    command = [sys.executable, "-m", "orchestrator", "emulator", "--port", "0"]
    process = subprocess.Popen([*command, "--durations", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"serving (http://\S+)  ", process.stdout.readline())
        assert found
        yield found[1]
    finally:
        process.terminate()
        process.wait()


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def run(base_url: str, kind: str, requests: int, *, with_journal: bool) -> Took:
    """Run so many requests to their end, from the first call on."""
    with tempfile.TemporaryDirectory() as name, ResultFiles(Path(name)) as results:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(make_local_client(base_url))
            journal = journal_in(Path(name), results) if with_journal else None
            keeping = Keeping() if journal is None else Keeping(journal=journal)
            orchestrator = await stack.enter_async_context(
                Orchestrator(
                    client, model="gpt-5-mini", max_in_flight=500, url=KINDS[kind], keeping=keeping
                )
            )
            prompts = ({"prompt": f"say {n}"} for n in range(requests))
            began, cpu = time.perf_counter(), cpu_seconds()
            async for result in orchestrator.run_many(prompts):
                assert result.outcome == "completed", result
                results.record(result)
                if journal is not None:
                    journal.written(result.number, *results.sizes)
            took = Took(time.perf_counter() - began, cpu_seconds() - cpu)
        if journal is not None:
            journal.close()
        assert results.results_count == requests
    return took


def journal_in(folder: Path, results: ResultFiles) -> Journal:
    return Journal(
        JournalFile(folder), LoopClock(),
        line_of=result_line, costs_of=lambda _: (0.0, 0.0),
        sync=results.sync, counts=lambda: b"{}", on_full=print,
    )  # fmt: skip


def measure(kind: str, requests: int, rounds: int) -> dict[str, Any]:
    took: dict[bool, list[Took]] = {True: [], False: []}
    with emulator() as base_url:
        anyio.run(partial(run, base_url, kind, WARM_UP, with_journal=True))
        for number in range(2 * rounds):
            # With, without, without, with: what grows in the emulator meets both alike.
            with_journal = number % 4 in {0, 3}
            one = partial(run, base_url, kind, requests, with_journal=with_journal)
            took[with_journal].append(anyio.run(one))
    wall = {
        which: statistics.median(each.wall for each in rounds) for which, rounds in took.items()
    }
    cpu = {which: statistics.median(each.cpu for each in rounds) for which, rounds in took.items()}
    return {
        "per_second_with": round(requests / wall[True]),
        "per_second_without": round(requests / wall[False]),
        "cost_part": round(1 - wall[False] / wall[True], 3),
        "cost_part_of_best": round(
            1 - min(each.wall for each in took[False]) / min(each.wall for each in took[True]), 3
        ),
        "cpu_part": round(1 - cpu[False] / cpu[True], 3),
        "seconds_with": [round(each.wall, 2) for each in took[True]],
        "seconds_without": [round(each.wall, 2) for each in took[False]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=6)
    wanted = parser.parse_args()
    print(
        json.dumps(
            {kind: measure(kind, wanted.requests, wanted.rounds) for kind in KINDS}, indent=2
        )
    )


if __name__ == "__main__":
    main()
