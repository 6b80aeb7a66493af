"""One look at a Kuma over HTTP: a whole report, or one plain reason and no secret in it."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from bot.core.observation import MonitorStatus, PollProblem
from bot.services.kuma_client import KumaClient, KumaPollError
from tests.peers.kuma.replay import Fault, ReplayKuma

RECORDED = Path(__file__).resolve().parent / "recorded"
KEY = "uk1_s3cret-key"


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest_asyncio.fixture
async def kuma() -> AsyncIterator[ReplayKuma]:
    async with ReplayKuma(api_key=KEY) as running:
        running.make_fleet(5)
        yield running


def client(
    session: aiohttp.ClientSession, kuma: ReplayKuma, *, timeout_s: float = 5.0
) -> KumaClient:
    return KumaClient(session, kuma.base_url, "main", api_key=kuma.api_key, timeout_s=timeout_s)


async def problem_of(asking: KumaClient) -> PollProblem:
    with pytest.raises(KumaPollError) as caught:
        await asking.fetch()
    return caught.value.problem


@asynccontextmanager
async def answering(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    """A server of one handler; yields its address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# --- good answers ----------------------------------------------------------------------


async def test_it_brings_every_monitor(session: aiohttp.ClientSession, kuma: ReplayKuma) -> None:
    kuma.set_status("service 0002", MonitorStatus.DOWN)
    kuma.set_status(3, MonitorStatus.UNKNOWN)
    kuma.vanish(4)
    report = await client(session, kuma).fetch()
    assert (report.instance, report.version, report.skipped) == ("main", "2.5.3", 0)
    assert [(r.identity.key, r.status.value) for r in report.monitors] == [
        ("main:1", "up"),
        ("main:2", "down"),
        ("main:3", "unknown"),
        ("main:5", "up"),
    ]


@pytest.mark.parametrize(
    ("version", "monitors"), [("1.23.16", 9), ("2.0.0-dev.0", 9), ("2.5.3", 10)]
)
async def test_it_reads_every_recorded_version(
    session: aiohttp.ClientSession, kuma: ReplayKuma, version: str, monitors: int
) -> None:
    kuma.set_metrics((RECORDED / f"kuma-{version}" / "metrics.txt").read_bytes())
    report = await client(session, kuma).fetch()
    assert (report.version, len(report.monitors)) == (version, monitors)


async def test_identities_are_shared_between_polls(
    session: aiohttp.ClientSession, kuma: ReplayKuma
) -> None:
    asking = client(session, kuma)
    first, second = await asking.fetch(), await asking.fetch()
    assert all(
        one.identity is other.identity
        for one, other in zip(first.monitors, second.monitors, strict=True)
    )


@pytest.mark.parametrize("ending", ["", "/", "//", "/dashboard", "/metrics", "/metrics/", "?a=b#c"])
async def test_any_way_to_write_the_address_works_behind_a_prefix(
    session: aiohttp.ClientSession, ending: str
) -> None:
    async with ReplayKuma(api_key=KEY, prefix="/tools/kuma") as kuma:
        asking = KumaClient(session, f" {kuma.base_url}{ending} ", "main", api_key=f"{KEY}\n")
        assert (await asking.fetch()).monitors == ()
        assert [seen.path for seen in kuma.requests] == ["/tools/kuma/metrics"]


async def test_a_compressing_proxy_does_no_harm(session: aiohttp.ClientSession) -> None:
    text = (RECORDED / "kuma-2.5.3" / "metrics.txt").read_bytes()

    async def packed(request: web.Request) -> web.Response:
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain; version=0.0.4"}
        return web.Response(body=gzip.compress(text), headers=headers)

    async with answering(packed) as url:
        assert len((await KumaClient(session, url, "main").fetch()).monitors) == 10


async def test_the_loop_runs_on_while_a_big_text_is_read(
    session: aiohttp.ClientSession, kuma: ReplayKuma
) -> None:
    kuma.make_fleet(1000)
    body = kuma.metrics_text()
    turns = 0

    async def somebody_else() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    asking = client(session, kuma)

    async def whole_body(path: str, *, as_json: bool = False) -> bytearray:
        return bytearray(body, "utf-8")

    asking._get = whole_body  # type: ignore[method-assign]  # leaves the reading only
    other = asyncio.create_task(somebody_else())
    await asking.fetch()
    other.cancel()
    assert turns >= 3


