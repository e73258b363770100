"""How many permits of each full minute are used, and how many 429 come back, in real time.

    python benchmarks/permits.py --rpm 600 --minutes 2

An emulator in a process of its own keeps a strict sliding window of `rpm` requests; the engine has
a backlog. What the numbers mean: `used` is the part of the limit that arrived at the server in
each full minute while requests still waited to be created (1.0 would be a call at the very instant
each permit comes free), `http_429` must be 0, `cpu_part` is the part of one core that the engine
took. The result is one JSON object on standard output.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import time
import urllib.request
from typing import Any

import anyio

from orchestrator import Orchestrator
from orchestrator.apis.client import make_local_client

# Half of the calls are checks when runs last 50 ms; a little more, so that the backlog lasts.
REQUESTS_PER_PERMIT = 0.56


async def keep_busy(base_url: str, rpm: int, minutes: int) -> int:
    """Run enough requests for so many minutes; the number that completed."""
    requests = ({"prompt": f"say {n}"} for n in range(int(rpm * minutes * REQUESTS_PER_PERMIT)))
    completed = 0
    async with (
        make_local_client(base_url) as client,
        Orchestrator(client, rpm=rpm, model="gpt-5-mini", max_in_flight=rpm // 2) as orchestrator,
    ):
        async for result in orchestrator.run_many(requests):
            completed += result.outcome == "completed"
    return completed


def calls_of(root_url: str) -> list[dict[str, Any]]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    found: list[dict[str, Any]] = []
    while True:
        after = found[-1]["sequence"] if found else 0
        with opener.open(f"{root_url}/emulator/calls?after={after}&limit=100000") as answer:
            page = json.load(answer)["calls"]
        if not page:
            return found
        found += page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rpm", type=int, default=600)
    parser.add_argument("--minutes", type=int, default=2)
    wanted = parser.parse_args()

    command = [sys.executable, "-m", "orchestrator", "emulator", "--port", "0"]
    command += ["--rpm", str(wanted.rpm), "--durations", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as emulator:
        assert emulator.stdout is not None
        found = re.search(r"(http://\S+)/v1", emulator.stdout.readline())
        assert found is not None
        began, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        completed = anyio.run(keep_busy, f"{found[1]}/v1", wanted.rpm, wanted.minutes)
        wall_seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        calls = calls_of(found[1])
        emulator.terminate()

    cpu_seconds = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    first = calls[0]["at_seconds"]
    last_create = max(call["at_seconds"] for call in calls if call["route"].startswith("POST"))
    used = [
        sum(start <= call["at_seconds"] < start + 60 for call in calls) / wanted.rpm
        for start in (first + 60 * n for n in range(int((last_create - first) // 60)))
    ]
    result = {
        "rpm": wanted.rpm,
        "completed": completed,
        "calls": len(calls),
        "used": [round(part, 4) for part in used],
        "http_429": sum(call["status"] == "429" for call in calls),
        "wall_seconds": round(wall_seconds, 1),
        "cpu_part": round(cpu_seconds / wall_seconds, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
