//! Who we are to the database, and the masking keys: out of Secrets Manager, or out of the environment.
//!
//! The AWS SDK is set up at the first fetch, so that with `DATABASE_URL` and `MASKING_KEY` none of it runs. Every fetch
//! is bounded, because Lambda gives a function 10 s to start. AWS credentials come from where Lambda puts them: the
//! environment or, with SnapStart, the container endpoint. Not here: profiles, SSO, instance metadata and all else that
//! the SDK's default chain tries, which add 1.7 MB to the program; what the masking keys mean; the logins.
//!
//! **Invariant:** no error text says more of a secret than that a field is missing.

pub mod https;

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use aws_config::{
    ecs::EcsCredentialsProvider, environment::EnvironmentVariableCredentialsProvider,
    meta::credentials::CredentialsProviderChain, provider_config::ProviderConfig,
};
use aws_credential_types::provider::{SharedCredentialsProvider, error::CredentialsError};
use aws_sdk_secretsmanager::{
    Client,
    config::{
        BehaviorVersion, Region, SharedHttpClient, http::HttpResponse, retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    operation::get_secret_value::GetSecretValueError,
};
use futures_util::FutureExt;
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};

use crate::{
    config::{Address, Aws, Config, DatabaseSource, MaskingSource, SecretText},
    database::{Credentials, Freshness},
};

/// From the first look for AWS credentials to the secret, retries included.
const FETCH_LIMIT: Duration = Duration::from_secs(6);
/// One request. Secrets Manager answers in some 10 ms; a missing route answers never.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(2_500);
const CONNECT_LIMIT: Duration = Duration::from_millis(1_500);
const ATTEMPTS: u32 = 3;

/// The function's secrets, fetched when they are asked for.
pub struct Secrets {
    database: DatabaseSource,
    fallback: Address,
    masking: MaskingSource,
    aws: Aws,
    /// Who asks, if it is not to be found out here.
    identity: Option<SharedCredentialsProvider>,
    client: OnceCell<Client>,
    login: Mutex<Option<tokio_postgres::Config>>,
    fetches: AtomicU64,
}

impl Secrets {
    /// Only remembers where the secrets are.
    pub fn new(config: &Config) -> Secrets {
        Secrets {
            database: config.database.source.clone(),
            fallback: config.database.fallback.clone(),
            masking: config.masking.clone(),
            aws: config.aws.clone(),
            identity: None,
            client: OnceCell::new(),
            login: Mutex::default(),
            fetches: AtomicU64::new(0),
        }
    }

    /// The same with AWS credentials that somebody else looks for, by profiles, say.
    pub fn with_identity(config: &Config, identity: SharedCredentialsProvider) -> Secrets {
        Secrets { identity: Some(identity), ..Secrets::new(config) }
    }

    /// The database's address, user name and password, in the form that `Database` asks for them.
    pub fn credentials(self: &Arc<Self>) -> Credentials {
        let secrets = Arc::clone(self);
        Arc::new(move |freshness| {
            let secrets = Arc::clone(&secrets);
            async move { secrets.login(freshness).await }.boxed()
        })
    }

    /// The text that holds the masking keys. Fetched at every call.
    pub async fn masking_secret(&self) -> anyhow::Result<SecretText> {
        match &self.masking {
            MaskingSource::Key(text) => Ok(text.clone()),
            MaskingSource::Secret { arn } => {
                self.fetch(arn).await.context("fetch the masking secret (MASKING_SECRET_ARN)")
            }
        }
    }

    async fn login(&self, freshness: Freshness) -> anyhow::Result<tokio_postgres::Config> {
        match &self.database {
            DatabaseSource::Url(config) => Ok((**config).clone()),
            DatabaseSource::Secret { arn } => self.fetched_login(arn, freshness).await,
        }
    }

    /// Whoever waited while another fetched takes what the other got: a hundred refused logins make one fetch.
    async fn fetched_login(&self, arn: &str, freshness: Freshness) -> anyhow::Result<tokio_postgres::Config> {
        let fetches_before = self.fetches.load(Ordering::Acquire);
        let mut latest = self.login.lock().await;
        let was_fetched_meanwhile = self.fetches.load(Ordering::Acquire) != fetches_before;
        match &*latest {
            Some(login) if freshness == Freshness::Cached || was_fetched_meanwhile => Ok(login.clone()),
            _ => {
                let secret = self.fetch(arn).await.context("fetch the database secret (DB_SECRET_ARN)")?;
                let login =
                    database_login(&secret, &self.fallback).context("read the database secret (DB_SECRET_ARN)")?;
                self.fetches.fetch_add(1, Ordering::Release);
                Ok(latest.insert(login).clone())
            }
        }
    }

