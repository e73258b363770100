"""From a job to a report: opens everything in order, runs it, writes the summary."""

from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from secrets import token_bytes
from typing import Any

import msgspec
from openai import AsyncOpenAI

from orchestrator.adapters.journal import InThread, Journal, Where
from orchestrator.adapters.log import execution_log
from orchestrator.adapters.progress import Progress
from orchestrator.adapters.request_file import RequestFile
from orchestrator.adapters.result_file import FILE_MODE, SUMMARY_NAME
from orchestrator.adapters.tools import Tool, Toolbox, load_tools
from orchestrator.adapters.webhook import refuse_address
from orchestrator.apis.client import address_of, make_client, make_local_client
from orchestrator.core.model import Outcome
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.server import serve, unix_now
from orchestrator.emulator.settings import Settings
from orchestrator.errors import OrchestratorError, OutputFailed, SettingUnusable
from orchestrator.execution.call_watch import CallWatch
from orchestrator.execution.folder import Beginning
from orchestrator.execution.lifetimes_file import keep_learned, learned_before
from orchestrator.execution.opening import EMULATOR, Opened, open_execution
from orchestrator.execution.running import Execution, Stop
from orchestrator.jobfile import Address, Job, emulator_settings
from orchestrator.service import Orchestrator
from orchestrator.wiring import Keeping

LOG_NAME = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Report:
    """How an execution ended."""

    folder: Path
    summary: dict[str, Any]
    interrupted: bool
    stopped: OrchestratorError | None  # why it ended early; its message is for people

    @property
    def all_completed(self) -> bool:
        completed: int = self.summary["outcomes"][Outcome.COMPLETED.value]
        requests: int = self.summary["requests"]
        return completed == requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where the calls go, to a server by its base url or to an emulator of our own, and back.

    `webhook_secrets` are those of the server's webhooks, where the job takes them. The emulator
    gets one of its own.
    """

    base_url: str | None = None
    emulator: bool = False
    webhook_secrets: Sequence[str] = field(default=(), repr=False)


def _unheard(_: Any) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How an execution behaves towards the person who started it.

    Attributes:
        cancel_on_interrupt: Whether runs are cancelled on the server when it is interrupted, and
            sent again when it goes on. Otherwise they go on there.
        log_level: "debug" has a line in log.jsonl for every call.
        tell: Told in a sentence that it goes on, and with what, and where webhooks are taken.
        warn: Told in a sentence what a person should know while it runs.
        on_ready: Given the way to end the execution, just before the first call can go out.
    """

    cancel_on_interrupt: bool = False
    log_level: str = "info"
    tell: Callable[[str], None] = _unheard
    warn: Callable[[str], None] = _unheard
    on_ready: Callable[[Stop], None] = _unheard


async def execute(
    job: Job, beginning: Beginning, progress: Progress, manner: Manner, *, way: Way
) -> Report:
    """Run a job to its end, or go on with an execution of it that has not ended.

    Args:
        job: What to run and how.
        beginning: Whether to go on, and where.
        progress: Where the standing is shown.
        manner: How it behaves meanwhile.
        way: Where the calls go.

    Raises:
        UserMistake: Something given can't be used; nothing was sent.
        InputChanged: The request file was written to while it was checked; nothing was sent.
    """
    if job.listen is not None:
        await refuse_address(job.listen.host, job.listen.port)  # before a folder is made
        if way.emulator:
            way = replace(way, webhook_secrets=(_new_webhook_secret(),))
    async with _client(job, way) as client:
        server = EMULATOR if way.emulator else address_of(client)
        return await execute_with(
            client, server, job, beginning, progress, manner, webhook_secrets=way.webhook_secrets
        )


