"""Puts a real Uptime Kuma into `tests/peers/kuma/node_modules`, ready to run.

Needs Node 18 or later, npm, make, g++ and access to the npm registry, nothing else:

1. `npm ci` from the lock file, without any package's install scripts.
2. The SQLite module is built from source against Node's own headers; its install script
   would look for a ready-made binary on the internet first.
3. The migrations that this release packs in the wrong place are put where it looks.

Doing it again costs a moment and changes nothing. Run it as
`python tests/peers/kuma/install.py`, exit code 0 when all is ready.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = HERE / "node_modules"
KUMA = MODULES / "uptime-kuma"
SQLITE = MODULES / "@louislam" / "sqlite3"
READY = MODULES / ".comet-ready"

_OLDEST_NODE = 18
_REVISION = 1  # raise it when what `install` does changes


class InstallError(Exception):
    """The real Kuma cannot be had here; the message says what is missing."""


def ready() -> bool:
    """Whether the modules are installed for this lock file and this Node."""
    try:
        return READY.read_text(encoding="utf-8") == _fingerprint()
    except (OSError, InstallError):
        return False


def install() -> None:
    """Bring everything to the state in which `ready()` is true."""
    if ready():
        return
    with open(HERE / ".install.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready():  # somebody else was faster
            return
        fingerprint = _fingerprint()
        _say("npm ci")
        _run([_tool("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=HERE)
        if not _sqlite_loads():
            _build_sqlite()
        _place_migrations()
        READY.write_text(fingerprint, encoding="utf-8")


def _fingerprint() -> str:
    """Changes whenever the installation has to be done again."""
    node = _run([_tool("node"), "-p", "process.version + process.arch"], cwd=HERE)
    digest = hashlib.sha256(f"{_REVISION} {node}".encode())
    digest.update((HERE / "package-lock.json").read_bytes())
    return digest.hexdigest()


def _build_sqlite() -> None:
    """Compile the SQLite module, about a minute on two cores."""
    _say("building the SQLite module from source")
    with tempfile.TemporaryDirectory() as scratch:
        environment = {
            "npm_config_nodedir": str(_node_headers(Path(scratch))),
            "npm_config_python": sys.executable,
            "JOBS": "max",
        }
        if sys.version_info >= (3, 12) and (gyp := _bundled_gyp()) is not None:
            # The locked node-gyp still wants distutils, which Python 3.12 dropped.
            environment["npm_config_node_gyp"] = str(gyp)
        _run(
            [
                _tool("node"),
                str(MODULES / "@mapbox" / "node-pre-gyp" / "bin" / "node-pre-gyp"),
                "install",
                "--build-from-source",
            ],
            cwd=SQLITE,
            environment=environment,
        )
    shutil.rmtree(SQLITE / "build-tmp-napi-v6", ignore_errors=True)
    if not _sqlite_loads():
        raise InstallError("the SQLite module was built but cannot be loaded")


def _node_headers(scratch: Path) -> Path:
    """A directory with Node's C headers below include/node.

    Node's own archives and most packages bring them. Where they are missing (Debian keeps
    them in libnode-dev), the npm package of the same Node version has them.
    """
    executable = Path(_run([_tool("node"), "-p", "process.execPath"], cwd=HERE).strip()).resolve()
    wished = os.environ.get("npm_config_nodedir")  # noqa: SIM112 (npm's own spelling)
    candidates = [Path(wished)] if wished else []
    candidates += [executable.parent.parent, Path("/usr"), Path("/usr/local")]
    for candidate in candidates:
        if (candidate / "include" / "node" / "node_api.h").is_file():
            return candidate
    question = "`node-${process.platform}-${process.arch}@${process.versions.node}`"
    package = _run([_tool("node"), "-p", question], cwd=HERE).strip()
    _say(f"no Node headers here; taking those of {package}")
    _run([_tool("npm"), "install", "--prefix", str(scratch), "--ignore-scripts", package], cwd=HERE)
    found = scratch / "node_modules" / package.rpartition("@")[0]
    if (found / "include" / "node" / "node_api.h").is_file():
        return found
    raise InstallError("Node's C headers are missing (Debian: apt-get install libnode-dev)")


def _bundled_gyp() -> Path | None:
    """The node-gyp that npm itself carries."""
    root = Path(_run([_tool("npm"), "root", "-g"], cwd=HERE).strip())
    gyp = root / "npm" / "node_modules" / "node-gyp" / "bin" / "node-gyp.js"
    return gyp if gyp.is_file() else None


def _sqlite_loads() -> bool:
    check = [_tool("node"), "-e", "require('@louislam/sqlite3')"]
    return subprocess.run(check, cwd=HERE, capture_output=True, check=False).returncode == 0


def _place_migrations() -> None:
    """As published, some migrations stand one directory too high and Kuma stops at them."""
    for source in (KUMA / "db").glob("patch-*.sql"):
        target = KUMA / "db" / "old_migrations" / source.name
        if not target.exists():
            shutil.copyfile(source, target)


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise InstallError(f"{name} is not installed (Node {_OLDEST_NODE} or later is needed)")
    return path


def _run(command: list[str], *, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    """The command's output; InstallError with its last words when it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        words = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
        raise InstallError(f"{' '.join(command)} failed with {done.returncode}:\n{words}")
    return done.stdout


def _say(text: str) -> None:
    print(f"kuma: {text}", flush=True)


def main() -> int:
    started = time.monotonic()
    try:
        install()
    except InstallError as error:
        print(f"kuma: {error}", file=sys.stderr)
        return 1
    _say(f"ready in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
