//! Getting one connection: servers in turn, each step under our own timer, failures told with their remedy.
//!
//! The driver's own `connect` limits only the TCP handshake and knows neither `verify-full` nor standbys, so it
//! is given a stream made here. Nothing is retried: that is the retry machine's business.

mod answered;
mod passed_over;
mod promised;
mod stream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Config, Endpoint, Host, TargetSessionAttrs};
use crate::error::{Error, Result};
use crate::tls::{self, SslMode};

use answered::Answered;
pub use passed_over::PassedOver;
pub use stream::{Stream, Target};
use stream::{directory_of, open, socket_path, tune};

/// How long a request to cancel may take, connecting included.
const CANCEL_LIMIT: Duration = Duration::from_secs(5);

const DEFAULT_MODE: &str = " (sslmode=verify-full, as for every server off this machine unless sslmode says otherwise: give \
     sslrootcert=FILE, or sslmode=prefer if you trust all that is in between)";

/// An encrypted stream to a server.
pub type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Stream>>::Stream;

/// The half of a connection that moves bytes; it must be polled for the client to make progress.
pub type PgConnection = tokio_postgres::Connection<Stream, TlsStream>;

/// A session on a server of the wanted kind.
pub struct Established {
    /// Sends statements.
    pub client: Client,
    /// Moves bytes.
    pub connection: PgConnection,
    /// The host as the settings name it (a socket directory for Unix sockets).
    pub host: String,
    /// The port.
    pub port: u16,
    /// Asks the server to stop what this connection runs.
    pub canceller: Canceller,
    /// The address.
    pub target: Target,
    /// Which of the hosts of the settings it is.
    pub number: usize,
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Established")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Connects to the first server that fits.
///
/// Servers are tried in order (or at random, if so configured), but the one first that was used last, and each address of a name in turn. A refused
/// log-in ends the search, as in libpq: the other servers would be asked the same. Servers in `passed_over` are not tried. Needs a runtime with I/O and
/// time enabled.
///
/// # Errors
/// [`Error::Config`] for certificates that cannot be used, else [`Error::ConnectionFailed`] naming every server
/// tried, what went wrong there and what helps. No message holds a password.
pub async fn connect(config: &Config, passed_over: &PassedOver) -> Result<Established> {
    let wishes: &[TargetSessionAttrs] = match config.target_session_attrs {
        TargetSessionAttrs::PreferStandby => {
            &[TargetSessionAttrs::Standby, TargetSessionAttrs::Any]
        }
        ref other => std::slice::from_ref(other),
    };
    let mut hosts: Vec<(usize, &Host)> = config.hosts.iter().enumerate().collect();
    if config.load_balance {
        fastrand::shuffle(&mut hosts);
    } else if config.primary_wanted {
        // Else each new connection would wait first for a server that was lost long ago.
        let last = config.timelines.last_host();
        hosts.sort_by_key(|(number, _)| Some(*number) != last);
    }
    let mut failures = Vec::new();
    for wish in wishes {
        failures.clear();
        for (number, host) in &hosts {
            let connector = if may_encrypt(config, host) {
                config.tls.connector()?
            } else {
                tls::unused_connector()?
            };
            let mut targets = match within(config.connect_timeout, resolve(host)).await {
                Ok(targets) => targets,
                Err(failure) => {
                    failures.push(format!("{host}: {}", failure.text));
                    continue;
                }
            };
            if config.load_balance {
                fastrand::shuffle(&mut targets);
            }
            for target in targets {
                if let Some(reason) = passed_over.reason(&target) {
                    failures.push(format!("{host}: {reason}"));
                    continue;
                }
                let attempt = Attempt {
                    config,
                    host,
                    number: *number,
                    target,
                    connector: connector.clone(),
                };
                match within(config.connect_timeout, attempt.run(*wish)).await {
                    Ok(established) => return Ok(established),
                    Err(failure) if failure.last => {
                        return Err(Error::ConnectionFailed(format!(
                            "could not connect to {host}: {}",
                            failure.text
                        )));
                    }
                    Err(failure) => failures.push(match attempt.target {
                        Target::Tcp(address)
                            if address.ip().to_string() != attempt.server_name() =>
                        {
                            format!("{host} ({}): {}", address.ip(), failure.text)
                        }
                        _ => format!("{host}: {}", failure.text),
                    }),
                }
            }
        }
    }
    Err(Error::ConnectionFailed(if failures.len() == 1 {
        format!("could not connect to {}", failures[0])
    } else {
        format!("could not connect to any server: {}", failures.join("; "))
    }))
}

/// Asks a server to stop what one connection runs.
#[derive(Clone)]
pub struct Canceller {
    token: CancelToken,
    target: Target,
    server_name: String,
    connector: MakeRustlsConnect,
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Canceller {
    /// The backend that was promised at log-in; `None` where the server numbers none.
    pub async fn promised(&self) -> Option<i32> {
        promised::promised(&self.token).await
    }

    /// Sends the request, over the same kind of connection, and waits until the server is done with it. Whether a statement
    /// was still there to stop, it does not say. The connection that it is about has to last until then.
    ///
    /// # Errors
    /// [`Error::ConnectionFailed`] if the request could not be sent within five seconds.
    pub async fn cancel(&self) -> Result<()> {
        let sending = async {
            let stream = open(&self.target)
                .await
                .map_err(|error| Failure::of_socket(&error))?;
            let mut connector = self.connector.clone();
            let Ok(connect) =
                MakeTlsConnect::<Answered>::make_tls_connect(&mut connector, &self.server_name);
            self.token
                .cancel_query_raw(Answered(stream), connect)
                .await
                .map_err(|error| Failure::of_driver(error, ""))
        };
        within(Some(CANCEL_LIMIT), sending)
            .await
            .map_err(|failure| {
                Error::ConnectionFailed(format!(
                    "could not ask the server to cancel: {}",
                    failure.text
                ))
            })
    }
}

/// What became of one step, ready to be shown.
struct Failure {
    text: String,
    /// Trying another server is pointless.
    last: bool,
    /// TLS is what failed, or what the server's rules lack or refuse.
    over_encryption: bool,
}

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            last: false,
            over_encryption: false,
        }
    }

    fn of_socket(error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::ConnectionRefused => "check that the server runs and listens there",
            io::ErrorKind::NotFound => {
                "check that the server runs and that host names its socket directory"
            }
            io::ErrorKind::PermissionDenied => "this user may not use the server's socket",
            _ => "check host, port and network",
        };
        Self::new(format!("{error}; {remedy}"))
    }

    /// `whom` completes the sentence for log-ins: the user and the database.
    fn of_driver(error: tokio_postgres::Error, whom: &str) -> Self {
        if let Some(text) = tls::explain(&error) {
            return Self {
                text,
                last: false,
                over_encryption: true,
            };
        }
        let in_handshake = error
            .to_string()
            .starts_with("error performing TLS handshake");
        let told = match Error::from(error) {
            Error::Database(told) => told,
            Error::ConnectionFailed(text) if text.contains("server does not support TLS") => {
                let remedy = "set ssl=on there, or lower sslmode";
                return Self {
                    text: format!("the server does not speak TLS; {remedy}"),
                    last: false,
                    over_encryption: true,
                };
            }
            other => {
                let remedy = if in_handshake {
                    "check sslcert, sslkey and the TLS versions of both sides"
                } else {
                    "check that a PostgreSQL server listens there, and sslcert if it wants one"
                };
                let text = format!("{other}; {remedy}");
                return Self {
                    text,
                    last: false,
                    over_encryption: in_handshake,
                };
            }
        };
        let class = told.sqlstate.get(..2).unwrap_or_default();
        let remedy = match told.message.starts_with("unsupported startup parameter") {
            true => {
                "a pooler such as PgBouncer stands in between and passes it not on: take it out of the connection string \
                 and the environment (PGOPTIONS), and set it for the role or the database"
            }
            false => remedy(&told.sqlstate),
        };
        Self {
            text: format!(
                "{} (SQLSTATE {}){whom}; {remedy}",
                told.message, told.sqlstate
            ),
            last: ["22", "28", "3D", "42"].contains(&class),
            over_encryption: told.sqlstate == "28000",
        }
    }
}

