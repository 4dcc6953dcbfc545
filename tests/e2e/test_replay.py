"""`sqs-etl replay`: dead letters that are moved back, and those that are only looked at."""

import json
import re

import pytest

from meddler import Meddler
from mover import ORIGIN_UNKNOWN, Mover
from queues import CALL, fifo_fields
from waiting import until

SECRET = "593-47-5928"
GOOD = json.dumps({"user_id": "u", "ip": "192.0.2.1", "device_id": SECRET})
NOT_AN_IP = json.dumps({"user_id": "u", "ip": SECRET, "device_id": "d"})
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"
NO_IP = json.dumps({"user_id": "u", "device_id": SECRET})


def replay(tool, queue, *options, **env):
    return tool.run("replay", "--queue-url", queue.url, *options, **env)


def bodies(queue):
    return [message["Body"] for message in queue.take()]


# Moving by hand, also where the server could move them itself

TASKS = ("StartMessageMoveTask", "ListMessageMoveTasks")


@pytest.fixture
def without_tasks(emulator):
    """An endpoint that has no tasks to move messages; `.sent` has the entries of each call that sends."""
    sent = []

    def answer(action, request):
        if action == "SendMessageBatch":
            sent.append(request["Entries"])
        return "UnknownOperationException" if action in TASKS else None

    meddler = Meddler(emulator.endpoint, answer)
    meddler.sent = sent
    yield meddler
    meddler.stop()


def size(entry):
    attributes = entry.get("MessageAttributes", {}).items()
    return len(entry["MessageBody"]) + sum(
        len(name) + len(value["DataType"]) + len(value.get("StringValue", "")) for name, value in attributes
    )


@pytest.fixture
def by_hand(tool, without_tasks):
    """`replay` that has to receive, send and delete."""

    def run(queue, *options):
        return replay(tool, queue, *options, AWS_ENDPOINT_URL=without_tasks.endpoint)

    return run


