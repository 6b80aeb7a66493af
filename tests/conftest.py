"""What every test may rely on: an empty working directory, and nothing left behind.

A test fails when it leaves a file in the working directory, or an asyncio task, a thread or a
child process alive. What module- and session-wide fixtures start lives on: only what appears
after a test's own set-up began is counted.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
import pytest_asyncio

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(ROOT / ".hypothesis"))

from hypothesis import HealthCheck, settings  # noqa: E402  (reads its directory on import)

from bot import i18n  # noqa: E402
from tests.peers.postgres.fixtures import (  # noqa: E402, F401  (fixtures for all)
    KEPT,
    any_database,
    any_postgres,
    cron_server,
    database,
    empty_database,
    postgres,
    postgres_pool,
    supabase,
)

settings.register_profile("default", max_examples=50, deadline=None)
settings.register_profile(
    "ci",
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("deep", max_examples=3000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

i18n.be_strict()

T = TypeVar("T")

GRACE_S = 2.0
"""How long a thread or a child may take to go after its owner said so."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "no_leaked_tasks")


def _children() -> set[psutil.Process]:
    """Living children, without those that stay by design.

    These are Python's own helper for shared memory, and the database servers of the session,
    known by where they work: a test may well kill and restart one of them.
    """
    found = set()
    for child in psutil.Process().children():
        try:
            if (
                child.status() != psutil.STATUS_ZOMBIE
                and "resource_tracker" not in " ".join(child.cmdline())
                and not KEPT.intersection((place := Path(child.cwd()), *place.parents))
            ):
                found.add(child)
        except psutil.NoSuchProcess:
            continue
    return found


def _still(seen: Callable[[], set[T]], before: set[T]) -> set[T]:
    deadline = time.monotonic() + GRACE_S
    while (left := seen() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


@pytest.fixture(autouse=True)
def leave_nothing_behind() -> Iterator[None]:
    """Run the test in an empty directory of its own; no file, thread or child may remain."""
    home = Path.cwd()
    threads, children = set(threading.enumerate()), _children()
    with tempfile.TemporaryDirectory(prefix="comet-test-") as place:
        os.chdir(place)
        try:
            yield
        finally:
            os.chdir(home)
        files = sorted(path.name for path in Path(place).iterdir())
    threads_left = _still(lambda: set(threading.enumerate()), threads)
    children_left = _still(_children, children)
    for child in children_left:
        child.kill()
    assert not files, f"left in the working directory: {files}"
    assert not threads_left, f"threads still alive: {threads_left}"
    assert not children_left, f"child processes still alive: {children_left}"


@pytest_asyncio.fixture
async def no_leaked_tasks(leave_nothing_behind: None) -> AsyncIterator[None]:
    """Given to every asynchronous test: its tasks are done once its fixtures are torn down."""
    before = asyncio.all_tasks()
    yield
    own = asyncio.current_task()
    deadline = time.monotonic() + GRACE_S
    while (left := asyncio.all_tasks() - before - {own}) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    for task in left:
        task.cancel()
    assert not left, f"tasks still running: {sorted(task.get_name() for task in left)}"


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Ask for a port nobody listens on just now; another process may still take it first."""

    def ask() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return ask


@pytest.fixture
def root() -> Path:
    """The repository: tests run elsewhere, so relative paths to it do not work."""
    return ROOT