fn remedy(sqlstate: &str) -> &'static str {
    match sqlstate {
        "28P01" => "check user and password (password=, PGPASSWORD or the password file)",
        "28000" => {
            "the server's pg_hba.conf or roles do not let this user in: check user, sslmode and pg_hba.conf"
        }
        "3D000" => "check dbname, or create the database first",
        "42501" => "have CONNECT granted on the database",
        "53300" => "too many connections are open: use smaller pools or raise max_connections",
        "57P03" => "the server is starting, stopping or recovering: try again in a moment",
        _ => "see the server's log",
    }
}

/// Runs one step under a limit.
async fn within<T>(
    limit: Option<Duration>,
    step: impl Future<Output = std::result::Result<T, Failure>>,
) -> std::result::Result<T, Failure> {
    let Some(limit) = limit else {
        return step.await;
    };
    tokio::time::timeout(limit, step).await.unwrap_or_else(|_| {
        Err(Failure::new(format!(
            "no session within {} s; check host, port and network, or raise connect_timeout",
            limit.as_secs_f32()
        )))
    })
}

/// One address of one server.
struct Attempt<'a> {
    config: &'a Config,
    host: &'a Host,
    number: usize,
    target: Target,
    connector: MakeRustlsConnect,
}

impl Attempt<'_> {
    async fn run(&self, wish: TargetSessionAttrs) -> std::result::Result<Established, Failure> {
        use tokio_postgres::config::SslMode as Wire;
        let (first, second) = match self.config.tls.mode {
            _ if !matches!(self.target, Target::Tcp(_)) => (Wire::Disable, None),
            SslMode::Disable => (Wire::Disable, None),
            SslMode::Allow => (Wire::Disable, Some(Wire::Require)),
            SslMode::Prefer => (Wire::Prefer, Some(Wire::Disable)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Wire::Require, None),
        };
        let mut established = self.log_in(first).await;
        if let (
            Err(Failure {
                over_encryption: true,
                ..
            }),
            Some(second),
        ) = (&established, second)
        {
            let again = self.log_in(second).await;
            // What the first way met says more than the second way's "no encryption" would.
            if again.is_ok() {
                established = again;
            }
        }
        let mut established = established.map_err(|failure| self.explain_default(failure))?;
        if let Some(reason) = misfit(&mut established, wish).await? {
            let Established {
                client, connection, ..
            } = established;
            drop(client);
            // Sends the goodbye; the socket is closed either way.
            let _ = connection.await;
            return Err(Failure::new(reason));
        }
        Ok(established)
    }

    /// Whoever said nothing about encryption has to be told why it is asked for.
    fn explain_default(&self, mut failure: Failure) -> Failure {
        if failure.over_encryption && self.config.tls.mode == SslMode::VerifyFull {
            failure.text.push_str(DEFAULT_MODE);
        }
        failure
    }

    fn server_name(&self) -> String {
        match &self.host.endpoint {
            Endpoint::Name(name)
            | Endpoint::Address {
                name: Some(name), ..
            } => name.clone(),
            Endpoint::Address { ip, name: None } => ip.to_string(),
            Endpoint::Default | Endpoint::Unix(_) => "localhost".to_owned(),
        }
    }

    async fn log_in(
        &self,
        mode: tokio_postgres::config::SslMode,
    ) -> std::result::Result<Established, Failure> {
        let config = self.config;
        let stream = open(&self.target)
            .await
            .map_err(|error| Failure::of_socket(&error))?;
        if let Stream::Tcp(tcp) = &stream {
            tune(tcp, config).map_err(|error| Failure::of_socket(&error))?;
        }
        let mut wire = tokio_postgres::Config::new();
        wire.user(&config.user)
            .dbname(&config.dbname)
            .application_name(&config.application_name);
        wire.ssl_mode(mode).channel_binding(config.channel_binding);
        if config.tls.direct {
            wire.ssl_negotiation(tokio_postgres::config::SslNegotiation::Direct);
        }
        if let Some(options) = &config.options {
            wire.options(options);
        }
        if let Some(password) = &self.host.password {
            wire.password(password.reveal());
        }
        let server_name = self.server_name();
        let Ok(connect) = make_tls_connect(&self.connector, &server_name);
        let whom = format!(" for user {:?}, database {:?}", config.user, config.dbname);
        let (client, connection) = match wire.connect_raw(stream, connect).await {
            Ok(pair) => pair,
            Err(error) if self.host.password.is_none() && asks_for_password(&error) => {
                return Err(Failure {
                    text: format!(
                        "the server asks for a password{whom}, and there is none; give password=, PGPASSWORD or a password file"
                    ),
                    last: true,
                    over_encryption: false,
                });
            }
            Err(error) => return Err(Failure::of_driver(error, &whom)),
        };
        let (host, port) = match &self.target {
            Target::Tcp(address) => (server_name.clone(), address.port()),
            Target::Unix(socket) => (directory_of(socket), self.host.port),
        };
        let token = client.cancel_token();
        let canceller = Canceller {
            token,
            target: self.target.clone(),
            server_name,
            connector: self.connector.clone(),
        };
        Ok(Established {
            client,
            connection,
            host,
            port,
            canceller,
            target: self.target.clone(),
            number: self.number,
        })
    }
}

