//! What the environment says, read once: the only file that knows the names of settings.
//!
//! `Config::from_lookup` is pure and names everything that is missing or wrong at once, so that a deployment is mended
//! in one go. An empty value counts as unset, because templates pass empty strings for what was not filled in.
//!
//! Not here: AWS credentials, which the AWS SDK's providers read themselves, and opening any file.

use std::{fmt, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use percent_encoding::percent_decode_str;

/// Everything that can be set from outside.
#[derive(Debug, Clone)]
pub struct Config {
    /// `CONTRACT_PATH`: a contract file in place of the built-in one.
    pub contract_path: Option<PathBuf>,
    /// Where the database is, who we are there, and how it is reached.
    pub database: DatabaseConfig,
    /// Where the masking keys come from.
    pub masking: MaskingSource,
    /// How Secrets Manager is reached.
    pub aws: Aws,
    /// `DEADLINE_RESERVE_MS`, 1000 unless set: how long before Lambda's deadline work stops, so that an answer gets out.
    pub deadline_reserve: Duration,
    /// `METRICS_NAMESPACE`, `sqs-etl` unless set: the CloudWatch namespace.
    pub metrics_namespace: String,
    /// `AWS_LAMBDA_FUNCTION_NAME`, `ingest` unless set: the metrics' dimension.
    pub function_name: String,
    /// `RUST_LOG` as it stands; telemetry makes sense of it.
    pub rust_log: Option<String>,
}

/// Where the database is, who we are there, and how it is reached.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// Where user name, password and, mostly, the address come from.
    pub source: DatabaseSource,
    /// What fills in where the secret has no address.
    pub fallback: Address,
    /// `DB_SSLMODE` and `DB_SSLROOTCERT`, or `sslmode` and `sslrootcert` inside `DATABASE_URL`.
    pub ssl_mode: SslMode,
    /// `DB_POOL_SIZE`, 1 to 100. Unless set, as many as Lambda may run invocations in this environment at once.
    pub pool_size: usize,
    /// `DB_CONNECT_TIMEOUT_MS`, 5000 unless set: one attempt, from the name look-up to the end of the login.
    pub connect_timeout: Duration,
}

/// Where the database's user name and password come from.
#[derive(Clone)]
pub enum DatabaseSource {
    /// `DB_SECRET_ARN`: a secret in Secrets Manager, in the shape that RDS gives it.
    Secret { arn: String },
    /// `DATABASE_URL`, parsed, host and database name included.
    Url(Box<tokio_postgres::Config>),
}

/// `DB_HOST`, `DB_PORT` and `DB_NAME`: RDS's own secrets carry a user name and a password only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub dbname: Option<String>,
}

/// How the connection to the database is protected. There is nothing in between, see `SslMode::refusal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS at all.
    Disable,
    /// TLS; the server proves by its certificate that it bears the host name we asked for.
    VerifyFull {
        /// A PEM file whose certificates are trusted in place of the built-in roots of RDS.
        roots: Option<PathBuf>,
    },
}

/// Where the masking keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaskingSource {
    /// `MASKING_SECRET_ARN`: a secret in Secrets Manager.
    Secret { arn: String },
    /// `MASKING_KEY`: the secret's text itself.
    Key(SecretText),
}

/// How Secrets Manager is reached: of the settings that AWS's own tools know, those that we honour.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aws {
    /// `AWS_REGION`, else `AWS_DEFAULT_REGION`. Lambda sets both.
    pub region: Option<String>,
    /// `AWS_ENDPOINT_URL_SECRETS_MANAGER`, else `AWS_ENDPOINT_URL`: a server in place of AWS's own.
    pub endpoint: Option<String>,
    /// `AWS_USE_FIPS_ENDPOINT=true`.
    pub use_fips: bool,
    /// `AWS_USE_DUALSTACK_ENDPOINT=true`: by IPv6 too.
    pub use_dual_stack: bool,
}

/// Text that must not be shown.
///
/// **Invariant:** its `Debug` does not quote it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

