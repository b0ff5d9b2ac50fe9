//! A snapshot: everything that is stored of one instance, as one piece of bytes that can be moved.
//!
//! [`Snapshot::encode`] writes it, [`Snapshot::decode`] reads it from bytes that may be anything. What
//! comes out has passed every check that its parts pass when they are stored one by one: a store may
//! write it down as it is. Whether the position fits the definition is a question of its own
//! ([`Snapshot::check_position`]), because its answer may cost more than the bytes do.
//!
//! A lease is no part of it: whoever takes a snapshot in has an instance that nobody holds. Nor are
//! items of spread maps, which are instances of their own; one that awaits some is refused
//! ([`Snapshot::movable`]).
//!
//! This module refuses to know stores, and what is in a payload. `docs/format.md` has the layout.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::advance::{Machine, Stored, Values};
use crate::definition::{Definition, NodeKind};
use crate::envelope::{
    self, Bytes, ErrorRecord, Reader, codec, kind, put_bytes, put_int, put_uint,
};
use crate::error::{Error, Result};
use crate::id::check_name;
use crate::policy::{self, MAX_TAGS, Tags};
use crate::state::{
    Cell, HistoryRow, ItemEnd, NO_CELLS, Outcome, Phase, Seq, Status, StepRow, StrandId,
};
use crate::wire;

/// How far from 1970 a moment may lie, in microseconds: some 31,700 years.
const MAX_MOMENT_US: i64 = 1_000_000_000_000_000_000;
/// The largest number of a step row or a strand: what every store can keep.
const MAX_NUMBER: u32 = i32::MAX as u32;
/// The longest reason, author or path, in bytes.
const MAX_TEXT_BYTES: usize = 65_536;
/// The fewest bytes of a step, an event and a cell, with what stands before each.
const LEAST: (usize, usize, usize) = (27, 13, 14);

/// A cancel or a pause: asked for, or in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// A cancel, else a pause.
    pub cancel: bool,
    /// Not yet in effect.
    pub pending: bool,
    /// For a pause in effect: the status to go back to.
    pub resume: Status,
    /// Why, in the words of whoever asked.
    pub reason: Option<Arc<str>>,
    /// Who asked.
    pub by: Option<Arc<str>>,
}

/// An event that is buffered, or one that was consumed and whose key is still known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEvent {
    /// The name it was sent under.
    pub name: Arc<str>,
    /// Its idempotency key.
    pub key: Option<Arc<str>>,
    /// When it came, µs.
    pub came_us: i64,
    /// The sealed payload; none when it was consumed.
    pub payload: Option<Bytes>,
}

/// Why an instance cannot be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmovable {
    /// It is an item of a spread map.
    Item,
    /// It awaits items of a spread map.
    AwaitsItems,
    /// Its position cannot be read.
    Damaged(Error),
}

/// A definition that was read, and the bytes that it was read from.
#[derive(Debug, Clone)]
pub struct Known {
    tree: Bytes,
    definition: Arc<Definition>,
}

impl Known {
    /// Reads it, unless it is what `known` was read from.
    ///
    /// # Errors
    /// [`Error::Format`] for bytes that are no definition.
    pub fn read(tree: &[u8], known: Option<&Self>) -> Result<Self> {
        if let Some(known) = known.filter(|known| *known.tree == *tree) {
            return Ok(known.clone());
        }
        Ok(Self {
            definition: Arc::new(wire::decode_definition(tree)?),
            tree: tree.into(),
        })
    }

    /// What they say.
    #[must_use]
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// The bytes.
    #[must_use]
    pub fn tree(&self) -> &Bytes {
        &self.tree
    }
}

