"""Short words for the tests of batches: the ways of a shard, and what is seen of a batch."""

from orchestrator.core.actions import CheckRuns, CreateRun, DropBatch, FetchResult
from orchestrator.core.events import LineAnswered, RunCreated, RunPrepared
from orchestrator.core.lanes import BATCH_LANE
from orchestrator.core.model import BatchSeen, Family, RunError, Seen, Status

from .play import Play, ended, pending

# Longer than a shard waits for more, shorter than anything else.
IDLE_SECONDS = 2.0


def batch_seen(status, code=None, *, files=b"", run_id="batch_1", said="", hint=None, **batch):
    """What a check says of a batch; `files` are those that are still to be read."""
    return Seen(
        run_id,
        status,
        said or status.value,
        error=None if code is None else RunError(code, f"told as {code}"),
        look_again_seconds=hint,
        continuation=files or None,
        batch=BatchSeen(**batch),
    )


def dropped(deeds) -> list[int]:
    """The batches that are over."""
    return [deed.number for deed in deeds if isinstance(deed, DropBatch)]


def packed_again(play, *numbers, after_seconds=0.5):
    """These lines are in the next batch that goes out."""
    play.wait(after_seconds)
    play.wait(IDLE_SECONDS)
    return play.uploads() == [list(numbers)]


class BatchPlay(Play):
    """Requests go by batch; batches have the numbers -1, -2 and so on."""

    def __init__(self, **rules):
        super().__init__(family=Family.DIRECT, **rules)

    def admit(self, *numbers, **of):
        return super().admit(*numbers, via_batch=True, **of)

    def batch_call(self):
        """The next call about a batch, if one can go out now."""
        return self.call(BATCH_LANE) if BATCH_LANE in self.scheduler.roster.lanes else None

    def batch_calls(self):
        return self.calls(BATCH_LANE) if BATCH_LANE in self.scheduler.roster.lanes else []

    def closed(self, *numbers, **of):
        """Their shard is closed, and waits to be uploaded."""
        assert self.admit(*numbers, **of) == []
        assert self.wait(IDLE_SECONDS) == []
        return self

    def uploads(self) -> list[list[int]]:
        """What the batches carry that can go out now; the first is on trial, it is answered."""
        found = []
        while (call := self.batch_call()) is not None:
            assert isinstance(call, CreateRun), call
            assert call.prepared is None, call
            found.append([line.number for line in call.lines])
            self.prepared(call.number)
            assert isinstance(self.take_create(call.number), CreateRun)
        return found

    def take_create(self, number=-1) -> CreateRun:
        """The create after the upload, which goes before other uploads."""
        call = self.batch_call()
        assert (call.number, bool(call.prepared)) == (number, True)
        return call

    def prepared(self, number=-1):
        return self.tell(RunPrepared(number, b"file"))

    def created(self, number=-1, seen=None):
        return self.tell(RunCreated(number, seen or pending(f"batch_{-number}")))

    def out(self, *numbers, **of):
        """They are in a batch that is on the server; it has the next number below 0."""
        self.closed(*numbers, **of)
        call = self.batch_call()
        assert [line.number for line in call.lines] == list(numbers)
        self.prepared(call.number)
        self.take_create(call.number)
        assert self.created(call.number) == []
        return self

    def check_batch(self) -> CheckRuns:
        """Wait until the next check of a batch is due, and take it."""
        while True:
            assert self.wait_until_due() == []
            if (call := self.batch_call()) is not None:
                assert isinstance(call, CheckRuns), call
                return call

    def looked_at(self, seen, number=-1):
        """A check is due, and this is seen."""
        self.check_batch()
        return self.seen(seen, number)

    def files_at(self, *numbers, status=Status.COMPLETED):
        """The batch of these requests has ended with a file, which is being read."""
        self.out(*numbers)
        assert self.looked_at(batch_seen(status, files=b"output")) == []
        assert isinstance(self.batch_call(), FetchResult)
        return self

    def line(self, number, answer=None, batch=-1):
        """This line of the file is read."""
        return self.tell(LineAnswered(batch, number, answer or ended(run_id=f"answer_{number}")))

    def file_read(self, status=Status.COMPLETED, *, files=b"", number=-1):
        """The file has been read; `files` are those that are left."""
        return self.fetched(batch_seen(status, files=files, run_id=f"batch_{-number}"), number)
