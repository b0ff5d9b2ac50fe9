//! What many calls do in common: submits, checkpoints, events and claims of a batch, each kind as one
//! statement, all in one transaction whose statements go out together.
//!
//! The invariant: a statement here applies to a row if and only if the call could be answered with
//! "done"; whatever else there is to say about a row (an id that is taken, a request that is pending,
//! an event that is there already, a lease that was lost) leaves it untouched, and the call is then
//! made alone, by [`super::single`]. So nothing is decided between the statements, and the transaction
//! can be committed before any of them has been answered.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::future::{join, join_all};
use sayiir_core::advance::{Machine, Stored};
use sayiir_core::event::Event;
use sayiir_core::policy::{DEFAULT_PRIORITY, Tags, covers};
use sayiir_core::state::{Commit, NO_CELLS, Next, Reply};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connection::{Link, Place, Tried};
use super::family::items_ended;
use super::lane::Work;
use super::making::{Grants, Made, create};
use super::reading::{bytes, hash_of, step_of};
use super::single::{Effects, ended};
use super::statements as sql;
use crate::call::{Answer, Call};
use crate::contract::{
    Carried, Claim, Claimant, Hash, NewInstance, StoreError, StoreResult, Submitted,
};
use crate::listed::{read_list, write_list};

pub(super) type Param<'a> = &'a (dyn ToSql + Sync);

/// At most this many buffered events travel with a claim; a holder asks for more.
const CARRIED_EVENTS: i64 = 64;

/// What is known of definitions and lanes; both are never changed, so what is known stays true.
#[derive(Debug, Default)]
pub struct Lanes {
    definitions: HashMap<Hash, i32>,
    hashes: HashMap<i32, Hash>,
    lanes: HashMap<i32, (i32, Tags)>,
    numbers: HashMap<(i32, String), i32>,
    /// Workers whose last claim took whatever was ready for them.
    content: HashSet<Arc<str>>,
}

impl Lanes {
    /// Learns from rows of the statement `LANES`; whether anything was new.
    fn learn(&mut self, place: &Place, rows: &[Row]) -> Tried<bool> {
        let before = (self.definitions.len(), self.lanes.len());
        for row in rows {
            let hash = hash_of(place, row, 0)?;
            let definition: i32 = row.get(1);
            self.definitions.insert(hash, definition);
            self.hashes.insert(definition, hash);
            if let Some(lane) = row.get::<_, Option<i32>>(2)
                && !self.lanes.contains_key(&lane)
            {
                let tags: &str = row.get(3);
                self.lanes.insert(lane, (definition, read_list(tags)));
                self.numbers.insert((definition, tags.to_owned()), lane);
            }
        }
        Ok(before != (self.definitions.len(), self.lanes.len()))
    }

    /// Numbers of a definition and of its lane for these tags.
    pub fn numbers(&self, hash: &Hash, tags: &Tags) -> Option<(i32, i32)> {
        let definition = *self.definitions.get(hash)?;
        let lane = *self.numbers.get(&(definition, write_list(tags)))?;
        Some((definition, lane))
    }

