"""What is left of a journal when the process, the machine or the disk gives way."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.journals import (
    Surroundings,
    copied,
    custom_ids,
    everything_written,
    request_of,
    result_of,
)

from orchestrator.adapters.journal import JOURNAL_NAME, JournalReader, ballast
from orchestrator.core.entries import CreateSent

LOG_NAME = f"{JOURNAL_NAME}-wal"


@pytest.fixture(scope="module")
def acknowledged(tmp_path_factory):
    """Three folders: what was there after one commit, after two, and the size of both logs."""
    root = tmp_path_factory.mktemp("torn")
    folder = root / "live"
    folder.mkdir()

    async def tell():
        journal = Surroundings().journal(folder)
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            for number, custom_id in enumerate(["first", "second"], 1):
                journal.admitted(number, request_of(custom_id), 1.0)
                journal.keep(CreateSent(number), 1.0)
                await everything_written(journal)
                copied(folder, root / custom_id)
            group.cancel_scope.cancel()
        journal.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ballast, "BALLAST_BYTES", 4096)
        anyio.run(tell)
    return root


class TestTornLog:
    @given(data=st.data())
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_only_what_nobody_was_told_of_is_lost(self, acknowledged, tmp_path_factory, data):
        """Cut or garbled anywhere after the last commit: that one and all before it are there."""
        promised = (acknowledged / "first" / LOG_NAME).stat().st_size
        log = bytearray((acknowledged / "second" / LOG_NAME).read_bytes())
        at = data.draw(st.integers(promised, len(log) - 1))
        if data.draw(st.booleans(), label="is cut"):
            del log[at:]
        else:
            log[at] ^= data.draw(st.integers(1, 255))
        folder = tmp_path_factory.mktemp("mended")
        shutil.copy(acknowledged / "second" / JOURNAL_NAME, folder)
        (folder / LOG_NAME).write_bytes(log)

        with JournalReader.open(folder) as reader:
            assert [known.custom_id for known in reader.digests()] == ["first"]
            assert [entry for _, entry in reader.entries()] == [CreateSent(1)]

    def test_what_is_whole_is_there(self, acknowledged):
        """The test above sees both commits when nothing is torn."""
        assert custom_ids(acknowledged / "first") == ["first"]
        assert custom_ids(acknowledged / "second") == ["first", "second"]


# Tells of requests for ever; a line on standard output for each one that is on disk.
TELLS = """
import sys
from pathlib import Path
import anyio
sys.path.insert(0, sys.argv[2])
from support.journals import Surroundings, request_of, result_of
from orchestrator.core.entries import CreateSent

async def tell():
    journal = Surroundings().journal(Path(sys.argv[1]), None)
    start = int(sys.argv[3])
    async with anyio.create_task_group() as group:
        group.start_soon(journal.run)
        number = start
        while True:
            number += 1
            request = request_of(f"r{number}", line=number)
            journal.admitted(number, request, anyio.current_time())
            journal.keep(CreateSent(number), anyio.current_time())
            journal.after(lambda n=number: print("sent", n, flush=True))
            if number % 3 == 0:
                journal.ended(number, result_of(request), anyio.current_time())
                journal.after(lambda n=number: print("ended", n, flush=True))
            if number % 10 == 0:
                await anyio.sleep(0.0005)

