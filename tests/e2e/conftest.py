"""What the tests stand on. Each part starts when the first test asks for it, and stops with the tests.

`emulator`, `postgres`, `database`, `queue` and `new_queue` need no deployment.
"""

import os
import secrets
from pathlib import Path

import pytest

import queues
from emulator import Emulator, Ministack
from postgres import ROOT, Database, TempPostgres

TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
# An emulator that runs already, such as the LocalStack of compose.yaml.
ENDPOINT = os.environ.get("E2E_ENDPOINT")


@pytest.fixture(scope="session")
def emulator():
    """AWS's APIs: `.endpoint`, `.client("sqs")`, and `.env`, the environment for a child process."""
    emulator = Emulator(ENDPOINT) if ENDPOINT else Ministack()
    yield emulator
    emulator.stop()


@pytest.fixture(scope="session")
def postgres():
    """A Postgres of our own: `.url`, `.query(sql)`, `.crash()`, `.restart()`."""
    server = TempPostgres(TARGET / "debug" / "temp-postgres")
    yield server
    server.stop()


@pytest.fixture
def database(postgres):
    """A fresh database with the project's tables; `.url` is that of a role with the function's rights."""
    database = Database(postgres)
    database.set_password(secrets.token_urlsafe(24))
    yield database
    database.drop()


@pytest.fixture
def new_queue(emulator):
    """Makes queues: `new_queue(max_receive_count=3, visibility_timeout=5, fifo=False)`."""
    made = []

    def make(**settings):
        made.append(queues.new_queue(emulator.client("sqs"), **settings))
        return made[-1]

    yield make
    for queue in made:
        queue.delete()


@pytest.fixture
def queue(new_queue):
    """A fresh queue with a dead-letter queue, after three deliveries of five seconds each."""
    return new_queue()
