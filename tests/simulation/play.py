"""Plays a seed: processes one after another, against one emulator, until all is done."""

import importlib
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from random import Random

import anyio
import msgspec
from simulation import stage
from simulation.loop import Killed, MortalLoop, bury
from simulation.machine import RESULT_FILES, Fate, Machine, at_work_on
from simulation.postman import Postman
from simulation.scenario import Scenario, scenario_of
from simulation.verdict import judge
from simulation.witness import Violation, Witness
from support.emulator_client import emulator_client
from support.webhook_carrier import SECRET

from orchestrator.adapters.journal import JournalFile
from orchestrator.adapters.progress import Silence
from orchestrator.adapters.request_file import RequestDefaults
from orchestrator.core.settings import GIVE_UP
from orchestrator.emulator.emulator import Emulator
from orchestrator.errors import (
    FolderInUse,
    JournalFailed,
    JournalUnusable,
    OrchestratorError,
    OutputFailed,
    OutputFolderUnusable,
)
from orchestrator.execution.execute import Manner, Report, execute_with
from orchestrator.execution.folder import Beginning
from orchestrator.jobfile import Address, Job
from orchestrator.service import Orchestrator

# By its name: the package has a function that is called as the module is.
EXECUTE = importlib.import_module("orchestrator.execution.execute")

TOOLS = Path(__file__).with_name("job_tools.py")
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there

BUDGET_SPENT = "budget_spent"

# What the server can't list, so nobody can look whether it is there.
NOT_LISTED = {"/v1/responses", "/v1/chat/completions", "/v1/embeddings"}

# What a process may end with when its disk is in trouble.
OF_A_DISK = (JournalFailed, JournalUnusable, OutputFailed, OutputFolderUnusable)

# After the last fate that a scenario has; a process may end early by what an earlier one left.
PROCESSES_IN_PEACE_MAX = 3


@dataclass(slots=True)
class Ended:
    """How a process ended: by a kill, with a report, or with an error."""

    fate: Fate
    killed: bool = False
    report: Report | None = None
    error: OrchestratorError | None = None
    steps: int = 0
    calls: int = 0
    uncounted: int = 0  # calls that may be missing in our books
    began_at: float = 0.0
    until: float = 0.0  # it was interrupted, or ended


@dataclass(slots=True)
class Play:
    """A seed as it is played.

    Attributes:
        seed: Of everything.
        scenario: What it stands for.
        processes: How each of them ended.
    """

    seed: int
    scenario: Scenario
    chance: Random
    machine: Machine
    witness: Witness
    emulator: Emulator
    postman: Postman
    job: Job
    processes: list[Ended] = field(default_factory=list)
    result_files: dict[str, bytes] = field(default_factory=dict)
    handlers_called: int = 0
    retry_failed: bool = False  # whether the next process sends again what failed
    counted: int = 0  # calls of this process that are in the counts of its last commit

    # One process.

    def run(self, fate) -> Ended:
        machine = self.machine
        loop = MortalLoop(machine.step, fate.loop_seconds)
        ended = Ended(fate)
        self.counted = 0
        machine.begin(fate, loop)
        self.postman.begin()
        try:
            ended.report = loop.run_until_complete(self._process(fate))
        except Killed:
            ended.killed = True
        except OrchestratorError as error:
            ended.error = error
        finally:
            self.witness.orchestrator = None
            ended.steps, ended.calls = machine.steps, machine.calls
            ended.uncounted = 0 if _ended_well(ended) else machine.calls - self.counted
            machine.lives = False
            ended.began_at, ended.until = (
                machine.began_at,
                min(machine.now(), machine.interrupted_at),
            )
            self.witness.let_go()
            machine.end()
            bury(loop)
            self.postman.end(is_well=_ended_well(ended))
        if ended.killed:
            machine.clean_up()
        if self.witness.complaints:
            raise Violation("; ".join(self.witness.complaints))
        self.processes.append(ended)
        return ended

    async def _process(self, fate):
        client = emulator_client(self.witness, latency_seconds=self.scenario.latency_seconds)
        settings = replace(self.job.settings, seed=self.chance.randrange(10**6))
        manner = Manner(
            cancel_on_interrupt=self.scenario.cancel_on_interrupt, on_ready=self._on_ready
        )
        return await execute_with(
            client,
            "a server",
            replace(self.job, settings=settings),
            Beginning(out=self.machine.folder, retry_failed=self.retry_failed),
            Silence(),
            manner,
            self._in_thread,
            [SECRET] if self.scenario.hears else (),
        )

    def _on_ready(self, stop):
        self.machine.stop = stop
        try:
            JournalFile(self.machine.folder).close()
        except FolderInUse:
            return
        self.witness.complain("a second process may work in the same folder")

    async def _in_thread(self, work):
        counted, heard = self.witness.calls_counted(), self.postman.accepted()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(self.chance.random() * self.scenario.commit_seconds_max)
            try:
                done = work()
                self.counted = counted
                self.postman.committed(heard)
                return done
            finally:
                await anyio.sleep(self.chance.random() * self.scenario.commit_seconds_max)

    async def handler(self, order, call_id):
        """What the job's tool does."""
        self.handlers_called += 1
        self.witness.on_handler(order, call_id)
        if self.chance.random() < self.scenario.tool_trouble:
            if self.chance.random() < 0.5:
                await anyio.sleep(10**6)
            message = f"{order} can't be found"
            raise ValueError(message)
        await anyio.sleep(self.chance.choice([0.0, 0.5, 3.0]))
        return f"{order} is on its way"