anyio.run(tell)
"""


@pytest.mark.slow
@pytest.mark.real_time
def test_killed_again_and_again(tmp_path):
    """Ten kills at odd moments: everybody who was told is there, in order, and nothing twice."""
    promised = {"sent": set(), "ended": set()}
    start = 0
    for turn in range(10):
        tests = str(Path(__file__).parent)
        command = [sys.executable, "-c", TELLS, str(tmp_path), tests, str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(200 + 137 * turn):
                kind, number = process.stdout.readline().split()
                promised[kind].add(int(number))
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                if line.endswith("\n"):
                    kind, number = line.split()
                    promised[kind].add(int(number))

        with JournalReader.open(tmp_path) as reader:
            known = list(reader.digests())
            ended = {each.number for each in reader.unwritten()}
            started = [entry.number for _, entry in reader.entries()]
            numbers = [each.number for each in known]
            assert len(numbers) == len(set(numbers))
            assert promised["sent"] <= set(numbers)
            assert promised["ended"] <= ended == {each.number for each in known if each.has_ended}
            assert started == sorted(set(numbers) - ended)
            start = reader.number_max
    assert len(promised["ended"]) > 500


def in_a_namespace(script, *arguments):
    """Run a shell script that may mount file systems of its own; skip where that is forbidden."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare here")
    probe = [unshare, "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system of its own")
    command = [unshare, "-rm", "sh", "-euc", script, "sh", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# Fills the disk beside the journal, tells until it fails, makes room and looks.
FILLS = """
import sys
from pathlib import Path
import anyio
sys.path.insert(0, sys.argv[2])
from support.journals import Surroundings, custom_ids, everything_written, request_of
from orchestrator.errors import JournalFailed

folder, around, promised = Path(sys.argv[1]), Surroundings(), []

async def tell():
    journal = around.journal(folder, None)
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    async with anyio.create_task_group() as group:
        group.start_soon(journal.run)
        for number in range(1, 100_000):
            journal.admitted(number, request_of(f"r{number}" + 500 * "x"), anyio.current_time())
            journal.after(lambda n=number: promised.append((n, len(around.full))))
            if number % 50 == 0:
                await everything_written(journal)

try:
    anyio.run(tell)
except* JournalFailed as failed:
    print(failed.exceptions[0])
print(sum(1 for _, full in promised if full), len(around.full))
there = set(custom_ids(folder))
print(all(f"r{n}" + 500 * "x" in there for n, _ in promised))
"""

RESUMES = """
import sys
from pathlib import Path
from orchestrator.adapters.journal import JournalFile
with JournalFile(Path(sys.argv[1])) as file:
    print(file.number_max, len(file.unfinished()))
"""


@pytest.mark.slow
@pytest.mark.real_time
def test_a_real_disk_that_fills_up():
    """The ballast carries on for a while, then it fails and says so; with room all is there."""
    script = (
        'mount -t tmpfs -o size=16m none /mnt; "$1" -c "$2" /mnt "$3"; rm /mnt/filler; '
        '"$1" -c "$4" /mnt'
    )
    tests = str(Path(__file__).parent)
    failure, counted, is_kept, resumed = in_a_namespace(
        script, sys.executable, FILLS, tests, RESUMES
    )

    assert "full" in failure
    carried, told = map(int, counted.split())
    assert carried > 1_000
    assert told == 1
    assert is_kept == "True"
    number_max, unfinished = map(int, resumed.split())
    assert number_max == unfinished >= carried


READS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from support.journals import custom_ids
print(*custom_ids(Path(sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize("is_killed", [True, False])
def test_a_folder_that_is_only_for_reading(tmp_path, is_killed):
    """An archive can be looked at, whether its process ended well or not."""
    live, archive = tmp_path / "live", tmp_path / "archive"
    live.mkdir()

    async def tell():
        journal = Surroundings().journal(live)
        request = request_of("a")
        journal.admitted(1, request, 1.0)
        journal.ended(1, result_of(request), 1.0)
        if is_killed:
            async with anyio.create_task_group() as group:
                group.start_soon(journal.run)
                await everything_written(journal)
                group.cancel_scope.cancel()
            shutil.copytree(live, archive)
        journal.close()
        if not is_killed:
            shutil.copytree(live, archive)

    anyio.run(tell)
    assert (archive / LOG_NAME).exists() == is_killed
    script = 'mount --bind "$4" "$4"; mount -o remount,ro,bind "$4"; "$1" -c "$2" "$4" "$3"'
    tests = str(Path(__file__).parent)

    assert in_a_namespace(script, sys.executable, READS, tests, str(archive)) == ["a"]
