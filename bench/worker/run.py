"""`sqs-etl worker` on the emulator's queue: first that nothing is lost or doubled while everything is killed, then how fast it
is beside the loop that it replaces. Figures are of one run; the emulator, one Python process, is part of them.

usage: python bench/worker/run.py [--messages N] [--rounds N] [--no-crashes] [--no-race]
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import logins  # noqa: E402
from emulator import Ministack  # noqa: E402
from postgres import Database, TempPostgres  # noqa: E402
from queues import new_queue  # noqa: E402
from waiting import until  # noqa: E402
from worker import Worker  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
WORKER = TARGET / "release" / "sqs-etl"
LOOP = Path(__file__).with_name("loop.py")
WIRE = Path(__file__).with_name("wire.py")
# The emulator looks at every message of a queue at each call, so a long queue makes it slow: it is kept short while messages
# are sent.
QUEUE_LENGTH = 2_000
# As far as SQS is away from a machine in its own region, and a bit.
DELAY_MS = 10
# All workers and loops that were started.
RUNNING = []
VISIBILITY_TIMEOUT = 30


def main():
    options = parse()
    emulator, postgres = Ministack(), TempPostgres(TARGET / "debug" / "temp-postgres")
    try:
        if not options.no_crashes:
            crashes(emulator, postgres, options.messages)
        if not options.no_race:
            race(emulator, postgres, options.rounds)
    finally:
        # A worker would put up with both being away.
        for process in RUNNING:
            process.kill()
        postgres.stop()
        emulator.stop()


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000, help="how many are drained while everything is killed")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the race")
    parser.add_argument("--no-crashes", action="store_true", help="only the race")
    parser.add_argument("--no-race", action="store_true", help="only the crashes")
    return parser.parse_args()


def fresh_database(postgres):
    database = Database(postgres)
    database.set_password("for this run only")
    return database


def crashes(emulator, postgres, count):
    """Three workers die by SIGKILL, Postgres once; the fourth worker drains the queue."""
    database = fresh_database(postgres)
    queue = new_queue(emulator.client("sqs"), max_receive_count=10, visibility_timeout=VISIBILITY_TIMEOUT)
    say(f"{count:,} messages; killed at a fifth, two, three and four fifths: worker, worker, Postgres, worker")
    sender = threading.Thread(target=send, args=(emulator, queue, count), daemon=True)
    sender.start()
    started = time.monotonic()
    worker = start(emulator, queue, database)
    for fifth, victim in enumerate(["worker", "worker", "Postgres", "worker"], start=1):
        until(f"{fifth}/5 are stored", lambda: rows(database) >= count * fifth // 5, limit=1800)
        say(f"{rows(database):,} rows after {time.monotonic() - started:.0f} s: kill -9 of {victim}")
        if victim == "Postgres":
            postgres.crash()
            worker.wait_for("the batch cannot be written: it is kept and tried again")
            postgres.restart()
        else:
            worker.kill()
            worker = start(emulator, queue, database)
    until("all are sent", lambda: not sender.is_alive(), limit=1800)
    until("the queue is empty", queue.is_empty, limit=1800)
    worker.stop()
    code = worker.wait()
    left, dead, stored = queue.counts(), queue.dead_letters.counts(), rows(database)
    distinct = database.query("select count(distinct message_id) from user_logins")[0][0]
    already_present = worker.total("already_present")
    say(f"{stored:,} rows, {distinct:,} message ids; in the queue {left}, in the dead-letter queue {dead}; exit {code}")
    say(f"the last worker found {already_present:,} stored already, which its predecessors had not deleted")
    assert (stored, distinct, left, dead, code) == (count, count, (0, 0), (0, 0), 0), "lost or doubled"
    queue.delete()
    database.drop()


def start(emulator, queue, database, **variables):
    worker = Worker(WORKER, emulator, queue, database.url, **variables)
    RUNNING.append(worker.process)
    return worker


def rows(database):
    """Zero while Postgres is not there."""
    try:
        return database.count()
    except Exception:  # noqa: BLE001 whatever psycopg raises then
        return 0


def send(emulator, queue, count, at_once=1_000):
    """Sends as many, and no faster than they are taken."""
    queue.sqs = emulator.client("sqs")
    for start in range(0, count, at_once):
        while queue.counts()[0] > QUEUE_LENGTH:
            time.sleep(0.05)
        queue.send([logins.body(message) for message in messages(start, min(at_once, count - start))])


def messages(start, count):
    chance = random.Random(start)
    return [logins.login(chance, number) for number in range(start, start + count)]


def race(emulator, postgres, rounds, count=QUEUE_LENGTH):
    """Worker and loop in turn, the order changing, with SQS here and some milliseconds away."""
    database = fresh_database(postgres)
    for delay in (0, DELAY_MS):
        wire, endpoint = wired(emulator, delay)
        rates = {"loop": [], "worker": []}
        for round in range(rounds):
            for name in sorted(rates, reverse=round % 2):
                database.query("truncate user_logins")
                # A receive that a killed program left behind would take messages of the next one.
                queue = new_queue(emulator.client("sqs"), visibility_timeout=VISIBILITY_TIMEOUT)
                queue.send([logins.body(message) for message in messages(0, count)])
                rates[name].append(count / timed(name, endpoint, emulator, queue, database, count))
                queue.delete()
        wire.stdin.close()
        medians = {name: statistics.median(found) for name, found in rates.items()}
        ratio = medians["worker"] / medians["loop"]
        texts = ", ".join(f"{name} {median:,.0f} messages a second" for name, median in sorted(medians.items()))
        say(f"SQS {delay} ms away, {count:,} messages, medians of {rounds}: {texts}: {ratio:.1f}x")


def wired(emulator, delay):
    port = emulator.endpoint.rpartition(":")[2]
    pipe = subprocess.PIPE
    wire = subprocess.Popen([sys.executable, WIRE, port, str(delay)], stdin=pipe, stdout=pipe, text=True)
    return wire, f"http://127.0.0.1:{wire.stdout.readline().strip()}"


def timed(name, endpoint, emulator, queue, database, count):
    """Seconds from the first message received to the last deleted: how long a program takes to start or to end is not counted."""
    env = {**emulator.env, "AWS_ENDPOINT_URL": endpoint}
    if name == "worker":
        process = start(emulator, queue, database, AWS_ENDPOINT_URL=endpoint).process
    else:
        process = subprocess.Popen([sys.executable, LOOP, queue.url, database.url], env=env)
        RUNNING.append(process)
    until("the first message is received", lambda: queue.counts() != (count, 0), limit=60)
    started = time.monotonic()
    until("the queue is empty", queue.is_empty, limit=600)
    took = time.monotonic() - started
    process.terminate()
    process.wait(timeout=60)
    assert database.count() == count, f"{name} stored {database.count()} of {count}"
    return took


def say(text):
    print(text, flush=True)


if __name__ == "__main__":
    main()