    /// Makes sure that the lanes of these instances are there, each by a statement of its own, so that
    /// no transaction ever waits for another one that makes the same.
    pub async fn ensure(
        &mut self,
        link: &Link,
        place: &Place,
        news: &[&NewInstance],
        now: Option<i64>,
    ) -> Tried<()> {
        for new in news {
            if self.numbers(&new.hash, &new.needs.0).is_some() {
                continue;
            }
            let hash = &new.hash[..];
            let params: [Param<'_>; 4] = [&hash, &&*new.workflow, &&new.tree[..], &now];
            link.run(&sql::DEFINITION_NEW, &params).await?;
            self.refresh(link, place, &[new.hash]).await?;
            if let Some(definition) = self.definitions.get(&new.hash) {
                let params: [Param<'_>; 2] = [definition, &write_list(&new.needs.0)];
                link.run(&sql::LANE_NEW, &params).await?;
                self.refresh(link, place, &[new.hash]).await?;
            }
        }
        Ok(())
    }

    /// Something became ready here that no claim was given: who is next must not be passed over.
    pub fn became_ready(&mut self) {
        self.content.clear();
    }

    /// A worker has gone.
    pub fn released(&mut self, worker: &str) {
        self.content.remove(worker);
    }

    /// Asks which lanes there are; whether any is new.
    pub async fn refresh(&mut self, link: &Link, place: &Place, hashes: &[Hash]) -> Tried<bool> {
        let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash[..]).collect();
        let rows = link.rows(&sql::LANES, &[&hashes]).await?;
        self.learn(place, &rows)
    }

    /// The lanes that a claimant can serve.
    fn served(&self, claimant: &Claimant, hashes: &[Hash]) -> Vec<i32> {
        let definitions: HashSet<i32> = hashes
            .iter()
            .filter_map(|hash| self.definitions.get(hash).copied())
            .collect();
        let mut lanes: Vec<i32> = self
            .lanes
            .iter()
            .filter(|(_, (definition, tags))| {
                definitions.contains(definition) && covers(claimant.tags.as_ref(), tags)
            })
            .map(|(lane, _)| *lane)
            .collect();
        lanes.sort_unstable();
        lanes
    }
}

/// The columns of a batch of checkpoints.
#[derive(Default)]
struct Checkpoints<'a> {
    instance: Vec<i64>,
    fence: Vec<i64>,
    cursor: Vec<Option<&'a [u8]>>,
    next_seq: Vec<i32>,
    next_strand: Vec<i32>,
    cells_from: Vec<Option<i32>>,
    steps: Vec<i32>,
    tags: Vec<Option<String>>,
    priority: Vec<Option<i16>>,
    status: Vec<i16>,
    frees: Vec<bool>,
    wake_us: Vec<Option<i64>>,
    awaits: Vec<Option<String>>,
    delay_id: Vec<Option<&'a str>>,
    signal_id: Vec<Option<&'a str>>,
    signal_name: Vec<Option<&'a str>>,
    result_seq: Vec<Option<i32>>,
    result: Vec<Option<&'a [u8]>>,
    row_instance: Vec<i64>,
    row_seq: Vec<i32>,
    row_path: Vec<&'a str>,
    row_name: Vec<&'a str>,
    row_attempt: Vec<i32>,
    row_outcome: Vec<i16>,
    row_started_us: Vec<i64>,
    row_ended_us: Vec<i64>,
    row_output: Vec<Option<&'a [u8]>>,
    row_error: Vec<Option<&'a [u8]>>,
    cell_instance: Vec<i64>,
    cell_strand: Vec<i32>,
    cell: Vec<&'a [u8]>,
    drop_instance: Vec<i64>,
    drop_below: Vec<i32>,
    row_worker: Vec<i32>,
    event_instance: Vec<i64>,
    event_id: Vec<&'a str>,
    event: Vec<i64>,
    from_seq: Vec<i32>,
    from_strand: Vec<i32>,
    item: Vec<bool>,
    /// Items that end, and under which fence.
    ended_item: Vec<i64>,
    ended_fence: Vec<Option<i64>>,
    ends: bool,
    hands_over: bool,
}

/// What the lane remembers of an instance that is held by way of it.
#[derive(Debug, Clone)]
pub struct Held {
    /// The number of its worker.
    worker: i32,
    /// Whether there may be rows of cells.
    cells: bool,
}

/// What is remembered of an instance after a checkpoint was answered.
pub fn held_after(holdings: &mut Holdings, instance: i64, commit: &Commit, reply: &Reply) {
    let kept = match reply {
        Reply::Ok => matches!(commit.next, Next::Hold),
        Reply::PausePending | Reply::Events(_) => true,
        Reply::Cancelled | Reply::Paused | Reply::LeaseLost => false,
    };
    if !kept {
        holdings.remove(&instance);
    } else if let Some(held) = holdings.get_mut(&instance) {
        held.cells &= commit.cells_from != NO_CELLS;
    }
}

/// By the number of the instance.
pub type Holdings = HashMap<i64, Held>;

