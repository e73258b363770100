"""Kills executions at random moments, looks at both sides each time, and goes on until they end."""

import subprocess
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter

from support.both_books import Journaled
from support.executions import handler_calls, started

SECONDS_MAX = 600  # for an execution that is left in peace
# Three in ten kills meet a process that has not begun to work, the others come while it works.
STARTING_PART = 0.3


@dataclass
class Killer:
    """Kills one execution.

    Attributes:
        random: All chance comes from it.
        kills: How many are left.
        work_seconds: A process may work for so long at most before it is killed.
        before_work: Of the kills, those that came before the process had told its journal of
            itself.
    """

    folder: object
    emulator: object
    random: object
    kills: int
    work_seconds: float = 1.5
    words: tuple = ()
    killed: int = 0
    before_work: int = 0
    journaled: Journaled = field(default_factory=Journaled)
    wrong: list[str] = field(default_factory=list)
    start_seconds: float = 0.6
    _creates: list = field(default_factory=list)
    _handled: int = 0

    def run(self):
        """Until the execution has ended; how its last process ended."""
        while True:
            ended = self._one_process()
            if ended is not None:
                return ended

    def _one_process(self):
        sessions = self._sessions()
        limit = self._moment() if self.kills else SECONDS_MAX
        began = perf_counter()
        with started(self.folder, self.emulator, *self.words) as process:
            try:
                out, err = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                assert self.kills, "it does not end"
                process.kill()
                out, err = process.communicate()
        assert "Traceback" not in out + err, err
        if process.returncode >= 0:
            return process.returncode, out, err
        self.kills -= 1
        self.killed += 1
        at_work = self._sessions() > sessions
        self.before_work += not at_work
        if not at_work:
            # As slow as this machine is now; a kill may come later and still before any work.
            self.start_seconds = max(self.start_seconds, perf_counter() - began)
        self._look()
        return None

    def _moment(self):
        if self.random.random() < STARTING_PART:
            return self.random.uniform(0, self.start_seconds * 1.2)
        return self.start_seconds + self.random.uniform(0, self.work_seconds)

    def _sessions(self):
        return Journaled.sessions(self.folder / "out")

    def _look(self):
        """What must be true whenever a process was killed."""
        # Theirs first: an intent is kept before its call leaves, so ours must have it by then.
        self._creates += self.emulator.creates(after=len(self._creates))
        handled = handler_calls(self.folder)
        before, self.journaled = self.journaled, Journaled.read(self.folder / "out")
        if self.journaled.entries < before.entries:
            self.wrong.append(f"{before.entries} entries became {self.journaled.entries}")
        for name, ids in before.known.items():
            if not ids <= self.journaled.known[name]:
                self.wrong.append(f"{name}: {ids - self.journaled.known[name]} was forgotten")
        for name, count in Counter(one["key"] for one in self._creates).items():
            if count > self.journaled.paying[name]:
                self.wrong.append(f"{name}: created {count} times without an intent for it")
        # A handler that had returned, and was known to have, is not called again.
        again = set(handled[self._handled :]) & before.finished_tools
        self.wrong += [f"the handler was called again for {call}" for call in again]
        self._handled = len(handled)
