//! Every SQL statement of the PostgreSQL store, by name, and nothing else.
//!
//! `sayiir.` stands for the schema that was configured. Each is prepared once per connection. Its name
//! is also the name of two fail points, before and after it (see [`crate::fail`]). A statement takes
//! whole columns of rows where many calls can share it: an array for each column, unnested side by
//! side, so that a batch of any size is one statement with one plan.
//!
//! Conditions on columns that partial indexes have are written so that the planner cannot see what they
//! are (`coalesce(i.holder, 0) = 0`) wherever rows are to be found by their key: before a table has
//! statistics every index seems to hold one row, and such an index is the one with the most dead entries.
//!
//! `$now` parameters are null when the database's clock counts, which is always but in tests.

/// A named statement.
#[derive(Debug)]
pub struct Statement {
    /// `call.part`.
    pub name: &'static str,
    /// The text, with `sayiir.` for the schema.
    pub sql: &'static str,
    /// Its place among [`ALL`].
    pub number: usize,
}

macro_rules! statements {
    (@count $at:expr;) => {};
    (@count $at:expr; $constant:ident = $name:literal, $sql:expr; $($rest:tt)*) => {
        pub const $constant: Statement = Statement { name: $name, sql: $sql, number: $at };
        statements!(@count $at + 1; $($rest)*);
    };
    ($($constant:ident = $name:literal, $sql:expr;)*) => {
        statements!(@count 0; $($constant = $name, $sql;)*);
        /// All of them.
        pub const ALL: &[&Statement] = &[$(&$constant),*];
    };
}

/// The database's time, µs, or the one that was given.
macro_rules! now {
    ($given:literal) => {
        concat!(
            "coalesce(",
            $given,
            "::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)"
        )
    };
}

/// What a claim gives to the holder; see `claiming::claim_of`.
macro_rules! claimed {
    ($from:literal) => {
        concat!(
            "SELECT u.instance, u.id, u.definition, u.lane, u.fence, u.cursor, u.next_seq, u.next_strand, \
             u.cells_from, u.priority, u.events, n.input, u.order_us, u.holder FROM ",
            $from,
            " LEFT JOIN sayiir.inputs n ON n.id = u.id ORDER BY u.order_us, u.instance"
        )
    };
}

/// What a listing or a `get` reads of an instance; see `reading::row_of`.
macro_rules! row_of {
    ($rest:expr) => {
        concat!(
            "SELECT i.instance, i.id, d.workflow, d.hash, i.status, i.created_us, i.updated_us, i.start_at_us, \
             i.wake_us, i.delay_id, i.signal_id, i.signal_name, i.asked, i.reason, i.asked_by, l.tags, i.priority, \
             w.name, i.fence, i.steps, CASE WHEN i.result_seq IS NULL THEN i.result ELSE (SELECT \
             coalesce(s.output, s.error) FROM sayiir.steps s WHERE s.instance = i.instance AND s.seq = i.result_seq) \
             END FROM sayiir.instances i JOIN sayiir.definitions d ON d.definition = i.definition \
             JOIN sayiir.lanes l ON l.lane = i.lane LEFT JOIN sayiir.workers w ON w.worker = i.holder ",
            $rest
        )
    };
}

/// What is read of a step row; see `reading::step_of`.
macro_rules! step_of {
    ($rest:literal) => {
        concat!(
            "SELECT s.seq, s.path, coalesce(s.name, s.path), coalesce(s.attempt, 1), coalesce(s.outcome, 0::smallint), s.output, s.error, s.started_us, s.ended_us, \
             (SELECT w.name FROM sayiir.worker_names w WHERE w.worker = s.worker), s.instance FROM sayiir.steps s ",
            $rest
        )
    };
}

/// What decides how an instance goes on; see `single::Control`.
macro_rules! control {
    ($rest:literal) => {
        concat!(
            "SELECT i.instance, i.id, i.status, i.fence, i.holder, i.asked, i.resume, i.wake_us, i.awaits, i.events, \
             i.cells_from, i.definition, i.next_seq, i.next_strand, \
             (SELECT w.worker FROM sayiir.workers w WHERE w.worker = i.holder), i.ended_us FROM sayiir.instances i ",
            $rest
        )
    };
}

/// Applies checkpoints; what an end may leave over is the matter of those that ask for it.
///
/// Arrays of a batch are matched with what was updated by a hash of it (`IN … IS TRUE`): joins of two
/// sets that have no index would be made pair by pair.
macro_rules! checkpoint {
    ($guard:literal, $rest:literal) => {
        concat!("WITH t AS MATERIALIZED (SELECT ", now!("$18"), " AS now), \
         c AS MATERIALIZED (SELECT c.instance, c.fence, c.cursor, c.next_seq, c.next_strand, c.cells_from, c.steps, c.tags, c.priority, c.status, \
           c.frees, c.wake_us, c.awaits, c.delay_id, c.signal_id, c.signal_name, c.result_seq, c.result, \
           c.from_seq, c.from_strand, c.item FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::integer[], $5::integer[], \
           $6::integer[], $7::integer[], $8::text[], $9::smallint[], $10::smallint[], $11::boolean[], $12::bigint[], \
           $13::text[], $14::text[], $15::text[], $16::text[], $17::integer[], $19::bytea[], $30::integer[], $31::integer[], $33::boolean[]) \
           AS c (instance, fence, cursor, next_seq, next_strand, cells_from, steps, tags, priority, status, frees, wake_us, \
           awaits, delay_id, signal_id, signal_name, result_seq, result, from_seq, from_strand, item)), \
         u AS (UPDATE sayiir.instances i SET \
           cursor = CASE WHEN c.status >= 4 THEN NULL ELSE coalesce(c.cursor, i.cursor) END, \
           next_seq = c.next_seq, next_strand = c.next_strand, \
           cells_from = CASE WHEN c.status >= 4 THEN i.cells_from ELSE c.cells_from END, \
           steps = i.steps + c.steps, lane = CASE WHEN c.tags IS NULL THEN i.lane ELSE (SELECT l.lane FROM sayiir.lanes l \
             WHERE l.definition = i.definition AND l.tags = c.tags) END, priority = coalesce(c.priority, i.priority), \
           order_us = CASE WHEN c.priority IS NULL THEN i.order_us ELSE greatest(i.created_us, i.start_at_us) \
             + (c.priority - 1) * 30000000::bigint END, \
           status = CASE WHEN c.status IN (1, 2) AND c.wake_us <= t.now THEN 0 ELSE c.status END, \
           holder = CASE WHEN c.frees THEN NULL ELSE i.holder END, \
           alert = CASE WHEN c.frees THEN NULL ELSE i.alert END, \
           wake_us = c.wake_us, awaits = c.awaits::text[], delay_id = c.delay_id, signal_id = c.signal_id, \
           signal_name = c.signal_name, result_seq = c.result_seq, result = c.result, updated_us = t.now, \
           ended_us = CASE WHEN c.status >= 4 AND NOT c.item THEN t.now END \
           FROM c, t, sayiir.workers w WHERE i.instance = c.instance AND i.fence = c.fence AND w.worker = coalesce(i.holder, 0) \
           AND i.next_seq = c.from_seq AND i.next_strand = c.from_strand \
           AND i.asked IS NULL AND (c.awaits IS NULL OR NOT i.events) ",
            $guard,
            "AND (c.tags IS NULL OR EXISTS (SELECT 1 \
             FROM sayiir.lanes l WHERE l.definition = i.definition AND l.tags = c.tags)) \
           RETURNING i.instance, i.id, i.status, i.cells_from, i.events), \
         s AS (INSERT INTO sayiir.steps (instance, seq, path, name, attempt, outcome, worker, started_us, ended_us, output, \
           error) SELECT x.instance, x.seq, x.path, nullif(x.name, x.path), nullif(x.attempt, 1), nullif(x.outcome, 0::smallint), x.worker, x.started_us, x.ended_us, \
           x.output, x.error FROM unnest($20::bigint[], $21::integer[], $22::text[], $23::text[], $24::integer[], \
           $25::smallint[], $26::bigint[], $27::bigint[], $28::bytea[], $29::bytea[], $32::integer[]) \
           AS x (instance, seq, path, name, attempt, outcome, started_us, ended_us, output, error, worker) \
           WHERE (x.instance IN (SELECT u.instance FROM u)) IS TRUE) ",
            $rest,
            "SELECT u.instance FROM u"
        )
    };
}

