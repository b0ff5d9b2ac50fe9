//! URLs of PostgreSQL, read as libpq reads them.
//!
//! A URL may leave out what `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`, the other
//! variables of libpq in [`ENVIRONMENT`] or the password file say. What stands in the URL counts first,
//! then the environment, then the password file. An unknown parameter is refused rather than ignored:
//! it may have been meant to make the connection safer.
//!
//! Promises that no error and no [`Address::shown`] holds a password. Where the URL is broken, parts of
//! it are not repeated either: an unescaped `/` or `@` in a password makes it look like a port, a
//! database or a parameter.
//!
//! Refuses to know our own parameters (`schema`, …): they are taken out before. Nothing is connected to,
//! no name is resolved.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslMode, TargetSessionAttrs};

use super::tls::{Identity, Mode, Roots, Tls, refuse_if_shared};

/// Longest URL, in bytes.
const URL_LIMIT: usize = 16_384;
/// Most hosts in one URL.
const HOSTS_LIMIT: usize = 32;
/// Where Debian's and Red Hat's servers have their socket; a place that only they may write to.
const SOCKETS: &str = "/var/run/postgresql";
/// What stands in the server's lists when the URL has no `application_name`.
const APPLICATION: &str = "sayiir";

/// The variables that stand in for a parameter. An empty variable counts as not set.
pub const ENVIRONMENT: [(&str, &str); 14] = [
    ("host", "PGHOST"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("dbname", "PGDATABASE"),
    ("passfile", "PGPASSFILE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("application_name", "PGAPPNAME"),
    ("options", "PGOPTIONS"),
];

/// The parameters that only a URL can have.
const OTHERS: [&str; 11] = [
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "ssl",
    "tcp_user_timeout",
];

/// Where a database is and how to get there.
pub struct Address {
    /// Everything that `tokio_postgres` is to know, the password included.
    pub config: Config,
    /// How the connection is to be encrypted; `config` has the part of it that it understands.
    pub tls: Tls,
    /// `postgresql://user@host:5432/database`, for messages: no password, no parameters, nothing that
    /// could steer a terminal.
    pub shown: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.shown).finish()
    }
}

/// Reads a URL, with the environment and the password file of this process.
///
/// # Errors
/// A sentence that says what is wrong, without any secret.
pub fn read(url: &str) -> Result<Address, String> {
    read_in(url, &|name| std::env::var(name).ok())
}

/// The values of environment variables.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

fn read_in(url: &str, environment: Environment<'_>) -> Result<Address, String> {
    let mut settings = Settings(split(url)?);
    for (parameter, variable) in ENVIRONMENT {
        if settings.get(parameter).is_none()
            && let Some(value) = environment(variable)
        {
            settings.0.insert(parameter, value);
        }
    }
    let home = environment("HOME").filter(|home| !home.is_empty());
    settings.address(home.as_deref().map(Path::new))
}

/// Takes a URL apart.
fn split(url: &str) -> Result<BTreeMap<&'static str, String>, String> {
    if url.len() > URL_LIMIT {
        return Err(format!(
            "the URL is longer than {URL_LIMIT} bytes; PostgreSQL's look like \
             'postgresql://user:password@host:5432/database'"
        ));
    }
    let rest = ["postgresql://", "postgres://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .ok_or(
            "a URL of PostgreSQL begins with 'postgresql://': \
             'postgresql://user:password@host:5432/database'",
        )?;
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    if tail.contains('@') {
        return Err(
            "the URL has an '@' behind the first '/' or '?'; in a user or a password '/' is written \
             %2F, '?' %3F, ':' %3A and '@' %40"
                .into(),
        );
    }
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let mut settings = BTreeMap::new();
    let mut keep = |name: &'static str, value: String| {
        if !value.is_empty() {
            settings.insert(name, value);
        }
    };
    let (hosts, signed) = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            keep("user", decoded(user, "the user")?);
            keep("password", decoded(password, "the password")?);
            (hosts, true)
        }
        None => (authority, false),
    };
    if !hosts.is_empty() {
        let (names, ports) = listed(hosts, signed)?;
        keep("host", names);
        keep("port", ports);
    }
    keep(
        "dbname",
        decoded(path.strip_prefix('/').unwrap_or(path), "the database")?,
    );
    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(
            "the URL has a parameter without '='; parameters look like '?sslmode=verify-full'",
        )?;
        let name = known(name)?;
        if seen.contains(&name) {
            return Err(format!("the URL has the parameter '{name}' twice"));
        }
        seen.push(name);
        keep(name, decoded(value, name)?);
    }
    Ok(settings)
}