/// One instance. See the module's opening.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Its id.
    pub id: Arc<str>,
    /// What it runs.
    pub definition: Arc<Definition>,
    /// The same as data.
    pub tree: Bytes,
    /// Where it stands.
    pub status: Status,
    /// When it was submitted, µs.
    pub created_us: i64,
    /// When something last happened to it; of an ended one its end.
    pub updated_us: i64,
    /// Not to be claimed before, µs.
    pub start_at_us: Option<i64>,
    /// When it goes on by itself while parked, µs.
    pub wake_at_us: Option<i64>,
    /// Path of the delay it is in.
    pub delay_id: Option<Arc<str>>,
    /// Path of the wait it is in.
    pub signal_id: Option<Arc<str>>,
    /// Name of the event that this wait is for.
    pub signal_name: Option<Arc<str>>,
    /// Names of all events that it waits for, sorted, each once.
    pub awaits: Vec<Arc<str>>,
    /// A cancel or a pause, pending or in effect.
    pub asked: Option<Asked>,
    /// Tags and priority of what runs next.
    pub needs: (Tags, u8),
    /// Position and counters; of an ended one the counters alone.
    pub stored: Stored,
    /// Lowest strand whose cell is needed.
    pub cells_from: StrandId,
    /// The sealed input.
    pub input: Bytes,
    /// The output of a completed instance, the error record of a failed one.
    pub result: Option<Bytes>,
    /// The history.
    pub steps: Vec<HistoryRow>,
    /// Buffered events in their order, and keys that are known.
    pub events: Vec<KeptEvent>,
}

impl Values for Snapshot {
    fn input(&self) -> Option<Bytes> {
        Some(Bytes::clone(&self.input))
    }

    fn output(&self, seq: Seq) -> Option<Bytes> {
        self.row(seq)?.output.clone()
    }

    fn error(&self, seq: Seq) -> Option<Bytes> {
        self.row(seq)?.error.clone()
    }

    fn items(&self, _group: StrandId) -> Option<Vec<ItemEnd>> {
        None
    }
}

impl Snapshot {
    fn row(&self, seq: Seq) -> Option<&StepRow> {
        let at = self
            .steps
            .binary_search_by_key(&seq, |row| row.step.seq)
            .ok()?;
        Some(&self.steps[at].step)
    }

    /// Makes an instance movable that was read from a store, or says why it is none.
    ///
    /// Forgets what an ended instance no longer needs, and the engine's own events.
    ///
    /// # Errors
    /// Why it is none.
    pub fn movable(mut self) -> std::result::Result<Self, Unmovable> {
        if self.definition.item {
            return Err(Unmovable::Item);
        }
        if self.status.is_terminal() {
            self.forget_position();
        }
        let cells = self.stored.cursor.iter();
        for bytes in cells.chain(self.stored.cells.iter().map(|(_, bytes)| bytes)) {
            let cell = Cell::decode(bytes).map_err(Unmovable::Damaged)?;
            if matches!(cell.phase, Phase::Spread { .. }) {
                return Err(Unmovable::AwaitsItems);
            }
        }
        // What told of a group of items that is over; no event of a user has such a name.
        self.events.retain(|event| !event.name.starts_with('\u{1}'));
        self.awaits.sort();
        self.awaits.dedup();
        Ok(self)
    }

    fn forget_position(&mut self) {
        self.stored.cursor = None;
        self.stored.cells.clear();
        self.cells_from = NO_CELLS;
        self.events.clear();
        self.unpark();
    }

    fn unpark(&mut self) {
        self.wake_at_us = None;
        self.delay_id = None;
        self.signal_id = None;
        self.signal_name = None;
        self.awaits.clear();
    }