# --- keys ------------------------------------------------------------------------------


async def test_a_wrong_or_missing_key_is_unauthorized(
    session: aiohttp.ClientSession, kuma: ReplayKuma
) -> None:
    wrong = KumaClient(session, kuma.base_url, "main", api_key="uk1_wrong")
    assert await problem_of(wrong) is PollProblem.UNAUTHORIZED
    assert await problem_of(KumaClient(session, kuma.base_url, "main")) is PollProblem.UNAUTHORIZED


async def test_user_and_password_in_the_address_serve_until_there_is_a_key(
    session: aiohttp.ClientSession,
) -> None:
    async with ReplayKuma(api_key="p@ss:wörd/1") as kuma:
        inside = kuma.base_url.replace("//", "//me:p%40ss:w%C3%B6rd%2F1@")
        assert (await KumaClient(session, inside, "main").fetch()).monitors == ()
        keyed = KumaClient(session, inside, "main", api_key="uk1_other")
        assert await problem_of(keyed) is PollProblem.UNAUTHORIZED


# --- faults ----------------------------------------------------------------------------

_PROBLEMS = {
    Fault.HTML: PollProblem.NOT_KUMA,
    Fault.ERROR: PollProblem.SERVER_ERROR,
    Fault.UNAUTHORIZED: PollProblem.UNAUTHORIZED,
    Fault.NOT_FOUND: PollProblem.NOT_FOUND,
    Fault.EMPTY: PollProblem.EMPTY,
    Fault.HALF: PollProblem.INCOMPLETE,
    Fault.HALF_CHUNKED: PollProblem.INCOMPLETE,
    Fault.HALF_TEXT: PollProblem.INCOMPLETE,
    Fault.NOTHING: PollProblem.UNREACHABLE,
    Fault.RESET: PollProblem.UNREACHABLE,
    Fault.HANG: PollProblem.TIMEOUT,
    Fault.TRICKLE: PollProblem.TIMEOUT,
    Fault.GARBAGE: PollProblem.NOT_KUMA,
    Fault.REDIRECT: PollProblem.NOT_KUMA,
}


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.SLOW])
async def test_each_fault_has_its_reason_and_passes(
    session: aiohttp.ClientSession, kuma: ReplayKuma, fault: Fault
) -> None:
    asking = client(session, kuma, timeout_s=0.5)
    kuma.fail(fault)
    assert await problem_of(asking) is _PROBLEMS[fault]
    kuma.fail(None)
    assert len((await asking.fetch()).monitors) == 5


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.SLOW])
async def test_a_status_page_has_the_same_faults(
    session: aiohttp.ClientSession, kuma: ReplayKuma, fault: Fault
) -> None:
    asking = KumaClient(session, kuma.base_url, "main", status_page="public", timeout_s=0.5)
    kuma.fail(fault, path="heartbeat")
    # Half a JSON is no JSON; that its length was right proves nobody cut it on the way.
    expected = PollProblem.NOT_KUMA if fault is Fault.HALF_TEXT else _PROBLEMS[fault]
    assert await problem_of(asking) is expected


async def test_a_slow_answer_within_the_time_is_an_answer(
    session: aiohttp.ClientSession, kuma: ReplayKuma
) -> None:
    kuma.slow_s = 0.2
    kuma.fail(Fault.SLOW)
    started = time.monotonic()
    assert len((await client(session, kuma).fetch()).monitors) == 5
    assert time.monotonic() - started >= 0.2


async def test_a_time_out_comes_on_time(session: aiohttp.ClientSession, kuma: ReplayKuma) -> None:
    kuma.fail(Fault.TRICKLE)
    started = time.monotonic()
    assert await problem_of(client(session, kuma, timeout_s=0.3)) is PollProblem.TIMEOUT
    assert 0.3 <= time.monotonic() - started < 2


async def test_a_kuma_that_is_away_is_unreachable_until_it_is_back(
    session: aiohttp.ClientSession, kuma: ReplayKuma
) -> None:
    asking = client(session, kuma)
    await asking.fetch()
    await kuma.stop()
    assert await problem_of(asking) is PollProblem.UNREACHABLE
    await kuma.start()
    assert len((await asking.fetch()).monitors) == 5