/// The hosts and the ports of `host:port,host:port`, each joined by commas. Without any port there is
/// none, so that `PGPORT` can say it. What stands in the place of a port is never said: where nobody signed
/// in before an '@', it may be a password.
fn listed(hosts: &str, signed: bool) -> Result<(String, String), String> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for (host, place) in hosts.split(',').zip(1..) {
        let (name, port) = if let Some(rest) = host.strip_prefix('[') {
            let (name, rest) = rest
                .split_once(']')
                .ok_or("the URL has a '[' without ']' in its host")?;
            let port = if rest.is_empty() {
                Some("")
            } else {
                rest.strip_prefix(':')
            };
            let port = port.ok_or_else(|| {
                format!(
                    "behind the ']' of host {place} only ':' and a port may stand, as in '[::1]:5432'"
                )
            })?;
            (name, port)
        } else {
            host.split_once(':').unwrap_or((host, ""))
        };
        let port = decoded(port, "the port")?;
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(no_port(&port, place, signed));
        }
        names.push(decoded(name, "the host")?);
        ports.push(port);
    }
    let ports = if ports.iter().all(String::is_empty) {
        String::new()
    } else {
        ports.join(",")
    };
    Ok((names.join(","), ports))
}

/// Why this is not read as the port of a host.
fn no_port(text: &str, place: usize, signed: bool) -> String {
    let like_ipv6 = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
    if text.contains(':') && (signed || text.bytes().all(like_ipv6)) {
        return format!(
            "host {place} has more than one ':'; an IPv6 address is written in brackets, as in \
             '[::1]:5432'"
        );
    }
    if !signed {
        return "what stands behind the ':' is read as the port, and is no number; if it is a password, \
                the host is missing behind it, or '/' is not written %2F, '?' %3F and '@' %40 in it: \
                'postgresql://user:password@host:5432/database'"
            .into();
    }
    format!(
        "the port of host {place} must be a number from 1 to 65535; it stands between ':' and '/', as \
         in '@host:5432/database'"
    )
}

/// The parameter of this name.
fn known(name: &str) -> Result<&'static str, String> {
    let found = ENVIRONMENT
        .iter()
        .map(|(parameter, _)| *parameter)
        .chain(OTHERS)
        .find(|parameter| *parameter == name);
    if let Some(found) = found {
        return Ok(found);
    }
    // A name that is none may be half a password.
    let named = !name.is_empty()
        && name.len() <= 40
        && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    Err(if named {
        format!("the URL has the parameter '{name}', which is not known here; take it out")
    } else {
        "the URL has a parameter whose name is none; in a password '?' is written %3F and '&' %26"
            .into()
    })
}

/// Undoes percent escapes.
fn decoded(text: &str, what: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(format!(
                "the URL has a '%' in {what} that two hexadecimal digits do not follow; '%' itself is \
                 written %25"
            ));
        };
        bytes.push((high * 16 + low) as u8);
    }
    if bytes.contains(&0) {
        return Err(format!("the URL has a NUL in {what}"));
    }
    String::from_utf8(bytes).map_err(|_| format!("the URL has bytes in {what} that are not UTF-8"))
}

