//! Rows are copied, unless one is there already or a copy would mean something else than an insert.

use std::sync::OnceLock;
use std::time::Duration;

use sqs_etl_local::postgres::TempPostgres;
use sqs_etl_local::proxy::Proxy;

use crate::harness::{
    Answer, Scene, count, event, file, fresh_database, function, invoke, log_lines, login, login_with, message_id,
    wait_until, without_tls,
};

/// A server that writes every statement to its log, behind the name of the database.
pub fn talkative_postgres() -> &'static TempPostgres {
    static SHARED: OnceLock<TempPostgres> = OnceLock::new();
    SHARED.get_or_init(|| {
        let builder = TempPostgres::builder().conf("log_statement = 'all'").conf("log_line_prefix = '[%d] '");
        builder.conf("log_parameter_max_length = 0").start().unwrap()
    })
}

fn scene() -> Scene {
    let postgres = talkative_postgres();
    let database = fresh_database(postgres);
    let function = function(&[("DATABASE_URL", without_tls(&postgres.url(&database)).as_str())]);
    Scene { postgres, database, function }
}

/// The same by another contract, put into a file of this name.
fn scene_by(name: &str, contract: &str) -> Scene {
    let postgres = talkative_postgres();
    let database = fresh_database(postgres);
    let url = without_tls(&postgres.url(&database));
    let path = file(name, contract);
    let function = function(&[("DATABASE_URL", url.as_str()), ("CONTRACT_PATH", path.to_str().unwrap())]);
    Scene { postgres, database, function }
}

/// How the rows of each batch were sent, by Postgres's own log.
fn ways(scene: &Scene) -> Vec<&'static str> {
    let mark = format!("[{}] LOG:  execute ", scene.database);
    let way = |statement: &str| match statement {
        _ if statement.starts_with("copy ") => Some("copy"),
        _ if statement.contains("insert into") => Some("insert"),
        _ => None,
    };
    let log = scene.postgres.log();
    log.lines().filter_map(|line| way(line.strip_prefix(&mark)?.split_once(": ")?.1)).collect()
}

#[track_caller]
fn deliver(scene: &Scene, numbers: std::ops::Range<usize>) {
    assert_eq!(scene.invoke(&batch(numbers)).failed_ids(), [] as [&str; 0]);
}

/// An event whose messages have the ids of their numbers.
fn batch(numbers: std::ops::Range<usize>) -> String {
    let all: Vec<String> = (0..numbers.end).map(login).collect();
    let mut event: serde_json::Value = serde_json::from_str(&event(&all)).unwrap();
    event["Records"].as_array_mut().unwrap().drain(..numbers.start);
    event.to_string()
}

#[test]
fn the_first_batch_is_inserted_and_the_next_are_copied() {
    let scene = scene();
    (0..4).for_each(|i| deliver(&scene, i * 10..i * 10 + 10));
    assert_eq!(scene.stored(), 40);
    assert_eq!(ways(&scene), ["insert", "copy", "copy", "copy"]);
}

#[test]
fn a_batch_with_a_redelivery_is_inserted_and_often_so_without_trying() {
    let scene = scene();
    deliver(&scene, 0..10);
    deliver(&scene, 9..20);
    assert_eq!(ways(&scene), ["insert", "copy", "insert"]);
    let line = &log_lines(&scene.function, "batch done", 2)[1];
    assert_eq!((&line["committed"], &line["already_present"]), (&10.into(), &1.into()));
    for _ in 0..4 {
        deliver(&scene, 9..20);
    }
    assert_eq!(ways(&scene)[3..], ["copy", "insert", "copy", "insert", "insert", "insert"]);
    // Once redeliveries have become rare, rows are copied again.
    (0..6).for_each(|i| deliver(&scene, 100 + i * 10..110 + i * 10));
    assert_eq!(ways(&scene).last(), Some(&"copy"));
    assert_eq!(scene.stored(), 80);
}

