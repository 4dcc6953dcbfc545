//! Who the function is to the database and where its keys come from: rotation, TLS, and what a faulty setting says.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use sqs_etl_local::function::{Function, InitFailure};
use sqs_etl_local::postgres::{TempPostgres, shared_postgres};
use sqs_etl_local::secrets::{Failure, Secrets};

use crate::harness::{Answer, MASKING_KEY, count, event, file, fresh_database, function, invoke, login};

/// A function that gets both of its secrets from Secrets Manager.
struct Vault {
    postgres: &'static TempPostgres,
    database: String,
    secrets: Secrets,
    function: Function,
}

impl Vault {
    fn new(masking_secret: &str) -> Self {
        let postgres = shared_postgres();
        let database = fresh_database(postgres);
        let secrets = Secrets::start().unwrap();
        secrets.set("masking", masking_secret);
        let variables = [
            ("DB_SECRET_ARN", Secrets::arn("database")),
            ("MASKING_SECRET_ARN", Secrets::arn("masking")),
            // An empty value counts as unset.
            ("MASKING_KEY", String::new()),
            ("AWS_ENDPOINT_URL", secrets.url()),
            ("DB_SSLMODE", "disable".to_owned()),
        ];
        let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
        Self { postgres, database, secrets, function: function(&variables) }
    }

    /// A role that may do what the migrations say the function needs.
    fn create_role(&self, role: &str, password: &str) {
        let name = self.role(role);
        self.sql(&format!(
            "create role {name} login password '{password}'; \
             grant insert, select (message_id) on user_logins to {name}"
        ));
    }

    /// Roles belong to the whole server, so each test has names of its own.
    fn role(&self, role: &str) -> String {
        format!("{role}_{}", self.database)
    }

    fn set_login(&self, role: &str, password: &str) {
        let secret = json!({
            "engine": "postgres", "host": "127.0.0.1", "port": self.postgres.port(), "dbname": self.database,
            "username": self.role(role), "password": password,
        });
        self.secrets.set("database", secret.to_string());
    }

    fn end_sessions(&self) {
        let end = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where application_name = 'sqs-etl' and datname = current_database()";
        assert_eq!(self.sql(end).len(), 1, "the function had one session");
    }

    fn sql(&self, statements: &str) -> Vec<Vec<Option<String>>> {
        self.postgres.sql(&self.database, statements).unwrap()
    }

    fn stores(&self, number: usize) {
        assert_eq!(invoke(&self.function, &event(&[login(number)])).failed_ids(), [] as [&str; 0]);
    }

    fn refused_logins(&self, role: &str) -> usize {
        let line = format!("password authentication failed for user \"{}\"", self.role(role));
        self.postgres.log().lines().filter(|logged| logged.contains(&line)).count()
    }
}

#[test]
fn a_rotated_password_is_not_noticed() {
    let vault = Vault::new(MASKING_KEY);
    vault.create_role("app", "v1");
    vault.set_login("app", "v1");
    vault.stores(0);
    let calls = vault.secrets.calls();
    let rotate = format!("alter role {} password 'v2'", vault.role("app"));
    vault.sql(&rotate);
    vault.set_login("app", "v2");
    vault.stores(0);
    assert_eq!(vault.secrets.calls(), calls, "an open session lives on");
    vault.end_sessions();
    vault.stores(0);
    assert_eq!(vault.refused_logins("app"), 1, "the old password was tried and refused");
    assert_eq!(vault.secrets.calls(), calls + 1);
}

#[test]
fn rotation_may_change_the_user_name() {
    let vault = Vault::new(MASKING_KEY);
    vault.create_role("app", "v1");
    vault.create_role("app_clone", "v1");
    vault.set_login("app", "v1");
    vault.stores(0);
    vault.set_login("app_clone", "v1");
    let rotate = format!("alter role {} nologin password null", vault.role("app"));
    vault.sql(&rotate);
    vault.end_sessions();
    vault.stores(0);
}

#[test]
fn a_password_that_is_wrong_also_when_fetched_afresh_is_an_error_of_the_invocation() {
    let vault = Vault::new(MASKING_KEY);
    vault.create_role("app", "v1");
    vault.set_login("app", "wrong");
    let Answer::Error { kind, text } = invoke(&vault.function, &event(&[login(0)])) else { panic!("an error") };
    assert_eq!(kind, "Database");
    assert!(text.contains("28P01") && !text.contains("wrong\""), "{text}");
}