    async fn fetch(&self, arn: &str) -> anyhow::Result<SecretText> {
        let request = async {
            let client =
                self.client.get_or_try_init(async || secrets_manager(&self.aws, self.identity.clone())).await?;
            client.get_secret_value().secret_id(arn).send().await.map_err(|error| anyhow!(reason(&error)))
        };
        let secret = tokio::time::timeout(FETCH_LIMIT, request).await.map_err(|_| anyhow!(NO_ANSWER))??;
        let text = secret.secret_string.context("the secret holds binary data, not text")?;
        Ok(SecretText::new(text))
    }
}

fn secrets_manager(aws: &Aws, identity: Option<SharedCredentialsProvider>) -> anyhow::Result<Client> {
    let region = aws.region.clone().context("no AWS region: Lambda sets AWS_REGION, elsewhere it must be set")?;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_LIMIT)
        .operation_attempt_timeout(ATTEMPT_LIMIT)
        .operation_timeout(FETCH_LIMIT)
        .build();
    let http_client = https::client(aws.endpoint.as_deref(), CONNECT_LIMIT)?;
    let identity = identity.unwrap_or_else(|| SharedCredentialsProvider::new(aws_credentials(http_client.clone())));
    let mut config = aws_sdk_secretsmanager::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .use_fips(aws.use_fips)
        .use_dual_stack(aws.use_dual_stack)
        .credentials_provider(identity)
        .http_client(http_client)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
    config.set_endpoint_url(aws.endpoint.clone());
    Ok(Client::from_conf(config.build()))
}

/// From `AWS_ACCESS_KEY_ID` and its companions, else from the URL in `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
fn aws_credentials(http_client: SharedHttpClient) -> CredentialsProviderChain {
    let settings = ProviderConfig::without_region().with_http_client(http_client);
    let container = EcsCredentialsProvider::builder().configure(&settings).build();
    CredentialsProviderChain::first_try("environment", EnvironmentVariableCredentialsProvider::new())
        .or_else("container", container)
}

const NO_ANSWER: &str = "no answer from Secrets Manager in time: do the function's subnets have a VPC endpoint for \
                         it, or a NAT gateway?";
const NO_CREDENTIALS: &str = "no AWS credentials: Lambda sets AWS_ACCESS_KEY_ID and its companions; elsewhere run eval \
                              \"$(aws configure export-credentials --format env)\" first, as profiles are not read";

/// What to do about it, and Secrets Manager's error code; its message is left out.
fn reason(error: &SdkError<GetSecretValueError, HttpResponse>) -> String {
    let Some(refusal) = error.as_service_error() else {
        return unanswered(error).into();
    };
    let code = refusal.code().unwrap_or("no error code");
    match code {
        "AccessDeniedException" => {
            format!("access denied ({code}): the role needs secretsmanager:GetSecretValue on this secret")
        }
        "ResourceNotFoundException" => {
            format!("not found ({code}): there is no such secret in this account and region, or it has no value yet")
        }
        "InvalidRequestException" => format!("unusable ({code}): is the secret marked for deletion?"),
        "DecryptionFailure" => {
            format!("cannot be decrypted ({code}): the role needs kms:Decrypt on its key")
        }
        _ => format!("refused ({code})"),
    }
}

fn unanswered(error: &SdkError<GetSecretValueError, HttpResponse>) -> &'static str {
    match credentials_error(error) {
        Some(CredentialsError::CredentialsNotLoaded(_)) => return NO_CREDENTIALS,
        Some(_) => return "AWS credentials cannot be had from AWS_CONTAINER_CREDENTIALS_FULL_URI",
        None => {}
    }
    match error {
        SdkError::TimeoutError(_) => NO_ANSWER,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => NO_ANSWER,
        SdkError::DispatchFailure(failure) if failure.is_io() => "Secrets Manager cannot be reached",
        SdkError::DispatchFailure(_) => "the request could not be sent: is AWS_ENDPOINT_URL, if set, a URL?",
        SdkError::ConstructionFailure(_) => "the request could not be built: is AWS_REGION a region?",
        _ => "the answer could not be read",
    }
}

fn credentials_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CredentialsError> {
    anyhow::Chain::new(error).find_map(|cause| cause.downcast_ref())
}

