"""The function is killed between receiving a batch and answering for it. Nothing is lost, nothing is doubled."""

from contextlib import contextmanager

import psycopg
import pytest

import logins
from waiting import until


@pytest.fixture
def scene(stack, environments):
    """Sends messages into a function that cannot store them: the table is locked until `locked` ends."""

    @contextmanager
    def locked(count):
        with psycopg.connect(stack.database.admin_url) as holder:
            holder.execute("lock table user_logins in access exclusive mode")
            ids = stack.queue.send([logins.body(message) for message in logins.good(count, seed=count)])
            # With the table locked nobody can have answered: each of them is in the hands of the function.
            until("all messages are received", lambda: stack.queue.counts() == (0, count))
            until("the function waits for the table", lambda: sessions(stack, "wait_event_type = 'Lock'") > 0)
            yield ids, holder

    return locked


def test_killed_before_the_commit(stack, environments, scene):
    with scene(20) as (ids, holder):
        assert environments.kill() > 0
        # Its statements may have reached Postgres whole; there they end with its sessions.
        stack.database.close_sessions()
        assert holder.execute("select count(*) from user_logins").fetchone() == (0,)
    stack.wait_for_rows(ids)
    stack.wait_until_drained()
    until("the log accounts for all of them", lambda: stack.log.total("committed") == len(ids))
    assert stack.queue.dead_letters.is_empty()


def test_killed_between_commit_and_answer(stack, environments, scene):
    with scene(20) as (ids, _):
        assert environments.freeze() > 0
    # What was sent is stored now, and those who sent it do not get to know.
    until("Postgres is done", lambda: stack.database.count() > 0 and sessions(stack, "state = 'active'") == 0)
    stored = stack.database.count()
    assert environments.kill() > 0
    stack.wait_for_rows(ids)
    stack.wait_until_drained()
    until("the log accounts for all of them", lambda: stack.log.total("received") == len(ids))
    assert stack.log.total("already_present") == stored
    assert stack.log.total("committed") == len(ids) - stored
    assert stack.queue.dead_letters.is_empty()


def sessions(stack, condition):
    """How many of the function's database sessions are so."""
    sql = f"select count(*) from pg_stat_activity where usename = %s and {condition}"
    return stack.database.query(sql, [stack.database.role])[0][0]
