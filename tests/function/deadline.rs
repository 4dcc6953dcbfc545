//! The function answers before Lambda kills it, and leaves nothing half-written.

use std::time::Duration;

use sqs_etl_local::postgres::TempPostgres;

use crate::harness::{
    Scene, event, fresh_database, function, invoke_within, log_lines, login, wait_until, without_tls,
};

#[test]
fn a_lock_on_the_table_hands_everything_back_in_time() {
    // A server of its own, whose log is this test's.
    let postgres: &TempPostgres = Box::leak(Box::new(TempPostgres::start().unwrap()));
    let database = fresh_database(postgres);
    let function = function(&[("DATABASE_URL", without_tls(&postgres.url(&database)).as_str())]);
    let scene = Scene { postgres, database, function };
    let bodies: Vec<String> = (0..20).map(login).collect();
    scene.invoke(&event(&bodies[..1]));
    let timeout = Duration::from_secs(3);
    std::thread::scope(|threads| {
        threads.spawn(|| scene.sql("begin; lock table user_logins; select pg_sleep(6); commit"));
        wait_until(|| lock_is_held(&scene));
        let answer = invoke_within(&scene.function, &event(&bodies), timeout);
        assert_eq!(answer.failed_ids().len(), 20);
        let reasons = log_lines(&scene.function, "message handed back", 20);
        assert!(reasons.iter().all(|line| line["reason"] == "deadline"), "{reasons:?}");
        assert!(lock_is_held(&scene), "the answer came while the table was locked");
        // Postgres has given up as well: nobody waits for the lock any more.
        wait_until(|| waiting(&scene) == 0);
    });
    let gave_up = "canceling statement due to statement timeout";
    assert!(scene.postgres.log().contains(gave_up), "Postgres gave up by itself, before it was asked to");
    assert_eq!(scene.stored(), 1);
    assert_eq!(scene.invoke(&event(&bodies)).failed_ids(), [] as [&str; 0]);
    assert_eq!(scene.stored(), 20);
}

fn lock_is_held(scene: &Scene) -> bool {
    let locks = "select 1 from pg_locks where mode = 'AccessExclusiveLock' and granted \
                 and relation = 'user_logins'::regclass and database = (select oid from pg_database where datname = current_database())";
    !scene.sql(locks).is_empty()
}

fn waiting(scene: &Scene) -> usize {
    let waiting = "select 1 from pg_locks where not granted and relation = 'user_logins'::regclass";
    scene.sql(waiting).len()
}
