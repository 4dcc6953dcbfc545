"""The deployed stack at work: what is stored, what is dead-lettered, and what was deployed at all."""

import datetime
import json

import logins
from stack import FUNCTION_TIMEOUT, MAX_RECEIVE_COUNT, template
from waiting import until


def test_what_was_deployed_is_what_the_template_says(stack):
    written = template()
    event = written["Resources"]["Ingest"]["Properties"]["Events"]["Messages"]["Properties"]
    mapping = stack.mapping_as_deployed
    assert event["FunctionResponseTypes"] == mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BatchSize"] == written["Parameters"]["BatchSize"]["Default"]
    assert mapping["ScalingConfig"]["MaximumConcurrency"] == written["Parameters"]["MaxConcurrency"]["Default"]
    attributes = stack.attributes_as_deployed
    timeouts = written["Mappings"]["VisibilityTimeout"]
    assert int(attributes["VisibilityTimeout"]) == timeouts[str(FUNCTION_TIMEOUT)]["Seconds"]
    redrive = json.loads(attributes["RedrivePolicy"])
    assert redrive["deadLetterTargetArn"] == stack.queue.dead_letters.arn
    assert int(redrive["maxReceiveCount"]) == MAX_RECEIVE_COUNT


def test_good_messages_become_exactly_their_rows_and_leave_nothing_in_clear(stack):
    messages = logins.good(120)
    before = utc_date()
    ids = stack.queue.send([logins.body(message) for message in messages])
    after = utc_date()
    stack.wait_for_rows(ids)
    stack.wait_until_drained()
    key, rows = stack.masking_key(), stack.rows()
    for message_id, message in zip(ids, messages):
        assert rows[message_id] in [logins.row(message, key, date) for date in {before, after}]
    until("the log accounts for all of them", lambda: stack.log.total("committed") == len(ids))
    assert stack.log.total("received") == len(ids)
    assert_nothing_in_clear(stack, logins.clear_values(messages))
    assert stack.queue.dead_letters.is_empty()


def test_a_bad_message_is_dead_lettered_after_its_deliveries_and_its_neighbours_are_not(stack):
    good = logins.good(17, seed=1)
    [refused, incomplete] = logins.good(2, seed=2)
    refused["user_id"] = "whom Postgres refuses"
    del incomplete["device_id"]
    bad = {"not_json": '{"ip": "192.0.2.99", "device_id": "987-65-4321"', "missing": logins.body(incomplete)}
    bad["refused"] = logins.body(refused)
    bodies = [logins.body(message) for message in good]
    bodies[3:3], bodies[8:8], bodies[12:12] = [bad["not_json"]], [bad["missing"]], [bad["refused"]]
    rule = "alter table user_logins add constraint refused check (user_id <> 'whom Postgres refuses')"
    stack.database.query(rule)
    try:
        ids = stack.queue.send(bodies)
        until("all bad ones are dead-lettered", lambda: stack.queue.dead_letters.counts() == (len(bad), 0), 60)
    finally:
        stack.database.query("alter table user_logins drop constraint refused")
    stack.wait_until_drained()
    id_of = dict(zip(bodies, ids))
    bad_ids = {id_of[body]: reason for reason, body in bad.items()}
    assert set(stack.rows()) == set(ids) - set(bad_ids)

    every_delivery = range(1, MAX_RECEIVE_COUNT + 1)
    expected = {message_id: [(n, reason) for n in every_delivery] for message_id, reason in bad_ids.items()}
    assert stack.log.handed_back() == expected
    # Each good one was delivered once: nothing was received beyond these and the bad ones' deliveries.
    assert stack.log.total("received") == len(good) + len(bad) * MAX_RECEIVE_COUNT

    dead = {message["MessageId"]: message for message in stack.queue.dead_letters.take()}
    assert {message_id: message["Body"] for message_id, message in dead.items()} == {
        id_of[body]: body for body in bad.values()
    }
    for message in dead.values():
        # The last one is ours, from the dead-letter queue.
        assert int(message["Attributes"]["ApproximateReceiveCount"]) == MAX_RECEIVE_COUNT + 1
    in_clear = logins.clear_values([*good, refused]) | {"192.0.2.99", "987-65-4321", incomplete["ip"], "whom Postgres"}
    assert_nothing_in_clear(stack, in_clear)


def assert_nothing_in_clear(stack, values):
    log = stack.log.text()
    table = "\n".join(row for [row] in stack.database.query("select user_logins::text from user_logins"))
    assert "batch done" in log and "k1:" in table, "there is nothing to look through"
    for place, text in {"log": log, "table": table}.items():
        found = [value for value in values if value in text]
        assert not found, f"the {place} has {len(found)} values in clear"


def utc_date():
    return datetime.datetime.now(datetime.timezone.utc).date()
