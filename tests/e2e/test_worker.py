"""The worker on a real queue and a real Postgres: what it stores, hands back and deletes, whatever dies meanwhile."""

import datetime
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import psycopg
import pytest

import logins
from conftest import TARGET
from meddler import Meddler
from stack import VISIBILITY_TIMEOUT as STACK_VISIBILITY_TIMEOUT
from waiting import until
from worker import MASKING_KEY, Worker, read

# Of new_queue, unless told.
MAX_RECEIVE_COUNT = 3
VISIBILITY_TIMEOUT = 5
# For tests in which one delivery is all that there is: a machine may be busy for a while.
CALM = 15


@pytest.fixture
def start(emulator, database):
    """Starts workers on the test's database: `start(queue, "--drain")`. They end with the test."""
    started = []

    def start(queue, *options, url=None, **variables):
        started.append(Worker(TARGET / "debug" / "sqs-etl", emulator, queue, database.url if url is None else url, *options, **variables))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def send_good(queue, count, seed=0, group=None):
    messages = logins.good(count, seed)
    return messages, queue.send([logins.body(message) for message in messages], group)


def stored(database):
    """The table's message ids; each is there once, or this fails."""
    ids = [row[0] for row in database.query("select message_id::text from user_logins")]
    assert len(ids) == len(set(ids)), "a message is in the table twice"
    return set(ids)


def test_a_drain_stores_the_good_and_hands_back_the_bad_until_they_are_dead_letters(new_queue, database, start):
    queue = new_queue(visibility_timeout=VISIBILITY_TIMEOUT, max_receive_count=MAX_RECEIVE_COUNT)
    messages, ids = send_good(queue, 250)
    [incomplete] = logins.good(1, seed=1)
    del incomplete["device_id"]
    bad = ["no JSON 198.51.100.77", logins.body(incomplete)]
    bad_ids = queue.send(bad)
    today = datetime.datetime.now(datetime.timezone.utc).date()
    worker = start(queue, "--drain", "--drain-after", 3, "--retry-delay", 1, RUST_LOG="trace")
    assert worker.wait() == 3, worker.output()
    assert sum(queue.counts()) <= len(bad), "a message is stored, but was not deleted"

    assert stored(database) == set(ids)
    columns = "message_id::text, user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date"
    rows = {row[0]: row[1:] for row in database.query(f"select {columns} from user_logins")}
    dates = {today, datetime.datetime.now(datetime.timezone.utc).date()}
    for message_id, message in zip(ids, messages):
        assert rows[message_id] in [logins.row(message, MASKING_KEY, date) for date in dates]
    # A message is moved when somebody next asks for one.
    until("the bad ones are dead letters", lambda: queue.take() == [] and queue.dead_letters.counts() == (len(bad), 0))
    assert {message["MessageId"]: message["Body"] for message in queue.dead_letters.take()} == dict(zip(bad_ids, bad))
    times = {}
    for line in worker.lines("message handed back"):
        times.setdefault(line["message_id"], []).append(line["receive_count"])
    assert times == {message_id: list(range(1, MAX_RECEIVE_COUNT + 1)) for message_id in bad_ids}
    assert worker.total("received") == len(ids) + len(bad) * MAX_RECEIVE_COUNT
    in_clear = logins.clear_values(messages) | {"198.51.100.77", incomplete["ip"]}
    assert not [value for value in in_clear if value in worker.output()]


def test_a_drain_of_good_messages_ends_with_0_and_one_of_an_empty_queue_too(queue, database, start):
    _, ids = send_good(queue, 20)
    assert start(queue, "--drain", "--drain-after", 1).wait() == 0
    assert start(queue, "--drain", "--drain-after", 1).wait() == 0
    assert stored(database) == set(ids) and queue.is_empty()


def test_a_worker_that_is_killed_loses_and_doubles_nothing(new_queue, database, start):
    queue = new_queue(max_receive_count=10)
    _, ids = send_good(queue, 1_500)
    for _ in range(2):
        before = database.count()
        worker = start(queue, "--batch-size", 50)
        until("it has stored some", lambda: database.count() >= before + 200)
        worker.kill()
    assert database.count() < len(ids), "it was killed too late to show anything"
    assert start(queue, "--drain", "--drain-after", VISIBILITY_TIMEOUT + 2).wait(120) == 0
    assert stored(database) == set(ids)
    assert queue.is_empty() and queue.dead_letters.is_empty()


