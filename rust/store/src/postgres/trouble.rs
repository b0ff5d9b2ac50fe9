//! What PostgreSQL and the way to it say, in a sentence that names the server and what to do.
//!
//! [`of`] is the one table from SQLSTATEs and network errors to what the store does about them, [`say`]
//! the one from them to words. No text holds a password or a stored value: `DETAIL`, `HINT` and
//! `CONTEXT` are never shown, and messages only of those classes in which the server does not quote
//! what it was given.
//!
//! Refuses to know what was being done when it happened.

use std::error::Error as _;
use std::io;

use rustls::{AlertDescription, CertificateError};
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity};

/// Longest sentence, in characters.
const SENTENCE: usize = 1_000;
/// Longest part of it that is somebody else's, in characters.
const QUOTED: usize = 300;

/// What is to be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The connection is gone or was not made, or nobody knows whether a commit happened: connect
    /// again, later.
    Lost,
    /// The transaction lost against another one and left nothing behind: do it again.
    Again,
    /// The statement waited too long, or was cancelled; the connection can be used.
    Locked,
    /// It will not get better by itself.
    Refused,
    /// Something that no table foresees; the transaction is void.
    Other,
}

/// What `error` means to the store.
#[must_use]
pub fn of(error: &Error) -> Trouble {
    if let Some(db) = error.as_db_error() {
        return of_server(db);
    }
    match Kind::of(error) {
        Kind::Tls(reason) => of_tls(reason),
        Kind::NoTls | Kind::NoPassword | Kind::Authentication => Trouble::Refused,
        Kind::Network(_) | Kind::Closed | Kind::Foreign => Trouble::Lost,
        Kind::Other => Trouble::Other,
    }
}

fn of_server(db: &DbError) -> Trouble {
    let fatal = fatal(db);
    match db.code().code() {
        // 40003: a distributed engine does not know whether it committed.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" | "53300" | "40003" => {
            Trouble::Lost
        }
        "40000" | "40001" | "40P01" => Trouble::Again,
        // An id that was free a moment ago.
        "23505" if db.constraint() == Some("inputs_pkey") => Trouble::Again,
        "55P03" | "57014" => Trouble::Locked,
        "3D000" | "57P04" | "42501" | "3F000" | "42P01" | "42703" | "42704" | "42883" | "25006" => {
            Trouble::Refused
        }
        code if code.starts_with("08") => Trouble::Lost,
        code if code.starts_with("28") => Trouble::Refused,
        code if fatal && a_setting(code) => Trouble::Refused,
        _ if fatal => Trouble::Lost,
        _ => Trouble::Other,
    }
}

/// Whether the server ended the connection with it.
fn fatal(db: &DbError) -> bool {
    matches!(
        db.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    )
}

/// What ends a connection at its start: a setting in the URL that the server does not take.
fn a_setting(code: &str) -> bool {
    ["22", "42"].iter().any(|class| code.starts_with(class)) || ["55P02", "0A000"].contains(&code)
}

/// Certificates do not mend themselves; what else goes wrong inside TLS is a connection cut or garbled.
fn of_tls(reason: &rustls::Error) -> Trouble {
    match reason {
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::NoCertificatesPresented
        | rustls::Error::PeerIncompatible(_) => Trouble::Refused,
        rustls::Error::AlertReceived(alert) if refusal(*alert) => Trouble::Refused,
        _ => Trouble::Lost,
    }
}

fn refusal(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::HandshakeFailure
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::DecryptError
            | A::ProtocolVersion
            | A::InsufficientSecurity
            | A::UnrecognisedName
            | A::CertificateRequired
    )
}

