"""The journal remembers which webhooks were heard, so that a repeat is known after a restart."""

import sqlite3

import anyio
import pytest
from support.journals import Surroundings, copied, everything_written
from test_journal_opening import DUMPS, loaded

from orchestrator.adapters.journal import JOURNAL_NAME, JournalFile, JournalReader, ballast, file
from orchestrator.adapters.journal.opening import SCHEMA
from orchestrator.errors import JournalUnusable


@pytest.fixture(autouse=True)
def _a_small_ballast(monkeypatch):
    monkeypatch.setattr(ballast, "BALLAST_BYTES", 4096)


def heard(folder):
    with JournalFile(folder) as opened:
        return opened.webhook_ids()


def schema_of(folder):
    connection = sqlite3.connect(folder / JOURNAL_NAME)
    [schema] = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return schema


async def test_ids_outlive_the_process(tmp_path):
    """In the order in which they came, with those of the processes before."""
    for ids in (["wh_1", "wh_2"], ["wh_0"]):
        journal = Surroundings().journal(tmp_path)
        for webhook_id in ids:
            journal.heard(webhook_id)
        journal.close()

    assert heard(tmp_path) == ["wh_1", "wh_2", "wh_0"]


async def test_ids_are_on_disk_without_an_end(tmp_path):
    """A process that is killed forgets no webhook but the newest few."""
    (tmp_path / "out").mkdir()
    journal = Surroundings().journal(tmp_path / "out")
    async with anyio.create_task_group() as group:
        group.start_soon(journal.run)
        journal.heard("wh_1")
        await everything_written(journal)
        assert heard(copied(tmp_path / "out", tmp_path / "killed")) == ["wh_1"]
        group.cancel_scope.cancel()
    journal.close()


async def test_only_the_newest_are_kept(tmp_path, monkeypatch):
    """Whatever arrives, the journal does not grow with it."""
    monkeypatch.setattr(file, "WEBHOOKS_MAX", 3)
    for part in range(3):
        journal = Surroundings().journal(tmp_path)
        for number in range(4):
            journal.heard(f"wh_{part}{number}")
        journal.close()

    assert heard(tmp_path) == ["wh_21", "wh_22", "wh_23"]


async def test_any_id_can_be_kept(tmp_path):
    """It is a header that came from outside."""
    odd = ["", "\x00", "\xff", "\ud800", "x" * 256, "';--"]
    journal = Surroundings().journal(tmp_path)
    for webhook_id in odd:
        journal.heard(webhook_id)
    journal.close()

    assert heard(tmp_path) == odd


class TestOlderSchemas:
    async def test_a_journal_of_schema_1_remembers_from_now_on(self, tmp_path):
        """It is made one of this schema when it is gone on with, once."""
        loaded(DUMPS / "schema_1.sql", tmp_path)
        assert heard(tmp_path) == []
        assert schema_of(tmp_path) == SCHEMA

        journal = Surroundings().journal(tmp_path)
        journal.heard("wh_1")
        journal.close()

        assert heard(tmp_path) == ["wh_1"]

    def test_a_journal_of_schema_2_has_them(self, tmp_path):
        """As the version wrote it that had this schema."""
        assert heard(loaded(DUMPS / "schema_2.sql", tmp_path)) == ["wh_1", "wh_2"]

    def test_who_only_reads_changes_nothing(self, tmp_path):
        """`orchestrator status` tells of older journals and leaves them as they are."""
        loaded(DUMPS / "schema_1.sql", tmp_path)
        with JournalReader.open(tmp_path) as reader:
            assert len(reader.unfinished()) == 7
        assert schema_of(tmp_path) == 1

    @pytest.mark.parametrize("opens", [JournalFile, JournalReader.open])
    def test_a_schema_that_never_was(self, tmp_path, opens):
        """Neither is it guessed, nor upgraded."""
        loaded(DUMPS / "schema_1.sql", tmp_path)
        connection = sqlite3.connect(tmp_path / JOURNAL_NAME)
        connection.execute("PRAGMA user_version = 0")
        connection.close()

        with pytest.raises(JournalUnusable):
            opens(tmp_path)
