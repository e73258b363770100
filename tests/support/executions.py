"""`orchestrator run` in a process of its own, on requests that ask for tools, to be interrupted."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from time import perf_counter

from test_mixed_families import on_assistants, on_chat, on_responses, on_sessions

FAMILIES = (on_responses, on_assistants, on_sessions, on_chat)

MODEL = "gpt-5-nano"

SECONDS_MAX = 60  # for anything that is waited for

# The model asks for the order that the request is named after.
RULES = """
[[rules]]
match = '(O-\\d+)'
tool_calls = [{ name = "look_up", arguments = { order_id = "{1}" } }]
"""

# A line in a file for each call, written at once: it outlives the process that is killed.
TOOLS = '''
import asyncio
import os

CALLS = os.open("handlers.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


async def look_up(order_id: str, call_id: str) -> str:
    """Look up an order."""
    os.write(CALLS, f"{order_id} {call_id}\\n".encode())
    await asyncio.sleep(0.05)
    return f"{order_id} is on its way"
'''


def requests_of(number, kinds=FAMILIES, first=0):
    """Requests of these families in turn, each labelled with its custom_id."""
    for n in range(first, first + number):
        name = f"O-{n}"
        url, body = kinds[n % len(kinds)](f"where is {name}?")
        labelled = {"model": MODEL, **body, "metadata": {"custom_id": name}}
        if url == "/v1/agents/sessions":
            del labelled["model"]  # it is the agent's
        yield {"custom_id": name, "url": url, "body": labelled}


def write_requests(folder, requests):
    """The file of these requests, and of the tools that they ask for."""
    path = folder / "requests.jsonl"
    path.write_text("".join(json.dumps(request) + "\n" for request in requests))
    (folder / "tools.py").write_text(TOOLS)
    return path


def write_rules(folder, rules=RULES):
    """A file of rules for the emulator."""
    path = folder / "rules.toml"
    path.write_text(rules)
    return path


def run_words(emulator, *words, out="out"):
    """The command; the same words every time."""
    command = [sys.executable, "-m", "orchestrator", "run", "requests.jsonl", "--out", str(out)]
    return [
        *command, "--tools", "tools.py", "--base-url", emulator.base_url, *map(str, words)
    ]  # fmt: skip


@contextmanager
def started(folder, emulator, *words, out="out", **more):
    """It runs in a process, which is over afterwards."""
    process = subprocess.Popen(
        run_words(emulator, *words, out=out),
        cwd=folder,
        env={**os.environ, "OPENAI_API_KEY": "sk-of-a-test"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition, process):
    """Ask again and again; asking takes its time, so nothing sleeps."""
    until = perf_counter() + SECONDS_MAX
    while not condition():
        assert process.poll() is None, process.communicate()
        assert perf_counter() < until


def handler_calls(folder):
    """(custom_id, call id) of every call of a handler, in order."""
    path = folder / "handlers.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(line.split(" ")) for line in lines]


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())