statements! {
    CLOCK = "clock.read", concat!("SELECT ", now!("NULL"));

    // Definitions and lanes, which are written once and never change.
    LANES = "lane.find",
        "SELECT d.hash, d.definition, l.lane, l.tags FROM sayiir.definitions d \
         LEFT JOIN sayiir.lanes l ON l.definition = d.definition WHERE d.hash = ANY($1::bytea[])";
    LANE = "lane.one",
        "SELECT l.lane FROM sayiir.lanes l WHERE l.definition = $1::integer AND l.tags = $2::text";
    DEFINITION_NEW = "definition.new",
        concat!("INSERT INTO sayiir.definitions (definition, hash, workflow, tree, created_us) \
         SELECT nextval('sayiir.small_numbers')::integer, $1::bytea, $2::text, $3::bytea, ", now!("$4"),
         " ON CONFLICT (hash) DO NOTHING");
    LANE_NEW = "lane.new",
        "INSERT INTO sayiir.lanes (lane, definition, tags) \
         SELECT nextval('sayiir.small_numbers')::integer, $1::integer, $2::text \
         ON CONFLICT (definition, tags) DO NOTHING";

    // Those that are granted are made as the claim with this token would leave them: one row version less.
    // An id that somebody else takes in this moment makes it fail as a collision, to be made again;
    // ON CONFLICT would mark each row first and unmark it then, and log both.
    SUBMIT = "submit.create",
        concat!("WITH t AS MATERIALIZED (SELECT ", now!("$8"), " AS now), \
         c AS MATERIALIZED (SELECT nextval('sayiir.instance_numbers') AS instance, u.* FROM unnest($1::text[], \
           $2::integer[], $3::integer[], $4::smallint[], $5::bigint[], $6::bytea[], $7::bigint[], $10::boolean[]) \
           AS u (id, definition, lane, priority, start_at_us, input, token, granted)), \
         w AS MATERIALIZED (SELECT w.worker FROM sayiir.workers w WHERE w.name = $11::text FOR KEY SHARE), \
         made AS (INSERT INTO sayiir.inputs (instance, id, token, input) SELECT c.instance, c.id, c.token, c.input \
           FROM c WHERE NOT EXISTS (SELECT 1 FROM sayiir.inputs n WHERE n.id = c.id) RETURNING instance, id), \
         i AS (INSERT INTO sayiir.instances (instance, id, definition, lane, status, priority, order_us, fence, holder, lease, \
           created_us, updated_us, start_at_us, wake_us, next_seq, next_strand, steps, events) \
           SELECT c.instance, c.id, c.definition, c.lane, CASE WHEN c.start_at_us > t.now THEN 1 ELSE 0 END, c.priority, \
           greatest(t.now, c.start_at_us) + (c.priority - 1) * 30000000::bigint, \
           (c.instance << 20) + CASE WHEN w.worker IS NULL THEN 0 ELSE 1 END, w.worker, \
           CASE WHEN w.worker IS NULL THEN NULL ELSE $12::bigint END, t.now, t.now, \
           CASE WHEN c.start_at_us > t.now THEN c.start_at_us END, CASE WHEN c.start_at_us > t.now THEN c.start_at_us END, \
           0, 1, 0, EXISTS (SELECT 1 FROM sayiir.events e WHERE e.id = c.id AND coalesce(e.early, false) AND e.came_us > t.now - $9::bigint) \
           FROM c CROSS JOIN t LEFT JOIN w ON c.granted AND coalesce(c.start_at_us, 0) <= t.now \
           WHERE (c.instance IN (SELECT made.instance FROM made)) IS TRUE \
           RETURNING instance, id, fence, holder, events), \
         adopted AS (UPDATE sayiir.events e SET early = false, fresh = false FROM made, t \
           WHERE e.id = made.id AND coalesce(e.early, false) AND e.came_us > t.now - $9::bigint), \
         late AS (DELETE FROM sayiir.events e USING made, t WHERE e.id = made.id AND e.early \
           AND e.came_us <= t.now - $9::bigint) \
         SELECT i.id, i.instance, i.fence, i.holder, i.events FROM i");
    TOKEN = "submit.token", "SELECT n.token FROM sayiir.inputs n WHERE n.id = $1::text";
    TAKEN = "submit.taken", "SELECT n.id FROM sayiir.inputs n WHERE n.id = ANY($1::text[])";

    COMMIT = "commit.apply",
        checkpoint!("", ", put AS (INSERT INTO sayiir.cells (instance, strand, cell) SELECT x.instance, x.strand, x.cell \
           FROM unnest($34::bigint[], $35::integer[], $36::bytea[]) AS x (instance, strand, cell) \
           WHERE (x.instance IN (SELECT u.instance FROM u)) IS TRUE \
           ON CONFLICT (instance, strand) DO UPDATE SET cell = excluded.cell), \
         dropped AS (DELETE FROM sayiir.cells k USING unnest($37::bigint[], $38::integer[]) AS x (instance, below) \
           WHERE k.instance = x.instance AND k.strand < x.below AND (x.instance IN (SELECT u.instance FROM u)) IS TRUE), \
         consumed AS (UPDATE sayiir.events e SET consumed = true, payload = NULL \
           FROM unnest($39::bigint[], $40::text[], $41::bigint[]) AS x (instance, id, event) \
           WHERE e.id = x.id AND e.event = x.event AND (x.instance IN (SELECT u.instance FROM u)) IS TRUE), \
         over AS (DELETE FROM sayiir.cells k USING u WHERE k.instance = u.instance AND u.status >= 4 \
           AND u.cells_from IS NOT NULL), \
         past AS (DELETE FROM sayiir.events e USING u WHERE e.id = u.id AND u.status >= 4 AND u.events) ");
    COMMIT_PLAIN = "commit.plain",
        checkpoint!("AND (c.status < 4 OR (i.cells_from IS NULL AND NOT i.events)) ", "");
    DONE_BEFORE = "commit.done_before",
        "SELECT 1 FROM sayiir.steps s WHERE s.instance = $1::bigint AND s.seq = $2::integer";

    WAKE = "claim.wake",
        concat!("WITH t AS MATERIALIZED (SELECT ", now!("$1"), " AS now), due AS MATERIALIZED (SELECT i.instance \
         FROM sayiir.instances i, t WHERE i.status IN (1, 2) AND i.wake_us IS NOT NULL AND i.wake_us <= t.now \
         ORDER BY i.wake_us LIMIT 1000 FOR UPDATE OF i SKIP LOCKED) \
         UPDATE sayiir.instances i SET status = 0, updated_us = greatest(i.updated_us, i.wake_us) FROM due WHERE i.instance = due.instance");
    ADOPT = "claim.adopt",
        concat!("WITH f AS MATERIALIZED (SELECT e.id, e.event, e.name FROM sayiir.events e WHERE e.fresh \
           ORDER BY e.event LIMIT 1000 FOR UPDATE SKIP LOCKED), \
         u AS (UPDATE sayiir.instances i SET events = true, \
           alert = CASE WHEN i.holder IS NULL THEN NULL ELSE coalesce(i.alert, 0) + 1 END, \
           status = CASE WHEN i.status = 2 AND i.holder IS NULL AND EXISTS (SELECT 1 FROM f \
             WHERE f.id = i.id AND f.name = ANY(i.awaits)) THEN 0 ELSE i.status END, \
           updated_us = CASE WHEN i.status = 2 AND i.holder IS NULL AND EXISTS (SELECT 1 FROM f \
             WHERE f.id = i.id AND f.name = ANY(i.awaits)) THEN ", now!("$1"), " ELSE i.updated_us END \
           FROM (SELECT DISTINCT n.instance FROM f JOIN sayiir.inputs n ON n.id = f.id) AS g WHERE i.instance = g.instance AND i.status < 4 RETURNING i.id, i.holder) \
         UPDATE sayiir.events e SET fresh = false, early = false FROM f JOIN u ON u.id = f.id \
         WHERE e.id = f.id AND e.event = f.event RETURNING u.holder");
    WORKER_NAME = "claim.worker_name",
        "INSERT INTO sayiir.worker_names (worker, name) SELECT nextval('sayiir.small_numbers')::integer, $1::text \
         WHERE NOT EXISTS (SELECT 1 FROM sayiir.worker_names n WHERE n.name = $1::text) ON CONFLICT (name) DO NOTHING";
    WORKER_LEASE = "claim.worker",
        concat!("INSERT INTO sayiir.workers (worker, name, lease_us, expires_us, look_us) \
         SELECT n.worker, n.name, $2::bigint, t.now + $2::bigint, \
         t.now + $2::bigint - $3::bigint FROM sayiir.worker_names n, (SELECT ", now!("$4"), " AS now) AS t WHERE n.name = $1::text \
         ON CONFLICT (name) DO UPDATE SET lease_us = excluded.lease_us, suspect_us = NULL, \
         expires_us = greatest(workers.expires_us, excluded.expires_us), \
         look_us = greatest(workers.look_us, excluded.look_us)");
    CLAIM = "claim.take",
        concat!("WITH heads AS MATERIALIZED (SELECT h.instance, h.order_us FROM unnest($1::integer[]) AS l (lane) \
           CROSS JOIN LATERAL (SELECT i.instance, i.order_us FROM sayiir.instances i WHERE i.lane = l.lane AND i.status = 0 \
           AND i.holder IS NULL ORDER BY i.order_us, i.instance LIMIT $2::bigint + 64) AS h \
           ORDER BY h.order_us, h.instance LIMIT $2::bigint + 64), \
         taken AS MATERIALIZED (SELECT i.instance, w.worker FROM sayiir.workers w, heads h JOIN sayiir.instances i ON i.instance = h.instance \
           WHERE i.status + 0 = 0 AND coalesce(i.holder, 0) = 0 AND w.name = $3::text \
           ORDER BY h.order_us, h.instance LIMIT $2::bigint FOR UPDATE OF i SKIP LOCKED FOR KEY SHARE OF w), \
         u AS (UPDATE sayiir.instances i SET fence = i.fence + 1, holder = taken.worker, lease = $4::bigint, wake_us = NULL, \
           awaits = NULL, delay_id = NULL, signal_id = NULL, signal_name = NULL \
           FROM taken WHERE i.instance = taken.instance RETURNING i.instance, i.id, i.definition, i.lane, i.fence, i.cursor, i.next_seq, i.next_strand, i.cells_from, i.priority, i.events, i.order_us, i.holder) ",
         claimed!("u"));
    READY = "claim.ready",
        "SELECT 1 FROM unnest($1::integer[]) AS l (lane) CROSS JOIN LATERAL (SELECT i.instance FROM sayiir.instances i \
         WHERE i.lane = l.lane AND i.status = 0 AND i.holder IS NULL ORDER BY i.order_us, i.instance LIMIT 1) AS h LIMIT 1";
    CLAIM_ONE = "claim.one",
        concat!("WITH taken AS MATERIALIZED (SELECT i.instance, w.worker FROM sayiir.workers w, sayiir.instances i \
           WHERE i.instance = (SELECT n.instance FROM sayiir.inputs n WHERE n.id = $1::text) AND i.status + 0 = 0 AND coalesce(i.holder, 0) = 0 AND i.lane + 0 = ANY($2::integer[]) \
           AND w.name = $3::text FOR UPDATE OF i SKIP LOCKED FOR KEY SHARE OF w), \
         u AS (UPDATE sayiir.instances i SET fence = i.fence + 1, holder = taken.worker, lease = $4::bigint, wake_us = NULL, \
           awaits = NULL, delay_id = NULL, signal_id = NULL, signal_name = NULL \
           FROM taken WHERE i.instance = taken.instance RETURNING i.instance, i.id, i.definition, i.lane, i.fence, i.cursor, i.next_seq, i.next_strand, i.cells_from, i.priority, i.events, i.order_us, i.holder) ",
         claimed!("u"));
    CLAIMED = "claim.again",
        concat!("WITH u AS (SELECT i.instance, i.id, i.definition, i.lane, i.fence, i.cursor, i.next_seq, i.next_strand, i.cells_from, i.priority, i.events, i.order_us, i.holder FROM sayiir.instances i JOIN sayiir.workers w ON w.worker = i.holder \
         WHERE w.name = $1::text AND i.lease = $2::bigint) ", claimed!("u"));
    EXISTS = "instance.exists", "SELECT 1 FROM sayiir.inputs n WHERE n.id = $1::text";
    CELLS = "claim.cells",
        "SELECT k.instance, k.strand, k.cell FROM unnest($1::bigint[], $2::integer[]) AS x (instance, since) \
         JOIN sayiir.cells k ON k.instance = x.instance AND k.strand >= x.since ORDER BY k.instance, k.strand";
    CLAIM_ROWS = "claim.rows",
        step_of!("JOIN unnest($1::bigint[], $2::integer[]) AS x (instance, seq) \
         ON x.instance = s.instance AND x.seq = s.seq");
    BUFFERED = "claim.events",
        "SELECT e.id, e.event, e.name, e.payload FROM unnest($1::text[]) AS x (id) CROSS JOIN LATERAL \
         (SELECT b.id, b.event, b.name, b.payload FROM sayiir.events b WHERE b.id = x.id AND NOT b.consumed AND NOT b.early \
         ORDER BY b.event LIMIT $2::bigint) AS e";

    // One call at a time.
    CONTROL = "instance.lock", control!("WHERE i.instance = (SELECT n.instance FROM sayiir.inputs n WHERE n.id = $1::text) FOR UPDATE OF i");
    CONTROL_BY = "instance.lock_by", control!("WHERE i.instance = $1::bigint FOR UPDATE OF i");
    STATUS = "instance.ended",
        "SELECT x.id FROM unnest($1::text[]) AS x (id) LEFT JOIN sayiir.inputs n ON n.id = x.id \
         LEFT JOIN sayiir.instances i ON i.instance = n.instance WHERE i.status IS NULL OR i.status >= 4";
    FINISH = "instance.finish",
        concat!("UPDATE sayiir.instances i SET status = $2::smallint, holder = NULL, alert = NULL, updated_us = t.now, \
         ended_us = CASE WHEN $10::boolean THEN NULL ELSE t.now END, wake_us = NULL, awaits = NULL, delay_id = NULL, \
         signal_id = NULL, signal_name = NULL, cells_from = NULL, cursor = NULL, asked = $3::smallint, result_seq = $4::integer, result = $5::bytea, \
         next_seq = coalesce($6::integer, i.next_seq), next_strand = coalesce($7::integer, i.next_strand), \
         steps = i.steps + $8::integer, fence = i.fence + 1 FROM (SELECT ", now!("$9"), " AS now) AS t \
         WHERE i.instance = $1::bigint");
    PAUSED = "instance.paused",
        concat!("UPDATE sayiir.instances i SET status = 3, holder = NULL, alert = NULL, asked = 3, \
         resume = coalesce($2::smallint, i.resume), fence = i.fence + 1, updated_us = ", now!("$3"),
         " WHERE i.instance = $1::bigint");
    ASK = "instance.ask",
        "UPDATE sayiir.instances i SET asked = $2::smallint, resume = $3::smallint, reason = $4::text, asked_by = $5::text, \
         alert = CASE WHEN i.holder IS NULL THEN NULL ELSE coalesce(i.alert, 0) + 1 END WHERE i.instance = $1::bigint";
    UNASK = "instance.unask",
        "UPDATE sayiir.instances i SET asked = NULL, resume = NULL, reason = NULL, asked_by = NULL \
         WHERE i.instance = $1::bigint";
    UNPAUSE = "instance.unpause",
        concat!("UPDATE sayiir.instances i SET status = $2::smallint, asked = NULL, resume = NULL, reason = NULL, \
         asked_by = NULL, updated_us = ", now!("$3"), " WHERE i.instance = $1::bigint");
    LET_GO = "instance.let_go",
        "UPDATE sayiir.instances i SET holder = NULL, alert = NULL WHERE i.instance = $1::bigint";
    PLACE = "instance.place",
        concat!("UPDATE sayiir.instances i SET status = 0, updated_us = CASE WHEN i.wake_us <= t.now \
           THEN greatest(i.updated_us, i.wake_us) ELSE t.now END FROM (SELECT ", now!("$2"), " AS now) AS t \
         WHERE i.instance = $1::bigint AND i.status IN (1, 2) AND (i.wake_us <= t.now OR EXISTS (SELECT 1 FROM sayiir.events e WHERE e.id = i.id \
         AND NOT e.consumed AND e.name = ANY(i.awaits)))");
    POSITION = "commit.position",
        concat!("UPDATE sayiir.instances i SET cursor = coalesce($2::bytea, i.cursor), next_seq = $3::integer, \
         next_strand = $4::integer, cells_from = $5::integer, steps = i.steps + $6::integer, \
         lane = coalesce($7::integer, i.lane), priority = coalesce($8::smallint, i.priority), \
         order_us = CASE WHEN $8::smallint IS NULL THEN i.order_us ELSE greatest(i.created_us, i.start_at_us) \
         + ($8::smallint - 1) * 30000000::bigint END, updated_us = ", now!("$9"), " WHERE i.instance = $1::bigint");
    PARK = "commit.park",
        "UPDATE sayiir.instances i SET status = $2::smallint, holder = NULL, alert = NULL, wake_us = $3::bigint, \
         awaits = $4::text[], delay_id = $5::text, signal_id = $6::text, signal_name = $7::text \
         WHERE i.instance = $1::bigint";
    CELLS_PUT = "commit.cells",
        "INSERT INTO sayiir.cells (instance, strand, cell) SELECT $1::bigint, x.strand, x.cell \
         FROM unnest($2::integer[], $3::bytea[]) AS x (strand, cell) \
         ON CONFLICT (instance, strand) DO UPDATE SET cell = excluded.cell";
    CELLS_DROP = "commit.drop",
        "DELETE FROM sayiir.cells k WHERE k.instance = $1::bigint AND k.strand < $2::integer";
    CONSUME = "commit.consume",
        "UPDATE sayiir.events e SET consumed = true, payload = NULL WHERE e.id = $1::text AND e.event = ANY($2::bigint[])";
    STEPS_NEW = "commit.steps",
        "INSERT INTO sayiir.steps (instance, seq, path, name, attempt, outcome, worker, started_us, ended_us, output, error) \
         SELECT $1::bigint, x.seq, x.path, nullif(x.name, x.path), nullif(x.attempt, 1), nullif(x.outcome, 0::smallint), $2::integer, x.started_us, x.ended_us, x.output, x.error \
         FROM unnest($3::integer[], $4::text[], $5::text[], $6::integer[], $7::smallint[], $8::bigint[], $9::bigint[], \
         $10::bytea[], $11::bytea[]) AS x (seq, path, name, attempt, outcome, started_us, ended_us, output, error)";
    EVENT_KEY = "event.key",
        "SELECT 1 FROM sayiir.events e WHERE e.id = $1::text AND e.name = $2::text AND e.key = $3::text";
    EVENT_TOKEN = "event.token",
        "SELECT 1 FROM sayiir.events e WHERE e.id = $1::text AND e.token = $2::bigint";
    EVENT_NEW = "event.new",
        concat!("INSERT INTO sayiir.events (id, event, name, key, token, came_us, early, fresh, payload) \
         SELECT $1::text, nextval('sayiir.event_numbers'), $2::text, $3::text, $4::bigint, ", now!("$7"),
         ", $5::boolean, $5::boolean, $6::bytea \
         ON CONFLICT (id, name, key) WHERE key IS NOT NULL DO NOTHING RETURNING event");
    // What somebody holds, or has locked, is left for those that look first.
    EVENTS_SEND = "event.send",
        concat!("WITH t AS MATERIALIZED (SELECT ", now!("$6"), " AS now), \
         x AS MATERIALIZED (SELECT x.id, x.name, x.key, x.token, x.payload \
           FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[]) AS x (id, name, key, token, payload)), \
         h AS MATERIALIZED (SELECT i.id FROM sayiir.instances i WHERE i.instance IN \
           (SELECT n.instance FROM sayiir.inputs n WHERE n.id = ANY($1::text[])) \
           AND coalesce(i.holder, 0) = 0 AND i.status < 4 FOR UPDATE OF i SKIP LOCKED), \
         e AS (INSERT INTO sayiir.events (id, event, name, key, token, came_us, early, fresh, payload) \
           SELECT x.id, nextval('sayiir.event_numbers'), x.name, x.key, x.token, t.now, false, false, x.payload \
           FROM x CROSS JOIN t WHERE (x.id IN (SELECT h.id FROM h)) IS TRUE \
           ON CONFLICT (id, name, key) WHERE key IS NOT NULL DO NOTHING RETURNING id), \
         u AS (UPDATE sayiir.instances i SET events = true, \
           status = CASE WHEN i.status = 2 AND x.name = ANY(i.awaits) THEN 0::smallint ELSE i.status END, \
           updated_us = CASE WHEN i.status <> 2 OR NOT coalesce(x.name = ANY(i.awaits), false) THEN i.updated_us \
           WHEN i.wake_us <= t.now THEN greatest(i.updated_us, i.wake_us) ELSE t.now END \
           FROM x, t, sayiir.inputs n WHERE n.id = x.id AND i.instance = n.instance \
           AND (x.id IN (SELECT e.id FROM e)) IS TRUE) \
         SELECT e.id FROM e");
    EVENTS_LATE = "event.late",
        concat!("DELETE FROM sayiir.events e WHERE e.id = $1::text AND e.early AND e.came_us <= ", now!("$2"),
         " - $3::bigint");
    EVENT_CAME = "event.came",
        "UPDATE sayiir.instances i SET events = true, \
         alert = CASE WHEN i.holder IS NULL THEN NULL ELSE coalesce(i.alert, 0) + 1 END \
         WHERE i.instance = $1::bigint AND (NOT i.events OR i.holder IS NOT NULL)";
    EVENTS_OLDEST = "news.events",
        "SELECT e.event, e.name, e.payload FROM unnest($2::text[], $3::bigint[]) AS x (name, most) CROSS JOIN LATERAL \
         (SELECT b.event, b.name, b.payload FROM sayiir.events b WHERE b.id = $1::text AND b.name = x.name \
         AND NOT b.consumed ORDER BY b.event LIMIT x.most) AS e ORDER BY e.event";
    HOLDING = "news.holding",
        "SELECT i.asked FROM sayiir.instances i WHERE i.instance = (SELECT n.instance FROM sayiir.inputs n WHERE n.id = $1::text) AND i.fence = $2::bigint AND coalesce(i.holder, 0) <> 0";

    // Leases.
    OVERDUE = "lease.overdue",
        concat!("SELECT 1 FROM sayiir.workers w WHERE w.look_us <= ", now!("$1"), " LIMIT 1");
    RUN_OUT = "lease.run_out",
        concat!("SELECT w.worker FROM sayiir.workers w WHERE w.expires_us <= ", now!("$1"),
         " AND (w.suspect_us IS NOT NULL OR NOT $2::boolean) AND w.look_us <= ", now!("$1"), " ORDER BY w.worker \
         FOR UPDATE SKIP LOCKED");
    SUSPECT = "lease.suspect",
        concat!("UPDATE sayiir.workers w SET suspect_us = t.now, look_us = greatest(w.expires_us, t.now + w.lease_us / 3) \
         FROM (SELECT ", now!("$1"), " AS now) AS t WHERE w.look_us <= t.now \
         AND NOT (w.suspect_us IS NOT NULL AND w.expires_us <= t.now)");
    HELD = "lease.held",
        "SELECT i.instance FROM sayiir.instances i WHERE i.holder = $1::integer ORDER BY i.instance LIMIT 1000";
    FREE_PLAIN = "lease.free",
        "WITH h AS MATERIALIZED (SELECT i.instance FROM sayiir.instances i WHERE i.holder = $1::integer AND i.asked IS NULL \
         ORDER BY i.instance FOR UPDATE) \
         UPDATE sayiir.instances i SET holder = NULL, alert = NULL FROM h WHERE i.instance = h.instance";
    WORKER_FIND = "lease.worker", "SELECT w.worker FROM sayiir.workers w WHERE w.name = $1::text FOR UPDATE";
    WORKER_DELETE = "lease.delete", "DELETE FROM sayiir.workers w WHERE w.worker = $1::integer";
    ORPHANS = "lease.orphans",
        "SELECT i.instance FROM sayiir.instances i WHERE i.holder IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM sayiir.workers w WHERE w.worker = i.holder) LIMIT 1000";
    RENEW = "renew.worker",
        concat!("UPDATE sayiir.workers w SET lease_us = x.lease_us, suspect_us = NULL, \
         expires_us = greatest(w.expires_us, t.now + x.lease_us), \
         look_us = greatest(w.look_us, t.now + x.lease_us - x.early_us) \
         FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS x (name, lease_us, early_us), \
         (SELECT ", now!("$4"), " AS now) AS t WHERE w.name = x.name");
    ALERTED = "renew.alerted",
        "SELECT i.id, i.alert, i.asked IN (1, 2) FROM sayiir.workers w JOIN sayiir.instances i ON i.holder = w.worker \
         WHERE w.name = ANY($1::text[]) AND i.alert IS NOT NULL ORDER BY i.id LIMIT 10000";

    // Hints.
    LISTENER_PUT = "hint.listener",
        concat!("INSERT INTO sayiir.listeners (listener, work, ends, expires_us) SELECT $1::bigint, $2::boolean, \
         $3::boolean, ", now!("NULL"), " + 60000000 ON CONFLICT (listener) DO UPDATE SET work = excluded.work, \
         ends = excluded.ends, expires_us = excluded.expires_us");
    OTHERS = "hint.others",
        concat!("SELECT coalesce(bool_or(l.work), false), coalesce(bool_or(l.ends), false) FROM sayiir.listeners l \
         WHERE l.listener <> $1::bigint AND l.expires_us > ", now!("NULL"));
    LISTENER_DROP = "hint.drop",
        concat!("DELETE FROM sayiir.listeners l WHERE l.listener = $1::bigint OR l.expires_us < ", now!("NULL"));
    TELL = "hint.tell", "SELECT pg_notify($1::text, $2::text)";

    // Moving.
    EXPORT_VIEW = "export.view",
        "SELECT i.cursor, i.next_seq, i.next_strand, i.cells_from, i.asked, i.resume, i.awaits, d.tree, n.input \
         FROM sayiir.instances i JOIN sayiir.definitions d ON d.definition = i.definition \
         LEFT JOIN sayiir.inputs n ON n.id = i.id WHERE i.instance = $1::bigint";
    EXPORT_EVENTS = "export.events",
        "SELECT e.name, e.key, e.came_us, CASE WHEN NOT e.consumed THEN e.payload END FROM sayiir.events e \
         WHERE e.id = $1::text AND (NOT e.consumed OR e.key IS NOT NULL) ORDER BY e.event";
    IMPORT = "import.create",
        "WITH c AS MATERIALIZED (SELECT nextval('sayiir.instance_numbers') AS instance), \
         made AS (INSERT INTO sayiir.inputs (instance, id, token, input) \
           SELECT c.instance, $1::text, $27::bigint, $28::bytea FROM c ON CONFLICT (id) DO NOTHING RETURNING instance), \
         i AS (INSERT INTO sayiir.instances (instance, fence, id, definition, lane, status, priority, order_us, \
           created_us, updated_us, ended_us, start_at_us, wake_us, next_seq, next_strand, cells_from, steps, cursor, awaits, \
           delay_id, signal_id, signal_name, asked, resume, reason, asked_by, result, events) \
           SELECT made.instance, made.instance << 20, $1::text, $2::integer, $3::integer, $4::smallint, $5::smallint, $6::bigint, \
           $7::bigint, $8::bigint, $9::bigint, $10::bigint, $11::bigint, $12::integer, $13::integer, $14::integer, \
           $15::integer, $16::bytea, $17::text[], $18::text, $19::text, $20::text, $21::smallint, $22::smallint, $23::text, \
           $24::text, $25::bytea, $26::boolean FROM made) \
         SELECT made.instance FROM made";
    IMPORT_WORKER = "import.worker", "SELECT n.worker FROM sayiir.worker_names n WHERE n.name = $1::text";
    IMPORT_KEYS = "import.keys",
        "DELETE FROM sayiir.events e USING unnest($2::text[], $3::text[]) AS x (name, key) \
         WHERE e.id = $1::text AND e.name = x.name AND e.key = x.key";
    IMPORT_EARLY = "import.early",
        "UPDATE sayiir.events e SET early = false, fresh = false WHERE e.id = $1::text AND coalesce(e.early, false)";
    IMPORT_EVENTS = "import.events",
        "INSERT INTO sayiir.events (id, event, name, key, token, came_us, consumed, payload) \
         SELECT $1::text, nextval('sayiir.event_numbers'), x.name, x.key, $2::bigint, x.came_us, x.payload IS NULL, x.payload \
         FROM (SELECT u.name, u.key, u.came_us, u.payload FROM unnest($3::text[], $4::text[], $5::bigint[], $6::bytea[]) \
           WITH ORDINALITY AS u (name, key, came_us, payload, place) ORDER BY u.place) AS x \
         ON CONFLICT (id, name, key) WHERE key IS NOT NULL DO NOTHING";

    // Reading.
    ROW = "instance.row", row_of!("WHERE i.instance = (SELECT n.instance FROM sayiir.inputs n WHERE n.id = $1::text)");
    LIST = "list.all",
        row_of!("WHERE i.instance < $1::bigint AND ($2::smallint IS NULL OR i.status = $2::smallint) \
         AND ($3::text IS NULL OR d.workflow = $3::text) AND ($4::text IS NULL OR i.id >= $4::text) \
         AND ($5::text IS NULL OR i.id < $5::text) AND ($6::bigint IS NULL OR i.created_us > $6::bigint) \
         AND ($7::bigint IS NULL OR i.created_us < $7::bigint) ORDER BY i.instance DESC LIMIT $8::bigint");
    LIST_STATUS = "list.status",
        row_of!("WHERE i.instance < $1::bigint AND i.status = $2::smallint AND i.status IN (1, 2, 3, 5, 6) \
         AND ($3::text IS NULL OR d.workflow = $3::text) AND ($4::text IS NULL OR i.id >= $4::text) \
         AND ($5::text IS NULL OR i.id < $5::text) AND ($6::bigint IS NULL OR i.created_us > $6::bigint) \
         AND ($7::bigint IS NULL OR i.created_us < $7::bigint) ORDER BY i.instance DESC LIMIT $8::bigint");
    LIST_ACTIVE = "list.active",
        row_of!("WHERE i.instance < $1::bigint AND (i.status = 0 AND i.holder IS NULL OR i.holder IS NOT NULL) AND i.status = $2::smallint \
         AND ($3::text IS NULL OR d.workflow = $3::text) AND ($4::text IS NULL OR i.id >= $4::text) \
         AND ($5::text IS NULL OR i.id < $5::text) AND ($6::bigint IS NULL OR i.created_us > $6::bigint) \
         AND ($7::bigint IS NULL OR i.created_us < $7::bigint) ORDER BY i.instance DESC LIMIT $8::bigint");
    HISTORY = "history.rows", step_of!("WHERE s.instance = (SELECT n.instance FROM sayiir.inputs n WHERE n.id = $1::text) ORDER BY s.seq");
    STEP_NAMED = "step.newest",
        step_of!("WHERE s.instance = (SELECT n.instance FROM sayiir.inputs n WHERE n.id = $1::text) \
         AND (s.path = $2::text OR s.name = $2::text) AND coalesce(s.outcome, 0) IN (0, 3) AND s.output IS NOT NULL \
         ORDER BY s.path = $2::text DESC, s.seq DESC LIMIT 1");
    INPUT = "input.read",
        "SELECT n.input FROM sayiir.inputs n WHERE n.id = $1::text";
    ROWS = "rows.read",
        step_of!("WHERE s.instance = (SELECT n.instance FROM sayiir.inputs n WHERE n.id = $1::text) \
         AND s.seq = ANY($2::integer[])");
    BACKLOG = "backlog.ready",
        concat!("WITH t AS MATERIALIZED (SELECT ", now!("$1"), " AS now) SELECT d.hash, d.workflow, l.tags, g.ready, h.age \
         FROM (SELECT i.lane, count(*) AS ready FROM sayiir.instances i WHERE i.status = 0 AND i.holder IS NULL \
           GROUP BY i.lane) AS g \
         CROSS JOIN LATERAL (SELECT greatest(0, t.now - i.updated_us) AS age FROM sayiir.instances i, t WHERE i.lane = g.lane AND i.status = 0 \
           AND i.holder IS NULL ORDER BY i.order_us, i.instance LIMIT 1) AS h \
         JOIN sayiir.lanes l ON l.lane = g.lane JOIN sayiir.definitions d ON d.definition = l.definition");
    NEXT_WAKE = "timer.next",
        "SELECT min(i.wake_us) FROM sayiir.instances i WHERE i.status IN (1, 2) AND i.wake_us IS NOT NULL";

    // Items of spread maps.
    GROUP_NEW = "items.group",
        "INSERT INTO sayiir.item_groups (parent, item_group, total, remaining, fail_fast) \
         SELECT $1::bigint, $2::integer, $3::integer, $3::integer, $4::boolean ON CONFLICT (parent, item_group) DO NOTHING";
    ITEMS_NEW = "items.new",
        "INSERT INTO sayiir.items (parent, item_group, position, item) SELECT $1::bigint, $2::integer, x.position, n.instance \
         FROM unnest($3::text[], $4::integer[]) AS x (id, position) JOIN sayiir.inputs n ON n.id = x.id \
         ON CONFLICT (parent, item_group, position) DO NOTHING";
    ITEMS_ENDED = "items.ended",
        concat!("WITH x AS MATERIALIZED (SELECT t.parent, t.item_group, count(*)::integer AS ended, bool_or(i.status <> 4) AS failed \
           FROM unnest($1::bigint[], $2::bigint[]) AS e (instance, fence) JOIN sayiir.instances i ON i.instance = e.instance \
           JOIN sayiir.items t ON t.item = e.instance \
           WHERE i.fence = coalesce(e.fence, i.fence) AND i.status + 0 >= 4 GROUP BY t.parent, t.item_group), \
         g AS MATERIALIZED (SELECT g.parent, g.item_group, x.ended, x.failed FROM x JOIN sayiir.item_groups g \
           ON g.parent = x.parent AND g.item_group = x.item_group WHERE g.remaining > 0 \
           ORDER BY g.parent, g.item_group FOR UPDATE OF g), \
         u AS (UPDATE sayiir.item_groups o SET remaining = CASE WHEN o.fail_fast AND g.failed THEN g.ended - o.remaining \
           ELSE o.remaining - g.ended END FROM g WHERE o.parent = g.parent AND o.item_group = g.item_group AND o.remaining > 0 \
           RETURNING o.parent, o.item_group, o.remaining), \
         p AS MATERIALIZED (SELECT i.instance, i.id FROM sayiir.instances i WHERE i.instance IN (SELECT u.parent FROM u \
           WHERE u.remaining <= 0) AND i.status + 0 < 4 ORDER BY i.instance FOR UPDATE), \
         e AS (INSERT INTO sayiir.events (id, event, name, key, token, came_us, payload) \
           SELECT p.id, nextval('sayiir.event_numbers'), chr(1) || u.item_group::text, NULL, 0, ", now!("$4"), ", $3::bytea \
           FROM p JOIN u ON u.parent = p.instance WHERE u.remaining <= 0) \
         UPDATE sayiir.instances i SET events = true, \
           alert = CASE WHEN i.holder IS NULL THEN NULL ELSE coalesce(i.alert, 0) + 1 END, \
           status = CASE WHEN i.holder IS NULL AND i.status IN (1, 2) AND EXISTS (SELECT 1 FROM u WHERE u.parent = i.instance \
             AND u.remaining <= 0 AND chr(1) || u.item_group::text = ANY(i.awaits)) THEN 0 ELSE i.status END \
           FROM p WHERE i.instance = p.instance RETURNING i.holder");
    GROUPS_OVER = "items.over",
        "UPDATE sayiir.item_groups g SET remaining = 0 WHERE g.parent = ANY($1::bigint[]) AND g.remaining <> 0 \
         AND ($2::integer[] IS NULL OR g.item_group = ANY($2::integer[])) RETURNING g.parent, g.item_group";
    ITEMS_CANCEL = "items.cancel",
        concat!("WITH x AS MATERIALIZED (SELECT i.instance, p.id AS parent \
           FROM unnest($1::bigint[], $2::integer[]) AS o (parent, item_group) \
           JOIN sayiir.instances p ON p.instance = o.parent \
           JOIN sayiir.items t ON t.parent = o.parent AND t.item_group = o.item_group \
           JOIN sayiir.instances i ON i.instance = t.item WHERE i.status + 0 < 4 \
           AND NOT (coalesce(i.holder, 0) <> 0 AND coalesce(i.asked, 0) = 2) ORDER BY i.instance FOR UPDATE OF i) \
         UPDATE sayiir.instances i SET asked = CASE WHEN i.holder IS NULL THEN 4 ELSE 2 END, \
           reason = $3::text || x.parent || $5::text, \
           asked_by = NULL, resume = NULL, alert = CASE WHEN i.holder IS NULL THEN NULL ELSE coalesce(i.alert, 0) + 1 END, \
           status = CASE WHEN i.holder IS NULL THEN 6 ELSE i.status END, \
           fence = CASE WHEN i.holder IS NULL THEN i.fence + 1 ELSE i.fence END, \
           cursor = CASE WHEN i.holder IS NULL THEN NULL ELSE i.cursor END, \
           wake_us = NULL, awaits = NULL, delay_id = NULL, signal_id = NULL, signal_name = NULL, updated_us = t.now \
         FROM x, (SELECT ", now!("$4"), " AS now) AS t WHERE i.instance = x.instance RETURNING i.instance, i.id, i.status");
    ITEMS_AMONG = "items.among",
        "SELECT t.item, i.status + 0 < 4 FROM sayiir.items t JOIN sayiir.instances i ON i.instance = t.item \
         WHERE t.item = ANY($1::bigint[])";
    ITEMS_SOME = "items.some",
        "SELECT t.item, coalesce(i.id, '') FROM sayiir.items t LEFT JOIN sayiir.instances i ON i.instance = t.item \
         WHERE t.parent = ANY($1::bigint[]) LIMIT $2::bigint";
    ITEMS_GONE = "items.gone", "DELETE FROM sayiir.items t WHERE t.item = ANY($1::bigint[])";
    GROUPS_GONE = "items.groups_gone", "DELETE FROM sayiir.item_groups g WHERE g.parent = ANY($1::bigint[])";
    GROUP_TOTAL = "items.total",
        "SELECT g.total FROM sayiir.instances i LEFT JOIN sayiir.item_groups g ON g.parent = i.instance \
         AND g.item_group = $2::integer WHERE i.instance = (SELECT n.instance FROM sayiir.inputs n WHERE n.id = $1::text)";
    ITEMS_ENDS = "items.ends",
        "SELECT t.position, i.status, CASE WHEN i.result_seq IS NULL THEN i.result ELSE (SELECT coalesce(s.output, s.error) \
         FROM sayiir.steps s WHERE s.instance = i.instance AND s.seq = i.result_seq) END FROM sayiir.items t \
         JOIN sayiir.instances i ON i.instance = t.item WHERE t.parent = (SELECT p.instance FROM sayiir.instances p \
         WHERE p.instance = (SELECT n.instance FROM sayiir.inputs n WHERE n.id = $1::text)) AND t.item_group = $2::integer";

    // Removing.
    DELETE_INSTANCES = "delete.instance", "DELETE FROM sayiir.instances i WHERE i.instance = ANY($1::bigint[])";
    DELETE_INPUTS = "delete.input", "DELETE FROM sayiir.inputs n WHERE n.id = ANY($1::text[])";
    DELETE_CELLS = "delete.cells", "DELETE FROM sayiir.cells k WHERE k.instance = ANY($1::bigint[])";
    DELETE_EVENTS = "delete.events", "DELETE FROM sayiir.events e WHERE e.id = ANY($1::text[])";
    GARBAGE_NEW = "delete.garbage",
        "INSERT INTO sayiir.garbage (instance) SELECT x.instance FROM unnest($1::bigint[]) AS x (instance) \
         ON CONFLICT (instance) DO NOTHING";
    GARBAGE = "sweep.next",
        "SELECT g.instance FROM sayiir.garbage g ORDER BY g.instance LIMIT 64 FOR UPDATE SKIP LOCKED";
    GARBAGE_STEPS = "sweep.steps",
        "WITH x AS MATERIALIZED (SELECT s.instance, s.seq FROM sayiir.steps s WHERE s.instance = ANY($1::bigint[]) \
         LIMIT 5000) DELETE FROM sayiir.steps s USING x WHERE s.instance = x.instance AND s.seq = x.seq";
    GARBAGE_DONE = "sweep.done",
        "DELETE FROM sayiir.garbage g WHERE g.instance = ANY($1::bigint[]) \
         AND NOT EXISTS (SELECT 1 FROM sayiir.steps s WHERE s.instance = g.instance) \
         AND NOT EXISTS (SELECT 1 FROM sayiir.items t WHERE t.parent = g.instance)";
    ENDED_LONG_AGO = "sweep.ended",
        concat!("SELECT i.instance, i.id FROM sayiir.instances i WHERE i.ended_us IS NOT NULL AND i.ended_us <= ",
         now!("$1"), " - $2::bigint ORDER BY i.ended_us LIMIT 256 FOR UPDATE SKIP LOCKED");
    EVENTS_FORGET = "sweep.events",
        concat!("WITH x AS MATERIALIZED (SELECT e.id, e.event FROM sayiir.events e WHERE e.early AND e.came_us <= ",
         now!("$1"), " - $2::bigint ORDER BY e.came_us LIMIT 256 FOR UPDATE SKIP LOCKED) \
         DELETE FROM sayiir.events e USING x WHERE e.id = x.id AND e.event = x.event");
    EVENTS_SETTLE = "sweep.settle",
        concat!("WITH x AS MATERIALIZED (SELECT e.id, e.event FROM sayiir.events e WHERE e.fresh AND e.early \
         AND e.came_us <= ", now!("$1"), " - 60000000 AND NOT EXISTS (SELECT 1 FROM sayiir.inputs n WHERE n.id = e.id) \
         ORDER BY e.event LIMIT 1000 FOR UPDATE SKIP LOCKED) \
         UPDATE sayiir.events e SET fresh = false FROM x WHERE e.id = x.id AND e.event = x.event");
    EVENTS_FOUND = "sweep.found",
        "WITH x AS MATERIALIZED (SELECT e.id, e.event, e.came_us FROM sayiir.events e WHERE e.early AND NOT e.fresh \
         AND e.came_us >= $1::bigint ORDER BY e.came_us LIMIT 1000), \
         f AS (UPDATE sayiir.events e SET fresh = true FROM x JOIN sayiir.inputs n ON n.id = x.id JOIN sayiir.instances i ON i.instance = n.instance \
         WHERE e.id = x.id AND e.event = x.event AND i.status < 4 RETURNING e.event) \
         SELECT count(*), max(x.came_us), (SELECT count(*) FROM f) FROM x";
    EVENTS_IN_VAIN = "sweep.in_vain",
        "WITH x AS MATERIALIZED (SELECT e.id, e.event FROM sayiir.events e JOIN sayiir.inputs n ON n.id = e.id JOIN sayiir.instances i ON i.instance = n.instance \
         WHERE e.fresh AND i.status >= 4 ORDER BY e.event LIMIT 1000 FOR UPDATE OF e SKIP LOCKED) \
         DELETE FROM sayiir.events e USING x WHERE e.id = x.id AND e.event = x.event";

    // For an operator.
    COUNTS = "report.instances", "SELECT i.status, count(*) FROM sayiir.instances i GROUP BY i.status ORDER BY i.status";
    WORKERS = "report.workers",
        "SELECT w.name, w.expires_us, (SELECT count(*) FROM sayiir.instances i WHERE i.holder = w.worker) \
         FROM sayiir.workers w ORDER BY w.name";
    BY_DEFINITION = "report.definitions",
        "SELECT d.hash, d.workflow, (SELECT count(*) FROM sayiir.instances i WHERE i.definition = d.definition) \
         FROM sayiir.definitions d ORDER BY d.definition";
    STATE = "report.state",
        concat!("SELECT current_setting('server_version'), pg_database_size(current_database()), ", now!("NULL"),
         ", (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datname = current_database()), \
         (SELECT min(i.order_us) FROM sayiir.instances i WHERE i.status = 0 AND i.holder IS NULL), \
         (SELECT coalesce(sum(t.n_dead_tup), 0)::bigint FROM pg_catalog.pg_stat_user_tables t WHERE t.schemaname = $1::text)");
}
