"""What must be true of the scheduler between any two events; every test ends by asking."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from orchestrator.core.budget import NOTHING
from orchestrator.core.families import FACTS
from orchestrator.core.roster import NEVER, WANTED_IN, Roster
from orchestrator.core.runs import Run
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.states import AT_WORK, CALL_OUT, DONE, State
from orchestrator.errors import InvariantBroken


def check(scheduler: Scheduler) -> None:
    """Look at everything; the cost grows with the number of runs in flight.

    Raises:
        InvariantBroken: Something is wrong; it carries the story of the run.
    """
    roster = scheduler.roster
    for run in roster.runs.values():
        for wrong in chain(_wrong_with(run, roster), _wrong_with_batch(run, roster)):
            raise InvariantBroken(what=wrong, story=roster.story.of(run.number))
    for wrong in _wrong_with_counts(roster):
        raise InvariantBroken(what=wrong, story="(about all runs)")


def _wrong_with(run: Run, roster: Roster) -> Iterator[str]:
    scheduled = run.number in roster.schedule
    if run.state is State.ENDED:
        yield f"run {run.number} has ended and is still held"
    if run.state in CALL_OUT and scheduled and run.stop is None:
        yield f"run {run.number} is planned while a call for it is out ({run.state})"
    waits_its_turn = run.state is State.WAITING and not roster.is_first_on_thread(run)
    if (
        run.state in WANTED_IN
        and not scheduled
        and not _lined_up(run, roster)
        and not waits_its_turn
        and not _waits_for_batch(run, roster)
        and not roster.budget.holds(run)
    ):
        yield f"run {run.number} is watched by nobody ({run.state})"
    if run.state is State.TOOLS:
        if run.answering is None or run.answering.complete:
            yield f"run {run.number} waits for tools that have all answered"
        if run.deadline_at < NEVER and not scheduled:
            yield f"run {run.number} waits for tools without a deadline"
    if run.state is State.ANSWERED and (run.answering is None or not run.answering.complete):
        yield f"run {run.number} has tool outputs missing"
    if run.answering is not None and run.answered & run.answering.outputs.keys():
        yield f"run {run.number} answers a tool call twice"
    if run.state is State.RUNNING and not run.run_id:
        yield f"run {run.number} runs without an id"


def _wrong_with_batch(run: Run, roster: Roster) -> Iterator[str]:
    if run.batch is not None and run.batch.number not in roster.runs:
        yield f"run {run.number} waits for a batch that is over"
    sent_by_batch = run.state is State.CREATING or run.state is State.SUBMITTING
    if run.request.via_batch and not run.direct and sent_by_batch and run.batch is None:
        yield f"run {run.number} waits for a line of no batch ({run.state})"
    shard = run.shard
    if shard is None:
        return
    if any(shard.runs[n].batch is not run for n in shard.runs):
        yield f"batch {run.number} carries what does not know of it"
    if not shard.runs and run.stop is None and run.state not in DONE:
        yield f"batch {run.number} carries nothing, and goes on ({run.state})"
    sent = {State.CREATING, State.SUBMITTING}
    if any((each.state in sent) is not bool(shard.places) for each in shard.runs.values()):
        yield f"batch {run.number} carries runs in other states than its own"


def _lined_up(run: Run, roster: Roster) -> bool:
    want = WANTED_IN[run.state]
    return run.number in roster.lane_for(run, want).waiting[want]


def _waits_for_batch(run: Run, roster: Roster) -> bool:
    """In an open shard, in a batch that was not sent yet, or as such a batch, for room."""
    packing = roster.packing
    return run.batch is not None or packing.holds(run) or packing.queue.holds(run)


def _wrong_with_counts(roster: Roster) -> Iterator[str]:
    totals = roster.totals
    if totals.in_flight + totals.batches_open != len(roster.runs):
        yield f"{totals.in_flight} in flight by the counts, {len(roster.runs)} held"
    shards = [run.shard for run in roster.runs.values() if run.shard is not None]
    lines_out = sum(len(shard.runs) for shard in shards if shard.places)
    if totals.lines_out != lines_out:
        yield f"{totals.lines_out} lines out by the counts, {lines_out} in batches"
    by_state = Counter(run.state for run in roster.runs.values() if run.shard is None)
    if by_state != +totals.in_state:
        yield f"states counted as {dict(+totals.in_state)}, found {dict(by_state)}"
    yield from _wrong_with_budget(roster)
    yield from _wrong_with_hearing(roster)
    if len(roster.schedule) > len(roster.runs):
        yield f"{len(roster.schedule)} planned, {len(roster.runs)} held"


def _wrong_with_hearing(roster: Roster) -> Iterator[str]:
    hearing = roster.hearing
    known = {run.run_id: run for run in roster.runs.values() if hearing.holds(run)}
    if hearing.size != len(known):
        yield f"{hearing.size} runs are told by their ids, {len(known)} are held"
    for run in roster.runs.values() if hearing.is_on else ():
        # A server may give one id to two runs; the newer one is told then, and may be over.
        awaits = FACTS[run.request.family].sends_webhooks and run.state in AT_WORK
        if awaits and not hearing.has_known(run.run_id):
            yield f"events about run {run.number} would not find it"


def _wrong_with_budget(roster: Roster) -> Iterator[str]:
    budget = roster.budget
    if not budget.is_limited:
        return
    runs = [run for run in roster.runs.values() if run.shard is None]
    holders = [run for run in runs if run.reserved]
    reserved = sum((budget.estimate(run.request) for run in holders), NOTHING)
    if (len(holders), reserved) != (budget.holders, budget.reserved):
        yield f"{budget.reserved} reserved by the books, {reserved} held"
    if any(run.reserved for run in runs if budget.holds(run)):
        yield "a run with a reservation waits for one"
    assumed = [budget.assumed_for(run.request, run.lost_assumed) for run in runs]
    counted = sum(run.usage.total_tokens for run in runs)
    if budget.spent.tokens < counted + sum(amount.tokens for amount in assumed):
        yield f"{budget.spent.tokens} tokens spent by the books, more by the runs in flight"
    if budget.waits and not budget.holders:
        yield "runs wait for money that nobody gives back"
    works = {State.CREATING, *AT_WORK}
    if any(run.state in works and not run.reserved for run in runs):
        yield "a run is at work without a reservation"