impl<'a> Checkpoints<'a> {
    fn add(
        &mut self,
        (instance, id): (i64, &'a str),
        fence: u64,
        commit: &'a Commit,
        held: &'a Held,
    ) {
        self.instance.push(instance);
        self.fence.push(fence as i64);
        self.cursor.push(commit.cursor.as_deref());
        self.next_seq.push(commit.next_seq as i32);
        self.next_strand.push(commit.next_strand as i32);
        let cells_from = (commit.cells_from != NO_CELLS).then_some(commit.cells_from as i32);
        self.cells_from.push(cells_from);
        self.steps.push(commit.steps.len() as i32);
        self.from_seq.push(commit.from.0 as i32);
        self.from_strand.push(commit.from.1 as i32);
        let needs = commit.needs.as_ref();
        self.tags.push(needs.map(|(tags, _)| write_list(tags)));
        self.priority
            .push(needs.map(|(_, priority)| i16::from(*priority)));
        let parked = match &commit.next {
            Next::Park(parked) => Some(&**parked),
            _ => None,
        };
        let end = ended(commit);
        let status = match (&end, parked) {
            (Some((status, ..)), _) => *status as i16,
            (None, Some(parked)) if parked.awaiting => 2,
            (None, Some(_)) => 1,
            (None, None) => 0,
        };
        self.status.push(status);
        self.item.push(commit.item);
        if commit.item && end.is_some() {
            self.ended_item.push(instance);
            self.ended_fence.push(Some(fence as i64));
        }
        self.frees.push(!matches!(commit.next, Next::Hold));
        self.ends |= end.is_some();
        self.hands_over |= matches!(commit.next, Next::HandOver);
        self.wake_us
            .push(parked.and_then(|parked| parked.wake_at_us));
        let awaits = parked.filter(|parked| !parked.awaits.is_empty());
        self.awaits
            .push(awaits.map(|parked| array_text(&parked.awaits)));
        self.delay_id
            .push(parked.and_then(|parked| parked.delay_id.as_deref()));
        self.signal_id
            .push(parked.and_then(|parked| parked.signal_id.as_deref()));
        self.signal_name
            .push(parked.and_then(|parked| parked.signal_name.as_deref()));
        let (result_seq, result) = end.map_or((None, None), |(_, seq, bytes)| (seq, bytes));
        self.result_seq.push(result_seq);
        self.result.push(result);
        for row in &commit.steps {
            self.row_instance.push(instance);
            self.row_seq.push(row.seq as i32);
            self.row_path.push(&row.path);
            self.row_name.push(&row.name);
            self.row_attempt.push(row.attempt as i32);
            self.row_outcome.push(row.outcome as i16);
            self.row_started_us.push(row.started_us);
            self.row_ended_us.push(row.ended_us);
            self.row_output.push(row.output.as_deref());
            self.row_error.push(row.error.as_deref());
            self.row_worker.push(held.worker);
        }
        if self.status.last().is_some_and(|status| *status >= 4) {
            // Nobody will ask for cells and events any more; those that are there go with the instance.
            return;
        }
        for event in &commit.consumed {
            self.event_instance.push(instance);
            self.event_id.push(id);
            self.event.push(*event as i64);
        }
        for (strand, cell) in &commit.cells {
            self.cell_instance.push(instance);
            self.cell_strand.push(*strand as i32);
            self.cell.push(cell);
        }
        if held.cells {
            self.drop_instance.push(instance);
            self.drop_below.push(cells_from.unwrap_or(i32::MAX));
        }
    }

    /// Applies them; answers whose was applied.
    async fn apply(&self, link: &Link, now: Option<i64>) -> Tried<HashSet<i64>> {
        let mut params: Vec<Param<'_>> = vec![
            &self.instance,
            &self.fence,
            &self.cursor,
            &self.next_seq,
            &self.next_strand,
            &self.cells_from,
            &self.steps,
            &self.tags,
            &self.priority,
            &self.status,
            &self.frees,
            &self.wake_us,
            &self.awaits,
            &self.delay_id,
            &self.signal_id,
            &self.signal_name,
            &self.result_seq,
            &now,
            &self.result,
            &self.row_instance,
            &self.row_seq,
            &self.row_path,
            &self.row_name,
            &self.row_attempt,
            &self.row_outcome,
            &self.row_started_us,
            &self.row_ended_us,
            &self.row_output,
            &self.row_error,
            &self.from_seq,
            &self.from_strand,
            &self.row_worker,
            &self.item,
        ];
        let plain = self.cell.is_empty() && self.drop_instance.is_empty() && self.event.is_empty();
        let statement = if plain {
            &sql::COMMIT_PLAIN
        } else {
            let rest: [Param<'_>; 8] = [
                &self.cell_instance,
                &self.cell_strand,
                &self.cell,
                &self.drop_instance,
                &self.drop_below,
                &self.event_instance,
                &self.event_id,
                &self.event,
            ];
            params.extend(rest);
            &sql::COMMIT
        };
        let rows = link.rows(statement, &params).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// Names as the text of an array.
fn array_text(names: &[Arc<str>]) -> String {
    let mut text = String::from("{");
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push('"');
        for character in name.chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
    }
    text.push('}');
    text
}

/// A claim that may lack what its holder needs.
#[derive(Clone)]
pub struct Taken {
    claim: Claim,
    input: Option<sayiir_core::Bytes>,
    cells_from: Option<i32>,
    events: bool,
    /// The number of the worker.
    holder: i32,
}

fn taken_of(row: &Row, lanes: &Lanes) -> Taken {
    let definition: i32 = row.get(2);
    let lane: i32 = row.get(3);
    let tags = lanes
        .lanes
        .get(&lane)
        .map_or_else(|| Arc::new([]) as Tags, |(_, tags)| Arc::clone(tags));
    let priority = u8::try_from(row.get::<_, i16>(9)).unwrap_or(DEFAULT_PRIORITY);
    Taken {
        claim: Claim {
            id: Arc::from(row.get::<_, &str>(1)),
            slot: row.get::<_, i64>(0) as u64,
            fence: row.get::<_, i64>(4) as u64,
            hash: lanes.hashes.get(&definition).copied().unwrap_or_default(),
            stored: Stored {
                cursor: bytes(row, 5),
                cells: Vec::new(),
                next_seq: row.get::<_, i32>(6) as u32,
                next_strand: row.get::<_, i32>(7) as u32,
            },
            needs: (tags, priority),
            carried: None,
            damage: None,
        },
        input: bytes(row, 11),
        cells_from: row.get(8),
        events: row.get(10),
        holder: row.get(13),
    }
}

impl Taken {
    /// One that was made in the hands of its worker.
    fn made(new: &NewInstance, made: &Made, holder: i32) -> Self {
        Self {
            claim: Claim {
                id: Arc::clone(&new.id),
                slot: made.instance as u64,
                fence: made.fence as u64,
                hash: new.hash,
                stored: Stored {
                    cursor: None,
                    cells: Vec::new(),
                    next_seq: 0,
                    next_strand: 1,
                },
                needs: new.needs.clone(),
                carried: None,
                damage: None,
            },
            input: Some(Arc::clone(&new.input)),
            cells_from: None,
            events: made.events,
            holder,
        }
    }

