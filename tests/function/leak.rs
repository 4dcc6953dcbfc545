//! No value of a record reaches a log, an error, a metric, a response or, if it is personal, a table.

use serde_json::{Value, json};

use crate::harness::{Answer, Scene, event, invoke, log_lines, login_with, message_id};

/// Planted in every field. In mixed case, so that a value that was lower-cased or hashed on the way is found as well as one
/// that was copied, and searched for without regard to case.
const PLANT: &str = "pLaNt";

/// Every way in which a message can fail, each with the plant wherever a sender can write something.
fn failing_bodies() -> Vec<String> {
    let plant = |field: &str| format!("{PLANT}-{field}");
    let planted = |changes: &[(&str, Value)]| {
        let all: Vec<(&str, Value)> = ["user_id", "device_type", "locale", "device_id"]
            .into_iter()
            .map(|field| (field, json!(plant(field))))
            .chain([("ip", json!("192.0.2.77"))])
            .chain(changes.iter().cloned())
            .collect();
        login_with(1, &all)
    };
    let mut bodies = vec![
        PLANT.to_owned(),
        format!("{{\"user_id\": \"{PLANT}"),
        format!("{{\"{PLANT}\": 1}}"),
        format!("[\"{PLANT}\"]"),
        format!("\"{PLANT}\""),
        format!("{{\"user_id\": \"{PLANT}\", \"user_id\": \"{PLANT}2\"}}"),
        format!("{{\"user_id\": \"{PLANT}\\ud800\"}}"),
        json!({ "Type": "Notification", "TopicArn": PLANT, "Message": PLANT }).to_string(),
        json!({ "Service": PLANT, "Event": "s3:TestEvent", "Bucket": PLANT }).to_string(),
        planted(&[("ip", json!(plant("ip")))]),
        planted(&[("ip", Value::Null)]),
        planted(&[("app_version", json!(plant("version")))]),
        planted(&[("app_version", json!("9999.0"))]),
        planted(&[("create_date", json!(plant("date")))]),
        planted(&[("user_id", json!(PLANT.repeat(100)))]),
        planted(&[("user_id", json!(format!("{PLANT}\0")))]),
        planted(&[("email", json!(plant("email")))]),
        // Only Postgres refuses these.
        planted(&[("locale", json!(format!("{PLANT}checked")))]),
        planted(&[("locale", json!(format!("{PLANT}raised")))]),
        planted(&[("locale", json!(format!("{PLANT}posing")))]),
        planted(&[("locale", json!(format!("{PLANT}cast")))]),
        planted(&[("locale", json!(format!("{PLANT}unique")))]),
    ];
    for wrong in [json!(593_475_928), json!([PLANT]), json!({ PLANT: PLANT }), json!(true)] {
        for field in ["user_id", "device_type", "ip", "locale", "device_id", "app_version", "create_date"] {
            bodies.push(planted(&[(field, wrong.clone())]));
        }
    }
    bodies
}

/// Postgres quotes the row in each of these ways.
const REFUSALS: &str = "
    alter table user_logins add constraint checked check (locale !~ 'checked$');
    create unique index unique_locale on user_logins (locale);
    create function tell() returns trigger language plpgsql as $$ begin
        raise warning 'a warning of %', new;
        if new.locale ~ 'raised$' then
            raise exception 'an exception of %', new using detail = new.user_id, hint = new.locale, column = new.locale,
                constraint = new.user_id, table = new.device_type;
        end if;
        if new.locale ~ 'posing$' then
            raise check_violation using message = new.user_id, column = new.locale, constraint = new.user_id;
        end if;
        if new.locale ~ 'cast$' then perform new.user_id::integer; end if;
        return new;
    end $$;
    create trigger tell before insert on user_logins for each row execute function tell();
    insert into user_logins (message_id, locale) values ('00000000-0000-0000-0000-000000000001', 'pLaNtunique')";