#[test]
fn a_copy_is_one_round_trip_and_a_redelivery_takes_a_second() {
    let postgres = talkative_postgres();
    let database = fresh_database(postgres);
    let proxy = Proxy::start(postgres.port()).unwrap();
    proxy.set_delay(Duration::from_millis(100));
    let url = format!("postgres://postgres:postgres@127.0.0.1:{}/{database}?sslmode=disable", proxy.port());
    let scene = Scene { postgres, database, function: function(&[("DATABASE_URL", &url)]) };
    scene.function.warm_up().unwrap();
    let trips = |numbers: std::ops::Range<usize>| {
        proxy.reset();
        deliver(&scene, numbers);
        proxy.round_trips()
    };
    assert_eq!(trips(0..2_000), 1, "the first batch");
    assert_eq!(trips(2_000..4_000), 1, "a copy");
    assert_eq!(trips(3_999..6_000), 2, "a copy and an insert");
}

#[test]
fn a_column_that_changes_its_type_is_noticed() {
    let scene = scene();
    deliver(&scene, 0..10);
    deliver(&scene, 10..20);
    // Four bytes before, four bytes after; the bits mean something else.
    scene.sql("alter table user_logins alter column app_version type real");
    deliver(&scene, 20..30);
    // The copy is given up before Postgres has begun it.
    assert_eq!(ways(&scene), ["insert", "copy", "insert"]);
    deliver(&scene, 30..40);
    assert_eq!(ways(&scene)[3..], ["insert"], "a real is not copied as an integer");
    assert_eq!(count(&scene.sql("select count(*) from user_logins where app_version = 2003000")), 40);
}

#[test]
fn a_column_that_is_added_or_dropped_is_noticed() {
    let scene = scene();
    deliver(&scene, 0..10);
    deliver(&scene, 10..20);
    scene.sql("alter table user_logins add column tenant text default 'acme'");
    deliver(&scene, 20..30);
    deliver(&scene, 30..40);
    scene.sql("alter table user_logins drop column tenant");
    deliver(&scene, 40..50);
    deliver(&scene, 50..60);
    assert_eq!(scene.stored(), 60);
    assert_eq!(ways(&scene), ["insert", "copy", "insert", "copy", "insert", "copy"]);
}

#[test]
fn a_table_that_is_made_anew_is_noticed() {
    let scene = scene();
    deliver(&scene, 0..10);
    deliver(&scene, 10..20);
    scene.sql("alter table user_logins rename to before; create table user_logins (like before including all)");
    deliver(&scene, 20..30);
    scene.sql("drop table before; drop table user_logins");
    let Answer::Error { text, .. } = invoke(&scene.function, &batch(30..40)) else { panic!("there is no table") };
    assert!(text.contains("42P01"), "{text}");
    scene.sql(include_str!("../../migrations/0001_user_logins.sql"));
    deliver(&scene, 30..40);
    deliver(&scene, 40..50);
    deliver(&scene, 50..60);
    assert_eq!(scene.stored(), 30);
    assert_eq!(ways(&scene).last(), Some(&"copy"));
}

#[track_caller]
fn check_error(scene: &Scene, event: &str, sqlstate: &str) {
    let Answer::Error { text, .. } = invoke(&scene.function, event) else { panic!("an answer instead of {sqlstate}") };
    assert!(text.contains(sqlstate), "{text}");
}

#[test]
fn without_a_unique_key_nothing_is_copied() {
    let scene = scene();
    scene.sql("alter table user_logins drop constraint user_logins_pkey");
    for _ in 0..3 {
        check_error(&scene, &batch(0..10), "42P10");
    }
    assert_eq!(scene.stored(), 0);
}

#[test]
fn a_unique_key_that_goes_away_is_noticed() {
    let scene = scene();
    deliver(&scene, 0..10);
    deliver(&scene, 10..20);
    scene.sql("alter table user_logins drop constraint user_logins_pkey");
    for _ in 0..2 {
        check_error(&scene, &batch(0..30), "42P10");
    }
    assert_eq!(scene.stored(), 20);
    scene.sql("alter table user_logins add primary key (message_id)");
    deliver(&scene, 0..30);
    deliver(&scene, 30..40);
    deliver(&scene, 40..50);
    assert_eq!(scene.stored(), 50);
    assert_eq!(ways(&scene).last(), Some(&"copy"));
}