/// What kind of error it is when it does not come from the server's SQL side. `tokio_postgres` keeps
/// its own kinds to itself, so that its words must serve; the tests hold them fast.
enum Kind<'a> {
    Tls(&'a rustls::Error),
    NoTls,
    NoPassword,
    Authentication,
    Network(&'a io::Error),
    Closed,
    /// Bytes that are not PostgreSQL's protocol.
    Foreign,
    Other,
}

impl<'a> Kind<'a> {
    fn of(error: &'a Error) -> Self {
        if let Some(reason) = tls(error) {
            return Self::Tls(reason);
        }
        match error.to_string().as_str() {
            "authentication error" => return Self::Authentication,
            "invalid configuration" if cause(error) == "password missing" => {
                return Self::NoPassword;
            }
            "unexpected message from server" | "error parsing response from server" => {
                return Self::Foreign;
            }
            "timeout waiting for server" => return Self::Closed,
            _ if error.is_closed() => return Self::Closed,
            _ => {}
        }
        let network = error.source().and_then(|s| s.downcast_ref::<io::Error>());
        match network {
            // A peer that hangs up is told as closed or as this, in the middle of a message as a third.
            Some(io)
                if io.kind() == io::ErrorKind::UnexpectedEof
                    || io.to_string() == "bytes remaining on stream" =>
            {
                Self::Closed
            }
            // Their framing complains in this way about bytes that make no sense.
            Some(io)
                if matches!(
                    io.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
                ) && error.to_string() == "error communicating with the server" =>
            {
                Self::Foreign
            }
            Some(io) => Self::Network(io),
            None if error.to_string() == "error performing TLS handshake" => Self::NoTls,
            None => Self::Other,
        }
    }
}

/// The error of TLS inside, if there is one: it comes wrapped in an I/O error.
fn tls(error: &Error) -> Option<&rustls::Error> {
    error
        .source()?
        .downcast_ref::<io::Error>()?
        .get_ref()?
        .downcast_ref()
}

/// The whole sentence about `error`, for the PostgreSQL that is shown as `shown`
/// (`postgresql://user@host:5432/database`): what happened and what to do next.
#[must_use]
pub fn say(shown: &str, error: &Error) -> String {
    let name = Name::of(shown);
    let what = match error.as_db_error() {
        Some(db) => server(&name, db),
        None => way(&name, error),
    };
    clean(&format!("PostgreSQL at {shown} {what}"), SENTENCE)
}

/// The parts of a shown URL that sentences speak of.
struct Name<'a> {
    user: &'a str,
    database: &'a str,
}

impl<'a> Name<'a> {
    fn of(shown: &'a str) -> Self {
        let rest = shown.split_once("://").map_or(shown, |(_, rest)| rest);
        Self {
            user: rest.split_once('@').map_or("?", |(user, _)| user),
            database: rest.rsplit_once('/').map_or("?", |(_, database)| database),
        }
    }
}

