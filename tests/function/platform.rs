//! The ways in which Lambda runs a function: several events at once, a snapshot, another contract; and the metrics it sees.

use serde_json::{Value, json};
use sqs_etl_local::function::{Function, InvocationResult};
use sqs_etl_local::postgres::shared_postgres;

use crate::harness::{
    Scene, TIMEOUT, count, event, file, fresh_database, function_config, invoke, log_lines, login, login_with,
    message_id, without_tls,
};

#[test]
fn several_events_at_once_do_not_mix() {
    let postgres = shared_postgres();
    let database = fresh_database(postgres);
    let url = without_tls(&postgres.url(&database));
    let function = Function::start(function_config(&[("DATABASE_URL", &url)]).max_concurrency(4)).unwrap();
    let bodies: Vec<String> = (0..20).map(|i| if i % 5 == 4 { "no json".to_owned() } else { login(i) }).collect();
    let expected: Vec<String> = (0..20).filter(|i| i % 5 == 4).map(message_id).collect();
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(invoke(&function, &event(&bodies)).failed_ids(), expected);
                }
            });
        }
    });
    assert_eq!(function.pids().len(), 1, "one process took them all");
    assert_eq!(count(&postgres.sql(&database, "select count(*) from user_logins").unwrap()), 16);
}

#[test]
fn a_function_restored_from_a_snapshot_connects_anew() {
    let postgres = shared_postgres();
    let database = fresh_database(postgres);
    let url = without_tls(&postgres.url(&database));
    let function = Function::start(function_config(&[("DATABASE_URL", &url)]).snap_start()).unwrap();
    let invocation = function.invoke(event(&[login(0)]), TIMEOUT);
    assert!(matches!(invocation.result, InvocationResult::Response(_)), "{invocation:?}");
    assert!(invocation.init.expect("a fresh environment").restore.is_some(), "it went through a snapshot");
    let sessions =
        "select count(*) from pg_stat_activity where application_name = 'sqs-etl' and datname = current_database()";
    assert_eq!(count(&postgres.sql(&database, sessions).unwrap()), 1, "the connection of before is closed");
}

#[test]
fn a_table_that_may_not_be_changed_is_kept_clean_by_a_ledger() {
    let built_in = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/contract.toml")).unwrap();
    let with_ledger = built_in.replace("column = \"message_id\"", "ledger = \"sqs_etl_messages\"");
    assert_ne!(with_ledger, built_in);
    let path = file("ledger.toml", &with_ledger);
    let scene = Scene::with(&[("CONTRACT_PATH", path.to_str().unwrap())]);
    scene.sql(
        "alter table user_logins drop column message_id; \
         alter table user_logins add constraint known_device check (device_type <> 'toaster')",
    );
    let mut bodies: Vec<String> = (0..9).map(login).collect();
    bodies[4] = login_with(4, &[("device_type", "toaster".into())]);
    let mut twice: Value = serde_json::from_str(&event(&bodies)).unwrap();
    let records = twice["Records"].as_array_mut().unwrap();
    records.push(records[2].clone());
    for _ in 0..2 {
        assert_eq!(scene.invoke(&twice.to_string()).failed_ids(), [message_id(4)]);
        assert_eq!(scene.stored(), 8);
        let ids = scene.sql("select message_id from sqs_etl_messages order by message_id");
        let stored: Vec<String> = ids.into_iter().map(|row| row[0].clone().unwrap()).collect();
        assert_eq!(stored, [0, 1, 2, 3, 5, 6, 7, 8].map(message_id), "a refused message is not in the ledger");
    }
    let lines = log_lines(&scene.function, "batch done", 2);
    assert_eq!((&lines[0]["committed"], &lines[0]["already_present"]), (&json!(8), &json!(1)));
    assert_eq!((&lines[1]["committed"], &lines[1]["already_present"]), (&json!(0), &json!(9)));
}

