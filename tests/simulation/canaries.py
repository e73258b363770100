"""Bugs put in on purpose: a simulation that does not find them finds nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from orchestrator import driver
from orchestrator.adapters import result_file
from orchestrator.adapters.journal import journal, lock
from orchestrator.adapters.limiter import limiter
from orchestrator.adapters.webhook import receiver
from orchestrator.apis import webhook_signature
from orchestrator.core import ears, events, hearing, replay, scheduler, webhooks
from orchestrator.core.actions import CancelRun, SubmitToolOutputs
from orchestrator.core.failures import Cause
from orchestrator.core.model import Seen, Status
from orchestrator.core.states import Change, State
from orchestrator.execution import counts

Patch = tuple[Any, str, Any]


@contextmanager
def patched(*patches: Patch) -> Iterator[None]:
    """Put something else in these places."""
    before = [(place, name, getattr(place, name)) for place, name, _ in patches]
    try:
        for place, name, ours in patches:
            setattr(place, name, ours)
        yield
    finally:
        for place, name, theirs in before:
            setattr(place, name, theirs)


def _not_kept(*kinds: type) -> Patch:
    def is_kept(event, before, after):
        return really(event, before, after) and not isinstance(event, kinds)

    really = driver.is_kept
    return driver, "is_kept", is_kept


def _no_intent(*kinds: type) -> Patch:
    def intent_of(call):
        return None if isinstance(call, kinds) else really(call)

    really = driver.intent_of
    return driver, "intent_of", intent_of


async def _at_once(_self) -> None:
    pass


def _record(self, deed) -> None:
    self._unreported += 1
    self._report(deed.number, deed.result)
    self._journal.ended(deed.number, deed.result, self._clock.now())
    self._forget(deed.number)


class _NoLock:
    LOCK_EX = LOCK_NB = LOCK_SH = 0

    @staticmethod
    def flock(_descriptor, _how) -> None:
        pass


def _write_unsynced(self, rows) -> bool:
    return self._file.write(rows)


def _nothing(*_, **__) -> None:
    pass


def _twice_the_rpm(self, clock, rpm=None, *rest, **options) -> None:
    _LIMITER(self, clock, rpm and 2 * rpm, *rest, **options)


_LIMITER = limiter.Limiter.__init__


def _believe(self, event, now):
    """Take the word of a webhook for the end of its run, as if a check had found it."""
    number = None
    if isinstance(event, events.WebhookArrived) and event.type.endswith(".completed"):
        number = self.roster.hearing.number_of(event.run_id)
    run = self.roster.runs.get(number)
    if run is None or run.state is not State.RUNNING:
        return _DEEDS_AFTER(self, event, now)
    self.roster.move(run, Change.CHECK_SENT, now)
    return self._course.seen(run, Seen(run.run_id, Status.COMPLETED, "completed"), now)


_DEEDS_AFTER = scheduler.Scheduler._deeds_after

CANARIES: Mapping[str, Callable[[], tuple[Patch, ...]]] = {
    "calls leave before their intents are on disk": lambda: (
        (driver.Driver, "_until_on_disk", _at_once),
    ),
    "tool outputs leave without an intent": lambda: (_no_intent(SubmitToolOutputs),),
    "cancels leave without an intent": lambda: (_no_intent(CancelRun),),
    "created runs are forgotten": lambda: (_not_kept(events.RunCreated),),
    "finished tools are forgotten": lambda: (_not_kept(events.ToolFinished),),
    "accepted tool outputs are forgotten": lambda: (_not_kept(events.OutputsAccepted),),
    "results are reported before they are on disk": lambda: ((driver.Driver, "_record", _record),),
    "lines of results are not written again": lambda: (
        (result_file.ResultFiles, "mend", _nothing),
    ),
    "lines of results are taken for safe before they are": lambda: (
        (journal.Journal, "_write", _write_unsynced),
    ),
    "torn lines are left as they are": lambda: ((result_file, "cut_torn_line", _nothing),),
    "what is in doubt was never sent": lambda: (
        (replay, "_NO_ANSWER", replace(replay._NO_ANSWER, cause=Cause.UNDONE)),
    ),
    "nobody locks the folder": lambda: ((lock, "fcntl", _NoLock),),
    "counts begin anew": lambda: ((counts.Counts, "read", classmethod(lambda kind, _: kind())),),
    "twice as many calls as allowed": lambda: ((limiter.Limiter, "__init__", _twice_the_rpm),),
    "webhooks are believed without a check": lambda: (
        (scheduler.Scheduler, "_deeds_after", _believe),
    ),
    "forged webhooks are accepted": lambda: (
        (webhook_signature._Verifier, "_matches", lambda *_: True),
    ),
    "old webhooks are accepted": lambda: ((webhook_signature, "TOLERANCE_SECONDS", 10**6),),
    "repeated webhooks are taken for new": lambda: ((receiver.Receiver, "_remember", _nothing),),
    "webhooks are forgotten by the next process": lambda: ((journal.Journal, "heard", _nothing),),
    "webhooks that come too early are forgotten": lambda: ((hearing.Hearing, "keep", _nothing),),
    "webhooks bring no check forward": lambda: ((webhooks.Webhooks, "_look_soon", _nothing),),
    "webhooks that have stopped are waited for": lambda: ((ears.Ear, "why_deaf", lambda _: None),),
    "nobody asks whether webhooks arrive": lambda: ((ears.Ears, "expect", _nothing),),
}


def singing(name: str):
    """With this bug in."""
    return patched(*CANARIES[name]())