/// What the server said.
fn server(name: &Name<'_>, db: &DbError) -> String {
    let (user, database) = (name.user, name.database);
    let code = db.code().code();
    let told = told(db);
    match code {
        "28P01" => format!(
            "refused the password of user '{user}' ({code}); check the password in the URL, PGPASSWORD \
             or the password file"
        ),
        _ if code.starts_with("28") => format!(
            "does not let user '{user}' in ({told}); check that the role exists and may log in, and \
             what the server's pg_hba.conf says about this user, database, address and encryption"
        ),
        "3D000" | "57P04" => format!(
            "has no database '{database}' ({told}); create it (CREATE DATABASE), or correct the name \
             at the end of the URL"
        ),
        "42501" => format!(
            "does not allow user '{user}' to do this ({told}); GRANT the right, or let a role that \
             has it run `sayiir migrate`"
        ),
        _ if fatal(db) && a_setting(code) => format!(
            "does not take a setting of the connection ({told}); look at 'options' and the other \
             parameters of the URL, and at PGOPTIONS"
        ),
        "3F000" | "42P01" | "42703" | "42704" | "42883" => format!(
            "lacks the schema or the tables that are needed ({told}); make or update them with \
             `sayiir migrate`, and check the name of the schema in the URL"
        ),
        "25006" => format!(
            "takes no writes ({told}): it is a standby, or set to read-only; name the primary in the \
             URL, or every host together with target_session_attrs=read-write"
        ),
        "53300" => format!(
            "has no connection left ({told}); wait, lower max_connections of the backends, raise \
             max_connections of the server, or put a pooler before it"
        ),
        "57P01" | "57P02" => format!(
            "ended the connection ({told}); it is being stopped, or an operator ended the session: \
             nothing is to be done if it comes back"
        ),
        "57P03" => format!("is starting or stopping ({told}); wait until it is ready"),
        "57P05" | "25P03" | "25P04" => format!(
            "ended a connection that was silent for too long ({told}); raise the server's time limits \
             for idle sessions and transactions"
        ),
        "40003" => format!(
            "does not know whether a commit happened ({told}); what was asked for can be looked up \
             and asked for again"
        ),
        _ if code.starts_with("40") => format!(
            "rolled a transaction back again and again ({told}); others work on the same rows: try \
             later, with fewer workers at once"
        ),
        "55P03" => format!(
            "kept a statement waiting for a lock for too long ({told}); look in pg_locks and \
             pg_stat_activity for a session that holds it"
        ),
        "57014" => format!(
            "cancelled a statement ({told}); it took longer than statement_timeout, or an operator \
             cancelled it: look in pg_stat_activity for what it waited for"
        ),
        "53100" => format!(
            "has no space left on its disk ({told}); nothing was written, and work goes on when there \
             is space"
        ),
        _ if code.starts_with("53") => {
            format!("is short of something ({told}); look at the memory and limits of the server")
        }
        "26000" | "42P05" => format!(
            "does not know a prepared statement, or knows it twice ({told}); a pooler in transaction \
             mode stands between: let it track prepared statements (pgbouncer 1.21 and \
             max_prepared_statements), or use session mode"
        ),
        _ if code.starts_with("08") => format!(
            "broke off the connection ({told}); if a pooler stands between, look in its log as well"
        ),
        _ if code.starts_with("XX") || code.starts_with("58") => format!(
            "is in trouble itself ({told}); look in the server's log and check its disk before anything \
             else"
        ),
        _ => format!("refused ({told}); look in the server's log"),
    }
}

/// The SQLSTATE with what can be told of the rest. In data and integrity errors, and in those that
/// functions raise, the message may quote values; there the names of the things concerned must do.
fn told(db: &DbError) -> String {
    let code = db.code().code();
    let quotes_values = ["22", "23", "44", "P0"]
        .iter()
        .any(|class| code.starts_with(class));
    if !quotes_values {
        return format!("{code}: {}", clean(db.message(), QUOTED));
    }
    let mut told = code.to_owned();
    for (what, name) in [
        ("table", db.table()),
        ("column", db.column()),
        ("constraint", db.constraint()),
    ] {
        if let Some(name) = name {
            told.push_str(&format!(", {what} {}", clean(name, 64)));
        }
    }
    told
}

/// What went wrong before the server could say anything.
fn way(name: &Name<'_>, error: &Error) -> String {
    match Kind::of(error) {
        Kind::Tls(reason) => encryption(reason),
        Kind::NoTls => {
            "does not offer TLS; switch it on there (ssl = on), or say sslmode=prefer or \
                        sslmode=disable in the URL if plain text is acceptable"
                .into()
        }
        Kind::NoPassword => format!(
            "asks for the password of user '{}', and none is given; put it into the URL, into \
             PGPASSWORD or into the password file (~/.pgpass)",
            name.user
        ),
        Kind::Authentication => format!(
            "and this client do not agree on how to authenticate ({}); passwords by SCRAM, MD5 or plain \
             text, and client certificates are known here, Kerberos is not; with \
             channel_binding=require the server must use SCRAM over TLS",
            cause(error)
        ),
        Kind::Network(io) => network(io),
        Kind::Closed => {
            "closed the connection without a word; it was stopped, killed, or something between cut \
             the line: look in the server's log. If it never answered, check host and port"
                .into()
        }
        Kind::Foreign => format!(
            "does not speak PostgreSQL's protocol ({}); check host and port",
            cause(error)
        ),
        Kind::Other => format!("could not be used: {error} ({})", cause(error)),
    }
}

