//! Connections to PostgreSQL: TLS, a pool, and why there is none.
//!
//! The login is asked for at every new connection and asked for afresh when the server refuses it, so that a rotated
//! password goes unnoticed, also where rotation changes the user name. Connections that are open live on.
//!
//! Not here: SQL, and retries other than that one. The pool is deadpool with a manager of our own, because
//! deadpool-postgres can only fail with an error of tokio-postgres, which cannot say that a secret is unreadable.
//!
//! **Invariant:** nothing of what the server says reaches a text but the SQLSTATE, and no error of tokio-postgres
//! leaves this file: its sources quote the server.

use std::{
    error::Error,
    fmt,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use deadpool::managed::{self, Metrics, Pool, PoolError, RecycleError, RecycleResult};
use futures_util::future::BoxFuture;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::timeout;
use tokio_postgres::{CancelToken, Config, config::Host, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use crate::config::SslMode;

pub mod connection;
mod login;

use connection::Connection;

/// The roots that sign RDS, Aurora and RDS Proxy, see `scripts/get-rds-roots`.
const RDS_ROOTS: &str = include_str!("../certs/aws-rds-roots.pem");

/// Lambda gives a function 10 s to start.
const WARM_LIMIT: Duration = Duration::from_secs(8);
/// A connection that was not handed out for this long is tried first: the server may have given it up meanwhile, as it
/// does while Lambda keeps the process frozen.
const TRUSTED_FOR: Duration = Duration::from_secs(30);
const TRIAL_LIMIT: Duration = Duration::from_secs(1);
/// How long sent data may stay unacknowledged before the connection counts as dead; Linux alone would take a quarter of
/// an hour, longer than any invocation.
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(10);
/// Under the 350 s after which AWS's NAT gateways and load balancers forget an idle connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// What tokio-postgres means by "not set".
const KEEPALIVE_IDLE_UNSET: Duration = Duration::from_secs(2 * 60 * 60);

/// Answers with the address and the login of the database.
pub type Credentials = Arc<dyn Fn(Freshness) -> BoxFuture<'static, anyhow::Result<Config>> + Send + Sync>;

/// May a login be one that we already have?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Any login that is at hand.
    Cached,
    /// The one at hand was refused: fetch it again.
    Fresh,
}

/// The database, reached through a pool. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    pool: Pool<Connector>,
}

/// A connection out of the pool. It goes back when dropped; one whose flight was given up is closed then.
pub type PooledConnection = managed::Object<Connector>;

/// How connections are protected.
#[derive(Clone)]
pub enum Tls {
    /// Not at all.
    Disable,
    /// TLS, with the server's certificate and host name verified.
    VerifyFull(MakeRustlsConnect),
}

/// Why the trusted roots cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("cannot read the root certificates {} (DB_SSLROOTCERT)", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} (DB_SSLROOTCERT) holds no certificate in PEM form that can be read", .path.display())]
    NoCertificate { path: PathBuf },
}

/// Why there is no connection. A variant a decision; none quotes the server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody can say where the database is or who we are.
    #[error("no login for the database")]
    Credentials(#[source] anyhow::Error),
    /// Nothing answers at that address, or it hung up.
    #[error("cannot reach {target}: {reason}")]
    Unreachable { target: Target, reason: String },
    /// No connection in the time given.
    #[error("no connection to {target} within {} ms", .after.as_millis())]
    TimedOut { target: Target, after: Duration },
    /// All connections are taken, and none came back in the time given.
    #[error("all {size} database connections stayed in use for {} ms", .after.as_millis())]
    Busy { size: usize, after: Duration },
    /// The server did not prove who it is.
    #[error("TLS with {target} failed: {failure}")]
    Tls { target: Target, failure: TlsFailure },
    /// The server answered with an SQLSTATE.
    #[error("{target} refused the connection: {} (SQLSTATE {})", meaning(.state), .state.code())]
    Refused { target: Target, state: SqlState },
    /// The two sides do not understand each other.
    #[error("cannot log in to {target}: {reason}")]
    Protocol { target: Target, reason: String },
}

