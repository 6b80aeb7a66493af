"""The house keeps its shape: arrows, rooms, locks, and nothing of the builder's own machine.

Each check is a function over source text, so that each is also shown a planted fault.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.__main__ import Row, render, within
from bot import __version__
from bot.settings_table import SPECS
from tests.conftest import ROOT

LEAVES = {"bot.i18n", "bot.redaction"}
INNER = {"bot.core", "bot.services", "bot.storage.store"} | LEAVES
ARROWS = {
    "bot.core": {"bot.core"},
    "bot.services": INNER,
    "bot.storage": {"bot.core", "bot.storage"},
    "bot.web": INNER | {"bot.web"},
    "cogs": INNER | {"bot.client", "bot.cards", "bot.discord_text", "cogs"},
    "bot.i18n": set(),
    "bot.redaction": set(),
    "bot.settings": LEAVES | {"bot.settings"},
    "bot.logs": LEAVES | {"bot.settings"},
    "bot.check": INNER | {"bot.settings", "bot.storage"},
    "bot.backup_cli": INNER | {"bot.settings", "bot.storage", "bot.progress"},
    "bot.migrate_cli": INNER | {"bot.check", "bot.settings", "bot.storage"},
    "bot.transfer_cli": INNER | {"bot.settings", "bot.storage", "bot.progress"},
    "bot.cli": {"bot"},
    "bot.app": {"bot", "cogs"},
    "bot.memory": INNER | {"bot.logs", "bot.settings", "bot.storage"},
    "bot.__main__": {"bot.cli"},
}
"""What each room may look at; a name stands for itself and everything below it."""

ELSEWHERE = INNER | {"bot.cards", "bot.client", "bot.discord_text", "cogs"}
"""The same for what has no row: the Discord-facing helpers beside client.py."""

DISCORD_FACING = ("cogs", "bot.client", "bot.cards", "bot.discord", "bot.webhook")
IMPURE = {
    "aiohttp", "aiosqlite", "asyncio", "discord", "io", "logging", "os", "pathlib", "psutil",
    "random", "secrets", "shutil", "socket", "sqlite3", "subprocess", "threading", "time",
}  # fmt: skip
LONGEST_FILE = 450
SQL = re.compile(
    r"\s*(SELECT\s[\s\S]+\sFROM\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s"
    r"|CREATE\s+(TEMP\w*\s+)?(TABLE|INDEX|VIEW|TRIGGER)\s|DROP\s+\w+\s|PRAGMA\s|BEGIN\s+IMMEDIATE)",
    re.IGNORECASE,
)
FOREIGN = re.compile(
    r"(?:^|[^A-Za-z0-9_.])/(?:work|farm)/|/tmp/(?:lab)|\.\./[s]hared|\.[l]ibrary"
    r"|https?://[^ \"]*\.(?:whl|tgz|tar\.gz|deb)\b|\"resolved\": *\"http"
    r"|--(?:extra-)?index-url|^ *registry *= *\S*//|--find-[l]inks"
)


# --- reading the house -------------------------------------------------------------------------


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def product() -> list[Path]:
    return sorted(p for folder in ("bot", "cogs") for p in (ROOT / folder).rglob("*.py"))


def kept_files() -> Iterator[Path]:
    """Everything that is or would be in the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            yield ROOT / name


