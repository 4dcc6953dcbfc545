//! The function answers before Lambda kills it, and leaves nothing half-written.

use std::time::Duration;

use crate::harness::{Stage, event, invoke_within, log_lines, login, wait_until};

#[test]
fn a_lock_on_the_table_hands_everything_back_in_time() {
    let stage = Stage::new();
    let bodies: Vec<String> = (0..20).map(login).collect();
    stage.invoke(&event(&bodies[..1]));
    let timeout = Duration::from_secs(3);
    std::thread::scope(|threads| {
        threads.spawn(|| stage.sql("begin; lock table user_logins; select pg_sleep(6); commit"));
        wait_until(|| lock_is_held(&stage));
        let answer = invoke_within(&stage.function, &event(&bodies), timeout);
        assert_eq!(answer.failed_ids().len(), 20);
        let reasons = log_lines(&stage.function, "message handed back", 20);
        assert!(reasons.iter().all(|line| line["reason"] == "deadline"), "{reasons:?}");
        assert!(lock_is_held(&stage), "the answer came while the table was locked");
        // Postgres has given up as well: nobody waits for the lock any more.
        wait_until(|| waiting(&stage) == 0);
    });
    let gave_up = "canceling statement due to statement timeout";
    assert!(stage.postgres.log().contains(gave_up), "Postgres gave up by itself, before it was asked to");
    assert_eq!(stage.stored(), 1);
    assert_eq!(stage.invoke(&event(&bodies)).failed_ids(), [] as [&str; 0]);
    assert_eq!(stage.stored(), 20);
}

fn lock_is_held(stage: &Stage) -> bool {
    let locks = "select 1 from pg_locks where mode = 'AccessExclusiveLock' and granted \
                 and relation = 'user_logins'::regclass and database = (select oid from pg_database where datname = current_database())";
    !stage.sql(locks).is_empty()
}

fn waiting(stage: &Stage) -> usize {
    let waiting = "select 1 from pg_locks where not granted and relation = 'user_logins'::regclass";
    stage.sql(waiting).len()
}
