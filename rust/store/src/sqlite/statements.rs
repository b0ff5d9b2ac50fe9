//! Every SQL statement of the SQLite store, by name, and nothing else.
//!
//! Each is prepared once per connection. Its name is also the name of two fail points, before and
//! after it (see [`crate::fail`]), so no statement can be added that is not killed at by a test.

/// A named statement.
#[derive(Debug)]
pub struct Statement {
    /// `call.part`.
    pub name: &'static str,
    /// The text.
    pub sql: &'static str,
}

macro_rules! statements {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $sql:expr;)*) => {
        $($(#[$doc])* pub const $constant: Statement = Statement { name: $name, sql: $sql };)*
        /// All of them.
        pub const ALL: &[&Statement] = &[$(&$constant),*];
    };
}

/// What a listing or a `get` reads of an instance.
macro_rules! row_of {
    ($rest:literal) => {
        concat!(
            "SELECT i.instance, i.id, d.workflow, d.hash, i.status, i.created_us, i.updated_us, i.start_at_us, \
             i.wake_us, i.delay_id, i.signal_id, i.signal_name, i.asked, i.reason, i.asked_by, i.tags, i.priority, \
             w.name, i.fence, i.steps, i.next_seq, i.next_strand, i.cells_from, i.result_seq, i.\"check\", \
             CASE WHEN i.result_seq IS NULL THEN i.result ELSE (SELECT coalesce(s.output, s.error) FROM steps s \
             WHERE s.instance = i.instance AND s.seq = i.result_seq) END, i.definition \
             FROM instances i JOIN definitions d ON d.definition = i.definition \
             LEFT JOIN workers w ON w.worker = i.holder ",
            $rest
        )
    };
}
pub(super) use row_of;

/// What is read of a step row.
macro_rules! step_of {
    ($rest:literal) => {
        concat!(
            "SELECT seq, path, name, attempt, outcome, output, error, started_us, ended_us, worker, \"check\" \
             FROM steps WHERE instance = ?1 ",
            $rest
        )
    };
}

statements! {
    BEGIN_WRITE = "begin.write", "BEGIN IMMEDIATE";
    BEGIN_READ = "begin.read", "BEGIN";
    COMMIT = "end.commit", "COMMIT";
    ROLLBACK = "end.rollback", "ROLLBACK";
    COUNTERS = "counters.read", "SELECT instance, fence FROM counters";
    COUNTERS_SAVE = "counters.save", "UPDATE counters SET instance = ?1, fence = ?2";
    DATA_VERSION = "foreign.version", "PRAGMA data_version";

    FIND_ID = "instance.find", "SELECT instance FROM instances WHERE id = ?1";
    ROW = "instance.row", row_of!("WHERE i.id = ?1");
    STATUS = "instance.status", "SELECT status FROM instances WHERE id = ?1";
    CONTROL = "instance.control",
        "SELECT instance, id, status, fence, holder, asked, resume, wake_us, awaits \
         FROM instances WHERE instance = ?1";
    PLACE = "instance.place",
        "UPDATE instances SET status = ?2, updated_us = max(updated_us, ?3) WHERE instance = ?1 AND status <> ?2";
    LET_GO = "instance.let_go", "UPDATE instances SET holder = NULL, alert = NULL WHERE instance = ?1";
    FINISH = "instance.finish",
        "UPDATE instances SET status = ?2, fence = ?3, holder = NULL, alert = NULL, updated_us = ?4, ended_us = ?12, \
         wake_us = NULL, awaits = NULL, delay_id = NULL, signal_id = NULL, signal_name = NULL, cells_from = NULL, \
         cursor = NULL, asked = ?5, result_seq = ?6, result = ?7, next_seq = ?8, next_strand = ?9, steps = steps + ?10, \
         \"check\" = ?11 WHERE instance = ?1";
    NUMBERS = "instance.numbers",
        "SELECT definition, next_seq, next_strand FROM instances WHERE instance = ?1";
    PAUSED = "instance.paused",
        "UPDATE instances SET status = 3, fence = ?2, holder = NULL, alert = NULL, updated_us = ?3, asked = 3, \
         resume = ?4 WHERE instance = ?1";
    ASK = "instance.ask",
        "UPDATE instances SET asked = ?2, resume = ?3, reason = ?4, asked_by = ?5, \
         alert = CASE WHEN holder IS NULL THEN NULL ELSE coalesce(alert, 0) + 1 END WHERE instance = ?1";
    UNASK = "instance.unask",
        "UPDATE instances SET asked = NULL, resume = NULL, reason = NULL, asked_by = NULL WHERE instance = ?1";
    UNPAUSE = "instance.unpause",
        "UPDATE instances SET status = ?2, updated_us = ?3, asked = NULL, resume = NULL, reason = NULL, \
         asked_by = NULL WHERE instance = ?1";
    ALERT = "instance.alert",
        "UPDATE instances SET alert = coalesce(alert, 0) + 1 WHERE instance = ?1 AND holder IS NOT NULL";
    HAS_EVENTS = "instance.events", "UPDATE instances SET events = 1 WHERE instance = ?1 AND events = 0";

    DEFINITION = "definition.find", "SELECT definition FROM definitions WHERE hash = ?1";
    DEFINITION_NEW = "definition.new",
        "INSERT INTO definitions (hash, workflow, tree, created_us) VALUES (?1, ?2, ?3, ?4) RETURNING definition";
    CONFLICT = "submit.conflict",
        "SELECT i.instance, d.hash, i.status FROM instances i JOIN definitions d ON d.definition = i.definition \
         WHERE i.id = ?1";
    CREATE = "submit.create",
        "INSERT INTO instances (instance, id, definition, status, priority, tags, order_us, fence, created_us, \
         updated_us, start_at_us, next_seq, next_strand, steps, \"check\", wake_us) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?8, ?9, 0, 1, 0, ?10, ?9)";
    INPUT_NEW = "submit.input", "INSERT INTO inputs (instance, input, \"check\") VALUES (?1, ?2, ?3)";
    EVENTS_EARLY = "submit.early_events", "SELECT 1 FROM events WHERE id = ?1 AND early = 1 LIMIT 1";
    EVENTS_ADOPT = "submit.events", "UPDATE events SET early = 0 WHERE id = ?1 AND early = 1";

    EVENTS_LATE = "submit.late_events",
        "DELETE FROM events WHERE id = ?1 AND early = 1 AND came_us <= ?2";

    WORKER_LEASE = "claim.worker",
        "INSERT INTO workers (name, lease_us, expires_us, look_us) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (name) DO UPDATE SET lease_us = excluded.lease_us, suspect_us = NULL, \
         expires_us = max(expires_us, excluded.expires_us), look_us = max(look_us, excluded.look_us) \
         RETURNING worker";
    EARLIEST = "lease.earliest", "SELECT min(look_us) FROM workers";
    RUN_OUT = "lease.run_out", "SELECT worker FROM workers WHERE expires_us <= ?1";
    DUE = "lease.due", "SELECT worker, lease_us, expires_us, suspect_us FROM workers WHERE look_us <= ?1";
    SUSPECT = "lease.suspect", "UPDATE workers SET suspect_us = ?2, look_us = ?3 WHERE worker = ?1";
    ORPHANS = "lease.orphans",
        "SELECT instance FROM instances WHERE holder IS NOT NULL AND holder NOT IN (SELECT worker FROM workers)";
    HELD = "lease.held", "SELECT instance FROM instances WHERE holder = ?1";
    WORKER_FIND = "lease.worker", "SELECT worker FROM workers WHERE name = ?1";
    WORKER_DELETE = "lease.delete", "DELETE FROM workers WHERE worker = ?1";
    RENEW = "renew.worker",
        "UPDATE workers SET lease_us = ?2, suspect_us = NULL, expires_us = max(expires_us, ?3), \
         look_us = max(look_us, ?4) WHERE name = ?1";
    ALERTED = "renew.alerted",
        "SELECT i.id, i.alert, i.asked IN (1, 2) FROM workers w JOIN instances i ON i.holder = w.worker \
         WHERE w.name = ?1 AND i.alert IS NOT NULL";

    WAKE = "claim.wake",
        "UPDATE instances SET status = 0, updated_us = max(updated_us, wake_us) WHERE instance IN (SELECT instance FROM instances \
         WHERE status IN (1, 2) AND wake_us IS NOT NULL AND wake_us <= ?1 ORDER BY wake_us LIMIT 1000)";
    NEXT_GROUP = "claim.group",
        "SELECT tags FROM instances WHERE status = 0 AND holder IS NULL AND definition = ?1 AND tags > ?2 \
         ORDER BY tags LIMIT 1";
    HEADS = "claim.heads",
        "SELECT order_us, instance FROM instances WHERE status = 0 AND holder IS NULL AND definition = ?1 \
         AND tags = ?2 ORDER BY order_us, instance LIMIT ?3";
    CLAIM_VIEW = "claim.view",
        "SELECT i.id, d.hash, i.cursor, i.next_seq, i.next_strand, i.cells_from, i.tags, i.priority, i.\"check\", \
         i.events, i.definition FROM instances i JOIN definitions d ON d.definition = i.definition \
         WHERE i.instance = ?1";
    LEASE = "claim.lease",
        "UPDATE instances SET fence = ?2, holder = ?3, wake_us = NULL, awaits = NULL, delay_id = NULL, \
         signal_id = NULL, signal_name = NULL WHERE instance = ?1";
    FREE = "claim.free",
        "SELECT i.instance, i.tags, d.hash FROM instances i JOIN definitions d ON d.definition = i.definition \
         WHERE i.id = ?1 AND i.status = 0 AND i.holder IS NULL";
    CELLS = "claim.cells",
        "SELECT strand, cell, \"check\" FROM cells WHERE instance = ?1 AND strand >= ?2 ORDER BY strand";
    INPUT = "claim.input", "SELECT input, \"check\" FROM inputs WHERE instance = ?1";
    CLAIM_ROW = "claim.row", step_of!("AND seq = ?2");
    BUFFERED = "claim.events",
        "SELECT event, name, payload FROM events WHERE id = ?1 AND consumed = 0 ORDER BY event LIMIT ?2";

    COMMIT_VIEW = "commit.view",
        "SELECT i.instance, i.fence, w.name, i.asked, i.cells_from, i.events, i.definition FROM instances i \
         JOIN workers w ON w.worker = i.holder WHERE i.instance = ?1";
    STEP_NEW = "commit.step",
        "INSERT INTO steps (instance, seq, path, name, attempt, outcome, worker, started_us, ended_us, output, error, \
         \"check\") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    POSITION = "commit.position",
        "UPDATE instances SET cursor = coalesce(?2, cursor), next_seq = ?3, next_strand = ?4, cells_from = ?5, \
         steps = steps + ?6, \"check\" = ?7, updated_us = ?8 WHERE instance = ?1";
    NEEDS = "commit.needs",
        "UPDATE instances SET tags = ?2, priority = ?3, order_us = max(created_us, coalesce(start_at_us, 0)) + ?4 \
         WHERE instance = ?1";
    CELL_PUT = "commit.cell",
        "INSERT INTO cells (instance, strand, cell, \"check\") VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (instance, strand) DO UPDATE SET cell = excluded.cell, \"check\" = excluded.\"check\"";
    CELLS_DROP = "commit.cells", "DELETE FROM cells WHERE instance = ?1 AND strand < ?2";
    CONSUME = "commit.consume",
        "UPDATE events SET consumed = 1, payload = NULL WHERE event = ?1 AND id = ?2 AND \"key\" IS NOT NULL";
    CONSUME_BARE = "commit.consume_bare", "DELETE FROM events WHERE event = ?1 AND id = ?2 AND \"key\" IS NULL";
    PARK = "commit.park",
        "UPDATE instances SET status = ?2, holder = NULL, alert = NULL, wake_us = ?3, awaits = ?4, delay_id = ?5, \
         signal_id = ?6, signal_name = ?7 WHERE instance = ?1";

    HOLDING = "news.holding",
        "SELECT asked FROM instances WHERE id = ?1 AND fence = ?2 AND holder IS NOT NULL";
    EVENTS_OLDEST = "news.events",
        "SELECT event, payload FROM events WHERE id = ?1 AND name = ?2 AND consumed = 0 ORDER BY event LIMIT ?3";

    EVENT_KEY = "event.key", "SELECT 1 FROM events WHERE id = ?1 AND name = ?2 AND \"key\" = ?3";
    EVENT_NEW = "event.new",
        "INSERT INTO events (id, name, \"key\", payload, came_us, early) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    EVENT_BUFFERED = "event.buffered",
        "SELECT 1 FROM events WHERE id = ?1 AND name = ?2 AND consumed = 0 LIMIT 1";

    HISTORY = "history.rows", step_of!("ORDER BY seq");
    STEP_BY_PATH = "step.by_path",
        step_of!("AND path = ?2 AND outcome IN (0, 3) AND output IS NOT NULL ORDER BY seq DESC LIMIT 1");
    STEP_BY_NAME = "step.by_name",
        step_of!("AND name = ?2 AND outcome IN (0, 3) AND output IS NOT NULL ORDER BY seq DESC LIMIT 1");
    BACKLOG = "backlog.ready",
        "SELECT d.hash, d.workflow, g.tags, g.ready, (SELECT max(0, ?1 - i.updated_us) FROM instances i WHERE i.status = 0 AND i.holder IS NULL \
           AND i.definition = g.definition AND i.tags = g.tags ORDER BY i.order_us, i.instance LIMIT 1) \
         FROM (SELECT definition, tags, count(*) AS ready FROM instances \
         WHERE status = 0 AND holder IS NULL GROUP BY definition, tags) g \
         JOIN definitions d ON d.definition = g.definition";
    NEXT_WAKE = "timer.next",
        "SELECT min(wake_us) FROM instances WHERE status IN (1, 2) AND wake_us IS NOT NULL";

    GROUP_NEW = "items.group",
        "INSERT INTO item_groups (parent, item_group, total, remaining, fail_fast) VALUES (?1, ?2, ?3, ?3, ?4)";
    ITEM_NEW = "items.new", "INSERT INTO items (item, parent, item_group, position) VALUES (?1, ?2, ?3, ?4)";
    ITEM_KIN = "items.kin", "SELECT parent, item_group FROM items WHERE item = ?1";
    GROUP_LESS = "items.less",
        "UPDATE item_groups SET remaining = CASE WHEN ?3 AND fail_fast THEN 1 - remaining ELSE remaining - 1 END \
         WHERE parent = ?1 AND item_group = ?2 AND remaining > 0 RETURNING remaining";
    GROUP_OVER = "items.over",
        "UPDATE item_groups SET remaining = 0 WHERE parent = ?1 AND item_group = ?2 AND remaining <> 0 \
         RETURNING item_group";
    GROUPS_OVER = "items.all_over",
        "UPDATE item_groups SET remaining = 0 WHERE parent = ?1 AND remaining <> 0 RETURNING item_group";
    ITEMS_UNENDED = "items.unended",
        "SELECT i.id FROM items t JOIN instances i ON i.instance = t.item \
         WHERE t.parent = ?1 AND t.item_group = ?2 AND i.status < 4";
    GROUP_TOTAL = "items.total", "SELECT total FROM item_groups WHERE parent = ?1 AND item_group = ?2";
    ITEMS_OF = "items.ends",
        "SELECT position, item FROM items WHERE parent = ?1 AND item_group = ?2 ORDER BY position";
    ROW_OF_ITEM = "items.row", row_of!("WHERE i.instance = ?1");
    ITEMS_SOME = "items.some", "SELECT item FROM items WHERE parent = ?1 LIMIT ?2";
    ITEM_GONE = "items.gone", "DELETE FROM items WHERE item = ?1";
    GROUPS_GONE = "items.groups_gone", "DELETE FROM item_groups WHERE parent = ?1";

    EXPORT_VIEW = "export.view",
        "SELECT i.instance, i.cursor, i.next_seq, i.next_strand, i.cells_from, i.asked, i.resume, i.awaits, d.tree \
         FROM instances i JOIN definitions d ON d.definition = i.definition WHERE i.id = ?1";
    EXPORT_EVENTS = "export.events",
        "SELECT name, \"key\", came_us, CASE WHEN consumed = 0 THEN payload END FROM events \
         WHERE id = ?1 AND (consumed = 0 OR \"key\" IS NOT NULL) ORDER BY event";
    IMPORT = "import.create",
        "INSERT INTO instances (instance, id, definition, status, priority, tags, order_us, fence, events, created_us, \
         updated_us, ended_us, start_at_us, cursor, next_seq, next_strand, cells_from, steps, \"check\", wake_us, awaits, \
         delay_id, signal_id, signal_name, asked, resume, reason, asked_by, result) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, \
         ?23, ?24, ?25, ?26, ?27, ?28)";
    IMPORT_KEY = "import.key", "DELETE FROM events WHERE id = ?1 AND name = ?2 AND \"key\" = ?3";
    IMPORT_EVENT = "import.event",
        "INSERT OR IGNORE INTO events (id, name, \"key\", payload, came_us, consumed, early) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)";

    DELETE_INSTANCE = "delete.instance", "DELETE FROM instances WHERE instance = ?1";
    DELETE_INPUT = "delete.input", "DELETE FROM inputs WHERE instance = ?1";
    DELETE_CELLS = "delete.cells", "DELETE FROM cells WHERE instance = ?1";
    DELETE_EVENTS = "delete.events", "DELETE FROM events WHERE id = ?1";
    GARBAGE_NEW = "delete.garbage", "INSERT OR IGNORE INTO garbage (instance) VALUES (?1)";
    GARBAGE = "sweep.next", "SELECT instance FROM garbage LIMIT 1";
    GARBAGE_STEPS = "sweep.steps",
        "DELETE FROM steps WHERE instance = ?1 AND seq < (SELECT min(seq) FROM steps WHERE instance = ?1) + ?2";
    GARBAGE_DONE = "sweep.done", "DELETE FROM garbage WHERE instance = ?1";
    ENDED_LONG_AGO = "sweep.ended",
        "SELECT instance FROM instances WHERE ended_us IS NOT NULL AND ended_us <= ?1 ORDER BY ended_us LIMIT ?2";
    EVENTS_FORGET = "sweep.events",
        "DELETE FROM events WHERE event IN (SELECT event FROM events WHERE early = 1 AND came_us <= ?1 \
         ORDER BY came_us LIMIT ?2)";
}