def test_all_go_back_to_where_they_came_from_with_their_attributes(by_hand, queue, without_tasks):
    dead = queue.dead_letters
    dead.send([f"body {n}" for n in range(25)])
    attributes = {
        "text": {"DataType": "String.mine", "StringValue": "ä"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\0\xff"},
    }
    dead.sqs.send_message(
        QueueUrl=dead.url,
        MessageBody="with attributes",
        MessageAttributes=attributes,
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": TRACE}},
    )
    done = by_hand(dead)
    assert (done.returncode, done.stdout) == (0, f"26 messages moved from {dead.name} to {queue.name}\n"), done.stderr
    assert "new message id" in done.stderr
    assert dead.is_empty()
    messages = {message["Body"]: message for message in queue.take()}
    expected = {**{f"body {n}": None for n in range(25)}, "with attributes": attributes}
    assert {body: message.get("MessageAttributes") for body, message in messages.items()} == expected
    # Asked of the request, since ministack keeps no trace header of a batch.
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": TRACE}}
    entries = [entry for call in without_tasks.sent for entry in call]
    sent = {entry["MessageBody"]: entry.get("MessageSystemAttributes") for entry in entries}
    assert sent == {**dict.fromkeys(expected), "with attributes": trace}


def test_attributes_count_in_what_goes_into_one_call(by_hand, queue, without_tasks):
    dead = queue.dead_letters
    large = {"large": {"DataType": "String", "StringValue": "x" * 200_000}}
    for n in range(10):
        dead.sqs.send_message(QueueUrl=dead.url, MessageBody=f"{n}", MessageAttributes=large)
    done = by_hand(dead)
    assert done.returncode == 0, done.stderr
    assert sorted(bodies(queue)) == [f"{n}" for n in range(10)]
    assert max(sum(map(size, entries)) for entries in without_tasks.sent) <= 1_048_576


def test_a_message_whose_answer_was_lost_is_told_to_be_perhaps_in_both_queues(tool, emulator, queue):
    dead = queue.dead_letters

    def lost_then_denied(action, request):
        if action in TASKS:
            return "UnknownOperationException"
        if action != "SendMessageBatch":
            return None
        if not queue.is_empty():
            return 403
        queue.send([entry["MessageBody"] for entry in request["Entries"]])
        return 500

    meddler = Meddler(emulator.endpoint, lost_then_denied)
    dead.send(["a"])
    done = replay(tool, dead, AWS_ENDPOINT_URL=meddler.endpoint)
    meddler.stop()
    assert done.returncode == 1 and "1 message may be in both queues" in done.stderr, done.stderr
    assert (bodies(queue), bodies(dead)) == (["a"], ["a"])


def test_the_order_within_each_group_is_kept(by_hand, new_queue):
    queue = new_queue(fifo=True)
    for n in range(30):
        queue.dead_letters.send([f"{n}"], group=f"group-{n % 3}")
    done = by_hand(queue.dead_letters)
    assert done.returncode == 0, done.stderr
    assert queue.dead_letters.is_empty()
    groups = {}
    for message in queue.take():
        groups.setdefault(message["Attributes"]["MessageGroupId"], []).append(int(message["Body"]))
    assert groups == {f"group-{n}": list(range(n, 30, 3)) for n in range(3)}


def test_an_empty_queue_is_no_failure(by_hand, queue):
    done = by_hand(queue.dead_letters)
    assert (done.returncode, done.stdout) == (0, f"{queue.dead_letters.name} is empty by SQS's count\n")


def test_from_a_queue_that_is_nobodys_dead_letter_queue_messages_go_only_where_they_are_told_to(by_hand, queue, new_queue):
    other = new_queue()
    queue.send(["a", "b"])
    done = by_hand(queue)
    assert done.returncode == 1 and "no queue's dead-letter queue" in done.stderr and "--to" in done.stderr
    assert queue.counts() == (2, 0)
    done = by_hand(queue, "--to", other.url)
    assert done.returncode == 0, done.stderr
    assert (sorted(bodies(other)), queue.is_empty()) == (["a", "b"], True)


def test_what_comes_from_two_queues_goes_where_it_is_told_to(by_hand, queue, new_queue):
    other = new_queue()
    dead = queue.dead_letters
    policy = json.dumps({"deadLetterTargetArn": dead.arn, "maxReceiveCount": 3})
    other.sqs.set_queue_attributes(QueueUrl=other.url, Attributes={"RedrivePolicy": policy})
    dead.send(["a"])
    done = by_hand(dead)
    assert done.returncode == 1 and "--to" in done.stderr, done.stderr
    assert queue.name in done.stderr and other.name in done.stderr
    assert dead.counts() == (1, 0)
    assert by_hand(dead, "--to", other.url).returncode == 0
    assert bodies(other) == ["a"]


def test_what_cannot_be_sent_stays_and_is_there_at_once(by_hand, queue):
    dead = queue.dead_letters
    queue.sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"MaximumMessageSize": "1024"})
    dead.send(["small", "large" * 1000, "small too"])
    done = by_hand(dead)
    assert done.returncode == 1, done.stderr
    assert "2 messages moved" in done.stdout and "1 message could not be moved" in done.stderr
    assert sorted(bodies(queue)) == ["small", "small too"]
    assert dead.counts() == (1, 0)


def test_a_group_stays_behind_its_first_message_that_cannot_be_sent(by_hand, new_queue):
    queue = new_queue(fifo=True)
    dead = queue.dead_letters
    queue.sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"MaximumMessageSize": "1024"})
    for group, body in [("a", "a1"), ("a", "a2" * 1000), ("b", "b1"), ("a", "a3"), ("b", "b2")]:
        dead.sqs.send_message(QueueUrl=dead.url, MessageBody=body, **fifo_fields(group))
    done = by_hand(dead)
    assert done.returncode == 1, done.stderr
    assert sorted(bodies(queue)) == ["a1", "b1", "b2"]
    assert bodies(dead) == ["a2" * 1000, "a3"]


