"""The database's password changes while messages flow. All are stored, none twice, none is dead-lettered."""

import secrets
import threading
from contextlib import contextmanager

import psycopg
import pytest

import logins
from waiting import until


def test_the_database_learns_the_new_password_first(stack):
    with flow(stack) as ids:
        old, new = passwords(stack)
        stack.database.set_password(new)
        stack.database.close_sessions()
        until("a login is refused", lambda: refused_logins(stack))
        stack.put_login({**stack.login(), "password": new})
        wait_for_new_logins(stack)
    check(stack, ids, old)


def test_the_secret_learns_the_new_password_first(stack):
    with flow(stack) as ids:
        old, new = passwords(stack)
        stack.put_login({**stack.login(), "password": new})
        stack.database.close_sessions()
        wait_for_more_rows(stack)
        stack.database.set_password(new)
        wait_for_new_logins(stack)
    check(stack, ids, old)


@contextmanager
def flow(stack):
    """Messages without end, ten every tenth of a second. Gives the ids, which are complete at its end."""
    ids, end = [], threading.Event()

    def send():
        seed = 0
        while not end.is_set():
            seed += 1
            ids.extend(stack.queue.send([logins.body(message) for message in logins.good(10, seed)]))
            end.wait(0.1)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        wait_for_more_rows(stack)
        yield ids
    finally:
        end.set()
        sender.join()


def refused_logins(stack):
    """Batches that failed because Postgres did not take the password."""
    failed = stack.log.lines("the batch failed and will be redelivered")
    return [line for line in failed if "28P01" in line["error"]]


def passwords(stack):
    return stack.login()["password"], secrets.token_urlsafe(24)


def wait_for_more_rows(stack, more=50):
    now = stack.database.count()
    until(f"{more} more rows are stored", lambda: stack.database.count() >= now + more)


def wait_for_new_logins(stack):
    """Until rows are stored over sessions that began after this moment."""
    [[moment]] = stack.database.query("select clock_timestamp()")
    stack.database.close_sessions()
    wait_for_more_rows(stack)
    sql = "select count(*) from pg_stat_activity where usename = %s and backend_start > %s"
    assert stack.database.query(sql, [stack.database.role, moment]) != [(0,)]


def check(stack, ids, old_password):
    stack.wait_for_rows(ids)
    stack.wait_until_drained()
    assert stack.queue.dead_letters.is_empty()
    database = stack.database
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(database.server.url_of(database.name, database.role, old_password))
