"""Who may open a journal, what is none, what a reader sees, and what each schema looks like."""

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from support.journals import (
    PENDING,
    Surroundings,
    custom_ids,
    everything_written,
    failed,
    request_of,
    result_of,
)

from orchestrator.adapters.journal import (
    JOURNAL_NAME,
    Admitted,
    Ended,
    Facts,
    JournalFile,
    JournalReader,
    Where,
    ballast,
    standing,
    story_of,
)
from orchestrator.adapters.journal.opening import APPLICATION_ID, SCHEMA
from orchestrator.adapters.journal.statements import text_of
from orchestrator.core import events
from orchestrator.core.entries import CreateSent, OutputsSent
from orchestrator.core.failures import Cause, Failure
from orchestrator.core.model import Outcome, Seen, Status, ToolCall, ToolOutput, Usage
from orchestrator.errors import FolderInUse, JournalUnusable, OutputFolderUnusable

DUMPS = Path(__file__).parent / "journals"

ASKS = Seen("resp_5", Status.REQUIRES_ACTION, "queued", (ToolCall("call_1", "look", "{}"),))


@pytest.fixture(autouse=True)
def _a_small_ballast(monkeypatch):
    """Megabytes take their time, and mean nothing where the disk is not full."""
    monkeypatch.setattr(ballast, "BALLAST_BYTES", 4096)


def damaged(folder, at=0, garbage=b"\xa5" * 4096):
    path = folder / JOURNAL_NAME
    with path.open("r+b") as file:
        file.seek(at)
        file.write(garbage)


def loaded(dump, folder):
    """A folder with the journal of which this is the dump."""
    connection = sqlite3.connect(folder / JOURNAL_NAME)
    connection.executescript(dump.read_text())
    connection.close()
    return folder


class TestOneProcess:
    def test_a_second_one_is_refused(self, tmp_path):
        """It is told whom to wait for; when that has ended the folder is free."""
        with JournalFile(tmp_path), pytest.raises(FolderInUse) as caught:
            JournalFile(tmp_path)

        assert (caught.value.path, caught.value.pid) == (tmp_path, str(os.getpid()))
        JournalFile(tmp_path).close()

    @pytest.mark.real_time
    @pytest.mark.slow
    def test_the_lock_ends_with_its_process(self, tmp_path):
        """However it ends: killed is enough."""
        program = (
            "import sys; from pathlib import Path\n"
            "from orchestrator.adapters.journal import JournalFile\n"
            "file = JournalFile(Path(sys.argv[1])); print('open', flush=True); input()\n"
        )
        command = [sys.executable, "-c", program, str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout.readline() == b"open\n"
            with pytest.raises(FolderInUse, match=rf"\(pid {other.pid}\)"):
                JournalFile(tmp_path)
            with JournalReader.open(tmp_path) as reader:
                assert standing(reader).is_alive
            other.kill()

        with JournalReader.open(tmp_path) as reader:
            assert not standing(reader).is_alive
        JournalFile(tmp_path).close()

    def test_files_are_for_the_user_alone(self, tmp_path):
        """They hold what was asked, and how it ended."""
        with JournalFile(tmp_path) as file:
            file.set_facts(Facts(name="n"))
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}

        assert set(modes.values()) == {0o600}
        assert len(modes) == 5  # the log and its index, the lock, the ballast

    def test_a_folder_that_is_not_there(self, tmp_path):
        """Whoever makes a journal makes its folder first."""
        with pytest.raises(OutputFolderUnusable, match="No such file"):
            JournalFile(tmp_path / "none")

    def test_whether_there_is_one(self, tmp_path):
        """It can be asked without opening it."""
        assert not JournalFile.is_there(tmp_path)
        JournalFile(tmp_path).close()
        assert JournalFile.is_there(tmp_path)