async def test_a_name_nobody_knows_is_unreachable() -> None:
    class Nowhere(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            raise OSError(None, f"no such host {host}")

        async def close(self) -> None:
            return None

    connector = aiohttp.TCPConnector(resolver=Nowhere())
    async with aiohttp.ClientSession(connector=connector) as session:
        asking = KumaClient(session, "http://kuma.invalid:3001", "main", api_key=KEY)
        assert await problem_of(asking) is PollProblem.UNREACHABLE


async def test_tls_where_nobody_speaks_it_is_unreachable(
    session: aiohttp.ClientSession, kuma: ReplayKuma
) -> None:
    asking = KumaClient(session, kuma.base_url.replace("http", "https"), "main", api_key=KEY)
    assert await problem_of(asking) is PollProblem.UNREACHABLE


async def test_a_body_beyond_the_bound_is_not_taken_in(
    session: aiohttp.ClientSession, kuma: ReplayKuma
) -> None:
    asking = KumaClient(session, kuma.base_url, "main", api_key=KEY, max_body_bytes=4096)
    assert await problem_of(asking) is PollProblem.NOT_KUMA


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (400, PollProblem.NOT_KUMA),
        (403, PollProblem.UNAUTHORIZED),
        (404, PollProblem.NOT_FOUND),
        (408, PollProblem.SERVER_ERROR),
        (429, PollProblem.SERVER_ERROR),
        (502, PollProblem.SERVER_ERROR),
        (503, PollProblem.SERVER_ERROR),
        (204, PollProblem.EMPTY),
        (302, PollProblem.NOT_KUMA),
        (304, PollProblem.NOT_KUMA),
    ],
)
async def test_each_http_status_has_its_reason(
    session: aiohttp.ClientSession, status: int, problem: PollProblem
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status)

    async with answering(answer) as url:
        assert await problem_of(KumaClient(session, url, "main")) is problem


@pytest.mark.parametrize(
    ("content_type", "body", "problem"),
    [
        ("text/html", "", PollProblem.EMPTY),
        ("text/html", "<p>", PollProblem.NOT_KUMA),
        ("application/json", '{"status": "fail"}', PollProblem.NOT_KUMA),
        ("text/plain", "<html>", PollProblem.NOT_KUMA),
        ("text/plain", "hello\n", PollProblem.NOT_KUMA),
        ("text/plain", "\n\n", PollProblem.EMPTY),
    ],
)
async def test_each_kind_of_body_has_its_reason(
    session: aiohttp.ClientSession, content_type: str, body: str, problem: PollProblem
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=body, content_type=content_type)

    async with answering(answer) as url:
        assert await problem_of(KumaClient(session, url, "main")) is problem


# --- redirects -------------------------------------------------------------------------


async def test_the_key_follows_a_redirect_at_home_only(
    session: aiohttp.ClientSession, kuma: ReplayKuma
) -> None:
    async with ReplayKuma(api_key=KEY) as stranger:
        for place in (f"{stranger.base_url}/metrics", f"//127.0.0.1:{stranger.port}/metrics"):
            kuma.redirect_to = place
            kuma.fail(Fault.REDIRECT, times=1)
            assert await problem_of(client(session, kuma)) is PollProblem.NOT_KUMA
        assert stranger.requests == []
    kuma.redirect_to = "/metrics"
    kuma.fail(Fault.REDIRECT, times=2)
    assert len((await client(session, kuma).fetch()).monitors) == 5


@pytest.mark.parametrize("place", ["/metrics", "", "http://[", "javascript:alert(1)"])
async def test_a_redirect_that_leads_nowhere_ends(
    session: aiohttp.ClientSession, kuma: ReplayKuma, place: str
) -> None:
    kuma.redirect_to = place
    kuma.fail(Fault.REDIRECT)
    assert await problem_of(client(session, kuma)) is PollProblem.NOT_KUMA
    assert len(kuma.requests) <= 4


