"""A real PostgREST 12 on loopback, set up as Supabase runs it, before one database."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.peers.postgres import install
from tests.peers.postgres.leash import kill_workers
from tests.peers.postgres.server import PostgresServer, free_port

MAX_ROWS = 1000
_TIMEOUT_S = 20.0

_CONFIGURATION = """
db-uri = "{dsn}"
db-schemas = "public"
db-extra-search-path = "public, extensions"
db-anon-role = "anon"
db-max-rows = {max_rows}
db-pool = 5
db-pool-acquisition-timeout = 10
jwt-secret = "{secret}"
server-host = "127.0.0.1"
server-port = {port}
admin-server-port = {admin}
log-level = "warn"
"""


class PostgrestDidNotStart(Exception):
    """The message ends with the last lines of its own log."""


class Postgrest:
    """Started by `start`, ended by `close`; the port stays the same in between."""

    def __init__(self, server: PostgresServer, database: str, jwt_secret: str) -> None:
        self.port = 0
        self._admin = 0
        self._server = server
        self._database = database
        self._secret = jwt_secret
        self._process: subprocess.Popen[bytes] | None = None
        # Below the server's own directory: whatever clears that away ends this too.
        self.directory: Path = server.directory / f"postgrest-{database}"
        self.directory.mkdir()
        self._log = self.directory / "log"

    def start(self, *, wait: bool = True) -> None:
        """Run, and by default wait until it has read the schema."""
        if self._process is not None:
            return
        for attempt in range(5):
            if not self.port or attempt:
                self.port, self._admin = free_port(), free_port()
            self._spawn()
            try:
                if wait:
                    self.wait_until_ready()
                return
            except PostgrestDidNotStart as error:
                self.kill()
                if "in use" not in str(error) or attempt == 4:
                    raise

    def kill(self) -> None:
        """SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        kill_workers(self.directory)

    def restart(self) -> None:
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: it accepts connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()

    def reload_schema(self) -> None:
        """Tell it to read the schema anew, and wait until it has."""
        before = self._times_loaded()
        self._server.execute("notify pgrst, 'reload schema'", database=self._database)
        deadline = time.monotonic() + _TIMEOUT_S
        while self._times_loaded() == before:
            if time.monotonic() > deadline:
                raise PostgrestDidNotStart(f"no new schema cache:\n{self.log_tail()}")
            time.sleep(0.01)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Until its own check says so (database reached, schema read) and it hears NOTIFY."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not (self._answers() and "Listening for notifications" in self._text()):
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise PostgrestDidNotStart(self.log_tail())
            time.sleep(0.01)

    def log_tail(self, lines: int = 40) -> str:
        """The end of what it printed."""
        return "\n".join(self._text().splitlines()[-lines:])

    def _spawn(self) -> None:
        configuration = self.directory / "postgrest.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                dsn=self._server.dsn(self._database, "authenticator"),
                max_rows=MAX_ROWS,
                secret=self._secret,
                port=self.port,
                admin=self._admin,
            ),
            encoding="utf-8",
        )
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [install.postgrest(), configuration],
                cwd=self.directory,
                env={"PATH": os.defpath, "TZ": "UTC", "GHCRTS": "-N1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._admin, timeout=2)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _times_loaded(self) -> int:
        return self._text().count("Schema cache loaded")

    def _text(self) -> str:
        try:
            return self._log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