fn network(io: &io::Error) -> String {
    let text = clean(&io.to_string(), QUOTED);
    // Their word on `target_session_attrs`, which no operating system says.
    if io.kind() == io::ErrorKind::PermissionDenied && io.raw_os_error().is_none() {
        return format!("takes no writes ({text}); wait for the primary, or name it in the URL");
    }
    let next = match io.kind() {
        io::ErrorKind::ConnectionRefused => {
            "check that the server runs, and that it listens on this host and port"
        }
        io::ErrorKind::TimedOut => {
            "check the address, and that no firewall drops what is sent there"
        }
        io::ErrorKind::NotFound => {
            "there is no such socket: check that the server runs, the directory and the port"
        }
        io::ErrorKind::PermissionDenied => "this user may not open the server's socket",
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => {
            return format!(
                "broke off the connection ({text}); it was stopped, killed, or something between cut \
                 the line: look in the server's log"
            );
        }
        _ => "check the name of the host, and the network",
    };
    format!("cannot be reached ({text}); {next}")
}

fn encryption(reason: &rustls::Error) -> String {
    use CertificateError as C;
    let next = match reason {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            C::UnknownIssuer => {
                "it is not signed by a certificate that is trusted: name the right one with \
                 sslrootcert=FILE"
            }
            C::BadSignature => {
                "the signature is not by the key that it should be by: sslrootcert may hold another \
                 certificate of the same name, or somebody stands between"
            }
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                "it is for another host: name the host in the URL as the certificate does (among its \
                 subjectAltNames; the common name does not count), or say sslmode=verify-ca"
            }
            C::Expired | C::ExpiredContext { .. } => {
                "it has expired: renew it, and check the clock of this machine"
            }
            C::NotValidYet | C::NotValidYetContext { .. } => {
                "it is not valid yet: check the clock of this machine"
            }
            _ => {
                "it cannot be used: make it anew, as X.509 version 3 with subjectAltName and a key of \
                 at least 2048 bits RSA, or elliptic"
            }
        },
        rustls::Error::AlertReceived(_) => {
            return format!(
                "ended the encryption ({}); if it asks for a client certificate, check sslcert and \
                 sslkey in the URL, and what the server's log says",
                clean(&reason.to_string(), QUOTED)
            );
        }
        _ => {
            return format!(
                "and this client could not encrypt together ({}); TLS 1.2 or 1.3 is needed",
                clean(&reason.to_string(), QUOTED)
            );
        }
    };
    format!(
        "shows a certificate that is refused ({}); {next}",
        clean(&reason.to_string(), QUOTED)
    )
}

/// The innermost word on it.
fn cause(error: &Error) -> String {
    error.source().map_or_else(
        || error.to_string(),
        |source| clean(&source.to_string(), QUOTED),
    )
}

/// One line of at most `limit` characters that cannot steer a terminal.
pub(super) fn clean(text: &str, limit: usize) -> String {
    let mut cleaned: String = text
        .chars()
        .map(|c| if steers(c) { ' ' } else { c })
        .take(limit + 1)
        .collect();
    if let Some((end, _)) = cleaned.char_indices().nth(limit) {
        cleaned.truncate(end);
        cleaned.push('…');
    }
    cleaned
}