def imports(tree: ast.AST, module: str) -> set[str]:
    """Every module named by an import statement, at any depth; relative ones made absolute."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, [*module.split(".")[: -node.level], base]))
            # `from bot.storage import sqlite` names a module as well.
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def below(name: str, rooms: set[str] | tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


# --- the checks --------------------------------------------------------------------------------


def outward_arrows(source: str, module: str) -> list[str]:
    """Imports of ours that this room may not make."""
    room = max((r for r in ARROWS if below(module, (r,))), key=len, default=None)
    if room is None and module.startswith("bot.settings_"):
        room = "bot.settings"
    allowed = ARROWS[room] if room else ELSEWHERE
    named = {name for name in imports(ast.parse(source), module) if below(name, ("bot", "cogs"))}
    if "bot.settings" in allowed:
        named -= {name for name in named if name.startswith("bot.settings_")}
    return sorted(
        name
        for name in named
        # `from bot.storage.store import Store` also yields bot.storage.store.Store; a package
        # alone ("from bot import i18n") is judged by what is taken from it.
        if not below(name, allowed)
        and not any(other.startswith(f"{name}.") and below(other, allowed) for other in named)
    )


def discord_where_it_should_not_be(source: str, module: str) -> list[str]:
    if below(module, DISCORD_FACING) or module.startswith("bot.discord_"):
        return []
    return sorted(n for n in imports(ast.parse(source), module) if below(n, ("discord",)))


def impurities(source: str, module: str) -> list[str]:
    """Clocks and I/O in bot/core."""
    if not below(module, ("bot.core",)):
        return []
    tree = ast.parse(source)
    found = sorted(n for n in imports(tree, module) if n.split(".")[0] in IMPURE)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today"):
            found.append(f"line {node.lineno}: .{node.attr}")
        elif isinstance(node, ast.Name) and node.id in ("open", "print", "input"):
            found.append(f"line {node.lineno}: {node.id}")
    return found


def sql_outside_storage(source: str, module: str) -> list[str]:
    if below(module, ("bot.storage",)):
        return []
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [
        f"line {node.lineno}: {node.value[:40]!r}"
        for node in texts
        if isinstance(node.value, str) and id(node) not in prose and SQL.match(node.value)
    ]


def discord_loops(source: str, module: str) -> list[str]:
    """`ext.tasks` bursts after a stall and dies for good of a KeyError; we have a ticker."""
    return [n for n in sorted(imports(ast.parse(source), module)) if n == "discord.ext.tasks"]


def without_docstring(source: str, module: str) -> list[str]:
    tree = ast.parse(source)
    return ["no docstring"] if tree.body and not ast.get_docstring(tree) else []


def too_long(source: str, module: str) -> list[str]:
    lines = source.count("\n")
    return [f"{lines} lines"] if lines > LONGEST_FILE else []


CHECKS: list[Callable[[str, str], list[str]]] = [
    outward_arrows,
    discord_where_it_should_not_be,
    impurities,
    sql_outside_storage,
    discord_loops,
    without_docstring,
    too_long,
]

PLANTED = [
    (outward_arrows, "bot.core.rule", "from bot.services.ticker import Ticker"),
    (outward_arrows, "bot.core.rule", "from bot.i18n import Translator"),
    (outward_arrows, "bot.services.x", "from bot.storage.sqlite import SqliteStore"),
    (outward_arrows, "bot.services.x", "from bot.storage import sqlite"),
    (outward_arrows, "bot.services.x", "def f():\n    import cogs.alerts"),
    (outward_arrows, "bot.services.x", "from ..web import server"),
    (outward_arrows, "bot.storage.sqlite", "from bot.services.clock import Clock"),
    (outward_arrows, "bot.web.server", "from bot.settings import Settings"),
    (outward_arrows, "bot.web.server", "from cogs.embeds import Card"),
    (outward_arrows, "cogs.alerts", "from bot.storage.sqlite import SqliteStore"),
    (outward_arrows, "cogs.alerts", "import bot.app"),
    (outward_arrows, "bot.i18n", "from bot import settings"),
    (outward_arrows, "bot.cards", "from bot.settings import Settings"),
    (outward_arrows, "bot.settings_table", "from bot.services import ticker"),
    (discord_where_it_should_not_be, "bot.services.x", "import discord"),
    (discord_where_it_should_not_be, "bot.app", "from discord.ext import commands"),
    (impurities, "bot.core.alert", "from datetime import datetime\nx = datetime.now()"),
    (impurities, "bot.core.alert", "import time"),
    (impurities, "bot.core.alert", "def f():\n    open('x')"),
    (sql_outside_storage, "bot.services.x", "q = 'select a from b where c'"),
    (sql_outside_storage, "cogs.alerts", "q = f'DELETE FROM t WHERE {x}'"),
    (sql_outside_storage, "bot.app", "q = 'PRAGMA wal_checkpoint'"),
    (discord_loops, "cogs.alerts", "from discord.ext import tasks"),
    (discord_loops, "cogs.alerts", "import discord.ext.tasks"),
    (without_docstring, "bot.x", "import os"),
    (too_long, "bot.x", "x = 1\n" * 451),
]

INNOCENT = [
    ("bot.services.x", '"""d"""\nfrom bot.storage.store import Store\nfrom bot import i18n'),
    ("bot.settings", '"""d"""\nfrom bot.settings_table import SPECS'),
    ("bot.cli", '"""d"""\nfrom bot.storage.sqlite import SqliteStore'),
    ("cogs.uptimekuma.setup", '"""d"""\nfrom . import status\nimport discord'),
    ("bot.core.x", '"""Select one from many."""\nfrom datetime import datetime'),
    ("bot.storage.x", "'''d'''\nq = 'SELECT a FROM b'"),
    ("bot.web", ""),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_passes(check: Callable[[str, str], list[str]]) -> None:
    found = {
        module_name(path): faults
        for path in product()
        if (faults := check(path.read_text("utf-8"), module_name(path)))
    }
    assert not found


@pytest.mark.parametrize(("check", "module", "source"), PLANTED)
def test_a_planted_fault_is_found(
    check: Callable[[str, str], list[str]], module: str, source: str
) -> None:
    assert check(source, module)


@pytest.mark.parametrize(("module", "source"), INNOCENT)
def test_what_is_right_is_left_alone(module: str, source: str) -> None:
    assert not [found for check in CHECKS for found in check(source, module)]


def test_every_check_has_a_planted_fault() -> None:
    assert {check for check, _, _ in PLANTED} == set(CHECKS)


def test_tests_and_benchmarks_have_docstrings() -> None:
    paths = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert not [
        str(path)
        for path in paths
        if "node_modules" not in path.parts and without_docstring(path.read_text("utf-8"), "")
    ]


# --- importing does nothing --------------------------------------------------------------------

WATCH = """
import importlib, os, sys
import aiohttp, aiosqlite, asyncio, discord, discord.ext.commands, prometheus_client, psutil, pytz
done = []
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NAMES = ("socket.bind", "socket.connect", "subprocess.Popen", "os.mkdir", "os.remove",
         "os.rename", "os.putenv", "sqlite3.connect", "os.fork", "_thread.start_new_thread")