/// All that is missing or wrong in the environment, each with what to do about it. Quotes no value that may be secret.
#[derive(Debug, thiserror::Error)]
#[error("{} in the environment: {}", count(.problems.len()), .problems.join("; "))]
pub struct ConfigError {
    problems: Vec<String>,
}

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Config, ConfigError> {
        Config::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads settings through `lookup`, which answers a name with its value.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let mut settings = Settings { lookup: &lookup, problems: Vec::new() };
        let database = settings.database();
        let masking = settings.masking();
        let deadline_reserve = settings.milliseconds("DEADLINE_RESERVE_MS", 1_000, 100..=60_000);
        let metrics_namespace = settings.metrics_namespace();
        match (database, masking) {
            (Some(database), Some(masking)) if settings.problems.is_empty() => Ok(Config {
                contract_path: settings.text("CONTRACT_PATH").map(PathBuf::from),
                database,
                masking,
                aws: settings.aws(),
                deadline_reserve,
                metrics_namespace,
                function_name: settings.text("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|| "ingest".into()),
                rust_log: settings.text("RUST_LOG"),
            }),
            _ => Err(ConfigError { problems: settings.problems }),
        }
    }
}

/// Whether Lambda, or something that plays it, started this process.
pub fn is_on_lambda() -> bool {
    std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some()
}

impl ConfigError {
    /// One sentence a fault, each beginning with the setting's name.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl SecretText {
    /// Takes over what must not be shown.
    pub fn new(text: impl Into<String>) -> SecretText {
        SecretText(text.into())
    }

    /// The text itself. Whoever calls this keeps the invariant from there on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(_)")
    }
}

impl fmt::Debug for DatabaseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseSource::Secret { arn } => f.debug_struct("Secret").field("arn", arn).finish(),
            DatabaseSource::Url(_) => f.write_str("Url(_)"),
        }
    }
}

impl SslMode {
    /// Why a libpq mode that encrypts is not offered here; `None` for a word that libpq does not know either.
    fn refusal(mode: &str) -> Option<&'static str> {
        match mode {
            "require" => Some("encrypts without checking who answers"),
            "verify-ca" => Some("does not check the host name"),
            "allow" | "prefer" => Some("may fall back to plain text unnoticed"),
            _ => None,
        }
    }
}

