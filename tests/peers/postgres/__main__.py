"""`python -m tests.peers.postgres --major 17`: a Supabase project on its own, until Ctrl-C.

It prints the settings that lead the bot there, by PostgREST and by PostgreSQL's own protocol.
"""

from __future__ import annotations

import argparse
import signal
import sys

from tests.peers.postgres.install import MAJORS
from tests.peers.postgres.server import PostgresServer
from tests.peers.postgres.supabase import Supabase
from tests.peers.postgres.world import make_world, migrate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.peers.postgres", description=__doc__)
    parser.add_argument("--major", type=int, choices=MAJORS, default=17)
    parser.add_argument("--empty", action="store_true", help="without the bot's migrations")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with PostgresServer(options.major) as server:
        server.create_database("project")
        make_world(server, "project")
        if not options.empty:
            migrate(server, "project")
        with Supabase(server, "project") as project:
            print(f"SUPABASE_URL={project.url}")
            print(f"secret key      {project.secret_key}")
            print(f"publishable key {project.publishable_key}")
            print(f"service_role    {project.service_key}")
            print(f"anon            {project.anon_key}")
            print(f"dsn             {project.dsn}", flush=True)
            signal.pause()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
