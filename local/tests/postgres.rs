//! The temporary server for real: started, reached, killed, restarted, left behind, cleaned up.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sqs_etl_local::postgres::{TempPostgres, shared_postgres};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

const HOLD_AND_WAIT: &str = env!("CARGO_BIN_EXE_hold-and-wait");

#[test]
fn each_database_is_new_and_empty() {
    let postgres = shared_postgres();
    let (one, two) = (postgres.create_database().unwrap(), postgres.create_database().unwrap());
    postgres.sql(&one, "create table t (n int); insert into t values (1), (null)").unwrap();
    assert_ne!(one, two);
    let rows = postgres.sql(&one, "select n from t order by n").unwrap();
    assert_eq!(rows, [[Some("1".to_owned())], [None]]);
    assert!(postgres.sql(&two, "select n from t").is_err());
}

#[tokio::test]
async fn the_url_reaches_the_database_with_the_password_only() {
    let postgres = shared_postgres();
    let database = postgres.create_database().unwrap();
    let client = connect(&postgres.url(&database)).await.unwrap();
    let row = client.query_one("select current_database()::text", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), database);

    let refused = connect(&postgres.url_as("postgres", "wrong", &database)).await.err().unwrap();
    assert_eq!(refused.code().unwrap().code(), "28P01");
}