def test_ctrl_c_leaves_each_message_in_one_queue(tool, queue, without_tasks):
    dead = queue.dead_letters
    dead.send([f"{n}" for n in range(200)])
    options = ["--queue-url", dead.url, "--rate", "20"]
    running = tool.start("replay", *options, AWS_ENDPOINT_URL=without_tasks.endpoint)
    until("some are moved", lambda: queue.counts()[0] > 10)
    done = running.interrupt()
    assert done.returncode == 130 and "interrupted" in done.stderr, done.stderr
    moved = int(re.match(r"(\d+) messages moved", done.stdout)[1])
    assert (queue.counts(), dead.counts()) == ((moved, 0), (200 - moved, 0))


def test_a_fifo_queue_cannot_be_moved_to_a_standard_one(by_hand, queue, new_queue):
    fifo = new_queue(fifo=True)
    fifo.dead_letters.send(["a"], group="g")
    done = by_hand(fifo.dead_letters, "--to", queue.url)
    assert done.returncode == 1 and "FIFO" in done.stderr
    assert fifo.dead_letters.counts() == (1, 0)


# Moving, by SQS itself


@pytest.fixture
def mover(emulator, queue):
    mover = Mover(emulator, queue)
    yield mover
    mover.stop()


def test_sqs_moves_the_messages_where_it_can(tool, queue, new_queue, mover):
    queue.dead_letters.send(["a", "b"])
    done = replay(tool, queue.dead_letters, "--rate", "7", AWS_ENDPOINT_URL=mover.endpoint)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"about 2 messages moved from {queue.dead_letters.name} to {queue.name}\n"
    assert "SQS moves them" in done.stderr
    assert (sorted(bodies(queue)), mover.task["Rate"]) == (["a", "b"], 7)

    other = new_queue()
    queue.dead_letters.send(["c"])
    done = replay(tool, queue.dead_letters, "--to", other.url, AWS_ENDPOINT_URL=mover.endpoint)
    assert (done.returncode, bodies(other)) == (0, ["c"]), done.stderr


def moved(done):
    return int(re.match(r"(?:about )?(\d+) messages? moved", done.stdout)[1])


def test_the_count_of_a_task_that_has_ended_is_waited_for(tool, queue, mover):
    queue.dead_letters.send(["a", "b"])
    mover.lag = 2
    done = replay(tool, queue.dead_letters, AWS_ENDPOINT_URL=mover.endpoint)
    assert (done.returncode, moved(done)) == (0, 2), done.stderr


def test_that_ids_are_new_is_said_whatever_the_count(tool, queue, mover):
    queue.dead_letters.send(["a"])
    mover.lag = 1_000
    done = replay(tool, queue.dead_letters, AWS_ENDPOINT_URL=mover.endpoint)
    assert (done.returncode, moved(done)) == (0, 0), done.stderr
    assert "new message id" in done.stderr and bodies(queue) == ["a"]


def test_sqs_may_be_out_of_order_for_a_while(tool, queue, mover):
    queue.dead_letters.send(["a", "b"])
    # The SDK makes four attempts.
    mover.refusals["ListMessageMoveTasks"] = [(500, "InternalError")] * 5
    done = replay(tool, queue.dead_letters, AWS_ENDPOINT_URL=mover.endpoint)
    assert (done.returncode, sorted(bodies(queue))) == (0, ["a", "b"]), done.stderr
    assert mover.refusals["ListMessageMoveTasks"] == []


def test_a_move_that_cannot_be_watched_is_said_to_go_on(tool, queue, mover):
    queue.dead_letters.send(["a"])
    mover.refusals["ListMessageMoveTasks"] = [(403, "AccessDenied")]
    done = replay(tool, queue.dead_letters, AWS_ENDPOINT_URL=mover.endpoint)
    assert done.returncode == 1 and "new message id" in done.stderr, done.stderr
    assert "access denied" in done.stderr and "SQS goes on moving" in done.stderr
    assert f"aws sqs list-message-move-tasks --source-arn {queue.dead_letters.arn}" in done.stderr