async def execute_with(
    client: AsyncOpenAI,
    server: str,
    job: Job,
    beginning: Beginning,
    progress: Progress,
    manner: Manner,
    in_thread: InThread | None = None,
    webhook_secrets: Sequence[str] = (),
) -> Report:
    """As `execute`, with a client that is there already.

    `server` tells the one that it calls from others. The journal is written in a thread unless
    another place is given. Webhooks are believed if they are signed with one of these secrets.
    """
    with ExitStack() as stack:
        tools = _tools(job)
        requests = stack.enter_context(RequestFile(job.requests, job.defaults))
        opened = open_execution(stack, job, requests, server, beginning)
        if opened.past is not None:
            manner.tell(_goes_on(opened))
        elif opened.finished is not None:
            manner.tell(f"{opened.finished} is finished; this is a new one, in {opened.folder}")
        elif beginning.fresh:
            manner.tell(f"a new execution, in {opened.folder}")
        log_path = opened.folder / LOG_NAME
        secrets = [client.api_key, *webhook_secrets]
        log = stack.enter_context(execution_log(log_path, level=manner.log_level, secrets=secrets))
        price = job.settings.check_price_seconds
        learned = learned_before(opened.folder, opened.facts, price, log)
        calls = CallWatch(log, manner.warn, client.base_url.netloc.decode())

        def orchestrator_with(journal: Journal) -> Orchestrator:
            return Orchestrator(
                client,
                tools=tools,
                log=log,
                on_call=calls.ended,
                webhook_secrets=webhook_secrets,
                keeping=Keeping(
                    name=opened.facts.name,
                    journal=journal,
                    past=opened.past,
                    webhook_ids=opened.journal.webhook_ids() if webhook_secrets else (),
                    learned=learned,
                ),
                **asdict(job.settings),
            )

        stack.enter_context(closing(progress))
        execution = Execution(job, opened, orchestrator_with, progress, log, in_thread)
        summary = await execution.run(
            manner.on_ready,
            manner.warn,
            manner.tell,
            cancel_on_interrupt=manner.cancel_on_interrupt,
        )
        keep_learned(opened.folder, learned, log)
        try:
            _write_summary(opened.folder, summary)
        except OutputFailed as error:
            execution.stopped = execution.stopped or error
        return Report(opened.folder, summary, execution.interrupted, execution.stopped)


def _goes_on(opened: Opened) -> str:
    """What a person should know of an execution that is gone on with."""
    ended = sum(group.count for group in opened.ended if not group.is_reopened)
    left = opened.facts.requests - ended
    if not left:
        return (
            f"{opened.folder} has ended, and nothing is left to do; --retry-failed sends again "
            "what did not complete, --fresh starts anew"
        )
    there = opened.stand[Where.THERE] + opened.stand[Where.TOOLS]
    in_doubt = opened.stand[Where.IN_DOUBT]
    left -= there + in_doubt
    return (
        f"going on with {opened.folder}: {ended:,} of {opened.facts.requests:,} requests have "
        f"ended, {there:,} are on the server, {in_doubt:,} were sent and not answered, {left:,} "
        "are left; --fresh starts anew instead"
    )


@asynccontextmanager
async def _client(job: Job, way: Way) -> AsyncIterator[AsyncOpenAI]:
    """The client, closed in the end; with an emulator behind it where that is wanted."""
    async with AsyncExitStack() as stack:
        if way.emulator:
            settings = replace(emulator_settings(job), epoch=unix_now())
            if job.listen is not None:
                settings = _sending(settings, job.listen, way.webhook_secrets[0])
            base_url = await stack.enter_async_context(serve(Emulator(settings)))
            client = make_local_client(base_url)
        else:
            client = make_client(way.base_url)
        yield await stack.enter_async_context(client)


def _sending(settings: Settings, listen: Address, secret: str) -> Settings:
    """An emulator that sends its webhooks to where this execution takes them.

    Raises:
        SettingUnusable: That is not on this machine, or not known yet.
    """
    try:
        return replace(settings, webhook_url=listen.here, webhook_secret=secret)
    except EmulatorMistake as mistake:
        cure = "With the emulator, take them at an address such as 127.0.0.1:8700."
        raise SettingUnusable(
            name="webhooks", value=f"{listen.host}:{listen.port}", problem=str(mistake), cure=cure
        ) from None


def _new_webhook_secret() -> str:
    return f"whsec_{b64encode(token_bytes(24)).decode()}"


def _tools(job: Job) -> Sequence[Tool]:
    """The job's tools, each looked at: what can't be one is found before anything is made."""
    if job.tools is None:
        return ()
    tools = [Tool.of(handler) for handler in load_tools(job.tools)]
    Toolbox(tools)  # refuses two of one name
    return tools


def _write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Whole, or as it was before: half a summary would be taken for one."""
    path, half = folder / SUMMARY_NAME, folder / f".{SUMMARY_NAME}"
    try:
        half.touch(mode=FILE_MODE)
        half.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
        half.replace(path)
    except OSError as error:
        with suppress(OSError):
            half.unlink()
        raise OutputFailed(path=path, problem=error.strerror or str(error)) from None
