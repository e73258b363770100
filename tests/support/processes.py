"""The emulator in a process of its own, as a user starts it."""

import json
import re
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass

ANNOUNCED = re.compile(r"serving (http://127\.0\.0\.1:\d+)/v1")


@dataclass
class EmulatorProcess:
    """A running `orchestrator emulator`."""

    root_url: str
    process: subprocess.Popen

    @property
    def base_url(self) -> str:
        return f"{self.root_url}/v1"

    def books(self):
        """What it served so far."""
        return self._get("/emulator/books")

    def calls(self):
        """Every call that it served."""
        found, after = [], 0
        while page := self._get(f"/emulator/calls?after={after}&limit=100000")["calls"]:
            found += page
            after = page[-1]["sequence"]
        return found

    def creates(self, after=0):
        """What was created from some number on, and what became of it (emulator/creates.py)."""
        found = []
        while page := self._get(f"/emulator/creates?after={after}&limit=100000")["creates"]:
            found += page
            after = page[-1]["number"]
        return found

    def _get(self, path):
        # No proxy: the emulator is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.root_url + path, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def emulator_process(*arguments):
    """`orchestrator emulator` with these arguments, on a free port, ended afterwards."""
    command = [sys.executable, "-m", "orchestrator", "emulator", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        announced = ANNOUNCED.search(line)
        assert announced, (line, process.stderr.read() if process.poll() is not None else "")
        yield EmulatorProcess(announced[1], process)
    finally:
        process.terminate()
        process.communicate(timeout=30)
