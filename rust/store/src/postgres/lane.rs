//! The storage thread of one backend: what it does when, over which connection.
//!
//! The invariant of the write lane is SQLite's: an answer leaves it only after the transaction that
//! holds the call's effects was committed. A batch is whatever gathered while the batch before it was
//! under way. When a connection is lost, nobody knows whether its last transaction was committed; its
//! calls are then made again in a form that finds out (see [`super::single`]). A batch that fails for
//! another reason was undone, and its calls are made one by one, so that one call fails for one
//! reason. What somebody else's transaction keeps locked is tried again a little later, so that
//! nobody else has to wait.
//!
//! Leases are renewed over another connection than the one that writes, so that no lock that a write
//! waits for can cost a lease.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join3;
use tokio::sync::Notify;

use super::connection::{Failure, Line, Link, Place, Tried};
pub use super::group::Lanes;
use super::group::{self, claims_answer};
use super::reading;
use super::single::{Effects, Single};
use super::statements as sql;
use super::trouble::Trouble;
use crate::call::{Answer, Call};
use crate::contract::{Hash, NewInstance, StoreResult};
use crate::port::{Hint, Port};
use crate::shared::{Job, Shared};

/// How often somebody looks for leases that ran out, and for ends that nobody was told of.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often an idle process removes what is no longer kept, when something is kept for a time.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The same when nothing is.
const SWEEP_SELDOM: Duration = Duration::from_secs(60);
/// How often the row of a listener is renewed; it lasts a minute.
const LISTEN_AGAIN: Duration = Duration::from_secs(20);
/// How often the database's clock is read.
const READ_CLOCK: Duration = Duration::from_secs(5);
/// Hints that come within this time are one.
const HINT_PAUSE: Duration = Duration::from_millis(1);
/// How long a call rests that met a locked row.
const LOCKED_PAUSE: Duration = Duration::from_millis(300);
/// Claims look at timers, at events of foreign transactions and at lanes not more often than this;
const AROUND_PAUSE: Duration = Duration::from_millis(10);
/// and where that finds nothing again and again, ever more seldom, down to this.
const AROUND_SELDOM: Duration = Duration::from_millis(160);
/// So often a transaction that collided with another is made again at once.
const COLLISIONS: u32 = 20;

/// A call on its way, and what was tried.
pub struct Work {
    pub job: Job,
    /// Marks what this call writes.
    pub token: i64,
    /// Whether it may have been done already.
    pub again: bool,
    /// It was not made before this time by the database's clock.
    pub made_us: Option<i64>,
    /// Until when it is tried.
    deadline: Instant,
    /// Not before, for one that met a lock.
    rests_until: Option<Instant>,
}

/// Everything the tasks of the thread share.
pub struct Desk {
    pub shared: Arc<Shared>,
    pub place: Rc<Place>,
    writer: Line,
    reader: Rc<Line>,
    keeper: Rc<Line>,
    lanes: RefCell<Lanes>,
    holdings: RefCell<group::Holdings>,
    later: RefCell<Vec<Work>>,
    /// When claims last looked at timers, at events that came in foreign transactions, and at lanes.
    looked_around: Cell<Option<Instant>>,
    /// When it has to be done without a claim, since one came too soon after the last time.
    around_due: Cell<Option<Instant>>,
    /// How long after the last time.
    around_pause: Cell<Duration>,
    /// Whether claims have found anything since.
    found_since: Cell<bool>,
    /// The lanes in which a claim found less than it wanted.
    served: RefCell<Vec<i32>>,
    /// The definitions that claims asked for.
    wanted: RefCell<HashSet<Hash>>,
    expire_due: Cell<bool>,
    /// Whether an erased instance left more to be swept than its history.
    leftovers: Cell<bool>,
    sweep_due: Cell<bool>,
    stir: Notify,
    told: RefCell<HashMap<Arc<str>, i32>>,
}