@pytest.mark.parametrize("opens", [JournalFile, JournalReader.open])
class TestUnusable:
    def test_a_newer_schema(self, tmp_path, opens):
        """The cure names the way out."""
        with JournalFile(tmp_path) as file:
            file._connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")

        with pytest.raises(JournalUnusable, match=r"newer version.*version that made it"):
            opens(tmp_path)

    @pytest.mark.parametrize("content", [b"precious", b"precious" * 10_000])
    def test_a_file_that_is_no_journal(self, tmp_path, opens, content):
        """It stays as it is."""
        (tmp_path / JOURNAL_NAME).write_bytes(content)

        with pytest.raises(JournalUnusable, match="it is no journal"):
            opens(tmp_path)

        assert (tmp_path / JOURNAL_NAME).read_bytes() == content

    def test_another_database(self, tmp_path, opens):
        """Being SQLite is not enough."""
        connection = sqlite3.connect(tmp_path / JOURNAL_NAME)
        connection.execute("CREATE TABLE precious (x)")
        connection.close()

        with pytest.raises(JournalUnusable, match="it is no journal"):
            opens(tmp_path)

    def test_a_damaged_one(self, tmp_path, opens):
        """What can't be read is told, not guessed."""
        JournalFile(tmp_path).close()
        damaged(tmp_path, at=100)

        with pytest.raises(JournalUnusable, match="it is damaged"):
            opens(tmp_path)

    async def test_damage_further_on(self, tmp_path, opens):
        """It is found when it is read."""
        journal = Surroundings().journal(tmp_path)
        for number in range(1, 2_000):
            journal.admitted(number, request_of(f"r{number}"), 1.0)
        journal.close()
        size = (tmp_path / JOURNAL_NAME).stat().st_size
        damaged(tmp_path, at=10 * 4096, garbage=b"\xa5" * (size - 10 * 4096))

        with opens(tmp_path) as journal, pytest.raises(JournalUnusable, match="it is damaged"):
            list(journal.digests())

    async def test_entries_of_another_version(self, tmp_path, opens):
        """A kind that is not known can't be left out of a replay."""
        journal = Surroundings().journal(tmp_path)
        journal.admitted(1, request_of(), 1.0)
        journal.keep(CreateSent(1), 1.0)
        await anyio.lowlevel.checkpoint()
        journal._write(journal._take(2.0).rows)
        journal._file._connection.execute("UPDATE events SET kind = 'run_dreamt'")
        journal.close()

        with opens(tmp_path) as opened, pytest.raises(JournalUnusable, match="run_dreamt"):
            list(opened.entries())


def test_a_making_that_was_cut_short(tmp_path):
    """An empty file is where a process was killed before it could make the tables."""
    (tmp_path / JOURNAL_NAME).touch()
    JournalFile(tmp_path).close()

    connection = sqlite3.connect(tmp_path / JOURNAL_NAME)
    [found] = connection.execute("PRAGMA application_id").fetchone()
    connection.close()
    assert found == APPLICATION_ID


def test_a_path_that_is_too_long_for_the_file(tmp_path):
    """SQLite takes 512 bytes, an operating system more; that is told as no bug of the program."""
    folder = tmp_path.joinpath(*["x" * 200] * 3)
    folder.mkdir(parents=True)
    with pytest.raises(JournalUnusable, match="unable to open database file"):
        JournalFile(folder)


def test_no_journal_to_read(tmp_path):
    """It is told, and nothing is made."""
    with pytest.raises(JournalUnusable, match="No such file"):
        JournalReader.open(tmp_path)

    assert list(tmp_path.iterdir()) == []


async def test_reading_while_it_is_written(tmp_path):
    """A reader sees one moment; the writer goes on, and the next reader sees more."""
    journal = Surroundings().journal(tmp_path)
    async with anyio.create_task_group() as group:
        group.start_soon(journal.run)
        journal.admitted(1, request_of("a"), 1.0)
        await everything_written(journal)
        with JournalReader.open(tmp_path) as reader:
            assert [known.custom_id for known in reader.digests()] == ["a"]
            journal.admitted(2, request_of("b"), 1.0)
            await everything_written(journal)
            assert [known.custom_id for known in reader.digests()] == ["a"]
            assert custom_ids(tmp_path) == ["a", "b"]
        group.cancel_scope.cancel()
    journal.close()


async def told(folder):
    """A journal of everything: ended, running, in doubt, with tools, and a batch; two sessions."""
    around = Surroundings()
    file = JournalFile(folder)
    file.set_facts(
        Facts(name="night", source="in.jsonl", version="0.0", requests=9, by_model={"m": 9})
    )
    journal = around.journal(file)
    requests = {n: request_of(f"r{n}", line=n) for n in range(1, 10)}
    for number, request in requests.items():
        journal.admitted(number, request, number / 10)
    lost = Failure(Cause.TIMED_OUT, "no answer in time", retry_after_seconds=1.5)
    for second, entry in enumerate(
        [
            CreateSent(1),
            events.RunCreated(1, PENDING),
            events.RunSeen(1, Seen("resp_1", Status.COMPLETED, "completed", usage=Usage(3, 2))),
            CreateSent(2),
            events.RunPrepared(2, b"file-1"),
            CreateSent(2),
            events.RunCreated(2, PENDING),
            CreateSent(3, group=4),
            CreateSent(4),
            events.CreateFailed(4, lost),
            CreateSent(5),
            events.RunCreated(5, ASKS),
            events.ToolFinished(5, ToolOutput("call_1", "42")),
            CreateSent(-1, lines=(6, 7, 8)),
            events.RunPrepared(-1, b"file-2"),
            CreateSent(-1),
            events.RunCreated(-1, Seen("batch_1", Status.PENDING, "validating")),
            events.LineAnswered(-1, 8, ASKS),
        ],
        1,
    ):
        journal.keep(entry, float(second))
    journal.ended(1, result_of(requests[1]), 19.0)
    journal.close()
    await anyio.sleep(100.0)
    second = around.journal(folder)
    now = anyio.current_time()
    second.keep(OutputsSent(5), now + 1.0)
    second.heard("wh_1")
    second.heard("wh_2")
    second.ended(6, failed(requests[6]), now + 2.0)
    second.written(1, 17, 0)
    second.close()
    return folder


