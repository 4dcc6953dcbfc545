//! What happens while Postgres is away, is not as the contract says, or was replaced.

use std::time::Duration;

use sqs_etl_local::postgres::{TempPostgres, shared_postgres};
use sqs_etl_local::proxy::Proxy;

use crate::harness::{
    Answer, Scene, count, event, fresh_database, function, invoke, invoke_within, login, without_tls,
};

fn batch() -> String {
    event(&[login(0), login(1), login(2)])
}

fn check_error(answer: Answer, expected: &str) {
    let Answer::Error { kind, text } = answer else { panic!("a response instead of an error: {answer:?}") };
    assert_eq!(kind, "Database");
    assert!(text.contains(expected), "{text:?} does not say {expected:?}");
}

#[test]
fn a_restart_of_postgres_between_two_invocations_is_not_noticed() {
    let mut postgres = TempPostgres::start().unwrap();
    let database = fresh_database(&postgres);
    let function = function(&[("DATABASE_URL", &without_tls(&postgres.url(&database)))]);
    assert_eq!(invoke(&function, &event(&[login(0)])).failed_ids(), [] as [&str; 0]);
    postgres.crash().unwrap();
    postgres.restart().unwrap();
    assert_eq!(invoke(&function, &batch()).failed_ids(), [] as [&str; 0]);
    assert_eq!(count(&postgres.sql(&database, "select count(*) from user_logins").unwrap()), 3);
}

#[test]
fn a_session_that_the_server_ended_is_replaced_within_the_invocation() {
    let scene = Scene::new();
    assert_eq!(scene.invoke(&event(&[login(0)])).failed_ids(), [] as [&str; 0]);
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'sqs-etl' and datname = current_database()";
    assert_eq!(scene.sql(end).len(), 1);
    assert_eq!(scene.invoke(&batch()).failed_ids(), [] as [&str; 0]);
    assert_eq!(scene.stored(), 3);
}

#[test]
fn a_database_that_is_away_is_an_error_and_the_next_invocation_tries_again() {
    let mut postgres = TempPostgres::start().unwrap();
    let database = fresh_database(&postgres);
    postgres.stop().unwrap();
    let function = function(&[("DATABASE_URL", &without_tls(&postgres.url(&database)))]);
    check_error(invoke(&function, &batch()), "cannot reach");
    postgres.restart().unwrap();
    assert_eq!(invoke(&function, &batch()).failed_ids(), [] as [&str; 0]);
}

#[test]
fn a_table_that_is_missing_is_an_error_that_says_so() {
    let scene = Scene::new();
    scene.sql("alter table user_logins rename to elsewhere");
    check_error(scene.invoke(&batch()), "42P01 (the table is missing: run the migrations)");
    scene.sql("alter table elsewhere rename to user_logins; alter table user_logins rename column locale to region");
    check_error(scene.invoke(&batch()), "42703");
    scene.sql("alter table user_logins rename column region to locale; alter table user_logins drop constraint user_logins_pkey");
    check_error(scene.invoke(&batch()), "42P10");
    assert_eq!(scene.stored(), 0);
}

#[test]
fn a_bad_record_does_not_hide_that_the_table_is_missing() {
    let scene = Scene::new();
    scene.sql("drop table user_logins");
    check_error(scene.invoke(&event(&["no json".to_owned(), login(1)])), "42P01");
}

#[test]
fn an_event_with_bad_records_only_does_not_need_the_database() {
    let function = function(&[("DATABASE_URL", "postgres://nobody:x@127.0.0.1:1/nowhere?sslmode=disable")]);
    assert_eq!(invoke(&function, &event(&["no json".to_owned()])).failed_ids().len(), 1);
}

#[test]
fn a_transient_refusal_is_tried_again() {
    let scene = Scene::new();
    scene.sql(
        "create sequence tries; \
         create function busy_at_first() returns trigger language plpgsql as $$ begin \
           if nextval('tries') <= 2 then raise sqlstate '40001'; end if; return null; end $$; \
         create trigger busy before insert on user_logins execute function busy_at_first()",
    );
    assert_eq!(scene.invoke(&batch()).failed_ids(), [] as [&str; 0]);
    assert_eq!(scene.stored(), 3);
}

#[test]
fn a_network_that_swallows_everything_does_not_keep_the_answer() {
    let postgres = shared_postgres();
    let database = fresh_database(postgres);
    let proxy = Proxy::start(postgres.port()).unwrap();
    let url = format!("postgres://postgres:postgres@127.0.0.1:{}/{database}?sslmode=disable", proxy.port());
    let function = function(&[("DATABASE_URL", &url)]);
    assert_eq!(invoke(&function, &event(&[login(0)])).failed_ids(), [] as [&str; 0]);
    proxy.set_delay(Duration::from_secs(3_600));
    let answer = invoke_within(&function, &batch(), Duration::from_secs(4));
    assert_eq!(answer.failed_ids().len(), 3, "an answer in time that hands everything back");
    proxy.set_delay(Duration::ZERO);
    proxy.cut();
    assert_eq!(invoke(&function, &batch()).failed_ids(), [] as [&str; 0]);
    assert_eq!(count(&postgres.sql(&database, "select count(*) from user_logins").unwrap()), 3);
}
