-- Version 1 of the PostgreSQL schema. Times are µs since 1970 UTC by the database's clock; bytes are
-- sealed (see docs/format.md). "sayiir." stands for the schema that was configured. There is nothing
-- here that the distributed engines which speak PostgreSQL's language do not take: no extension, no
-- stored procedure, no trigger, no advisory lock.

-- Numbers that are never used again, whatever is deleted.
CREATE SEQUENCE sayiir.instance_numbers;
CREATE SEQUENCE sayiir.event_numbers;
CREATE SEQUENCE sayiir.small_numbers;

-- Every definition that an instance was submitted with, as data.
CREATE TABLE sayiir.definitions (
    definition integer PRIMARY KEY,
    hash       bytea   NOT NULL UNIQUE,
    workflow   text    NOT NULL,
    tree       bytea   NOT NULL,
    created_us bigint  NOT NULL
);

-- What one claim can tell apart: a definition, and the tags that the next step needs.
CREATE TABLE sayiir.lanes (
    lane       integer PRIMARY KEY,
    definition integer NOT NULL,
    tags       text    NOT NULL,    -- JSON list
    UNIQUE (definition, tags)
);

-- Living workers; a row goes when its worker stops, or was not renewed in time. A lease that is about
-- to run out is first suspected and taken back a third of its length later, so that after the server
-- itself was away its holder can come forward before anybody takes it.
CREATE TABLE sayiir.workers (
    worker     integer PRIMARY KEY,
    name       text    NOT NULL UNIQUE,
    lease_us   bigint  NOT NULL,
    expires_us bigint  NOT NULL,
    suspect_us bigint,              -- since when
    look_us    bigint  NOT NULL     -- when to suspect it, or to take it back
) WITH (fillfactor = 50);

-- What workers are called whose number stands in a step row; kept when they are gone.
CREATE TABLE sayiir.worker_names (
    worker integer PRIMARY KEY,
    name   text    NOT NULL UNIQUE
);

-- What never changes comes first, then what changes seldom, then what every checkpoint changes: an update
-- is logged from its first changed column on.
CREATE TABLE sayiir.instances (
    instance    bigint   PRIMARY KEY,
    created_us  bigint   NOT NULL,
    start_at_us bigint,
    definition  integer  NOT NULL,
    id          text     COLLATE "C" NOT NULL,   -- unique by way of its input
    lane        integer  NOT NULL,
    order_us    bigint   NOT NULL,  -- place in the ready queue
    priority    smallint NOT NULL,
    events      boolean  NOT NULL DEFAULT false, -- whether one ever came for it
    -- 1 pause pending, 2 cancel pending, 3 paused, 4 cancelled
    asked       smallint,
    resume      smallint,           -- the status to go back to after a pause
    -- 0 in_progress, 1 waiting, 2 awaiting_signal, 3 paused, 4 completed, 5 failed, 6 cancelled
    status      smallint NOT NULL,
    holder      integer,            -- the worker that has the lease
    alert       integer,            -- grows while held, with every request or event for the holder
    fence       bigint   NOT NULL,
    lease       bigint,             -- marks the claim that the lease comes from
    wake_us     bigint,             -- when it goes on by itself
    next_strand integer  NOT NULL,
    cells_from  integer,
    next_seq    integer  NOT NULL,
    steps       integer  NOT NULL,
    updated_us  bigint   NOT NULL,
    ended_us    bigint,
    result_seq  integer,
    -- The position: the root strand's cell, and the next free numbers above.
    cursor      bytea,
    awaits      text[],             -- names of events
    delay_id    text,
    signal_id   text,
    signal_name text,
    reason      text,
    asked_by    text,
    -- The output or the error record: the one of the step row result_seq, or these bytes.
    result      bytea
) WITH (fillfactor = 35);
CREATE INDEX instances_ready ON sayiir.instances (lane, order_us, instance)
    WHERE status = 0 AND holder IS NULL;
CREATE INDEX instances_held ON sayiir.instances (holder) WHERE holder IS NOT NULL;
CREATE INDEX instances_timers ON sayiir.instances (wake_us)
    WHERE status IN (1, 2) AND wake_us IS NOT NULL;
CREATE INDEX instances_ended ON sayiir.instances (ended_us) WHERE ended_us IS NOT NULL;
-- For lists of one status. Most instances are never in any of these; ready and held ones have theirs above.
CREATE INDEX instances_listed ON sayiir.instances (status, instance) WHERE status IN (1, 2, 3, 5, 6);

-- Apart from the row, which is rewritten with every checkpoint, and with it the index of ids: an update
-- that moves a row within its table is written to all its indexes. The token tells one submit from
-- another that was made for the same id.
CREATE TABLE sayiir.inputs (
    instance bigint NOT NULL,
    token    bigint NOT NULL,
    id       text   COLLATE "C" PRIMARY KEY,
    input    bytea  NOT NULL
);

-- Positions of child strands.
CREATE TABLE sayiir.cells (
    instance bigint  NOT NULL,
    strand   integer NOT NULL,
    cell     bytea   NOT NULL,
    PRIMARY KEY (instance, strand)
);