/// Reads settings one by one and gathers what is wrong with them.
struct Settings<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl Settings<'_> {
    fn database(&mut self) -> Option<DatabaseConfig> {
        let pool_size = self.pool_size();
        let connect_timeout = self.milliseconds("DB_CONNECT_TIMEOUT_MS", 5_000, 1..=60_000);
        let fallback = Address {
            host: self.text("DB_HOST"),
            port: self.number("DB_PORT", 1..=65_535),
            dbname: self.text("DB_NAME"),
        };
        let (source, tls) = match self.either("DB_SECRET_ARN", "DATABASE_URL") {
            Some(Either::First(arn)) => (Some(DatabaseSource::Secret { arn }), TlsOptions::default()),
            Some(Either::Second(url)) => {
                let (url, tls) = split_tls_options(&url);
                (self.database_url(&url, &fallback), tls)
            }
            None => (None, TlsOptions::default()),
        };
        let ssl_mode = self.ssl_mode(tls);
        Some(DatabaseConfig { source: source?, fallback, ssl_mode: ssl_mode?, pool_size, connect_timeout })
    }

    /// The parser's own error is left out: it may quote a piece of a password that was not escaped.
    fn database_url(&mut self, url: &str, fallback: &Address) -> Option<DatabaseSource> {
        let Ok(mut config) = url.parse::<tokio_postgres::Config>() else {
            return self.problem(
                "DATABASE_URL cannot be read: write postgresql://user:password@host:port/database and percent-encode \
                 special characters in it",
            );
        };
        fallback.fill(&mut config);
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return self.problem("DATABASE_URL names no host: add it, or set DB_HOST");
        }
        if config.get_dbname().is_none() {
            return self.problem("DATABASE_URL names no database: add it, or set DB_NAME");
        }
        Some(DatabaseSource::Url(Box::new(config)))
    }

    fn ssl_mode(&mut self, in_url: TlsOptions) -> Option<SslMode> {
        let mode = self.once("DB_SSLMODE", in_url.mode, "sslmode");
        let roots = self.once("DB_SSLROOTCERT", in_url.roots, "sslrootcert").map(PathBuf::from);
        match mode.as_deref() {
            None | Some("verify-full") => Some(SslMode::VerifyFull { roots }),
            Some("disable") => Some(SslMode::Disable),
            Some(other) => {
                let why = match SslMode::refusal(other) {
                    Some(why) => format!("{other} {why}"),
                    None => "no such mode".into(),
                };
                self.problem(format!(
                    "DB_SSLMODE (or sslmode in DATABASE_URL): {why}; use verify-full, with DB_SSLROOTCERT for a private \
                     certificate authority, or disable on a network you trust"
                ))
            }
        }
    }

    fn masking(&mut self) -> Option<MaskingSource> {
        Some(match self.either("MASKING_SECRET_ARN", "MASKING_KEY")? {
            Either::First(arn) => MaskingSource::Secret { arn },
            Either::Second(key) => MaskingSource::Key(SecretText(key)),
        })
    }

    fn aws(&self) -> Aws {
        let is_true = |name| self.text(name).is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
        Aws {
            region: self.text("AWS_REGION").or_else(|| self.text("AWS_DEFAULT_REGION")),
            endpoint: self.text("AWS_ENDPOINT_URL_SECRETS_MANAGER").or_else(|| self.text("AWS_ENDPOINT_URL")),
            use_fips: is_true("AWS_USE_FIPS_ENDPOINT"),
            use_dual_stack: is_true("AWS_USE_DUALSTACK_ENDPOINT"),
        }
    }

    /// AWS sets `AWS_LAMBDA_MAX_CONCURRENCY` where one environment runs several invocations at once.
    fn pool_size(&mut self) -> usize {
        let at_once = self.text("AWS_LAMBDA_MAX_CONCURRENCY").and_then(|text| text.parse().ok()).unwrap_or(1);
        self.number("DB_POOL_SIZE", 1..=100).unwrap_or(at_once).clamp(1, 100)
    }

    /// CloudWatch takes these characters only; it drops metrics of any other namespace without a word.
    fn metrics_namespace(&mut self) -> String {
        let namespace = self.text("METRICS_NAMESPACE").unwrap_or_else(|| "sqs-etl".into());
        let allowed = |c: char| c.is_ascii_alphanumeric() || " ._-/#:".contains(c);
        if namespace.len() > 255 || !namespace.chars().all(allowed) || namespace.starts_with("AWS/") {
            self.problem::<()>(
                "METRICS_NAMESPACE must have at most 255 of the characters a-z, A-Z, 0-9, space and . _ - / # : and not \
                 begin with AWS/",
            );
        }
        namespace
    }

    fn milliseconds(&mut self, name: &str, default: u64, allowed: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(name, allowed).unwrap_or(default))
    }

    fn number<T: FromStr + PartialOrd + fmt::Display>(&mut self, name: &str, allowed: RangeInclusive<T>) -> Option<T> {
        match self.text(name)?.parse() {
            Ok(number) if allowed.contains(&number) => Some(number),
            _ => self.problem(format!("{name} must be a number from {} to {}", allowed.start(), allowed.end())),
        }
    }

    fn either(&mut self, first: &str, second: &str) -> Option<Either> {
        match (self.text(first), self.text(second)) {
            (Some(value), None) => Some(Either::First(value)),
            (None, Some(value)) => Some(Either::Second(value)),
            (None, None) => self.problem(format!("{first} or {second} is missing: set one of them")),
            (Some(_), Some(_)) => self.problem(format!("{first} and {second} are both set: unset one of them")),
        }
    }

    /// A setting that may stand inside `DATABASE_URL` as well, and must not say two things.
    fn once(&mut self, name: &str, in_url: Option<String>, option: &str) -> Option<String> {
        match (self.text(name), in_url) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                self.problem(format!("{name} and {option} in DATABASE_URL differ: unset one of them"))
            }
            (ours, theirs) => ours.or(theirs),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.trim().is_empty())
    }

    fn problem<T>(&mut self, text: impl Into<String>) -> Option<T> {
        self.problems.push(text.into());
        None
    }
}

impl Address {
    /// Puts in what `config` lacks.
    pub fn fill(&self, config: &mut tokio_postgres::Config) {
        if let (true, Some(host)) = (config.get_hosts().is_empty(), &self.host) {
            config.host(host);
        }
        if let (true, Some(port)) = (config.get_ports().is_empty(), self.port) {
            config.port(port);
        }
        if let (None, Some(dbname)) = (config.get_dbname(), &self.dbname) {
            config.dbname(dbname);
        }
    }
}

enum Either {
    First(String),
    Second(String),
}

/// What a connection string says about TLS.
#[derive(Debug, Default, PartialEq, Eq)]
struct TlsOptions {
    mode: Option<String>,
    roots: Option<String>,
}

impl TlsOptions {
    /// Keeps the option if it is about TLS, and says whether it is.
    fn take(&mut self, name: &str, value: impl FnOnce() -> String) -> bool {
        let place = match name {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.roots,
            _ => return false,
        };
        *place = Some(value()).filter(|value| !value.is_empty());
        true
    }
}

