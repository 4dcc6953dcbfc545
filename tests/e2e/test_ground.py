"""That what the other tests stand on does what they believe."""

import subprocess
import sys

import psycopg
import pytest

from waiting import until


def test_a_message_that_nobody_deletes_is_dead_lettered_with_its_body(new_queue):
    queue = new_queue(max_receive_count=2, visibility_timeout=0)
    [sent] = queue.send(["a body"])
    receive = lambda: queue.sqs.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10).get("Messages", [])
    assert [message["MessageId"] for message in receive() + receive()] == [sent, sent]
    assert receive() == []
    until("the message is in the dead-letter queue", lambda: queue.dead_letters.counts() == (1, 0))
    assert [(message["MessageId"], message["Body"]) for message in queue.dead_letters.take()] == [(sent, "a body")]
    assert queue.is_empty()


def test_the_role_may_insert_but_not_read(database):
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("insert into user_logins (message_id) values (gen_random_uuid())")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select user_id from user_logins")
    assert database.count() == 1


def test_a_commit_outlives_a_crash_of_postgres(postgres, database):
    database.query("insert into user_logins (message_id) values (gen_random_uuid())")
    postgres.crash()
    with pytest.raises(psycopg.OperationalError):
        database.count()
    postgres.restart()
    assert database.count() == 1


def test_the_tether_ends_its_program_and_removes_the_folder(tmp_path):
    from emulator import TETHER

    folder = tmp_path / "folder"
    folder.mkdir()
    # A program and a child of it, both of which hold our pipe open for as long as they live.
    command = [sys.executable, TETHER, folder, "sh", "-c", "sleep 600 & echo up; wait"]
    tether = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert tether.stdout.readline() == b"up\n"
    tether.stdin.close()
    assert tether.stdout.read() == b""
    tether.wait(timeout=30)
    assert not folder.exists()
