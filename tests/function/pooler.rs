//! Behind a pooler in transaction mode, two functions share one session with the server.

use crate::copying::talkative_postgres;
use crate::harness::{count, event, fresh_database, function, invoke, login, login_with, message_id};

#[test]
fn nothing_is_kept_in_a_session_that_a_pooler_hands_on() {
    let postgres = talkative_postgres();
    let database = fresh_database(postgres);
    postgres
        .sql(&database, "alter table user_logins add constraint known_device check (device_type <> 'toaster')")
        .unwrap();
    let pooler = postgres.pooler(1).unwrap();
    let url = format!("postgres://postgres:postgres@127.0.0.1:{}/{database}?sslmode=disable", pooler.port());
    let functions = [(); 2].map(|()| function(&[("DATABASE_URL", url.as_str())]));
    for round in 0..3 {
        for (i, function) in functions.iter().enumerate() {
            let first = round * 100 + i * 10;
            let bad = login_with(first + 1, &[("device_type", "toaster".into())]);
            let answer = invoke(function, &event(&[login(first), bad, login(first + 2)]));
            assert_eq!(answer.failed_ids(), [message_id(1)]);
        }
    }
    let sessions =
        "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    assert_eq!(count(&postgres.sql(&database, sessions).unwrap()), 1, "one session served both");
    assert_eq!(count(&postgres.sql(&database, "select count(*) from user_logins").unwrap()), 2);
    // A copy that fails early leaves some poolers hanging, so there is none.
    let log = postgres.log();
    let mark = format!("[{database}] LOG:  execute");
    assert!(log.lines().any(|line| line.starts_with(&mark) && line.contains("insert into")));
    assert!(!log.lines().any(|line| line.starts_with(&mark) && line.contains("copy ")));
    // What a session keeps would show here: the next statement in it has no time-out of ours.
    let kept = pooled_setting(&url, "statement_timeout");
    assert_eq!(kept, "0");
}

/// A setting of the one session, asked for through the pooler.
fn pooled_setting(url: &str, name: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let rows = client.simple_query(&format!("show {name}")).await.unwrap();
        let value = rows.iter().find_map(|row| match row {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        drop(client);
        driver.await.unwrap().unwrap();
        value.unwrap()
    })
}