def test_another_task_behind_ours_is_not_taken_for_ours(tool, queue, mover):
    queue.dead_letters.send(["a"] * 3)

    def ended():
        mover.task["Status"] = "COMPLETED"
        another = {**mover.task, "Status": "FAILED", "FailureReason": ORIGIN_UNKNOWN}
        del another["TaskHandle"]
        another["StartedTimestamp"] += 1
        return another

    mover.ended_by = ended
    done = replay(tool, queue.dead_letters, AWS_ENDPOINT_URL=mover.endpoint)
    assert (done.returncode, moved(done)) == (0, 2), done.stderr


def start_moving(tool, queue, mover, count):
    queue.dead_letters.send([f"{n}" for n in range(count)])
    running = tool.start("replay", "--queue-url", queue.dead_letters.url, AWS_ENDPOINT_URL=mover.endpoint)
    until("some are moved", lambda: mover.task and mover.task["ApproximateNumberOfMessagesMoved"] > 0)
    return running


def test_a_task_that_is_through_before_it_is_called_off_has_moved_all(tool, queue, mover):
    mover.ends_first = True
    done = start_moving(tool, queue, mover, 20).interrupt()
    assert (done.returncode, moved(done)) == (0, 20), done.stderr
    assert queue.counts() == (20, 0)


def test_a_move_that_cannot_be_called_off_is_said_to_go_on(tool, queue, mover):
    mover.refusals["CancelMessageMoveTask"] = [(403, "AccessDenied")]
    done = start_moving(tool, queue, mover, 100).interrupt()
    assert done.returncode == 1 and "access denied" in done.stderr, done.stderr
    assert "SQS goes on moving" in done.stderr and "list-message-move-tasks" in done.stderr
    assert mover.task["Status"] == "RUNNING"


def test_to_call_off_is_tried_again(tool, queue, mover):
    mover.refusals["CancelMessageMoveTask"] = [(500, "InternalError")] * 5
    done = start_moving(tool, queue, mover, 100).interrupt()
    assert (done.returncode, mover.task["Status"]) == (130, "CANCELLED"), done.stderr


def test_ctrl_c_calls_the_move_off(tool, queue, mover):
    done = start_moving(tool, queue, mover, 100).interrupt()
    assert done.returncode == 130, done.stderr
    assert mover.task["Status"] == "CANCELLED"
    assert queue.counts()[0] == moved(done) and sum(queue.dead_letters.counts()) == 100 - moved(done)


def test_a_move_that_sqs_gives_up_is_a_failure(tool, queue, mover):
    queue.dead_letters.send(["a"])
    mover.failure = ORIGIN_UNKNOWN
    done = replay(tool, queue.dead_letters, AWS_ENDPOINT_URL=mover.endpoint)
    assert done.returncode == 1 and ORIGIN_UNKNOWN in done.stderr and "--to" in done.stderr


def test_a_move_that_is_under_way_is_left_alone(tool, queue, mover):
    queue.dead_letters.send(["a"] * 3)
    mover.start_message_move_task({"SourceArn": queue.dead_letters.arn})
    done = replay(tool, queue.dead_letters, AWS_ENDPOINT_URL=mover.endpoint)
    assert done.returncode == 1 and "under way already" in done.stderr
    assert mover.task["Status"] == "RUNNING"


# Looking