def watch(event, args):
    if event in NAMES or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
        done.append(f"{event} {args!r}")
import threading
start = threading.Thread.start
threading.Thread.start = lambda self: (done.append(f"thread {self.name}"), start(self))
sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
print("\\n".join(done))
"""


def importing(place: Path, *modules: str) -> str:
    """What importing these modules did to the world."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCH, *modules],
        cwd=place,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(ROOT), str(place)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_any_module_does_nothing(tmp_path: Path) -> None:
    modules = [module_name(path) for path in product() if path.name != "__main__.py"]
    assert importing(tmp_path, *modules) == ""


@pytest.mark.parametrize(
    "source",
    [
        "import threading; threading.Thread(target=print).start()",
        "open('x', 'w').close()",
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.close()",
        "import sqlite3; sqlite3.connect(':memory:').close()",
        "import subprocess; subprocess.run(['true'])",
    ],
)
def test_a_module_that_acts_when_imported_is_found(source: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(source)
    assert importing(tmp_path, "planted")


# --- settings, locks, paths --------------------------------------------------------------------


def test_every_setting_is_used_or_says_that_it_is_not() -> None:
    """A setting that is read, checked and then forgotten would be a lie in the README."""
    used: set[str] = set()
    for name in ("app", "memory", "logs", "cli", "settings"):
        tree = ast.parse((ROOT / "bot" / f"{name}.py").read_text("utf-8"))
        used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    wrong = {
        spec.name
        for spec in SPECS
        if spec.is_unused == (spec.field.removeprefix("uptime_kuma_") in used)
    }
    assert not wrong


def locked(text: str) -> dict[str, str]:
    """Name → version of a requirements lock. Raises ValueError where a hash is missing."""
    found = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        head = re.match(r"([a-z0-9-]+)==([^ ;\\]+)", block)
        if head is None or not re.search(r"--hash=sha256:[0-9a-f]{64}", block):
            raise ValueError(f"not a pinned and hashed requirement: {block[:60]!r}")
        found[head[1]] = head[2]
    return found


def test_the_locks_pin_and_hash_everything_and_agree() -> None:
    run = locked((ROOT / "requirements.lock").read_text())
    dev = locked((ROOT / "requirements-dev.lock").read_text())
    assert run.items() <= dev.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for wanted, lock in ((project["dependencies"] + extras["supabase"], run), (extras["dev"], dev)):
        names = {re.split(r"[\[<>=]", one)[0].replace(".", "-").lower() for one in wanted}
        assert names <= set(lock)


def test_a_requirement_without_a_hash_is_found() -> None:
    with pytest.raises(ValueError, match="hashed"):
        locked("aiohttp==3.1 \\\n    --hash=sha256:" + "0" * 64 + "\npytz==1\n")


def test_nothing_names_this_machine_or_a_place_to_download_from() -> None:
    found = []
    for path in kept_files():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number}"
            for number, line in enumerate(text.splitlines(), 1)
            if FOREIGN.search(line)
        ]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "/".join(["see ", "work", "x"]),
        "/".join(["cd ..", "shared"]),
        "http://host/a." + "whl",
        '"{}": "http://x"'.format("resolved"),
    ],
)
def test_a_line_that_does_is_found(line: str) -> None:
    assert FOREIGN.search(line)