/// Takes `sslmode` and `sslrootcert` out of a connection string: tokio-postgres refuses `sslmode=verify-full`, and
/// knows no `sslrootcert`.
fn split_tls_options(url: &str) -> (String, TlsOptions) {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") { split_url(url) } else { split_pairs(url) }
}

/// `postgresql://user:password@host/database?key=value&key=value`. The password may hold an unescaped `?`.
fn split_url(url: &str) -> (String, TlsOptions) {
    let mut tls = TlsOptions::default();
    let after_login = url.find('@').map_or(0, |at| at + 1);
    let Some(question) = url[after_login..].find('?').map(|at| after_login + at) else {
        return (url.to_owned(), tls);
    };
    let others: Vec<&str> = url[question + 1..]
        .split('&')
        .filter(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            !tls.take(name, || percent_decode_str(value).decode_utf8_lossy().into_owned())
        })
        .collect();
    let mark = if others.is_empty() { "" } else { "?" };
    (format!("{}{mark}{}", &url[..question], others.join("&")), tls)
}

/// `key=value key='quoted value'`, backslashes escaping inside and outside of quotes.
fn split_pairs(text: &str) -> (String, TlsOptions) {
    let mut tls = TlsOptions::default();
    let mut others = String::new();
    let mut rest = text.trim_start();
    while let Some((name, raw)) = next_pair(rest) {
        let (pair, after) = rest.split_at(name.len() + raw.len());
        let value = || unquote(raw.trim_start().trim_start_matches('=').trim_start());
        if !tls.take(name, value) {
            others.push_str(pair);
            others.push(' ');
        }
        rest = after.trim_start();
    }
    others.push_str(rest);
    (others, tls)
}

/// The next pair's name, and everything from behind the name to the end of the value as it is written.
fn next_pair(text: &str) -> Option<(&str, &str)> {
    let name = text.split(|c: char| c.is_whitespace() || c == '=').next().filter(|name| !name.is_empty())?;
    let behind = &text[name.len()..];
    let value = behind.trim_start().strip_prefix('=')?.trim_start();
    let quoted = value.starts_with('\'');
    let mut escaped = false;
    let end = value.char_indices().skip(usize::from(quoted)).find(|&(_, c)| {
        let ends = !escaped && if quoted { c == '\'' } else { c.is_whitespace() };
        escaped = !escaped && c == '\\';
        ends
    });
    let length = match end {
        Some((at, _)) => at + usize::from(quoted),
        None => value.len(),
    };
    Some((name, &behind[..behind.len() - value.len() + length]))
}

fn unquote(value: &str) -> String {
    let inner = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')).unwrap_or(value);
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        text.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    text
}