/// Tables of the same name whose columns look alike in binary form.
const AS_REAL: &str =
    "create table other (like user_logins including all); alter table other alter column app_version type real";

#[test]
fn a_table_that_takes_the_name_of_another_is_noticed() {
    let scene = scene();
    deliver(&scene, 0..10);
    deliver(&scene, 10..20);
    scene.sql(AS_REAL);
    scene.sql("alter table user_logins rename to before; alter table other rename to user_logins");
    deliver(&scene, 20..30);
    deliver(&scene, 30..40);
    assert_eq!(count(&scene.sql("select count(*) from user_logins where app_version = 2003000")), 20);
}

#[test]
fn a_column_that_changes_its_type_while_rows_are_on_their_way_is_noticed() {
    let scene = scene();
    deliver(&scene, 0..10);
    deliver(&scene, 10..20);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            scene.sql("begin; alter table user_logins alter column app_version type real; select pg_sleep(1); commit");
        });
        wait_until(|| {
            let locks = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted \
                         and relation = 'user_logins'::regclass";
            count(&scene.sql(locks)) == 1
        });
        deliver(&scene, 20..30);
    });
    deliver(&scene, 30..40);
    assert_eq!(count(&scene.sql("select count(*) from user_logins where app_version = 2003000")), 40);
}

#[test]
fn a_domain_of_another_column_and_a_table_named_like_a_type_have_rows_inserted() {
    check_inserted(
        "create domain tenant as text not null default 'acme'; alter table user_logins add column tenant tenant default 'acme'",
    );
    let contract = include_str!("../../contract.toml").replace("table = \"user_logins\"", "table = \"path\"");
    let scene = scene_by("path.toml", &contract);
    scene.sql("alter table user_logins rename to path");
    (0..3).for_each(|i| deliver(&scene, i * 10..i * 10 + 10));
    assert_eq!(count(&scene.sql("select count(*) from public.path")), 30);
}

#[test]
fn with_a_ledger_a_redelivery_keeps_the_connection() {
    let contract =
        include_str!("../../contract.toml").replace("column = \"message_id\"", "ledger = \"sqs_etl_messages\"");
    let scene = scene_by("ledger.toml", &contract);
    scene.sql("alter table user_logins drop column message_id");
    deliver(&scene, 0..10);
    let session =
        "select pid from pg_stat_activity where application_name = 'sqs-etl' and datname = current_database()";
    let before = scene.sql(session);
    deliver(&scene, 0..10);
    deliver(&scene, 5..15);
    assert_eq!(scene.sql(session), before);
    assert_eq!(scene.stored(), 15);
}

#[test]
fn many_rows_that_postgres_names_do_not_travel_again_and_again() {
    let scene = scene();
    scene.sql("alter table user_logins add constraint known_device check (device_type <> 'toaster')");
    deliver(&scene, 0..1);
    let bad: Vec<usize> = (50..5_000).step_by(100).collect();
    let bodies: Vec<String> = (0..5_000)
        .map(|i| if bad.contains(&i) { login_with(i, &[("device_type", "toaster".into())]) } else { login(i) })
        .collect();
    scene.sql("truncate user_logins");
    let expected: Vec<String> = bad.iter().map(|&i| message_id(i)).collect();
    assert_eq!(scene.invoke(&event(&bodies)).failed_ids(), expected);
    assert_eq!(scene.stored(), 4_950);
    let line = &log_lines(&scene.function, "batch done", 2)[1];
    let statements = line["statements"].as_u64().unwrap();
    assert!(statements <= 6 * bad.len() as u64, "{statements} statements");
}

/// Where a copy is not an insert, rows are inserted from the first batch on.
#[track_caller]
fn check_inserted(change: &str) {
    let scene = scene();
    scene.sql(change);
    (0..3).for_each(|i| deliver(&scene, i * 10..i * 10 + 10));
    assert_eq!(ways(&scene), ["insert"; 3], "{change}");
    assert_eq!(scene.stored(), 30);
}

