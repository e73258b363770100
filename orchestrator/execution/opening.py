"""What has to be right before the first call: the folder, the journal, and the input as it was."""

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import count
from pathlib import Path

import msgspec

from orchestrator.adapters.clock import unix_now
from orchestrator.adapters.journal import EndedGroup, Facts, JournalFile, Where, standing
from orchestrator.adapters.prices import require_prices
from orchestrator.adapters.request_file import RequestFile, Sendable
from orchestrator.adapters.result_file import (
    ERRORS_NAME,
    SUMMARY_NAME,
    ResultFiles,
)
from orchestrator.core.entries import Past
from orchestrator.core.model import Outcome, Request
from orchestrator.errors import (
    DefaultsChanged,
    JournalUnusable,
    LinesChanged,
    OutputFolderUnusable,
    RunsElsewhere,
)
from orchestrator.execution.counts import Counts
from orchestrator.execution.folder import Beginning, choose, looking, new_folder, source_of
from orchestrator.jobfile import Job
from orchestrator.version import __version__

LINES_NAMED = 10

# What takes the place of a server's address when the server is ours.
EMULATOR = "emulator"

RETRIED = tuple(outcome for outcome in Outcome if outcome is not Outcome.COMPLETED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An execution that is ready to run.

    Attributes:
        folder: Where it keeps its things.
        facts: What does not change from process to process.
        journal: Open, and locked.
        results: Open, and whole.
        left: The requests that were never admitted, read as they are asked for.
        past: What was in flight; None when it is new.
        ended: What ended before, in groups.
        counts: What was counted before.
        stand: How many requests in flight stood where.
        finished: The execution of the same source that has ended before this one began.
    """

    folder: Path
    facts: Facts
    journal: JournalFile
    results: ResultFiles
    left: Iterable[Request]
    past: Past | None = None
    ended: Sequence[EndedGroup] = ()
    counts: Counts = field(default_factory=Counts)
    stand: Counter[Where] = field(default_factory=Counter)
    finished: Path | None = None


def open_execution(
    stack: ExitStack, job: Job, requests: RequestFile, server: str, beginning: Beginning
) -> Opened:
    """Open the execution that is to be gone on with, or a new one. The stack closes it.

    Raises:
        UserMistake: Something given can't be used, or is not what it was.
    """
    with looking(job):
        choice = choose(job, server, beginning)
        if choice.folder is None:
            opened = _begin(stack, job, requests, server, beginning)
            return replace(opened, finished=choice.finished)
        journal = stack.enter_context(JournalFile(choice.folder))
    facts = journal.facts
    if facts is None:  # the process ended before it had begun
        return _begin(stack, job, requests, server, beginning, journal)
    return _GoingOn(job, requests, journal, facts, beginning).open(stack, server)


def _begin(
    stack: ExitStack,
    job: Job,
    requests: RequestFile,
    server: str,
    beginning: Beginning,
    journal: JournalFile | None = None,
) -> Opened:
    found = requests.check()
    if job.settings.max_cost_usd is not None:
        require_prices(found.by_model)
    if journal is None:
        journal = stack.enter_context(JournalFile(new_folder(job, beginning)))
    facts = Facts(
        name=f"run-{secrets.token_hex(6)}",
        source=source_of(job),
        server=server,
        version=__version__,
        started_at_unix=unix_now(),
        requests=found.requests,
        by_model=dict(found.by_model),
        file_digest=found.digest,
        defaults_digest=digest_of_defaults(job),
        via=job.settings.via or "",
    )
    journal.set_facts(facts)
    results = stack.enter_context(ResultFiles(journal.folder, go_on=True))
    return Opened(
        folder=journal.folder, facts=facts, journal=journal, results=results, left=requests
    )


class _GoingOn:
    """Finds out where an execution stands, and whether its input is still the same."""

    def __init__(
        self,
        job: Job,
        requests: RequestFile,
        journal: JournalFile,
        facts: Facts,
        beginning: Beginning,
    ) -> None:
        self._job = job
        self._requests = requests
        self._journal = journal
        self._facts = facts
        self._beginning = beginning

    def open(self, stack: ExitStack, server: str) -> Opened:
        self._refuse_other(server)
        self._compare_input()
        if self._job.settings.max_cost_usd is not None:
            require_prices(self._facts.by_model)
        self._put_aside()
        if self._beginning.retry_failed and self._anything_failed():
            with self._results():
                retries = self._facts.retries + 1
                self._facts = msgspec.structs.replace(self._facts, retries=retries)
                self._journal.reopen(RETRIED, self._facts)
            self._put_aside()
        results = stack.enter_context(self._results())
        (self._journal.folder / SUMMARY_NAME).unlink(missing_ok=True)  # it is not the last word
        if is_gone_with_its_process(server):
            self._journal.forget_unfinished()
        ended, counts = self._journal.ended_groups(), Counts.read(self._journal.last_counts)
        return Opened(
            folder=self._journal.folder,
            facts=self._facts,
            journal=self._journal,
            results=results,
            left=self._left(),
            past=self._past(ended, counts),
            ended=ended,
            counts=counts,
            stand=Counter(standing(self._journal).unfinished),
        )

    def _anything_failed(self) -> bool:
        groups = self._journal.ended_groups()
        return any(group.outcome in RETRIED and not group.is_reopened for group in groups)

    def _results(self) -> ResultFiles:
        """The files of results, with all that is known to belong there."""
        ResultFiles.check(self._journal.folder, self._journal.written_bytes)
        results = ResultFiles(self._journal.folder, go_on=True)
        try:
            lines = ((each.is_completed, each.line) for each in self._journal.unwritten())
            results.mend(self._journal.written_bytes, lines)
            results.sync()
            self._journal.all_written(*results.sizes)
        except BaseException:
            results.close()
            raise
        return results

    def _refuse_other(self, server: str) -> None:
        facts, via = self._facts, self._job.settings.via or ""
        cure = "Say the same again, or add --fresh to start anew."
        for what, before, now in (
            ("source", facts.source, source_of(self._job)),
            ("server", facts.server, server),
            ("way (--via)", facts.via or "the usual one", via or "the usual one"),
        ):
            if before != now:
                problem = f"it was begun with another {what}: {before}, not {now}"
                raise JournalUnusable(path=self._journal.folder, problem=problem, cure=cure)

    # The input.

    def _compare_input(self) -> None:
        defaults_digest = digest_of_defaults(self._job)
        is_same_file = self._requests.digest() == self._facts.file_digest
        if is_same_file and defaults_digest == self._facts.defaults_digest:
            self._requests.trust()
            return
        compared = _Compared(self._journal)
        found = self._requests.check(compared.look_at)
        compared.miss_the_rest()
        if compared.complaints and not self._beginning.accept_changes:
            if is_same_file:
                raise DefaultsChanged(path=self._job.requests)
            raise compared.complaint(self._job.requests)
        if compared.turned:
            raise compared.refusal(self._job.requests)
        self._facts = msgspec.structs.replace(
            self._facts,
            requests=found.requests + len(compared.gone_ended),
            by_model=dict(found.by_model),
            file_digest=found.digest,
            defaults_digest=defaults_digest,
        )
        self._journal.accept(
            compared.now, compared.gone_in_flight, self._facts, compared.gone_ended
        )

    def _put_aside(self) -> None:
        """Errors of requests that are sent again go to a file of their own, once.

        The journal knew first that it is to be done: a process that is killed in between leaves it
        to the next.
        """
        folder, retries = self._journal.folder, self._facts.retries
        if self._facts.put_aside == retries:
            return
        names = (folder / f"errors-{number}.jsonl" for number in count(retries))
        try:
            if (folder / ERRORS_NAME).exists():
                (folder / ERRORS_NAME).rename(next(name for name in names if not name.exists()))
        except OSError as error:
            problem = error.strerror or str(error)
            raise OutputFolderUnusable(path=folder, problem=problem) from None
        self._facts = msgspec.structs.replace(self._facts, put_aside=retries)
        self._journal.set_facts(self._facts)

    # What is left.

    def _left(self) -> Iterator[Request]:
        known = bytearray()
        for line, _ in self._journal.lines():
            if line >= len(known):
                known.extend(bytes(max(line, 2 * len(known)) + 1 - len(known)))
            known[line] = True
        return self._requests.requests(lambda line: line >= len(known) or not known[line])

    def _past(self, ended: Sequence[EndedGroup], counts: Counts) -> Past:
        number_at = {each.line: each.number for each in self._journal.unfinished()}
        found = self._requests.requests(number_at.__contains__)
        in_flight = sorted((number_at[request.line], request) for request in found)
        return Past(
            in_flight=in_flight,
            entries=self._journal.replay,
            numbers_issued=self._journal.number_max,
            batches_issued=-self._journal.batch_number_min,
            groups_issued=self._journal.group_max,
            counts=counts.totals,
            batches_by_end=counts.batches_by_end,
            spent=ended,
            seconds=counts.seconds,
        )


class _Compared:
    """The lines of the input as they are now, beside those that were admitted before."""

    def __init__(self, journal: JournalFile) -> None:
        self._before = {each.custom_id: each for each in journal.digests()}
        self._changed: list[tuple[int, str]] = []
        self.now: list[tuple[int, int, bytes]] = []  # number, line, digest
        self.turned: list[tuple[int, str]] = []  # lines in flight that ask for another API now
        self.gone_in_flight: list[int] = []
        self.gone_ended: list[int] = []

    def look_at(self, line: int, found: Sendable) -> None:
        before = self._before.pop(found.custom_id, None)
        if before is None:
            return
        digest = found.digest()
        if digest != before.digest:
            self._changed.append((line, found.custom_id))
            if not before.has_ended and before.kind != (found.url, found.family.value):
                self.turned.append((line, found.custom_id))
        self.now.append((before.number, line, digest))

    def miss_the_rest(self) -> None:
        """Lines that are not there any more: what is done is done, but not what is in flight."""
        for custom_id, before in self._before.items():
            if before.has_ended:
                self.gone_ended.append(before.number)
            else:
                self.gone_in_flight.append(before.number)
                self._changed.append((before.line, custom_id))

    @property
    def complaints(self) -> bool:
        return bool(self._changed)

    def complaint(self, path: Path) -> LinesChanged:
        return LinesChanged(path=path, count=f"{len(self._changed):,}", named=_named(self._changed))

    def refusal(self, path: Path) -> RunsElsewhere:
        return RunsElsewhere(path=path, named=_named(self.turned))


def _named(lines: list[tuple[int, str]]) -> str:
    more = ", ..." if len(lines) > LINES_NAMED else ""
    return ", ".join(f"{line} ({name})" for line, name in sorted(lines)[:LINES_NAMED]) + more


def is_gone_with_its_process(server: str) -> bool:
    """Whether the runs of this server end with the process that started them."""
    return server == EMULATOR


def digest_of_defaults(job: Job) -> str:
    """Of what completes the lines: another one means that other requests are sent."""
    defaults = job.defaults
    given = (defaults.url, defaults.model, dict(defaults.body))
    return blake2b(msgspec.json.encode(given, order="deterministic"), digest_size=8).hexdigest()