#[test]
fn a_secret_that_rds_manages_has_no_address_and_settings_fill_it_in() {
    let postgres = shared_postgres();
    let database = fresh_database(postgres);
    let secrets = Secrets::start().unwrap();
    secrets.set("database", r#"{"username":"postgres","password":"postgres"}"#);
    let function = function(&[
        ("DB_SECRET_ARN", &Secrets::arn("database")),
        ("AWS_ENDPOINT_URL", &secrets.url()),
        ("DB_HOST", "127.0.0.1"),
        ("DB_PORT", &postgres.port().to_string()),
        ("DB_NAME", &database),
        ("DB_SSLMODE", "disable"),
    ]);
    assert_eq!(invoke(&function, &event(&[login(0)])).failed_ids(), [] as [&str; 0]);
}

#[test]
fn new_pseudonyms_bear_the_current_key() {
    let key = |byte: &str| byte.repeat(43) + "=";
    let secret = json!({ "current": "k2", "keys": { "k1": key("A"), "k2": key("B").replace("B=", "A=") } });
    let vault = Vault::new(&secret.to_string());
    vault.create_role("app", "v1");
    vault.set_login("app", "v1");
    vault.stores(0);
    let prefix = vault.sql("select left(masked_ip, 3) || left(masked_device_id, 3) from user_logins");
    assert_eq!(prefix[0][0].as_deref(), Some("k2:k2:"));
}

/// The start fails, and Lambda and the log are told this.
fn check_start(variables: &[(&str, &str)], expected: &[&str]) {
    let function = function(variables);
    let failure = function.warm_up().expect_err("the function does not start");
    let InitFailure::Reported(error) = failure else { panic!("Lambda was not told: {failure:?}") };
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!(error["errorType"], "Function.InitError");
    assert!(function.wait_for_output("the function cannot start", Duration::from_secs(10)));
    for text in expected {
        assert!(error["errorMessage"].as_str().unwrap().contains(text), "no {text:?} in {error}");
        assert!(function.stdout().contains(text), "no {text:?} in {}", function.stdout());
    }
}

const ANY_DATABASE: (&str, &str) = ("DATABASE_URL", "postgres://u:p@127.0.0.1:1/x?sslmode=disable");

#[test]
fn a_start_without_settings_names_all_that_is_missing() {
    check_start(&[("MASKING_KEY", "")], &["DATABASE_URL", "DB_SECRET_ARN", "MASKING_SECRET_ARN", "MASKING_KEY"]);
}

#[test]
fn an_unreadable_masking_key_ends_the_start() {
    check_start(&[ANY_DATABASE, ("MASKING_KEY", "too short")], &["the masking secret is shorter than 32 characters"]);
    let secrets = Secrets::start().unwrap();
    let arn = Secrets::arn("masking");
    let url = secrets.url();
    let variables = [ANY_DATABASE, ("MASKING_KEY", ""), ("MASKING_SECRET_ARN", &arn), ("AWS_ENDPOINT_URL", &url)];
    check_start(&variables, &["fetch the masking secret (MASKING_SECRET_ARN)", "ResourceNotFoundException"]);
    secrets.set_failure(Some(Failure::AccessDenied));
    check_start(&variables, &["secretsmanager:GetSecretValue"]);
}

const NO_AWS_KEY: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("AWS_SESSION_TOKEN", "")];

#[test]
fn without_credentials_of_aws_or_a_region_the_start_ends_with_what_to_do() {
    let secrets = Secrets::start().unwrap();
    let (arn, url) = (Secrets::arn("masking"), secrets.url());
    let variables = [ANY_DATABASE, ("MASKING_KEY", ""), ("MASKING_SECRET_ARN", &arn), ("AWS_ENDPOINT_URL", &url)];
    let with = |more: &[(&'static str, &'static str)]| [&variables[..], more].concat();
    check_start(&with(&NO_AWS_KEY), &["no AWS credentials", "aws configure export-credentials --format env"]);
    check_start(&with(&[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "")]), &["no AWS region", "AWS_REGION"]);
    assert_eq!(secrets.calls(), 0);
}

#[test]
fn with_snap_start_credentials_come_from_the_container_endpoint() {
    let secrets = Secrets::start().unwrap();
    secrets.set("masking", MASKING_KEY);
    let (arn, url, (container, asked)) = (Secrets::arn("masking"), secrets.url(), container_endpoint());
    let variables = [
        ANY_DATABASE,
        ("MASKING_KEY", ""),
        ("MASKING_SECRET_ARN", &arn),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &url),
        // The other one is not asked.
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "planted-token"),
    ];
    let function = function(&[&variables[..], &NO_AWS_KEY].concat());
    function.warm_up().expect("the function starts");
    assert_eq!(secrets.calls(), 1);
    let request = asked.recv_timeout(Duration::from_secs(10)).expect("the container endpoint was asked");
    assert!(request.contains("authorization: planted-token"), "{request}");
}

