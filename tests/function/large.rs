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

const BAD: [usize; 3] = [17, 4_999, 9_998];

/// Postgres refuses three of ten thousand rows by this constraint. Returns how often rows were sent, which is what its log and
/// the function say.
fn writes_with_three_refusals(constraint: &str) -> f64 {
    let postgres =
        TempPostgres::builder().conf("log_statement = 'all'").conf("log_parameter_max_length = 0").start().unwrap();
    let database = fresh_database(&postgres);
    postgres.sql(&database, "create table devices (name varchar(32) primary key)").unwrap();
    postgres.sql(&database, "insert into devices values ('android')").unwrap();
    postgres.sql(&database, &format!("alter table user_logins add {constraint}")).unwrap();
    let bodies: Vec<String> = (0..COUNT)
        .map(|i| if BAD.contains(&i) { login_with(i, &[("device_type", "toaster".into())]) } else { login(i) })
        .collect();
    let function = function(&[("DATABASE_URL", &without_tls(&postgres.url(&database)))]);
    // The first batch has the function look at the table.
    assert_eq!(invoke(&function, &event(&[login(0)])).failed_ids(), [] as [&str; 0]);
    postgres.sql(&database, "truncate user_logins").unwrap();
    assert_eq!(invoke(&function, &event(&bodies)).failed_ids(), BAD.map(message_id));
    let stored = count(&postgres.sql(&database, "select count(*) from user_logins").unwrap());
    assert_eq!(stored, COUNT - BAD.len());

    let log = postgres.log();
    let executed = log.lines().filter(|line| line.contains("LOG:  execute "));
    let writes = executed.filter(|line| line.contains("insert into") || line.contains("copy ")).count() - 1;
    let refused = log.lines().filter(|line| line.contains("ERROR:") && line.contains("known_device")).count();
    assert!(refused >= 3, "the log shows the refusals");
    let line = &log_lines(&function, "batch done", 2)[1];
    assert_eq!(line["statements"], writes, "the function counts as Postgres does");
    writes as f64
}

#[test]
fn three_rows_that_postgres_names_among_ten_thousand_are_taken_out_one_by_one() {
    let writes = writes_with_three_refusals("constraint known_device check (device_type <> 'toaster')");
    let most = 3.0 * 3.0 + 1.0;
    assert!(writes > 3.0 && writes <= most, "{writes} statements, at most {most}");
}

#[test]
fn three_rows_that_postgres_does_not_name_among_ten_thousand_are_found_by_halving() {
    let constraint = "constraint known_device foreign key (device_type) references devices";
    let writes = writes_with_three_refusals(constraint);
    let most = 3.0 * 2.0 * (COUNT as f64).log2() + 1.0;
    assert!(writes > 3.0 * 3.0 + 1.0 && writes <= most, "{writes} statements, at most {most}");
}