    /// The instance and the fence of its lease.
    pub fn lease(&self) -> (Arc<str>, u64) {
        (Arc::clone(&self.claim.id), self.claim.fence)
    }

    /// Whether something has to be read before its holder can go on.
    fn is_fresh(&self) -> bool {
        self.claim.stored.cursor.is_none() && self.cells_from.is_none() && !self.events
    }
}

/// Reads what the holders of claims need before they go on.
pub async fn load(link: &Link, place: &Place, taken: Vec<Taken>) -> Tried<Vec<Claim>> {
    let mut claims: Vec<(Taken, Vec<sayiir_core::state::StepRow>, Vec<Event>)> = taken
        .into_iter()
        .map(|one| (one, Vec::new(), Vec::new()))
        .collect();
    let places: HashMap<i64, usize> = claims
        .iter()
        .enumerate()
        .map(|(at, (one, ..))| (one.claim.slot as i64, at))
        .collect();
    let (with_cells, since): (Vec<i64>, Vec<i32>) = claims
        .iter()
        .filter_map(|(one, ..)| Some((one.claim.slot as i64, one.cells_from?)))
        .unzip();
    if !with_cells.is_empty() {
        for row in link.rows(&sql::CELLS, &[&with_cells, &since]).await? {
            if let Some(at) = places.get(&row.get(0)) {
                let cell = bytes(&row, 2).unwrap_or_default();
                claims[*at]
                    .0
                    .claim
                    .stored
                    .cells
                    .push((row.get::<_, i32>(1) as u32, cell));
            }
        }
    }
    let (mut instances, mut seqs) = (Vec::new(), Vec::new());
    for (one, ..) in &claims {
        // Damaged cells are met, and reported, when the instance is taken up.
        for seq in Machine::referenced(&one.claim.stored).unwrap_or_default() {
            instances.push(one.claim.slot as i64);
            seqs.push(seq as i32);
        }
    }
    let ids: Vec<Arc<str>> = claims
        .iter()
        .filter(|(one, ..)| one.events)
        .map(|(one, ..)| Arc::clone(&one.claim.id))
        .collect();
    let names: Vec<&str> = ids.iter().map(|id| &**id).collect();
    let row_params: [Param<'_>; 2] = [&instances, &seqs];
    let most = CARRIED_EVENTS + 1;
    let event_params: [Param<'_>; 2] = [&names, &most];
    let (rows, events) = join(
        async {
            if instances.is_empty() {
                return Ok(Vec::new());
            }
            link.rows(&sql::CLAIM_ROWS, &row_params).await
        },
        async {
            if names.is_empty() {
                return Ok(Vec::new());
            }
            link.rows(&sql::BUFFERED, &event_params).await
        },
    )
    .await;
    for row in rows? {
        let (instance, found) = step_of(&row);
        if let Some(at) = places.get(&instance) {
            claims[*at].1.push(found.step);
        }
    }
    let by_id: HashMap<&str, usize> = claims
        .iter()
        .enumerate()
        .map(|(at, (one, ..))| (&*one.claim.id, at))
        .collect();
    let mut buffered: Vec<(usize, Event)> = Vec::new();
    for row in events? {
        if let Some(at) = by_id.get(row.get::<_, &str>(0)) {
            let event = Event {
                seq: row.get::<_, i64>(1) as u64,
                name: Arc::from(row.get::<_, &str>(2)),
                payload: bytes(&row, 3).unwrap_or_default(),
            };
            buffered.push((*at, event));
        }
    }
    for (at, event) in buffered {
        claims[at].2.push(event);
    }
    Ok(claims
        .into_iter()
        .map(|(one, rows, events)| finished(place, one, rows, events))
        .collect())
}

fn finished(
    place: &Place,
    one: Taken,
    rows: Vec<sayiir_core::state::StepRow>,
    events: Vec<Event>,
) -> Claim {
    let mut claim = one.claim;
    match one.input {
        None => {
            claim.damage = Some(format!(
                "PostgreSQL at {}: the input of this instance is missing from schema '{}'",
                place.address.shown, place.settings.schema
            ));
        }
        Some(input) if events.len() as i64 <= CARRIED_EVENTS => {
            claim.carried = Some(Box::new(Carried {
                input,
                rows,
                events,
            }));
        }
        Some(_) => {}
    }
    claim
}

/// One claim of a batch.
struct Claiming<'a> {
    at: usize,
    claimant: &'a Claimant,
    hashes: &'a [Hash],
    /// How many of any, or which one.
    wanted: Result<i64, &'a str>,
    token: i64,
    again: bool,
    /// How many of those it wants it gets of what the batch makes.
    granted: i64,
}

/// Events of a batch, as columns; of each instance one, and the others are sent alone, behind it.
#[derive(Default)]
struct Sendings<'a> {
    /// Instances of which there was an event.
    met: HashSet<&'a str>,
    at: Vec<usize>,
    ids: Vec<&'a str>,
    names: Vec<&'a str>,
    keys: Vec<Option<&'a str>>,
    tokens: Vec<i64>,
    payloads: Vec<&'a [u8]>,
}

impl<'a> Sendings<'a> {
    fn add(
        &mut self,
        at: usize,
        work: &Work,
        (id, name, payload, key): (&'a str, &'a str, &'a [u8], Option<&'a str>),
    ) {
        if !self.met.insert(id) || work.again {
            return;
        }
        self.at.push(at);
        self.ids.push(id);
        self.names.push(name);
        self.keys.push(key);
        self.tokens.push(work.token);
        self.payloads.push(payload);
    }