impl Desk {
    pub fn new(shared: Arc<Shared>, place: Place) -> Rc<Self> {
        let place = Rc::new(place);
        let reader = Rc::new(Line::new(&place, true));
        let keeper = match place.settings.max_connections {
            0..=2 => Rc::clone(&reader),
            _ => Rc::new(Line::new(&place, false)),
        };
        Rc::new(Self {
            writer: Line::new(&place, false),
            reader,
            keeper,
            shared,
            place,
            lanes: RefCell::default(),
            holdings: RefCell::default(),
            looked_around: Cell::new(None),
            around_due: Cell::new(None),
            around_pause: Cell::new(AROUND_PAUSE),
            found_since: Cell::new(false),
            served: RefCell::default(),
            wanted: RefCell::default(),
            later: RefCell::default(),
            expire_due: Cell::new(false),
            leftovers: Cell::new(false),
            sweep_due: Cell::new(true),
            stir: Notify::new(),
            told: RefCell::default(),
        })
    }

    fn work(&self, job: Job) -> Work {
        Work {
            made_us: job.now_us,
            job,
            token: self.place.token(),
            again: false,
            deadline: Instant::now() + self.place.settings.timeout(),
            rests_until: None,
        }
    }

    /// How far timers may seem to be due too early.
    fn margin_us(&self) -> i64 {
        if self.shared.own_clock {
            self.place.clock.margin_us()
        } else {
            0
        }
    }

    fn deliver(&self, work: Work, answer: StoreResult<Answer>) {
        self.shared.deliver(&mut vec![work.job], vec![answer]);
    }

    fn fail(&self, works: Vec<Work>, failure: &Failure) {
        let answers = works.iter().map(|_| Err(failure.error())).collect();
        let mut jobs = works.into_iter().map(|work| work.job).collect();
        self.shared.deliver(&mut jobs, answers);
    }

    /// Runs until the outboxes are closed and everything in them is done.
    pub async fn run(self: Rc<Self>) {
        let tasks = [
            tokio::task::spawn_local(Rc::clone(&self).keep()),
            tokio::task::spawn_local(Rc::clone(&self).hear()),
        ];
        let reading = tokio::task::spawn_local(Rc::clone(&self).read_lane());
        self.write_lane().await;
        let _ = reading.await;
        for task in tasks {
            task.abort();
        }
        // A listener that is gone would be told for another minute.
        if self.keeper.was_there()
            && let Ok(link) = self.keeper.link(Instant::now()).await
        {
            let _ = link.run(&sql::LISTENER_DROP, &[&self.place.listener]).await;
        }
    }

    // Writing.

    async fn write_lane(&self) {
        let mut jobs = Vec::new();
        let mut open = true;
        while open || !self.later.borrow().is_empty() {
            let rested = |work: &Work| work.rests_until;
            let next = self.later.borrow().iter().filter_map(rested).min();
            let next = next.into_iter().chain(self.around_due.get()).min();
            let taken = match next {
                Some(at) => tokio::select! {
                    biased;
                    taken = self.shared.writer.taken(&mut jobs), if open => taken,
                    () = tokio::time::sleep_until(at.into()) => Some(()),
                },
                None => self.shared.writer.taken(&mut jobs).await,
            };
            open = open && taken.is_some();
            let mut works: Vec<Work> = jobs.drain(..).map(|job| self.work(job)).collect();
            let now = Instant::now();
            let rested: Vec<Work> = self
                .later
                .borrow_mut()
                .extract_if(.., |work| work.rests_until.is_none_or(|at| at <= now))
                .collect();
            if (works.is_empty() && rested.is_empty()) || !self.writer.was_there() {
                self.stir.notify_one();
            }
            if !works.is_empty() {
                self.process(std::mem::take(&mut works)).await;
            }
            for work in rested {
                self.process(vec![work]).await;
            }
            self.duties().await;
        }
        self.shared.refuse_all(&self.shared.writer);
    }