fn make_tls_connect(
    connector: &MakeRustlsConnect,
    server_name: &str,
) -> std::result::Result<
    <MakeRustlsConnect as MakeTlsConnect<Stream>>::TlsConnect,
    std::convert::Infallible,
> {
    MakeTlsConnect::<Stream>::make_tls_connect(&mut connector.clone(), server_name)
}

fn asks_for_password(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(|source| source.to_string().contains("password missing"))
}

/// Why the server is not of the wanted kind, if it is not.
async fn misfit(
    established: &mut Established,
    wish: TargetSessionAttrs,
) -> std::result::Result<Option<String>, Failure> {
    let (parameter, question, wanted, name) = match wish {
        TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => return Ok(None),
        TargetSessionAttrs::ReadWrite => ("", "SHOW transaction_read_only", false, "read-write"),
        TargetSessionAttrs::ReadOnly => ("", "SHOW transaction_read_only", true, "read-only"),
        TargetSessionAttrs::Primary => (
            "in_hot_standby",
            "SELECT pg_catalog.pg_is_in_recovery()",
            false,
            "primary",
        ),
        TargetSessionAttrs::Standby => (
            "in_hot_standby",
            "SELECT pg_catalog.pg_is_in_recovery()",
            true,
            "standby",
        ),
    };
    // Servers from 14 on report this by themselves.
    let reported = established
        .connection
        .parameter(parameter)
        .map(str::to_owned);
    let answer = match reported {
        Some(answer) => answer,
        None => {
            let Established {
                client, connection, ..
            } = established;
            let asking = client.simple_query(question);
            let messages = tokio::select! {
                messages = asking => messages.map_err(|error| Failure::of_driver(error, ""))?,
                _ = &mut *connection => return Err(Failure::new("the server closed the connection; see the server's log")),
            };
            let answer = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            answer.unwrap_or_default()
        }
    };
    let restricted = matches!(answer.as_str(), "on" | "t" | "true");
    let found = match (parameter.is_empty(), restricted) {
        (true, true) => "read-only",
        (true, false) => "read-write",
        (false, true) => "a standby",
        (false, false) => "a primary",
    };
    Ok((restricted != wanted)
        .then(|| format!("this server is {found}, and target_session_attrs={name} is wanted")))
}

