"""The peers themselves: the real Kuma read by our client, and the replayed one beside it.

The real one must be installed (`make install-peers`); without it these tests fail.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio
from aiohttp import web

from bot.core.kuma import MetricsScanner, check_complete
from bot.core.observation import KumaReport, MonitorReading, MonitorStatus, PollProblem
from bot.services.kuma_client import KumaClient, KumaPollError
from tests.peers.kuma import install
from tests.peers.kuma.real import KumaDidNotStart, RealKuma
from tests.peers.kuma.replay import Fault, ReplayKuma, ReplayMonitor, escape, render
from tests.peers.kuma.target import Target

RECORDED = Path(__file__).resolve().parent / "recorded"


def recorded(version: str, name: str) -> str:
    return (RECORDED / f"kuma-{version}" / name).read_text(encoding="utf-8")


@pytest.fixture
def installed() -> None:
    if not install.ready():
        pytest.fail("no real Kuma here: run python -m tests.peers.kuma.install (or make test)")


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest_asyncio.fixture
async def target() -> AsyncIterator[Target]:
    async with Target() as running:
        yield running


@pytest_asyncio.fixture
async def kuma(installed: None) -> AsyncIterator[RealKuma]:
    async with RealKuma() as running:
        yield running


async def until(
    fetch: Callable[[], Awaitable[KumaReport]],
    condition: Callable[[KumaReport], bool],
    timeout_s: float = 15.0,
) -> KumaReport:
    """Poll until the report is as wished; fails with the last one."""
    deadline = time.monotonic() + timeout_s
    while True:
        report = await fetch()
        if condition(report):
            return report
        assert time.monotonic() < deadline, report
        await asyncio.sleep(0.1)


def named(report: KumaReport, name: str) -> MonitorReading | None:
    found = [reading for reading in report.monitors if reading.identity.name == name]
    return found[0] if found else None


def stands(name: str, status: MonitorStatus) -> Callable[[KumaReport], bool]:
    def check(report: KumaReport) -> bool:
        reading = named(report, name)
        return reading is not None and reading.status is status

    return check


# --- the real one ----------------------------------------------------------------------


@pytest.mark.kuma
async def test_a_monitor_goes_up_and_down_and_up_in_a_real_kuma(
    kuma: RealKuma, target: Target, session: aiohttp.ClientSession
) -> None:
    client = KumaClient(session, kuma.base_url, "main", api_key=kuma.api_key)
    empty = await client.fetch()
    assert (empty.monitors, empty.version) == ((), "2.0.0-dev.0")

    name = 'Web "shop" \\ Übersicht {監視}, 🚀'
    await kuma.add_http_monitor(name, target.url)
    report = await until(client.fetch, stands(name, MonitorStatus.UP))
    reading = named(report, name)
    assert reading is not None
    assert reading.response_time_ms is not None
    assert (reading.identity.monitor_type, reading.identity.url) == ("http", target.url)
    assert report.skipped == 0

    target.off()
    report = await until(client.fetch, stands(name, MonitorStatus.DOWN))
    down = named(report, name)
    assert down is not None
    assert down.response_time_ms is None
    assert down.identity is reading.identity

    target.on()
    await until(client.fetch, stands(name, MonitorStatus.UP))


@pytest.mark.kuma
async def test_a_monitor_that_retries_is_pending_first(
    kuma: RealKuma, target: Target, session: aiohttp.ClientSession
) -> None:
    client = KumaClient(session, kuma.base_url, "main", api_key=kuma.api_key)
    await kuma.add_http_monitor("Patient", target.url, max_retries=50)
    await until(client.fetch, stands("Patient", MonitorStatus.UP))
    target.off()
    await until(client.fetch, stands("Patient", MonitorStatus.PENDING))


@pytest.mark.kuma
async def test_a_paused_monitor_leaves_and_comes_back(
    kuma: RealKuma, target: Target, session: aiohttp.ClientSession
) -> None:
    client = KumaClient(session, kuma.base_url, "main", api_key=kuma.api_key)
    await kuma.add_http_monitor("Web", target.url)
    port = await kuma.add_port_monitor("Port", target.port)
    await until(client.fetch, lambda report: len(report.monitors) == 2)
    await kuma.pause_monitor(port)
    await until(client.fetch, lambda report: named(report, "Port") is None)
    await kuma.resume_monitor(port)
    await until(client.fetch, stands("Port", MonitorStatus.UP))
    await kuma.delete_monitor(port)
    await until(client.fetch, lambda report: named(report, "Port") is None)


@pytest.mark.kuma
async def test_a_real_kuma_refuses_wrong_and_revoked_keys(
    kuma: RealKuma, session: aiohttp.ClientSession
) -> None:
    async def problem(key: str | None) -> PollProblem | None:
        try:
            await KumaClient(session, kuma.base_url, "main", api_key=key).fetch()
        except KumaPollError as error:
            return error.problem
        return None

    second = kuma.add_key()
    assert await problem(kuma.api_key) is None
    assert await problem(second) is None
    assert await problem(f"{kuma.api_key}x") is PollProblem.UNAUTHORIZED
    assert await problem(None) is PollProblem.UNAUTHORIZED
    kuma.revoke_key()
    assert await problem(kuma.api_key) is PollProblem.UNAUTHORIZED
    assert await problem(second) is None


@pytest.mark.kuma
async def test_a_real_status_page_tells_the_same_without_a_key(
    kuma: RealKuma, target: Target, session: aiohttp.ClientSession
) -> None:
    number = await kuma.add_http_monitor("Web", target.url)
    metrics = KumaClient(session, kuma.base_url, "main", api_key=kuma.api_key)
    await until(metrics.fetch, stands("Web", MonitorStatus.UP))
    kuma.add_status_page("public", [number])
    page = KumaClient(session, kuma.base_url, "main", status_page="public")
    report = await page.fetch()
    assert [(r.identity.key, r.identity.name, r.status) for r in report.monitors] == [
        (f"main:{number}", "Web", MonitorStatus.UP)
    ]
    assert report.monitors[0].uptime_ratio_1d == 1.0

    unknown = KumaClient(session, kuma.base_url, "main", status_page="nowhere", timeout_s=1)
    with pytest.raises(KumaPollError) as caught:
        await unknown.fetch()
    assert caught.value.problem is PollProblem.TIMEOUT


@pytest.mark.kuma
async def test_a_real_kuma_that_was_away_comes_back_with_its_monitors(
    kuma: RealKuma, target: Target, session: aiohttp.ClientSession
) -> None:
    client = KumaClient(session, kuma.base_url, "main", api_key=kuma.api_key)
    await kuma.add_http_monitor("Web", target.url)
    before = await until(client.fetch, stands("Web", MonitorStatus.UP))
    await kuma.stop()
    with pytest.raises(KumaPollError) as caught:
        await client.fetch()
    assert caught.value.problem is PollProblem.UNREACHABLE
    await kuma.start()
    after = await until(client.fetch, stands("Web", MonitorStatus.UP))
    assert after.monitors[0].identity == before.monitors[0].identity


@pytest.mark.kuma
async def test_a_real_kuma_calls_our_webhook(
    kuma: RealKuma, target: Target, session: aiohttp.ClientSession
) -> None:
    heard: list[tuple[str | None, dict[str, object]]] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append((request.headers.get("Authorization"), await request.json()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", hear)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        kuma.add_webhook(f"http://127.0.0.1:{runner.addresses[0][1]}/hook", token="t0ken")
        number = await kuma.add_http_monitor("Web", target.url)
        client = KumaClient(session, kuma.base_url, "main", api_key=kuma.api_key)
        await until(client.fetch, stands("Web", MonitorStatus.UP))
        target.off()
        await until(client.fetch, stands("Web", MonitorStatus.DOWN))
        assert await wait_for(lambda: bool(heard))
    finally:
        await runner.cleanup()
    token, body = heard[-1]
    heartbeat = body["heartbeat"]
    assert isinstance(heartbeat, dict)
    assert (token, heartbeat["monitorID"], heartbeat["status"]) == ("Bearer t0ken", number, 0)


async def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return condition()


@pytest.mark.kuma
async def test_a_real_kuma_stays_on_loopback(kuma: RealKuma) -> None:
    # A documentation address: nobody there, and nothing may even set out for it.
    await kuma.add_http_monitor("Outside", "http://192.0.2.1/")
    assert await wait_for(lambda: "kept on loopback: 192.0.2.1" in kuma.log_tail(400))


@pytest.mark.kuma
async def test_a_real_kuma_dies_with_the_process_that_started_it(installed: None) -> None:
    script = (
        "import asyncio\n"
        "from tests.peers.kuma.real import RealKuma\n"
        "async def main():\n"
        "    async with RealKuma() as kuma:\n"
        "        print(kuma._process.pid, kuma._directory, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script,
        cwd=Path(__file__).resolve().parent.parent, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout is not None
    pid, directory = (await parent.stdout.readline()).decode().split()
    assert psutil.pid_exists(int(pid))
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    try:
        assert await wait_for(lambda: not psutil.pid_exists(int(pid)))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
        shutil.rmtree(directory)


@pytest.mark.kuma
async def test_a_kuma_that_cannot_start_shows_its_log(installed: None, target: Target) -> None:
    started = time.monotonic()
    with pytest.raises(KumaDidNotStart, match="EADDRINUSE"):
        async with RealKuma(port=target.port):
            pass
    assert time.monotonic() - started < 30


@pytest.mark.kuma
def test_installing_again_changes_nothing_and_costs_a_moment(installed: None) -> None:
    started = time.monotonic()
    install.install()
    assert time.monotonic() - started < 2


def test_the_lock_file_names_no_registry_and_checks_every_package() -> None:
    lock = json.loads((install.HERE / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert len(packages) > 500
    assert not [name for name, entry in packages.items() if "resolved" in entry]
    assert not [name for name, entry in packages.items() if "integrity" not in entry]
    assert packages["node_modules/uptime-kuma"]["version"] == "2.0.0-dev.0"


# --- the replayed one ------------------------------------------------------------------


def as_replayed(reading: MonitorReading, number: int) -> ReplayMonitor:
    identity = reading.identity
    return ReplayMonitor(
        id=number,
        name=identity.name,
        type=identity.monitor_type or "",
        url=identity.url or "https://",
        hostname=identity.hostname,
        port=None if identity.port is None else int(identity.port),
        tags=dict(identity.tags),
        status=reading.status,
        response_time_ms=reading.response_time_ms,
        cert_days=reading.cert_days_remaining,
        uptime_1d=reading.uptime_ratio_1d,
    )


@pytest.mark.parametrize(("version", "dialect"), [("1.23.16", "1.23"), ("2.5.3", "2.5")])
def test_the_replayed_text_is_the_recorded_one_line_by_line(version: str, dialect: str) -> None:
    text = recorded(version, "metrics.txt")
    monitors = []
    for position, reading in enumerate(MetricsScanner().scan(text, "main").monitors, start=1):
        number = reading.identity.key.partition(":")[2]
        monitors.append(as_replayed(reading, int(number) if number.isdigit() else position))

    def shape(whole: str) -> list[str]:
        # Averages, the machine and Node's own numbers differ from run to run.
        kept = [
            re.sub(r" \S+$", "", line) if not line.startswith(("#", "monitor_")) else line
            for line in whole.splitlines()
            if not line.startswith(("monitor_response_time_seconds", "nodejs_gc_duration"))
            and not line.startswith(("nodejs_active_handles{", "nodejs_active_requests{"))
        ]
        return kept

    rendered = render(monitors, dialect=dialect)  # type: ignore[arg-type]
    check_complete(rendered)
    assert shape(rendered) == shape(text)


@pytest.mark.parametrize("version", ["1.23.16", "2.5.3"])
async def test_the_replayed_kuma_answers_as_the_recorded_one(
    version: str, session: aiohttp.ClientSession
) -> None:
    dialect = "1.23" if version == "1.23.16" else "2.5"
    async with ReplayKuma(dialect=dialect) as kuma:  # type: ignore[arg-type]
        for answer in json.loads(recorded(version, "http-answers.json")):
            path = answer["GET"]
            if "/badge/" in path or "/push/" in path or path == "/api/entry-page":
                continue  # not replayed: nothing of ours asks for it
            password = {
                "api key": kuma.api_key, "wrong key": "uk1_wrong", "user and password": "hunter2",
            }.get(answer["basic auth"])  # fmt: skip
            headers = {}
            if password is not None:
                pair = base64.b64encode(f"me:{password}".encode()).decode()
                headers["Authorization"] = f"Basic {pair}"
            asked = session.get(
                kuma.base_url + path, headers=headers, timeout=aiohttp.ClientTimeout(total=0.5)
            )
            if answer["status"] == "no answer within 5 s":
                with pytest.raises(TimeoutError):
                    await asked
                continue
            async with asked as response:
                body = await response.text()
                assert response.status == answer["status"]
                assert response.headers["Content-Type"] == answer["content-type"]
                assert response.headers.get("WWW-Authenticate") == answer["www-authenticate"]
                if answer["body"].startswith("{"):
                    assert json.loads(body) == json.loads(answer["body"])
                elif answer["body"] == "":
                    assert body == ""
        assert [seen.status for seen in kuma.requests[:3]] == [401, 401, 200]


def test_names_are_escaped_the_way_kuma_does_it() -> None:
    assert escape('a"b\\c\nd') == 'a\\"b\\\\c\\nd'
    assert escape("C:\\new") == "C:\\new"  # prom-client leaves a backslash before "n" alone
    assert escape(None) == "null"


async def test_a_replayed_kuma_keeps_its_port_and_its_log(session: aiohttp.ClientSession) -> None:
    async with ReplayKuma(api_key=None) as kuma:
        address = kuma.base_url
        kuma.fail(Fault.NOTHING, times=2)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.get(f"{address}/metrics")
        await kuma.stop()
        await kuma.start()
        assert kuma.base_url == address
        async with session.get(f"{address}/metrics"):
            pass
        seen = [(request.path, request.status) for request in kuma.requests]
        assert seen == [("/metrics", None), ("/metrics", None), ("/metrics", 200)]
        assert kuma.requests[0].at <= kuma.requests[-1].at


async def test_the_replayed_kuma_runs_on_its_own(session: aiohttp.ClientSession) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.peers.kuma", "--monitors", "3", "--api-key", "k",
        cwd=Path(__file__).resolve().parent.parent, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().split()[0]
        orders = {"status": {"2": "down"}, "vanish": [3]}
        async with session.post(f"{url}/__replay__", json=orders) as response:
            assert response.status == 200
        report = await KumaClient(session, url, "main", api_key="k").fetch()
        assert [(r.identity.key, r.status.value) for r in report.monitors] == [
            ("main:1", "up"),
            ("main:2", "down"),
        ]
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