    /// Makes calls until each has its answer, or rests.
    async fn process(&self, mut works: Vec<Work>) {
        let mut collisions = 0;
        while !works.is_empty() {
            let deadline = works.iter().map(|work| work.deadline).min();
            let link = match self
                .writer
                .link(deadline.unwrap_or_else(Instant::now))
                .await
            {
                Ok(link) => link,
                Err(failure) => {
                    let soon = Instant::now() + Duration::from_millis(50);
                    let patient = self.writer.was_there() && failure.trouble == Trouble::Lost;
                    let (over, left): (Vec<_>, Vec<_>) = works
                        .into_iter()
                        .partition(|work| !patient || work.deadline <= soon);
                    self.fail(over, &failure);
                    works = left;
                    if !works.is_empty() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    continue;
                }
            };
            // Whoever has a link has read the database's clock.
            let clock = &self.place.clock;
            for work in &mut works {
                work.made_us
                    .get_or_insert_with(|| clock.now_us() - clock.margin_us());
            }
            match self.attempt(&link, &mut works).await {
                Ok(()) => return,
                Err(failure) => match failure.trouble {
                    Trouble::Lost => {
                        self.writer.doubt(&link);
                        let now = Instant::now();
                        for work in &mut works {
                            work.again = true;
                        }
                        let (over, left) = works.into_iter().partition(|work| work.deadline <= now);
                        self.fail(over, &failure);
                        works = left;
                    }
                    Trouble::Again if collisions < COLLISIONS => {
                        link.rollback().await;
                        collisions += 1;
                        let pause = self.place.token() as u64 % (u64::from(collisions) * 2_000);
                        tokio::time::sleep(Duration::from_micros(pause)).await;
                    }
                    _ => {
                        link.rollback().await;
                        if works.len() > 1 {
                            for work in works {
                                Box::pin(self.process(vec![work])).await;
                            }
                            return;
                        }
                        let locked = failure.trouble == Trouble::Locked;
                        for mut work in works {
                            let until = Instant::now() + LOCKED_PAUSE;
                            if locked && until < work.deadline {
                                work.rests_until = Some(until);
                                self.later.borrow_mut().push(work);
                            } else {
                                self.fail(vec![work], &failure);
                            }
                        }
                        return;
                    }
                },
            }
        }
    }

    /// Makes calls once. What was answered is gone from the list, also when the rest failed.
    async fn attempt(&self, link: &Link, works: &mut Vec<Work>) -> Tried<()> {
        // In tests time stands with the callers, who move on together.
        let now = works.iter().filter_map(|work| work.job.now_us).max();
        let examples: Vec<NewInstance> = works
            .iter()
            .filter_map(|work| match &work.job.call {
                Call::Commit { commit, .. } => commit
                    .family
                    .as_ref()?
                    .batch
                    .as_ref()
                    .map(super::family::example),
                Call::Import { snapshot } => Some(super::moving::example(snapshot)),
                _ => None,
            })
            .collect();
        let news: Vec<&NewInstance> = works
            .iter()
            .filter_map(|work| match &work.job.call {
                Call::Submit { batch, .. } => Some(&batch[..]),
                Call::Enlist { new } => Some(std::slice::from_ref(&**new)),
                _ => None,
            })
            .flatten()
            .chain(&examples)
            .collect();
        let mut lanes = std::mem::take(&mut *self.lanes.borrow_mut());
        let ensured = lanes.ensure(link, &self.place, &news, now).await;
        *self.lanes.borrow_mut() = lanes;
        ensured?;
        if now.is_some() && link.row(&sql::OVERDUE, &[&now]).await?.is_some() {
            self.expire(link, now).await?;
        }
        // First what is known to be there, then what may be, then what turned up.
        let mut round = 0;
        loop {
            let rested = self
                .looked_around
                .get()
                .is_none_or(|at| at.elapsed() >= AROUND_PAUSE);
            // In tests nothing may be put off.
            let around = now.is_some() || (round == 1 && rested);
            let look = group::Look {
                around,
                next: round == 0 && rested,
            };
            let mut lanes = std::mem::take(&mut *self.lanes.borrow_mut());
            let mut holdings = std::mem::take(&mut *self.holdings.borrow_mut());
            let known = (&mut lanes, &mut holdings);
            let done = group::perform(link, &self.place, works, known, now, look).await;
            *self.lanes.borrow_mut() = lanes;
            *self.holdings.borrow_mut() = holdings;
            let mut outcome = done?;
            if around {
                self.looked_around.set(Some(Instant::now()));
                self.around_due.set(None);
            }
            if outcome.found {
                self.found_since.set(true);
            }
            if self.shared.own_clock
                && outcome.short
                && outcome.repeat.is_empty()
                && self.around_due.get().is_none()
            {
                // What was locked at this moment is free in the next, and nobody would say so.
                self.around_due
                    .set(Some(Instant::now() + self.around_pause.get()));
                *self.served.borrow_mut() = std::mem::take(&mut outcome.served);
                self.wanted.borrow_mut().extend(outcome.wanted.drain(..));
            }
            if outcome.overdue {
                self.expire_due.set(true);
            }
            for at in std::mem::take(&mut outcome.repeat) {
                if round >= 2 {
                    let one = matches!(works[at].job.call, Call::ClaimOne { .. });
                    outcome.answers[at] = Some(Ok(claims_answer(one, Vec::new())));
                }
            }
            self.hand_out(works, outcome).await;
            let again = works
                .iter()
                .any(|work| matches!(work.job.call, Call::Claim { .. } | Call::ClaimOne { .. }));
            if !again {
                break;
            }
            if self.expire_due.take() {
                self.expire(link, now).await?;
            }
            round += 1;
        }
        self.singles(link, works, now).await?;
        if now.is_some() && self.leftovers.take() {
            // In tests, where time stands, what was left over goes with this call and those after it.
            let more = Cell::new(false);
            self.own(link, now, async |single| {
                more.set(single.sweep().await?);
                Ok(())
            })
            .await?;
            self.leftovers.set(more.get());
        }
        // What only reads came here because leases had to be looked at first.
        while let Some(work) = works.last() {
            let answer = reading::read(link, &self.place, self.margin_us(), &work.job).await?;
            if let Some(work) = works.pop() {
                self.deliver(work, answer.unwrap_or(Ok(Answer::Nothing)));
            }
        }
        Ok(())
    }

