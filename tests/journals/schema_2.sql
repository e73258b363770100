-- A journal of schema 2 as `told` in test_journal_opening.py tells it.
PRAGMA application_id = 1869767530;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE batch_lines (
    number INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    PRIMARY KEY (number, batch)
) WITHOUT ROWID;
INSERT INTO "batch_lines" VALUES(6,-1);
INSERT INTO "batch_lines" VALUES(7,-1);
INSERT INTO "batch_lines" VALUES(8,-1);
CREATE TABLE events (
    number INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (number, seq)
) WITHOUT ROWID;
INSERT INTO "events" VALUES(-1,23,13.999999,'create_sent','{"lines":[6,7,8]}');
INSERT INTO "events" VALUES(-1,24,14.999999,'run_prepared','{"continuation":"ZmlsZS0y"}');
INSERT INTO "events" VALUES(-1,25,15.999999,'create_sent','{}');
INSERT INTO "events" VALUES(-1,26,16.999999,'run_created','{"run_id":"batch_1","status":"pending","said":"validating"}');
INSERT INTO "events" VALUES(1,10,0.999999,'create_sent','{}');
INSERT INTO "events" VALUES(1,11,1.999999,'run_created','{"run_id":"resp_1","status":"pending","said":"queued"}');
INSERT INTO "events" VALUES(1,12,2.999999,'run_seen','{"run_id":"resp_1","status":"completed","said":"completed","usage":[3,2,0,0]}');
INSERT INTO "events" VALUES(2,13,3.999999,'create_sent','{}');
INSERT INTO "events" VALUES(2,14,4.999999,'run_prepared','{"continuation":"ZmlsZS0x"}');
INSERT INTO "events" VALUES(2,15,5.999999,'create_sent','{}');
INSERT INTO "events" VALUES(2,16,6.999999,'run_created','{"run_id":"resp_1","status":"pending","said":"queued"}');
INSERT INTO "events" VALUES(3,17,7.999999,'create_sent','{"group":4}');
INSERT INTO "events" VALUES(4,18,8.999999,'create_sent','{}');
INSERT INTO "events" VALUES(4,19,9.999999,'create_failed','{"cause":"call_timed_out","message":"no answer in time","retry_after_seconds":1.5}');
INSERT INTO "events" VALUES(5,20,10.999999,'create_sent','{}');
INSERT INTO "events" VALUES(5,21,11.999999,'run_created','{"run_id":"resp_5","status":"requires_action","said":"queued","tool_calls":[{"call_id":"call_1","name":"look","arguments":"{}"}]}');
INSERT INTO "events" VALUES(5,22,12.999999,'tool_finished','{"call_id":"call_1","output":"42"}');
INSERT INTO "events" VALUES(5,29,1.99999990000000025247e+01,'outputs_sent','{}');
INSERT INTO "events" VALUES(8,27,17.999999,'line_answered','{"batch":-1,"seen":{"run_id":"resp_5","status":"requires_action","said":"queued","tool_calls":[{"call_id":"call_1","name":"look","arguments":"{}"}]}}');
CREATE TABLE notes (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO "notes" VALUES('counts',X'7B22646F6E65223A20317D');
INSERT INTO "notes" VALUES('facts','{"name":"night","source":"in.jsonl","version":"0.0","requests":9,"by_model":{"m":9}}');
INSERT INTO "notes" VALUES('written_bytes','[17,0]');
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
INSERT INTO "requests" VALUES(1,0,'completed',1,'r1',X'382062797465732E','/v1/responses','m',1,0.099999,28,18.999999,'','','resp_1',10,5,2,1,1,0,0,0,1,2,3,1,0,1.5,NULL,0,0,'responses',0.25,0.0);
INSERT INTO "requests" VALUES(2,0,NULL,2,'r2',X'382062797465732E','/v1/responses','m',2,0.199999,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'responses',NULL,NULL);
INSERT INTO "requests" VALUES(3,0,NULL,3,'r3',X'382062797465732E','/v1/responses','m',3,0.299999,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'responses',NULL,NULL);
INSERT INTO "requests" VALUES(4,0,NULL,4,'r4',X'382062797465732E','/v1/responses','m',4,3.99999000000000048959e-01,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'responses',NULL,NULL);
INSERT INTO "requests" VALUES(5,0,NULL,5,'r5',X'382062797465732E','/v1/responses','m',5,0.499999,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'responses',NULL,NULL);
INSERT INTO "requests" VALUES(6,0,'failed',6,'r6',X'382062797465732E','/v1/responses','m',6,0.599999,30,2.09999990000000025247e+01,'server_error','It broke.','resp_1',10,5,2,1,1,0,0,0,1,2,3,1,0,1.5,NULL,0,0,'responses',0.25,0.0);
INSERT INTO "requests" VALUES(7,0,NULL,7,'r7',X'382062797465732E','/v1/responses','m',7,6.99998999999999926835e-01,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'responses',NULL,NULL);
INSERT INTO "requests" VALUES(8,0,NULL,8,'r8',X'382062797465732E','/v1/responses','m',8,0.799999,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'responses',NULL,NULL);
INSERT INTO "requests" VALUES(9,0,NULL,9,'r9',X'382062797465732E','/v1/responses','m',9,0.899999,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'responses',NULL,NULL);
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    pid INTEGER NOT NULL,
    started_unix REAL NOT NULL,
    base_seconds REAL NOT NULL,
    last_seconds REAL NOT NULL,
    last_seq INTEGER NOT NULL,
    group_max INTEGER NOT NULL
);
INSERT INTO "sessions" VALUES(1,4001,1790000120.0,0.0,18.999999,28,4);
INSERT INTO "sessions" VALUES(2,4002,1790000240.0,18.999999,2.09999990000000025247e+01,30,4);
CREATE TABLE unwritten (
    number INTEGER PRIMARY KEY,
    ending INTEGER NOT NULL,
    is_completed INTEGER NOT NULL,
    line BLOB NOT NULL
);
INSERT INTO "unwritten" VALUES(6,2,0,X'7236206661696C65640A');
CREATE TABLE webhooks (
    seq INTEGER PRIMARY KEY,
    webhook_id TEXT NOT NULL
);
INSERT INTO "webhooks" VALUES(1,'wh_1');
INSERT INTO "webhooks" VALUES(2,'wh_2');
COMMIT;
