"""How soon what happened on the server was noticed, by the books of those who carried and served.

The bounds hold in calm plays, where nothing but webhooks and processes fails. They are computed
from what arrived where and when, and not from what the engine thinks of it.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from math import inf

from simulation.waiting import CAP_SECONDS

from orchestrator.core.ears import GRACE_SECONDS, MISSES_MAX, PROBE_SECONDS
from orchestrator.core.families import told_by
from orchestrator.core.model import Family
from orchestrator.core.webhooks import SPREAD_SECONDS

# With these faults every event comes, and in time.
HARMLESS = {"webhook_doubled", "webhook_forged", "webhook_early"}

LOOK_AT_RESPONSE = "GET /responses/{id}"


@dataclass(slots=True)
class Notices:
    """What happened on the server that webhooks tell of, and when a process was first shown it.

    Attributes:
        at: By the number of the event, when an answer that shows it was asked for.
        answered_at: By the id of a run, when the answer to its create arrived; and in
            `created_by` at which process, if that was alive.
        in_journal: By process, the ids that it found in the journal.
    """

    webhooks: object
    at: dict = field(default_factory=dict)
    answered_at: dict = field(default_factory=dict)
    created_by: dict = field(default_factory=dict)
    in_journal: dict = field(default_factory=dict)
    _open: list = field(default_factory=list)
    _seen: int = 0

    def created(self, run_id, process, at):
        """A process is told this id then, if it lives so long."""
        if run_id not in self.answered_at:
            self.answered_at[run_id], self.created_by[run_id] = at, process

    def on_answer(self, call, reply, now):
        """A call is answered, with what is so now."""
        sendings = self.webhooks._sendings
        while self._seen < len(sendings):
            sending = sendings[self._seen]
            self._seen += 1
            if told_by(sending.type) is not None:
                self._open.append(sending)
        if call.method != "GET" or reply.status != 200:
            return
        shown = [each for each in self._open if each.run_id.encode() in reply.body]
        for sending in shown:
            self.at[sending.number] = now
            self._open.remove(sending)


class Punctuality:
    """Looks at a calm play that is over."""

    def __init__(self, playing, knows):
        scenario = playing.scenario
        self._play = playing
        self._notices = playing.witness.notices
        self._heard = playing.postman.heard
        self._gap_seconds = scenario.settings.webhook_gap_seconds
        late = scenario.latency_seconds + scenario.commit_seconds_max
        self._slack_seconds = 1.0 + 4 * late
        # A run that we cancelled is looked at no more; of what nobody knows nothing is expected.
        self._happened = [
            sending
            for sending in playing.emulator.books.webhooks._sendings
            if told_by(sending.type) is not None
            and not sending.type.endswith("cancelled")
            and knows(sending.run_id)
        ]

    def wrong(self):
        """What was noticed too late, or looked at too often."""
        for process, ended in enumerate(self._play.processes, 1):
            self._process, self._ended = process, ended
            self._mine = [each for each in self._happened if self._has(each.run_id)]
            yield from self._later_than_the_net()
            yield from self._later_than_its_event()
            yield from self._not_polled()
        yield from self._too_many_looks()

    def _has(self, run_id):
        notices = self._notices
        if run_id in notices.in_journal.get(self._process, ()):
            return True
        is_new = notices.created_by.get(run_id) == self._process
        return is_new and notices.answered_at[run_id] < self._ended.until

    def _late(self, sending, since, seconds):
        """Whether it was not noticed in so many seconds since then, though a process was alive."""
        begins = max(
            since,
            sending.happened_at,
            self._ended.began_at,
            self._notices.answered_at[sending.run_id],
        )
        until = begins + seconds + self._slack_seconds
        return until < self._ended.until and self._notices.at.get(sending.number, inf) > until

    def _told(self, sending, what, since):
        at = self._notices.at.get(sending.number, inf)
        return (
            f"{sending.type} of {sending.run_id} at {sending.happened_at:.1f} is noticed at "
            f"{at:.1f}: {what} {since:.1f} (process {self._process})"
        )

    def _later_than_the_net(self):
        for sending in self._mine:
            family, _ = told_by(sending.type)
            if self._late(sending, 0.0, max(self._gap_seconds, CAP_SECONDS[family])):
                yield self._told(sending, "the gap began at", sending.happened_at)

    def _later_than_its_event(self):
        heard_at = {each.number: each.at for each in self._heard if each.process == self._process}
        for sending in self._mine:
            at = heard_at.get(sending.number)
            if at is not None and self._late(sending, at, 0.0):
                yield self._told(sending, "its event came at", at)

    def _not_polled(self):
        """When enough has happened without a word, what happens next is found by polling."""
        by_kind = defaultdict(list)
        for sending in self._mine:
            by_kind[told_by(sending.type)].append(sending)
        for (family, about), happened in by_kind.items():
            deaf_at = self._deaf_at(family, about, happened)
            for sending in happened:
                if self._late(sending, deaf_at, SPREAD_SECONDS + CAP_SECONDS[family]):
                    yield self._told(sending, "nothing is heard any more since", deaf_at)

    def _deaf_at(self, family, about, happened):
        """When it must be known that no more events come; inf where they do."""
        kinds = {each.number: told_by(each.type) for each in self._happened}
        heard_at = max(
            (
                each.at
                for each in self._heard
                if each.process == self._process and kinds.get(each.number) == (family, about)
            ),
            default=-inf,
        )
        since = max(heard_at, self._ended.began_at)
        missed_at = sorted(
            self._notices.at.get(each.number, inf)
            for each in happened
            if self._notices.answered_at[each.run_id] > since
        )
        if len(missed_at) < MISSES_MAX:
            return inf
        return missed_at[MISSES_MAX - 1] + GRACE_SECONDS + self._slack_seconds

    def _too_many_looks(self):
        """Where every event comes a response is looked at when it has ended, and once."""
        server = self._play.scenario.server
        is_heard = server.faults.keys() <= HARMLESS and server.webhook_outage_from_seconds is None
        if not is_heard or len(self._play.processes) > 1:
            return
        ended_at = {
            each.run_id: each.happened_at
            for each in self._happened
            if told_by(each.type)[0] is Family.RESPONSES
        }
        looks = [
            record
            for record in self._play.emulator.books.calls(0, 10**9)
            if record.route == LOOK_AT_RESPONSE and record.run_id in ended_at
        ]
        after = defaultdict(int)
        for record in looks:
            after[record.run_id] += record.at_seconds >= ended_at[record.run_id]
        yield from (f"{name} is looked at {n} times" for name, n in after.items() if n > 1)
        seconds = self._play.machine.now()
        before = len(looks) - sum(after.values())
        if before > 1 + seconds / PROBE_SECONDS:
            yield f"{before} looks at responses at work, in {seconds:.0f} s"