/// Which check of the server's certificate failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsFailure {
    #[error("the server offers no TLS; switch it on there, or set DB_SSLMODE=disable on a network you trust")]
    NotOffered,
    #[error("its certificate is not signed by a root we trust; for a private authority set DB_SSLROOTCERT")]
    UnknownIssuer,
    #[error("its certificate is for another host name")]
    WrongHost,
    #[error("its certificate has expired")]
    Expired,
    #[error("its certificate is not valid yet; is the clock right?")]
    NotValidYet,
    #[error("it shows a certificate authority's certificate as its own; give the server one signed by that authority")]
    AuthorityAsServer,
    /// Said by rustls, whose texts hold names and numbers of the protocol only.
    #[error("{0}")]
    Other(String),
}

/// The server we talk to, as `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(String);

impl Database {
    /// Opens nothing yet. `connect_timeout` bounds one attempt, from the name look-up to the end of the login.
    pub fn new(credentials: Credentials, tls: Tls, pool_size: usize, connect_timeout: Duration) -> Database {
        let connector = Connector { credentials, tls, connect_timeout, target: Mutex::default() };
        let pool = Pool::builder(connector).max_size(pool_size).build().expect("only timeouts need a runtime named");
        Database { pool }
    }

    /// A connection, by `within` from now, be it the wait for a free one or the login that takes the time.
    pub async fn get(&self, within: Duration) -> Result<PooledConnection, ConnectError> {
        match timeout(within, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(_)) => unreachable!("the pool has no timeouts and no hooks, and nobody closes it"),
            Err(_) => Err(self.out_of_time(within)),
        }
    }

    /// Opens one connection ahead of need, within the time that Lambda gives a function to start.
    pub async fn warm(&self) -> Result<(), ConnectError> {
        self.get(WARM_LIMIT).await.map(drop)
    }

    /// Closes idle connections: those that went into a snapshot are dead when it is restored.
    pub fn reset(&self) {
        self.pool.retain(|_, _| false);
    }

    /// Closes a connection instead of giving it back: one whose statement was given up midway, or that failed.
    pub fn discard(connection: PooledConnection) {
        drop(PooledConnection::take(connection));
    }

    /// Asks the server to stop what the connection of this token is doing. Whether it does, it does not say; so a
    /// failure to ask is no more than noted.
    pub async fn cancel(&self, token: CancelToken) {
        if let Err(error) = self.pool.manager().cancel(token).await {
            debug!(%error, "statement could not be cancelled");
        }
    }

    /// With every connection made, the time went by waiting for one; else it went by making one.
    fn out_of_time(&self, after: Duration) -> ConnectError {
        let status = self.pool.status();
        if status.size >= status.max_size {
            ConnectError::Busy { size: status.max_size, after }
        } else {
            ConnectError::TimedOut { target: self.pool.manager().last_target(), after }
        }
    }
}

impl Tls {
    /// Reads the trusted roots, if any are needed.
    pub fn new(mode: &SslMode) -> Result<Tls, RootsError> {
        let roots = match mode {
            SslMode::Disable => return Ok(Tls::Disable),
            SslMode::VerifyFull { roots: None } => trusted(RDS_ROOTS.as_bytes()).expect("a test reads these roots"),
            SslMode::VerifyFull { roots: Some(path) } => read_roots(path)?,
        };
        // Named, so that no crate need be the one that sets the process's default.
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the ciphers of every protocol version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Tls::VerifyFull(MakeRustlsConnect::new(config)))
    }
}

