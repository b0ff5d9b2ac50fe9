//! Connections: made, prepared, lost and made again.
//!
//! A link is one connection with every statement prepared on it. Statements that are begun before the
//! answers of earlier ones are awaited go out together, in the order in which they were begun.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use tokio::sync::Notify;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Error, Row};

use super::Settings;
use super::clock::Clock;
use super::statements::{self as sql, Statement};
use super::tls::Connector;
use super::trouble::{self, Trouble};
use super::url::Address;
use crate::contract::StoreError;
use crate::fail::FailPoint;

/// The shortest pause between two attempts to connect.
const BACKOFF_LEAST: Duration = Duration::from_millis(20);
/// The longest.
const BACKOFF_MOST: Duration = Duration::from_secs(2);

/// Why something could not be done, and the sentence for whoever asked.
#[derive(Debug, Clone)]
pub struct Failure {
    pub trouble: Trouble,
    pub text: Arc<str>,
    /// What is stored is of a newer version, or foreign.
    pub format: bool,
}

impl Failure {
    pub fn of(place: &Place, error: &Error) -> Self {
        Self {
            trouble: trouble::of(error),
            text: trouble::say(&place.address.shown, error).into(),
            format: false,
        }
    }

    pub fn said(trouble: Trouble, text: String) -> Self {
        Self {
            trouble,
            text: text.into(),
            format: false,
        }
    }

    pub fn error(&self) -> StoreError {
        let text = self.text.to_string();
        if self.format {
            StoreError::Format(text)
        } else {
            StoreError::Unavailable(text)
        }
    }
}

/// `Result` with a [`Failure`].
pub type Tried<T> = Result<T, Failure>;

/// Where the server is, and how to speak to it.
pub struct Place {
    pub address: Address,
    pub connector: Connector,
    pub settings: Settings,
    pub clock: Arc<Clock>,
    /// The schema's name, quoted, with a dot.
    pub prefix: String,
    pub fail: FailPoint,
    /// Notifications that came, by kind, since they were looked at.
    pub heard: RefCell<Vec<Box<str>>>,
    pub heard_some: Notify,
    /// Whether the server was ever there: from then on it is waited for.
    known: Cell<bool>,
    /// What this process is called among those who listen.
    pub listener: i64,
    /// Whether others want to be told of work, and of ends.
    pub others: Cell<(bool, bool)>,
    /// Workers whose row is there, and since when they need not be put there again.
    leases: RefCell<HashMap<Arc<str>, Instant>>,
    /// Where the next look at early events begins, µs.
    pub early_from: Cell<i64>,
    seed: Cell<u64>,
}

impl Place {
    pub fn new(
        address: Address,
        connector: Connector,
        settings: Settings,
        clock: Arc<Clock>,
    ) -> Self {
        Self {
            prefix: format!("\"{}\".", settings.schema),
            others: Cell::new((settings.notify, settings.notify)),
            address,
            connector,
            settings,
            clock,
            fail: FailPoint::from_environment(),
            heard: RefCell::default(),
            heard_some: Notify::new(),
            listener: (super::random() >> 1) as i64,
            known: Cell::new(false),
            leases: RefCell::default(),
            early_from: Cell::new(i64::MIN),
            seed: Cell::new(super::random()),
        }
    }

    /// Whether a worker's row was put there so short a time ago that it needs no more. Renewing keeps
    /// it there, and says when it is gone.
    pub fn is_leased(&self, worker: &str, lease_us: i64) -> bool {
        let fresh = super::duration(lease_us / 3);
        self.settings.own_clock
            && (self.leases.borrow().get(worker)).is_some_and(|since| since.elapsed() < fresh)
    }

    /// A worker's row was put there, or renewed.
    pub fn leased(&self, worker: &str) {
        self.leases
            .borrow_mut()
            .insert(worker.into(), Instant::now());
    }

    /// A worker's row may be gone.
    pub fn unleased(&self, worker: &str) {
        self.leases.borrow_mut().remove(worker);
    }

    /// A text with the configured schema in it.
    pub fn text(&self, sql: &str) -> String {
        sql.replace("sayiir.", &self.prefix)
    }

    /// A fresh number that marks a row as made by one call.
    pub fn token(&self) -> i64 {
        // A weak generator will do: it starts at random, and marks are compared within one id.
        let next = self
            .seed
            .get()
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.seed.set(next);
        ((next ^ (next >> 29)) & (i64::MAX as u64)) as i64
    }
}

impl Place {
    /// A word for other processes, with the number of who says it.
    pub fn signed(&self, word: &str) -> String {
        format!("{word} {}", self.listener)
    }

