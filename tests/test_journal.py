"""The journal while it is written: what is promised to the driver, and what a resume finds."""

from functools import partial

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.journals import (
    PENDING,
    Surroundings,
    copied,
    custom_ids,
    everything_written,
    failed,
    line_of,
    request_of,
    result_of,
)

from orchestrator.adapters.journal import (
    BALLAST_NAME,
    Facts,
    JournalFile,
    JournalReader,
    Unfinished,
    Unwritten,
    ballast,
)
from orchestrator.core import events
from orchestrator.core.entries import CreateSent
from orchestrator.core.failures import Cause, Failure
from orchestrator.core.model import Outcome, Usage
from orchestrator.errors import JournalFailed, OutputFailed


@pytest.fixture(autouse=True)
def _a_small_ballast(monkeypatch):
    """Megabytes take their time, and mean nothing where the disk is not full."""
    monkeypatch.setattr(ballast, "BALLAST_BYTES", 4096)


@pytest.fixture
def around():
    return Surroundings()


def admit(journal, number, custom_id=None, at=1.0):
    request = request_of(custom_id or f"r{number}", line=number)
    journal.admitted(number, request, at)
    return request


class TestThePromise:
    async def test_after_is_called_once_it_is_on_disk(self, tmp_path, around):
        """What was told before is in a copy of the files that is made at that very moment."""
        journal = around.journal(tmp_path)
        found = []
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            for number in range(1, 6):
                admit(journal, number)
                copy = tmp_path / f"copy{number}"
                journal.after(lambda copy=copy: found.append(custom_ids(copied(tmp_path, copy))))
                if number % 2:
                    await anyio.sleep(0.0005)
            await everything_written(journal)
            group.cancel_scope.cancel()
        journal.close()

        ids = [f"r{number}" for number in range(1, 6)]
        assert len(found) == 5
        for told, there in enumerate(found, 1):
            assert there[:told] == ids[:told]

    async def test_after_with_nothing_to_write(self, tmp_path, around):
        """It is called at once: whoever waits for nothing does not wait."""
        journal = around.journal(tmp_path)
        called = []

        journal.after(partial(called.append, 1))

        assert called == [1]
        journal.close()

    async def test_those_who_wait_are_called_in_their_order(self, tmp_path, around):
        """Also those who ask while others are being called."""
        journal = around.journal(tmp_path)
        called = []

        def first():
            called.append(1)
            journal.after(partial(called.append, 3))

        admit(journal, 1)
        journal.after(first)
        journal.after(partial(called.append, 2))
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            await everything_written(journal)
            group.cancel_scope.cancel()
        journal.close()

        assert called == [1, 2, 3]

    async def test_after_waits_for_what_is_being_written(self, tmp_path, around):
        """Nothing is pending, but a commit is on its way: on disk is only what it has written."""
        halfway, go_on = anyio.Event(), anyio.Event()

        async def slowly(work):
            halfway.set()
            await go_on.wait()
            return work()

        journal = around.journal(tmp_path, slowly)
        called = []
        admit(journal, 1)
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            await halfway.wait()
            journal.after(partial(called.append, 1))
            assert called == []
            go_on.set()
            await anyio.sleep(0.001)
            assert called == [1]
            group.cancel_scope.cancel()
        journal.close()

    async def test_many_entries_are_one_commit(self, tmp_path, around):
        """What is told while a commit is on its way goes into the next one, all of it."""
        journal = around.journal(tmp_path)
        commits = []
        journal._file._connection.set_trace_callback(
            lambda said: commits.append(said) if said == "COMMIT" else None
        )
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            for number in range(1, 251):
                admit(journal, number)
            await everything_written(journal)
            group.cancel_scope.cancel()

        assert len(commits) == 1
        journal.close()
        assert len(custom_ids(tmp_path)) == 250

    @pytest.mark.parametrize("is_begun", [False, True])
    async def test_cancelled_in_the_middle_of_a_commit(self, tmp_path, around, is_begun):
        """What was on its way is there once when the journal is closed, and so is the rest."""
        halfway, left_over = anyio.Event(), []

        async def abandoned(work):
            left_over.append(work)
            if is_begun:
                work()
            halfway.set()
            await anyio.sleep_forever()

        journal = around.journal(tmp_path, abandoned)
        request = admit(journal, 1)
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            await halfway.wait()
            journal.keep(CreateSent(1), 2.0)
            journal.ended(1, result_of(request), 3.0)
            group.cancel_scope.cancel()
        journal.close()
        left_over[0]()  # a thread that comes too late

        with JournalReader.open(tmp_path) as reader:
            assert [known.custom_id for known in reader.digests()] == ["r1"]
            assert [group.count for group in reader.ended_groups()] == [1]
            line = line_of(result_of(request))
            assert list(reader.unwritten()) == [Unwritten(1, is_completed=True, line=line)]

    @pytest.mark.real_time
    async def test_with_a_thread_of_its_own(self, tmp_path):
        """As a program runs it: the loop goes on, and a cancelled commit is finished first."""
        around = Surroundings()
        journal = around.journal(tmp_path, None)
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            for number in range(1, 101):
                admit(journal, number)
                journal.keep(CreateSent(number), 1.0)
                await anyio.lowlevel.checkpoint()
            await everything_written(journal)
            admit(journal, 101)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        journal.close()
        journal.close()

        assert custom_ids(tmp_path) == [f"r{number}" for number in range(1, 102)]