#[test]
fn a_contract_for_another_table_needs_no_code() {
    let path = file(
        "orders.toml",
        r#"
        table = "Shop.the ""orders"""
        unknown_fields = "ignore"
        [once]
        column = "order id"
        [columns."order id"]
        from = "id"
        type = "uuid"
        required = true
        [columns.customer]
        from = "customer.email"
        type = "text"
        canonical = ["trim", "lower"]
        mask = "hmac-sha256"
        [columns.network]
        from = "customer.ip"
        type = "inet"
        mask = "truncate"
        [columns.card]
        from = "payment.card"
        type = "text"
        keep_last = 4
        [columns.total]
        type = "numeric"
        min = 0
        [columns.lines]
        type = "jsonb"
        [columns.tenant]
        from = "$attribute.tenant"
        type = "text"
        required = true
        "#
        .replace("\"Shop.the \"\"orders\"\"\"", "'Shop.the \"orders\"'")
        .as_str(),
    );
    let scene = Scene::with(&[("CONTRACT_PATH", path.to_str().unwrap())]);
    scene.sql(
        r#"create schema "Shop"; create table "Shop"."the ""orders""" ("order id" uuid unique, customer text, network inet,
           card text, total numeric(10, 2), lines jsonb, tenant text)"#,
    );
    let order = |id: &str, total: &str| {
        format!(
            r#"{{"id": "{id}", "customer": {{"email": " Ann@Example.com", "ip": "2001:db8:1:2::3", "age": 1}},
                "payment": {{"card": "4000 0000 0000 1234"}}, "total": {total}, "lines": [{{"sku": "é", "n": 1.50}}]}}"#
        )
    };
    let bodies = [
        order("0f8b1c0e-6f3a-4a52-9a51-2f7d0e6f1a01", "12.345"),
        // The key is the order's, not the message's: this is the same order.
        order("0F8B1C0E-6F3A-4A52-9A51-2F7D0E6F1A01", "99"),
        order("0f8b1c0e-6f3a-4a52-9a51-2f7d0e6f1a02", "-1"),
        // The contract says numeric, the table holds eight digits before the point: Postgres refuses it.
        order("0f8b1c0e-6f3a-4a52-9a51-2f7d0e6f1a03", "123456789"),
    ];
    let mut event: Value = serde_json::from_str(&event(&bodies)).unwrap();
    for record in event["Records"].as_array_mut().unwrap() {
        record["messageAttributes"] = json!({ "tenant": { "stringValue": "acme", "dataType": "String" } });
    }
    assert_eq!(scene.invoke(&event.to_string()).failed_ids(), [message_id(2), message_id(3)]);
    let rows =
        scene.sql(r#"select left(customer, 3), network, card, total, lines, tenant from "Shop"."the ""orders""""#);
    let row: Vec<&str> = rows[0].iter().map(|value| value.as_deref().unwrap()).collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(row, ["k1:", "2001:db8:1::/48", "***1234", "12.35", r#"[{"n": 1.50, "sku": "é"}]"#, "acme"]);
}

#[test]
fn every_batch_is_counted_for_cloudwatch() {
    let scene = Scene::with(&[("METRICS_NAMESPACE", "test/namespace")]);
    let bodies = [login(0), login(1), "no json".to_owned()];
    scene.invoke(&event(&bodies));
    scene.invoke(&event(&bodies));
    log_lines(&scene.function, "batch done", 2);
    let documents: Vec<Value> = scene
        .function
        .stdout()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line.get("_aws").is_some())
        .collect();
    let sum = |name: &str, with_reason: bool| -> f64 {
        let counted = documents.iter().filter(|document| document.get("Reason").is_some() == with_reason);
        counted.filter_map(|document| document[name].as_f64()).sum()
    };
    assert_eq!(sum("Received", false), 6.0);
    assert_eq!(sum("Committed", false), 2.0);
    assert_eq!(sum("AlreadyPresent", false), 2.0);
    assert_eq!(sum("Failed", false), 2.0);
    assert_eq!(sum("ColdStart", false), 1.0);
    assert_eq!(sum("Failed", true), 2.0, "by reason");
    for document in &documents {
        let directive = &document["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Namespace"], "test/namespace");
        for metric in directive["Metrics"].as_array().unwrap() {
            assert!(document.get(metric["Name"].as_str().unwrap()).is_some(), "{metric} has a value");
            assert!(metric["Unit"].is_string(), "{metric} has a unit");
        }
    }
    for time in ["BatchTime", "WriteTime", "OldestMessageAge"] {
        let values = documents.iter().filter_map(|document| document[time].as_array()).flatten();
        assert_eq!(values.filter(|value| value.as_f64().is_some_and(|ms| ms > 0.0)).count(), 2, "{time}");
    }
}
