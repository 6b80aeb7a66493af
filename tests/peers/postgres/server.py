"""A real PostgreSQL of a chosen major on loopback, with a fresh and passing cluster.

Its ruler is `supabase_admin`; `postgres` may create roles and databases and passes row level
security, but is no superuser: that is how Supabase has it, and what our migrations must live
with. Nothing is synced to disk: what was committed survives a kill of the server, but not of
the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import asyncpg

from tests.peers.postgres import install
from tests.peers.postgres.certificate import write_certificate
from tests.peers.postgres.leash import HeldDirectory, kill_workers, workers

T = TypeVar("T")

ADMIN = "supabase_admin"
PASSWORD = "s3cret/with:odd@letters"
"""Of every role that may log in."""

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_UNPRIVILEGED = "nobody"

_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 50
shared_buffers = '16MB'
fsync = off
full_page_writes = off
wal_level = logical
max_wal_size = '128MB'
min_wal_size = '32MB'
autovacuum_naptime = '1h'
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
shared_preload_libraries = 'pg_stat_statements'
password_encryption = 'scram-sha-256'
"""

_CRON_CONFIGURATION = """
shared_preload_libraries = 'pg_stat_statements, pg_cron'
cron.database_name = 'cron'
cron.use_background_workers = on
"""

_TLS_CONFIGURATION = """
ssl = on
ssl_cert_file = '../server.crt'
ssl_key_file = '../server.key'
"""

_ACCESS = "{kind} all all 127.0.0.1/32 scram-sha-256\n"


class PostgresDidNotStart(Exception):
    """The message ends with the last lines of the server's own log."""