/// The JSON that RDS, and the rotation functions AWS offers, keep in a secret.
#[derive(Deserialize)]
struct DatabaseSecret {
    engine: Option<String>,
    host: Option<String>,
    port: Option<Port>,
    dbname: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// RDS writes a number, people write a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Text(String),
}

fn database_login(secret: &SecretText, fallback: &Address) -> anyhow::Result<tokio_postgres::Config> {
    let secret: DatabaseSecret = serde_json::from_str(secret.expose()).map_err(|error| json_fault(&error))?;
    let engine = filled(secret.engine);
    ensure!(engine.is_none_or(|engine| engine.contains("postgres")), "its `engine` is not postgres");
    let mut config = tokio_postgres::Config::new();
    config.user(filled(secret.username).context("it has no `username`")?);
    config.password(filled(secret.password).context("it has no `password`")?);
    filled(secret.host).map(|host| config.host(host));
    filled(secret.dbname).map(|dbname| config.dbname(dbname));
    secret.port.map(Port::number).transpose()?.flatten().map(|port| config.port(port));
    fallback.fill(&mut config);
    if config.get_hosts().is_empty() {
        bail!("it has no `host`, as a secret that RDS manages never has: set DB_HOST");
    }
    if config.get_dbname().is_none() {
        bail!("it has no `dbname`, as a secret that RDS manages never has: set DB_NAME");
    }
    Ok(config)
}

