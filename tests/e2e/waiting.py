"""Waiting for what others do: look until it is so, or until a deadline."""

import time


def until(what, look, limit=30):
    """The first true answer of `look`. Fails after `limit` seconds with `what` was awaited and the last answer."""
    deadline = time.monotonic() + limit
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"after {limit} s still not: {what} (last answer: {answer!r})")
        time.sleep(0.05)