fn count(faults: usize) -> String {
    if faults == 1 { "1 fault".into() } else { format!("{faults} faults") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: &[(&str, &str)] = &[("DB_SECRET_ARN", "arn:db"), ("MASKING_SECRET_ARN", "arn:mask")];
    const LITERAL: &[(&str, &str)] = &[("DATABASE_URL", "postgresql://u:p@h/d"), ("MASKING_KEY", "k")];

    fn read(basis: &[(&str, &str)], more: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let find = |name: &str| more.iter().chain(basis).find(|(key, _)| *key == name);
        Config::from_lookup(|name| find(name).map(|(_, value)| value.to_string()))
    }

    /// Each fault must be named, in order, by a text that holds the words given.
    #[track_caller]
    fn check_faults(basis: &[(&str, &str)], more: &[(&str, &str)], words: &[&str]) {
        let error = read(basis, more).expect_err("a fault");
        assert_eq!(error.problems().len(), words.len(), "{error}");
        for (problem, words) in error.problems().iter().zip(words) {
            assert!(problem.contains(words), "{words} is not in: {problem}");
        }
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }

    #[track_caller]
    fn check_url(url: &str, more: &[(&str, &str)], host: &str, dbname: &str, ssl_mode: &SslMode) {
        let mut settings = vec![("DATABASE_URL", url)];
        settings.extend(more);
        let config = read(LITERAL, &settings).unwrap_or_else(|error| panic!("{url}: {error}"));
        let DatabaseSource::Url(parsed) = &config.database.source else { panic!("not a URL") };
        assert_eq!(parsed.get_hosts(), [tokio_postgres::config::Host::Tcp(host.into())], "{url}");
        assert_eq!(parsed.get_dbname(), Some(dbname), "{url}");
        assert_eq!(parsed.get_password(), Some("hunter2 ?'\\".as_bytes()), "{url}");
        assert_eq!(&config.database.ssl_mode, ssl_mode, "{url}");
        assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    }

    #[test]
    fn two_arns_are_enough() {
        let config = read(SECRETS, &[]).unwrap();
        assert!(matches!(&config.database.source, DatabaseSource::Secret { arn } if arn == "arn:db"));
        assert_eq!(config.database.ssl_mode, SslMode::VerifyFull { roots: None });
        assert_eq!(config.database.pool_size, 1);
        assert_eq!(config.database.connect_timeout, Duration::from_secs(5));
        assert_eq!(config.masking, MaskingSource::Secret { arn: "arn:mask".into() });
        assert_eq!(config.deadline_reserve, Duration::from_secs(1));
        assert_eq!(config.metrics_namespace, "sqs-etl");
        assert_eq!((config.contract_path, config.rust_log), (None, None));
    }

    #[test]
    fn everything_missing_or_wrong_is_named_at_once() {
        check_faults(&[], &[], &["DB_SECRET_ARN or DATABASE_URL", "MASKING_SECRET_ARN or MASKING_KEY"]);
        let wrong = [
            ("DB_POOL_SIZE", "0"),
            ("DB_CONNECT_TIMEOUT_MS", "soon"),
            ("DB_PORT", "70000"),
            ("DB_SSLMODE", "on"),
            ("MASKING_KEY", "hunter2"),
            ("MASKING_SECRET_ARN", "arn"),
            ("DEADLINE_RESERVE_MS", "-1"),
            ("METRICS_NAMESPACE", "AWS/Lambda"),
        ];
        check_faults(
            &[],
            &wrong,
            &[
                "DB_POOL_SIZE must be a number from 1 to 100",
                "DB_CONNECT_TIMEOUT_MS",
                "DB_PORT must be a number from 1 to 65535",
                "DB_SECRET_ARN or DATABASE_URL",
                "DB_SSLMODE",
                "MASKING_SECRET_ARN and MASKING_KEY are both set",
                "DEADLINE_RESERVE_MS",
                "METRICS_NAMESPACE",
            ],
        );
    }

    #[test]
    fn an_empty_value_counts_as_unset() {
        let empty = [("DATABASE_URL", ""), ("MASKING_KEY", " "), ("DB_SSLMODE", ""), ("DB_PORT", ""), ("DB_HOST", "")];
        let config = read(SECRETS, &empty).unwrap();
        assert_eq!(config.database.fallback, Address::default());
    }

    #[test]
    fn modes_that_only_seem_safe_are_refused_with_the_reason() {
        for (mode, why) in [
            ("require", "encrypts without checking who answers"),
            ("verify-ca", "does not check the host name"),
            ("prefer", "may fall back to plain text"),
            ("allow", "may fall back to plain text"),
            ("hunter2", "no such mode; use verify-full"),
        ] {
            check_faults(SECRETS, &[("DB_SSLMODE", mode)], &[why]);
            check_faults(LITERAL, &[("DATABASE_URL", &format!("postgresql://u:p@h/d?sslmode={mode}"))], &[why]);
        }
    }

    #[test]
    fn tls_options_inside_a_connection_string_are_honoured() {
        let built_in = SslMode::VerifyFull { roots: None };
        let private = SslMode::VerifyFull { roots: Some("/tmp/a b.pem".into()) };
        let secret = "hunter2%20%3F'%5C";
        check_url(&format!("postgres://u:{secret}@h/d"), &[], "h", "d", &built_in);
        check_url(&format!("postgresql://u:{secret}@h:1/d?sslmode=verify-full"), &[], "h", "d", &built_in);
        check_url(
            &format!("postgresql://u:{secret}@h/d?sslmode=disable&connect_timeout=3"),
            &[],
            "h",
            "d",
            &SslMode::Disable,
        );
        check_url(
            &format!("postgresql://u:{secret}@h/d?connect_timeout=3&sslrootcert=%2Ftmp%2Fa%20b.pem"),
            &[],
            "h",
            "d",
            &private,
        );
        check_url("postgresql://u:hunter2%20?'%5C@h/d?sslmode=disable", &[], "h", "d", &SslMode::Disable);
        check_url(r"host=h user=u password='hunter2 ?\'\\' dbname=d sslmode=verify-full", &[], "h", "d", &built_in);
        check_url(r"sslmode = 'disable' password = hunter2\ ?\'\\ dbname=d host=h", &[], "h", "d", &SslMode::Disable);
        check_url(r"sslrootcert='/tmp/a b.pem' password='hunter2 ?\'\\' host=h dbname=d", &[], "h", "d", &private);
        check_url(&format!("postgresql://u:{secret}@h/d"), &[("DB_SSLROOTCERT", "/tmp/a b.pem")], "h", "d", &private);
        check_url(
            &format!("postgresql://u:{secret}@h/d?sslmode=disable"),
            &[("DB_SSLMODE", "disable")],
            "h",
            "d",
            &SslMode::Disable,
        );
    }

    #[test]
    fn an_option_inside_a_quoted_value_is_not_an_option() {
        let (rest, tls) = split_tls_options("host=h password='x sslmode=disable' dbname=d");
        assert_eq!((rest.trim_end(), tls), ("host=h password='x sslmode=disable' dbname=d", TlsOptions::default()));
    }

    #[test]
    fn host_and_name_fill_in_what_a_connection_string_lacks() {
        let more = [("DB_HOST", "elsewhere"), ("DB_NAME", "logins"), ("DB_SSLMODE", "disable")];
        check_url("postgresql://u:hunter2%20%3F'%5C@", &more, "elsewhere", "logins", &SslMode::Disable);
        check_url("postgresql://u:hunter2%20%3F'%5C@h/d", &more, "h", "d", &SslMode::Disable);
    }

    #[test]
    fn a_connection_string_that_is_no_use_is_not_quoted() {
        for (url, words) in [
            ("user=u password=my hunter2 host=h dbname=d", "cannot be read"),
            ("hunter2", "cannot be read"),
            ("postgresql://u:hunter2@h:port/d", "cannot be read"),
            ("postgresql://u:hunter2@/d", "names no host"),
            ("postgresql://u:hunter2@h", "names no database"),
            ("postgresql://u:hunter2@h/d?hunter2=1", "cannot be read"),
        ] {
            check_faults(LITERAL, &[("DATABASE_URL", url)], &[words]);
        }
        check_faults(
            LITERAL,
            &[("DATABASE_URL", "postgresql://u:hunter2@h/d?sslmode=disable"), ("DB_SSLMODE", "verify-full")],
            &["DB_SSLMODE and sslmode in DATABASE_URL differ"],
        );
    }

    #[test]
    fn the_pool_is_as_large_as_lambda_runs_invocations_at_once() {
        for (settings, size) in [
            (&[("AWS_LAMBDA_MAX_CONCURRENCY", "16")][..], 16),
            (&[("AWS_LAMBDA_MAX_CONCURRENCY", "1600")], 100),
            (&[("AWS_LAMBDA_MAX_CONCURRENCY", "16"), ("DB_POOL_SIZE", "4")], 4),
            (&[("AWS_LAMBDA_MAX_CONCURRENCY", "?")], 1),
        ] {
            assert_eq!(read(SECRETS, settings).unwrap().database.pool_size, size, "{settings:?}");
        }
    }

    #[test]
    fn the_narrower_setting_of_aws_wins() {
        let aws = |settings: &[(&str, &str)]| read(SECRETS, settings).unwrap().aws;
        assert_eq!(aws(&[]), Aws::default());
        let general = [("AWS_DEFAULT_REGION", "eu-west-1"), ("AWS_ENDPOINT_URL", "http://all")];
        let expected =
            Aws { region: Some("eu-west-1".into()), endpoint: Some("http://all".into()), ..Default::default() };
        assert_eq!(aws(&general), expected);
        assert_eq!(aws(&[&general[..], &[("AWS_ENDPOINT_URL_SECRETS_MANAGER", " ")]].concat()), expected);
        let narrow = [
            ("AWS_REGION", "eu-west-2"),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://one"),
            ("AWS_USE_FIPS_ENDPOINT", "true"),
            ("AWS_USE_DUALSTACK_ENDPOINT", "TRUE"),
        ];
        let expected = Aws {
            region: Some("eu-west-2".into()),
            endpoint: Some("http://one".into()),
            use_fips: true,
            use_dual_stack: true,
        };
        assert_eq!(aws(&[&general[..], &narrow].concat()), expected);
        assert!(!aws(&[("AWS_USE_FIPS_ENDPOINT", "false")]).use_fips);
    }
}