/// The event, with the plant in everything that a sender can set besides the body.
fn planted_event(bodies: &[String]) -> String {
    let mut event: Value = serde_json::from_str(&event(bodies)).unwrap();
    for record in event["Records"].as_array_mut().unwrap() {
        record["receiptHandle"] = json!(PLANT);
        record["attributes"]["MessageGroupId"] = json!(PLANT);
        record["attributes"]["AWSTraceHeader"] = json!(PLANT);
        record["messageAttributes"] = json!({ PLANT: { "stringValue": PLANT, "dataType": "String" } });
    }
    event.to_string()
}

fn check_silence(scene: &Scene, answers: &[Answer]) {
    let outputs = [scene.function.stdout(), scene.function.stderr(), format!("{answers:?}")];
    for output in outputs {
        let found = output.lines().find(|line| line.to_lowercase().contains(&PLANT.to_lowercase()));
        assert!(found.is_none(), "a value got out: {found:?}");
        for personal in ["192.0.2.77", "593475928", "593-47-"] {
            assert!(!output.contains(personal), "{personal} got out");
        }
    }
}

#[test]
fn a_failing_message_tells_nothing_of_itself() {
    let scene = Scene::with(&[("RUST_LOG", "trace")]);
    scene.sql(REFUSALS);
    let bodies = failing_bodies();
    let answer = scene.invoke(&planted_event(&bodies));
    assert_eq!(answer.failed_ids(), (0..bodies.len()).map(message_id).collect::<Vec<_>>(), "each of them fails");
    let lines = log_lines(&scene.function, "message handed back", bodies.len());
    let refused: Vec<&str> =
        lines.iter().filter(|l| l["reason"] == "refused").map(|l| l["detail"].as_str().unwrap()).collect();
    assert_eq!(refused.len(), 5, "{refused:?}");
    for sqlstate in ["23514", "P0001", "22P02", "23505"] {
        assert!(refused.iter().any(|detail| detail.contains(sqlstate)), "no {sqlstate} in {refused:?}");
    }
    log_lines(&scene.function, "batch done", 1);
    assert!(scene.function.stdout().contains("\"_aws\""), "the metrics are among what is searched");
    check_silence(&scene, &[answer]);
    assert_eq!(scene.stored(), 1, "nothing but the row that was there");
}

#[test]
fn a_failing_invocation_tells_nothing_of_its_messages() {
    let scene = Scene::with(&[("RUST_LOG", "trace")]);
    let good = login_with(1, &[("user_id", json!(PLANT)), ("ip", json!("192.0.2.77"))]);
    scene.sql("alter table user_logins rename column locale to region");
    let answers = [
        scene.invoke(&planted_event(&[good])),
        scene.invoke(&format!("{{\"Records\": [{{\"messageId\": 593475928, \"body\": \"{PLANT}\"}}]}}")),
        scene.invoke(&format!("{{\"Records\": [{{\"messageId\": null, \"body\": \"{PLANT}\"}}]}}")),
        scene.invoke(&format!("{{\"Records\": \"{PLANT}\"}}")),
        scene.invoke(&format!("\"{PLANT}\"")),
        scene.invoke(&format!("{{\"{PLANT}\": 593475928}}")),
    ];
    for answer in &answers {
        assert!(matches!(answer, Answer::Error { .. }), "{answer:?}");
    }
    log_lines(&scene.function, "the batch failed and will be redelivered", answers.len());
    check_silence(&scene, &answers);
}

#[test]
fn a_stored_row_holds_no_personal_value_in_clear() {
    let scene = Scene::with(&[("RUST_LOG", "trace")]);
    let body = login_with(1, &[("ip", json!("192.0.2.77")), ("device_id", json!("593475928"))]);
    let answer = invoke(&scene.function, &event(&[body]));
    assert_eq!(answer.failed_ids(), [] as [&str; 0]);
    let row = format!("{:?}", scene.sql("select user_logins::text from user_logins"));
    assert!(row.contains("user-1"), "the row is there: {row}");
    assert!(!row.contains("192.0.2.77") && !row.contains("593475928"), "{row}");
    log_lines(&scene.function, "batch done", 1);
    check_silence(&scene, &[answer]);
}
