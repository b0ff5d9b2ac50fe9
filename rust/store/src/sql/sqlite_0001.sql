-- Version 1 of the SQLite schema. Times are µs since 1970 UTC; blobs are sealed (see docs/format.md).
-- A column named "check" is a CRC-32 that ties a row to its key; see sqlite/seal.rs.

-- Numbers that are never used again, whatever is deleted.
CREATE TABLE counters (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    instance INTEGER NOT NULL,
    fence    INTEGER NOT NULL
) STRICT;
INSERT INTO counters VALUES (1, 0, 0);

-- Every definition that an instance was submitted with, as data.
CREATE TABLE definitions (
    definition INTEGER PRIMARY KEY,
    hash       BLOB    NOT NULL UNIQUE,
    workflow   TEXT    NOT NULL,
    tree       BLOB    NOT NULL,
    created_us INTEGER NOT NULL
) STRICT;

-- Living workers; a row goes when its worker stops, or was not renewed in time. A lease that is about
-- to run out is first suspected and taken back a third of its length later, so that a worker that had
-- to wait for the lock like everybody else can renew it before anybody takes it.
CREATE TABLE workers (
    worker     INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    lease_us   INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    suspect_us INTEGER,             -- since when
    look_us    INTEGER NOT NULL     -- when to suspect it, or to take it back
) STRICT;
CREATE INDEX workers_by_look ON workers (look_us);

CREATE TABLE instances (
    instance    INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    definition  INTEGER NOT NULL REFERENCES definitions,
    -- 0 in_progress, 1 waiting, 2 awaiting_signal, 3 paused, 4 completed, 5 failed, 6 cancelled
    status      INTEGER NOT NULL,
    priority    INTEGER NOT NULL,
    tags        TEXT    NOT NULL,   -- JSON list
    order_us    INTEGER NOT NULL,   -- place in the ready queue
    fence       INTEGER NOT NULL,
    holder      INTEGER REFERENCES workers,
    alert       INTEGER,            -- grows while held, with every request or event for the holder
    events      INTEGER NOT NULL DEFAULT 0, -- 1 when an event ever came for it
    created_us  INTEGER NOT NULL,
    updated_us  INTEGER NOT NULL,
    ended_us    INTEGER,
    start_at_us INTEGER,
    -- The position: the root strand's cell, and the next free numbers.
    cursor      BLOB,
    next_seq    INTEGER NOT NULL,
    next_strand INTEGER NOT NULL,
    cells_from  INTEGER,
    steps       INTEGER NOT NULL,
    "check"     INTEGER NOT NULL,
    -- Why nothing runs.
    wake_us     INTEGER,
    awaits      TEXT,               -- JSON list of event names
    delay_id    TEXT,
    signal_id   TEXT,
    signal_name TEXT,
    -- 1 pause pending, 2 cancel pending, 3 paused, 4 cancelled
    asked       INTEGER,
    resume      INTEGER,            -- the status to go back to after a pause
    reason      TEXT,
    asked_by    TEXT,
    -- The output or the error record: the one of this step row, or these bytes.
    result_seq  INTEGER,
    result      BLOB
) STRICT;
CREATE INDEX instances_ready ON instances (definition, tags, order_us, instance)
    WHERE status = 0 AND holder IS NULL;
CREATE INDEX instances_held ON instances (holder) WHERE holder IS NOT NULL;
CREATE INDEX instances_alerted ON instances (holder) WHERE alert IS NOT NULL;
CREATE INDEX instances_timers ON instances (wake_us) WHERE status IN (1, 2) AND wake_us IS NOT NULL;
CREATE INDEX instances_ended ON instances (ended_us) WHERE ended_us IS NOT NULL;
CREATE INDEX instances_listed ON instances (status, instance) WHERE status <> 4;

-- Apart from the row, which is rewritten with every checkpoint.
CREATE TABLE inputs (
    instance INTEGER PRIMARY KEY,
    input    BLOB    NOT NULL,
    "check"  INTEGER NOT NULL
) STRICT;

-- Positions of child strands.
CREATE TABLE cells (
    instance INTEGER NOT NULL,
    strand   INTEGER NOT NULL,
    cell     BLOB    NOT NULL,
    "check"  INTEGER NOT NULL,
    PRIMARY KEY (instance, strand)
) STRICT, WITHOUT ROWID;

-- Results and history, written once.
CREATE TABLE steps (
    instance   INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    path       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    outcome    INTEGER NOT NULL,    -- 0 completed, 1 retried, 2 failed, 3 elapsed
    worker     TEXT    NOT NULL,
    started_us INTEGER NOT NULL,
    ended_us   INTEGER NOT NULL,
    output     BLOB,
    error      BLOB,
    "check"    INTEGER NOT NULL,
    PRIMARY KEY (instance, seq)
) STRICT, WITHOUT ROWID;

-- First in, first out per id and name. They may come before their instance ("early"). One that had a
-- key stays, without its payload, when it is consumed, so that the key stays known.
CREATE TABLE events (
    event    INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    "key"    TEXT,
    payload  BLOB,
    came_us  INTEGER NOT NULL,
    consumed INTEGER NOT NULL DEFAULT 0,
    early    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX events_by_id ON events (id, name, event);
CREATE UNIQUE INDEX events_by_key ON events (id, name, "key") WHERE "key" IS NOT NULL;
CREATE INDEX events_early ON events (came_us) WHERE early = 1;
CREATE INDEX events_early_by_id ON events (id) WHERE early = 1;

-- Instances that were deleted, and whose rows go a few at a time.
CREATE TABLE garbage (
    instance INTEGER PRIMARY KEY
) STRICT;

-- For people with a SQL prompt.
CREATE VIEW instances_readable AS
SELECT i.id,
       d.workflow,
       CASE i.status WHEN 0 THEN 'in_progress' WHEN 1 THEN 'waiting' WHEN 2 THEN 'awaiting_signal'
                     WHEN 3 THEN 'paused' WHEN 4 THEN 'completed' WHEN 5 THEN 'failed'
                     ELSE 'cancelled' END AS status,
       i.steps,
       datetime(i.created_us / 1000000, 'unixepoch') AS created_at,
       datetime(i.updated_us / 1000000, 'unixepoch') AS updated_at,
       datetime(i.wake_us / 1000000, 'unixepoch') AS wake_at,
       i.signal_name,
       w.name AS worker,
       i.tags,
       i.priority,
       i.reason,
       lower(hex(d.hash)) AS definition_hash
FROM instances i
JOIN definitions d USING (definition)
LEFT JOIN workers w ON w.worker = i.holder;

CREATE VIEW steps_readable AS
SELECT i.id,
       s.seq,
       s.path,
       s.name,
       s.attempt,
       CASE s.outcome WHEN 0 THEN 'completed' WHEN 1 THEN 'retried' WHEN 2 THEN 'failed'
                      ELSE 'elapsed' END AS outcome,
       s.worker,
       datetime(s.started_us / 1000000, 'unixepoch') AS started_at,
       round((s.ended_us - s.started_us) / 1e6, 6) AS seconds,
       length(s.output) AS output_bytes
FROM steps s
JOIN instances i USING (instance);