def test_a_database_that_is_away_for_longer_than_the_visibility_timeout_costs_no_delivery(
    new_queue, postgres, database, start
):
    # One delivery is all that there is: a second would make a dead letter.
    queue = new_queue(max_receive_count=1, visibility_timeout=CALM)
    _, ids = send_good(queue, 600)
    worker = start(queue, "--batch-size", 20, "--drain", "--drain-after", 3)
    until("it has stored some", lambda: database.count() > 0)
    postgres.crash()
    try:
        worker.wait_for("the batch cannot be written: it is kept and tried again")
        time_of_crash = time.monotonic()
        until("messages would be visible again", lambda: time.monotonic() > time_of_crash + CALM + 2)
        # Two batches and what waits for them.
        assert queue.counts()[1] <= 3 * 20, "it went on receiving"
    finally:
        postgres.restart()
    assert worker.wait() == 0, worker.output()
    assert stored(database) == set(ids)
    assert queue.is_empty() and queue.dead_letters.is_empty()


def test_an_outage_makes_no_poison_of_the_message_that_was_tried_alone(new_queue, postgres, database, start):
    queue = new_queue(max_receive_count=1, visibility_timeout=CALM)
    _, ids = send_good(queue, 40)
    worker = start(queue, "--batch-size", 1, "--drain", "--drain-after", 3)
    until("it has stored some", lambda: database.count() > 0)
    database.query("alter table user_logins rename to elsewhere")
    until("it has failed often", lambda: len(worker.lines("the batch cannot be written: it is kept and tried again")) > 8)
    database.query("alter table elsewhere rename to user_logins")
    assert worker.wait() == 0, worker.output()
    assert worker.lines("message handed back") == []
    assert stored(database) == set(ids)


def test_while_the_table_is_locked_no_more_is_received_than_fits_and_no_delivery_is_lost(new_queue, database, start):
    queue = new_queue(max_receive_count=1, visibility_timeout=CALM)
    _, ids = send_good(queue, 300)
    with psycopg.connect(database.admin_url) as connection:
        connection.execute("lock table user_logins in access exclusive mode")
        worker = start(queue, "--batch-size", 10, "--batch-timeout", 2, "--concurrency", 1, "--drain", "--drain-after", 3)
        until("a batch waits", lambda: queue.counts()[1] > 0)
        locked = time.monotonic()
        # More than one try is over by then, and messages would be visible again.
        until("it waits for long", lambda: time.monotonic() > locked + CALM + 2)
        assert 0 < queue.counts()[1] <= 2 * 10
        assert "the function's time was up" in worker.lines("the batch cannot be written: it is kept and tried again")[0]["error"]
    assert worker.wait() == 0, worker.output()
    assert worker.lines("message handed back") == []
    assert stored(database) == set(ids)
    assert queue.is_empty() and queue.dead_letters.is_empty()


def test_a_row_that_only_looks_like_an_outage_is_handed_back_and_its_neighbours_are_stored(new_queue, database, start):
    """A trigger that ends its own backend: to the client the connection broke."""
    queue = new_queue(max_receive_count=1, visibility_timeout=CALM)
    bodies = [logins.body(message) for message in logins.good(30)]
    [poison] = logins.good(1, seed=9)
    ids = queue.send([*bodies[:20], logins.body(poison | {"user_id": "poison"}), *bodies[20:]])
    poison_id = ids.pop(20)
    database.query(
        """create function break() returns trigger language plpgsql security definer as $$ begin
           if new.user_id = 'poison' then perform pg_terminate_backend(pg_backend_pid()); end if; return new; end $$"""
    )
    database.query("create trigger break before insert on user_logins for each row execute function break()")
    # All in one batch: while its halves are stored, it becomes clear that it is not the database.
    worker = start(queue, "--batch-window", 3_000, "--drain", "--drain-after", 3)
    assert worker.wait(120) == 3, worker.output()
    assert stored(database) == set(ids)
    [handed_back] = worker.lines("message handed back")
    assert (handed_back["message_id"], handed_back["reason"]) == (poison_id, "no_outcome")


