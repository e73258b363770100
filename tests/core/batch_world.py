"""The world with batches: requests that go out as lines, and a referee who keeps book of them."""

from dataclasses import replace

from orchestrator.core import actions, events
from orchestrator.core.failures import Failure
from orchestrator.core.model import Family, Request, Seen, Status
from orchestrator.core.rules import Rules
from orchestrator.core.scheduler import Scheduler

from .pretend_batches import BatchFate, BatchServer
from .pretend_server import FAILURES, Trouble
from .world import BODY, Referee, World

# Days are made minutes: a look a minute would take long. No bound on attempts is reached by what
# befalls one request, so the outcome must be its fate's own.
BATCH_RULES = Rules(
    attempts_max=20,
    malformed_max=20,
    deadline_seconds=600.0,
    batch_deadline_seconds=20_000.0,
    batch_window_seconds=1_000.0,
    batch_late_seconds=100.0,
    batch_cancel_grace_seconds=50.0,
)
GOOD = BatchFate()


class BatchReferee(Referee):
    """Knows besides where each line is."""

    def __init__(self, server):
        super().__init__()
        self.server: BatchServer = server
        self.carried_by = {}  # the batch that a line is in, by the number of its run
        self.lost = set()  # ids of batches whose create was not answered
        self.left = set()  # ids of batches that nobody waits for any more
        self.sent, self.dropped = set(), set()
        self.cancelled = set()  # batches whose cancel was sent
        self.now = 0.0

    def call(self, call, now):
        super().call(call, now)
        if isinstance(call, actions.CreateRun) and call.request.family is Family.BATCH:
            assert call.number not in self.dropped
            assert bool(call.lines) == (call.prepared is None), "lines are for the upload"
            self.sent.add(call.number)
            for line in call.lines:
                self._line_is_sent(call.number, line)
        elif isinstance(call, actions.FetchResult) and call.request.family is Family.BATCH:
            assert all(self.carried_by[line.number] == call.number for line in call.lines)
        elif isinstance(call, actions.CancelRun) and call.request.family is Family.BATCH:
            self.cancelled.add(call.number)

    def _line_is_sent(self, batch, line):
        number = line.number
        assert number not in self.results, f"run {number} has ended"
        assert number not in self.out, f"run {number} is out by itself"
        assert self.carried_by.setdefault(number, batch) == batch, f"{number} is in two batches"
        call_ids = [output.call_id for output in line.outputs]
        assert call_ids == self.asked.get(number, []), "outputs are missing or in disorder"
        assert not self.accepted & {(number, call_id) for call_id in call_ids}

    def batch_made(self, run_id, now):
        """A batch is on the server now; no other one that is awaited may have a line of it."""
        made = self.server.batches[run_id]
        for other in self.server.batches.values():
            if other is made or other.run_id in self.lost | self.left:
                continue
            if self.server.is_pending(other.run_id, now):
                assert not set(made.numbers) & set(other.numbers), "lines are in two batches"

    def line(self, event, now):
        """A line of a file was read."""
        number = event.number
        if number in self.results or self.carried_by.get(number) != event.batch:
            return
        del self.carried_by[number]
        if isinstance(event.answer, Failure):
            return
        if number in self.asked:
            self.accepted |= {(number, call_id) for call_id in self.asked.pop(number)}
        self._saw(number, event.answer, now)
        self.run_ids.pop(number, None)

    def _saw(self, number, seen, now):
        if number < 0:  # a batch keeps its id, also when it was refused
            seen = replace(seen, status=Status.PENDING)
        super()._saw(number, seen, now)

    def deed(self, deed):
        super().deed(deed)
        match deed:
            case actions.DropBatch(number=number, run_id=run_id):
                assert number not in self.dropped, "a batch is over twice"
                self.dropped.add(number)
                self.left.add(run_id)
                carried = [n for n, batch in self.carried_by.items() if batch == number]
                if carried and run_id and number not in self.cancelled:
                    assert not self.server.is_pending(run_id, self.now), "given up too early"
                for line in carried:
                    del self.carried_by[line]
            case actions.RecordOutcome(number=number):
                self.carried_by.pop(number, None)