    /// A notification came; of what this process said itself it knows.
    fn hear(&self, said: &str) {
        let (word, by) = said.split_once(' ').unwrap_or((said, ""));
        if by.parse() != Ok(self.listener) {
            self.heard.borrow_mut().push(word.into());
            self.heard_some.notify_one();
        }
    }
}

/// One connection.
pub struct Link {
    client: Client,
    prepared: Vec<tokio_postgres::Statement>,
    place: Rc<Place>,
    /// A transaction begins with the next statement.
    begins: Cell<bool>,
}

/// What a statement is given.
pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Link {
    /// Connects once, without preparing anything.
    pub async fn bare(place: &Rc<Place>) -> Tried<Client> {
        let heard = Rc::clone(place);
        let connecting = async {
            let (client, mut connection) = place
                .address
                .config
                .connect(place.connector.clone())
                .await?;
            tokio::task::spawn_local(async move {
                while let Some(message) =
                    std::future::poll_fn(|context| connection.poll_message(context)).await
                {
                    match message {
                        Ok(AsyncMessage::Notification(note)) => {
                            if note.channel() == heard.settings.schema {
                                heard.hear(note.payload());
                            }
                        }
                        Ok(_) => {}
                        // Whoever has a statement on its way hears of it there.
                        Err(_) => break,
                    }
                }
            });
            Ok(client)
        };
        let timeout = place.settings.connect_timeout();
        match tokio::time::timeout(timeout, connecting).await {
            Ok(Ok(client)) => {
                let text = place.settings.session();
                client
                    .batch_execute(&text)
                    .await
                    .map_err(|e| Failure::of(place, &e))?;
                // Engines that only speak the language may know none of these.
                let planning = super::PLANNING.map(|text| client.batch_execute(text));
                let _ = futures_util::future::join_all(planning).await;
                Ok(client)
            }
            Ok(Err(error)) => Err(Failure::of(place, &error)),
            Err(_) => Err(Failure::said(
                Trouble::Lost,
                format!(
                    "PostgreSQL at {} did not answer within {} s; is it there, and does the network let \
                     this machine through?",
                    place.address.shown,
                    timeout.as_secs_f64()
                ),
            )),
        }
    }

    /// Connects once, and prepares every statement, all in one transaction.
    pub async fn connect(place: &Rc<Place>) -> Tried<Self> {
        let client = Self::bare(place).await?;
        let texts: Vec<String> = sql::ALL.iter().map(|one| place.text(one.sql)).collect();
        let preparing = texts.iter().map(|text| client.prepare(text));
        // The first failure is the cause.
        let (begun, (prepared, ended)) = join(
            client.batch_execute("BEGIN"),
            join(join_all(preparing), client.batch_execute("COMMIT")),
        )
        .await;
        let prepared = begun
            .and_then(|()| prepared.into_iter().collect())
            .and_then(|prepared| ended.map(|()| prepared))
            .map_err(|e| Failure::of(place, &e))?;
        Ok(Self {
            client,
            prepared,
            place: Rc::clone(place),
            begins: Cell::new(false),
        })
    }

    /// Reads the database's clock.
    pub async fn read_clock(&self) -> Tried<()> {
        let asked = Instant::now();
        if let Some(row) = self.row(&sql::CLOCK, &[]).await? {
            self.place.clock.note(asked, row.get(0));
        }
        Ok(())
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// All rows of a statement.
    pub async fn rows(&self, statement: &Statement, params: Params<'_>) -> Tried<Vec<Row>> {
        let asking = async {
            self.place.fail.pass(statement.name, "before");
            let asked = &self.prepared[statement.number];
            self.client.query(asked, params).await
        };
        let rows = self.begun(asking).await?;
        self.place.fail.pass(statement.name, "after");
        Ok(rows)
    }

    /// The first row, if there is one.
    pub async fn row(&self, statement: &Statement, params: Params<'_>) -> Tried<Option<Row>> {
        Ok(self.rows(statement, params).await?.into_iter().next())
    }

    /// How many rows a statement changed.
    pub async fn run(&self, statement: &Statement, params: Params<'_>) -> Tried<u64> {
        let asking = async {
            self.place.fail.pass(statement.name, "before");
            let asked = &self.prepared[statement.number];
            self.client.execute(asked, params).await
        };
        let changed = self.begun(asking).await?;
        self.place.fail.pass(statement.name, "after");
        Ok(changed)
    }

    /// What was asked, behind the `BEGIN` that was put off until now, on one way there and back.
    async fn begun<T>(
        &self,
        asking: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Tried<T> {
        let answered = if self.begins.take() {
            let (begun, answered) = join(self.begin(), asking).await;
            begun?;
            answered
        } else {
            asking.await
        };
        answered.map_err(|e| Failure::of(&self.place, &e))
    }

    /// A word such as `BEGIN`; `name` is its fail point.
    async fn word(&self, name: &str, text: &str) -> Tried<()> {
        self.place.fail.pass(name, "before");
        self.client
            .batch_execute(text)
            .await
            .map_err(|e| Failure::of(&self.place, &e))?;
        self.place.fail.pass(name, "after");
        Ok(())
    }

    pub async fn begin(&self) -> Tried<()> {
        self.word("begin.write", "BEGIN").await
    }

    /// A transaction begins with the next statement, on the same way to the server.
    pub fn begin_with_next(&self) {
        self.begins.set(true);
    }

    pub async fn commit(&self) -> Tried<()> {
        if self.begins.take() {
            return Ok(());
        }
        self.word("end.commit", "COMMIT").await
    }

    /// Undoes what was begun; where this fails too, the connection is gone and so is the transaction.
    pub async fn rollback(&self) {
        if self.begins.take() {
            return;
        }
        let _ = self.word("end.rollback", "ROLLBACK").await;
    }

    /// Hears the notifications of other processes from now on.
    pub async fn listen(&self) -> Tried<()> {
        let text = format!("LISTEN \"{}\"", self.place.settings.schema);
        self.word("hint.listen", &text).await
    }
}

/// The words that are fail points beside the statements.
pub const WORDS: [&str; 4] = ["begin.write", "end.commit", "end.rollback", "hint.listen"];

/// A connection that is made again when it was lost.
pub struct Line {
    place: Rc<Place>,
    link: RefCell<Option<Rc<Link>>>,
    listens: bool,
    attempts: Cell<u32>,
    /// Held by whoever connects, so that all who need the connection make one.
    connecting: tokio::sync::Mutex<()>,
}

impl Line {
    pub fn new(place: &Rc<Place>, listens: bool) -> Self {
        Self {
            place: Rc::clone(place),
            link: RefCell::default(),
            listens: listens && place.settings.notify,
            attempts: Cell::new(0),
            connecting: tokio::sync::Mutex::new(()),
        }
    }

    /// The connection as it is, or a new one: tried until `deadline` once it was ever there.
    pub async fn link(&self, deadline: Instant) -> Tried<Rc<Link>> {
        if let Some(link) = self.there() {
            return Ok(link);
        }
        let _connecting = self.connecting.lock().await;
        loop {
            if let Some(link) = self.there() {
                return Ok(link);
            }
            match self.attempt().await {
                Ok(link) => {
                    let link = Rc::new(link);
                    *self.link.borrow_mut() = Some(Rc::clone(&link));
                    self.place.known.set(true);
                    self.attempts.set(0);
                    return Ok(link);
                }
                Err(failure) => {
                    let patient = self.place.known.get() && failure.trouble == Trouble::Lost;
                    let pause = self.pause();
                    if !patient || Instant::now() + pause > deadline {
                        return Err(failure);
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// The connection, if it is there.
    fn there(&self) -> Option<Rc<Link>> {
        let there = self.link.borrow().clone().filter(|link| !link.is_closed());
        if there.is_none() {
            *self.link.borrow_mut() = None;
        }
        there
    }

    async fn attempt(&self) -> Tried<Link> {
        if !self.place.known.get() {
            super::schema::prepare(&self.place).await?;
        }
        let link = Link::connect(&self.place).await?;
        link.read_clock().await?;
        if self.listens {
            link.listen().await?;
        }
        Ok(link)
    }

    /// The next pause between two attempts, doubled each time and jittered.
    fn pause(&self) -> Duration {
        let attempts = self.attempts.get();
        self.attempts.set(attempts.saturating_add(1));
        let whole = (BACKOFF_LEAST * 2u32.saturating_pow(attempts.min(10))).min(BACKOFF_MOST);
        whole.mul_f64(0.5 + (self.place.token() % 1_000) as f64 / 2_000.0)
    }

    /// A connection may be of no use any more.
    pub fn doubt(&self, link: &Rc<Link>) {
        let mut there = self.link.borrow_mut();
        if there.as_ref().is_some_and(|there| Rc::ptr_eq(there, link)) {
            *there = None;
        }
    }

    pub fn was_there(&self) -> bool {
        self.place.known.get()
    }
}
