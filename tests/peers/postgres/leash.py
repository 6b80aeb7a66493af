"""Whatever ends a test, its servers and their files go with it.

`held_directory()` makes a directory together with a watcher, a tiny process of its own, which
waits for the end of the test's process. At that end, `kill -9` included, it kills every process
that works in the directory and removes it. Servers are told to work there, so none gets away.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_GRACE_S = 5.0


class HeldDirectory:
    """A fresh directory below the system's temporary one; `let_go` clears it away."""

    def __init__(self, prefix: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(self.path)],
            stdin=subprocess.PIPE,
            # Ctrl-C goes to the whole group of the terminal; the watcher has to outlive it.
            start_new_session=True,
            cwd=self.path,
        )

    def let_go(self) -> None:
        """Kill what still works in it, remove it, and wait until that is done."""
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()
        self._watcher.wait()


def workers(directory: Path) -> list[int]:
    """The other processes whose working directory lies in `directory` (Linux's /proc)."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        try:
            where = os.readlink(f"/proc/{entry}/cwd")
        except OSError:  # gone meanwhile, or somebody else's
            continue
        if Path(where.removesuffix(" (deleted)")).is_relative_to(directory):
            found.append(int(entry))
    return found


def kill_workers(directory: Path) -> None:
    """SIGKILL to all of them, again until none is left: a dying server may still have forked."""
    deadline = time.monotonic() + _GRACE_S
    while (left := workers(directory)) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


def main() -> None:
    directory = Path(sys.argv[1])
    sys.stdin.buffer.read()  # ends when the test's process does
    kill_workers(directory)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
