-- The tables of a journal, schema 2. A change here is a new schema: give it the next number in
-- opening.py, say in upgrades.sql how the old one becomes it, and keep a dump of both in the tests.
--
-- Times named *_seconds or *_at are those of the execution's clock, which stands still while no
-- process works on it. Text that UTF-8 can't write (half of a surrogate pair) is there as a blob.

-- What is known of the execution as a whole, as JSON: its facts, its counts, how much of the result
-- files is safe.
CREATE TABLE notes (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- One row for each process that worked on it. The last three columns are as of its last commit.
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    pid INTEGER NOT NULL,
    started_unix REAL NOT NULL,
    base_seconds REAL NOT NULL,
    last_seconds REAL NOT NULL,
    last_seq INTEGER NOT NULL,
    group_max INTEGER NOT NULL
);

-- Every request that was admitted. Without an outcome it has not ended. One that was reopened is
-- there for its story only: the same line was, or will be, admitted again under another number.
CREATE TABLE requests (
    number INTEGER PRIMARY KEY,
    is_reopened INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    line INTEGER NOT NULL,
    custom_id TEXT NOT NULL,
    digest BLOB NOT NULL,
    url TEXT NOT NULL,
    model TEXT NOT NULL,
    admitted_seq INTEGER NOT NULL,
    admitted_at REAL NOT NULL,
    ended_seq INTEGER,
    ended_at REAL,
    code TEXT,
    message TEXT,
    run_id TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cached_tokens INTEGER,
    reasoning_tokens INTEGER,
    batch_input_tokens INTEGER,
    batch_output_tokens INTEGER,
    batch_cached_tokens INTEGER,
    batch_reasoning_tokens INTEGER,
    creates INTEGER,
    checks INTEGER,
    turns INTEGER,
    sent INTEGER,
    lost INTEGER,
    seconds REAL,
    cause TEXT,
    lost_input_tokens INTEGER,
    lost_output_tokens INTEGER,
    family TEXT NOT NULL DEFAULT '',
    cost_usd REAL,
    lost_usd REAL
);

-- What a replay needs of a run; batches have numbers below 0. `seq` counts all that was told,
-- admissions and ends as well.
CREATE TABLE events (
    number INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (number, seq)
) WITHOUT ROWID;

-- Which batches carried a request.
CREATE TABLE batch_lines (
    number INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    PRIMARY KEY (number, batch)
) WITHOUT ROWID;

-- Lines of results that may not be in their file yet. `ending` is the order in which they ended.
CREATE TABLE unwritten (
    number INTEGER PRIMARY KEY,
    ending INTEGER NOT NULL,
    is_completed INTEGER NOT NULL,
    line BLOB NOT NULL
);

-- The ids of webhooks that were heard, the newest last, by which a repeat is known.
CREATE TABLE webhooks (
    seq INTEGER PRIMARY KEY,
    webhook_id TEXT NOT NULL
);