/// Control characters, and those that turn the direction of text or hide in it.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread::{self, JoinHandle};

    use tokio_postgres::{Config, NoTls};

    use super::*;

    const SHOWN: &str = "postgresql://app@db:5432/shop";
    const HUSH: &str = "hush-hush";

    /// A server that answers one packet after the other and hangs up, after more than one when the client does. Its port.
    fn server(answers: Vec<Vec<u8>>) -> (u16, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for (place, answer) in answers.iter().enumerate() {
                // Only the very first packet has no tag.
                if place > 0 {
                    stream.read_exact(&mut [0]).unwrap();
                }
                packet(&mut stream);
                stream.write_all(answer).unwrap();
            }
            // After a conversation it is the client that goes.
            if answers.len() > 1 {
                stream.read_to_end(&mut Vec::new()).unwrap();
            }
        });
        (port, thread)
    }

    fn packet(stream: &mut TcpStream) {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut rest).unwrap();
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag], &length[..], body].concat()
    }

    fn refused(severity: &str, code: &str, text: &str) -> Vec<u8> {
        refused_by("instances_pkey", severity, code, text)
    }

    fn refused_by(constraint: &str, severity: &str, code: &str, text: &str) -> Vec<u8> {
        let mut body = Vec::new();
        for (tag, value) in [
            ('S', severity),
            ('V', severity),
            ('C', code),
            ('M', text),
            ('D', HUSH),
            ('H', HUSH),
            ('W', HUSH),
            ('t', "instances"),
            ('n', constraint),
        ] {
            body.push(tag as u8);
            body.extend(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        message(b'E', &body)
    }

    fn connect(config: &Config) -> Error {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let connected = runtime.block_on(async { config.connect(NoTls).await });
        connected.err().unwrap()
    }

    fn config(port: u16) -> Config {
        let mut config = Config::new();
        config
            .user("app")
            .password(HUSH)
            .dbname("shop")
            .host("127.0.0.1")
            .port(port);
        config
    }

    /// What `tokio_postgres` makes of an answer.
    fn answered(answer: Vec<u8>) -> Error {
        let (port, thread) = server(vec![answer]);
        let error = connect(&config(port));
        thread.join().unwrap();
        error
    }

    fn judged(severity: &str, code: &str) -> Trouble {
        of(&answered(refused(severity, code, "some words")))
    }

    #[test]
    fn every_state_means_something() {
        for (trouble, severity, codes) in [
            (
                Trouble::Lost,
                "FATAL",
                &[
                    "08000", "08006", "08P01", "57P01", "57P02", "57P03", "57P05", "53300",
                ][..],
            ),
            (
                Trouble::Lost,
                "FATAL",
                &["25P03", "25P04", "XX000", "53200"],
            ),
            (
                Trouble::Lost,
                "ERROR",
                &["08003", "40003", "53300", "57P01"],
            ),
            (Trouble::Again, "ERROR", &["40000", "40001", "40P01"]),
            (Trouble::Locked, "ERROR", &["55P03", "57014"]),
            (
                Trouble::Refused,
                "FATAL",
                &["28000", "28P01", "3D000", "57P04", "42501"],
            ),
            (
                Trouble::Refused,
                "FATAL",
                &["22023", "42704", "55P02", "0A000"],
            ),
            (
                Trouble::Refused,
                "ERROR",
                &[
                    "3F000", "42P01", "42501", "42703", "42883", "25006", "42704",
                ],
            ),
            (
                Trouble::Other,
                "ERROR",
                &[
                    "23505", "22P02", "42601", "53100", "XX000", "XX001", "25P02", "26000", "0A000",
                ],
            ),
        ] {
            for code in codes {
                assert_eq!(judged(severity, code), trouble, "{severity} {code}");
            }
        }
    }

    #[test]
    fn an_id_that_was_taken_in_this_moment_is_a_collision() {
        let taken = refused_by("inputs_pkey", "ERROR", "23505", "some words");
        assert_eq!(of(&answered(taken)), Trouble::Again);
    }

    #[test]
    fn every_sentence_says_where_what_and_what_next() {
        for (code, wants) in [
            ("28P01", "refused the password of user 'app' (28P01); check"),
            (
                "28000",
                "does not let user 'app' in (28000: some words); check",
            ),
            (
                "3D000",
                "has no database 'shop' (3D000: some words); create it",
            ),
            (
                "42501",
                "does not allow user 'app' to do this (42501: some words); GRANT",
            ),
            (
                "3F000",
                "(3F000: some words); make or update them with `sayiir migrate`",
            ),
            ("42P01", "(42P01: some words); make or update them"),
            (
                "25006",
                "takes no writes (25006: some words): it is a standby",
            ),
            ("53300", "has no connection left (53300: some words); wait"),
            (
                "57P01",
                "ended the connection (57P01: some words); it is being stopped",
            ),
            ("57P03", "is starting or stopping (57P03: some words); wait"),
            ("57P05", "silent for too long (57P05: some words)"),
            (
                "40001",
                "rolled a transaction back again and again (40001: some words)",
            ),
            (
                "40003",
                "does not know whether a commit happened (40003: some words)",
            ),
            (
                "55P03",
                "waiting for a lock for too long (55P03: some words); look in pg_locks",
            ),
            (
                "57014",
                "cancelled a statement (57014: some words); it took longer",
            ),
            (
                "53100",
                "has no space left on its disk (53100: some words); nothing was written",
            ),
            ("53200", "is short of something (53200: some words)"),
            ("26000", "(26000: some words); a pooler in transaction mode"),
            ("08P01", "broke off the connection (08P01: some words)"),
            ("XX001", "is in trouble itself (XX001: some words)"),
            (
                "42601",
                "refused (42601: some words); look in the server's log",
            ),
            // Their messages may hold values.
            (
                "23505",
                "refused (23505, table instances, constraint instances_pkey);",
            ),
            (
                "22P02",
                "refused (22P02, table instances, constraint instances_pkey);",
            ),
            (
                "P0001",
                "refused (P0001, table instances, constraint instances_pkey);",
            ),
        ] {
            let said = say(SHOWN, &answered(refused("ERROR", code, "some words")));
            assert!(
                said.starts_with("PostgreSQL at postgresql://app@db:5432/shop "),
                "{said}"
            );
            assert!(said.contains(wants), "{code}: {said}");
            assert!(!said.contains(HUSH), "{said}");
        }
    }

    #[test]
    fn settings_that_a_server_does_not_take() {
        for code in ["42704", "22023", "55P02", "0A000"] {
            let said = say(SHOWN, &answered(refused("FATAL", code, "some words")));
            assert!(
                said.contains("does not take a setting of the connection ("),
                "{said}"
            );
            let later = say(SHOWN, &answered(refused("ERROR", code, "some words")));
            assert!(!later.contains("setting"), "{later}");
        }
        let right = say(SHOWN, &answered(refused("FATAL", "42501", "some words")));
        assert!(right.contains("GRANT"), "{right}");
    }

    #[test]
    fn words_of_a_server_are_cleaned_and_bounded() {
        let hostile = format!("\x1b[31m\n\u{202e}{}", "x".repeat(100_000));
        for code in ["42601", "28000", "42P01"] {
            let said = say(SHOWN, &answered(refused("ERROR", code, &hostile)));
            assert!(said.chars().count() <= SENTENCE, "{}", said.len());
            assert!(!said.chars().any(steers), "{said:?}");
            assert!(said.contains('…'));
        }
        assert_eq!(clean("abc", 3), "abc");
        assert_eq!(clean("abcd", 3), "abc…");
        let endless = format!("postgresql://u@{}:1/d", "h".repeat(5_000));
        let said = say(&endless, &answered(refused("ERROR", "42601", "x")));
        assert_eq!(said.chars().count(), SENTENCE + 1);
    }

    #[test]
    fn a_server_that_is_not_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let nobody = connect(&config(port));
        assert_eq!(of(&nobody), Trouble::Lost);
        let said = say(SHOWN, &nobody);
        assert!(
            said.contains("cannot be reached (Connection refused"),
            "{said}"
        );
        assert!(said.contains("check that the server runs"), "{said}");

        let mut socket = Config::new();
        socket.user("app").host("/nowhere/at/all");
        let missing = connect(&socket);
        assert_eq!(of(&missing), Trouble::Lost);
        assert!(say(SHOWN, &missing).contains("no such socket"));

        let mut unknown = Config::new();
        unknown.user("app").host("name.invalid");
        let unresolved = connect(&unknown);
        assert_eq!(of(&unresolved), Trouble::Lost);
        assert!(say(SHOWN, &unresolved).contains("check the name of the host"));
    }

    #[test]
    fn a_server_that_hangs_up() {
        let half = &refused("FATAL", "57P01", "some words")[..20];
        for answer in [b"", half, b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
            let silent = answered(answer.to_vec());
            assert_eq!(of(&silent), Trouble::Lost);
            let said = say(SHOWN, &silent);
            assert!(
                said.contains("closed the connection without a word"),
                "{said} {silent:?}"
            );
            assert!(said.contains("look in the server's log"), "{said}");
        }
    }

    #[test]
    fn something_else_that_listens() {
        for answer in [&message(b'Z', b"I")[..], b"R\0\0\0\0", b"\xff\0\0\0\x04"] {
            let foreign = answered(answer.to_vec());
            assert_eq!(of(&foreign), Trouble::Lost, "{foreign:?}");
            let said = say(SHOWN, &foreign);
            assert!(
                said.contains("does not speak PostgreSQL's protocol"),
                "{said} {foreign:?}"
            );
            assert!(said.contains("check host and port"), "{said}");
        }
    }

    #[test]
    fn a_password_that_is_missing() {
        let (port, thread) = server(vec![message(b'R', &3_u32.to_be_bytes())]);
        let mut config = Config::new();
        config.user("app").host("127.0.0.1").port(port);
        let error = connect(&config);
        thread.join().unwrap();
        assert_eq!(of(&error), Trouble::Refused);
        let said = say(SHOWN, &error);
        assert!(
            said.contains("password of user 'app', and none is given; put it into"),
            "{said}"
        );
    }

    #[test]
    fn ways_to_authenticate_that_are_not_known() {
        let kerberos = answered(message(b'R', &7_u32.to_be_bytes()));
        assert_eq!(of(&kerberos), Trouble::Refused);
        assert!(say(SHOWN, &kerberos).contains("Kerberos is not"));

        let (port, thread) = server(vec![message(b'R', &3_u32.to_be_bytes())]);
        let mut config = config(port);
        config.channel_binding(tokio_postgres::config::ChannelBinding::Require);
        let unbound = connect(&config);
        thread.join().unwrap();
        assert_eq!(of(&unbound), Trouble::Refused);
        assert!(say(SHOWN, &unbound).contains("server did not use channel binding"));
    }

    #[test]
    fn a_standby_among_several_hosts_is_waited_for() {
        let ready = [message(b'R', &0_u32.to_be_bytes()), message(b'Z', b"I")];
        // What `SHOW transaction_read_only` gives on a standby.
        let shown = [
            message(
                b'T',
                b"\0\x01ro\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\0\0\0\0\0\0",
            ),
            message(b'D', b"\0\x01\0\0\0\x02on"),
            message(b'C', b"SHOW\0"),
            message(b'Z', b"I"),
        ];
        let (port, thread) = server(vec![ready.concat(), shown.concat()]);
        let mut config = config(port);
        config.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
        let error = connect(&config);
        thread.join().unwrap();
        assert_eq!(of(&error), Trouble::Lost, "{error:?}");
        assert!(
            say(SHOWN, &error)
                .contains("takes no writes (database does not allow writes); wait for the primary"),
            "{error:?}"
        );
    }
}
