//! A row that only Postgres finds bad fails alone, however the table's owner made it so; a fault of the table fails all.

use sqs_etl_local::function::Function;
use sqs_etl_local::postgres::shared_postgres;

use crate::harness::{
    Answer, Scene, count, event, file, fresh_database, function, function_config, invoke, log_lines, login, login_with,
    message_id, wait_until, without_tls,
};

/// A trigger that does something at each toaster.
fn at_toasters(statement: &str) -> String {
    format!(
        "create function at_toasters() returns trigger language plpgsql as $$ begin \
         if new.device_type = 'toaster' then {statement} end if; return new; end $$; \
         create trigger at_toasters before insert on user_logins for each row execute function at_toasters()"
    )
}

fn batch() -> String {
    event(&[login(0), login_with(1, &[("device_type", "toaster".into())]), login(2)])
}

/// Of the batch's three messages the toaster fails, for this reason, and the others are stored.
fn check(scene: &Scene, reason: &str) {
    assert_eq!(scene.invoke(&batch()).failed_ids(), [message_id(1)]);
    assert_eq!(scene.stored(), 2);
    assert_eq!(log_lines(&scene.function, "message handed back", 1)[0]["reason"], reason);
}

fn check_trigger(statement: &str, reason: &str) {
    let scene = Scene::new();
    scene.sql(&at_toasters(statement));
    check(&scene, reason);
    let line = &log_lines(&scene.function, "batch done", 1)[0];
    assert_eq!((&line["committed"], &line["already_present"]), (&2.into(), &0.into()));
}

#[test]
fn a_trigger_refuses_a_row_with_any_code() {
    check_trigger("raise exception 'no';", "refused");
    check_trigger("raise exception using errcode = 'TR001';", "refused");
    check_trigger("raise exception using errcode = '42P01';", "refused");
    check_trigger("raise exception using errcode = '53100';", "refused");
    check_trigger("perform 1 / 0;", "refused");
    check_trigger("perform (select generate_series(1, 2));", "refused");
}

#[test]
fn a_row_that_a_trigger_drops_is_handed_back() {
    check_trigger("return null;", "dropped");
}

#[test]
fn beside_a_dropped_row_a_redelivered_one_is_still_known() {
    let scene = Scene::new();
    scene.sql(&at_toasters("return null;"));
    for _ in 0..2 {
        assert_eq!(scene.invoke(&batch()).failed_ids(), [message_id(1)]);
    }
    let line = &log_lines(&scene.function, "batch done", 2)[1];
    assert_eq!((&line["committed"], &line["already_present"]), (&0.into(), &2.into()));
}

#[test]
fn a_key_column_of_another_type_is_a_fault_of_the_first_batch() {
    let scene = Scene::new();
    scene.sql("alter table user_logins alter column message_id type text");
    let Answer::Error { text, .. } = scene.invoke(&batch()) else { panic!("it goes well until a redelivery") };
    assert!(text.contains("42883") && text.contains("[once]"), "{text}");
    assert_eq!(scene.stored(), 0);
}

#[test]
fn with_a_ledger_a_row_that_a_trigger_drops_is_handed_back_and_not_in_the_ledger() {
    let built_in = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/contract.toml")).unwrap();
    let with_ledger = built_in.replace("column = \"message_id\"", "ledger = \"sqs_etl_messages\"");
    let path = file("dropped.toml", &with_ledger);
    let scene = Scene::with(&[("CONTRACT_PATH", path.to_str().unwrap())]);
    scene.sql("alter table user_logins drop column message_id");
    scene.sql(&at_toasters("return null;"));
    check(&scene, "dropped");
    assert_eq!(count(&scene.sql("select count(*) from sqs_etl_messages")), 2);
    scene.sql("drop trigger at_toasters on user_logins");
    assert_eq!(
        scene.invoke(&batch()).failed_ids(),
        [] as [&str; 0],
        "mended, the message is stored at its next delivery"
    );
    assert_eq!(scene.stored(), 3);
}

#[test]
fn a_row_that_row_level_security_refuses_fails_alone() {
    let postgres = shared_postgres();
    let database = fresh_database(postgres);
    let role = format!("rls_{database}");
    let policies = format!(
        "create role {role} login password 'p'; grant insert, select (message_id) on user_logins to {role}; \
         alter table user_logins enable row level security; \
         create policy stored on user_logins for insert to {role} with check (device_type <> 'toaster'); \
         create policy seen on user_logins for select to {role} using (true)"
    );
    postgres.sql(&database, &policies).unwrap();
    let url = without_tls(&postgres.url_as(&role, "p", &database));
    let scene = Scene { postgres, database, function: function(&[("DATABASE_URL", &url)]) };
    check(&scene, "refused");
}

#[test]
fn a_column_that_the_contract_does_not_fill_is_a_fault_of_the_deployment() {
    let scene = Scene::new();
    scene.sql("alter table user_logins add column tenant text not null");
    let Answer::Error { kind, text } = scene.invoke(&batch()) else { panic!("one by one they were handed back") };
    assert_eq!(kind, "Database");
    assert!(text.contains("23502") && text.contains("add it to the contract"), "{text}");
}

#[test]
fn sessions_that_the_server_ended_are_all_replaced_within_the_invocation() {
    let postgres = shared_postgres();
    let database = fresh_database(postgres);
    let url = without_tls(&postgres.url(&database));
    let function = Function::start(function_config(&[("DATABASE_URL", &url)]).max_concurrency(4)).unwrap();
    let sessions = "from pg_stat_activity where application_name = 'sqs-etl' and datname = current_database()";
    let open = || count(&postgres.sql(&database, &format!("select count(*) {sessions}")).unwrap());
    wait_until(|| {
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| invoke(&function, &event(&(0..500).map(login).collect::<Vec<_>>())));
            }
        });
        open() >= 3
    });
    for round in 0..5 {
        postgres.sql(&database, &format!("select pg_terminate_backend(pid) {sessions}")).unwrap();
        let answer = invoke(&function, &event(&[login(1_000 + round)]));
        assert!(matches!(answer, Answer::Response(_)), "{answer:?}");
    }
}