def test_node_locks_are_pinned_and_hashed() -> None:
    locks = [path for path in kept_files() if path.name == "package-lock.json"]
    for lock in locks:
        packages = json.loads(lock.read_text())["packages"]
        assert all("integrity" in entry for name, entry in packages.items() if name)


def test_ci_runs_what_a_developer_runs() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()


# --- benchmarks --------------------------------------------------------------------------------


def row(value: float, ratio: float | None, budget: float | str | None) -> Row:
    return {
        "name": "n", "value": value, "unit": "ms", "baseline": None, "ratio": ratio,
        "budget": budget,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("measured", "is_kept"),
    [
        (row(1, None, None), None),
        (row(2.9, 9, 3.0), True),
        (row(3.1, 0.1, 3), False),
        (row(2.9, None, "<= 3 ms"), True),
        (row(3.1, None, "≤ 3 ms"), False),
        (row(9, 25, ">= 20 x faster"), True),
        (row(9, 19, "≥ 20× faster"), False),
        (row(2500, None, "> 2,000 rows/s"), True),
        (row(9, 1.3, "<= 1.25 x"), False),
    ],
)
def test_a_benchmark_keeps_its_budget_or_not(measured: Row, is_kept: bool | None) -> None:
    assert within(measured) is is_kept
    assert ("✖" in render([measured])) == (is_kept is False)


def test_a_budget_nobody_can_check_is_an_error() -> None:
    for odd in (row(1, None, "fast"), row(1, None, ">= 20 x")):
        with pytest.raises(ValueError, match="budget"):
            within(odd)


def test_the_version_is_the_same_everywhere(root: Path) -> None:
    with (root / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == __version__
