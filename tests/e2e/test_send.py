"""`sqs-etl send`: what arrives, in which order, and what is said when it does not."""

import re
import time

import pytest

from meddler import Meddler
from waiting import until


@pytest.fixture
def file(tmp_path):
    """Makes a file of lines."""

    def make(lines, encoding="utf-8"):
        path = tmp_path / "messages.jsonl"
        path.write_bytes("\n".join([*lines, ""]).encode(encoding))
        return path

    return make


@pytest.fixture
def meddler(emulator):
    """Puts a server between the tool and the emulator: `meddler(answer).endpoint`."""
    started = []

    def start(answer):
        started.append(Meddler(emulator.endpoint, answer))
        return started[-1]

    yield start
    for meddler in started:
        meddler.stop()


def bodies(queue):
    return [message["Body"] for message in queue.take()]


def test_a_thousand_lines_arrive_body_for_body(tool, queue, file):
    lines = [f'{{"n": {n}, "text": "ä€😀\\u0000 {"x" * n}"}}' for n in range(1000)]
    done = tool.run("send", file([*lines, "", " \t"], "utf-8-sig"), "--queue-url", queue.url)
    assert (done.returncode, done.stdout) == (0, f"1,000 messages sent to {queue.name}\n"), done.stderr
    assert sorted(bodies(queue)) == sorted(lines)


def test_large_messages_go_in_calls_of_their_own(tool, queue, file):
    lines = [str(n) * size for n, size in enumerate([600_000, 600_000, 1_048_576, 10, 400_000])]
    done = tool.run("send", file(lines), "--queue-url", queue.url)
    assert done.returncode == 0, done.stderr
    assert sorted(bodies(queue)) == sorted(lines)


@pytest.mark.parametrize(
    "bad, words",
    [("sec\x01ret", "U+0001, at column 4"), ("secret" * 200_000, "1200000 bytes"), ("secret\ufffe", "U+FFFE")],
)
def test_a_line_that_sqs_refuses_is_named_and_nothing_is_sent(tool, queue, file, bad, words):
    done = tool.run("send", file(["first", "", bad, "last"]), "--queue-url", queue.url)
    assert done.returncode == 1
    assert "line 3 " in done.stderr and words in done.stderr and "nothing was sent" in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert queue.is_empty()


def test_a_fifo_queue_gets_the_lines_in_order_and_a_second_time_again(tool, new_queue, file):
    queue = new_queue(fifo=True)
    lines = [f"body {n}" for n in range(123)]
    for _ in range(2):
        done = tool.run("send", file(lines), "--queue-url", queue.url, "--group", "shop")
        assert done.returncode == 0, done.stderr
    messages = queue.take()
    assert [message["Body"] for message in messages] == lines * 2
    assert {message["Attributes"]["MessageGroupId"] for message in messages} == {"shop"}


def test_attributes_arrive(tool, queue, file):
    options = ["--attribute", "tenant=a=b", "--attribute", "source=file"]
    done = tool.run("send", file(["a", "b"]), "--queue-url", queue.url, *options)
    assert done.returncode == 0, done.stderr
    expected = {
        "tenant": {"StringValue": "a=b", "DataType": "String"},
        "source": {"StringValue": "file", "DataType": "String"},
    }
    assert [message["MessageAttributes"] for message in queue.take()] == [expected] * 2


def test_stdin_goes_to_the_queue_of_the_environment(tool, queue):
    done = tool.run("send", "-", input="one\r\ntwo", QUEUE_URL=queue.url)
    assert (done.returncode, bodies(queue)) == (0, ["one", "two"]), done.stderr


def test_ctrl_c_says_how_many_were_sent(tool, queue, file):
    running = tool.start("send", file(str(n) for n in range(100_000)), "--queue-url", queue.url)
    until("some are sent", lambda: queue.counts()[0] > 100)
    done = running.interrupt()
    assert done.returncode == 130, done.stderr
    sent = re.match(r"([\d,]+) of 100,000 messages sent to ", done.stdout)
    assert int(sent[1].replace(",", "")) == queue.counts()[0]
    assert re.search(r"not sent: lines [\d,]+ to 100,000\n", done.stderr), done.stderr


def test_a_call_that_takes_its_time_is_not_made_twice(tool, queue, file, meddler):
    def slowly(action, request):
        if action == "SendMessageBatch":
            time.sleep(11)  # A mebibyte on a slow line.

    slow = meddler(slowly)
    done = tool.run("send", file(["a"]), "--queue-url", queue.url, AWS_ENDPOINT_URL=slow.endpoint)
    assert done.returncode == 0, done.stderr
    assert (slow.calls.count("SendMessageBatch"), bodies(queue)) == (1, ["a"])


def test_what_failed_for_the_moment_is_sent_again(tool, queue, file, meddler):
    refusals = [500, "RequestThrottled", 500]
    endpoint = meddler(lambda action, _: refusals.pop() if action == "SendMessageBatch" and refusals else None).endpoint
    done = tool.run("send", file(["a", "b"]), "--queue-url", queue.url, AWS_ENDPOINT_URL=endpoint)
    assert (done.returncode, refusals, bodies(queue)) == (0, [], ["a", "b"]), done.stderr


def test_a_line_whose_answer_was_lost_is_perhaps_sent_whatever_is_said_later(tool, queue, file, meddler):
    def lost_then_denied(action, request):
        if action != "SendMessageBatch":
            return None
        if not queue.is_empty():
            return 403
        queue.send([entry["MessageBody"] for entry in request["Entries"]])
        return 500

    endpoint = meddler(lost_then_denied).endpoint
    done = tool.run("send", file(["a"]), "--queue-url", queue.url, AWS_ENDPOINT_URL=endpoint)
    assert done.returncode == 1 and "access denied" in done.stderr, done.stderr
    assert "perhaps sent, the answer is missing: line 1" in done.stderr
    assert bodies(queue) == ["a"]


def check_fault(done, *words, code=1):
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_what_is_wrong_is_said(tool, queue, file):
    check_fault(tool.run("send", "absent.jsonl", "--queue-url", queue.url), "absent.jsonl", "No such file")
    check_fault(tool.run("send", file([""]), "--queue-url", queue.url), "holds no message")
    check_fault(tool.run("send", file(["ä"], "latin-1"), "--queue-url", queue.url), "not UTF-8", "line 1")
    send = ["send", file(["a"]), "--queue-url", queue.url]
    check_fault(tool.run(*send[:3], f"{queue.url}-absent"), "no such queue")
    check_fault(tool.run(*send[:3], "logins"), "not a queue's URL")
    check_fault(tool.run(*send, AWS_REGION=None, AWS_DEFAULT_REGION=None), "no AWS region", "AWS_REGION")
    check_fault(tool.run(*send, AWS_ACCESS_KEY_ID=None), "no AWS credentials")
    check_fault(tool.run(*send, AWS_ENDPOINT_URL="http://127.0.0.1:1"), "cannot be reached")
    check_fault(tool.run(*send, "--attribute", "tenant"), "NAME=VALUE", code=2)
    check_fault(tool.run(*send, *["--attribute", "a=1"] * 2), "twice", code=2)
    check_fault(tool.run(*send, "--group", "a b"), "no space", code=2)
    assert queue.is_empty()