    /// Delivers what a group answered; the rest stays in the list.
    async fn hand_out(&self, works: &mut Vec<Work>, outcome: group::Outcome) {
        let mut left = Vec::new();
        let mut jobs = Vec::new();
        let mut answers = Vec::new();
        let mut incomplete: HashMap<usize, Vec<group::Taken>> =
            outcome.incomplete.into_iter().collect();
        for (at, (work, answer)) in works.drain(..).zip(outcome.answers).enumerate() {
            match (answer, incomplete.remove(&at)) {
                (Some(answer), _) => {
                    jobs.push(work.job);
                    answers.push(answer);
                }
                (None, Some(taken)) => self.load(work, taken),
                (None, None) => left.push(work),
            }
        }
        *works = left;
        self.shared.unwatch(&outcome.effects.ended);
        self.shared.keep_together(&jobs);
        self.shared.deliver(&mut jobs, answers);
        self.tell_family(&outcome.effects);
        if outcome.effects.news {
            self.look_for_own_news();
        }
    }

    /// Hints for this process about instances that were not the calls' own.
    fn tell_family(&self, effects: &Effects) {
        if effects.leftovers {
            self.leftovers.set(true);
            self.sweep_due.set(true);
            self.shared.writer.nudge();
        }
        let removed = effects.removed.iter();
        self.shared
            .tell(removed.map(|id| (Hint::News, Arc::clone(id))).collect());
        if !effects.family {
            return;
        }
        let ended = effects.ended.iter().map(|id| (Hint::Ended, Arc::clone(id)));
        let work = std::iter::once((Hint::Work, "".into()));
        self.shared.tell(ended.chain(work).collect());
        if effects.news {
            self.look_for_own_news();
        }
    }

    fn look_for_own_news(&self) {
        self.place.heard.borrow_mut().push("news".into());
        self.place.heard_some.notify_one();
    }

