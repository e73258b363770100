"""Bugs put in on purpose: a simulation that does not find them finds nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from orchestrator import driver
from orchestrator.adapters import result_file
from orchestrator.adapters.journal import journal, lock
from orchestrator.adapters.limiter import limiter
from orchestrator.core import events, replay
from orchestrator.core.actions import CancelRun, SubmitToolOutputs
from orchestrator.core.failures import Cause
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
}


def singing(name: str):
    """With this bug in."""
    return patched(*CANARIES[name]())