impl ConnectError {
    /// Did the server refuse the user name or the password?
    pub fn is_login_refused(&self) -> bool {
        matches!(self, ConnectError::Refused { state, .. } if state.code().starts_with("28"))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes the pool's connections.
pub struct Connector {
    credentials: Credentials,
    tls: Tls,
    connect_timeout: Duration,
    /// Where the last attempt went, to be named when a caller's time is up.
    target: Mutex<Option<Target>>,
}

impl managed::Manager for Connector {
    type Type = Connection;
    type Error = ConnectError;

    async fn create(&self) -> Result<Connection, ConnectError> {
        let login = self.login(Freshness::Cached).await?;
        match self.connect(&login).await {
            Err(refused) if refused.is_login_refused() => {
                let fresh = self.login(Freshness::Fresh).await?;
                if fresh == login { Err(refused) } else { self.connect(&fresh).await }
            }
            result => result,
        }
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<ConnectError> {
        if connection.is_closed() {
            return Err(RecycleError::message("closed"));
        }
        if metrics.last_used() < TRUSTED_FOR {
            return Ok(());
        }
        match timeout(TRIAL_LIMIT, connection.try_out()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(RecycleError::message("dead")),
        }
    }
}

impl Connector {
    async fn login(&self, freshness: Freshness) -> Result<Config, ConnectError> {
        (self.credentials)(freshness).await.map_err(ConnectError::Credentials)
    }

    async fn connect(&self, login: &Config) -> Result<Connection, ConnectError> {
        let config = self.equipped(login);
        let target = Target::of(&config);
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target.clone());
        let attempt = async {
            match &self.tls {
                Tls::Disable => login::plain(&config).await,
                Tls::VerifyFull(tls) => login::with_tls(&config, tls.clone()).await,
            }
        };
        self.bounded(target, attempt).await.map(Connection::new)
    }

    async fn cancel(&self, token: CancelToken) -> Result<(), ConnectError> {
        let attempt = async {
            match &self.tls {
                Tls::Disable => token.cancel_query(login::NoTls).await,
                Tls::VerifyFull(tls) => token.cancel_query(tls.clone()).await,
            }
        };
        self.bounded(self.last_target(), attempt).await
    }

    /// tokio-postgres has a limit of its own, but for the first step of an attempt only.
    async fn bounded<T>(
        &self,
        target: Target,
        attempt: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, ConnectError> {
        match timeout(self.connect_timeout, attempt).await {
            Ok(result) => result.map_err(|error| ConnectError::new(&error, target)),
            Err(_) => Err(ConnectError::TimedOut { target, after: self.connect_timeout }),
        }
    }

    /// The login with what every connection of ours has; where `DATABASE_URL` says something else, that holds.
    fn equipped(&self, login: &Config) -> Config {
        let mut config = login.clone();
        config.ssl_mode(match self.tls {
            Tls::Disable => tokio_postgres::config::SslMode::Disable,
            Tls::VerifyFull(_) => tokio_postgres::config::SslMode::Require,
        });
        if config.get_application_name().is_none() {
            config.application_name("sqs-etl");
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(UNACKNOWLEDGED_LIMIT);
        }
        if config.get_keepalives_idle() == KEEPALIVE_IDLE_UNSET {
            config.keepalives_idle(KEEPALIVE_IDLE);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(KEEPALIVE_INTERVAL);
        }
        config
    }

    fn last_target(&self) -> Target {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        target.clone().unwrap_or_else(|| Target("the database".into()))
    }
}

impl Target {
    fn of(config: &Config) -> Target {
        let hosts = config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let addresses = config.get_hostaddrs().iter().map(ToString::to_string);
        let mut names: Vec<String> = hosts.collect();
        if names.is_empty() {
            names.extend(addresses);
        }
        let port = config.get_ports().first().copied().unwrap_or(5432);
        Target(format!("{}:{port}", names.join(",")))
    }
}

impl ConnectError {
    fn new(error: &tokio_postgres::Error, target: Target) -> ConnectError {
        if let Some(state) = error.code() {
            return ConnectError::Refused { target, state: state.clone() };
        }
        match error.source().map(|cause| (cause, cause.downcast_ref::<io::Error>())) {
            None => ConnectError::Unreachable { target, reason: error.to_string() },
            Some((_, Some(cause))) => ConnectError::from_io(cause, error, target),
            Some((cause, None)) if cause.to_string() == "server does not support TLS" => {
                ConnectError::Tls { target, failure: TlsFailure::NotOffered }
            }
            // All that tokio-postgres gives as a cause here are constant sentences of its own.
            Some((cause, None)) => ConnectError::Protocol { target, reason: format!("{error}: {cause}") },
        }
    }

    /// Of an `io::Error` only the operating system's part can be shown: others hold what the server sent.
    fn from_io(cause: &io::Error, error: &tokio_postgres::Error, target: Target) -> ConnectError {
        if let Some(tls) = cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return ConnectError::Tls { target, failure: TlsFailure::from(tls) };
        }
        match (cause.raw_os_error(), cause.kind()) {
            (Some(code), _) => {
                ConnectError::Unreachable { target, reason: io::Error::from_raw_os_error(code).to_string() }
            }
            (None, ErrorKind::UnexpectedEof) => ConnectError::Unreachable { target, reason: "it hung up".into() },
            (None, _) if cause.to_string().starts_with("failed to lookup address") => {
                ConnectError::Unreachable { target, reason: "no such host name".into() }
            }
            (None, _) => ConnectError::Protocol { target, reason: error.to_string() },
        }
    }
}

impl From<&rustls::Error> for TlsFailure {
    fn from(error: &rustls::Error) -> TlsFailure {
        let rustls::Error::InvalidCertificate(fault) = error else {
            return TlsFailure::Other(error.to_string());
        };
        match fault {
            CertificateError::UnknownIssuer => TlsFailure::UnknownIssuer,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsFailure::WrongHost
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFailure::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFailure::NotValidYet,
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                TlsFailure::AuthorityAsServer
            }
            _ => TlsFailure::Other(error.to_string()),
        }
    }
}

/// For the codes that a login meets; PostgreSQL's own sentences name users and databases.
fn meaning(state: &SqlState) -> &'static str {
    match state.code() {
        "28P01" => "wrong user name or password",
        "28000" => "this user may not log in from here, or not with this use of TLS",
        "3D000" => "no such database",
        "42501" => "this user may not use that database",
        "53300" => "no connections left",
        "57P03" => "it is starting up or shutting down",
        _ => "see the code",
    }
}