class TestResuming:
    async def test_everything_that_a_resume_needs(self, tmp_path, around):
        """Ended requests are counted, unfinished ones replayed in order, batches with them."""
        journal = around.journal(tmp_path)
        requests = {number: admit(journal, number) for number in range(1, 7)}
        gone = Failure(Cause.UNDONE, "undone")
        entries = [
            CreateSent(1),
            events.RunCreated(1, PENDING),
            CreateSent(-1, lines=(2, 3)),
            events.RunCreated(-1, PENDING),
            CreateSent(-2, lines=(4,)),
            events.LineAnswered(-1, 2, PENDING),
            CreateSent(5, group=7),
            events.LineAnswered(-1, 3, gone),
        ]
        for second, entry in enumerate(entries, 10):
            journal.keep(entry, float(second))
        journal.keep(events.StopRequested(5, Outcome.STOPPED, "", cancel_remote=False), 20.0)
        journal.ended(1, result_of(requests[1], usage=Usage(10, 5, 2, 1)), 21.0)
        journal.ended(2, failed(requests[2], "bad", "x" * 900), 22.0)
        journal.ended(4, result_of(requests[4], usage=Usage(1, 1, 1, 1)), 23.0)
        journal.ended(5, result_of(requests[5], Outcome.STOPPED), 24.0)
        journal.close()

        with JournalFile(tmp_path) as file:
            assert list(file.lines()) == [
                (1, True), (2, True), (3, False), (4, True), (5, False), (6, False)
            ]  # fmt: skip
            assert file.unfinished() == [
                Unfinished(number, f"r{number}", number, b"8 bytes.") for number in (3, 5, 6)
            ]
            assert [known.number for known in file.digests() if known.has_ended] == [1, 2, 4]
            replayed = list(file.replay(100.0))
            assert [entry for _, entry in replayed] == [
                entries[2], entries[3], entries[6], entries[7]
            ]  # fmt: skip
            assert (file.number_max, file.batch_number_min, file.group_max) == (6, -2, 7)
            done, broken = file.ended_groups()
            assert (done.outcome, done.count, done.sent) == (Outcome.COMPLETED, 2, 2)
            assert (done.usage, done.batch_usage) == (Usage(11, 6, 3, 2), Usage(2, 0, 0, 0))
            assert (done.code, done.message, done.custom_id) == ("", "", "r1")
            assert (broken.code, broken.model, broken.custom_id) == ("bad", "m", "r2")
            assert broken.message == "x" * 500
            assert [each.number for each in file.unwritten()] == [1, 2, 4]

    async def test_the_clock_stands_still_between_processes(self, tmp_path, around):
        """The last that was told is now, and the rest as long ago as work was done since."""
        journal = around.journal(tmp_path)
        admit(journal, 1, at=5.0)
        journal.keep(CreateSent(1), 7.0)
        journal.keep(events.RunCreated(1, PENDING), 9.0)
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            await everything_written(journal)
            group.cancel_scope.cancel()
        journal._file.close()  # as if it had been killed

        with JournalFile(tmp_path) as file:
            assert [at for at, _ in file.replay(1_000.0)] == [998.0, 1_000.0]
            await anyio.sleep(50.0)
            second = around.journal(file)
            started = anyio.current_time()
            second.keep(events.RunMissing(1), started + 3.0)
            second.close()

        with JournalFile(tmp_path) as file:
            assert [at for at, _ in file.replay(0.0)] == pytest.approx([-5.0, -3.0, 0.0])
            assert [session.number for session in file.sessions()] == [1, 2]
            assert file.sessions()[1].base_seconds == pytest.approx(9.0)

    async def test_numbers_and_order_go_on(self, tmp_path, around):
        """What a later process tells comes after what an earlier one told."""
        for number in (1, 2):
            journal = around.journal(tmp_path)
            if number == 1:
                admit(journal, 1)
            journal.keep(CreateSent(1, group=number), 1.0)
            journal.keep(events.CreateFailed(1, Failure(Cause.NOT_SENT, str(number))), 1.0)
            journal.close()

        with JournalReader.open(tmp_path) as reader:
            kept = [entry for _, entry in reader.entries()]
        assert [getattr(entry, "group", None) for entry in kept] == [1, None, 2, None]
        assert [entry.failure.message for entry in kept[1::2]] == ["1", "2"]

    def test_facts(self, tmp_path):
        """They are kept, also those that only another version knows."""
        with JournalFile(tmp_path) as file:
            assert file.facts is None
            file.set_facts(Facts(name="n", source="odd\udcff.jsonl", by_model={"m": 3}))
            text = file._note("facts").replace("{", '{"unheard_of":1,', 1)
            file._connection.execute("UPDATE notes SET value = ?", [text])
            file.set_facts(Facts(name="n", source="odd\udcff.jsonl", requests=3))

        with JournalReader.open(tmp_path) as reader:
            assert reader.facts == Facts(
                name="n", source="odd\udcff.jsonl", requests=3, by_model={"m": 3}
            )
            assert '"unheard_of":1' in reader._note("facts")

    async def test_other_lines_can_be_accepted(self, tmp_path, around):
        """From then on they are compared with what is there now."""
        journal = around.journal(tmp_path)
        admit(journal, 1)
        admit(journal, 2)
        journal.close()

        with JournalFile(tmp_path) as file:
            facts = Facts(requests=9)
            file.accept([(1, 7, b"8 bytes."), (2, 3, b"another.")], [], facts)
            assert [(known.line, known.digest) for known in file.digests()] == [
                (7, b"8 bytes."),
                (3, b"another."),
            ]
            assert file.facts == facts

    async def test_requests_in_flight_can_be_forgotten(self, tmp_path, around):
        """Those whose lines are gone, or all of them where the server is gone."""
        journal = around.journal(tmp_path)
        for number in (1, 2, 3):
            request = admit(journal, number)
        journal.ended(3, result_of(request), 3.0)
        journal.close()

        with JournalFile(tmp_path) as file:
            file.accept([], [2], Facts())
            assert [each.number for each in file.unfinished()] == [1]
            file.forget_unfinished()
            assert file.unfinished() == []
            assert file.ended_count == 1

    async def test_lines_that_are_written_leave_the_journal(self, tmp_path, around):
        """Once the result files are mended, nothing is to be written again."""
        journal = around.journal(tmp_path)
        journal.ended(1, result_of(admit(journal, 1)), 3.0)
        journal.close()

        with JournalFile(tmp_path) as file:
            assert len(list(file.unwritten())) == 1
            file.all_written(40, 2)
            assert list(file.unwritten()) == []
            assert file.written_bytes == (40, 2)

    async def test_failed_requests_can_be_reopened(self, tmp_path, around):
        """They are forgotten, but for their numbers and what they cost."""
        journal = around.journal(tmp_path)
        for number in (1, 2, 3):
            request = admit(journal, number)
            journal.keep(CreateSent(number), 2.0)
            journal.ended(number, failed(request) if number > 1 else result_of(request), 3.0)
        journal.close()

        with JournalFile(tmp_path) as file:
            file.all_written(40, 30)
            file.reopen([Outcome.FAILED, Outcome.EXPIRED], Facts(retries=1))
            assert file.facts == Facts(retries=1)
            assert file.written_bytes == (40, 0)
            assert list(file.lines()) == [(1, True)]
            assert [known.custom_id for known in file.digests()] == ["r1"]
            groups = {group.is_reopened: group for group in file.ended_groups()}
            assert (groups[False].outcome, groups[False].count) == (Outcome.COMPLETED, 1)
            assert (groups[True].outcome, groups[True].count) == (Outcome.FAILED, 2)
            assert file.unfinished() == []
            assert list(file.replay(0.0)) == []
            assert file.number_max == 3

    @given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
    @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_text(self, tmp_path_factory, custom_id, message):
        """Nothing that a user names and nothing that a server says can break it."""
        folder = tmp_path_factory.mktemp("any")

        async def tell():
            journal = Surroundings().journal(folder)
            request = request_of(custom_id, model=custom_id)
            journal.admitted(1, request, 1.0)
            journal.admitted(2, request, 1.0)
            huge = Usage(2**80, 0, 0, 0)
            result = result_of(request, Outcome.UNKNOWN, run_id=message, usage=huge)
            journal.ended(1, result, 1.0)
            journal.ended(2, failed(request, message, message), 1.0)
            journal.close()

        anyio.run(tell)
        with JournalReader.open(folder) as reader:
            assert [known.custom_id for known in reader.digests()] == [custom_id] * 2
            told = {(group.model, group.code, group.message) for group in reader.ended_groups()}
        assert told == {(custom_id, "", ""), (custom_id, message, message)}