    /// Reads what claims lack, beside the write lane, and answers their call.
    fn load(&self, work: Work, taken: Vec<group::Taken>) {
        let reader = Rc::clone(&self.reader);
        let place = Rc::clone(&self.place);
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_local(async move {
            let one = matches!(work.job.call, Call::ClaimOne { .. });
            let held: Vec<(Arc<str>, u64)> = taken.iter().map(group::Taken::lease).collect();
            let answer = loop {
                let link = reader.link(work.deadline).await;
                let loaded = match &link {
                    Ok(link) => group::load(link, &place, taken.clone()).await,
                    Err(failure) => Err(failure.clone()),
                };
                match loaded {
                    Ok(claims) => break Ok(claims_answer(one, claims)),
                    Err(failure)
                        if failure.trouble == Trouble::Lost && Instant::now() < work.deadline =>
                    {
                        if let Ok(link) = link {
                            reader.doubt(&link);
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    Err(failure) => {
                        // Nobody will hear of these leases, so they are given back.
                        give_back(&shared, &held);
                        break Err(failure.error());
                    }
                }
            };
            shared.deliver(&mut vec![work.job], vec![answer]);
        });
    }

    /// The calls for which a group has no room, all in one transaction.
    async fn singles(&self, link: &Link, works: &mut Vec<Work>, now: Option<i64>) -> Tried<()> {
        let singles: Vec<usize> = works
            .iter()
            .enumerate()
            .filter(|(_, work)| !work.job.call.only_reads())
            .map(|(at, _)| at)
            .collect();
        if singles.is_empty() {
            return Ok(());
        }
        let mut effects = Effects::default();
        let mut answers = Vec::with_capacity(singles.len());
        let lanes = std::mem::take(&mut *self.lanes.borrow_mut());
        let done = async {
            link.begin_with_next();
            let mut single = Single {
                link,
                place: &self.place,
                now,
                effects: &mut effects,
            };
            for at in &singles {
                answers.push(single.perform(&works[*at], &lanes).await?);
            }
            self.tell_and_commit(link, &effects).await
        }
        .await;
        *self.lanes.borrow_mut() = lanes;
        done?;
        if effects.work {
            self.lanes.borrow_mut().became_ready();
        }
        for (at, answer) in singles.iter().zip(&answers) {
            if let (Call::Commit { slot, commit, .. }, Ok(Answer::Reply(reply))) =
                (&works[*at].job.call, answer)
            {
                group::held_after(&mut self.holdings.borrow_mut(), *slot as i64, commit, reply);
            }
        }
        let mut jobs = Vec::with_capacity(singles.len());
        let mut reads = Vec::new();
        for work in works.drain(..) {
            if work.job.call.only_reads() {
                reads.push(work);
            } else {
                jobs.push(work.job);
            }
        }
        *works = reads;
        for job in &jobs {
            if let Call::Release { worker } = &job.call {
                self.place.unleased(worker);
                self.lanes.borrow_mut().released(worker);
            }
        }
        self.shared.unwatch(&effects.ended);
        self.shared.deliver(&mut jobs, answers);
        self.tell_family(&effects);
        Ok(())
    }

    async fn tell_and_commit(&self, link: &Link, effects: &Effects) -> Tried<()> {
        let ends = !effects.ended.is_empty();
        let telling = group::tell(link, &self.place, effects.work, ends);
        let news = async {
            if effects.news && self.place.settings.notify {
                let news = self.place.signed("news");
                link.run(&sql::TELL, &[&self.place.settings.schema, &news])
                    .await?;
            }
            Ok(())
        };
        // The first failure is the cause: behind it nothing is committed.
        let (told, news, over) = join3(telling, news, link.commit()).await;
        told?;
        news?;
        over
    }

    /// A transaction of our own, whose effects we tell of.
    async fn own(
        &self,
        link: &Link,
        now: Option<i64>,
        body: impl AsyncFnOnce(&mut Single<'_>) -> Tried<()>,
    ) -> Tried<()> {
        let mut effects = Effects::default();
        let done = async {
            link.begin_with_next();
            let mut single = Single {
                link,
                place: &self.place,
                now,
                effects: &mut effects,
            };
            body(&mut single).await?;
            self.tell_and_commit(link, &effects).await
        }
        .await;
        match &done {
            Ok(()) => {
                self.shared.unwatch(&effects.ended);
                let mut hints: Vec<(Hint, Arc<str>)> = effects
                    .ended
                    .iter()
                    .map(|id| (Hint::Ended, Arc::clone(id)))
                    .collect();
                let removed = effects.removed.iter();
                hints.extend(removed.map(|id| (Hint::News, Arc::clone(id))));
                if effects.work {
                    hints.push((Hint::Work, "".into()));
                }
                if effects.news {
                    self.look_for_own_news();
                }
                self.shared.tell(hints);
            }
            // Whoever needs the connection next finds out.
            Err(failure) if failure.trouble == Trouble::Lost => {}
            Err(_) => link.rollback().await,
        }
        done
    }

    /// Whether there are lanes that were not known.
    async fn look_for_lanes(&self, link: &Link) -> bool {
        let hashes: Vec<Hash> = self.wanted.borrow_mut().drain().collect();
        let mut lanes = std::mem::take(&mut *self.lanes.borrow_mut());
        let grown = lanes.refresh(link, &self.place, &hashes).await;
        *self.lanes.borrow_mut() = lanes;
        grown.unwrap_or(false)
    }

    async fn expire(&self, link: &Link, now: Option<i64>) -> Tried<()> {
        self.own(link, now, async |single| single.expire().await)
            .await
    }

    /// What the write lane does between batches.
    async fn duties(&self) {
        let around = self.around_due.get().is_some_and(|at| at <= Instant::now());
        // Where time stands with the callers, their own calls look after everything.
        if !self.shared.own_clock
            || !self.writer.was_there()
            || !(self.expire_due.get() || self.sweep_due.get() || around)
        {
            return;
        }
        if around {
            self.around_due.set(None);
        }
        // What fails here is due again soon enough, and whoever waits for it hears of the trouble.
        let Ok(link) = self.writer.link(Instant::now()).await else {
            return;
        };
        if around {
            self.looked_around.set(Some(Instant::now()));
            let served = std::mem::take(&mut *self.served.borrow_mut());
            let ready = Cell::new(self.look_for_lanes(&link).await);
            let _ = self
                .own(&link, None, async |single| {
                    single.look_around().await?;
                    ready.set(ready.get() || single.is_ready(&served).await?);
                    Ok(())
                })
                .await;
            let longer = self.around_pause.get() * 2;
            self.around_pause.set(match ready.get() {
                false => longer.min(AROUND_SELDOM),
                true if self.found_since.get() => AROUND_PAUSE,
                // Something stays locked for long, or is not what it seems.
                true => longer.min(LOOK_EVERY),
            });
            self.found_since.set(false);
            if ready.get() {
                self.shared.tell(vec![(Hint::Work, "".into())]);
            }
        }
        if self.expire_due.take() {
            let _ = self.expire(&link, None).await;
        }
        if self.sweep_due.take() {
            let more = Cell::new(false);
            let _ = self
                .own(&link, None, async |single| {
                    more.set(single.sweep().await?);
                    Ok(())
                })
                .await;
            if more.get() {
                self.sweep_due.set(true);
                // After whatever waits.
                self.shared.writer.nudge();
            }
        }
    }

    // Reading.

    async fn read_lane(self: Rc<Self>) {
        let mut jobs = Vec::new();
        let mut tasks = tokio::task::JoinSet::new();
        while self.shared.reader.taken(&mut jobs).await.is_some() {
            if !self.keeper.was_there() {
                self.stir.notify_one();
            }
            for job in jobs.drain(..) {
                if !self.shared.own_clock {
                    // Leases that have run out must be taken back first, which the write lane does.
                    if let Err(job) = self.shared.writer.push(job, false) {
                        self.shared
                            .deliver(&mut vec![job], vec![Err(self.shared.closed())]);
                    }
                    continue;
                }
                let work = self.work(job);
                tasks.spawn_local(Rc::clone(&self).read(work));
            }
            while tasks.try_join_next().is_some() {}
        }
        self.shared.refuse_all(&self.shared.reader);
        while tasks.join_next().await.is_some() {}
    }

    async fn read(self: Rc<Self>, work: Work) {
        let answer = loop {
            let link = self.reader.link(work.deadline).await;
            let tried = match &link {
                Ok(link) => reading::read(link, &self.place, self.margin_us(), &work.job).await,
                Err(failure) => Err(failure.clone()),
            };
            match tried {
                Ok(answer) => break answer.unwrap_or(Ok(Answer::Nothing)),
                Err(failure)
                    if failure.trouble == Trouble::Lost
                        && self.reader.was_there()
                        && Instant::now() < work.deadline =>
                {
                    if let Ok(link) = link {
                        self.reader.doubt(&link);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                // What somebody keeps locked is not waited for on a connection that others share.
                Err(failure)
                    if failure.trouble == Trouble::Locked
                        && Instant::now() + LOCKED_PAUSE < work.deadline =>
                {
                    tokio::time::sleep(LOCKED_PAUSE).await;
                }
                Err(failure) => break Err(failure.error()),
            }
        };
        self.deliver(work, answer);
    }

    // Leases, hints and the clock.

    async fn keep(self: Rc<Self>) {
        // A backend that nobody uses makes no connection.
        self.stir.notified().await;
        let mut clock_read = None;
        let mut listened: Option<(Instant, bool, bool)> = None;
        let mut looked = Instant::now();
        let mut new = true;
        let mut greeted = None;
        let mut swept = Instant::now();
        loop {
            let now = Instant::now();
            let next = [
                self.shared.next_renewal(),
                clock_read.map(|at: Instant| at + READ_CLOCK),
                listened.map(|(at, ..)| at + LISTEN_AGAIN),
                Some(looked + LOOK_EVERY),
            ]
            .into_iter()
            .flatten()
            .min();
            if clock_read.is_some() {
                let wait = next.map_or(LOOK_EVERY, |at| at.saturating_duration_since(now));
                tokio::select! {
                    () = self.stir.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
            let due = self.shared.renewals_due();
            let deadline = Instant::now();
            let Ok(link) = self.keeper.link(deadline).await else {
                self.shared.renewed(&due, false);
                clock_read.get_or_insert(deadline);
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let now = Instant::now();
            if clock_read.is_none_or(|at| now >= at + READ_CLOCK) && link.read_clock().await.is_ok()
            {
                clock_read = Some(now);
            }
            if std::mem::take(&mut new) && self.reader.link(now).await.is_ok() {
                // Who comes later says so, and is heard from now on.
                self.look_for_others(&link).await;
            }
            if !due.is_empty() {
                let renewed = self.renew(&link, &due).await;
                self.shared.renewed(&due, renewed.is_ok());
            }
            if self.put_listener(&link, &mut listened).await {
                greeted = Some(now);
            }
            if now >= looked + LOOK_EVERY {
                looked = now;
                self.look(&link).await;
                if greeted.is_some_and(|at: Instant| now >= at + LOOK_EVERY) {
                    // Whoever did not know of us yet told us nothing.
                    greeted = None;
                    self.shared.tell(vec![(Hint::Work, "".into())]);
                }
            }
            let every = match self.place.settings.keep_completed_us {
                Some(_) => SWEEP_EVERY,
                None => SWEEP_SELDOM,
            };
            if now >= swept + every {
                swept = now;
                self.sweep_due.set(true);
                self.shared.writer.nudge();
            }
        }
    }

    async fn renew(&self, link: &Link, due: &[(Arc<str>, i64)]) -> Tried<()> {
        let names: Vec<&str> = due.iter().map(|(worker, _)| &**worker).collect();
        let leases: Vec<i64> = due.iter().map(|(_, lease_us)| *lease_us).collect();
        let early: Vec<i64> = leases
            .iter()
            .map(|us| self.place.settings.early_us(*us))
            .collect();
        let no_time: Option<i64> = None;
        link.run(&sql::RENEW, &[&names, &leases, &early, &no_time])
            .await?;
        self.look_for_news(link).await
    }

    /// Tells those who hold something of what they should attend to.
    async fn look_for_news(&self, link: &Link) -> Tried<()> {
        let workers = self.shared.kept();
        if workers.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = workers.iter().map(|worker| &**worker).collect();
        let rows = link.rows(&sql::ALERTED, &[&names]).await?;
        let mut told = HashMap::with_capacity(rows.len());
        let mut hints = Vec::new();
        {
            let before = self.told.borrow();
            for row in rows {
                let id: Arc<str> = Arc::from(row.get::<_, &str>(0));
                let count: i32 = row.get(1);
                if before.get(&id) != Some(&count) {
                    hints.push((Hint::News, Arc::clone(&id)));
                }
                told.insert(id, count);
            }
        }
        *self.told.borrow_mut() = told;
        self.shared.tell(hints);
        Ok(())
    }

    /// Tells those who wait of instances that have ended.
    async fn look_for_ends(&self, link: &Link, ids: Vec<Arc<str>>) -> Tried<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = ids.iter().map(|id| &**id).collect();
        let rows = link.rows(&sql::STATUS, &[&names]).await?;
        let ended: Vec<Arc<str>> = rows
            .iter()
            .map(|row| Arc::from(row.get::<_, &str>(0)))
            .collect();
        self.shared.unwatch(&ended);
        self.shared
            .tell(ended.into_iter().map(|id| (Hint::Ended, id)).collect());
        Ok(())
    }

    /// Once in a while: leases that ran out, and ends that nobody was told of.
    async fn look(&self, link: &Link) {
        self.look_for_others(link).await;
        let no_time: Option<i64> = None;
        if self.shared.own_clock
            && let Ok(Some(_)) = link.row(&sql::OVERDUE, &[&no_time]).await
        {
            self.expire_due.set(true);
            self.shared.writer.nudge();
        }
        let _ = self.look_for_ends(link, self.shared.watched()).await;
    }

    /// Looks who else wants to be told of something.
    async fn look_for_others(&self, link: &Link) {
        if self.place.settings.notify
            && let Ok(Some(row)) = link.row(&sql::OTHERS, &[&self.place.listener]).await
        {
            self.place.others.set((row.get(0), row.get(1)));
        }
    }

    /// Says in the database what this process wants to be told of.
    /// Whether it is news that work is wanted.
    async fn put_listener(
        &self,
        link: &Link,
        listened: &mut Option<(Instant, bool, bool)>,
    ) -> bool {
        if !self.place.settings.notify {
            return false;
        }
        let mut greeting = false;
        let watched = self.shared.watched_since();
        let work = self.shared.has_listeners();
        let ends = !watched.is_empty() || !self.shared.watched().is_empty();
        let now = Instant::now();
        let stands = match *listened {
            // Ends are wanted now and then; the row is not rewritten each time.
            Some((at, was_work, was_ends)) => {
                now < at + LISTEN_AGAIN && was_work == work && (was_ends || !ends)
            }
            None => !work && !ends,
        };
        if !stands {
            let put = link
                .run(&sql::LISTENER_PUT, &[&self.place.listener, &work, &ends])
                .await;
            if put.is_ok() {
                // So that nobody has to wait for their next look at who is there.
                let _ = link
                    .run(
                        &sql::TELL,
                        &[&self.place.settings.schema, &self.place.signed("listening")],
                    )
                    .await;
                if work && listened.is_none_or(|(_, was_work, _)| !was_work) {
                    // What came before the row was there was told to nobody.
                    greeting = true;
                    self.shared.tell(vec![(Hint::Work, "".into())]);
                }
                *listened = (work || ends).then_some((now, work, ends));
            }
        }
        // What ended before the row was there is told by nobody.
        let _ = self.look_for_ends(link, watched).await;
        greeting
    }

    /// Passes notifications on.
    async fn hear(self: Rc<Self>) {
        loop {
            // Behind what was heard before, so that the first hint is passed on at once.
            tokio::time::sleep(HINT_PAUSE).await;
            self.place.heard_some.notified().await;
            let heard: HashSet<Box<str>> = self.place.heard.borrow_mut().drain(..).collect();
            if heard.contains("work") {
                // Somebody else's work may be in a lane that is not known here.
                self.looked_around.set(None);
                self.shared.tell(vec![(Hint::Work, "".into())]);
            }
            let Ok(link) = self.reader.link(Instant::now()).await else {
                continue;
            };
            if heard.contains("listening") {
                self.look_for_others(&link).await;
            }
            if heard.contains("news") {
                let _ = self.look_for_news(&link).await;
            }
            if heard.contains("ended") {
                let _ = self.look_for_ends(&link, self.shared.watched()).await;
            }
        }
    }
}

/// Gives leases back whose holder will never hear of them.
fn give_back(shared: &Shared, held: &[(Arc<str>, u64)]) {
    let Ok(port) = Port::new() else {
        return;
    };
    let port = Arc::new(port);
    for (id, fence) in held {
        let call = Call::GiveBack {
            id: Arc::clone(id),
            fence: *fence,
        };
        let job = Job {
            ticket: port.next_ticket(),
            port: Arc::clone(&port),
            call,
            now_us: None,
        };
        let _ = shared.writer.push(job, false);
    }
}
