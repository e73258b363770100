"""`orchestrator` in the test's own process: what it is given, and how it ended."""

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.__main__ import run_command
from support.processes import emulator_process

KEY = "sk-canary-of-the-key-4711"

RULES = """
[[rules]]
match = "^refuse"
http_status = 401
error_code = "invalid_api_key"

[[rules]]
match = "^spent"
http_status = 429
error_code = "insufficient_quota"

[[rules]]
match = "^fail"
status = "failed"
error_code = "invalid_prompt"

[[rules]]
answer = "canary-of-the-answer"
"""

ON_THE_EMULATOR = "[emulator]\nqueue_seconds = 0\nrun_seconds = 0.02\n"
BACKGROUND = f'[defaults]\nmodel = "gpt-5-nano"\n{ON_THE_EMULATOR}'
# Answered at once: no test has to wait for the first check, half a second after the create.
AT_ONCE = BACKGROUND.replace("model", 'url = "/v1/chat/completions"\nmodel', 1)

GOOD = b'{"custom_id": "a", "url": "/v1/embeddings", "body": {"model": "m", "input": "x"}}'


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def command_in(folder, monkeypatch, capsys):
    """Runs a command in a folder, with a key and nothing else in the environment."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["orchestrator", *map(str, words)])
        code = run_command()
        return Ended(code, *capsys.readouterr())

    return run


@contextmanager
def emulator_with_rules(folder):
    """An emulator in another process, whose books tell what was really sent."""
    rules = folder / "rules.toml"
    rules.write_text(RULES)
    with emulator_process("--durations", "0.02", "--rules", str(rules)) as running:
        yield running


def write_job(folder, prompts, toml=AT_ONCE, tools=None):
    """A job folder with these prompts, or lines where they are no text."""
    folder.mkdir(parents=True)
    (folder / "job.toml").write_text(toml)
    lines = [{"prompt": prompt} if isinstance(prompt, str) else prompt for prompt in prompts]
    (folder / "requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if tools is not None:
        (folder / "tools.py").write_text(tools)
    return folder


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_told_in_two_lines(ended):
    assert 1 <= ended.err.count("\n") <= 2
    assert ended.err.startswith("orchestrator: ")
    assert ended.out == ""
