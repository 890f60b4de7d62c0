//! Where the database is and how to reach it, told in libpq's connection keywords.
//!
//! The rules are libpq's (PostgreSQL documentation, "Parameter Key Words") unless a keyword asks for something
//! this library cannot honour: that is refused, so that a connection is never less secure than it was asked to
//! be. Error messages name the keyword and what it may be, and never the value: a badly quoted password ends up
//! in any of them.

pub mod loopback;
mod passfile;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::pooler::Pooler;
use crate::timelines::Timelines;
use crate::tls::{SslMode, TlsSettings};

/// How long one address may take when `connect_timeout` is not given.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A value that no message, log or representation shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Which kind of server a connection is wanted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetSessionAttrs {
    /// Any that answers.
    #[default]
    Any,
    /// One whose transactions may write.
    ReadWrite,
    /// One whose transactions may not write.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is in recovery.
    Standby,
    /// One in recovery if there is any, else any.
    PreferStandby,
}

/// The server's end of a connection, before names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// No host was given: the usual socket directories, then localhost.
    Default,
    /// A socket directory; a leading `@` means the abstract namespace.
    Unix(String),
    /// A name to look up (or an address written as a name).
    Name(String),
    /// A numeric address, with the name that certificates are checked against.
    Address {
        /// Where to connect.
        ip: IpAddr,
        /// The host's name, if one was given beside the address.
        name: Option<String>,
    },
}

/// One server of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Its port; for Unix sockets, the number in the socket's file name.
    pub port: u16,
    /// Its password: from the keyword, or from the password file.
    pub password: Option<Secret>,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.endpoint {
            Endpoint::Default => write!(f, "the default socket (port {port})"),
            Endpoint::Unix(directory) => write!(f, "{directory}/.s.PGSQL.{port}"),
            Endpoint::Name(name)
            | Endpoint::Address {
                name: Some(name), ..
            } => write!(f, "{name}:{port}"),
            Endpoint::Address {
                ip: IpAddr::V6(ip), ..
            } => write!(f, "[{ip}]:{port}"),
            Endpoint::Address { ip, .. } => write!(f, "{ip}:{port}"),
        }
    }
}

// Where libpq leaves these to the system, whose two hours are no use to a lease: a link that dies while a statement waits
// for its answer is noticed within 20 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_COUNT: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// TCP keepalive settings; absent ones are the system's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether keepalives are sent at all.
    pub enabled: bool,
    /// Idle time before the first.
    pub idle: Option<Duration>,
    /// Time between two.
    pub interval: Option<Duration>,
    /// How many may stay unanswered.
    pub count: Option<u32>,
}

/// Everything needed to connect. Its `Debug` shows no password.
#[derive(Debug, Clone)]
pub struct Config {
    /// The servers, in the order to try; never empty.
    pub hosts: Vec<Host>,
    /// The database role.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// Shown by `pg_stat_activity`.
    pub application_name: String,
    /// Command-line options for the server process.
    pub options: Option<String>,
    /// For each address, everything from the first packet to a session of the wanted kind. None: no limit.
    pub connect_timeout: Option<Duration>,
    /// Keepalives of TCP connections.
    pub keepalives: Keepalives,
    /// How long sent data may stay unacknowledged. None: the system's default.
    pub tcp_user_timeout: Option<Duration>,
    /// The kind of server wanted.
    pub target_session_attrs: TargetSessionAttrs,
    /// Try hosts and their addresses in random order.
    pub load_balance: bool,
    /// Channel binding of SCRAM authentication.
    pub channel_binding: tokio_postgres::config::ChannelBinding,
    /// Encryption and certificates.
    pub tls: TlsSettings,
    /// That a pooler may stand in between, which gives each transaction another backend.
    pub pooler: Option<Pooler>,
    /// Whether a standby will not do, where there is anything else. True unless all that is wanted is to look.
    pub primary_wanted: bool,
    /// What connections with these settings have learnt, and with copies of them.
    pub timelines: Arc<Timelines>,
}