-- Results and history, written once. What most rows would say alike is said by its absence.
CREATE TABLE sayiir.steps (
    instance   bigint   NOT NULL,
    started_us bigint   NOT NULL,
    ended_us   bigint   NOT NULL,
    seq        integer  NOT NULL,
    worker     integer  NOT NULL,
    attempt    integer,             -- none: the first
    outcome    smallint,            -- none: completed; 1 retried, 2 failed, 3 elapsed
    path       text     NOT NULL,
    name       text,                -- none: the same as the path
    output     bytea,
    error      bytea,
    PRIMARY KEY (instance, seq)
);

-- First in, first out per id and name. They may come before their instance ("early"). One that nobody
-- has looked at since it came, because it came with a transaction of its sender's, is "fresh". A
-- consumed one stays, without its payload, until the instance ends, so that its key and its token are
-- known.
CREATE TABLE sayiir.events (
    id       text    COLLATE "C" NOT NULL,
    event    bigint  NOT NULL,
    name     text    NOT NULL,
    key      text,
    token    bigint  NOT NULL,
    came_us  bigint  NOT NULL,
    consumed boolean NOT NULL DEFAULT false,
    early    boolean NOT NULL DEFAULT false,
    fresh    boolean NOT NULL DEFAULT false,
    payload  bytea,
    PRIMARY KEY (id, event)
);
CREATE UNIQUE INDEX events_by_key ON sayiir.events (id, name, key) WHERE key IS NOT NULL;
CREATE INDEX events_buffered ON sayiir.events (id, name, event) WHERE NOT consumed;
CREATE INDEX events_early ON sayiir.events (came_us) WHERE early;
CREATE INDEX events_fresh ON sayiir.events (event) WHERE fresh;

-- Instances that were deleted, and whose rows go a few at a time.
CREATE TABLE sayiir.garbage (
    instance bigint PRIMARY KEY
);

-- Processes that want to be told.
CREATE TABLE sayiir.listeners (
    listener   bigint  PRIMARY KEY,
    work       boolean NOT NULL,
    ends       boolean NOT NULL,
    expires_us bigint  NOT NULL
) WITH (fillfactor = 50);

-- For people with a SQL prompt.
CREATE VIEW sayiir.instances_readable AS
SELECT i.id,
       d.workflow,
       CASE i.status WHEN 0 THEN 'in_progress' WHEN 1 THEN 'waiting' WHEN 2 THEN 'awaiting_signal'
                     WHEN 3 THEN 'paused' WHEN 4 THEN 'completed' WHEN 5 THEN 'failed'
                     ELSE 'cancelled' END AS status,
       i.steps,
       to_timestamp(i.created_us / 1000000.0) AS created_at,
       to_timestamp(i.updated_us / 1000000.0) AS updated_at,
       to_timestamp(i.wake_us / 1000000.0) AS wake_at,
       i.signal_name,
       w.name AS worker,
       l.tags,
       i.priority,
       CASE i.asked WHEN 1 THEN 'pause' WHEN 2 THEN 'cancel' END AS pending,
       i.reason,
       encode(d.hash, 'hex') AS definition_hash
FROM sayiir.instances i
JOIN sayiir.definitions d ON d.definition = i.definition
JOIN sayiir.lanes l ON l.lane = i.lane
LEFT JOIN sayiir.workers w ON w.worker = i.holder;

CREATE VIEW sayiir.steps_readable AS
SELECT i.id,
       s.seq,
       s.path,
       coalesce(s.name, s.path) AS name,
       coalesce(s.attempt, 1) AS attempt,
       CASE coalesce(s.outcome, 0) WHEN 0 THEN 'completed' WHEN 1 THEN 'retried' WHEN 2 THEN 'failed'
                      ELSE 'elapsed' END AS outcome,
       w.name AS worker,
       to_timestamp(s.started_us / 1000000.0) AS started_at,
       round((s.ended_us - s.started_us) / 1000000.0, 6) AS seconds,
       octet_length(s.output) AS output_bytes
FROM sayiir.steps s
JOIN sayiir.instances i ON i.instance = s.instance
LEFT JOIN sayiir.worker_names w ON w.worker = s.worker;

CREATE VIEW sayiir.queue_readable AS
SELECT d.workflow,
       l.tags,
       count(*) AS ready,
       to_timestamp(min(i.order_us) / 1000000.0) AS next_in_order
FROM sayiir.instances i
JOIN sayiir.lanes l ON l.lane = i.lane
JOIN sayiir.definitions d ON d.definition = l.definition
WHERE i.status = 0 AND i.holder IS NULL
GROUP BY d.workflow, l.tags;

CREATE VIEW sayiir.workers_readable AS
SELECT w.name AS worker,
       to_timestamp(w.expires_us / 1000000.0) AS lease_ends_at,
       (SELECT count(*) FROM sayiir.instances i WHERE i.holder = w.worker) AS instances_held
FROM sayiir.workers w;
