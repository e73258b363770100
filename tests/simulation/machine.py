"""The machine on which processes run: its disk, its clocks, and when it kills them.

Rules: a process that is killed has no effect any more. What it had on disk at that moment is
copied, and the next process gets the copy; whatever the dead one still does goes to its own folder,
which is thrown away. Nothing that it sends arrives.
"""

import errno
import os
import shutil
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from pathlib import Path
from random import Random

from simulation.loop import Killed

from orchestrator import wiring
from orchestrator.adapters import clock
from orchestrator.adapters.journal import BALLAST_NAME, JOURNAL_NAME, ballast, lock
from orchestrator.adapters.result_file import ERRORS_NAME, RESULTS_NAME
from orchestrator.apis import webhook_signature
from orchestrator.emulator import server as emulator_server
from orchestrator.execution import opening, running

RESULT_FILES = (RESULTS_NAME, ERRORS_NAME)
LOG = f"{JOURNAL_NAME}-wal"

# What a process does with files; each of these is a moment at which it can be killed.
OPERATIONS = (
    "open",
    "write",
    "pwrite",
    "fsync",
    "unlink",
    "rename",
    "replace",
    "mkdir",
    "truncate",
    "ftruncate",
)
EPOCH = 1_767_225_600.0

# The longest ones take some 20,000.
STEPS_MAX = 200_000


class Trouble(StrEnum):
    """What the disk does with a commit."""

    FULL = "full"
    BROKEN = "broken"
    UNSURE = "unsure"  # it says that it failed, and it is there all the same