/// A server that gives temporary credentials to whoever asks. Its URL, and the requests.
fn container_endpoint() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/credentials", listener.local_addr().unwrap());
    let (requests, asked) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
            let request: Vec<String> = lines.collect();
            let body = json!({
                "AccessKeyId": "ASIALOCAL", "SecretAccessKey": "local", "Token": "local",
                "Expiration": "2999-01-01T00:00:00Z",
            });
            let body = body.to_string();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
            // Nobody listens once the test is over.
            let _ = requests.send(request.join("\n"));
        }
    });
    (url, asked)
}

#[test]
fn a_faulty_contract_ends_the_start_with_all_its_faults() {
    let file = file("contract.toml", "table = \"t\"\n[columns.ip]\ntype = \"inett\"\nmask = \"md5\"\n");
    check_start(
        &[ANY_DATABASE, ("CONTRACT_PATH", file.to_str().unwrap())],
        &["contract.toml:3:8", "contract.toml:4:8", "[once]"],
    );
    check_start(
        &[ANY_DATABASE, ("CONTRACT_PATH", "/nowhere/contract.toml")],
        &["read the contract /nowhere/contract.toml"],
    );
}

#[test]
fn a_column_too_narrow_for_its_pseudonyms_ends_the_start() {
    let contract = "table = \"t\"\n[once]\ncolumn = \"message_id\"\n[columns.ip]\ntype = \"varchar(66)\"\nmask = \"hmac-sha256\"\n";
    let file = file("narrow.toml", contract);
    check_start(&[ANY_DATABASE, ("CONTRACT_PATH", file.to_str().unwrap())], &["column ip", "varchar(67)"]);
}

#[test]
fn the_server_must_prove_who_it_is() {
    let postgres = TempPostgres::builder().tls(&["localhost"]).start().unwrap();
    let database = fresh_database(&postgres);
    let right = file("right.pem", postgres.ca_pem().unwrap());
    let wrong = file("wrong.pem", postgres.unrelated_ca_pem().unwrap());
    let url = |host: &str| format!("postgres://postgres:postgres@{host}:{}/{database}", postgres.port());
    let check = |url: String, roots: Option<&PathBuf>, expected: Result<(), &str>| {
        let roots = roots.map(|path| ("DB_SSLROOTCERT", path.to_str().unwrap()));
        let variables: Vec<_> = [("DATABASE_URL", url.as_str())].into_iter().chain(roots).collect();
        let answer = invoke(&function(&variables), &event(&[login(0)]));
        match (answer, expected) {
            (Answer::Response(_), Ok(())) => {}
            (Answer::Error { text, .. }, Err(why)) => assert!(text.contains(why), "{text:?} does not say {why:?}"),
            (answer, expected) => panic!("{answer:?}, expected {expected:?}"),
        }
    };
    check(url("localhost"), Some(&right), Ok(()));
    check(url("localhost"), Some(&wrong), Err("its certificate is not signed by a root we trust"));
    check(url("127.0.0.1"), Some(&right), Err("its certificate is for another host name"));
    check(url("localhost"), None, Err("its certificate is not signed by a root we trust"));
    check(url("localhost") + "?sslmode=disable", None, Err("28000"));
    let rows = postgres.sql(&database, "select count(*) from user_logins").unwrap();
    assert_eq!(count(&rows), 1, "only the right root and name got through");
}

#[test]
fn a_server_without_tls_is_not_talked_to_unless_asked_for_by_name() {
    let postgres = shared_postgres();
    let url = postgres.url(&fresh_database(postgres));
    let Answer::Error { text, .. } = invoke(&function(&[("DATABASE_URL", &url)]), &event(&[login(0)])) else {
        panic!("an error")
    };
    assert!(text.contains("the server offers no TLS"), "{text}");
    check_start(&[("DATABASE_URL", &(url + "?sslmode=require"))], &["sslmode", "verify-full"]);
}

#[test]
fn started_by_hand_it_says_what_it_is() {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_ingest")).env_remove("AWS_LAMBDA_RUNTIME_API").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cargo lambda watch"));
}