# --- secrets ---------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [None, *(fault for fault in Fault if fault is not Fault.SLOW)])
async def test_no_error_tells_a_secret(
    session: aiohttp.ClientSession, kuma: ReplayKuma, fault: Fault | None
) -> None:
    inside = kuma.base_url.replace("//", "//s3cret-user:s3cret%2Fpass@") + "?token=s3cret"
    if fault is None:
        await kuma.stop()
    else:
        kuma.fail(fault)
        kuma.redirect_to = "http://s3cret-user:s3cret%2Fpass@elsewhere.example/s3cret?k=" + KEY
    asking = KumaClient(session, inside, "main", api_key=KEY, timeout_s=0.3)
    with pytest.raises(KumaPollError) as caught:
        await asking.fetch()
    told = "".join(traceback.format_exception(caught.value))
    told += f"{caught.value!r}{caught.value.detail}{asking!r}{asking.address}"
    assert "s3cret" not in told.replace(__file__, "")


async def test_a_server_that_repeats_our_key_does_not_bring_it_into_an_error(
    session: aiohttp.ClientSession,
) -> None:
    async def parrot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).decode()
        (line,) = (line for line in asked.splitlines() if line.startswith("Authorization"))
        writer.write(f"{line} {KEY} is wrong\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(parrot, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(KumaPollError) as caught:
            await KumaClient(session, f"http://127.0.0.1:{port}", "main", api_key=KEY).fetch()
    assert caught.value.problem is PollProblem.NOT_KUMA
    assert "Authorization: Basic …" in caught.value.detail
    assert KEY not in caught.value.detail


@pytest.mark.parametrize(
    "address", ["", "kuma:3001", "ftp://kuma", "http://", "http://s3cret:s3cret@[", "//s3cret@kuma"]
)
async def test_an_impossible_address_is_refused_at_once_without_repeating_it(
    session: aiohttp.ClientSession, address: str
) -> None:
    with pytest.raises(ValueError) as caught:
        KumaClient(session, address, "main")
    assert "s3cret" not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# --- status pages ----------------------------------------------------------------------


async def test_a_status_page_needs_no_key_and_tells_less(
    session: aiohttp.ClientSession, kuma: ReplayKuma
) -> None:
    kuma.set_status(2, MonitorStatus.DOWN)
    report = await KumaClient(session, kuma.base_url, "main", status_page="public").fetch()
    assert [(r.identity.key, r.status.value) for r in report.monitors] == [
        ("main:1", "up"),
        ("main:2", "down"),
        ("main:3", "up"),
        ("main:4", "up"),
        ("main:5", "up"),
    ]
    assert report.version is None
    assert report.monitors[0].response_time_ms == 12


async def test_an_unknown_page_is_not_found_or_never_answered(
    session: aiohttp.ClientSession, kuma: ReplayKuma
) -> None:
    asking = KumaClient(session, kuma.base_url, "main", status_page="nowhere", timeout_s=0.3)
    assert await problem_of(asking) is PollProblem.NOT_FOUND
    kuma.dialect = "1.23"
    assert await problem_of(asking) is PollProblem.TIMEOUT


async def test_a_slug_cannot_leave_its_place(
    session: aiohttp.ClientSession, kuma: ReplayKuma
) -> None:
    asking = KumaClient(session, kuma.base_url, "main", status_page="../metrics?x#y")
    assert await problem_of(asking) is PollProblem.NOT_KUMA
    assert [seen.path for seen in kuma.requests] == ["/api/status-page/../metrics?x#y"]


async def test_a_status_page_that_is_no_json_or_another_json_is_not_kuma(
    session: aiohttp.ClientSession,
) -> None:
    for body in ("{", "[]", '{"a": 1}', "[" * 100_000):

        async def answer(request: web.Request, body: str = body) -> web.Response:
            return web.Response(text=body, content_type="application/json")

        async with answering(answer) as url:
            asking = KumaClient(session, url, "main", status_page="public")
            assert await problem_of(asking) is PollProblem.NOT_KUMA


async def test_json_that_does_not_say_so_is_not_kuma(session: aiohttp.ClientSession) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text='{"publicGroupList": [], "heartbeatList": {}}')

    async with answering(answer) as url:
        asking = KumaClient(session, url, "main", status_page="public")
        assert await problem_of(asking) is PollProblem.NOT_KUMA
