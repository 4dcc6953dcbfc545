//! The one call of AWS Secrets Manager that the function makes, `GetSecretValue`, over plain HTTP.
//! It checks no signature, keeps no old versions and knows no other call.
//!
//! Point the function at it with `AWS_ENDPOINT_URL_SECRETS_MANAGER` or `AWS_ENDPOINT_URL`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http_server::{HttpServer, Reply, reply};
use crate::invocation::ACCOUNT;

const TARGET: &str = "secretsmanager.GetSecretValue";

/// How the server shall fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// HTTP 500 `InternalServiceError`. An SDK tries again.
    InternalError,
    /// HTTP 400 `ThrottlingException`. An SDK tries again.
    Throttling,
    /// HTTP 400 `AccessDeniedException`. An SDK gives up.
    AccessDenied,
    /// No answer at all, until the client gives up.
    Hang,
}

/// The server. Dropped, it closes its port.
#[derive(Debug)]
pub struct Secrets {
    vault: Arc<Mutex<Vault>>,
    server: HttpServer,
}

#[derive(Debug, Default)]
struct Vault {
    secrets: HashMap<String, Secret>,
    calls: usize,
    delay: Duration,
    failure: Option<Failure>,
}

#[derive(Clone, Debug)]
struct Secret {
    value: String,
    version: String,
}

impl Secrets {
    /// An empty store on a free port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        let vault = Arc::new(Mutex::new(Vault::default()));
        let behind = Arc::clone(&vault);
        let server = HttpServer::start(move |request| answer(Arc::clone(&behind), request))
            .context("listen for Secrets Manager's clients")?;
        Ok(Self { vault, server })
    }

    /// `http://127.0.0.1:PORT`, for `AWS_ENDPOINT_URL_SECRETS_MANAGER`.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Stores a secret under its name, as a new version. It is found by its ARN too.
    pub fn set(&self, name: &str, value: impl Into<String>) {
        let secret = Secret { value: value.into(), version: Uuid::new_v4().to_string() };
        self.vault().secrets.insert(name.to_owned(), secret);
    }

    /// Forgets a secret.
    pub fn remove(&self, name: &str) {
        self.vault().secrets.remove(name);
    }

    /// The ARN of the secret `name`, in the region `us-east-1`.
    pub fn arn(name: &str) -> String {
        format!("arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:{name}-LoCaL0")
    }

    /// How many calls have come in, the failed ones included.
    pub fn calls(&self) -> usize {
        self.vault().calls
    }

    /// Has every answer wait this long.
    pub fn set_delay(&self, delay: Duration) {
        self.vault().delay = delay;
    }

    /// Has every call fail in this way; `None` ends that.
    pub fn set_failure(&self, failure: Option<Failure>) {
        self.vault().failure = failure;
    }

    fn vault(&self) -> MutexGuard<'_, Vault> {
        lock(&self.vault)
    }
}

async fn answer(vault: Arc<Mutex<Vault>>, request: Request<Bytes>) -> Reply {
    let (delay, failure, found) = {
        let mut vault = lock(&vault);
        vault.calls += 1;
        (vault.delay, vault.failure, look_up(&vault, &request))
    };
    tokio::time::sleep(delay).await;
    match failure {
        None => found,
        Some(Failure::InternalError) => {
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalServiceError", "told to fail")
        }
        Some(Failure::Throttling) => bad("ThrottlingException", "Rate exceeded"),
        Some(Failure::AccessDenied) => bad("AccessDeniedException", "told to refuse"),
        Some(Failure::Hang) => std::future::pending().await,
    }
}

