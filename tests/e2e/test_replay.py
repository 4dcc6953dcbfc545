"""`sqs-etl replay`: dead letters that are moved back, and those that are only looked at."""

import json
import re

import pytest

from mover import ORIGIN_UNKNOWN, Mover
from queues import CALL, fifo_fields
from waiting import until

SECRET = "593-47-5928"
GOOD = json.dumps({"user_id": "u", "ip": "192.0.2.1", "device_id": SECRET})
NOT_AN_IP = json.dumps({"user_id": "u", "ip": SECRET, "device_id": "d"})
NO_IP = json.dumps({"user_id": "u", "device_id": SECRET})


def replay(tool, queue, *options, **env):
    return tool.run("replay", "--queue-url", queue.url, *options, **env)


def bodies(queue):
    return [message["Body"] for message in queue.take()]


# Moving


def test_all_go_back_to_where_they_came_from_with_their_attributes(tool, queue):
    dead = queue.dead_letters
    dead.send([f"body {n}" for n in range(25)])
    attributes = {
        "text": {"DataType": "String.mine", "StringValue": "ä"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\0\xff"},
    }
    dead.sqs.send_message(QueueUrl=dead.url, MessageBody="with attributes", MessageAttributes=attributes)
    done = replay(tool, dead)
    assert (done.returncode, done.stdout) == (0, f"26 messages moved from {dead.name} to {queue.name}\n"), done.stderr
    assert "new message id" in done.stderr
    assert dead.is_empty()
    messages = {message["Body"]: message.get("MessageAttributes") for message in queue.take()}
    assert messages == {**{f"body {n}": None for n in range(25)}, "with attributes": attributes}


def test_the_order_within_each_group_is_kept(tool, new_queue):
    queue = new_queue(fifo=True)
    for n in range(30):
        queue.dead_letters.send([f"{n}"], group=f"group-{n % 3}")
    done = replay(tool, queue.dead_letters)
    assert done.returncode == 0, done.stderr
    assert queue.dead_letters.is_empty()
    groups = {}
    for message in queue.take():
        groups.setdefault(message["Attributes"]["MessageGroupId"], []).append(int(message["Body"]))
    assert groups == {f"group-{n}": list(range(n, 30, 3)) for n in range(3)}


def test_an_empty_queue_is_no_failure(tool, queue):
    done = replay(tool, queue.dead_letters)
    assert (done.returncode, done.stdout) == (0, f"{queue.dead_letters.name} is empty by SQS's count\n")


def test_from_a_queue_that_is_nobodys_dead_letter_queue_messages_go_only_where_they_are_told_to(tool, queue, new_queue):
    other = new_queue()
    queue.send(["a", "b"])
    done = replay(tool, queue)
    assert done.returncode == 1 and "no queue's dead-letter queue" in done.stderr and "--to" in done.stderr
    assert queue.counts() == (2, 0)
    done = replay(tool, queue, "--to", other.url)
    assert done.returncode == 0, done.stderr
    assert (bodies(other), queue.is_empty()) == (["a", "b"], True)


def test_what_comes_from_two_queues_goes_where_it_is_told_to(tool, queue, new_queue):
    other = new_queue()
    dead = queue.dead_letters
    policy = json.dumps({"deadLetterTargetArn": dead.arn, "maxReceiveCount": 3})
    other.sqs.set_queue_attributes(QueueUrl=other.url, Attributes={"RedrivePolicy": policy})
    dead.send(["a"])
    done = replay(tool, dead)
    assert done.returncode == 1 and "--to" in done.stderr, done.stderr
    assert queue.name in done.stderr and other.name in done.stderr
    assert dead.counts() == (1, 0)
    assert replay(tool, dead, "--to", other.url).returncode == 0
    assert bodies(other) == ["a"]


def test_what_cannot_be_sent_stays_and_is_there_at_once(tool, queue):
    dead = queue.dead_letters
    queue.sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"MaximumMessageSize": "1024"})
    dead.send(["small", "large" * 1000, "small too"])
    done = replay(tool, dead)
    assert done.returncode == 1, done.stderr
    assert "2 messages moved" in done.stdout and "1 message could not be moved" in done.stderr
    assert sorted(bodies(queue)) == ["small", "small too"]
    assert dead.counts() == (1, 0)


def test_a_group_stays_behind_its_first_message_that_cannot_be_sent(tool, new_queue):
    queue = new_queue(fifo=True)
    dead = queue.dead_letters
    queue.sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"MaximumMessageSize": "1024"})
    for group, body in [("a", "a1"), ("a", "a2" * 1000), ("b", "b1"), ("a", "a3"), ("b", "b2")]:
        dead.sqs.send_message(QueueUrl=dead.url, MessageBody=body, **fifo_fields(group))
    done = replay(tool, dead)
    assert done.returncode == 1, done.stderr
    assert sorted(bodies(queue)) == ["a1", "b1", "b2"]
    assert bodies(dead) == ["a2" * 1000, "a3"]


def test_ctrl_c_leaves_each_message_in_one_queue(tool, queue):
    dead = queue.dead_letters
    dead.send([f"{n}" for n in range(200)])
    running = tool.start("replay", "--queue-url", dead.url, "--rate", "20")
    until("some are moved", lambda: queue.counts()[0] > 10)
    done = running.interrupt()
    assert done.returncode == 130 and "interrupted" in done.stderr, done.stderr
    moved = int(re.match(r"(\d+) messages moved", done.stdout)[1])
    assert (queue.counts(), dead.counts()) == ((moved, 0), (200 - moved, 0))


def test_a_fifo_queue_cannot_be_moved_to_a_standard_one(tool, queue, new_queue):
    fifo = new_queue(fifo=True)
    fifo.dead_letters.send(["a"], group="g")
    done = replay(tool, fifo.dead_letters, "--to", queue.url)
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
    assert done.stdout == f"2 messages moved from {queue.dead_letters.name} to {queue.name}\n"
    assert "SQS moves them" in done.stderr
    assert (sorted(bodies(queue)), mover.task["Rate"]) == (["a", "b"], 7)

    other = new_queue()
    queue.dead_letters.send(["c"])
    mover.task["StartedTimestamp"] -= 1
    done = replay(tool, queue.dead_letters, "--to", other.url, AWS_ENDPOINT_URL=mover.endpoint)
    assert (done.returncode, bodies(other)) == (0, ["c"]), done.stderr


def test_ctrl_c_calls_the_move_off(tool, queue, mover):
    queue.dead_letters.send([f"{n}" for n in range(100)])
    running = tool.start("replay", "--queue-url", queue.dead_letters.url, AWS_ENDPOINT_URL=mover.endpoint)
    until("some are moved", lambda: mover.task and mover.task["ApproximateNumberOfMessagesMoved"] > 1)
    done = running.interrupt()
    assert done.returncode == 130, done.stderr
    assert mover.task["Status"] == "CANCELLED"
    moved = int(re.match(r"(\d+) messages moved", done.stdout)[1])
    assert queue.counts()[0] == moved and sum(queue.dead_letters.counts()) == 100 - moved


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
    assert dead.counts() == (500, 0)


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