def test_a_dry_run_says_why_each_fails_and_leaves_all_there(tool, queue):
    dead = queue.dead_letters
    ids = dead.send([GOOD, NOT_AN_IP, "not json", NO_IP])
    done = replay(tool, dead, "--dry-run")
    assert done.returncode == 3, done.stderr
    lines = {line["message_id"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert [lines[i]["reason"] for i in ids] == [None, "malformed", "not_json", "missing"]
    assert [lines[i]["fits"] for i in ids] == [True, False, False, False]
    assert lines[ids[1]]["detail"] == "ip is not a well-formed IP address"
    assert all(line["receive_count"] == 1 and line["sent_at"].startswith("20") for line in lines.values())
    assert SECRET not in done.stdout + done.stderr
    for words in ("4 messages of", " 1  malformed", " 1  fit the contract", "visible again"):
        assert words in done.stderr
    assert (dead.counts(), queue.is_empty()) == ((4, 0), True)
    assert bodies(dead) == [GOOD, NOT_AN_IP, "not json", NO_IP]


def test_a_dry_run_with_another_contract(tool, queue, tmp_path):
    contract = tmp_path / "contract.toml"
    contract.write_text('table = "t"\n[once]\nledger = "l"\n[columns.n]\ntype = "integer"\nrequired = true\n')
    queue.dead_letters.send(['{"n": 1}'])
    done = replay(tool, queue.dead_letters, "--dry-run", "--contract", contract)
    assert done.returncode == 0, done.stderr
    contract.write_text("table = 5\n")
    done = replay(tool, queue.dead_letters, "--dry-run", CONTRACT_PATH=str(contract))
    assert done.returncode == 1 and "contract.toml" in done.stderr
    assert queue.dead_letters.counts() == (1, 0)


def test_a_dry_run_sees_each_of_many_once_and_no_more_than_it_may(tool, queue):
    dead = queue.dead_letters
    ids = dead.send(["{}"] * 500)
    done = replay(tool, dead, "--dry-run")
    assert sorted(json.loads(line)["message_id"] for line in done.stdout.splitlines()) == sorted(ids)
    assert dead.counts() == (500, 0)
    done = replay(tool, dead, "--dry-run", "--limit", "37")
    assert len(done.stdout.splitlines()) == 37
    assert "stopped at the limit of 37; about 463 were not looked at" in done.stderr
    assert dead.counts() == (500, 0)
    done = replay(tool, dead, "--dry-run", "--limit", "500")
    assert "stopped at the limit of 500; by SQS's count there were no more" in done.stderr


def test_a_dry_run_ends_though_a_message_comes_back_again_and_again(tool, emulator, queue):
    def again(action, request):
        if action == "ReceiveMessage":
            return {"Messages": [{"MessageId": "m", "ReceiptHandle": "h", "Body": "{}"}]}
        if action == "ChangeMessageVisibilityBatch":
            return {"Successful": [{"Id": entry["Id"]} for entry in request["Entries"]], "Failed": []}
        return None

    meddler = Meddler(emulator.endpoint, again)
    done = replay(tool, queue, "--dry-run", AWS_ENDPOINT_URL=meddler.endpoint)
    meddler.stop()
    assert (done.returncode, len(done.stdout.splitlines())) == (3, 1), done.stderr
    assert "came back while held" in done.stderr


def test_ctrl_c_in_a_dry_run_gives_all_back(tool, queue):
    dead = queue.dead_letters
    dead.send(["{}"] * 200)
    running = tool.start("replay", "--queue-url", dead.url, "--dry-run")
    until("some are held", lambda: dead.counts()[1] > 0)
    done = running.interrupt()
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert dead.counts() == (200, 0)


def test_a_dry_run_of_a_fifo_queue_says_that_it_sees_only_the_first(tool, new_queue):
    dead = new_queue(fifo=True).dead_letters
    dead.send(["{}"] * 25, group="g")
    done = replay(tool, dead, "--dry-run")
    assert len(done.stdout.splitlines()) == CALL
    assert "about 15 more" in done.stderr
    assert dead.counts() == (25, 0)


def test_a_dry_run_warns_where_a_look_too_many_moves_a_message(tool, new_queue):
    queue = new_queue(max_receive_count=2)
    queue.send(["{}"])
    done = replay(tool, queue, "--dry-run")
    assert f"after 2 of them {queue.name} moves a message to {queue.dead_letters.name}" in done.stderr
    assert "has now been received" not in done.stderr
    done = replay(tool, queue, "--dry-run")
    assert "1 message has now been received as often as" in done.stderr
