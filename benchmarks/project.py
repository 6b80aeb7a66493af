"""A Supabase project in a process of its own, so that what it costs is not counted as ours.

`python -m benchmarks.project` starts PostgreSQL, PostgREST and the gateway, says on one line where
they are, and then does what the lines on its standard input ask for, until that ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.peers.postgres.gateway import Request
from tests.peers.postgres.server import PostgresServer
from tests.peers.postgres.supabase import Supabase
from tests.peers.postgres.world import make_world, migrate

ROOT = Path(__file__).resolve().parents[1]
MAJOR = 17


class Project:
    """A context manager; inside it the project runs.

    `viewer` and `admin` are tokens of signed-in users who may read dashboards, or everything that
    people may. With `is_far` it yields the processor to us, as another machine would.
    """

    url: str
    dsn: str
    secret_key: str
    publishable_key: str
    viewer: str
    admin: str

    def __init__(self, *, is_far: bool = False) -> None:
        self._is_far = is_far

    def __enter__(self) -> Project:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.project", "19" if self._is_far else "0"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, value in self._answer().items():
            setattr(self, name, value)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def fail(self, rate: float, seed: int = 1) -> None:
        """From now on that share of the requests goes wrong, in all passing ways; 0 ends it."""
        self._ask({"rate": rate, "seed": seed})

    def faults_seen(self) -> int:
        return int(self._ask({})["seen"])

    def _ask(self, question: dict[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the project of the benchmark ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


class _NoLog(list[Request]):
    """A million rows would all stay in the gateway's memory."""

    def append(self, request: Request) -> None:
        pass


def _say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def main(niceness: int) -> None:
    os.nice(niceness)
    with PostgresServer(MAJOR) as server:
        server.create_database("project")
        make_world(server, "project")
        migrate(server, "project")
        with Supabase(server, "project") as project:
            project.gateway.requests = _NoLog()
            _say(
                {
                    "url": project.url,
                    "dsn": project.dsn,
                    "secret_key": project.secret_key,
                    "publishable_key": project.publishable_key,
                    **{
                        role: project.user_key({"app_metadata": {"comet_role": role}})
                        for role in ("viewer", "admin")
                    },
                }
            )
            for line in sys.stdin:
                asked = json.loads(line)
                if asked.get("rate"):
                    project.faults.randomly(asked["seed"], asked["rate"])
                elif "rate" in asked:
                    project.faults.clear()
                _say({"seen": project.faults.seen.total()})


if __name__ == "__main__":
    main(int(sys.argv[1]))