    /// A pending cancel or pause takes effect: nobody holds what a snapshot makes.
    #[must_use]
    pub fn at_rest(mut self, now_us: i64) -> Self {
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.pending) {
            asked.pending = false;
            asked.resume = self.status;
            self.updated_us = now_us;
            if asked.cancel {
                self.status = Status::Cancelled;
                asked.resume = Status::Cancelled;
                self.forget_position();
            } else {
                self.status = Status::Paused;
            }
        }
        self
    }

    /// Whether the position is one that an instance of the definition can be in.
    ///
    /// # Errors
    /// [`Error::Format`] when it is not, or when a value that it refers to is not there.
    pub fn check_position(&self) -> Result<()> {
        if self.status.is_terminal() {
            return Ok(());
        }
        // Before every timer, so that none of them is over.
        let (needs, early_us) = (self.needs.clone(), -MAX_MOMENT_US);
        let def = Arc::clone(&self.definition);
        Machine::restore(def, None, 1, &self.stored, needs, self, early_us)
            .map(drop)
            .map_err(|error| damaged(&error))
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.written().into()
    }

    /// The same, for whoever copies it on.
    #[must_use]
    pub fn written(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.roughly());
        let start = envelope::begin(&mut out, kind::SNAPSHOT, codec::NONE);
        let mut fields = Vec::new();
        self.put_head(&mut fields);
        put_bytes(&mut out, &fields);
        put_bytes(&mut out, &self.tree);
        put_bytes(&mut out, &self.input);
        put_some_bytes(&mut out, self.result.as_ref());
        put_some_bytes(&mut out, self.stored.cursor.as_ref());
        put_uint(&mut out, self.stored.cells.len() as u64);
        for (strand, cell) in &self.stored.cells {
            put_uint(&mut out, u64::from(*strand));
            put_bytes(&mut out, cell);
        }
        put_uint(&mut out, self.steps.len() as u64);
        for row in &self.steps {
            fields.clear();
            put_step(&mut fields, row);
            put_bytes(&mut out, &fields);
        }
        put_uint(&mut out, self.events.len() as u64);
        for event in &self.events {
            fields.clear();
            put_text(&mut fields, &event.name);
            put_some_text(&mut fields, event.key.as_ref());
            put_moment(&mut fields, event.came_us);
            put_some_bytes(&mut fields, event.payload.as_ref());
            put_bytes(&mut out, &fields);
        }
        envelope::seal(&mut out, start);
        out
    }

    /// About how many bytes it takes; room that is too small grows.
    fn roughly(&self) -> usize {
        let outputs = self.steps.iter().filter_map(|row| row.step.output.as_ref());
        let payloads: usize = outputs.map(|output| output.len()).sum();
        1024 + self.tree.len() + self.input.len() + 96 * self.steps.len() + payloads
    }

    fn put_head(&self, out: &mut Vec<u8>) {
        put_text(out, &self.id);
        out.push(self.status as u8);
        put_int(out, self.created_us);
        put_int(out, self.updated_us);
        put_some_int(out, self.start_at_us);
        out.push(self.needs.1);
        put_texts(out, &self.needs.0);
        put_uint(out, u64::from(self.stored.next_seq));
        put_uint(out, u64::from(self.stored.next_strand));
        let from = self.cells_from;
        out.push(u8::from(from != NO_CELLS));
        if from != NO_CELLS {
            put_uint(out, u64::from(from));
        }
        put_some_int(out, self.wake_at_us);
        put_some_text(out, self.delay_id.as_ref());
        put_some_text(out, self.signal_id.as_ref());
        put_some_text(out, self.signal_name.as_ref());
        put_texts(out, &self.awaits);
        let Some(asked) = &self.asked else {
            out.push(0);
            return;
        };
        out.push(match (asked.pending, asked.cancel) {
            (true, false) => 1,
            (true, true) => 2,
            (false, false) => 3,
            (false, true) => 4,
        });
        let resume = if asked.pending || asked.cancel {
            self.status
        } else {
            asked.resume
        };
        out.push(resume as u8);
        put_some_text(out, asked.reason.as_ref());
        put_some_text(out, asked.by.as_ref());
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Error::Format`] for bytes that are damaged, cut or foreign, and for what no store could have
    /// held; [`Error::Newer`] for a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_knowing(bytes, None)
    }

    /// Its definition, for [`Snapshot::decode_knowing`].
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            tree: Arc::clone(&self.tree),
            definition: Arc::clone(&self.definition),
        }
    }

    /// The same for whoever has read a definition before: one of the very same bytes is not read a
    /// second time, which would cost more than all the rest of a snapshot. Everything else is checked
    /// as ever.
    ///
    /// # Errors
    /// Those of [`Snapshot::decode`].
    pub fn decode_knowing(bytes: &[u8], known: Option<&Known>) -> Result<Self> {
        let body = envelope::open_as(bytes, kind::SNAPSHOT, "a snapshot of an instance")?;
        read(body, known).map_err(|error| damaged(&error))
    }
}

fn damaged(error: &Error) -> Error {
    Error::format(format!(
        "the snapshot is damaged, or written by a newer sayiir than this one: {error}"
    ))
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_texts(out: &mut Vec<u8>, texts: &[Arc<str>]) {
    put_uint(out, texts.len() as u64);
    for text in texts {
        put_text(out, text);
    }
}

fn put_some_text(out: &mut Vec<u8>, text: Option<&Arc<str>>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(out, text);
    }
}

fn put_some_bytes(out: &mut Vec<u8>, bytes: Option<&Bytes>) {
    out.push(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(out, bytes);
    }
}

fn put_some_int(out: &mut Vec<u8>, number: Option<i64>) {
    out.push(u8::from(number.is_some()));
    if let Some(number) = number {
        put_int(out, number);
    }
}

/// A moment takes eight bytes in a row of which there are many, so that its least size is near its
/// usual one: what reading costs is bounded by that.
fn put_moment(out: &mut Vec<u8>, us: i64) {
    out.extend_from_slice(&us.to_le_bytes());
}

fn put_step(out: &mut Vec<u8>, row: &HistoryRow) {
    let step = &row.step;
    put_uint(out, u64::from(step.seq));
    put_text(out, &step.path);
    put_text(out, &step.name);
    put_uint(out, u64::from(step.attempt));
    out.push(step.outcome as u8);
    put_text(out, &row.worker);
    put_moment(out, step.started_us);
    put_moment(out, step.ended_us);
    put_some_bytes(out, step.output.as_ref());
    put_some_bytes(out, step.error.as_ref());
}

// Reading.

fn option<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T>,
) -> Result<Option<T>> {
    match reader.byte()? {
        0 => Ok(None),
        1 => read(reader).map(Some),
        other => Err(Error::format(format!(
            "whether something is there is said by {other}"
        ))),
    }
}

fn in_range(us: i64) -> Result<i64> {
    if (-MAX_MOMENT_US..=MAX_MOMENT_US).contains(&us) {
        Ok(us)
    } else {
        Err(Error::format("a time is out of range"))
    }
}

fn time(reader: &mut Reader<'_>) -> Result<i64> {
    in_range(reader.int()?)
}

fn moment(reader: &mut Reader<'_>) -> Result<i64> {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(reader.take(8)?);
    in_range(i64::from_le_bytes(bytes))
}

fn number(reader: &mut Reader<'_>) -> Result<u32> {
    let number = reader.uint32()?;
    if number > MAX_NUMBER {
        return Err(Error::format("a number is out of range"));
    }
    Ok(number)
}

/// Text that every store can keep.
fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str> {
    let text = reader.text()?;
    if text.len() > MAX_TEXT_BYTES || text.contains('\0') {
        return Err(Error::format("a text is too long, or holds NUL"));
    }
    Ok(text)
}

fn some_text(reader: &mut Reader<'_>) -> Result<Option<Arc<str>>> {
    option(reader, |reader| text(reader).map(Into::into))
}

fn name<'a>(reader: &mut Reader<'a>, what: &str) -> Result<&'a str> {
    let name = reader.text()?;
    check_name(what, name)?;
    Ok(name)
}

fn payload(reader: &mut Reader<'_>) -> Result<Bytes> {
    let bytes = reader.bytes()?;
    // Where a store keeps payloads in another form, whoever exports turns them around.
    match envelope::open_stored(bytes)?.0.kind {
        kind::VALUE | kind::NAMED | kind::LIST | kind::BRANCH => Ok(bytes.into()),
        other => Err(Error::format(format!(
            "an envelope of kind {other} stands for a value"
        ))),
    }
}

fn error_record(reader: &mut Reader<'_>) -> Result<Bytes> {
    let bytes = reader.bytes()?;
    ErrorRecord::decode(bytes)?;
    Ok(bytes.into())
}

fn cell(reader: &mut Reader<'_>) -> Result<Bytes> {
    let bytes = reader.bytes()?;
    match Cell::decode(bytes)?.phase {
        Phase::Spread { .. } => Err(Error::format(
            "it awaits items of a spread map, which a snapshot does not hold",
        )),
        _ => Ok(bytes.into()),
    }
}

fn status(number: u8) -> Result<Status> {
    Status::from_number(number)
        .ok_or_else(|| Error::format(format!("there is no status with the number {number}")))
}

/// The same text as the one before, without a second copy of it.
fn shared(text: &str, known: Option<&Arc<str>>) -> Arc<str> {
    match known {
        Some(known) if **known == *text => Arc::clone(known),
        _ => text.into(),
    }
}

fn event_names(def: &Definition) -> BTreeSet<Arc<str>> {
    let names = def.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Wait { event, .. } => Some(Arc::clone(event)),
        _ => None,
    });
    names.collect()
}

fn read_awaits(head: &mut Reader<'_>, def: &Definition) -> Result<Vec<Arc<str>>> {
    let count = head.count_of(2)?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let known = event_names(def);
    if count > known.len() {
        return Err(Error::format("it awaits more events than it has waits"));
    }
    let mut awaits: Vec<Arc<str>> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = head.text()?;
        let event = known
            .get(name)
            .ok_or_else(|| Error::format("it awaits an event that none of its waits is for"))?;
        if awaits.last().is_some_and(|last| **last >= *name) {
            return Err(Error::format("awaited events are not in order"));
        }
        awaits.push(Arc::clone(event));
    }
    Ok(awaits)
}

fn read_asked(head: &mut Reader<'_>, now: Status) -> Result<Option<Asked>> {
    let number = head.byte()?;
    let in_effect = match now {
        Status::Paused => Some(3),
        Status::Cancelled => Some(4),
        _ => None,
    };
    let fits = match number {
        0 => in_effect.is_none(),
        1 | 2 => in_effect.is_none() && !now.is_terminal(),
        _ => in_effect == Some(number),
    };
    if !fits {
        return Err(Error::format(
            "what was asked of it does not go with its status",
        ));
    }
    if number == 0 {
        return Ok(None);
    }
    let resume = status(head.byte()?)?;
    if number == 3 && (resume.is_terminal() || resume == Status::Paused) {
        return Err(Error::format("it was paused in a state that has no pause"));
    }
    Ok(Some(Asked {
        cancel: number % 2 == 0,
        pending: number < 3,
        resume: if number == 3 { resume } else { now },
        reason: some_text(head)?,
        by: some_text(head)?,
    }))
}

fn read(body: &[u8], known: Option<&Known>) -> Result<Snapshot> {
    let body = &mut Reader::new(body);
    let head = &mut Reader::new(body.bytes()?);
    let Known { tree, definition } = Known::read(body.bytes()?, known)?;
    if definition.item {
        return Err(Error::format("it is an item of a spread map"));
    }
    let id: Arc<str> = name(head, "the instance's id")?.into();
    let now = status(head.byte()?)?;
    let (created_us, updated_us) = (time(head)?, time(head)?);
    let start_at_us = option(head, time)?;
    let priority = head.byte()?;
    if !(1..=5).contains(&priority) {
        return Err(Error::format(format!("there is no priority {priority}")));
    }
    let needs = (read_tags(head)?, priority);
    let (next_seq, next_strand) = (number(head)?, number(head)?);
    let cells_from = option(head, number)?.unwrap_or(NO_CELLS);
    let wake_at_us = option(head, time)?;
    let (delay_id, signal_id) = (some_text(head)?, some_text(head)?);
    let signal_name = some_text(head)?;
    let awaits = read_awaits(head, &definition)?;
    let asked = read_asked(head, now)?;
    let input = payload(body)?;
    let result = option(body, |body| match now {
        Status::Completed => payload(body),
        Status::Failed => error_record(body),
        _ => Err(Error::format("it has a result before its end")),
    })?;
    if result.is_none() && matches!(now, Status::Completed | Status::Failed) {
        return Err(Error::format("its result is missing"));
    }
    let cursor = option(body, cell)?;
    let cells = read_cells(body, next_strand)?;
    let steps = read_steps(body, next_seq)?;
    let events = read_events(body)?;
    body.end()?;
    if now.is_terminal()
        && (cursor.is_some()
            || !cells.is_empty()
            || !events.is_empty()
            || wake_at_us.is_some()
            || !awaits.is_empty())
    {
        return Err(Error::format("it has ended and goes on"));
    }
    Ok(Snapshot {
        id,
        definition,
        tree,
        status: now,
        created_us,
        updated_us,
        start_at_us,
        wake_at_us,
        delay_id,
        signal_id,
        signal_name,
        awaits,
        asked,
        needs,
        stored: Stored {
            cursor,
            cells,
            next_seq,
            next_strand,
        },
        cells_from,
        input,
        result,
        steps,
        events,
    })
}

fn read_tags(head: &mut Reader<'_>) -> Result<Tags> {
    let count = head.count()?;
    if count > MAX_TAGS {
        return Err(Error::format(format!("it needs {count} tags")));
    }
    let mut tags = Vec::with_capacity(count);
    for _ in 0..count {
        tags.push(text(head)?.to_owned());
    }
    policy::tags("the next step", tags)
}

fn read_cells(body: &mut Reader<'_>, below: StrandId) -> Result<Vec<(StrandId, Bytes)>> {
    let count = body.count_of(LEAST.2)?;
    let mut cells: Vec<(StrandId, Bytes)> = Vec::with_capacity(count);
    for _ in 0..count {
        let strand = number(body)?;
        let after = cells.last().map_or(0, |(last, _)| *last);
        if strand <= after || strand >= below {
            return Err(Error::format("a strand is out of order"));
        }
        cells.push((strand, cell(body)?));
    }
    Ok(cells)
}

fn read_steps(body: &mut Reader<'_>, below: Seq) -> Result<Vec<HistoryRow>> {
    let count = body.count_of(LEAST.0)?;
    let mut steps: Vec<HistoryRow> = Vec::with_capacity(count);
    for _ in 0..count {
        let row = read_step(&mut Reader::new(body.bytes()?), steps.last())?;
        let ordered = steps.last().is_none_or(|last| last.step.seq < row.step.seq);
        if !ordered || row.step.seq >= below {
            return Err(Error::format("a step is out of order"));
        }
        steps.push(row);
    }
    Ok(steps)
}

fn read_step(fields: &mut Reader<'_>, before: Option<&HistoryRow>) -> Result<HistoryRow> {
    let seq = number(fields)?;
    let path: Arc<str> = shared(text(fields)?, before.map(|row| &row.step.path));
    let called = shared(text(fields)?, Some(&path));
    let attempt = number(fields)?;
    let outcome = match fields.byte()? {
        0 => Outcome::Completed,
        1 => Outcome::Retried,
        2 => Outcome::Failed,
        3 => Outcome::Elapsed,
        other => {
            return Err(Error::format(format!("there is no outcome {other}")));
        }
    };
    Ok(HistoryRow {
        worker: shared(text(fields)?, before.map(|row| &row.worker)),
        step: StepRow {
            seq,
            path,
            name: called,
            attempt,
            outcome,
            started_us: moment(fields)?,
            ended_us: moment(fields)?,
            output: option(fields, payload)?,
            error: option(fields, error_record)?,
        },
    })
}

fn read_events(body: &mut Reader<'_>) -> Result<Vec<KeptEvent>> {
    let count = body.count_of(LEAST.1)?;
    let mut events: Vec<KeptEvent> = Vec::with_capacity(count);
    for _ in 0..count {
        let fields = &mut Reader::new(body.bytes()?);
        let called = name(fields, "an event's name")?;
        let key = option(fields, |fields| name(fields, "an event's key"))?;
        let event = KeptEvent {
            name: shared(called, events.last().map(|event| &event.name)),
            key: key.map(Into::into),
            came_us: moment(fields)?,
            payload: option(fields, payload)?,
        };
        if event.payload.is_none() && key.is_none() {
            return Err(Error::format("an event has neither a payload nor a key"));
        }
        events.push(event);
    }
    Ok(events)
}
