"""Opens the file of a journal, to write or only to read, and refuses what is none."""

import os
import sqlite3
from pathlib import Path

from orchestrator.adapters.journal.statements import SQL, UPGRADES, text_of
from orchestrator.errors import JournalUnusable

JOURNAL_NAME = "journal.sqlite"

APPLICATION_ID = 0x6F72636A  # "orcj"
SCHEMA = 2

FILE_MODE = 0o600  # for the user alone, like all of the output

# How long to wait for a reader that mends the file after a crash; it takes milliseconds.
BUSY_SECONDS = 5.0

# A checkpoint writes each page once, however often it was changed since the last one: 16 MiB.
CHECKPOINT_PAGES = 4_000

# As many as there are sizes of the statements for many rows.
STATEMENTS_CACHED = 1_000

# SQLite tells a full disk as such. It tells a spent quota and a limit on the size of files as a
# write that failed, and no room for its shared memory by a code of its own.
FULL_CODES = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}
)

MAGIC = b"SQLite format 3\0"

CURE_NO_ROOM = "Make room, then run the same command again."
CURE_NEWER = "Go on with the version that made it, or begin anew in another folder with --fresh."
CURE_FOREIGN = "Give another folder with --out."
CURE_DAMAGED = (
    "The lines in the result files are whole; run what is left in another folder with --fresh."
)
CURE_UNREADABLE = "Make the folder readable for you, or copy it whole to a place of your own."


def open_to_write(folder: Path) -> sqlite3.Connection:
    """The file of this folder's journal, made where there is none.

    Raises:
        JournalUnusable: There is another file in its place, or it is damaged.
        OSError: It can't be made.
    """
    path = folder / JOURNAL_NAME
    if is_new := not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
        _sync_folder(folder)
    _refuse_foreign(path)
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            path,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS_CACHED,
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        if is_new or _is_blank(connection):
            _make_tables(connection)
        _refuse_other_schemas(connection, path)
        _upgrade(connection)
    except sqlite3.DatabaseError as error:
        if connection is not None:
            connection.close()
        raise damaged(path, error) from None
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def open_to_read(folder: Path) -> sqlite3.Connection:
    """The same without a lock; it changes nothing, and sees the journal as of one moment.

    Journals of older schemas are read as they are.

    Raises:
        JournalUnusable: There is no journal, or it can't be read.
    """
    path = folder / JOURNAL_NAME
    _refuse_foreign(path)
    uri = f"{path.absolute().as_uri()}?mode=ro"
    log = path.with_name(f"{JOURNAL_NAME}-wal")
    if not os.access(folder, os.W_OK) and not (log.exists() and log.stat().st_size):
        # SQLite wants to make its files beside it even to read. Nobody writes: all is in this one.
        uri += "&immutable=1"
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        connection.execute("BEGIN")
        _refuse_other_schemas(connection, path)
    except sqlite3.DatabaseError as error:
        if connection is not None:
            connection.close()
        raise damaged(path, error) from None
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def is_full(error: Exception) -> bool:
    """Whether SQLite found no room on the disk."""
    return getattr(error, "sqlite_errorcode", None) in FULL_CODES


def damaged(path: Path, error: Exception) -> JournalUnusable:
    """What to tell when SQLite can't read it, or finds no room to do so."""
    if is_full(error):
        problem = f"there is no room on its disk ({error})"
        return JournalUnusable(path=path, problem=problem, cure=CURE_NO_ROOM)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    is_damaged = code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
    return JournalUnusable(
        path=path,
        problem=f"it is damaged ({error})" if is_damaged else f"it can't be read ({error})",
        cure=CURE_DAMAGED if is_damaged else CURE_UNREADABLE,
    )


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.executescript(
        f"BEGIN; {text_of('schema.sql')}"
        f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA}; COMMIT;"
    )


def _upgrade(connection: sqlite3.Connection) -> None:
    """Make it one of this schema, step by step; a step is done as a whole or not at all."""
    for schema in range(_pragma(connection, "user_version") + 1, SCHEMA + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; {UPGRADES[str(schema)]} PRAGMA user_version = {schema}; COMMIT;"
        )


def _is_blank(connection: sqlite3.Connection) -> bool:
    """Whether its making was cut short, before the tables were there."""
    [tables] = connection.execute(SQL["tables_count"]).fetchone()
    return not tables and not _pragma(connection, "application_id")


def _refuse_foreign(path: Path) -> None:
    """SQLite takes any file that is short, and says of others only that they are no database."""
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        problem = error.strerror or str(error)
        raise JournalUnusable(path=path, problem=problem, cure=CURE_UNREADABLE) from None
    if start not in {b"", MAGIC}:
        raise JournalUnusable(path=path, problem="it is no journal", cure=CURE_FOREIGN)


def _refuse_other_schemas(connection: sqlite3.Connection, path: Path) -> None:
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise JournalUnusable(path=path, problem="it is no journal", cure=CURE_FOREIGN)
    connection.execute(SQL["tables_count"])  # reads the tables' names, where the pragmas do not
    schema = _pragma(connection, "user_version")
    if not 1 <= schema <= SCHEMA:
        problem = f"a newer version of this program made it (schema {schema}, not {SCHEMA})"
        raise JournalUnusable(path=path, problem=problem, cure=CURE_NEWER)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _sync_folder(folder: Path) -> None:
    """A new file is there after a loss of power only when its folder was written, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