#[test]
fn views_policies_and_other_types_have_rows_inserted() {
    check_inserted("alter table user_logins rename to stored; create view user_logins as select * from stored");
    check_inserted("alter table user_logins enable row level security");
    check_inserted("alter table user_logins alter column app_version type bigint");
    check_inserted("create domain name as varchar(128); alter table user_logins alter column user_id type name");
}

#[test]
fn policies_that_come_later_have_rows_inserted() {
    let postgres = talkative_postgres();
    let database = fresh_database(postgres);
    let role = format!("copying_{database}");
    let grants =
        format!("create role {role} login password 'p'; grant insert, select (message_id) on user_logins to {role}");
    postgres.sql(&database, &grants).unwrap();
    let function = function(&[("DATABASE_URL", without_tls(&postgres.url_as(&role, "p", &database)).as_str())]);
    let scene = Scene { postgres, database, function };
    deliver(&scene, 0..10);
    deliver(&scene, 10..20);
    scene.sql(
        "alter table user_logins enable row level security; create policy stored on user_logins for insert with check (true); \
         create policy seen on user_logins for select using (true)",
    );
    deliver(&scene, 20..30);
    deliver(&scene, 30..40);
    assert_eq!(ways(&scene), ["insert", "copy", "copy", "insert", "insert"]);
    assert_eq!(scene.stored(), 40);
}

#[test]
fn a_partitioned_table_takes_copies() {
    let scene = scene();
    scene.sql(
        "drop table user_logins; create table user_logins (message_id uuid primary key, user_id text, device_type text, \
         masked_ip text, masked_device_id text, locale text, app_version integer, create_date date) \
         partition by hash (message_id); \
         create table part_0 partition of user_logins for values with (modulus 2, remainder 0); \
         create table part_1 partition of user_logins for values with (modulus 2, remainder 1)",
    );
    (0..3).for_each(|i| deliver(&scene, i * 100..i * 100 + 100));
    assert_eq!(ways(&scene), ["insert", "copy", "copy"]);
    assert_eq!(scene.stored(), 300);
}

#[test]
fn a_trigger_that_talks_all_the_time_holds_nothing_up() {
    let scene = scene();
    scene.sql(
        "create function talk() returns trigger language plpgsql as $$ begin \
         raise notice '%', repeat('x', 2000); return new; end $$; \
         create trigger talk before insert on user_logins for each row execute function talk()",
    );
    deliver(&scene, 0..5_000);
    deliver(&scene, 5_000..10_000);
    assert_eq!(scene.stored(), 10_000);
}

#[test]
fn a_row_that_postgres_names_is_found_beside_one_that_is_there_already() {
    let scene = scene();
    scene.sql("alter table user_logins add constraint known_device check (device_type <> 'toaster')");
    deliver(&scene, 0..10);
    let bodies: Vec<String> = (0..2_000)
        .map(|i| if i == 1_500 { login_with(i, &[("device_type", "toaster".into())]) } else { login(i) })
        .collect();
    assert_eq!(scene.invoke(&event(&bodies)).failed_ids(), [message_id(1_500)]);
    assert_eq!(scene.stored(), 1_999);
    let line = &log_lines(&scene.function, "batch done", 2)[1];
    assert_eq!((&line["committed"], &line["already_present"]), (&1_989.into(), &10.into()));
}

#[test]
fn after_a_copy_that_failed_early_the_connection_goes_on() {
    let scene = scene();
    deliver(&scene, 0..1);
    // The first row is there already, and nine thousand more are on their way.
    deliver(&scene, 0..9_000);
    deliver(&scene, 9_000..9_010);
    let sessions =
        "select count(*) from pg_stat_activity where application_name = 'sqs-etl' and datname = current_database()";
    assert_eq!(count(&scene.sql(sessions)), 1);
    assert_eq!(scene.stored(), 9_010);
    assert_eq!(ways(&scene), ["insert", "copy", "insert", "copy"]);
}