CODES = {
    Trouble.FULL: sqlite3.SQLITE_FULL,
    Trouble.BROKEN: sqlite3.SQLITE_IOERR_READ,
    Trouble.UNSURE: sqlite3.SQLITE_IOERR_FSYNC,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What happens to one process. Numbers count from 1; 0 is never.

    Attributes:
        step: Killed before this step of its loop.
        operation: Killed before this operation on files.
        torn_commit: Killed while this commit is written.
        call: Killed `steps_later` steps after so many calls have arrived.
        webhook: Killed before so many webhooks have been answered, but not before they were taken.
        is_power_loss: Whether the whole machine dies: what was not synced may be gone.
        interrupt_step: Interrupted before this step.
        trouble: What happens to commits from `trouble_from` up to `trouble_until`.
        write_fails: This line can't be written to a result file, nor any after it.
        no_ballast: Whether there is no room for the ballast.
        clock_jumps: By step, seconds that the clock on the wall jumps.
        pause_seconds: Between this process and the one before.
        loop_seconds: What the loop's clock shows at the beginning.
    """

    step: int = 0
    operation: int = 0
    torn_commit: int = 0
    call: int = 0
    steps_later: int = 0
    webhook: int = 0
    is_power_loss: bool = False
    interrupt_step: int = 0
    trouble: Trouble | None = None
    trouble_from: int = 0
    trouble_until: int = 0
    write_fails: int = 0
    no_ballast: bool = False
    clock_jumps: tuple[tuple[int, float], ...] = ()
    pause_seconds: float = 0.0
    loop_seconds: float = 0.0


class Machine:
    """Runs one process at a time.

    Args:
        root: A folder for everything.
        chance: For what is torn, and for names.
        on_step: Called now and then while a process lives.
        on_line: Told of each line before it is written to a result file.
        on_let_go: Called before the journal's file is closed.
    """

    def __init__(self, root, chance: Random, *, on_step, on_line, on_let_go):
        self.root = root
        self.folder = root / "out-0"
        self.chance = chance
        self.lives = False
        self.fate = Fate()
        self.stop = None  # the way to interrupt the process, once it is ready
        self.began_at = 0.0
        self.interrupted_at = inf
        self.deaths = 0
        self.wall_skew_seconds = 0.0
        self._on_step, self._on_line, self.on_let_go = on_step, on_line, on_let_go
        self._seconds = 0.0
        self._loop = None
        self._files = {}
        self._begin_counts()

    def _begin_counts(self):
        self.steps = self.operations = self.commits = self.calls = self.lines = self.webhooks = 0
        self._synced = dict.fromkeys(RESULT_FILES, 0)
        self._step_of_death = self.fate.step

    # Time.

    def now(self):
        """Seconds since the beginning of everything, as the server counts them."""
        if self._loop is None:
            return self._seconds
        return self._seconds + self._loop.time() - self.fate.loop_seconds

    def unix(self):
        """What the clock on the wall shows."""
        return EPOCH + self.now() + self.wall_skew_seconds

    # A process.

    def begin(self, fate, loop):
        """A process starts."""
        self.fate, self._loop = fate, loop
        self._seconds += fate.pause_seconds
        self.began_at, self.interrupted_at = self._seconds, inf
        self._files.clear()
        self._begin_counts()
        for name in RESULT_FILES:
            # What an earlier process has left is on the disk by now.
            path = self.folder / name
            self._synced[name] = path.stat().st_size if path.exists() else 0
        self.stop = None
        self.lives = True

    def end(self):
        """It has ended by itself, or is buried."""
        self._seconds = self.now()
        self.lives, self._loop = False, None

    def step(self):
        """The loop is about to do its next step."""
        if not self.lives:
            raise Killed
        self.steps += 1
        if self.steps == self._step_of_death:
            self.kill()
        if self.steps >= self.fate.interrupt_step > 0 and self.stop is not None:
            self.stop("SIGINT")
            self.stop = None
            self.interrupted_at = self.now()
        for at, seconds in self.fate.clock_jumps:
            if at == self.steps:
                self.wall_skew_seconds += seconds
        if self.steps > STEPS_MAX:
            message = f"a process has not ended after {STEPS_MAX:,} steps"
            raise TimeoutError(message)
        self._on_step()

    def call_arrived(self):
        """A call has reached the server, and was worked on."""
        self.calls += 1
        if self.calls == self.fate.call:
            self._step_of_death = self.steps + self.fate.steps_later

    def webhook_arrived(self):
        """The process has taken a webhook, and its answer is on its way."""
        self.webhooks += 1
        if self.webhooks == self.fate.webhook:
            self.kill()

    def kill(self, torn=None):
        """End the process here and now; what is on disk is what the next one finds."""
        self.lives = False
        self.deaths += 1
        survivor = self.root / f"out-{self.deaths}"
        if self.folder.is_dir():
            survivor.mkdir()
            for path in self.folder.iterdir():
                (survivor / path.name).write_bytes(path.read_bytes())
            if torn is not None:
                self._tear_log(survivor / LOG, *torn)
            if self.fate.is_power_loss:
                self._lose_power(survivor)
        self._dead_folder, self.folder = self.folder, survivor
        raise Killed

    def clean_up(self):
        """Throw away what a dead process left in its own folder."""
        shutil.rmtree(self._dead_folder, ignore_errors=True)

    def _tear_log(self, path, before, after):
        whole = path.read_bytes()
        cut = self.chance.randint(before, after)
        if self.chance.random() < 0.5:
            path.write_bytes(whole[:cut])
            return
        garbled = self.chance.randbytes(min(after - cut, 64))
        path.write_bytes(whole[:cut] + garbled + whole[cut + len(garbled) :])

    def _lose_power(self, folder):
        (folder / f"{JOURNAL_NAME}-shm").unlink(missing_ok=True)
        for name in RESULT_FILES:
            path = folder / name
            if path.exists():
                size = path.stat().st_size
                os.truncate(path, self.chance.randint(min(self._synced[name], size), size))

    # Its disk.

    def operation(self):
        """It is about to do something to a file."""
        if not self.lives:
            return
        self.operations += 1
        if self.operations == self.fate.operation:
            self.kill()

    def opened(self, path, descriptor):
        """It has opened a file."""
        name = Path(path).name if isinstance(path, str | os.PathLike) else ""
        if self.lives and name in {*RESULT_FILES, BALLAST_NAME}:
            self._files[descriptor] = name
        else:
            self._files.pop(descriptor, None)

    def write(self, descriptor, data, really):
        """It writes; how many bytes were written."""
        name = self._files.get(descriptor)
        if not self.lives or name is None:
            return really(descriptor, data)
        if name == BALLAST_NAME:
            if self.fate.no_ballast:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return really(descriptor, data)
        self._on_line(name, bytes(data))
        self.lines += 1
        if self.lines >= self.fate.write_fails > 0:
            if self.chance.random() < 0.5:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return really(descriptor, data[: self.chance.randrange(len(data))])
        return really(descriptor, data)

    def synced(self, descriptor):
        """What it has written to this file outlives the machine's death from now on."""
        if self.lives and (name := self._files.get(descriptor)) in self._synced:
            self._synced[name] = os.fstat(descriptor).st_size

    def commit(self, really):
        """It commits a transaction."""
        self.commits += 1
        fate = self.fate
        trouble = fate.trouble if fate.trouble_from <= self.commits < fate.trouble_until else None
        if trouble is not None and trouble is not Trouble.UNSURE:
            raise _error(trouble)
        if self.commits == fate.torn_commit:
            log = self.folder / LOG
            before = log.stat().st_size
            really()
            self.kill(torn=(before, log.stat().st_size))
        done = really()
        if trouble is Trouble.UNSURE:
            raise _error(trouble)
        return done


def _error(trouble):
    error = sqlite3.OperationalError(f"the disk is {trouble.value}, says the simulation")
    error.sqlite_errorcode = CODES[trouble]
    return error


class _ClockOnTheWall:
    """Takes the place of the module `time`."""

    def __init__(self, machine):
        self.time = machine.unix


class _Names:
    """Takes the place of the module `secrets`."""

    def __init__(self, machine):
        self.token_hex = lambda size: machine.chance.randbytes(size).hex()


@contextmanager
def at_work_on(machine):
    """Put this machine in the place of the real one, for everything that processes do."""
    really = {name: getattr(os, name) for name in OPERATIONS}
    places = [(os, name, _watched(machine, name, really[name])) for name in OPERATIONS]
    wall, names = _ClockOnTheWall(machine), _Names(machine)
    places += [
        (sqlite3, "connect", _connecting(machine, sqlite3.connect)),
        (clock, "time", wall),
        (emulator_server, "time", wall),
        (webhook_signature, "time", wall),
        (opening, "secrets", names),
        (wiring, "secrets", names),
        (ballast, "BALLAST_BYTES", 512),
        (lock, "TRY_AGAIN_SECONDS", 0.0),  # real seconds, in which nothing here can change
        (running, "SHOW_SECONDS", 10.0),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    try:
        for place, name, ours in places:
            setattr(place, name, ours)
        yield
    finally:
        for place, name, theirs in before:
            setattr(place, name, theirs)


def _watched(machine, name, really):
    def open_(path, *rest, **options):
        machine.operation()
        descriptor = really(path, *rest, **options)
        machine.opened(path, descriptor)
        return descriptor

    def write(descriptor, data):
        machine.operation()
        return machine.write(descriptor, data, really)

    def fsync(descriptor):
        machine.operation()
        machine.synced(descriptor)

    def other(*arguments, **options):
        machine.operation()
        return really(*arguments, **options)

    return {"open": open_, "write": write, "fsync": fsync}.get(name, other)


def _connecting(machine, really):
    class Connection(sqlite3.Connection):
        def execute(self, sql, *rest):
            machine.operation()
            if machine.lives and sql == "COMMIT":
                return machine.commit(lambda: super(Connection, self).execute(sql))
            return super().execute(sql, *rest)

        def executemany(self, sql, *rest):
            machine.operation()
            return super().executemany(sql, *rest)

        def executescript(self, sql):
            machine.operation()
            return super().executescript(sql)

        def close(self):
            machine.on_let_go()
            machine.operation()
            super().close()

    def connect(*arguments, **options):
        if not machine.lives:
            return really(*arguments, **options)
        return really(*arguments, factory=Connection, **options)

    return connect
