//! Connections to a real server, below the pipeline: the login by every way, flights, and what becomes of those given up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sqs_etl::config::SslMode;
use sqs_etl::database::connection::{Answer, Connection, Parameter};
use sqs_etl::database::{Database, Tls};
use sqs_etl_local::postgres::{SUPERUSER_PASSWORD, shared_postgres};
use tokio_postgres::Config;

const SOON: Duration = Duration::from_secs(10);

fn database(login: Config) -> Database {
    let credentials = Arc::new(move |_| {
        let login = login.clone();
        async move { Ok(login) }.boxed()
    });
    Database::new(credentials, Tls::new(&SslMode::Disable).unwrap(), 1, SOON)
}

fn login() -> Config {
    shared_postgres().url("postgres").parse().unwrap()
}

async fn ask(connection: &mut Connection, statement: &str) -> String {
    let mut flight = connection.flight();
    flight.statement(statement, &[]);
    flight.sync();
    let answers: Vec<Answer> = flight.land().await.unwrap().remove(0).unwrap();
    answers[0].rows[0].get(0).unwrap().to_owned()
}

const PROCESS: &str = "select pg_backend_pid()";

/// A login by this configuration gives a connection that can be used, also the second time.
#[track_caller]
fn check_login(login: Config) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let database = database(login);
        let first = ask(&mut database.get(SOON).await.unwrap(), PROCESS).await;
        let second = ask(&mut database.get(SOON).await.unwrap(), PROCESS).await;
        assert_eq!(first, second, "the connection went back to the pool");
    });
}

#[test]
fn every_way_to_name_the_server_leads_to_it() {
    let port = shared_postgres().port();
    check_login(login());
    check_login(format!("host=localhost port={port} user=postgres password={SUPERUSER_PASSWORD}").parse().unwrap());
    check_login(format!("hostaddr=127.0.0.1 port={port} user=postgres password={SUPERUSER_PASSWORD}").parse().unwrap());
    let mut through_a_file = Config::new();
    through_a_file.host_path(shared_postgres().dir()).port(port).user("postgres").password(SUPERUSER_PASSWORD);
    check_login(through_a_file);
    check_login(format!("{}?target_session_attrs=read-write", shared_postgres().url("postgres")).parse().unwrap());
    let first_is_down = format!("host=127.0.0.1,127.0.0.1 port=1,{port} user=postgres password={SUPERUSER_PASSWORD}");
    check_login(first_is_down.parse().unwrap());
}

#[tokio::test]
async fn a_statement_that_is_cancelled_fails_and_the_connection_goes_on() {
    let database = database(login());
    let mut connection = database.get(SOON).await.unwrap();
    let token = connection.cancel_token();
    let mut flight = connection.flight();
    flight.statement("select pg_sleep(60)", &[]);
    flight.sync();
    let (landed, ()) = tokio::join!(flight.land(), async {
        // A request that comes before the statement does nothing.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            database.cancel(token.clone()).await;
            if shared_postgres()
                .sql("postgres", "select 1 from pg_stat_activity where wait_event = 'PgSleep'")
                .unwrap()
                .is_empty()
            {
                break;
            }
        }
    });
    let error = landed.unwrap().remove(0).unwrap_err();
    assert_eq!(error.sqlstate.code(), "57014");
    assert_eq!(ask(&mut connection, "select 1").await, "1");
}

#[tokio::test]
async fn a_flight_that_is_given_up_takes_its_connection_along() {
    let database = database(login());
    let mut connection = database.get(SOON).await.unwrap();
    let before = ask(&mut connection, PROCESS).await;
    let mut flight = connection.flight();
    flight.statement("select pg_sleep(0.2)", &[]);
    flight.sync();
    assert!(tokio::time::timeout(Duration::from_millis(50), flight.land()).await.is_err());
    drop(connection);
    assert_ne!(ask(&mut database.get(SOON).await.unwrap(), PROCESS).await, before);
}

#[tokio::test]
async fn an_error_undoes_its_own_transaction_and_not_the_next() {
    let database = database(login());
    let mut connection = database.get(SOON).await.unwrap();
    let mut flight = connection.flight();
    flight.statement("create temp table tried (n integer)", &[]);
    flight.statement("select 1 / 0", &[]);
    flight.statement("select 2", &[]);
    flight.sync();
    flight.statement("select to_regclass('tried') is null, $1", &[Parameter::Text("told")]);
    flight.sync();
    let [failed, went_on] = <[_; 2]>::try_from(flight.land().await.unwrap()).unwrap();
    assert_eq!(failed.unwrap_err().sqlstate.code(), "22012");
    let row = &went_on.unwrap()[0].rows[0];
    assert_eq!((row.get(0), row.get(1), row.get(2)), (Some("t"), Some("told"), None));
}

#[tokio::test]
async fn a_statement_that_could_not_be_kept_is_sent_again() {
    let database = database(login());
    let mut connection = database.get(SOON).await.unwrap();
    let mut codes = Vec::new();
    for first in ["select 1 / 0", "select 1", "select 1"] {
        let mut flight = connection.flight();
        flight.statement(first, &[]);
        flight.kept_statement("kept", "select 2", &[]);
        flight.sync();
        codes.push(flight.land().await.unwrap().remove(0).map_err(|error| error.sqlstate.code().to_owned()).err());
    }
    assert_eq!(codes, [Some("22012".to_owned()), None, None]);
    let mut flight = connection.flight();
    flight.kept_statement("unknown", "select nonsense", &[]);
    flight.sync();
    assert_eq!(flight.land().await.unwrap().remove(0).unwrap_err().sqlstate.code(), "42703");
    assert_eq!(ask(&mut connection, "select count(*) from pg_prepared_statements").await, "1");
}

#[tokio::test]
async fn a_session_that_the_server_ends_is_told_from_one_that_goes_on() {
    let database = database(login());
    let process = ask(&mut database.get(SOON).await.unwrap(), PROCESS).await;
    shared_postgres().sql("postgres", &format!("select pg_terminate_backend({process})")).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_ne!(ask(&mut database.get(SOON).await.unwrap(), PROCESS).await, process);
}