impl Port {
    fn number(self) -> anyhow::Result<Option<u16>> {
        match self {
            Port::Number(number) => Ok(Some(number)),
            Port::Text(text) if text.trim().is_empty() => Ok(None),
            Port::Text(text) => text.trim().parse().map(Some).map_err(|_| anyhow!("its `port` is not a port number")),
        }
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// The place only: serde_json's own text quotes what it found there.
fn json_fault(error: &serde_json::Error) -> anyhow::Error {
    let what = match error.classify() {
        serde_json::error::Category::Data => "a field of it has the wrong type",
        _ => "it is not JSON",
    };
    anyhow!("{what} (line {}, column {})", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use aws_sdk_secretsmanager::{config::Credentials as AwsCredentials, error::ErrorMetadata};
    use futures_util::future::join_all;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn address() -> Address {
        Address { host: Some("fallback".into()), port: Some(6432), dbname: Some("logins".into()) }
    }

    #[track_caller]
    fn check_login(secret: &str, fallback: Address, expected: &str) {
        let login = database_login(&SecretText::new(secret), &fallback);
        let found = match &login {
            Ok(login) => format!(
                "{:?}@{:?}:{:?}/{:?}",
                login.get_user().unwrap(),
                login.get_hosts(),
                login.get_ports(),
                login.get_dbname().unwrap()
            ),
            Err(error) => format!("{error:#}"),
        };
        assert_eq!(found, expected, "{secret}");
        assert!(!format!("{login:?}").contains("hunter2"), "{secret}");
    }

    #[track_caller]
    fn check_reason(code: &str, expected: &str) {
        let metadata = ErrorMetadata::builder().code(code).message("hunter2").build();
        let response = HttpResponse::new(400.try_into().unwrap(), "hunter2".into());
        let reason = reason(&SdkError::service_error(GetSecretValueError::generic(metadata), response));
        assert!(reason.starts_with(expected) && reason.contains(code) && !reason.contains("hunter2"), "{reason}");
    }

    #[test]
    fn a_secret_in_the_shape_of_rds_gives_a_login() {
        let whole =
            r#"{"engine":"postgres","host":"db","port":5433,"dbname":"d","username":"u","password":"hunter2","x":[]}"#;
        check_login(whole, Address::default(), r#""u"@[Tcp("db")]:[5433]/"d""#);
        check_login(whole, address(), r#""u"@[Tcp("db")]:[5433]/"d""#);
        let text = r#"{"host":"db","port":" 5433 ","dbname":"d","username":"u","password":"hunter2"}"#;
        check_login(text, address(), r#""u"@[Tcp("db")]:[5433]/"d""#);
    }

    #[test]
    fn what_a_secret_lacks_is_filled_in_from_the_environment() {
        for bare in [
            r#"{"username":"u","password":"hunter2"}"#,
            r#"{"username":"u","password":"hunter2","host":"","port":"","dbname":null,"engine":""}"#,
        ] {
            check_login(bare, address(), r#""u"@[Tcp("fallback")]:[6432]/"logins""#);
            check_login(
                bare,
                Address::default(),
                "it has no `host`, as a secret that RDS manages never has: set DB_HOST",
            );
            check_login(
                bare,
                Address { dbname: None, ..address() },
                "it has no `dbname`, as a secret that RDS manages never has: set DB_NAME",
            );
        }
    }

    #[test]
    fn a_secret_that_is_no_use_is_not_quoted() {
        for (secret, expected) in [
            ("hunter2", "it is not JSON (line 1, column 1)"),
            (r#"{"password":"hunter2""#, "it is not JSON (line 1, column 21)"),
            (r#"{"username":"u","password":["hunter2"]}"#, "a field of it has the wrong type (line 1, column 27)"),
            (r#"{"username":"u","password":"p","port":-5}"#, "a field of it has the wrong type (line 1, column 41)"),
            (r#"{"username":"u","password":"p","port":"hunter2"}"#, "its `port` is not a port number"),
            (r#"{"password":"hunter2"}"#, "it has no `username`"),
            (r#"{"username":"hunter2","password":""}"#, "it has no `password`"),
            (r#"{"username":"u","password":"hunter2","engine":"hunter2"}"#, "its `engine` is not postgres"),
        ] {
            check_login(secret, address(), expected);
        }
    }

    #[test]
    fn the_reason_says_what_to_do_and_leaves_the_message_out() {
        check_reason("AccessDeniedException", "access denied");
        check_reason("ResourceNotFoundException", "not found");
        check_reason("InvalidRequestException", "unusable");
        check_reason("DecryptionFailure", "cannot be decrypted");
        check_reason("ThrottlingException", "refused");
    }

    #[test]
    fn an_error_of_the_credentials_is_told_from_one_of_the_request() {
        let told = |error| unanswered(&SdkError::construction_failure(error));
        assert_eq!(told(CredentialsError::not_loaded("hunter2")), NO_CREDENTIALS);
        assert!(told(CredentialsError::provider_error("hunter2")).contains("AWS_CONTAINER_CREDENTIALS_FULL_URI"));
        assert!(unanswered(&SdkError::construction_failure("hunter2")).contains("AWS_REGION"));
    }

    /// Answers every request with the same secret after a while, and counts.
    async fn secrets_manager_at(listener: TcpListener, requests: Arc<AtomicU64>) {
        const BODY: &str = r#"{"SecretString":"{\"username\":\"u\",\"password\":\"p\"}"}"#;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let requests = Arc::clone(&requests);
            tokio::spawn(async move {
                let mut request = [0; 8192];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    requests.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    }

    fn client(endpoint: &str) -> Client {
        let config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(https::client(Some(endpoint), CONNECT_LIMIT).unwrap())
            .endpoint_url(endpoint)
            .retry_config(RetryConfig::disabled())
            .region(Region::from_static("eu-west-1"))
            .credentials_provider(AwsCredentials::new("id", "key", None, None, "test"))
            .build();
        Client::from_conf(config)
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_or_hangs_up_is_told_from_a_faulty_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hangs_up = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                drop(listener.accept().await);
            }
        });
        for (endpoint, expected) in [
            ("http://127.0.0.1:1", "Secrets Manager cannot be reached"),
            ("http://no-such-host.invalid", "Secrets Manager cannot be reached"),
            (&hangs_up, "Secrets Manager cannot be reached"),
            ("http://", "AWS_ENDPOINT_URL"),
        ] {
            let answer = client(endpoint).get_secret_value().secret_id("arn").send().await;
            let told = reason(&answer.unwrap_err());
            assert!(told.contains(expected), "{endpoint}: {told}");
        }
    }

    #[tokio::test]
    async fn a_hundred_refused_logins_make_one_fetch() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicU64::new(0));
        tokio::spawn(secrets_manager_at(listener, Arc::clone(&requests)));
        let secrets = Arc::new(Secrets {
            database: DatabaseSource::Secret { arn: "arn".into() },
            fallback: address(),
            masking: MaskingSource::Secret { arn: "arn".into() },
            aws: Aws::default(),
            identity: None,
            client: OnceCell::new_with(Some(client(&endpoint))),
            login: Mutex::default(),
            fetches: AtomicU64::new(0),
        });
        let credentials = secrets.credentials();

        for (freshness, fetches) in
            [(Freshness::Cached, 1), (Freshness::Cached, 1), (Freshness::Fresh, 2), (Freshness::Cached, 2)]
        {
            for login in join_all((0..100).map(|_| credentials(freshness))).await {
                assert_eq!(login.unwrap().get_user(), Some("u"));
            }
            assert_eq!(requests.load(Ordering::Relaxed), fetches, "{freshness:?}");
        }
    }
}