def test_sigterm_under_load_ends_in_time_with_nothing_in_flight(new_queue, database, start):
    queue = new_queue(max_receive_count=1, visibility_timeout=CALM)
    _, ids = send_good(queue, 1_500)
    grace = 20
    worker = start(queue, "--batch-size", 30, "--grace", grace)
    until("it has stored some", lambda: database.count() >= 200)
    worker.stop()
    assert worker.wait(grace) == 0, worker.output()
    visible, in_flight = queue.counts()
    assert in_flight == 0, "a message stayed invisible"
    assert 0 < database.count() < len(ids), "it was not under load"
    assert database.count() + visible == len(ids), "a message was stored, but not deleted"
    assert start(queue, "--drain", "--drain-after", 1).wait() == 0
    assert stored(database) == set(ids) and queue.dead_letters.is_empty()


def test_sigterm_while_the_database_hangs_gives_the_messages_back_at_once(new_queue, database, start):
    queue = new_queue(max_receive_count=2, visibility_timeout=60)
    _, ids = send_good(queue, 30)
    with psycopg.connect(database.admin_url) as connection:
        connection.execute("lock table user_logins in access exclusive mode")
        worker = start(queue, "--grace", 4)
        until("all are in its hands", lambda: queue.counts() == (0, len(ids)))
        worker.stop()
        assert worker.wait(4) == 0, worker.output()
    assert queue.counts() == (len(ids), 0), worker.output()
    assert start(queue, "--drain", "--drain-after", 1).wait() == 0
    assert stored(database) == set(ids)


def test_sigterm_during_the_start_or_without_a_queue_ends_in_time(queue, emulator, start):
    hangs = threading.Event()
    meddler = Meddler(emulator.endpoint, lambda *_: hangs.wait(60) and 500)
    try:
        for options, code in ((["--grace", 2], 0), (["--drain"], 130)):
            worker = start(queue, *options, AWS_ENDPOINT_URL=meddler.endpoint)
            until("it listens for signals", lambda: handles_sigterm(worker.process.pid))
            worker.stop()
            assert worker.wait(5) == code, worker.output()
    finally:
        hangs.set()
        meddler.stop()