/// What is known by parameter.
struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    fn address(&self, home: Option<&Path>) -> Result<Address, String> {
        let hosts = self.hosts()?;
        let user = match self.get("user") {
            Some(user) => user.to_owned(),
            None => whoami::username()
                .map_err(|_| "the URL names no user, and the system does not know this one")?,
        };
        let database = self.get("dbname").unwrap_or(&user);
        for (what, text) in [("user", user.as_str()), ("dbname", database)] {
            if text.contains('\0') {
                return Err(format!("{what} holds a NUL"));
            }
        }
        let local = hosts.iter().all(Host::is_socket);
        let tls = self.tls(home, local)?;

        let mut config = Config::new();
        config.user(&user).dbname(database);
        for host in &hosts {
            config.host(&host.name).port(host.port);
            if let Some(address) = host.address {
                config.hostaddr(address);
            }
        }
        if let Some(password) = self.password(home, &hosts, database, &user)? {
            config.password(password);
        }
        config.application_name(
            self.get("application_name")
                .or(self.get("fallback_application_name"))
                .unwrap_or(APPLICATION),
        );
        if let Some(options) = self.get("options") {
            config.options(options);
        }
        config.ssl_mode(match tls.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        });
        self.patience(&mut config)?;
        self.choices(&mut config, hosts.len())?;
        let shown = shown(&user, &hosts, database);
        Ok(Address { config, tls, shown })
    }

    /// The hosts with their ports and, where given, their addresses.
    fn hosts(&self) -> Result<Vec<Host>, String> {
        let list = |name| self.get(name).map(|v| v.split(',').collect());
        let mut ports: Vec<&str> = list("port").unwrap_or_default();
        let addresses: Vec<&str> = list("hostaddr").unwrap_or_default();
        let names: Vec<&str> = list("host").unwrap_or_else(|| addresses.clone());
        let names = if names.is_empty() {
            vec![nearest(ports.first().copied().unwrap_or("5432"))]
        } else {
            names
        };
        if names.len() > HOSTS_LIMIT {
            return Err(format!("the URL has more than {HOSTS_LIMIT} hosts"));
        }
        match ports.len() {
            0 => ports = vec!["5432"; names.len()],
            1 => ports = vec![ports[0]; names.len()],
            n if n == names.len() => {}
            n => return Err(format!("the URL has {} hosts and {n} ports", names.len())),
        }
        if !addresses.is_empty() && addresses.len() != names.len() {
            return Err(format!(
                "the URL has {} hosts and {} hostaddr",
                names.len(),
                addresses.len()
            ));
        }
        let mut hosts = Vec::new();
        for (place, (name, port)) in names.into_iter().zip(ports).enumerate() {
            let address = match addresses.get(place) {
                Some(address) => Some(
                    address
                        .parse()
                        .map_err(|_| format!("hostaddr {} is not an IP address", place + 1))?,
                ),
                None => None,
            };
            hosts.push(Host::read(name, port, address, place + 1)?);
        }
        Ok(hosts)
    }

    /// How to encrypt.
    fn tls(&self, home: Option<&Path>, local: bool) -> Result<Tls, String> {
        let roots = match self.get("sslrootcert") {
            None => Roots::Unnamed,
            Some("system") => Roots::System,
            Some(file) => Roots::File(file.into()),
        };
        let system = roots == Roots::System;
        let mode = match (self.get("sslmode"), self.get("ssl")) {
            (Some("disable"), _) => Mode::Disable,
            (Some("prefer"), _) => Mode::Prefer,
            (Some("require"), _) | (None, Some("true")) => Mode::Require,
            (Some("verify-ca"), _) => Mode::VerifyCa,
            (Some("verify-full"), _) => Mode::VerifyFull,
            (None, Some(_)) => return Err("ssl can be 'true' alone; say sslmode=… instead".into()),
            (Some(_), _) => {
                return Err(
                    "sslmode (in the URL, or PGSSLMODE) is one of disable, prefer, require, verify-ca and verify-full".into(),
                );
            }
            (None, None) if system => Mode::VerifyFull,
            (None, None) => Mode::Prefer,
        };
        // Anybody can have a certificate that the system trusts: without the name it says nothing.
        if system && !matches!(mode, Mode::Disable | Mode::VerifyFull) {
            return Err("sslrootcert=system needs sslmode=verify-full".into());
        }
        let roots = match (mode, roots) {
            (Mode::VerifyCa | Mode::VerifyFull, Roots::Unnamed) => {
                let usual = home.map(|home| home.join(".postgresql/root.crt"));
                match usual.filter(|file| file.is_file()) {
                    Some(file) => Roots::File(file),
                    None if mode == Mode::VerifyFull => Roots::System,
                    None => {
                        return Err(
                            "sslmode=verify-ca needs sslrootcert=FILE, the certificate that \
                             the server's is signed with"
                                .into(),
                        );
                    }
                }
            }
            (_, roots) => roots,
        };
        let identity = match (self.get("sslcert"), self.get("sslkey")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(Identity {
                certificate: certificate.into(),
                key: key.into(),
            }),
            _ => return Err("sslcert and sslkey go together: a certificate and its key".into()),
        };
        // As libpq does: what never leaves the machine is not encrypted, whatever the mode.
        if local {
            return Ok(Tls::disabled());
        }
        Ok(Tls {
            mode,
            roots,
            identity,
        })
    }

    /// The password, or none.
    fn password(
        &self,
        home: Option<&Path>,
        hosts: &[Host],
        database: &str,
        user: &str,
    ) -> Result<Option<String>, String> {
        if let Some(password) = self.get("password") {
            return Ok(Some(password.to_owned()));
        }
        let file = match self.get("passfile") {
            Some(file) => PathBuf::from(file),
            None => match home {
                Some(home) => home.join(".pgpass"),
                None => return Ok(None),
            },
        };
        if !file.is_file() {
            return Ok(None);
        }
        refuse_if_shared(&file, "the password file")?;
        let text = std::fs::read(&file)
            .map_err(|e| format!("the password file '{}' cannot be read: {e}", file.display()))?;
        let text = String::from_utf8_lossy(&text);
        let mut passwords = hosts.iter().map(|host| stored(&text, host, database, user));
        let first = passwords.next().flatten();
        // One connection has one password for all hosts; none may be shown another one's.
        if passwords.any(|other| other != first) {
            return Err(format!(
                "the password file '{}' has not the same password for every host of the URL; give the \
                 password in the URL or in PGPASSWORD",
                file.display()
            ));
        }
        Ok(first)
    }

    /// How long to wait for a silent server. A connection that is idle is asked after a minute whether
    /// it still stands, and given up half a minute later; the system's own two hours are too long for
    /// a worker that waits for news.
    fn patience(&self, config: &mut Config) -> Result<(), String> {
        let keepalives = self.number("keepalives", 1)?;
        config
            .keepalives(keepalives != 0)
            .keepalives_idle(Duration::from_secs(
                self.number("keepalives_idle", 60)?.max(1),
            ))
            .keepalives_interval(Duration::from_secs(
                self.number("keepalives_interval", 10)?.max(1),
            ))
            .keepalives_retries(self.number("keepalives_count", 3)?.max(1) as u32);
        match self.number("connect_timeout", 0)? {
            0 => {}
            seconds => {
                config.connect_timeout(Duration::from_secs(seconds));
            }
        }
        match self.number("tcp_user_timeout", 0)? {
            0 => {}
            milliseconds => {
                config.tcp_user_timeout(Duration::from_millis(milliseconds));
            }
        }
        Ok(())
    }

    /// A small number that is not negative.
    fn number(&self, name: &str, unsaid: u64) -> Result<u64, String> {
        match self.get(name) {
            None => Ok(unsaid),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| *number <= 86_400_000)
                .ok_or_else(|| format!("{name} is a whole number from 0 to 86400000")),
        }
    }

    fn choices(&self, config: &mut Config, hosts: usize) -> Result<(), String> {
        config.channel_binding(match self.get("channel_binding") {
            None | Some("prefer") => ChannelBinding::Prefer,
            Some("disable") => ChannelBinding::Disable,
            Some("require") => ChannelBinding::Require,
            Some(_) => {
                return Err("channel_binding (in the URL, or PGCHANNELBINDING) is one of disable, prefer and \
                            require".into());
            }
        });
        config.target_session_attrs(match self.get("target_session_attrs") {
            Some("any") => TargetSessionAttrs::Any,
            Some("read-write" | "primary") => TargetSessionAttrs::ReadWrite,
            // Of several hosts at most one is a primary, and nothing can be done on the others.
            None if hosts > 1 => TargetSessionAttrs::ReadWrite,
            None => TargetSessionAttrs::Any,
            Some(_) => {
                return Err(
                    "target_session_attrs (in the URL, or PGTARGETSESSIONATTRS) is one of any, \
                     read-write and primary: what cannot \
                     be written to is of no use here"
                        .into(),
                );
            }
        });
        config.load_balance_hosts(match self.get("load_balance_hosts") {
            None | Some("disable") => LoadBalanceHosts::Disable,
            Some("random") => LoadBalanceHosts::Random,
            Some(_) => return Err("load_balance_hosts is one of disable and random".into()),
        });
        match self.get("gssencmode") {
            None | Some("disable" | "prefer") => Ok(()),
            Some(_) => {
                Err("gssencmode can be disable or prefer: Kerberos is not known here".into())
            }
        }
    }
}

