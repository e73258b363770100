-- What makes a journal of an older schema one of the next, by the number of that.

-- name: 2
CREATE TABLE webhooks (
    seq INTEGER PRIMARY KEY,
    webhook_id TEXT NOT NULL
);