class BatchWorld(World):
    """Requests go by batch where their fate says so; batches have fates in the order of need."""

    def __init__(
        self,
        fates,
        seed,
        *,
        batches=(),
        lines=(),
        rules=BATCH_RULES,
        scheduler_type=Scheduler,
        creates_stop_at=None,
    ):
        super().__init__(
            fates,
            seed,
            rules=rules,
            scheduler_type=scheduler_type,
            creates_stop_at=creates_stop_at,
        )
        ends = [list(lines[n]) if n < len(lines) else [] for n in range(len(fates))]
        self.batch_server = BatchServer(self.server, self.fates, [[], *ends])
        self.referee = BatchReferee(self.batch_server)
        self.batch_fates = list(batches)
        self.batch_troubles = {}

    def run(self):
        results = super().run()
        totals = self.scheduler.totals
        assert (totals.lines_out, totals.lines_answered_there, totals.batches_open) == (0, 0, 0)
        assert not self.referee.carried_by
        assert self.referee.sent <= self.referee.dropped, "nobody was told that a batch is over"
        return results

    def _request(self, number, fate):
        if not fate.via_batch:
            return super()._request(number, fate)
        return Request(f"r{number}", "/v1/x", fate.family, "m", 10, BODY, via_batch=True)

    def _tell(self, event):
        self.referee.now = self.now
        if isinstance(event, events.LineAnswered):
            self.referee.line(event, self.now)
        super()._tell(event)

    def _send(self, call):
        is_group = isinstance(call, actions.CheckRuns)
        run = call.runs[0] if is_group else call
        if run.request.family is not Family.BATCH:
            super()._send(call)
        elif isinstance(call, actions.CheckRuns):
            self._send_check(call)
        elif isinstance(call, actions.FetchResult):
            self._send_fetch(call)
        else:
            at = self.now + self._call_seconds()
            send = self._send_create if isinstance(call, actions.CreateRun) else self._send_cancel
            self._later(at, send(call, self._batch_trouble(call)), call.number)

    def _fate_of(self, number) -> BatchFate:
        return self.batch_fates[-number - 1] if -number <= len(self.batch_fates) else GOOD

    def _batch_trouble(self, call):
        number = call.runs[0].number if isinstance(call, actions.CheckRuns) else call.number
        troubles = self.batch_troubles.setdefault(number, list(self._fate_of(number).troubles))
        trouble = troubles.pop(0) if troubles else Trouble.NONE
        return self._fitting(trouble, call)

    def _fitting(self, trouble, call):
        if trouble is Trouble.MISSING and not isinstance(call, actions.CheckRuns):
            return Trouble.NONE
        if trouble is Trouble.BUSY and isinstance(call, actions.CancelRun):
            return Trouble.BROKEN
        return trouble

    def _send_create(self, call, trouble):
        if call.prepared is None:
            return self._uploaded(call, trouble)
        file_id, lost = call.prepared.split()
        if call.lost > int(lost):
            return self._looked_for(call, file_id, trouble)
        if trouble not in {Trouble.NONE, Trouble.LOST_AFTER}:
            return events.CreateFailed(call.number, FAILURES[trouble])
        fate, name = self._fate_of(call.number), call.request.custom_id
        seen = self.batch_server.create(name, file_id, fate, self.now)
        self.referee.batch_made(seen.run_id, self.now)
        if trouble is Trouble.LOST_AFTER:
            self.referee.lost.add(seen.run_id)
            return events.CreateFailed(call.number, FAILURES[trouble])
        return events.RunCreated(call.number, seen)

    def _uploaded(self, call, trouble):
        if trouble is not Trouble.NONE:
            return events.CreateFailed(call.number, _costs_nothing(trouble))
        file_id = self.batch_server.upload(tuple(line.number for line in call.lines))
        return events.RunPrepared(call.number, b"%s %d" % (file_id, call.lost))

    def _answer_to(self, number, call):
        if isinstance(call, actions.SubmitToolOutputs) and call.request.via_batch:
            # The conversation goes along, so the id of the batch before it is of no use.
            call = replace(call, run_id=self.server.newest(call.request.custom_id))
        return super()._answer_to(number, call)

    def _looked_for(self, call, file_id, trouble):
        if trouble is not Trouble.NONE:
            return events.CreateFailed(call.number, _costs_nothing(trouble))
        seen = self.batch_server.find(call.request.custom_id, self.now)
        if seen is None:
            return events.RunPrepared(call.number, b"%s %d" % (file_id, call.lost))
        self.referee.lost.discard(seen.run_id)
        found = Seen(seen.run_id, seen.status, seen.said, error=seen.error, found=True)
        return events.RunCreated(call.number, found)

    def _send_cancel(self, call, trouble):
        answer = FAILURES.get(trouble)
        if trouble in {Trouble.NONE, Trouble.LOST_AFTER}:
            done = self.batch_server.cancel(call.run_id, self.now)
            answer = answer or done
        kind = events.CancelFailed if isinstance(answer, Failure) else events.CancelAccepted
        return kind(call.number, answer)

    def _send_check(self, call):
        trouble = self._batch_trouble(call)
        at = self.now + self._call_seconds()
        for run in call.runs:
            if trouble not in {Trouble.NONE, Trouble.MISSING}:
                event = events.CheckFailed(run.number, FAILURES[trouble])
            elif call.group and (
                trouble is Trouble.MISSING or not self.batch_server.is_listed(run.run_id, self.now)
            ):
                event = events.RunMissing(run.number)
            elif trouble is Trouble.MISSING:
                event = events.CheckFailed(run.number, FAILURES[trouble])
            else:
                seen = self.batch_server.check(run.run_id, self.now)
                event = events.RunSeen(run.number, seen)
            self._later(at, event, run.number)

    def _send_fetch(self, call):
        """One file; its lines are told before the end of it is. It may break off in the middle."""
        trouble = self._batch_trouble(call)
        at = self.now + self._call_seconds()
        number, finished = call.number, call.finished
        name, *files = finished.continuation.decode().split(",")
        if trouble not in {Trouble.NONE, Trouble.LOST_AFTER}:
            self._later(at, events.FetchFailed(number, FAILURES[trouble]), number)
            return
        lines = call.lines[::2] if trouble is Trouble.LOST_AFTER else call.lines
        for line, answer in self.batch_server.read(call.run_id, name, lines, self.now):
            for _ in range(1 + self._fate_of(number).comes_twice):
                self._later(at, events.LineAnswered(number, line, answer))
        if trouble is Trouble.LOST_AFTER:
            self._later(at, events.FetchFailed(number, FAILURES[trouble]), number)
            return
        rest = ",".join(files).encode() or None
        left = Seen(finished.run_id, finished.status, finished.said, continuation=rest)
        self._later(at, events.ResultFetched(number, left), number)


def _costs_nothing(trouble):
    """To upload and to look can be done again: what they did is not paid for."""
    return FAILURES[Trouble.BROKEN if trouble is Trouble.LOST_AFTER else trouble]