class PostgresServer:
    """A context manager; inside it the server runs and `dsn()` leads to it.

    Everything here is synchronous and short. After `stop`, `kill` and `restart` it has the
    same port and data as before.

    With `tls` it takes encrypted connections only, and `certificate` is the file that vouches
    for it as localhost and 127.0.0.1. With `cron` it has pg_cron for the database `cron`, where
    `install.cron_major` says this major has it.
    """

    def __init__(self, major: int = 17, *, tls: bool = False, cron: bool = False) -> None:
        self.major = major
        self.certificate: Path
        self._tls = tls
        self._cron = cron and major == install.cron_major()
        self.port = 0
        self.log: Path
        self._held: HeldDirectory | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)

    # life

    def __enter__(self) -> PostgresServer:
        try:
            self._prepare()
            self._start_somewhere()
            self.execute(_POSTGRES_ROLE.format(password=PASSWORD), database="template1", user=ADMIN)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it without ceremony and remove its data."""
        if self._held is not None:
            self.kill()
            self._held.let_go()
            self._held = None

    @property
    def directory(self) -> Path:
        """Where its processes and files are."""
        assert self._held is not None, "the server is not open"
        return self._held.path

    @property
    def running(self) -> bool:
        """Whether the postmaster lives (paused counts as living)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Run and accept connections; PostgresDidNotStart otherwise."""
        if self.running:
            return
        data = self.directory / "data"
        # A killed server leaves it behind, and its number may be another process's by now.
        (data / "postmaster.pid").unlink(missing_ok=True)
        with open(self.log, "ab") as log:
            process = self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", data, "-p", str(self.port)],
                cwd=data,
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **_identity(),
            )
        started = time.monotonic()
        while not self._is_ready():
            if process.poll() is not None or time.monotonic() - started > _START_TIMEOUT_S:
                self.kill()
                raise PostgresDidNotStart(f"PostgreSQL {self.major}:\n{self.log_tail()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """The fast shutdown: sessions are cut, data is written."""
        if self._process is not None and self.running:
            self.resume()
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL to the postmaster and all its children at once, as when memory runs out."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
        kill_workers(self.directory / "data")
        self._process = None

    def restart(self) -> None:
        """Stop if it still runs, then start."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP to all of it: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """The end of `pause`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in workers(self.directory / "data"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def log_tail(self, lines: int = 40) -> str:
        """The end of what the server printed."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return "(nothing)"
        return "\n".join(text.splitlines()[-lines:])

    # databases

    def dsn(
        self, database: str = "postgres", user: str = "postgres", password: str = PASSWORD
    ) -> str:
        """postgresql://… for asyncpg and the bot's own setting."""
        return (
            f"postgresql://{quote(user, '')}:{quote(password, '')}"
            f"@127.0.0.1:{self.port}/{quote(database, '')}"
        )

    def create_database(self, name: str | None = None, template: str | None = None) -> str:
        """A new one, owned by `postgres`; its name, a fresh one where none is given."""
        name = name or f"test_{next(self._names)}"
        copied = f' template "{template}"' if template else ""
        self.execute(f'create database "{name}" owner postgres{copied}', user=ADMIN)
        return name

    def drop_database(self, name: str) -> None:
        """Remove it, cutting whoever is connected."""
        self.execute(f'drop database if exists "{name}" with (force)', user=ADMIN)

    def execute(self, script: str, *, database: str = "postgres", user: str = "postgres") -> None:
        """Run statements (one implicit transaction), for set-ups outside of any event loop."""

        async def work() -> None:
            connection = await asyncpg.connect(self.dsn(database, user))
            try:
                await connection.execute(script)
            finally:
                await connection.close()

        run_apart(work())

    def fetch(
        self, query: str, *values: object, database: str = "postgres", user: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """The rows of one query, likewise."""

        async def work() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.dsn(database, user))
            try:
                return [tuple(row) for row in await connection.fetch(query, *values)]
            finally:
                await connection.close()

        return run_apart(work())

    # underneath

    def _prepare(self) -> None:
        if not install.ready():
            raise PostgresDidNotStart("run python -m tests.peers.postgres.install (or make test)")
        self._held = HeldDirectory(f"comet-postgres-{self.major}-")
        self.log = self.directory / "postgres.log"
        home = install.server_home(self.major)
        identity = _identity()
        if identity:
            os.chown(self.directory, identity["user"], identity["group"])
            if not _everybody_reaches(home):  # a checkout in root's own home
                shutil.copytree(home, self.directory / "program", symlinks=True)
                home = self.directory / "program"
        self._programs = home / "bin"
        password = self.directory / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        done = subprocess.run(
            [
                self._programs / "initdb",
                f"--pgdata={self.directory / 'data'}",
                f"--username={ADMIN}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ],
            cwd=self.directory,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **identity,
        )
        if done.returncode != 0:
            raise PostgresDidNotStart(f"initdb {self.major}: {done.stdout}{done.stderr}")
        data = self.directory / "data"
        with open(data / "postgresql.conf", "a", encoding="utf-8") as file:
            file.write(_CONFIGURATION)
            file.write(_CRON_CONFIGURATION if self._cron else "")
            file.write(_TLS_CONFIGURATION if self._tls else "")
        kind = "hostssl" if self._tls else "host"
        (data / "pg_hba.conf").write_text(_ACCESS.format(kind=kind), encoding="utf-8")
        if self._tls:
            self.certificate = self.directory / "server.crt"
            key = self.directory / "server.key"
            write_certificate(self.certificate, key)
            if identity:
                os.chown(key, identity["user"], identity["group"])

    def _start_somewhere(self) -> None:
        """On a free port; on another one when somebody took that meanwhile."""
        for attempt in range(5):
            self.port = free_port()
            try:
                self.start()
                return
            except PostgresDidNotStart as error:
                if "Address already in use" not in str(error) or attempt == 4:
                    raise

    def _is_ready(self) -> bool:
        """The eighth line of the lock file is the postmaster's own word on it."""
        try:
            lock = (self.directory / "data" / "postmaster.pid").read_text(encoding="ascii")
        except OSError:
            return False
        lines = lock.splitlines()
        return len(lines) > 7 and lines[7].strip() == "ready"


_ENVIRONMENT = {"PATH": os.defpath, "TZ": "UTC", "LC_ALL": "C"}

_POSTGRES_ROLE = """
create role postgres login createrole createdb replication bypassrls password '{password}';
"""


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a loop and a thread of its own: also where a loop is running already."""
    outcome: list[T] = []
    problem: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=run, name="apart")
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return outcome[0]


def free_port() -> int:
    """One nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _identity() -> dict[str, Any]:
    """PostgreSQL refuses to be run by root, so it runs as nobody there."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(_UNPRIVILEGED)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _everybody_reaches(path: Path) -> bool:
    return all(place.stat().st_mode & stat.S_IXOTH for place in (path, *path.parents))