def handles_sigterm(pid):
    """As Linux tells it."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return int(caught, 16) >> (signal.SIGTERM - 1) & 1


def test_sigterm_while_the_queue_answers_nothing_ends_in_time(new_queue, emulator, database, start):
    queue = new_queue(visibility_timeout=CALM)
    _, ids = send_good(queue, 30)
    silent, hangs = threading.Event(), threading.Event()
    meddler = Meddler(emulator.endpoint, lambda *_: silent.is_set() and hangs.wait(60) and 500 or None)
    try:
        with psycopg.connect(database.admin_url) as connection:
            connection.execute("lock table user_logins in access exclusive mode")
            worker = start(queue, "--drain", "--grace", 4, AWS_ENDPOINT_URL=meddler.endpoint)
            until("all are in its hands", lambda: queue.counts() == (0, len(ids)))
            silent.set()
            worker.stop()
            assert worker.wait(4) == 130, worker.output()
        # Nobody could be told, so nobody is lost.
        assert sum(queue.counts()) == len(ids)
    finally:
        hangs.set()
        meddler.stop()


def test_a_drain_without_a_table_gives_up_and_gives_back(new_queue, postgres, database, start):
    queue = new_queue(visibility_timeout=60)
    _, ids = send_good(queue, 30)
    database.query("alter table user_logins rename to elsewhere")
    worker = start(queue, "--drain", "--give-up-after", 2)
    assert worker.wait() == 4, worker.output()
    assert "the table is missing: run the migrations" in worker.output()
    assert queue.counts() == (len(ids), 0)


def test_two_workers_and_the_function_share_a_queue(stack, start):
    database = stack.database
    stack.queue.set_visibility_timeout(30)
    # The function has started before the others, who would have taken all by then.
    stack.wait_for_rows(send_good(stack.queue, 1, seed=1)[1])
    stack.clean()
    stack.log.forget()
    try:
        workers = [
            start(stack.queue, url=database.url, MASKING_KEY=stack.masking_key(), BATCH_SIZE="10") for _ in range(2)
        ]
        for worker in workers:
            worker.wait_for("worker started")
        messages, ids = send_good(stack.queue, 2_000)
        stack.wait_for_rows(ids)
        stack.wait_until_drained()
        for worker in workers:
            worker.stop()
            assert worker.wait() == 0, worker.output()
        shares = [worker.total("committed") for worker in workers]
        until("the function's log is complete", lambda: sum(shares) + stack.log.total("committed") == len(ids))
        assert min(*shares, stack.log.total("committed")) > 0, "one of the three did nothing"
        rows, key = stack.rows(), stack.masking_key()
        for message_id, message in zip(ids, messages):
            assert rows[message_id][2] == logins.pseudonym(key, "ip", logins.canonical(message["ip"]))
        assert stack.queue.dead_letters.is_empty()
    finally:
        stack.queue.set_visibility_timeout(STACK_VISIBILITY_TIMEOUT)


def test_a_bad_message_blocks_its_group_of_a_fifo_queue_and_no_other(new_queue, database, start):
    queue = new_queue(fifo=True, max_receive_count=2)
    _, before = send_good(queue, 5, seed=1, group="a")
    [bad] = queue.send(["no JSON"], "a")
    _, after = send_good(queue, 3, seed=2, group="a")
    _, other = send_good(queue, 5, seed=3, group="b")
    worker = start(queue, "--retry-delay", 2, "--drain", "--drain-after", 6)
    until("what is not blocked is stored", lambda: stored(database) == {*before, *other})
    assert worker.wait() == 3, worker.output()
    assert stored(database) | set(dead_ids(queue)) == {*before, bad, *after, *other}
    assert not stored(database) & set(dead_ids(queue))
    handed_back = [(line["message_id"], line["reason"]) for line in worker.lines("message handed back")]
    assert (bad, "not_json") in handed_back
    behind = {message_id for message_id, reason in handed_back if reason == "behind_failure"}
    assert behind and behind <= set(after)


def test_messages_of_a_group_that_came_together_are_in_one_batch_even_if_more_would_fit(new_queue, database, start):
    queue = new_queue(fifo=True, max_receive_count=1, visibility_timeout=CALM)
    ids = []
    # Two groups fill a receive; one and a half would fill a batch.
    for group in range(8):
        messages = [logins.body(message) for message in logins.good(4, seed=group)]
        ids.append(queue.send([messages[0], "no JSON", *messages[1:]], f"g{group}"))
    worker = start(queue, "--batch-size", 14, "--batch-window", 2_000, "--drain", "--drain-after", 2)
    assert worker.wait() == 3, worker.output()
    # What came with a bad message and behind it must not be stored before it, and this was its only delivery.
    assert stored(database) == {group_ids[0] for group_ids in ids}
    reasons = {line["message_id"]: line["reason"] for line in worker.lines("message handed back")}
    for _, bad, *behind in ids:
        assert reasons[bad] == "not_json"
        assert {reasons[message_id] for message_id in behind} == {"behind_failure"}


def dead_ids(queue):
    """The dead letters' ids; they stay where they are."""
    seen = {}
    while True:
        answer = queue.sqs.receive_message(QueueUrl=queue.dead_letters.url, MaxNumberOfMessages=10, VisibilityTimeout=60)
        if not answer.get("Messages"):
            break
        seen |= {message["MessageId"]: message["ReceiptHandle"] for message in answer["Messages"]}
    for handle in seen.values():
        queue.sqs.change_message_visibility(
            QueueUrl=queue.dead_letters.url, ReceiptHandle=handle, VisibilityTimeout=0
        )
    return list(seen)


def test_a_delete_that_fails_is_repeated_and_only_then(queue, emulator, database, start):
    """Once a whole call fails, once an answer names entries that failed, once an entry is our own fault."""
    _, ids = send_good(queue, 10)
    deletes = []

    def answer(action, request):
        if action != "DeleteMessageBatch":
            return None
        deletes.append([entry["Id"] for entry in request["Entries"]])
        if len(deletes) == 1:
            return 500
        if len(deletes) == 2:
            # Of this call nothing was deleted.
            failed = [{"Id": i, "SenderFault": i == "0", "Code": "Meddled"} for i in deletes[-1]]
            return {"Successful": [], "Failed": failed}
        return None

    meddler = Meddler(emulator.endpoint, answer)
    try:
        seconds = VISIBILITY_TIMEOUT + 2
        worker = start(queue, "--drain", "--drain-after", seconds, AWS_ENDPOINT_URL=meddler.endpoint)
        until("all but one are deleted", lambda: queue.counts() == (0, 1))
        until("the one is deleted when it comes again", queue.is_empty)
        assert worker.wait() == 0, worker.output()
    finally:
        meddler.stop()
    everything = [str(i) for i in range(10)]
    assert deletes == [everything, everything, everything[1:], ["0"]]
    [told] = worker.lines("message stored, but not deleted: it comes back and changes nothing")
    assert told["code"] == "Meddled" and told["message_id"] in ids
    assert worker.total("committed") == 10 and worker.total("already_present") == 1
    assert stored(database) == set(ids)


