"""What follows from a webhook, and from none: runs are looked at now, or polled."""

from collections.abc import Callable, Iterator

from orchestrator.core import events
from orchestrator.core.actions import Deed, TellOfWebhooks
from orchestrator.core.families import told_by
from orchestrator.core.model import Family
from orchestrator.core.roster import Roster
from orchestrator.core.runs import Run
from orchestrator.core.states import AT_WORK, CALL_OUT, State

# When a family is polled from now on, its runs are looked at within so long: at once, but not all
# at the same moment.
SPREAD_SECONDS = 1.0

# Where an event may be about what was not noticed yet. Elsewhere it tells nothing new.
_EXPECTED_IN = AT_WORK | {State.CREATING, State.SUBMITTING}


class Webhooks:
    """Brings checks forward. Only a check says how a run stands, so nothing here changes that."""

    def __init__(self, roster: Roster, chance: Callable[[], float]) -> None:
        self._roster = roster
        self._hearing = roster.hearing
        self._chance = chance

    def arrived(self, event: events.WebhookArrived, now: float) -> Iterator[Deed]:
        told = told_by(event.type)
        if told is None or not self._hearing.is_on:
            return
        family, about = told
        confirms = self._hearing.confirms(event.run_id, told)
        number = self._hearing.number_of(event.run_id)
        run = None if number is None else self._roster.runs.get(number)
        if run is not None and run.request.family is family and run.state in _EXPECTED_IN:
            # Also where it may be the late one about the turn before: a look tells.
            self._look_soon(run, event.type, now)
            self._hearing.hear(family, about, now)
        elif confirms:
            self._hearing.hear(family, about, now)
        elif run is None:
            self._hearing.keep(event.run_id, told)
        else:
            self._roster.totals.webhooks_late += 1
        yield from ()

    def _look_soon(self, run: Run, said: str, now: float) -> None:
        self._roster.story.tell(now, run.number, "webhook", said)
        # What is answered to a call that is out may be older than the event.
        self._hearing.tell(run, now, looks=0 if run.state in CALL_OUT else 1)
        # Where a check failed its next time is the server's word, and soon.
        is_well = run.failures == run.waits == 0
        if run.state is State.RUNNING and run.due_at > now and is_well:
            self._roster.line_up(run, now)

    def time_passed(self, now: float) -> None:
        self._hearing.judge(now)
        for family in list(self._hearing.probes(now)):
            run = self._next_probe(family, now)
            if run is not None:
                self._roster.story.tell(now, run.number, "probe", "nothing was heard for a while")
                self._roster.line_up(run, now)
            self._hearing.probed(family, run=run, now=now)

    def _next_probe(self, family: Family, now: float) -> Run | None:
        """The run that waits for an event and was looked at the longest time ago.

        One whose check failed waits for the server, and would be the oldest each time.
        """
        well = (run for run in self._runs_of(family) if run.failures == run.waits == 0)
        waiting = (run for run in well if run.due_at > now)
        return min(waiting, key=lambda run: run.pending_at, default=None)

    def changes(self, now: float) -> Iterator[Deed]:
        """What was decided about families since; runs of those that are silent are looked at."""
        for change in self._hearing.take_changes():
            if not change.are_heard:
                for run in self._runs_of(change.family):
                    if run.due_at > now + SPREAD_SECONDS and run.failures == run.waits == 0:
                        self._roster.wake(run, now + SPREAD_SECONDS * self._chance())
            yield TellOfWebhooks(change.family, change.are_heard, change.why)

    def _runs_of(self, family: Family) -> list[Run]:
        """Those that wait on the server for nothing but their time."""
        runs = (self._roster.runs.get(number) for number in self._hearing.numbers())
        return [
            run
            for run in runs
            if run is not None and run.request.family is family and run.state is State.RUNNING
        ]