impl Config {
    /// Reads libpq keywords; the last of a repeated keyword counts and an empty value means unset.
    ///
    /// `passfile`, if given, is read here (once), and ignored where others than its owner may read it.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown keyword, a value that does not fit, or a keyword that cannot be honoured.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut keywords = Keywords::read(pairs)?;
        let user = keywords.take("user").ok_or_else(|| {
            Error::Config(
                "no user to connect as: give user=… in the conninfo or set PGUSER".to_owned(),
            )
        })?;
        let dbname = keywords.take("dbname").unwrap_or_else(|| user.clone());
        let off_loopback = !loopback::only(keywords.peek("host"), keywords.peek("hostaddr"));
        let hosts = keywords.hosts(&user, &dbname)?;
        let fallback_name = keywords.take("fallback_application_name");
        let config = Self {
            hosts,
            user,
            dbname,
            application_name: keywords
                .take("application_name")
                .or(fallback_name)
                .unwrap_or_else(|| "bmdb".to_owned()),
            options: keywords.take("options"),
            connect_timeout: match keywords.number::<i64>("connect_timeout")? {
                None => Some(DEFAULT_CONNECT_TIMEOUT),
                Some(seconds) => u64::try_from(seconds)
                    .ok()
                    .filter(|s| *s > 0)
                    .map(Duration::from_secs),
            },
            keepalives: Keepalives {
                enabled: keywords.number::<i64>("keepalives")? != Some(0),
                idle: keywords.duration("keepalives_idle", Duration::from_secs, KEEPALIVE_IDLE)?,
                interval: keywords.duration(
                    "keepalives_interval",
                    Duration::from_secs,
                    KEEPALIVE_INTERVAL,
                )?,
                count: keywords
                    .number::<i64>("keepalives_count")?
                    .map_or(Some(KEEPALIVE_COUNT), |n| u32::try_from(n).ok())
                    .filter(|n| *n > 0),
            },
            tcp_user_timeout: keywords.duration(
                "tcp_user_timeout",
                Duration::from_millis,
                TCP_USER_TIMEOUT,
            )?,
            target_session_attrs: keywords
                .choice(
                    "target_session_attrs",
                    &[
                        ("any", TargetSessionAttrs::Any),
                        ("read-write", TargetSessionAttrs::ReadWrite),
                        ("read-only", TargetSessionAttrs::ReadOnly),
                        ("primary", TargetSessionAttrs::Primary),
                        ("standby", TargetSessionAttrs::Standby),
                        ("prefer-standby", TargetSessionAttrs::PreferStandby),
                    ],
                )?
                .unwrap_or_default(),
            load_balance: keywords
                .choice(
                    "load_balance_hosts",
                    &[("disable", false), ("random", true)],
                )?
                .unwrap_or(false),
            channel_binding: {
                use tokio_postgres::config::ChannelBinding;
                keywords
                    .choice(
                        "channel_binding",
                        &[
                            ("disable", ChannelBinding::Disable),
                            ("prefer", ChannelBinding::Prefer),
                            ("require", ChannelBinding::Require),
                        ],
                    )?
                    .unwrap_or(ChannelBinding::Prefer)
            },
            tls: keywords.tls(off_loopback)?,
            pooler: None,
            primary_wanted: true,
            timelines: Arc::default(),
        };
        keywords.finish()?;
        Ok(config)
    }

    /// The same, shown under another name in `pg_stat_activity`.
    #[must_use]
    pub fn with_application_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.application_name);
        self
    }

    /// The same through a pooler: nothing is left on a backend that another transaction could meet, or miss.
    #[must_use]
    pub fn with_pooler(mut self) -> Self {
        self.pooler = Some(Pooler::default());
        self
    }

    /// The same, with another limit for each address.
    #[must_use]
    pub fn with_connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = Some(limit);
        self
    }
}

/// Keywords not read yet.
struct Keywords(BTreeMap<String, String>);

impl Keywords {
    fn read(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut keywords = BTreeMap::new();
        for (keyword, value) in pairs {
            if value.contains('\0') {
                return Err(Error::Config(format!(
                    "the value of {keyword:?} holds a NUL character: take it out"
                )));
            }
            keywords.insert(keyword, value);
        }
        Ok(Self(keywords))
    }