/// One place where the server may be.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    /// A name, an IP address, or the directory of a Unix socket.
    name: String,
    port: u16,
    address: Option<IpAddr>,
}

impl Host {
    fn read(name: &str, port: &str, address: Option<IpAddr>, place: usize) -> Result<Self, String> {
        let port = match port {
            "" => 5432,
            port => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                format!(
                    "the port of host {place} (from the URL or PGPORT) must be a number from 1 to \
                     65535; the usual one is 5432"
                )
            })?,
        };
        let sound = if name.starts_with('/') {
            name.len() <= 100 && !name.contains(char::is_control)
        } else {
            let in_name = |c: char| c.is_ascii_alphanumeric() || "-_.:%".contains(c);
            (1..=255).contains(&name.len()) && name.chars().all(in_name)
        };
        if !sound {
            return Err(format!(
                "host {place} is neither the name nor the address of a host, nor the directory of a \
                 Unix socket"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            port,
            address,
        })
    }

    fn is_socket(&self) -> bool {
        self.name.starts_with('/')
    }
}

/// The host when none is named: the socket of a server on this machine, else the machine itself.
fn nearest(port: &str) -> &'static str {
    if Path::new(SOCKETS).join(format!(".s.PGSQL.{port}")).exists() {
        SOCKETS
    } else {
        "localhost"
    }
}

/// What a password file (`host:port:database:user:password`, first match counts) has for `host`.
fn stored(file: &str, host: &Host, database: &str, user: &str) -> Option<String> {
    let port = host.port.to_string();
    let name = if host.name == SOCKETS {
        "localhost"
    } else {
        &host.name
    };
    let wanted = [name, &port, database, user];
    file.lines()
        .filter(|line| !line.starts_with('#'))
        .map(fields)
        .find(|fields| {
            fields.len() == 5
                && wanted
                    .iter()
                    .zip(fields)
                    .enumerate()
                    .all(|(at, (want, (field, literal)))| {
                        (field == "*" && !literal)
                            || field == want
                            || (at == 0 && *field == host.name)
                    })
        })
        .and_then(|fields| fields.into_iter().nth(4))
        .map(|(password, _)| password)
        .filter(|password| !password.is_empty())
}

