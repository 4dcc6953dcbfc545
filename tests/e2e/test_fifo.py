"""A FIFO queue beside the stack's own, worked on by the same deployed function."""

import pytest

import logins
from waiting import until

GROUPS = ("a", "b", "c")


@pytest.fixture
def fifo(stack, new_queue):
    """A FIFO queue that the function works on, and a column that tells in which order rows were stored."""
    queue = new_queue(fifo=True)
    mapping = stack.map(queue)
    stack.database.query("alter table user_logins add column arrival bigint generated always as identity")
    yield queue
    stack.database.query("alter table user_logins drop column arrival")
    stack.unmap(mapping)


def test_a_bad_message_holds_up_its_group_until_it_is_dead_lettered_and_no_other(stack, fifo):
    standard = stack.queue.send([logins.body(message) for message in logins.good(10, seed=7)])
    bad_body = '{"user_id": "no comma" "ip": "192.0.2.98"}'
    [bad] = fifo.send([bad_body], group="a")
    until("the bad one was delivered once", lambda: bad in stack.log.handed_back())

    ids = {group: [] for group in GROUPS}
    for round in range(3):
        for group in GROUPS:
            messages = logins.good(2, seed=f"{group}{round}")
            ids[group] += fifo.send([logins.body(message) for message in messages], group=group)
    everything = {*standard, *(message_id for group in GROUPS for message_id in ids[group])}

    def all_stored():
        stored = set(arrivals(stack))
        # Asked in this order: once a later one of its group is stored, the bad one is already gone.
        if stored & set(ids["a"]):
            assert fifo.dead_letters.counts() == (1, 0), "a message was stored before the bad one ahead of it had gone"
        return stored == everything

    until("all good messages are stored", all_stored, 60)
    arrived = arrivals(stack)
    for group in GROUPS:
        assert sorted(ids[group], key=arrived.get) == ids[group], f"group {group} was not stored in order"
    first_of_a = min(arrived[message_id] for message_id in ids["a"])
    assert all(arrived[message_id] < first_of_a for group in "bc" for message_id in ids[group])

    until("both queues are empty", lambda: fifo.is_empty() and stack.queue.is_empty())
    handed_back = stack.log.handed_back()
    assert handed_back.pop(bad) == [(n, "not_json") for n in (1, 2, 3)]
    assert set(handed_back) <= set(ids["a"]) and handed_back
    assert {reason for times in handed_back.values() for _, reason in times} == {"behind_failure"}
    assert [(message["MessageId"], message["Body"]) for message in fifo.dead_letters.take()] == [(bad, bad_body)]
    assert stack.queue.dead_letters.is_empty()


def arrivals(stack):
    return dict(stack.database.query("select message_id::text, arrival from user_logins"))