    /// The value, or none if it is absent or empty.
    fn take(&mut self, keyword: &str) -> Option<String> {
        self.0.remove(keyword).filter(|value| !value.is_empty())
    }

    fn peek(&self, keyword: &str) -> &str {
        self.0.get(keyword).map_or("", String::as_str)
    }

    fn number<T: FromStr>(&mut self, keyword: &str) -> Result<Option<T>> {
        self.take(keyword)
            .map(|value| value.trim().parse())
            .transpose()
            .map_err(|_| Error::Config(format!("{keyword} must be a whole number")))
    }

    /// A positive number of units; zero and below mean the system's default, as in libpq.
    /// `unset` unless given; zero leaves it to the system, as in libpq.
    fn duration(
        &mut self,
        keyword: &str,
        unit: fn(u64) -> Duration,
        unset: Duration,
    ) -> Result<Option<Duration>> {
        let Some(number) = self.number::<i64>(keyword)? else {
            return Ok(Some(unset));
        };
        Ok(u64::try_from(number).ok().filter(|n| *n > 0).map(unit))
    }

    fn choice<T: Copy>(&mut self, keyword: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.take(keyword) else {
            return Ok(None);
        };
        match choices.iter().find(|(name, _)| *name == value) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                Err(Error::Config(format!(
                    "{keyword} must be one of: {}",
                    names.join(", ")
                )))
            }
        }
    }

    fn hosts(&mut self, user: &str, dbname: &str) -> Result<Vec<Host>> {
        let names = split(self.take("host"));
        let addresses = split(self.take("hostaddr"));
        let ports = split(self.take("port"));
        let password = self.take("password").map(Secret::new);
        let passfile = self.take("passfile").and_then(|path| passfile::read(&path));
        if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
            return Err(Error::Config(format!(
                "host names {} servers but hostaddr names {}: list one address for each host",
                names.len(),
                addresses.len()
            )));
        }
        let count = names.len().max(addresses.len()).max(1);
        if ports.len() > 1 && ports.len() != count {
            return Err(Error::Config(format!(
                "port lists {} numbers for {count} servers: give one, or one for each",
                ports.len()
            )));
        }
        let mut hosts = Vec::with_capacity(count);
        for index in 0..count {
            let name = names.get(index).filter(|name| !name.is_empty()).cloned();
            let address = addresses.get(index).filter(|address| !address.is_empty());
            let port = match ports
                .get(index)
                .or(ports.first().filter(|_| ports.len() == 1))
                .map(|port| port.trim())
            {
                None | Some("") => 5432,
                Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                    Error::Config(
                        "port must be a number from 1 to 65535, or a comma-separated list of them"
                            .to_owned(),
                    )
                })?,
            };
            let endpoint = match (address, name) {
                (Some(address), name) => Endpoint::Address {
                    ip: address.parse().map_err(|_| {
                        Error::Config("hostaddr must be a numeric IPv4 or IPv6 address".to_owned())
                    })?,
                    name,
                },
                (None, None) => Endpoint::Default,
                (None, Some(name)) if name.starts_with(['/', '@']) => Endpoint::Unix(name),
                (None, Some(name)) => Endpoint::Name(name),
            };
            let password = password.clone().or_else(|| {
                let shown = match &endpoint {
                    Endpoint::Default => "localhost".to_owned(),
                    Endpoint::Unix(directory)
                        if directory == "/tmp" || directory == "/var/run/postgresql" =>
                    {
                        "localhost".to_owned()
                    }
                    Endpoint::Unix(name)
                    | Endpoint::Name(name)
                    | Endpoint::Address {
                        name: Some(name), ..
                    } => name.clone(),
                    Endpoint::Address { ip, name: None } => ip.to_string(),
                };
                passfile::find(
                    passfile.as_deref()?,
                    [&shown, &port.to_string(), dbname, user],
                )
            });
            hosts.push(Host {
                endpoint,
                port,
                password,
            });
        }
        Ok(hosts)
    }

    fn tls(&mut self, off_loopback: bool) -> Result<TlsSettings> {
        let root = self.take("sslrootcert");
        let system = root.as_deref() == Some("system");
        let mode = self.choice(
            "sslmode",
            &[
                ("disable", SslMode::Disable),
                ("allow", SslMode::Allow),
                ("prefer", SslMode::Prefer),
                ("require", SslMode::Require),
                ("verify-ca", SslMode::VerifyCa),
                ("verify-full", SslMode::VerifyFull),
            ],
        )?;
        // libpq prefers TLS and does without if told so, by whoever sits in between too.
        let mode = mode.unwrap_or(if system || off_loopback {
            SslMode::VerifyFull
        } else {
            SslMode::Prefer
        });
        if system && mode != SslMode::VerifyFull {
            return Err(Error::Config(
                "sslrootcert=system needs sslmode=verify-full: with public authorities, anything less protects nothing"
                    .to_owned(),
            ));
        }
        let direct = self
            .choice("sslnegotiation", &[("postgres", false), ("direct", true)])?
            .unwrap_or(false);
        if direct && mode < SslMode::Require {
            return Err(Error::Config(
                "sslnegotiation=direct needs sslmode=require or stronger".to_owned(),
            ));
        }
        let versions = [
            ("TLSv1", 10),
            ("TLSv1.1", 11),
            ("TLSv1.2", 12),
            ("TLSv1.3", 13),
        ];
        let minimum = self
            .choice("ssl_min_protocol_version", &versions)?
            .unwrap_or(12);
        let maximum = self
            .choice("ssl_max_protocol_version", &versions)?
            .unwrap_or(13);
        if maximum < 12 || maximum < minimum {
            return Err(Error::Config(
                "ssl_max_protocol_version must be TLSv1.2 or TLSv1.3, and not below ssl_min_protocol_version".to_owned(),
            ));
        }
        let send_certificate = self
            .choice("sslcertmode", &[("disable", false), ("allow", true)])?
            .unwrap_or(true);
        let (certificate, key) = (self.take("sslcert"), self.take("sslkey"));
        Ok(TlsSettings {
            mode,
            root,
            certificate: certificate.filter(|_| send_certificate),
            key,
            send_certificate,
            server_name: self.number::<u8>("sslsni")? != Some(0),
            direct,
            tls12: minimum <= 12,
            tls13: maximum >= 13,
        })
    }

    /// What is left is either harmless, cannot be honoured, or unknown.
    fn finish(mut self) -> Result<()> {
        const UNUSED: [&str; 8] = [
            "gsslib",
            "gssdelegation",
            "krbsrvname",
            "sslcompression",
            "max_protocol_version",
            "service",
            "servicefile",
            "keepalives",
        ];
        const REFUSED: [&str; 13] = [
            "sslcrl",
            "sslcrldir",
            "sslpassword",
            "sslkeylogfile",
            "requirepeer",
            "requiressl",
            "require_auth",
            "replication",
            "scram_client_key",
            "scram_server_key",
            "oauth_issuer",
            "oauth_client_id",
            "oauth_client_secret",
        ];
        self.choice("gssencmode", &[("disable", ()), ("prefer", ())])?;
        self.choice("min_protocol_version", &[("3.0", ())])?;
        if let Some(encoding) = self.take("client_encoding") {
            let plain: String = encoding
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .collect();
            if !["utf8", "unicode", "auto"].contains(&plain.to_ascii_lowercase().as_str()) {
                return Err(Error::Config(
                    "client_encoding must be UTF8: text is always exchanged in it".to_owned(),
                ));
            }
        }
        for (keyword, value) in self.0 {
            if UNUSED.contains(&keyword.as_str()) {
                continue;
            }
            if REFUSED.contains(&keyword.as_str()) {
                if value.is_empty() {
                    continue;
                }
                return Err(Error::Config(format!(
                    "the connection keyword {keyword} is not supported, and ignoring it would be unsafe: leave it out"
                )));
            }
            return Err(Error::Config(format!(
                "unknown connection keyword {keyword:?}"
            )));
        }
        Ok(())
    }
}

fn split(list: Option<String>) -> Vec<String> {
    list.map(|list| list.split(',').map(str::to_owned).collect())
        .unwrap_or_default()
}