/// The five fields of a line in a password file, each with whether something in it was escaped. The
/// last may hold colons.
fn fields(line: &str) -> Vec<(String, bool)> {
    let mut fields = vec![(String::new(), false)];
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == ':' && fields.len() < 5 {
            fields.push((String::new(), false));
        } else if let Some((field, literal)) = fields.last_mut() {
            if c == '\\' {
                *literal = true;
                field.extend(rest.next());
            } else {
                field.push(c);
            }
        }
    }
    fields
}

/// `postgresql://user@host:5432/database`.
fn shown(user: &str, hosts: &[Host], database: &str) -> String {
    let first: Vec<String> = hosts
        .iter()
        .take(3)
        .map(|host| {
            let name = if host.name.contains(':') {
                format!("[{}]", escaped(&host.name, ":."))
            } else {
                escaped(&host.name, "")
            };
            format!("{name}:{}", host.port)
        })
        .collect();
    let more = if hosts.len() > first.len() {
        ",…"
    } else {
        ""
    };
    format!(
        "postgresql://{}@{}{more}/{}",
        escaped(user, ""),
        first.join(","),
        escaped(database, ""),
    )
}

/// At most 100 characters of a part of a URL, everything escaped but letters, digits, `-_.~` and `plain`.
fn escaped(text: &str, plain: &str) -> String {
    let mut escaped = String::new();
    let mut characters = text.chars();
    for c in characters.by_ref().take(100) {
        if c.is_alphanumeric() || "-_.~".contains(c) || plain.contains(c) {
            escaped.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    if characters.next().is_some() {
        escaped.push('…');
    }
    escaped
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::Host as Place;

    use super::*;

    fn bare(url: &str) -> Result<Address, String> {
        read_in(url, &|_| None)
    }

    fn with(url: &str, variables: &[(&str, &str)]) -> Result<Address, String> {
        read_in(url, &|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    /// A folder of this test alone, removed at the end of it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, text: &str, mode: u32) -> String {
            use std::os::unix::fs::PermissionsExt;
            let path = self.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.to_str().unwrap().to_owned()
        }

        fn home(&self) -> (&'static str, &str) {
            ("HOME", self.0.to_str().unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn everything_in_one_url() {
        let address = bare(
            "postgres://app:p%40ss%2Fw%3Ard@db.example:6543/shop?application_name=till&connect_timeout=7\
             &options=-c%20geqo%3Doff&keepalives_idle=5&keepalives_interval=6&keepalives_count=7\
             &tcp_user_timeout=1500&channel_binding=require&target_session_attrs=primary&sslmode=require",
        )
        .unwrap();
        let config = &address.config;
        assert_eq!(config.get_user(), Some("app"));
        assert_eq!(config.get_password(), Some(&b"p@ss/w:rd"[..]));
        assert_eq!(config.get_hosts(), [Place::Tcp("db.example".into())]);
        assert_eq!(config.get_ports(), [6543]);
        assert_eq!(config.get_dbname(), Some("shop"));
        assert_eq!(config.get_application_name(), Some("till"));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(config.get_options(), Some("-c geqo=off"));
        assert_eq!(config.get_keepalives_idle(), Duration::from_secs(5));
        assert_eq!(
            config.get_keepalives_interval(),
            Some(Duration::from_secs(6))
        );
        assert_eq!(config.get_keepalives_retries(), Some(7));
        assert_eq!(
            config.get_tcp_user_timeout(),
            Some(&Duration::from_millis(1500))
        );
        assert_eq!(config.get_channel_binding(), ChannelBinding::Require);
        assert_eq!(
            config.get_target_session_attrs(),
            TargetSessionAttrs::ReadWrite
        );
        assert_eq!(config.get_ssl_mode(), SslMode::Require);
        assert_eq!(address.shown, "postgresql://app@db.example:6543/shop");
        assert_eq!(
            format!("{address:?}"),
            "Address(\"postgresql://app@db.example:6543/shop\")"
        );
    }

    #[test]
    fn what_is_left_out_has_its_usual_value() {
        let address = bare("postgresql://app@db").unwrap();
        assert_eq!(address.config.get_ports(), [5432]);
        assert_eq!(address.config.get_dbname(), Some("app"));
        assert_eq!(address.config.get_password(), None);
        assert_eq!(address.config.get_application_name(), Some(APPLICATION));
        assert_eq!(
            address.config.get_target_session_attrs(),
            TargetSessionAttrs::Any
        );
        assert_eq!(address.tls.mode, Mode::Prefer);
        assert_eq!(address.tls.roots, Roots::Unnamed);
        let nobody = bare("postgresql://db/shop").unwrap();
        assert_eq!(
            nobody.config.get_user(),
            Some(whoami::username().unwrap().as_str())
        );
    }

    #[test]
    fn parameters_go_before_the_front_of_the_url() {
        let address =
            bare("postgresql://a:b@c:1/d?user=A&password=B&host=C&port=2&dbname=D").unwrap();
        assert_eq!(address.shown, "postgresql://A@C:2/D");
        assert_eq!(address.config.get_password(), Some(&b"B"[..]));
    }

    #[test]
    fn several_hosts() {
        let address = bare("postgresql://app@a:1,b,[::1]:3,10.0.0.4/shop").unwrap();
        assert_eq!(address.config.get_ports(), [1, 5432, 3, 5432]);
        assert_eq!(address.config.get_hosts()[2], Place::Tcp("::1".into()));
        // Only one of them can be written to.
        assert_eq!(
            address.config.get_target_session_attrs(),
            TargetSessionAttrs::ReadWrite
        );
        assert_eq!(address.shown, "postgresql://app@a:1,b:5432,[::1]:3,…/shop");
        assert_eq!(
            bare("postgresql://app@a,b/shop?port=7")
                .unwrap()
                .config
                .get_ports(),
            [7, 7]
        );
        assert!(
            bare("postgresql://app@a,b,c/d?port=1,2")
                .unwrap_err()
                .contains("3 hosts and 2 ports")
        );
        assert!(bare(&format!("postgresql://{}a/d", "a,".repeat(32))).is_err());
        assert!(bare(&format!("postgresql://{}a/d", "a,".repeat(31))).is_ok());
    }

    #[test]
    fn addresses_beside_hosts() {
        let both = bare("postgresql://u@db/d?hostaddr=10.1.2.3").unwrap();
        assert_eq!(both.config.get_hosts(), [Place::Tcp("db".into())]);
        assert_eq!(
            both.config.get_hostaddrs(),
            ["10.1.2.3".parse::<IpAddr>().unwrap()]
        );
        let alone = bare("postgresql://u@/d?hostaddr=::1").unwrap();
        assert_eq!(alone.shown, "postgresql://u@[::1]:5432/d");
        assert!(bare("postgresql://u@db/d?hostaddr=elsewhere").is_err());
        assert!(bare("postgresql://u@a,b/d?hostaddr=10.1.2.3").is_err());
    }

    #[test]
    fn unix_sockets_are_never_encrypted() {
        for url in [
            "postgresql://app@%2Frun%2Fpg:7/shop?sslmode=verify-full",
            "postgresql://app@/shop?host=/run/pg&port=7&sslmode=require",
        ] {
            let address = bare(url).unwrap();
            assert_eq!(address.config.get_hosts(), [Place::Unix("/run/pg".into())]);
            assert_eq!(address.config.get_ports(), [7]);
            assert_eq!(address.config.get_ssl_mode(), SslMode::Disable);
            assert_eq!(address.tls, Tls::disabled());
            assert_eq!(address.shown, "postgresql://app@%2Frun%2Fpg:7/shop");
            assert_eq!(bare(&address.shown).unwrap().shown, address.shown);
        }
    }

    #[test]
    fn the_modes_of_encryption() {
        let tls = |query: &str| bare(&format!("postgresql://u@h/d?{query}")).map(|a| a.tls);
        for (name, mode) in [
            ("disable", Mode::Disable),
            ("prefer", Mode::Prefer),
            ("require", Mode::Require),
            ("verify-ca", Mode::VerifyCa),
            ("verify-full", Mode::VerifyFull),
        ] {
            let tls = tls(&format!("sslmode={name}&sslrootcert=/ca.pem")).unwrap();
            assert_eq!((tls.mode, tls.roots), (mode, Roots::File("/ca.pem".into())));
        }
        assert_eq!(tls("ssl=true").unwrap().mode, Mode::Require);
        assert!(tls("ssl=maybe").is_err());
        assert!(tls("sslmode=allow").unwrap_err().contains("verify-full"));
        assert!(
            tls("sslmode=verify-ca")
                .unwrap_err()
                .contains("sslrootcert")
        );
        assert_eq!(tls("sslmode=verify-full").unwrap().roots, Roots::System);
        assert_eq!(tls("sslrootcert=system").unwrap().mode, Mode::VerifyFull);
        for weak in ["prefer", "require", "verify-ca"] {
            assert!(tls(&format!("sslrootcert=system&sslmode={weak}")).is_err());
        }
        let identity = tls("sslcert=/c.pem&sslkey=/k.pem").unwrap().identity;
        assert_eq!(
            identity,
            Some(Identity {
                certificate: "/c.pem".into(),
                key: "/k.pem".into()
            })
        );
        assert!(tls("sslcert=/c.pem").is_err());
        assert!(tls("sslkey=/k.pem").is_err());
    }

    #[test]
    fn the_usual_root_file_is_used_to_verify() {
        let folder = Folder::new("roots");
        let file = folder.file(".postgresql/root.crt", "", 0o644);
        for mode in ["verify-ca", "verify-full"] {
            let address = with(
                &format!("postgresql://u@h/d?sslmode={mode}"),
                &[folder.home()],
            );
            assert_eq!(address.unwrap().tls.roots, Roots::File(file.clone().into()));
        }
        let require = with("postgresql://u@h/d?sslmode=require", &[folder.home()]).unwrap();
        assert_eq!(require.tls.roots, Roots::Unnamed);
    }

    #[test]
    fn the_environment_fills_gaps_only() {
        let all = [
            ("PGHOST", "env-host"),
            ("PGPORT", "7777"),
            ("PGUSER", "env-user"),
            ("PGPASSWORD", "env-password"),
            ("PGDATABASE", "env-db"),
            ("PGSSLMODE", "verify-ca"),
            ("PGSSLROOTCERT", "/env.pem"),
        ];
        let empty = with("postgresql://", &all).unwrap();
        assert_eq!(empty.shown, "postgresql://env-user@env-host:7777/env-db");
        assert_eq!(empty.config.get_password(), Some(&b"env-password"[..]));
        assert_eq!(empty.tls.mode, Mode::VerifyCa);
        assert_eq!(empty.tls.roots, Roots::File("/env.pem".into()));
        let full = with("postgresql://u:p@h:1/d?sslmode=disable", &all).unwrap();
        assert_eq!(full.shown, "postgresql://u@h:1/d");
        assert_eq!(full.config.get_password(), Some(&b"p"[..]));
        assert_eq!(full.tls.mode, Mode::Disable);
        // A host without a port takes PGPORT, as with libpq.
        assert_eq!(
            with("postgresql://h", &all).unwrap().config.get_ports(),
            [7777]
        );
        let unset = with(
            "postgresql://u@h/d",
            &[("PGSSLMODE", ""), ("PGPASSWORD", "")],
        )
        .unwrap();
        assert_eq!(
            (unset.tls.mode, unset.config.get_password()),
            (Mode::Prefer, None)
        );
        assert!(
            with("postgresql://u@h", &[("PGSSLMODE", "allow")])
                .unwrap_err()
                .contains("PGSSLMODE")
        );
    }

    #[test]
    fn the_password_file() {
        let folder = Folder::new("passfile");
        folder.file(
            ".pgpass",
            "# h:5432:d:u:comment\nshort:line\nh:5432:d:u:a\\:b:c\\\\d\n*:*:x\\:y:u:colons\n\
             \\*:1:d:u:star\nlocalhost:5432:d:u:socket\na:*:*:*:one\nb:*:*:*:one\nc:*:*:*:two\n",
            0o600,
        );
        let password = |url: &str| {
            with(url, &[folder.home()]).map(|a| {
                a.config
                    .get_password()
                    .map(|p| String::from_utf8(p.to_vec()).unwrap())
            })
        };
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(password("postgresql://u@h/d"), some("a:b:c\\d"));
        assert_eq!(password("postgresql://u:mine@h/d"), some("mine"));
        assert_eq!(password("postgresql://u:@h/d"), some("a:b:c\\d"));
        assert_eq!(password("postgresql://v@h/d"), Ok(None));
        assert_eq!(password("postgresql://u@h:1/d"), Ok(None));
        assert_eq!(password("postgresql://u@h/x:y"), some("colons"));
        assert_eq!(
            password("postgresql://u@/d?host=/var/run/postgresql"),
            some("socket")
        );
        assert_eq!(password("postgresql://u@a,b/d"), some("one"));
        for different in ["postgresql://u@a,c/d", "postgresql://u@a,elsewhere/d"] {
            let refused = password(different).unwrap_err();
            assert!(
                refused.contains("every host") && !refused.contains("one"),
                "{refused}"
            );
        }
        let other = folder.file("other", "*:*:*:*:other\n", 0o600);
        let named = with(
            "postgresql://u@h/d",
            &[folder.home(), ("PGPASSFILE", &other)],
        )
        .unwrap();
        assert_eq!(named.config.get_password(), Some(&b"other"[..]));
        assert_eq!(
            with("postgresql://u@h/d", &[("HOME", "/nowhere")])
                .unwrap()
                .config
                .get_password(),
            None
        );
    }

    #[test]
    fn a_password_file_that_others_may_read_is_refused() {
        let folder = Folder::new("shared");
        for mode in [0o640, 0o604, 0o644, 0o620] {
            let file = folder.file("pgpass", "*:*:*:*:hush\n", mode);
            let refused = with("postgresql://u@h/d", &[("PGPASSFILE", &file)]).unwrap_err();
            assert!(
                refused.contains("chmod 0600") && refused.contains(&file),
                "{refused}"
            );
            assert!(!refused.contains("hush"), "{refused}");
            assert!(with("postgresql://u:p@h/d", &[("PGPASSFILE", &file)]).is_ok());
        }
    }

    #[test]
    fn broken_urls_are_refused_without_their_secrets() {
        for url in [
            "mysql://u:hush@h/d",
            "postgresql:u:hush@h/d",
            "host=h password=hush",
            "postgresql://u:hush/hush@h/d",
            "postgresql://u:hush?hush@h/d",
            "postgresql://u:12/hush@h/d",
            "postgresql://u:x?hush=hush@h/d",
            "postgresql://u:x@y/hush@h/d",
            "postgresql://u:hush",
            "postgresql://u:hush%@h/d",
            "postgresql://u:hush%4@h/d",
            "postgresql://u:hush%zz@h/d",
            "postgresql://u:hush%00@h/d",
            "postgresql://u:hush%ff@h/d",
            "postgresql://u:hush@h:0/d",
            "postgresql://u:hush@h:65536/d",
            "postgresql://u:hush@h:hush/d",
            "postgresql://u:hush@[::1/d",
            "postgresql://u:hush@[::1]hush/d",
            "postgresql://u:hush@a,,b/d",
            "postgresql://u:hush@h%20h/d",
            "postgresql://u:hush@h%0a/d",
            "postgresql://u:hush@h/d%00",
            "postgresql://u:hush@h/d?hush",
            "postgresql://u:hush@h/d?HUSH=1",
            "postgresql://u@h/d?password=hush&password=hush",
            "postgresql://u:hush@h/d?connect_timeout=hush",
            "postgresql://u:hush@h/d?connect_timeout=-1",
            "postgresql://u:hush@h/d?keepalives_idle=1e3",
            "postgresql://u:hush@h/d?channel_binding=hush",
            "postgresql://u:hush@h/d?target_session_attrs=standby",
            "postgresql://u:hush@h/d?load_balance_hosts=hush",
            "postgresql://u:hush@h/d?gssencmode=require",
        ] {
            let refused = bare(url).expect_err(url);
            assert!(!refused.to_lowercase().contains("hush"), "{url}: {refused}");
            assert!(
                refused.len() < 300 && !refused.contains(char::is_control),
                "{url}: {refused}"
            );
        }
        assert!(
            bare("postgresql://u:p@h/d?sslcrl=/x")
                .unwrap_err()
                .contains("'sslcrl'")
        );
        let long = |n| format!("postgresql://h/{}", "d".repeat(n));
        assert!(bare(&long(URL_LIMIT - 15)).is_ok());
        assert!(bare(&long(URL_LIMIT - 14)).is_err());
    }

    #[test]
    fn what_is_wrong_with_a_port_is_told_apart() {
        for (url, said) in [
            ("postgresql://u:p@h:0/d", "usual one is 5432"),
            ("postgresql://u:p@a:1,b:99999/d", "port of host 2"),
            ("postgresql://u:p@h:port/d", "between ':' and '/'"),
            ("postgresql://u:hush/d", "if it is a password"),
            ("postgresql://::1/d", "'[::1]:5432'"),
            ("postgresql://u:p@::1/d", "'[::1]:5432'"),
            ("postgresql://h:5432:5433/d", "more than one ':'"),
            ("postgresql://[::1]5432/d", "behind the ']' of host 1"),
        ] {
            let refused = bare(url).expect_err(url);
            assert!(refused.contains(said), "{url}: {refused}");
        }
        assert!(bare("postgresql://[::1]/d").is_ok());
        let refused = with("postgresql://h/d", &[("PGPORT", "abc")]).unwrap_err();
        assert!(refused.contains("PGPORT"), "{refused}");
    }

    #[test]
    fn what_is_shown_is_harmless_and_short() {
        let hostile = "postgresql://%1b[31mu%0a%E2%80%AEx:hush@h/%22;%20DROP%2F%40%3A\u{202e}";
        let shown = bare(hostile).unwrap().shown;
        assert_eq!(
            shown,
            "postgresql://%1B%5B31mu%0A%E2%80%AEx@h:5432/%22%3B%20DROP%2F%40%3A%E2%80%AE"
        );
        let long = "é".repeat(2_000);
        let shown = bare(&format!("postgresql://{long}:hush@h/{long}"))
            .unwrap()
            .shown;
        assert_eq!(shown.chars().count(), 223);
        assert!(!shown.contains("hush"));
    }
}