class TestOutbox:
    async def test_lines_stay_until_they_are_safe_in_their_file(self, tmp_path, around):
        """The file is made safe first, then the line is let go and the sizes are kept."""
        journal = around.journal(tmp_path)
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            for number in (1, 2, 3):
                journal.ended(number, result_of(admit(journal, number)), 1.0)
            await everything_written(journal)
            journal.written(2, 100, 0)
            journal.written(1, 200, 7)
            assert around.synced == 0
            await anyio.sleep(2.5)
            assert around.synced == 1
            with JournalReader.open(tmp_path) as reader:
                assert [each.number for each in reader.unwritten()] == [3]
                assert reader.written_bytes == (200, 7)
                assert reader.last_counts == b'{"done": 1}'
            group.cancel_scope.cancel()
        journal.written(3, 300, 7)
        around.counts = b'{"done": 3}'
        journal.close()

        assert around.synced == 2
        with JournalReader.open(tmp_path) as reader:
            assert list(reader.unwritten()) == []
            assert reader.written_bytes == (300, 7)
            assert reader.last_counts == b'{"done": 3}'

    async def test_many_lines_are_made_safe_without_waiting(self, tmp_path, around):
        """A thousand are as many as a resume may have to write again."""
        journal = around.journal(tmp_path)
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            for number in range(1, 1_001):
                journal.ended(number, result_of(admit(journal, number)), 1.0)
            await everything_written(journal)
            for number in range(1, 1_001):
                journal.written(number, number, 0)
            await anyio.sleep(0.01)
            assert around.synced == 1
            group.cancel_scope.cancel()
        journal.close()

    async def test_in_the_order_of_their_ending(self, tmp_path, around):
        """Also over two processes, the first of which had no time to write them."""
        for numbers in ([3, 1], [4, 2]):
            journal = around.journal(tmp_path)
            for number in numbers:
                journal.ended(number, failed(admit(journal, number)), 1.0)
            journal.close()

        with JournalReader.open(tmp_path) as reader:
            assert [each.number for each in reader.unwritten()] == [3, 1, 4, 2]
            assert not any(each.is_completed for each in reader.unwritten())

    async def test_result_files_that_can_not_be_made_safe(self, tmp_path, around):
        """Whoever made them is told; their lines stay here, and all else is kept."""

        def refuse():
            raise OutputFailed(path=tmp_path, problem="it is gone")

        around.sync = refuse
        journal = around.journal(tmp_path)
        journal.ended(1, result_of(admit(journal, 1)), 1.0)
        with pytest.raises(OutputFailed):  # noqa: PT012 - the journal runs in it
            journal.after(partial(journal.written, 1, 100, 0))
            await journal.run()
        admit(journal, 2)
        journal.written(1, 100, 0)
        with pytest.raises(OutputFailed):
            journal.close()

        assert custom_ids(tmp_path) == ["r1", "r2"]
        with JournalFile(tmp_path) as file:
            assert [each.number for each in file.unwritten()] == [1]
            assert file.written_bytes == (0, 0)

    async def test_nothing_is_written_while_nothing_happens(self, tmp_path, around):
        """A night of waiting costs no commit and no sync."""
        journal = around.journal(tmp_path)
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            admit(journal, 1)
            await anyio.sleep(5.0)
            before = journal._file._connection.total_changes
            await anyio.sleep(30_000.0)
            assert journal._file._connection.total_changes == before
            group.cancel_scope.cancel()
        journal.close()


