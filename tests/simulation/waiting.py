"""What must be true at any moment of runs that wait for webhooks, and of what is kept of these."""

from orchestrator.core.ears import NEVER
from orchestrator.core.families import FACTS
from orchestrator.core.hearing import IDS_MAX
from orchestrator.core.looking import _kind
from orchestrator.core.model import Family
from orchestrator.core.polling import JITTER, KEPT_PART_MAX
from orchestrator.core.rules import Rules
from orchestrator.core.states import State

# The longest gaps between two checks of a run that is polled; for lists, when few are left.
CAP_SECONDS = {
    Family.RESPONSES: Rules().polling.gap_seconds_max * (1 + JITTER),
    Family.AGENT_SESSIONS: Rules().polling.thin_gap_seconds_max * (1 + JITTER),
    Family.BATCH: Rules().batch_polling.gap_seconds_max * (1 + JITTER),
}

# Where some runs have ended their lifetimes may be known: then looks are as far apart as is best,
# but never further than half the time for which a result is kept.
KNOWN_FROM = 3
KNOWN_CAP_SECONDS = FACTS[Family.RESPONSES].keeps_result_seconds * KEPT_PART_MAX

# How much later than at its time something is done, when the driver waits for the disk.
LATE_SECONDS = 5.0


def wrong_with_waiting(scheduler, now):
    """Runs that nobody would look at in time, and what is kept for nothing."""
    roster = scheduler.roster
    hearing = roster.hearing
    for run in roster.runs.values():
        ears = hearing._ears.get(run.request.family)
        if ears is None or run.state is not State.RUNNING or run.failures or run.waits:
            continue
        cap_seconds = _cap_seconds(scheduler, run)
        is_far = run.due_at > now + cap_seconds
        if is_far and ears.are_deaf:
            yield f"run {run.number} is not polled, and {run.request.family} is deaf"
        elif is_far and ears.probe_at == NEVER:
            yield f"run {run.number} waits for an event, and nobody asks whether these come"
        if run.due_at > now + max(hearing._gap_seconds, cap_seconds):
            yield f"run {run.number} is looked at in {run.due_at - now:.0f} s only"
    if not hearing._told.keys() <= roster.runs.keys():
        yield "what was told of runs outlives them"
    if not hearing._early.keys().isdisjoint(hearing._number_of):
        yield "an event waits for a run that is there"
    if max(len(hearing._early), len(hearing._over)) > IDS_MAX:
        yield "more ids are kept than may be"
    overdue = [each for each in hearing._noticed.values() if each.judged_at + LATE_SECONDS < now]
    if overdue or len(hearing._noticed) > len(hearing._to_judge):
        yield f"ends wait to be judged that should have been: {overdue}"


def _cap_seconds(scheduler, run):
    if run.request.family is Family.RESPONSES:
        learned = scheduler._course._looking._learned
        known = learned._kinds.get(_kind(run))
        if known is not None and known.lifetimes.runs >= KNOWN_FROM:
            return KNOWN_CAP_SECONDS
    return CAP_SECONDS[run.request.family]


def left_over(scheduler):
    """What is still kept of runs when there are none."""
    hearing = scheduler.roster.hearing
    if not scheduler.in_flight and (hearing._told or hearing.size):
        yield f"{hearing.size} runs are waited for, {len(hearing._told)} were told of; none is left"
