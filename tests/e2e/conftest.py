"""What the tests stand on. Each part starts when the first test asks for it, and stops with the tests.

`emulator`, `postgres`, `database`, `queue`, `new_queue` and `tool` need no deployment; `stack` needs `sam build`.
"""

import os
import secrets
from pathlib import Path

import pytest

import queues
from emulator import Emulator, Ministack
from environments import Containers, Processes
from postgres import ROOT, Database, Server, TempPostgres
from stack import Stack
from tool import Tool

TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
# An emulator that runs already, such as the LocalStack of compose.yaml.
ENDPOINT = os.environ.get("E2E_ENDPOINT")
# For such an emulator: the Postgres of its functions, as we find it and as they do. Those of compose.yaml.
DATABASE_URL = os.environ.get("E2E_DATABASE_URL", "postgresql://postgres:postgres@127.0.0.1:5432/postgres")
DATABASE_INSIDE = os.environ.get("E2E_DATABASE_INSIDE", "postgres:5432").rpartition(":")[::2]


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


@pytest.fixture
def tool(emulator):
    """The operator's tool: `.run("send", ...)`, `.start("send", ...).interrupt()`."""
    tool = Tool(TARGET / "debug" / "sqs-etl", emulator.env)
    yield tool
    tool.stop()


@pytest.fixture(scope="session")
def deployed(emulator, request, tmp_path_factory):
    """The stack of template.yaml, deployed once, with a database of its own."""
    # Functions of an emulator that is not ours reach their Postgres by another name than we do.
    server = Server(DATABASE_URL, DATABASE_INSIDE) if ENDPOINT else request.getfixturevalue("postgres")
    database = Database(server)
    try:
        stack = Stack(emulator, database, tmp_path_factory.mktemp("deploy"))
        yield stack
        stack.delete()
    finally:
        database.drop()


@pytest.fixture
def stack(deployed):
    """The deployed stack with an empty table, empty queues and a log that begins here."""
    deployed.clean()
    deployed.log.forget()
    return deployed


@pytest.fixture
def environments(emulator, deployed):
    """Where the function runs: `.freeze()`, `.kill()`."""
    return Containers(deployed.outputs["FunctionName"]) if ENDPOINT else Processes(emulator)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What a failed test was told by others."""
    report = yield
    if report.failed:
        for name, fixture in getattr(item, "funcargs", {}).items():
            if name == "stack":
                report.sections.append(("the function's log", last(fixture.log.text())))
                report.sections.append(("the emulator's log", last(fixture.emulator.output())))
    return report


def last(text, lines=20):
    return "\n".join(text.splitlines()[-lines:])