class GivesRoom:
    """Ballast of a disk that is as large as SQLite is allowed to grow."""

    def __init__(self, connection, pages):
        self.connection, self.pages = connection, pages

    def give_up(self):
        [used] = self.connection.execute("PRAGMA page_count").fetchone()
        self.connection.execute(f"PRAGMA max_page_count = {used + self.pages}")
        given, self.pages = self.pages, 0
        return given > 0


def fill_the_disk(journal, pages_in_reserve):
    connection = journal._file._connection
    [used] = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {used}")
    journal._file._ballast = GivesRoom(connection, pages_in_reserve)


class TestFullDisk:
    async def test_the_ballast_is_given_up_and_all_is_written(self, tmp_path, around):
        """It is told once; what was told is on disk, and so is what follows while there is room."""
        journal = around.journal(tmp_path)
        fill_the_disk(journal, 100)
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            for number in range(1, 301):
                admit(journal, number)
            await everything_written(journal)
            admit(journal, 301)
            await everything_written(journal)
            group.cancel_scope.cancel()
        journal.close()

        assert len(custom_ids(tmp_path)) == 301
        assert len(around.full) == 1
        assert "no room left" in around.full[0]

    async def test_without_room_nobody_is_told(self, tmp_path, around):
        """What can't be written was never promised; what was is still there."""
        journal = around.journal(tmp_path)
        called = []
        with pytest.raises(JournalFailed, match="full"):  # noqa: PT012 - the journal runs in it
            admit(journal, 1)
            journal.after(lambda: fill_the_disk(journal, 1))
            journal.after(
                lambda: (
                    [admit(journal, n) for n in range(2, 900)]
                    and journal.after(partial(called.append, 1))
                )
            )
            await journal.run()
        journal.close()

        assert called == []
        assert custom_ids(tmp_path) == ["r1"]
        with JournalFile(tmp_path) as file:
            assert [each.number for each in file.unfinished()] == [1]

    async def test_another_error_ends_it_at_once(self, tmp_path, around):
        """The ballast helps only against a full disk."""
        journal = around.journal(tmp_path)
        admit(journal, 1)
        journal._file._connection.execute("PRAGMA query_only = 1")

        with pytest.raises(JournalFailed, match="readonly") as caught:
            await journal.run()

        assert caught.value.path == tmp_path / "journal.sqlite"
        assert (tmp_path / BALLAST_NAME).exists()
        journal.close()
        assert custom_ids(tmp_path) == []

    async def test_it_can_be_closed_no_more(self, tmp_path, around):
        """An error while closing is told, and the folder is free afterwards."""
        journal = around.journal(tmp_path)
        admit(journal, 1)
        journal._file._connection.execute("PRAGMA query_only = 1")

        with pytest.raises(JournalFailed):
            journal.close()

        JournalFile(tmp_path).close()
        assert custom_ids(tmp_path) == []

    def test_the_reserve_is_there_only_while_it_is_needed(self, tmp_path, monkeypatch):
        """Four megabytes of real blocks; gone when all ended well."""
        monkeypatch.undo()
        file = JournalFile(tmp_path)

        assert (tmp_path / BALLAST_NAME).stat().st_blocks * 512 >= 4 * 2**20
        file.close()
        assert not (tmp_path / BALLAST_NAME).exists()


def test_sqlite_is_told_to_write_through(tmp_path):
    """Each commit is on disk before it is told as done."""
    with JournalFile(tmp_path) as file:
        assert file._connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert file._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