fn look_up(vault: &Vault, request: &Request<Bytes>) -> Reply {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    if request.method() != Method::POST || target != Some(TARGET) {
        return bad("UnknownOperationException", "only GetSecretValue is known here");
    }
    let asked: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    let Some(id) = asked["SecretId"].as_str() else {
        return bad("InvalidParameterException", "SecretId is missing");
    };
    let named = |(name, _): &(&String, &Secret)| name.as_str() == id || Secrets::arn(name) == id;
    match vault.secrets.iter().find(named) {
        Some((name, secret)) => found(name, secret),
        None => bad("ResourceNotFoundException", "Secrets Manager can't find the specified secret."),
    }
}

fn found(name: &str, secret: &Secret) -> Reply {
    let body = json!({
        "ARN": Secrets::arn(name),
        "Name": name,
        "SecretString": secret.value,
        "VersionId": secret.version,
        "VersionStages": ["AWSCURRENT"],
        "CreatedDate": 0,
    });
    amz_json(reply(StatusCode::OK, body.to_string()))
}

fn bad(kind: &str, message: &str) -> Reply {
    refusal(StatusCode::BAD_REQUEST, kind, message)
}

fn refusal(status: StatusCode, kind: &str, message: &str) -> Reply {
    amz_json(reply(status, json!({"__type": kind, "Message": message}).to_string()))
}

fn amz_json(mut reply: Reply) -> Reply {
    let kind = hyper::header::HeaderValue::from_static("application/x-amz-json-1.1");
    reply.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    reply
}

fn lock(vault: &Mutex<Vault>) -> MutexGuard<'_, Vault> {
    vault.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn ask(secrets: &Secrets, target: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(secrets.server.address()).unwrap();
        let length = body.len();
        let head = format!("x-amz-target: {target}\r\ncontent-length: {length}\r\nconnection: close");
        write!(stream, "POST / HTTP/1.1\r\nhost: h\r\n{head}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    fn get(secrets: &Secrets, id: &str) -> (u16, Value) {
        ask(secrets, TARGET, &json!({"SecretId": id}).to_string())
    }

    #[test]
    fn a_secret_is_found_by_name_and_by_arn_and_each_change_is_a_version() {
        let secrets = Secrets::start().unwrap();
        secrets.set("db", r#"{"password":"one"}"#);
        let (status, first) = get(&secrets, "db");
        assert_eq!(status, 200);
        assert_eq!(first["SecretString"], r#"{"password":"one"}"#);
        assert_eq!(first["Name"], "db");
        assert_eq!(first["VersionStages"], json!(["AWSCURRENT"]));
        assert_eq!(get(&secrets, first["ARN"].as_str().unwrap()), (200, first.clone()));

        secrets.set("db", "two");
        let (_, second) = get(&secrets, "db");
        assert_eq!(second["SecretString"], "two");
        assert_ne!(second["VersionId"], first["VersionId"]);
        assert_eq!(secrets.calls(), 3);
    }

    #[test]
    fn what_is_not_there_or_not_known_is_refused_in_awss_words() {
        let secrets = Secrets::start().unwrap();
        secrets.set("db", "x");
        secrets.remove("db");
        let kind = |(status, body): (u16, Value)| (status, body["__type"].as_str().unwrap().to_owned());
        assert_eq!(kind(get(&secrets, "db")), (400, "ResourceNotFoundException".into()));
        assert_eq!(kind(ask(&secrets, TARGET, "{}")), (400, "InvalidParameterException".into()));
        let other = ask(&secrets, "secretsmanager.ListSecrets", "{}");
        assert_eq!(kind(other), (400, "UnknownOperationException".into()));
    }

    #[test]
    fn it_fails_as_told_and_then_works_again() {
        let secrets = Secrets::start().unwrap();
        secrets.set("db", "x");
        for (failure, status) in
            [(Failure::InternalError, 500), (Failure::Throttling, 400), (Failure::AccessDenied, 400)]
        {
            secrets.set_failure(Some(failure));
            assert_eq!(get(&secrets, "db").0, status);
        }
        secrets.set_failure(None);
        secrets.set_delay(Duration::from_millis(1));
        assert_eq!(get(&secrets, "db").0, 200);
    }
}
