"""`python -m tests.peers.kuma --port 3001 --monitors 5`: a replayed Kuma on its own.

It also listens to `POST /__replay__` (see `ReplayKuma._controlled`).
"""

from __future__ import annotations

import argparse
import asyncio
import signal

from tests.peers.kuma.replay import VERSIONS, ReplayKuma


async def serve(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    kuma = ReplayKuma(
        port=options.port, api_key=options.api_key, dialect=options.dialect, control=True
    )
    kuma.make_fleet(options.monitors)
    async with kuma:
        print(f"{kuma.base_url} key={kuma.api_key} status_page={kuma.slug}", flush=True)
        await stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.peers.kuma", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one")
    parser.add_argument("--monitors", type=int, default=5)
    parser.add_argument("--dialect", choices=sorted(VERSIONS), default="2.5")
    parser.add_argument("--api-key", default="uk1_replayed-key")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