def test_a_worker_that_may_not_delete_stops_before_stored_messages_become_dead_letters(queue, emulator, database, start):
    _, ids = send_good(queue, 10)
    meddler = Meddler(emulator.endpoint, lambda action, _: 403 if action == "DeleteMessageBatch" else None)
    try:
        worker = start(queue, AWS_ENDPOINT_URL=meddler.endpoint)
        assert worker.wait() == 1
    finally:
        meddler.stop()
    assert "sqs:DeleteMessage" in worker.output(), worker.output()
    assert stored(database) == set(ids)


def test_an_outage_of_the_queue_is_waited_for(queue, emulator, database, start):
    _, ids = send_good(queue, 10)
    receives = []

    def answer(action, _):
        if action == "ReceiveMessage":
            receives.append(action)
            # The SDK asks four times before it gives up.
            return 503 if len(receives) <= 8 else None
        return None

    meddler = Meddler(emulator.endpoint, answer)
    try:
        worker = start(queue, "--drain", "--drain-after", 1, AWS_ENDPOINT_URL=meddler.endpoint)
        assert worker.wait() == 0, worker.output()
    finally:
        meddler.stop()
    assert worker.lines("receiving failed and is tried again")
    assert stored(database) == set(ids)


def test_a_worker_that_cannot_start_says_why(new_queue, emulator, start):
    queue = new_queue()
    unstable = new_queue(visibility_timeout=2)

    def check(worker, words):
        assert worker.wait() == 1
        assert words in worker.output(), worker.output()

    check(start(queue, MASKING_KEY=""), "MASKING_SECRET_ARN or MASKING_KEY is missing")
    check(start(queue, MASKING_KEY="short"), "read the masking keys")
    check(start(queue, "--batch-size", 10_000, "--concurrency", 20), "too many to keep invisible")
    check(start(queue, BATCH_SIZE="", HEALTH_FILE="", MASKING_KEY=""), "MASKING_SECRET_ARN or MASKING_KEY is missing")
    check(start(queue, CONTRACT_PATH="/nowhere.toml"), "read the contract /nowhere.toml (CONTRACT_PATH)")
    check(start(queue, AWS_ENDPOINT_URL="http://127.0.0.1:1"), "SQS cannot be reached")
    check(start(unstable), "visible again after 2 s")
    gone = new_queue()
    url, gone.url = gone.url, gone.url + "-that-is-not-there"
    check(start(gone), "there is no such queue in this account and region")
    gone.url = url


def test_a_dry_run_reports_without_values_and_leaves_table_and_queue_as_they_were(new_queue, database, start):
    queue = new_queue(visibility_timeout=60)
    _, before = send_good(queue, 5, seed=5)
    assert start(queue, "--drain", "--drain-after", 1).wait() == 0
    messages, _ = send_good(queue, 40)
    [incomplete] = logins.good(1, seed=1)
    del incomplete["device_id"]
    bad = dict(zip(queue.send(["no JSON 198.51.100.77", logins.body(incomplete)]), ["not_json", "missing"]))
    worker = start(queue, "--dry-run", url="", MASKING_KEY="")
    assert worker.wait() == 3, worker.output()
    lines = [json.loads(line) for line in read(worker.out).splitlines()]
    assert len(lines) == 42
    assert {line["message_id"]: line["reason"] for line in lines if line.get("reason")} == bad
    in_clear = logins.clear_values(messages) | {"198.51.100.77", incomplete["ip"]}
    assert not [value for value in in_clear if value in worker.output()]
    assert stored(database) == set(before)
    assert queue.counts() == (42, 0), "a message is not there, or not visible"


def test_a_health_file_is_touched_for_as_long_as_the_worker_lives(queue, start, tmp_path):
    file = tmp_path / "alive"
    worker = start(queue, HEALTH_FILE=str(file))
    until("the file is there", file.exists)
    touched = file.stat().st_mtime_ns
    until("it is touched again", lambda: file.stat().st_mtime_ns > touched)
    look = [TARGET / "debug" / "sqs-etl", "worker-health", file]
    assert subprocess.run(look).returncode == 0
    worker.stop()
    assert worker.wait() == 0
    os.utime(file, (0, 0))
    assert subprocess.run(look).returncode == 1