fn read_roots(path: &Path) -> Result<RootCertStore, RootsError> {
    let pem = std::fs::read(path).map_err(|source| RootsError::Unreadable { path: path.into(), source })?;
    trusted(&pem).ok_or_else(|| RootsError::NoCertificate { path: path.into() })
}

/// `None` when there is no certificate in it, or one that cannot be read.
fn trusted(pem: &[u8]) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.ok()?).ok()?;
    }
    (!roots.is_empty()).then_some(roots)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls::pki_types::{ServerName, UnixTime};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const SOON: Duration = Duration::from_millis(1_000);
    const LATE: Duration = Duration::from_secs(10);

    const LOGGED_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    const NO_TLS: &[u8] = b"N";
    const SILENCE: &[u8] = b"";

    fn refusal(sqlstate: &str) -> Vec<u8> {
        let fields = format!("SFATAL\0VFATAL\0C{sqlstate}\0Mpassword of user \"planted\"\0\0");
        let mut message = vec![b'E'];
        message.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
        message.extend(fields.as_bytes());
        message
    }

    /// The first words of a server: what it answers to what a client says first.
    struct Server {
        port: u16,
        connections: Arc<AtomicUsize>,
    }

    impl Server {
        async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Server {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let server = Server { port: listener.local_addr().unwrap().port(), connections: Arc::default() };
            let connections = Arc::clone(&server.connections);
            tokio::spawn(async move {
                let mut open = Vec::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::Relaxed);
                    let mut said = [0; 1024];
                    let length = stream.read(&mut said).await.unwrap_or(0);
                    let _ = stream.write_all(&answer(&String::from_utf8_lossy(&said[..length]))).await;
                    open.push(stream);
                }
            });
            server
        }

        fn database(&self, tls: Tls, pool_size: usize) -> Database {
            let login = self.login("app");
            Database::new(
                Arc::new(move |_| {
                    let login = login.clone();
                    Box::pin(async { Ok(login) })
                }),
                tls,
                pool_size,
                SOON,
            )
        }

        fn login(&self, user: &str) -> Config {
            let mut login = Config::new();
            login.host("127.0.0.1").port(self.port).user(user);
            login
        }

        fn connections(&self) -> usize {
            self.connections.load(Ordering::Relaxed)
        }
    }

    /// The login is `before` until it is asked for afresh, then `after`.
    async fn rotated(before: &'static str, after: &'static str) -> (Result<(), ConnectError>, usize, usize) {
        let server = Server::start(|said| if said.contains("old") { refusal("28P01") } else { LOGGED_IN.into() }).await;
        let fetches = Arc::new(AtomicUsize::new(0));
        let (counted, before, after) = (Arc::clone(&fetches), server.login(before), server.login(after));
        let credentials: Credentials = Arc::new(move |freshness| {
            counted.fetch_add(usize::from(freshness == Freshness::Fresh), Ordering::Relaxed);
            let login = if freshness == Freshness::Fresh { after.clone() } else { before.clone() };
            Box::pin(async { Ok(login) })
        });
        let result = Database::new(credentials, Tls::Disable, 1, SOON).get(LATE).await.map(drop);
        (result, fetches.load(Ordering::Relaxed), server.connections())
    }

    #[track_caller]
    fn check_refused(error: &ConnectError, words: &str) {
        let shown = format!("{error} {error:?} {:?}", error.source());
        assert!(shown.contains(words), "{words} is not in: {shown}");
        assert!(!shown.contains("planted"), "{shown}");
    }

    #[track_caller]
    fn check_tls_failure(fault: CertificateError, expected: &TlsFailure) {
        assert_eq!(&TlsFailure::from(&rustls::Error::InvalidCertificate(fault)), expected);
    }

    #[tokio::test]
    async fn a_rotated_login_goes_unnoticed() {
        let (result, fetches, connections) = rotated("old", "new").await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!((fetches, connections), (1, 2));
    }

    #[tokio::test]
    async fn a_login_that_works_is_not_fetched_again() {
        let (result, fetches, connections) = rotated("new", "newer").await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!((fetches, connections), (0, 1));
    }

    #[tokio::test]
    async fn a_login_that_is_refused_afresh_is_not_tried_for_ever() {
        let (result, fetches, connections) = rotated("old", "older").await;
        assert!(result.unwrap_err().is_login_refused());
        assert_eq!((fetches, connections), (1, 2));
        let (result, fetches, connections) = rotated("old", "old").await;
        assert!(result.unwrap_err().is_login_refused());
        assert_eq!((fetches, connections), (1, 1));
    }

    #[tokio::test]
    async fn each_refusal_has_its_text_and_none_quotes_the_server() {
        let tls = Tls::new(&SslMode::VerifyFull { roots: None }).unwrap();
        for (answer, tls, words) in [
            (refusal("28P01"), &Tls::Disable, "wrong user name or password (SQLSTATE 28P01)"),
            (refusal("28000"), &Tls::Disable, "not with this use of TLS (SQLSTATE 28000)"),
            (refusal("3D000"), &Tls::Disable, "no such database (SQLSTATE 3D000)"),
            (refusal("53300"), &Tls::Disable, "no connections left (SQLSTATE 53300)"),
            (refusal("57P03"), &Tls::Disable, "starting up or shutting down (SQLSTATE 57P03)"),
            (b"5\0\0\0\0 planted".into(), &Tls::Disable, "cannot log in to 127.0.0.1:"),
            (SILENCE.into(), &Tls::Disable, "within 1000 ms"),
            (NO_TLS.into(), &tls, "the server offers no TLS"),
            (SILENCE.into(), &tls, "within 1000 ms"),
        ] {
            let server = Server::start(move |_| answer.clone()).await;
            let error = server.database(tls.clone(), 1).get(LATE).await.unwrap_err();
            check_refused(&error, words);
        }
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_told_from_nobody_of_that_name() {
        for (host, words) in [("127.0.0.1", "Connection refused"), ("no-such-host.invalid", "no such host name")] {
            let mut login = Config::new();
            login.host(host).port(1).user("app");
            let credentials: Credentials = Arc::new(move |_| {
                let login = login.clone();
                Box::pin(async { Ok(login) })
            });
            let error = Database::new(credentials, Tls::Disable, 1, LATE).get(LATE).await.unwrap_err();
            check_refused(&error, words);
        }
    }

    #[tokio::test]
    async fn a_login_that_cannot_be_had_is_the_cause() {
        let credentials: Credentials = Arc::new(|_| Box::pin(async { Err(anyhow::anyhow!("access denied")) }));
        let error = Database::new(credentials, Tls::Disable, 1, LATE).get(LATE).await.unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "access denied");
    }

    #[tokio::test]
    async fn the_callers_deadline_holds_while_all_connections_are_taken() {
        let server = Server::start(|_| LOGGED_IN.into()).await;
        let database = server.database(Tls::Disable, 1);
        let taken = database.get(LATE).await.unwrap();
        let error = database.get(SOON).await.unwrap_err();
        assert_eq!(error.to_string(), "all 1 database connections stayed in use for 1000 ms");
        drop(taken);
        drop(database.get(LATE).await.unwrap());
        assert_eq!(server.connections(), 1);
    }

    #[tokio::test]
    async fn a_discarded_connection_is_not_handed_out_again() {
        let server = Server::start(|_| LOGGED_IN.into()).await;
        let database = server.database(Tls::Disable, 1);
        Database::discard(database.get(LATE).await.unwrap());
        drop(database.get(LATE).await.unwrap());
        assert_eq!(server.connections(), 2);
    }

    #[tokio::test]
    async fn a_reset_closes_idle_connections_and_later_ones_are_made() {
        let server = Server::start(|_| LOGGED_IN.into()).await;
        let database = server.database(Tls::Disable, 1);
        database.warm().await.unwrap();
        database.reset();
        drop(database.get(LATE).await.unwrap());
        assert_eq!(server.connections(), 2);
    }

    #[test]
    fn each_failed_check_of_a_certificate_has_its_name() {
        let (time, name) = (UnixTime::since_unix_epoch(LATE), ServerName::try_from("db").unwrap());
        check_tls_failure(CertificateError::UnknownIssuer, &TlsFailure::UnknownIssuer);
        check_tls_failure(CertificateError::Expired, &TlsFailure::Expired);
        check_tls_failure(CertificateError::ExpiredContext { time, not_after: time }, &TlsFailure::Expired);
        check_tls_failure(CertificateError::NotValidYetContext { time, not_before: time }, &TlsFailure::NotValidYet);
        check_tls_failure(CertificateError::NotValidForName, &TlsFailure::WrongHost);
        check_tls_failure(
            CertificateError::NotValidForNameContext { expected: name, presented: Vec::new() },
            &TlsFailure::WrongHost,
        );
        check_tls_failure(CertificateError::Revoked, &TlsFailure::Other("invalid peer certificate: Revoked".into()));
    }

    #[test]
    fn all_built_in_roots_can_be_read() {
        assert_eq!(RDS_ROOTS.matches("BEGIN CERTIFICATE").count(), 92);
        assert_eq!(trusted(RDS_ROOTS.as_bytes()).unwrap().len(), 92);
    }

    #[test]
    fn roots_that_cannot_be_had_are_an_error() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (file, words) in
            [("nowhere.pem", "cannot read the root certificates"), ("Cargo.toml", "holds no certificate")]
        {
            let Err(error) = Tls::new(&SslMode::VerifyFull { roots: Some(here.join(file)) }) else { panic!("{file}") };
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(trusted(b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n").is_none());
    }
}
