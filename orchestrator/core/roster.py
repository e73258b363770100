"""The runs in flight, where each stands, and what is planned for it.

Rules: a run's state changes in `move` and nowhere else. Whatever is done to a run is told to its
story. A run that waits for a permit is in the queue of its lane, and in the schedule at its
deadline; a run that waits for time is in the schedule only.
"""

from collections import deque

from orchestrator.core.groups import Groups
from orchestrator.core.lanes import Lane, Want
from orchestrator.core.model import Request
from orchestrator.core.rules import Rules
from orchestrator.core.runs import Run
from orchestrator.core.schedule import Schedule
from orchestrator.core.states import DONE, Change, State, next_state
from orchestrator.core.story import Story
from orchestrator.core.totals import Totals
from orchestrator.errors import TransitionImpossible

# What a run in this state waits for once its time has come.
WANTED_IN = {
    State.WAITING: Want.CREATE,
    State.RUNNING: Want.CHECK,
    State.ANSWERED: Want.SUBMIT,
    State.STOPPING: Want.CANCEL,
    State.FINISHED: Want.FETCH,
}
STATE_OF = {want: state for state, want in WANTED_IN.items()}

NEVER = float("inf")


class Roster:
    """All runs in flight."""

    def __init__(self, rules: Rules) -> None:
        self.runs: dict[int, Run] = {}
        self.schedule = Schedule()
        self.lanes: dict[str, Lane] = {}
        self.story = Story()
        self.totals = Totals()
        self.groups = Groups()
        self._threads: dict[str, deque[int]] = {}
        self._checks_lane = rules.checks_lane

    def admit(self, number: int, request: Request, now: float) -> Run:
        run = self.runs[number] = Run(number, request, due_at=now)
        totals = self.totals
        totals.admitted += 1
        totals.in_state[run.state] += 1
        totals.in_flight_max = max(totals.in_flight_max, len(self.runs))
        self.story.tell(now, number, "admitted", request.custom_id)
        return run

    def may_start(self, run: Run) -> bool:
        """Whether this new run's turn on its thread has come; else it is kept until it has."""
        if not run.request.thread:
            return True
        self._threads.setdefault(run.request.thread, deque()).append(run.number)
        return self.is_first_on_thread(run)

    def is_first_on_thread(self, run: Run) -> bool:
        waiting = self._threads.get(run.request.thread)
        return waiting is None or waiting[0] == run.number

    def _next_on_thread(self, run: Run) -> Run | None:
        """A run leaves its thread; the one whose turn has come, if it was the active one."""
        waiting = self._threads.get(run.request.thread)
        if waiting is None:
            return None
        was_active = waiting[0] == run.number
        waiting.remove(run.number)
        if not waiting:
            del self._threads[run.request.thread]
            return None
        return self.runs[waiting[0]] if was_active else None

    def move(self, run: Run, change: Change, now: float, detail: str = "") -> None:
        """Bring a run into the state that the table says."""
        before = run.state
        try:
            run.state = next_state(run.request.family, before, change)
        except KeyError:
            raise TransitionImpossible(
                number=run.number,
                family=run.request.family.value,
                state=before.value,
                change=change.value,
                story=self.story.of(run.number),
            ) from None
        self.totals.in_state[before] -= 1
        self.totals.in_state[run.state] += 1
        self.story.tell(now, run.number, change, detail)

    def wake(self, run: Run, due_at: float) -> None:
        """Look after this run at `due_at`, or at its deadline if that is earlier."""
        run.due_at = due_at
        until = due_at if run.state in DONE else min(due_at, run.deadline_at)
        self.schedule.put(run.number, until)

    def line_up(self, run: Run, now: float, *, first: bool = False) -> None:
        """Let this run wait for the permit that its state calls for."""
        want = WANTED_IN[run.state]
        run.due_at = min(run.due_at, now)
        queue = self.lane_for(run, want).waiting[want]
        if first:
            queue.appendleft(run.number)
        else:
            queue.append(run.number)
        self.watch_deadline(run)

    def watch_deadline(self, run: Run) -> None:
        if run.deadline_at < NEVER and run.state not in DONE:
            self.schedule.put(run.number, run.deadline_at)

    def watch_tools(self, run: Run) -> None:
        until = min(run.deadline_at, run.expires_at)
        if until < NEVER:
            self.schedule.put(run.number, until)

    def lane_for(self, run: Run, want: Want) -> Lane:
        of_model = want in {Want.SUBMIT, Want.CREATE} or self._checks_lane is None
        name = run.request.model if of_model else self._checks_lane or ""
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(name)
        return lane

    def head_of(self, lane: Lane, want: Want, now: float) -> Run | None:
        """The first run that really waits for this; entries whose run moved on are dropped."""
        queue = lane.waiting[want]
        while queue:
            run = self.runs.get(queue[0])
            if run is not None and run.state is STATE_OF[want] and run.due_at <= now:
                return run
            queue.popleft()
        return None

    def take_head(self, lane: Lane, want: Want) -> None:
        """The head of the queue is handed out: it waits for an answer now, not for time."""
        self.schedule.drop(lane.waiting[want].popleft())

    def forget(self, run: Run, now: float) -> None:
        self.schedule.drop(run.number)
        self.totals.in_state[run.state] -= 1
        self.groups.leave(run)
        del self.runs[run.number]
        following = self._next_on_thread(run)
        if following is not None and following.state is State.WAITING:
            self.line_up(following, now)