def check_everything(folder):
    """What `told` told can be read back."""
    with JournalReader.open(folder) as reader:
        stands = standing(reader)
        assert stands.facts == Facts(
            name="night", source="in.jsonl", version="0.0", requests=9, by_model={"m": 9}
        )
        assert stands.by_outcome == {Outcome.COMPLETED: 1, Outcome.FAILED: 1}
        assert stands.unfinished == {
            Where.THERE: 2,  # 2, and 7 in the batch
            Where.IN_DOUBT: 1,
            Where.HERE: 2,  # 4, and 9 that was never sent
            Where.TOOLS: 2,
        }
        assert (stands.session.number, stands.is_alive) == (2, False)
        assert stands.counts == b'{"done": 1}'
        assert [number for number, *_ in reader.rows("unwritten")] == [6]
        assert reader.written_bytes == (17, 0)
        replayed = [entry.number for _, entry in reader.entries()]
        assert replayed == [2, 2, 2, 2, 3, 4, 4, 5, 5, 5, -1, -1, -1, -1, 8, 5]
        assert (reader.number_max, reader.batch_number_min, reader.group_max) == (9, -1, 4)

        first, second = reader.sessions()
        story = [(each.session, each.what) for each in story_of(reader, "r6")]
        assert story == [
            (1, Admitted(6, 6, "m")),
            (1, CreateSent(-1, lines=(6, 7, 8))),
            (1, events.RunPrepared(-1, b"file-2")),
            (1, CreateSent(-1)),
            (1, events.RunCreated(-1, Seen("batch_1", Status.PENDING, "validating"))),
            (2, Ended(6, Outcome.FAILED, "server_error", "It broke.", "resp_1")),
        ]
        *before, sent = story_of(reader, "r5")
        assert sent.what == OutputsSent(5)
        assert sent.unix - second.started_unix == pytest.approx(1.0, abs=1e-5)
        assert before[-1].unix - first.started_unix == pytest.approx(13.0, abs=1e-5)
        assert story_of(reader, "nobody") == []


async def test_everything_can_be_read_back(tmp_path):
    """Where each request stands, and the story of each."""
    check_everything(await told(tmp_path))


async def test_the_story_of_a_request_that_was_reopened(tmp_path):
    """What happened before it was reopened comes first."""
    around = Surroundings()
    for number in (1, 2):
        journal = around.journal(tmp_path)
        journal.admitted(number, request_of(), 1.0)
        journal.keep(CreateSent(number), 1.0)
        journal.ended(number, failed(request_of()), 1.0)
        journal.close()
        with JournalFile(tmp_path) as file:
            file.reopen([Outcome.FAILED], Facts())

    with JournalReader.open(tmp_path) as reader:
        story = [(type(each.what), each.what.number) for each in story_of(reader, "a")]
    kinds = [Admitted, CreateSent, Ended]
    assert story == [(kind, number) for number in (1, 2) for kind in kinds]


class TestSchemas:
    @pytest.mark.parametrize("dump", sorted(DUMPS.glob("*.sql")), ids=lambda dump: dump.stem)
    def test_journals_of_every_schema_can_be_read(self, dump, tmp_path):
        """An execution that an older version began can be gone on with."""
        check_everything(loaded(dump, tmp_path))

        with JournalFile(tmp_path) as file:
            assert len(file.unfinished()) == 7

    def test_this_schema_has_its_dump(self, tmp_path):
        """Whoever changes the tables gives the schema a new number, and keeps a dump of it."""
        connection = sqlite3.connect(
            loaded(DUMPS / f"schema_{SCHEMA}.sql", tmp_path) / JOURNAL_NAME
        )
        kept = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master") if sql}
        connection.close()
        connection = sqlite3.connect(":memory:")
        connection.executescript(text_of("schema.sql"))
        made = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master") if sql}
        connection.close()

        assert {plain(sql) for sql in kept} == {plain(sql) for sql in made}


def plain(sql):
    return re.sub(r"\s+", " ", re.sub(r"--.*", "", sql))


FORKS = """
import os, sys, time
from pathlib import Path
from orchestrator.adapters.journal import JournalFile
file = JournalFile(Path(sys.argv[1]))
if os.fork() == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
os._exit(0)
"""


@pytest.mark.real_time
@pytest.mark.slow
def test_a_child_does_not_hold_the_folder(tmp_path):
    """What a tool has forked may live on when its process was killed; the folder is free."""
    command = [sys.executable, "-c", FORKS, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline().strip().isdigit()  # the child is there
        process.wait()
        JournalFile(tmp_path).close()
        process.stdin.close()
