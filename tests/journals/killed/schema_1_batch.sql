-- The journal of an execution that was killed after 9 s.
PRAGMA application_id = 1869767530;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE batch_lines (
    number INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    PRIMARY KEY (number, batch)
) WITHOUT ROWID;
INSERT INTO "batch_lines" VALUES(1,-1);
INSERT INTO "batch_lines" VALUES(2,-1);
INSERT INTO "batch_lines" VALUES(3,-1);
INSERT INTO "batch_lines" VALUES(4,-1);
INSERT INTO "batch_lines" VALUES(5,-2);
INSERT INTO "batch_lines" VALUES(6,-2);
INSERT INTO "batch_lines" VALUES(7,-2);
INSERT INTO "batch_lines" VALUES(8,-2);
INSERT INTO "batch_lines" VALUES(9,-3);
INSERT INTO "batch_lines" VALUES(10,-3);
INSERT INTO "batch_lines" VALUES(11,-3);
INSERT INTO "batch_lines" VALUES(12,-3);
CREATE TABLE events (
    number INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (number, seq)
) WITHOUT ROWID;
INSERT INTO "events" VALUES(-3,21,2.00001300000000048484e+00,'create_sent','{"group":1,"lines":[9,10,11,12]}');
INSERT INTO "events" VALUES(-3,22,2.10001900000000096824e+00,'run_prepared','{"continuation":"eyJmaWxlX2lkIjoiZmlsZS0zMjMzOGM2Mjk4NDg1MjhiYTRkOTY4OGYyMjczZWE0MSIsImVuZHBvaW50IjoiL3YxL2NoYXQvY29tcGxldGlvbnMiLCJsb3N0IjowfQ=="}');
INSERT INTO "events" VALUES(-3,23,2.10002000000000110802e+00,'create_sent','{"group":1}');
INSERT INTO "events" VALUES(-3,24,2.20202500000000123137e+00,'run_created','{"run_id":"batch_d8a0ac1e4fb18a796f17259cf4fab676","status":"pending","said":"validating","lives_seconds":86400.0,"batch":{}}');
INSERT INTO "events" VALUES(-2,16,1.02009000000000016328e-01,'create_sent','{"group":1,"lines":[5,6,7,8]}');
INSERT INTO "events" VALUES(-2,18,2.04015000000000057411e-01,'run_prepared','{"continuation":"eyJmaWxlX2lkIjoiZmlsZS1mNDNjMThlZmIyYjU0NGFlZmMxNWExYmFlYTdiNTQ3ZCIsImVuZHBvaW50IjoiL3YxL2NoYXQvY29tcGxldGlvbnMiLCJsb3N0IjowfQ=="}');
INSERT INTO "events" VALUES(-2,19,2.04016000000000058411e-01,'create_sent','{"group":1}');
INSERT INTO "events" VALUES(-2,20,0.30602,'run_created','{"run_id":"batch_56a3cb50f9e113dd53e057f5ec4823bb","status":"pending","said":"validating","lives_seconds":86400.0,"batch":{}}');
INSERT INTO "events" VALUES(-2,29,7.67344904551808681958e+00,'batch_over','{}');
INSERT INTO "events" VALUES(-1,6,6.0e-06,'create_sent','{"group":1,"lines":[1,2,3,4]}');
INSERT INTO "events" VALUES(-1,14,1.02008000000000015328e-01,'run_prepared','{"continuation":"eyJmaWxlX2lkIjoiZmlsZS01YjQ3MjExNGE3NTUyNTMyODlkYjc5OGQzNDYwNTgwNyIsImVuZHBvaW50IjoiL3YxL2NoYXQvY29tcGxldGlvbnMiLCJsb3N0IjowfQ=="}');
INSERT INTO "events" VALUES(-1,15,1.02009000000000016328e-01,'create_sent','{"group":1}');
INSERT INTO "events" VALUES(-1,17,2.04014000000000056411e-01,'run_created','{"run_id":"batch_4652413b99fed085ce2798f1f1ecf178","status":"pending","said":"validating","lives_seconds":86400.0,"batch":{}}');
INSERT INTO "events" VALUES(5,25,7.67344504551808626047e+00,'line_answered','{"batch":-2,"seen":{"run_id":"chatcmpl-0c4a81a5ae742dc772f82f9c5d5ee495","status":"requires_action","said":"200","tool_calls":[{"call_id":"call_252aad2e0931c1923356df244a6c8584","name":"look_up","arguments":"{\"order_id\": \"O-4\"}"}],"usage":[4,7,0,0],"continuation":"W3sicm9sZSI6ICJ1c2VyIiwgImNvbnRlbnQiOiAid2hlcmUgaXMgTy00PyJ9LHsicm9sZSI6ImFzc2lzdGFudCIsImNvbnRlbnQiOm51bGwsInJlZnVzYWwiOm51bGwsInRvb2xfY2FsbHMiOlt7ImlkIjoiY2FsbF8yNTJhYWQyZTA5MzFjMTkyMzM1NmRmMjQ0YTZjODU4NCIsInR5cGUiOiJmdW5jdGlvbiIsImZ1bmN0aW9uIjp7Im5hbWUiOiJsb29rX3VwIiwiYXJndW1lbnRzIjoie1wib3JkZXJfaWRcIjogXCJPLTRcIn0ifX1dfV0="}}');
INSERT INTO "events" VALUES(5,30,8.17344804551808579162e+00,'tool_finished','{"call_id":"call_252aad2e0931c1923356df244a6c8584","output":"O-4 is on its way"}');
INSERT INTO "events" VALUES(6,27,7.67344704551808654002e+00,'line_answered','{"batch":-2,"seen":{"run_id":"chatcmpl-6052b02cdbdaaee92502091c0c76ad38","status":"requires_action","said":"200","tool_calls":[{"call_id":"call_e36ab0c4d249f00cad8e2b7577e3648e","name":"look_up","arguments":"{\"order_id\": \"O-5\"}"}],"usage":[4,7,0,0],"continuation":"W3sicm9sZSI6ICJ1c2VyIiwgImNvbnRlbnQiOiAid2hlcmUgaXMgTy01PyJ9LHsicm9sZSI6ImFzc2lzdGFudCIsImNvbnRlbnQiOm51bGwsInJlZnVzYWwiOm51bGwsInRvb2xfY2FsbHMiOlt7ImlkIjoiY2FsbF9lMzZhYjBjNGQyNDlmMDBjYWQ4ZTJiNzU3N2UzNjQ4ZSIsInR5cGUiOiJmdW5jdGlvbiIsImZ1bmN0aW9uIjp7Im5hbWUiOiJsb29rX3VwIiwiYXJndW1lbnRzIjoie1wib3JkZXJfaWRcIjogXCJPLTVcIn0ifX1dfV0="}}');
INSERT INTO "events" VALUES(6,32,8.17345004551808429482e+00,'tool_finished','{"call_id":"call_e36ab0c4d249f00cad8e2b7577e3648e","output":"O-5 is on its way"}');
INSERT INTO "events" VALUES(7,26,7.67344604551808640025e+00,'line_answered','{"batch":-2,"seen":{"run_id":"chatcmpl-e0411d4ad68dab0583c89cd558d0f4f7","status":"requires_action","said":"200","tool_calls":[{"call_id":"call_c7286f86d691fe8f1e09866b83788aac","name":"look_up","arguments":"{\"order_id\": \"O-6\"}"}],"usage":[4,7,0,0],"continuation":"W3sicm9sZSI6ICJ1c2VyIiwgImNvbnRlbnQiOiAid2hlcmUgaXMgTy02PyJ9LHsicm9sZSI6ImFzc2lzdGFudCIsImNvbnRlbnQiOm51bGwsInJlZnVzYWwiOm51bGwsInRvb2xfY2FsbHMiOlt7ImlkIjoiY2FsbF9jNzI4NmY4NmQ2OTFmZThmMWUwOTg2NmI4Mzc4OGFhYyIsInR5cGUiOiJmdW5jdGlvbiIsImZ1bmN0aW9uIjp7Im5hbWUiOiJsb29rX3VwIiwiYXJndW1lbnRzIjoie1wib3JkZXJfaWRcIjogXCJPLTZcIn0ifX1dfV0="}}');
INSERT INTO "events" VALUES(7,31,8.17344904551808504322e+00,'tool_finished','{"call_id":"call_c7286f86d691fe8f1e09866b83788aac","output":"O-6 is on its way"}');
INSERT INTO "events" VALUES(8,28,7.6734480455180866798e+00,'line_answered','{"batch":-2,"seen":{"run_id":"chatcmpl-917e84d30b64bbb7d580112b497fea9c","status":"requires_action","said":"200","tool_calls":[{"call_id":"call_7d7613b20556f39b3f5b588714ccbbbb","name":"look_up","arguments":"{\"order_id\": \"O-7\"}"}],"usage":[4,7,0,0],"continuation":"W3sicm9sZSI6ICJ1c2VyIiwgImNvbnRlbnQiOiAid2hlcmUgaXMgTy03PyJ9LHsicm9sZSI6ImFzc2lzdGFudCIsImNvbnRlbnQiOm51bGwsInJlZnVzYWwiOm51bGwsInRvb2xfY2FsbHMiOlt7ImlkIjoiY2FsbF83ZDc2MTNiMjA1NTZmMzliM2Y1YjU4ODcxNGNjYmJiYiIsInR5cGUiOiJmdW5jdGlvbiIsImZ1bmN0aW9uIjp7Im5hbWUiOiJsb29rX3VwIiwiYXJndW1lbnRzIjoie1wib3JkZXJfaWRcIjogXCJPLTdcIn0ifX1dfV0="}}');
INSERT INTO "events" VALUES(8,33,8.17345104551808354642e+00,'tool_finished','{"call_id":"call_7d7613b20556f39b3f5b588714ccbbbb","output":"O-7 is on its way"}');
CREATE TABLE notes (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO "notes" VALUES('counts',X'7B22746F74616C73223A7B22696E5F666C696768745F6D6178223A31322C2263726561746564223A372C22637265617465645F746F5F636865636B223A332C22636865636B73223A382C227475726E73223A302C22746F6F6C5F63616C6C73223A342C2272657472696573223A302C227761697473223A302C22746F6F6C5F6661696C75726573223A302C22637265617465735F6C6F7374223A302C2262617463686573223A332C226C696E65735F73656E74223A31322C226C696E65735F616E737765726564223A342C226C696E65735F756E646F6E65223A307D2C22626174636865735F62795F656E64223A7B22636F6D706C65746564223A317D2C2263616C6C73223A5B5B2270726570617265222C22323030222C335D2C5B22637265617465222C22323030222C335D2C5B22636865636B222C22323030222C335D2C5B226665746368222C22323030222C315D5D2C227365636F6E6473223A382E3137353435303034353531383038352C227461736B735F6D6178223A34307D');
INSERT INTO "notes" VALUES('facts','{"name":"run-3ec2ab0c8aa9","source":"job.toml","started_at_unix":1795249908.5148275,"version":"0.1.0","requests":12,"by_model":{"gpt-5-mini":12},"file_digest":"ba992ec8a8a25e324aa29c96962d541f","defaults_digest":"785dc3b3a8256eb7","server":"http://emulator.test/v1","via":"batch"}');
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
INSERT INTO "requests" VALUES(1,0,NULL,1,'O-0',X'138D1DEE757D48A7','/v1/chat/completions','gpt-5-mini',1,1.00000000000000016653e-06,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
INSERT INTO "requests" VALUES(2,0,NULL,2,'O-1',X'44E30B9F29155E2F','/v1/chat/completions','gpt-5-mini',2,2.0e-06,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
INSERT INTO "requests" VALUES(3,0,NULL,3,'O-2',X'E1FFD07C0170E648','/v1/chat/completions','gpt-5-mini',3,2.99999999999999965262e-06,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
INSERT INTO "requests" VALUES(4,0,NULL,4,'O-3',X'549A385B74DFFD73','/v1/chat/completions','gpt-5-mini',4,3.999999999999998972e-06,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
INSERT INTO "requests" VALUES(5,0,NULL,5,'O-4',X'8D7008B0C0366D1C','/v1/chat/completions','gpt-5-mini',5,4.99999999999999956198e-06,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
INSERT INTO "requests" VALUES(6,0,NULL,6,'O-5',X'152E430C66A77E6A','/v1/chat/completions','gpt-5-mini',7,6.0e-06,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
INSERT INTO "requests" VALUES(7,0,NULL,7,'O-6',X'F4057DAD8B8CED85','/v1/chat/completions','gpt-5-mini',8,7.00000000000000074202e-06,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
INSERT INTO "requests" VALUES(8,0,NULL,8,'O-7',X'7DE995AA16B357B5','/v1/chat/completions','gpt-5-mini',9,8.00000000000000133226e-06,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
INSERT INTO "requests" VALUES(9,0,NULL,9,'O-8',X'28A602AF79FD5314','/v1/chat/completions','gpt-5-mini',10,9.00000000000000192207e-06,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
INSERT INTO "requests" VALUES(10,0,NULL,10,'O-9',X'56E5886AAD523CBC','/v1/chat/completions','gpt-5-mini',11,1.0000000000000002512e-05,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
INSERT INTO "requests" VALUES(11,0,NULL,11,'O-10',X'C2DF72871CCD7520','/v1/chat/completions','gpt-5-mini',12,1.10000000000000031021e-05,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
INSERT INTO "requests" VALUES(12,0,NULL,12,'O-11',X'FEA0863D24218076','/v1/chat/completions','gpt-5-mini',13,1.20000000000000036921e-05,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    pid INTEGER NOT NULL,
    started_unix REAL NOT NULL,
    base_seconds REAL NOT NULL,
    last_seconds REAL NOT NULL,
    last_seq INTEGER NOT NULL,
    group_max INTEGER NOT NULL
);
INSERT INTO "sessions" VALUES(1,16988,1.79524990851973676678e+09,0.0,8.17345104551808354642e+00,33,1);
CREATE TABLE unwritten (
    number INTEGER PRIMARY KEY,
    ending INTEGER NOT NULL,
    is_completed INTEGER NOT NULL,
    line BLOB NOT NULL
);
COMMIT;
