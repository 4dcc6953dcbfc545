"""Postgres servers, and fresh databases with the project's tables and a role that may do what the function needs."""

import json
import secrets
import subprocess
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import psycopg
from psycopg.sql import SQL, Identifier

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """A server that runs already; its superuser is in the URL. `address_inside` is where the function finds it."""

    def __init__(self, url, address_inside=None):
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port or 5432
        self.user, self.password = unquote(parts.username), unquote(parts.password)
        self.address_inside = address_inside or (self.host, self.port)

    @property
    def url(self):
        return self.url_of("postgres")

    def url_of(self, database, user=None, password=None):
        """A libpq URL; the superuser's unless told."""
        user, password = quote(user or self.user, safe=""), quote(password or self.password, safe="")
        return f"postgresql://{user}:{password}@{self.host}:{self.port}/{database}?sslmode=disable"

    def query(self, sql, parameters=None, database="postgres"):
        """The rows of one statement, or none."""
        with psycopg.connect(self.url_of(database), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    def stop(self):
        """One that was not started here is left alone."""


class TempPostgres(Server):
    """A server of our own on a free port of 127.0.0.1. It goes away with us, whatever happens."""

    def __init__(self, program):
        if not program.is_file():
            raise FileNotFoundError(f"{program} is not built: cargo build --workspace --bins (make e2e does)")
        pipe = subprocess.PIPE
        # A session of its own: Ctrl-C is for the tests, and the end of its input tells it.
        self.process = subprocess.Popen([program], stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        started = self._answer()
        super().__init__(f"postgresql://{started['user']}:{started['password']}@127.0.0.1:{started['port']}/postgres")

    def crash(self):
        """kill -9 of the whole server."""
        self._obey("crash")

    def restart(self):
        """Back on the same port."""
        self._obey("restart")

    def stop(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def _obey(self, word):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"temp-postgres ended with {self.process.wait(timeout=30)}")
        return json.loads(line)


class Database:
    """A fresh database with migrations/ applied. The role has a password once somebody gives it one."""

    def __init__(self, server):
        self.server = server
        self.name = f"e2e_{secrets.token_hex(4)}"
        self.role = f"{self.name}_role"
        self.password = None
        server.query(f"create database {self.name}")
        for file in sorted((ROOT / "migrations").glob("*.sql")):
            self.query(file.read_text())
        # As docs/DEPLOY.md has it.
        self.query(f"create role {self.role} login")
        self.query(f"grant insert, select (message_id) on user_logins to {self.role}")
        self.query(f"grant insert, select on sqs_etl_messages to {self.role}")

    @property
    def url(self):
        """The role's, as the function's `DATABASE_URL` takes it."""
        return self.server.url_of(self.name, self.role, self.password)

    @property
    def admin_url(self):
        return self.server.url_of(self.name)

    def set_password(self, password):
        """From now on the role logs in with this one; who is in stays in."""
        self.query(SQL("alter role {} password {}").format(Identifier(self.role), password))
        self.password = password

    def query(self, sql, parameters=None):
        """As the superuser."""
        return self.server.query(sql, parameters, self.name)

    def count(self, table="user_logins"):
        return self.query(f"select count(*) from {table}")[0][0]

    def close_sessions(self):
        """Ends the role's connections, so that its next statement needs a new login."""
        self.query("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [self.role])

    def drop(self):
        self.server.query(f"drop database if exists {self.name} with (force)")
        self.server.query(f"drop role if exists {self.role}")