def _ended_well(ended):
    return ended.report is not None and ended.fate.trouble is None


def play(seed) -> Play:
    """Play a seed to its end.

    Raises:
        Violation: A promise was broken. The message is a line to paste, and a short story.
    """
    with _folder() as root:
        playing = _stage(seed, scenario_of(seed), root)
        stage.handler = playing.handler
        try:
            with (
                at_work_on(playing.machine),
                playing.postman.at_work(),
                _watched(playing.witness),
            ):
                _all_processes(playing, playing.scenario.fates)
                _retry_failed(playing)
            judge(playing, is_spent=_is_spent(playing.processes[-1]))
            playing.result_files = _result_files(playing.machine.folder)
        except Exception as error:
            raise Violation(story(playing, error)) from error
        finally:
            stage.handler = stage.nobody
            playing.witness.let_go()
        return playing


def _result_files(folder):
    return {name: (folder / name).read_bytes() for name in RESULT_FILES}


def story(playing, error) -> str:
    """How it came to an error, for whoever has to find out why."""
    scenario, server = playing.scenario, playing.scenario.server
    urls = sorted({line["url"] for line in scenario.requests})
    by_batch = ", by batch" if scenario.settings.via_batch else ""
    lines = [
        f"python -m pytest tests/simulation -k one_seed --seed {playing.seed}",
        f"{type(error).__name__}: {error}",
        f"{len(scenario.requests)} requests for {', '.join(urls)}{by_batch}",
        f"faults {dict(server.faults)}, tools: {scenario.has_tools}",
    ]
    for number, ended in enumerate(playing.processes, 1):
        lines.append(f"process {number}: {_how(ended)} after {ended.steps} steps")
    return "\n".join([*lines, f"in the process after these, {playing.machine.steps} steps"])


def _how(ended):
    report = ended.report
    if ended.killed:
        return "killed, with the machine," if ended.fate.is_power_loss else "killed"
    if report is None:
        return f"ended with {ended.error!r}"
    if report.interrupted:
        return "interrupted"
    return f"stopped by {report.stopped!r}" if report.stopped else "ended"


def _stage(seed, scenario, root):
    chance = Random(f"play {seed}")  # noqa: S311 - nothing is kept secret by it
    emulator = Emulator(scenario.server)
    witness = Witness(emulator)
    machine = witness.machine = Machine(
        root,
        chance,
        on_step=witness.on_step,
        on_line=witness.on_line,
        on_let_go=witness.let_go,
    )
    witness.run_seconds_max = scenario.settings.run_deadline_seconds or inf
    if scenario.settings.lost_creates == GIVE_UP and not scenario.settings.via_batch:
        lines = scenario.requests
        witness.never_twice = {line["custom_id"] for line in lines if line["url"] in NOT_LISTED}
    postman = witness.postman = Postman(witness, scenario.latency_seconds)
    path = root / "requests.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in scenario.requests))
    job = Job(
        name="simulated",
        source=path,
        requests=path,
        defaults=RequestDefaults(None, None, {}, via_batch=scenario.settings.via_batch),
        settings=scenario.settings,
        tools=TOOLS if scenario.has_tools else None,
        listen=Address("127.0.0.1", 8089) if scenario.hears else None,
    )
    return Play(seed, scenario, chance, machine, witness, emulator, postman, job)


def _all_processes(playing, fates):
    for fate in [*fates, *[Fate()] * PROCESSES_IN_PEACE_MAX]:
        ended = playing.run(fate)
        if _is_spent(ended):
            return
        if unexpected := _unexpected(ended):
            message = f"a process ended for no reason: {unexpected!r}"
            raise Violation(message)
        if ended.report is not None and not ended.report.stopped and not ended.report.interrupted:
            return
    message = "it does not end, though it is left in peace"
    raise Violation(message)


def _retry_failed(playing):
    """Send again what failed, as a user may ask for; perhaps that is killed, too."""
    last = playing.processes[-1]
    if not playing.scenario.retries_failed or last.report.all_completed or _is_spent(last):
        return
    first, *_ = [*playing.scenario.fates, Fate()]
    playing.retry_failed = True
    playing.run(first)
    playing.retry_failed = False
    _all_processes(playing, [])


def _is_spent(ended):
    """Whether the budget is, so that nobody can go on."""
    stopped = ended.report.summary["stopped"] if ended.report is not None else None
    return stopped is not None and stopped["code"] == BUDGET_SPENT


def _unexpected(ended):
    """Why a process ended early, unless its disk was in trouble."""
    error = ended.error or (ended.report.stopped if ended.report is not None else None)
    has_trouble = ended.fate.trouble or ended.fate.write_fails or ended.fate.no_ballast
    return None if has_trouble and isinstance(error, OF_A_DISK) else error


@contextmanager
def _folder():
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _watched(witness):
    """Let the witness look into the engine of each process."""

    class Watched(Orchestrator):
        async def __aenter__(self):
            entered = await super().__aenter__()
            witness.orchestrator = self
            return entered

        async def __aexit__(self, *error):
            witness.orchestrator = None
            left = await super().__aexit__(*error)
            witness.on_exit(self)
            return left

    before, EXECUTE.Orchestrator = EXECUTE.Orchestrator, Watched
    try:
        yield
    finally:
        EXECUTE.Orchestrator = before
