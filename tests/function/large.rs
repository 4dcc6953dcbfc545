//! Ten thousand messages in one invocation.

use sqs_etl_local::postgres::{TempPostgres, shared_postgres};
use sqs_etl_local::proxy::Proxy;
use std::time::Duration;

use crate::harness::{
    count, event, fresh_database, function, invoke, log_lines, login, login_with, message_id, without_tls,
};

const COUNT: usize = 10_000;

#[test]
fn ten_thousand_rows_take_one_round_trip() {
    let postgres = shared_postgres();
    let database = fresh_database(postgres);
    let proxy = Proxy::start(postgres.port()).unwrap();
    proxy.set_delay(Duration::from_millis(300));
    let url = format!("postgres://postgres:postgres@127.0.0.1:{}/{database}?sslmode=disable", proxy.port());
    let function = function(&[("DATABASE_URL", &url)]);
    // The start connects.
    function.warm_up().unwrap();
    proxy.reset();
    let bodies: Vec<String> = (0..COUNT).map(login).collect();
    assert_eq!(invoke(&function, &event(&bodies)).failed_ids(), [] as [&str; 0]);
    assert_eq!(proxy.round_trips(), 1);
    assert_eq!(count(&postgres.sql(&database, "select count(*) from user_logins").unwrap()), COUNT);
}

#[test]
fn three_rows_that_postgres_refuses_among_ten_thousand_are_found_by_halving() {
    let postgres =
        TempPostgres::builder().conf("log_statement = 'all'").conf("log_parameter_max_length = 0").start().unwrap();
    let database = fresh_database(&postgres);
    let refuse = "alter table user_logins add constraint known_device check (device_type <> 'toaster')";
    postgres.sql(&database, refuse).unwrap();
    let bad = [17, 4_999, 9_998];
    let bodies: Vec<String> = (0..COUNT)
        .map(|i| if bad.contains(&i) { login_with(i, &[("device_type", "toaster".into())]) } else { login(i) })
        .collect();
    let function = function(&[("DATABASE_URL", &without_tls(&postgres.url(&database)))]);
    assert_eq!(invoke(&function, &event(&bodies)).failed_ids(), bad.map(message_id));
    assert_eq!(count(&postgres.sql(&database, "select count(*) from user_logins").unwrap()), COUNT - bad.len());

    let inserts =
        postgres.log().lines().filter(|line| line.contains("execute") && line.contains("insert into")).count();
    let refused =
        postgres.log().lines().filter(|line| line.contains("ERROR:") && line.contains("known_device")).count();
    assert!(refused >= 3, "the log shows the refusals");
    let most = 3.0 * 2.0 * (COUNT as f64).log2() + 1.0;
    assert!(inserts > 1 && inserts as f64 <= most, "{inserts} statements, at most {most}");
    let line = &log_lines(&function, "batch done", 1)[0];
    assert_eq!(line["statements"], inserts, "the function counts as Postgres does");
}