fn may_encrypt(config: &Config, host: &Host) -> bool {
    config.tls.mode != SslMode::Disable && !matches!(host.endpoint, Endpoint::Unix(_))
}

async fn resolve(host: &Host) -> std::result::Result<Vec<Target>, Failure> {
    let name = match &host.endpoint {
        Endpoint::Address { ip, .. } => {
            return Ok(vec![Target::Tcp(SocketAddr::new(*ip, host.port))]);
        }
        Endpoint::Unix(directory) => {
            return Ok(vec![Target::Unix(socket_path(directory, host.port))]);
        }
        Endpoint::Default => {
            let usual =
                ["/var/run/postgresql", "/tmp"].map(|directory| socket_path(directory, host.port));
            if let Some(socket) = usual.into_iter().find(|socket| socket.exists()) {
                return Ok(vec![Target::Unix(socket)]);
            }
            "localhost"
        }
        Endpoint::Name(name) => name,
    };
    let found: Vec<Target> = tokio::net::lookup_host((name, host.port))
        .await
        .map_err(|error| {
            Failure::new(format!(
                "the name cannot be looked up ({error}); check host"
            ))
        })?
        .map(Target::Tcp)
        .collect();
    if found.is_empty() {
        return Err(Failure::new("the name has no address; check host"));
    }
    Ok(found)
}
