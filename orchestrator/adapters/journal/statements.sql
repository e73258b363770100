-- What is asked of a journal and told to it, by name. {rows} stands for as many rows of values as
-- are there, {places} for as many single ones.

-- name: set_note
INSERT INTO notes (key, value) VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value

-- name: note
SELECT value FROM notes WHERE key = ?

-- name: begin_session
INSERT INTO sessions (number, pid, started_unix, base_seconds, last_seconds, last_seq, group_max)
VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: session_goes_on
UPDATE sessions SET last_seconds = ?, last_seq = ?, group_max = ? WHERE number = ?

-- name: sessions
SELECT number, pid, started_unix, base_seconds, last_seconds, last_seq, group_max
FROM sessions ORDER BY number

-- name: admit
INSERT INTO requests (number, line, custom_id, digest, url, model, admitted_seq, admitted_at, family)
VALUES {rows}

-- name: keep
INSERT INTO events (number, seq, at, kind, data) VALUES {rows}

-- name: carry
INSERT OR IGNORE INTO batch_lines (number, batch) VALUES {rows}

-- name: end
UPDATE requests SET
    outcome = told.column2,
    ended_seq = told.column3,
    ended_at = told.column4,
    code = told.column5,
    message = told.column6,
    run_id = told.column7,
    input_tokens = told.column8,
    output_tokens = told.column9,
    cached_tokens = told.column10,
    reasoning_tokens = told.column11,
    batch_input_tokens = told.column12,
    batch_output_tokens = told.column13,
    batch_cached_tokens = told.column14,
    batch_reasoning_tokens = told.column15,
    creates = told.column16,
    checks = told.column17,
    turns = told.column18,
    sent = told.column19,
    lost = told.column20,
    seconds = told.column21,
    cause = told.column22,
    lost_input_tokens = told.column23,
    lost_output_tokens = told.column24,
    cost_usd = told.column25,
    lost_usd = told.column26
FROM (VALUES {rows}) AS told
WHERE requests.number = told.column1

-- name: put_out
INSERT INTO unwritten (number, ending, is_completed, line) VALUES {rows}

-- name: take_in
DELETE FROM unwritten WHERE number IN ({places})

-- name: unwritten
SELECT number, is_completed, line FROM unwritten ORDER BY ending

-- name: ending_max
SELECT coalesce(max(ending), 0) FROM unwritten

-- name: reopen
UPDATE requests SET is_reopened = 1
WHERE is_reopened = 0 AND line > 0 AND outcome IN ({places})

-- name: forget
UPDATE requests SET is_reopened = 1 WHERE number IN ({places})

-- name: take_out
UPDATE requests SET line = 0 WHERE number IN ({places})

-- name: hear
INSERT INTO webhooks (webhook_id) VALUES {rows}

-- name: forget_heard
DELETE FROM webhooks WHERE seq <= (SELECT max(seq) FROM webhooks) - ?

-- name: heard
SELECT webhook_id FROM webhooks ORDER BY seq

-- name: drop_unwritten
DELETE FROM unwritten

-- name: drop_unwritten_errors
DELETE FROM unwritten WHERE is_completed = 0

-- name: accept
UPDATE requests SET line = ?, digest = ? WHERE number = ?

-- name: lines
SELECT line, outcome IS NOT NULL FROM requests WHERE is_reopened = 0

-- name: digests
SELECT custom_id, digest, number, line, outcome IS NOT NULL, url, family FROM requests WHERE is_reopened = 0

-- name: unfinished
SELECT number, custom_id, line, digest FROM requests WHERE is_reopened = 0 AND outcome IS NULL

-- name: replay
WITH
    unfinished AS (
        SELECT number FROM requests WHERE is_reopened = 0 AND outcome IS NULL
    ),
    wanted AS (
        SELECT number FROM unfinished
        UNION
        SELECT batch_lines.batch FROM unfinished JOIN batch_lines USING (number)
    )
SELECT events.at, events.number, events.kind, events.data
FROM wanted CROSS JOIN events USING (number)
ORDER BY events.seq

-- name: unfinished_batches
SELECT batch_lines.batch, batch_lines.number
FROM requests CROSS JOIN batch_lines USING (number)
WHERE requests.is_reopened = 0 AND requests.outcome IS NULL

-- name: ended_groups
SELECT
    outcome, code, model, count(*),
    sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(reasoning_tokens),
    sum(batch_input_tokens), sum(batch_output_tokens),
    sum(batch_cached_tokens), sum(batch_reasoning_tokens),
    sum(lost_input_tokens), sum(lost_output_tokens),
    sum(cost_usd), sum(cost_usd IS NULL AND input_tokens + output_tokens > 0), sum(lost_usd),
    sum(sent), sum(lost), min(number), cause, is_reopened
FROM requests WHERE outcome IS NOT NULL
GROUP BY outcome, code, model, cause, is_reopened

-- Of runs that were made once and asked for no tools, their time is that of one stretch.
-- name: durations
SELECT model, url, seconds FROM requests
WHERE outcome = 'completed' AND checks > 0 AND sent = 1 AND turns = 0 AND seconds IS NOT NULL
ORDER BY number

-- name: example
SELECT custom_id, message FROM requests WHERE number = ?

-- name: outcomes
SELECT outcome, count(*) FROM requests WHERE is_reopened = 0 AND outcome IS NOT NULL
GROUP BY outcome

-- name: number_max
SELECT coalesce(max(number), 0) FROM requests

-- name: batch_number_min
SELECT coalesce(min(number), 0) FROM events

-- name: attempts
SELECT
    number, line, model, admitted_seq, admitted_at,
    ended_seq, ended_at, outcome, code, message, run_id
FROM requests WHERE custom_id = ?

-- name: entries_of
WITH
    attempts AS (SELECT number FROM requests WHERE custom_id = ?),
    wanted AS (
        SELECT number FROM attempts
        UNION
        SELECT batch_lines.batch FROM attempts JOIN batch_lines USING (number)
    )
SELECT events.seq, events.at, events.number, events.kind, events.data
FROM wanted CROSS JOIN events USING (number)

-- name: tables_count
SELECT count(*) FROM sqlite_master
