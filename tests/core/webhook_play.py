"""A crowd of runs in virtual time, and a way for their events that may lose, delay and double."""

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count

from orchestrator.core import invariants
from orchestrator.core.actions import (
    CheckRuns,
    CreateRun,
    FetchResult,
    RecordOutcome,
    TellOfWebhooks,
)
from orchestrator.core.events import (
    RequestAdmitted,
    ResultFetched,
    RunCreated,
    RunSeen,
    TimePassed,
    WebhookArrived,
)
from orchestrator.core.families import FACTS
from orchestrator.core.model import Family, Seen, Status
from orchestrator.core.rules import Rules
from orchestrator.core.scheduler import Scheduler

from .play import request

GAP_SECONDS = 300.0
CALL_SECONDS = 0.05
ENDS_AS = {
    Family.RESPONSES: "response.completed",
    Family.AGENT_SESSIONS: "agent.session.idle",
    Family.BATCH: "batch.completed",
}


@dataclass
class Crowd:
    """Runs that are created at a rate and last as long as `lasts` says.

    `delays` gives, for the end of a run, after how many seconds each of its events arrives; none
    where it is lost.
    """

    runs: int
    lasts: object  # chance -> seconds
    delays: object = lambda chance, at: [0.1]
    family: Family = Family.RESPONSES
    per_second: float = 50.0
    gap_seconds: float | None = GAP_SECONDS
    seed: int = 0
    calls: int = 0  # status calls
    late_of: dict = field(default_factory=dict)  # seconds from an end to our noticing
    checks_of: Counter = field(default_factory=Counter)
    ended_at: dict = field(default_factory=dict)
    changes: list = field(default_factory=list)
    now: float = 0.0

    def play(self):
        self.chance = random.Random(self.seed)  # noqa: S311 - a simulation's chance
        rules = Rules(deadline_seconds=1e6, webhook_gap_seconds=self.gap_seconds)
        self.scheduler = Scheduler(rules, self.chance.random)
        self._to_come, self._tickets = [], count()
        self.results = {}
        for number in range(1, self.runs + 1):
            at = number / self.per_second
            self._later(at, RequestAdmitted(number, request(f"r{number}", family=self.family)))
        while self.scheduler.in_flight or self._to_come:
            self._hand_out()
            moments = [self._to_come[0][0]] if self._to_come else []
            if (due_at := self.scheduler.next_due()) is not None:
                moments.append(due_at)
            self.now = max(self.now, min(moments))
            while self._to_come and self._to_come[0][0] <= self.now:
                self._tell(heapq.heappop(self._to_come)[2])
            due_at = self.scheduler.next_due()
            if due_at is not None and due_at <= self.now:
                self._tell(TimePassed())
        invariants.check(self.scheduler)
        return self

    @property
    def late(self):
        return sorted(self.late_of.values())

    @property
    def calls_per_run(self):
        return self.calls / self.runs

    @property
    def totals(self):
        return self.scheduler.totals

    def _later(self, at, event):
        heapq.heappush(self._to_come, (at, next(self._tickets), event))

    def _tell(self, event):
        if isinstance(event, RunSeen) and event.seen.status is not Status.PENDING:
            self.late_of[event.number] = self.now - self.ended_at[event.number]
        for deed in self.scheduler.handle(event, self.now):
            if isinstance(deed, RecordOutcome):
                self.results[deed.number] = deed.result
            elif isinstance(deed, TellOfWebhooks):
                self.changes.append((self.now, deed.are_heard, deed.why))

    def _hand_out(self):
        for lane in self.scheduler.busy_lanes():
            while (call := self.scheduler.next_call(lane, self.now)) is not None:
                self._send(call)

    def _send(self, call):
        at = self.now + CALL_SECONDS
        match call:
            case CreateRun(number=number):
                self.ended_at[number] = self.now + self.lasts(self.chance)
                self._later(at, RunCreated(number, self._seen(number, self.now)))
                for delay in self.delays(self.chance, self.ended_at[number]):
                    event = WebhookArrived(f"run_{number}", ENDS_AS[self.family])
                    self._later(self.ended_at[number] + delay, event)
            case CheckRuns(runs=runs):
                self.calls += 1
                for run in runs:
                    self.checks_of[run.number] += 1
                    self._later(at, RunSeen(run.number, self._seen(run.number, self.now)))
            case FetchResult(number=number, finished=finished):
                self._later(at, ResultFetched(number, replace(finished, continuation=None)))

    def _seen(self, number, now):
        ended_at = self.ended_at[number]
        if now < ended_at:
            return Seen(f"run_{number}", Status.PENDING, "in_progress")
        # Sessions don't say when they ended.
        ago = now - ended_at if FACTS[self.family].runs_per_check == 1 else None
        return Seen(f"run_{number}", Status.COMPLETED, "completed", finished_seconds_ago=ago)