#[test]
fn committed_rows_survive_a_crash_and_the_port_stays() {
    let mut postgres = TempPostgres::start().unwrap();
    let (port, database) = (postgres.port(), postgres.create_database().unwrap());
    postgres.sql(&database, "create table t as select generate_series(1, 1000) as n").unwrap();
    for _ in 0..3 {
        let pid = postgres.pid().unwrap();
        postgres.crash().unwrap();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(postgres.sql(&database, "select 1").is_err(), "it must be down");
        postgres.restart().unwrap();
    }
    assert_eq!(postgres.port(), port);
    let counted = postgres.sql(&database, "select count(*) from t").unwrap();
    assert_eq!(counted, [[Some("1000".to_owned())]]);
    assert!(postgres.log().contains("automatic recovery in progress"), "{}", postgres.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_kills_the_sessions_that_are_busy() {
    let mut postgres = TempPostgres::start().unwrap();
    let client = connect(&postgres.url("postgres")).await.unwrap();
    let row = client.query_one("select pg_backend_pid()", &[]).await.unwrap();
    let backend: i32 = row.get(0);
    let busy = tokio::spawn(async move { client.batch_execute("select pg_sleep(3600)").await });
    let asleep = format!("select 1 from pg_stat_activity where pid = {backend} and wait_event = 'PgSleep'");
    until(|| !postgres.sql("postgres", &asleep).unwrap().is_empty());
    postgres.crash().unwrap();
    assert!(busy.await.unwrap().is_err());
    assert!(!is_alive(&backend.to_string()));
}

#[test]
fn an_orderly_stop_keeps_the_data() {
    let mut postgres = TempPostgres::start().unwrap();
    postgres.sql("postgres", "create table t as select 1 as n").unwrap();
    postgres.stop().unwrap();
    postgres.restart().unwrap();
    assert_eq!(postgres.sql("postgres", "select n from t").unwrap(), [[Some("1".to_owned())]]);
}

#[test]
fn dropping_it_removes_process_and_folder() {
    let postgres = TempPostgres::start().unwrap();
    let (dir, pid) = (postgres.dir().to_path_buf(), postgres.pid().unwrap());
    drop(postgres);
    assert!(!dir.exists());
    assert!(!is_alive(&pid.to_string()));
}

#[test]
fn a_setting_that_postgres_refuses_is_reported_with_its_log_and_leaves_nothing() {
    let error = TempPostgres::builder().conf("no_such_setting = 1").start().err().unwrap();
    assert!(format!("{error:#}").contains("no_such_setting"), "{error:#}");
}

#[test]
fn extra_settings_win_and_durability_is_off_unless_asked_for() {
    let setting = |postgres: &TempPostgres, name: &str| {
        postgres.sql("postgres", &format!("show {name}")).unwrap()[0][0].clone().unwrap()
    };
    assert_eq!(setting(shared_postgres(), "fsync"), "off");
    let postgres = TempPostgres::builder().durable(true).conf("log_statement = 'all'").start().unwrap();
    assert_eq!(setting(&postgres, "fsync"), "on");
    postgres.sql("postgres", "select 'a statement to be found'").unwrap();
    assert!(postgres.log().contains("select 'a statement to be found'"));
}

#[tokio::test]
async fn with_tls_only_a_client_that_trusts_the_authority_and_finds_the_name_gets_in() {
    let postgres = TempPostgres::builder().tls(&["localhost", "127.0.0.1"]).start().unwrap();
    let url = postgres.url("postgres");
    let ca = postgres.ca_pem().unwrap();

    let client = connect_tls(&url, ca).await.unwrap();
    let row = client.query_one("select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[]);
    assert!(row.await.unwrap().get::<_, bool>(0));
    connect_tls(&url.replace("127.0.0.1", "localhost"), ca).await.unwrap();

    assert!(connect(&url).await.is_err(), "plain TCP must be refused");
    assert!(connect_tls(&url, postgres.unrelated_ca_pem().unwrap()).await.is_err());
    let other_name = format!("{}?hostaddr=127.0.0.1", url.replace("@127.0.0.1", "@db.example"));
    assert!(connect_tls(&other_name, ca).await.is_err());
    assert_eq!(postgres.create_database().unwrap(), "db_1");
}

#[test]
fn kill_9_of_its_owner_leaves_neither_process_nor_folder() {
    let mut owner = Command::new(HOLD_AND_WAIT).stdout(Stdio::piped()).spawn().expect("run hold-and-wait");
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (pid, dir) = pid_and_dir(&line);
    assert!(is_alive(&pid) && dir.exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    until(|| !is_alive(&pid) && !dir.exists());
}

#[test]
fn kill_9_during_initdb_leaves_no_folder() {
    let temp = tempfile::tempdir_in("/tmp").unwrap();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(temp.path(), open_to_all).unwrap();
    let mut owner = Command::new(HOLD_AND_WAIT).env("TMPDIR", temp.path()).spawn().unwrap();
    let clusters = || std::fs::read_dir(temp.path()).unwrap().flatten().count();
    until(|| clusters() == 1);
    owner.kill().unwrap();
    owner.wait().unwrap();
    until(|| clusters() == 0);
}

#[test]
fn a_kept_server_outlives_its_owner_until_its_stop_command_is_run() {
    let ran = Command::new(HOLD_AND_WAIT).arg("keep").output().unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let (pid, dir) = pid_and_dir(lines[0]);
    assert!(is_alive(&pid));
    let asked = Command::new("sh").args(["-c", &format!("{} -Atc 'select 6 * 7'", lines[1])]).output();
    assert_eq!(String::from_utf8(asked.unwrap().stdout).unwrap().trim(), "42");
    assert!(Command::new("sh").args(["-c", lines[2]]).status().unwrap().success());
    assert!(!is_alive(&pid) && !dir.exists());
}

async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn connect_tls(url: &str, ca: &str) -> Result<Client, Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config: Config = url.parse()?;
    config.ssl_mode(SslMode::Require);
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn pid_and_dir(line: &str) -> (String, PathBuf) {
    let (pid, dir) = line.trim().split_once(' ').unwrap();
    (pid.to_owned(), PathBuf::from(dir))
}

/// A zombie that its parent has not buried is not alive.
fn is_alive(pid: &str) -> bool {
    let state = Command::new("ps").args(["-o", "state=", "-p", pid]).output().unwrap();
    state.stdout.first().is_some_and(|state| *state != b'Z')
}

fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "it did not come true within 30 seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
}