    /// The ids of those that are sent.
    async fn send(&self, link: &Link, now: Option<i64>) -> Tried<HashSet<String>> {
        if self.at.is_empty() {
            return Ok(HashSet::new());
        }
        let params: [Param<'_>; 6] = [
            &self.ids,
            &self.names,
            &self.keys,
            &self.tokens,
            &self.payloads,
            &now,
        ];
        let rows = link.rows(&sql::EVENTS_SEND, &params).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// What a batch came to.
#[derive(Default)]
pub struct Outcome {
    /// By the number of the call; none: it has to be made alone.
    pub answers: Vec<Option<StoreResult<Answer>>>,
    /// Claims that lack something, by the number of the call.
    pub incomplete: Vec<(usize, Vec<Taken>)>,
    /// What others should be told of.
    pub effects: Effects,
    /// Whether leases have to be taken back.
    pub overdue: bool,
    /// Whether a claim found less than it wanted, and whether any found something.
    pub short: bool,
    pub found: bool,
    /// The lanes that claims looked into.
    pub served: Vec<i32>,
    /// The definitions that they asked for.
    pub wanted: Vec<Hash>,
    /// Claims that should be made again, because there are lanes that were not known.
    pub repeat: Vec<usize>,
}

/// Where claims look.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// At timers, at events that came in foreign transactions, at lanes and at leases first.
    pub around: bool,
    /// Whether a claim that finds nothing is to be made again, with a look at all these.
    pub next: bool,
}

/// Makes the calls that a group has room for, in one transaction.
pub async fn perform(
    link: &Link,
    place: &Place,
    works: &[Work],
    (lanes, holdings): (&mut Lanes, &mut Holdings),
    now: Option<i64>,
    look: Look,
) -> Tried<Outcome> {
    let mut outcome = Outcome::default();
    outcome.answers.resize_with(works.len(), || None);
    let mut submits: Vec<(usize, &NewInstance, i64)> = Vec::new();
    // Of two of one id one creates it, and the other is made alone.
    let mut ids: HashSet<&Arc<str>> = HashSet::new();
    let mut checkpoints = Checkpoints::default();
    let mut commits: Vec<(usize, i64, u64, &Arc<str>, &Commit)> = Vec::new();
    let mut claims: Vec<Claiming<'_>> = Vec::new();
    let mut sendings = Sendings::default();
    for (at, work) in works.iter().enumerate() {
        match &work.job.call {
            Call::Submit { batch, .. } if !work.again && batch.len() == 1 => {
                let fresh = batch.iter().filter(|new| ids.insert(&new.id));
                submits.extend(fresh.map(|new| (at, new, work.token)));
            }
            Call::Commit {
                slot,
                id,
                fence,
                commit,
            } if !work.again && commit.family.is_none() => {
                let instance = *slot as i64;
                if let Some(held) = holdings.get_mut(&instance) {
                    held.cells |= !commit.cells.is_empty();
                    commits.push((at, instance, *fence, id, commit));
                }
            }
            Call::Claim {
                claimant,
                hashes,
                limit,
            } => claims.push(Claiming {
                at,
                claimant,
                hashes,
                wanted: Ok(*limit as i64),
                token: work.token,
                again: work.again,
                granted: 0,
            }),
            Call::SendEvent {
                id,
                name,
                payload,
                key,
            } => sendings.add(at, work, (id, name, payload, key.as_deref())),
            Call::ClaimOne {
                claimant,
                hashes,
                id,
            } => claims.push(Claiming {
                at,
                claimant,
                hashes,
                wanted: Err(id),
                token: work.token,
                again: work.again,
                granted: 0,
            }),
            _ => {}
        }
    }
    // The columns borrow from what is remembered, which changes when the answers are there.
    let remembered: HashMap<i64, Held> = commits
        .iter()
        .filter_map(|(_, instance, ..)| Some((*instance, holdings.get(instance)?.clone())))
        .collect();
    for (_, instance, fence, id, commit) in &commits {
        if let Some(held) = remembered.get(instance) {
            checkpoints.add((*instance, id), *fence, commit, held);
        }
    }
    if submits.is_empty() && commits.is_empty() && claims.is_empty() && sendings.at.is_empty() {
        return Ok(outcome);
    }
    let news: Vec<(&NewInstance, i64)> = submits
        .iter()
        .map(|(_, new, token)| (*new, *token))
        .collect();
    let mut grants = Grants::default();
    let eager = claims.iter_mut().find(|claim| {
        let Claimant {
            worker, lease_us, ..
        } = claim.claimant;
        !claim.again
            && lanes.content.contains(worker)
            // Else its row may not be there yet.
            && place.is_leased(worker, *lease_us)
    });
    if let Some(claim) = eager
        && let Ok(most) = claim.wanted
    {
        let served = lanes.served(claim.claimant, claim.hashes);
        let to = (&*claim.claimant.worker, claim.token);
        grants = Grants::choose(to, &served, most, (&news, lanes));
        claim.granted = grants.count();
    }
    let creating = async {
        if news.is_empty() {
            return Ok(Vec::new());
        }
        create(link, place, &news, now, lanes, &grants).await
    };
    let applying = async {
        if commits.is_empty() {
            return Ok(HashSet::new());
        }
        checkpoints.apply(link, now).await
    };
    // Behind the checkpoints that park instances, and before the claims that may take them.
    let sending = sendings.send(link, now);
    let glance = !news.is_empty();
    let claiming = claim(link, place, lanes, &claims, now, look.around, glance);
    let joining = async {
        if checkpoints.ended_item.is_empty() {
            return Ok(Vec::new());
        }
        let (items, fences) = (&checkpoints.ended_item, &checkpoints.ended_fence);
        items_ended(link, items, fences, now).await
    };
    let telling = tell(
        link,
        place,
        grants.count() < news.len() as i64
            || checkpoints.hands_over
            || !sendings.at.is_empty()
            || !checkpoints.ended_item.is_empty(),
        checkpoints.ends,
    );
    let last = join(joining, join(telling, link.commit()));
    let (begun, (made, (applied, (sent, (claimed, (joined, (told, over))))))) = join(
        link.begin(),
        join(
            creating,
            join(applying, join(sending, join(claiming, last))),
        ),
    )
    .await;
    // The first failure is the cause; those behind it say that the transaction is aborted.
    begun?;
    let made = made?;
    let applied = applied?;
    let sent = sent?;
    let claimed = claimed?;
    let joined = joined?;
    told?;
    over?;
    let mut made: HashMap<String, Made> = made
        .into_iter()
        .map(|made| (made.id.clone(), made))
        .collect();
    let mut granted: Vec<Taken> = Vec::new();
    for (at, new, _) in submits {
        if let Some(made) = made.remove(&*new.id) {
            outcome.answers[at] = Some(Ok(Answer::Submitted(vec![Submitted::Created])));
            match made.holder {
                Some(holder) => granted.push(Taken::made(new, &made, holder)),
                None => outcome.effects.work = true,
            }
        }
    }
    for (at, instance, _, id, commit) in commits {
        if !applied.contains(&instance) {
            continue;
        }
        outcome.answers[at] = Some(Ok(Answer::Reply(Reply::Ok)));
        if ended(commit).is_some() {
            outcome.effects.ended.push(Arc::clone(id));
        }
        held_after(holdings, instance, commit, &Reply::Ok);
    }
    for (at, id) in sendings.at.iter().zip(&sendings.ids) {
        if sent.contains(*id) {
            outcome.answers[*at] = Some(Ok(Answer::Flag(true)));
        }
    }
    outcome.overdue = claimed.overdue;
    outcome.effects.news = claimed.news;
    for row in joined {
        outcome.effects.family = true;
        outcome.effects.news |= row.get::<_, Option<i32>>(0).is_some();
    }
    if outcome.effects.work || checkpoints.hands_over || !sent.is_empty() {
        // The claims that follow here came behind it, and say what is so now.
        lanes.became_ready();
    }
    let grown = lanes.learn(place, &claimed.known)?;
    for (claiming, (mut rows, more)) in claims.iter().zip(claimed.taken) {
        if let (true, Ok(limit)) = (grown, claiming.wanted)
            && (1..limit - claiming.granted).contains(&(rows.len() as i64))
        {
            // There are lanes that were not known a moment ago, and room for what is in them.
            let served = lanes.served(claiming.claimant, claiming.hashes);
            let left = limit - claiming.granted - rows.len() as i64;
            let worker = &*claiming.claimant.worker;
            let params: [Param<'_>; 4] = [&served, &left, &worker, &claiming.token];
            rows.extend(link.rows(&sql::CLAIM, &params).await?);
            rows.sort_by_key(|row| (row.get::<_, i64>(12), row.get::<_, i64>(0)));
        }
        if let Ok(limit) = claiming.wanted {
            let worker = &claiming.claimant.worker;
            if (rows.len() as i64) < limit - claiming.granted || more == Some(false) {
                lanes.content.insert(Arc::clone(worker));
            } else {
                lanes.content.remove(worker);
            }
        }
        let mut taken: Vec<Taken> = rows.iter().map(|row| taken_of(row, lanes)).collect();
        if claiming.granted > 0 {
            taken.append(&mut granted);
        }
        for one in &taken {
            let held = Held {
                worker: one.holder,
                cells: one.cells_from.is_some(),
            };
            holdings.insert(one.claim.slot as i64, held);
        }
        let wanted = claiming.wanted.as_ref().map_or(1, |limit| *limit);
        let short = (taken.len() as i64) < wanted;
        outcome.short |= short;
        outcome.found |= !taken.is_empty();
        if short {
            outcome.wanted.extend_from_slice(claiming.hashes);
            outcome.served = lanes.served(claiming.claimant, claiming.hashes);
        }
        if taken.is_empty() && wanted > 0 && (grown || claimed.overdue) {
            outcome.repeat.push(claiming.at);
        } else if taken.is_empty() && short && look.next {
            // What may be there but was not looked for is looked for first.
            outcome.repeat.push(claiming.at);
        } else if let (true, Err(id)) = (taken.is_empty(), claiming.wanted)
            && link.row(&sql::EXISTS, &[&id]).await?.is_none()
        {
            outcome.answers[claiming.at] = Some(Err(StoreError::NotFound { id: id.into() }));
        } else if taken.iter().all(Taken::is_fresh) {
            let claims = taken
                .into_iter()
                .map(|one| finished(place, one, Vec::new(), Vec::new()))
                .collect();
            outcome.answers[claiming.at] =
                Some(Ok(claims_answer(claiming.wanted.is_err(), claims)));
        } else {
            outcome.incomplete.push((claiming.at, taken));
        }
    }
    Ok(outcome)
}

/// Claims as the call that asked for them is answered.
pub fn claims_answer(one: bool, mut claims: Vec<Claim>) -> Answer {
    if one {
        Answer::Claim(claims.pop().map(Box::new))
    } else {
        Answer::Claims(claims)
    }
}

/// Notifies other processes, when they want to know.
pub async fn tell(link: &Link, place: &Place, work: bool, ends: bool) -> Tried<()> {
    let (want_work, want_ends) = place.others.get();
    let one = async |wanted: bool, word: &str| {
        if !wanted {
            return Ok(0);
        }
        link.run(&sql::TELL, &[&place.settings.schema, &place.signed(word)])
            .await
    };
    let (work, ends) = join(
        one(work && want_work, "work"),
        one(ends && want_ends, "ended"),
    )
    .await;
    work?;
    ends.map(drop)
}

struct Claimed {
    /// The rows of each claim, and whether anything was left, if that was looked at.
    taken: Vec<(Vec<Row>, Option<bool>)>,
    known: Vec<Row>,
    overdue: bool,
    /// Whether somebody got an event that came in a transaction of its sender's.
    news: bool,
}

/// Takes what is ready; with a glance at what is left then, so that a worker whose slots are all taken may
/// be granted what is submitted with its next claim.
async fn claim(
    link: &Link,
    place: &Place,
    lanes: &Lanes,
    claims: &[Claiming<'_>],
    now: Option<i64>,
    around: bool,
    glance: bool,
) -> Tried<Claimed> {
    if claims.is_empty() {
        return Ok(Claimed {
            taken: Vec::new(),
            known: Vec::new(),
            overdue: false,
            news: false,
        });
    }
    let hashes: Vec<&[u8]> = claims
        .iter()
        .flat_map(|claim| claim.hashes.iter().map(|hash| &hash[..]))
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    let mut workers: HashMap<&str, i64> = HashMap::new();
    for claim in claims {
        let lease_us = claim.claimant.lease_us;
        if !place.is_leased(&claim.claimant.worker, lease_us) {
            workers.insert(&claim.claimant.worker, lease_us);
        }
    }
    let leasing = join_all(workers.iter().map(|(worker, lease_us)| async move {
        let early = place.settings.early_us(*lease_us);
        let params: [Param<'_>; 4] = [worker, lease_us, &early, &now];
        let (named, leased) = join(
            link.run(&sql::WORKER_NAME, &[worker]),
            link.run(&sql::WORKER_LEASE, &params),
        )
        .await;
        named?;
        leased
    }));
    let taking = join_all(claims.iter().map(|claim| async move {
        let served = lanes.served(claim.claimant, claim.hashes);
        let worker = &*claim.claimant.worker;
        if claim.again {
            let rows = link.rows(&sql::CLAIMED, &[&worker, &claim.token]).await?;
            if !rows.is_empty() {
                return Ok((rows, None));
            }
        }
        let more = async || {
            link.row(&sql::READY, &[&served])
                .await
                .map(|row| row.is_some())
        };
        match claim.wanted {
            _ if served.is_empty() => Ok((Vec::new(), None)),
            Ok(limit) if limit == claim.granted => Ok((Vec::new(), Some(more().await?))),
            Ok(limit) => {
                let limit = limit - claim.granted;
                let params: [Param<'_>; 4] = [&served, &limit, &worker, &claim.token];
                let taking = link.rows(&sql::CLAIM, &params);
                if !glance {
                    return Ok((taking.await?, None));
                }
                let (rows, more) = join(taking, more()).await;
                Ok((rows?, Some(more?)))
            }
            Err(id) => {
                let params: [Param<'_>; 4] = [&id, &served, &worker, &claim.token];
                Ok((link.rows(&sql::CLAIM_ONE, &params).await?, None))
            }
        }
    }));
    let params: [Param<'_>; 1] = [&hashes];
    let now_params: [Param<'_>; 1] = [&now];
    let before = async {
        if !around {
            return Ok(Vec::new());
        }
        let (woken, adopted) = join(
            link.run(&sql::WAKE, &now_params),
            link.rows(&sql::ADOPT, &now_params),
        )
        .await;
        woken?;
        adopted
    };
    let after = async {
        if !around {
            return Ok((Vec::new(), None));
        }
        let (known, overdue) = join(
            link.rows(&sql::LANES, &params),
            link.row(&sql::OVERDUE, &now_params),
        )
        .await;
        Ok((known?, overdue?))
    };
    let (adopted, (leased, (taken, looked))) =
        join(before, join(leasing, join(taking, after))).await;
    let news = adopted?
        .iter()
        .any(|row| row.get::<_, Option<i32>>(0).is_some());
    leased.into_iter().collect::<Tried<Vec<_>>>()?;
    for worker in workers.keys() {
        place.leased(worker);
    }
    let taken = taken.into_iter().collect::<Tried<Vec<_>>>()?;
    let (known, overdue) = looked?;
    Ok(Claimed {
        taken,
        known,
        overdue: overdue.is_some(),
        news,
    })
}

#[cfg(test)]
mod tests {
    use super::array_text;

    #[test]
    fn names_of_any_kind_become_an_array() {
        let names = ["plain", "with \"quotes\" and \\", "{},NULL"].map(Into::into);
        assert_eq!(
            array_text(&names),
            r#"{"plain","with \"quotes\" and \\","{},NULL"}"#
        );
        assert_eq!(array_text(&[]), "{}");
    }
}
