"""The web side, asked over real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from bot.core.copying import Copying, CopyPhase
from bot.core.observation import PollProblem
from bot.core.readings import DiscordLook
from bot.services.parts import Parts
from bot.services.sampler import TASK_NAME
from bot.services.ticker import TaskHealth
from bot.storage.store import StoreUnavailable
from bot.web.access import AuthFailures, TokenCheck, is_loopback, is_own_host
from bot.web.server import (
    MAX_CONNECTIONS,
    Access,
    InsecureBinding,
    Route,
    WebCannotListen,
    WebPortTaken,
    WebServer,
)
from tests.test_exposition import Clock, Sink, make_parts, poll, reading

TOKEN = "correct-horse-battery-staple"
GUARDED = ("/ready", "/api/v1/health", "/metrics")
OPEN = ("/ping", "/health")


@dataclass
class Link:
    """A Discord side that says what the test wants."""

    state: DiscordLook

    def look(self) -> DiscordLook:
        return self.state


class Browser:
    """Asks one server; `get` gives status, headers and text."""

    def __init__(self, server: WebServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    async def ask(
        self, path: str, method: str = "GET", **more: Any
    ) -> tuple[int, dict[str, str], str]:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with self.session.request(method, url, **more) as answer:
            return answer.status, dict(answer.headers), await answer.text()

    async def status(self, path: str, **more: Any) -> int:
        return (await self.ask(path, **more))[0]

    async def json(self, path: str, **more: Any) -> Any:
        return json.loads((await self.ask(path, **more))[2])

    async def raw(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            writer.write(request)
            return await asyncio.wait_for(reader.read(), 2)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


Serve = Callable[..., Awaitable[Browser]]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            parts: Parts | None = None,
            *routes: Route,
            token: str | None = None,
            discord: Link | None = None,
        ) -> Browser:
            server = WebServer(parts or make_parts(), "127.0.0.1", 0, token, discord)
            server.add(*routes)
            await server.start()
            stack.push_async_callback(server.stop)
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return Browser(server, session)

        yield start


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def sample(parts: Parts) -> None:
    """One real look, taken and noted as the ticker would."""
    now_s = time.monotonic()
    parts.tasks.health[TASK_NAME] = TaskHealth(TASK_NAME, 10.0, now_s, now_s, runs=1)
    await parts.sampler.tick()


# -- pages ---------------------------------------------------------------------------------


async def test_ping_and_health_answer_anybody(serve: Serve) -> None:
    for token in (None, TOKEN):
        browser = await serve(token=token)
        assert (await browser.ask("/ping"))[::2] == (200, "pong")
        assert await browser.json("/health") == {"status": "alive"}


async def test_head_is_answered_without_a_body(serve: Serve) -> None:
    browser = await serve()
    for path in (*OPEN, "/metrics", "/api/v1/health"):
        status, headers, text = await browser.ask(path, "HEAD")
        assert (status, text) == (200, "")
        assert int(headers["Content-Length"]) > 0


async def test_an_unknown_path_and_a_wrong_method_are_small_json(serve: Serve) -> None:
    browser = await serve(token=TOKEN)
    status, headers, text = await browser.ask("/nothing/here")
    assert (status, headers["Content-Type"]) == (404, "application/json; charset=utf-8")
    assert json.loads(text) == {"error": "not found"}
    status, headers, text = await browser.ask("/ping", "POST")
    assert (status, headers["Allow"]) == (405, "GET,HEAD")
    assert json.loads(text) == {"error": "method not allowed"}


async def test_every_answer_has_the_strict_headers_and_no_server_name(serve: Serve) -> None:
    async def fails(request: web.Request) -> web.Response:
        raise RuntimeError("do not tell")

    browser = await serve(None, Route("GET", "/fails", fails, Access.OPEN), token=TOKEN)
    asked = [await browser.ask(path) for path in ("/ping", "/metrics", "/nothing", "/fails")]
    asked.append(await browser.ask("/ping", "DELETE"))
    assert [status for status, *_ in asked] == [200, 401, 404, 500, 405]
    for _, headers, text in asked:
        assert "Server" not in headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert "do not tell" not in text and "Traceback" not in text


async def test_what_is_not_http_gets_a_short_answer_and_no_traceback_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    browser = await serve()
    for rubbish in (b"\x16\x03\x01 hello\r\n\r\n", b"GET / HTTP/9.9\r\nHost\r\n\r\n"):
        answer = await browser.raw(rubbish)
        assert b" 400 " in answer.partition(b"\r\n")[0]
        assert b"aiohttp" not in answer and b"Python" not in answer
        assert b"nosniff" in answer
    assert not caplog.records
    assert await browser.status("/ping") == 200


async def test_a_failing_page_is_logged_and_the_next_request_is_fine(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(request: web.Request) -> web.Response:
        raise KeyError("x")

    browser = await serve(None, Route("GET", "/fails", fails, Access.OPEN))
    assert await browser.json("/fails") == {"error": "internal server error"}
    assert [r.levelno for r in caplog.records] == [logging.ERROR]
    assert await browser.status("/ping") == 200


async def test_a_new_route_is_one_line_and_a_page_may_have_its_own_policy(serve: Serve) -> None:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hi", headers={"Content-Security-Policy": "default-src 'self'"})

    browser = await serve(
        None,
        Route("GET", "/open", hello, Access.OPEN),
        Route("GET", "/closed", hello),
        Route("POST", "/hook", hello, Access.OPEN),
        token=TOKEN,
    )
    status, headers, text = await browser.ask("/open")
    assert (status, text) == (200, "hi")
    assert headers["Content-Security-Policy"] == "default-src 'self'"
    assert await browser.status("/closed") == 401
    assert await browser.status("/closed", headers=bearer(TOKEN)) == 200
    assert await browser.status("/hook", method="POST") == 200


async def test_metrics_is_served_as_prometheus_wants_it(serve: Serve) -> None:
    parts = make_parts()
    await sample(parts)
    poll(parts.fleet, [reading(1, "日本 😀")])
    browser = await serve(parts)
    status, headers, text = await browser.ask("/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert 'comet_monitor_up{kuma="main",id="1",name="日本 😀"} 1' in text
    assert "comet_threads" in text
    accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
    assert (await browser.ask("/metrics", headers=accept))[2].endswith("# EOF\n")


# -- ready ---------------------------------------------------------------------------------


async def test_it_is_ready_once_a_sample_is_stored(serve: Serve) -> None:
    parts = make_parts()
    browser = await serve(parts)
    status, _, text = await browser.ask("/ready")
    assert status == 503
    told = json.loads(text)
    assert told["ready"] is False
    assert told["parts"]["sampler"] == {"ok": False, "age_s": None, "why": "not_started"}
    assert told["parts"]["store"]["why"] == "nothing_stored_yet"
    await sample(parts)
    status, _, text = await browser.ask("/ready")
    assert status == 200
    assert json.loads(text)["parts"] == {
        "sampler": {"ok": True, "age_s": 0.0, "why": None},
        "store": {"ok": True, "age_s": 0.0, "why": None},
    }


async def test_it_is_not_ready_while_the_first_sample_is_being_stored(serve: Serve) -> None:
    sink = Sink()
    sink.hangs = True
    parts = make_parts(sink=sink)
    browser = await serve(parts)
    parts.tasks.start(TASK_NAME, 10.0, parts.sampler.tick)
    await asyncio.sleep(0.02)
    told = await browser.json("/ready")
    assert told["parts"]["sampler"]["why"] == "no_sample_yet"
    assert parts.sampler.latest is not None
    await parts.tasks.stop()


async def test_a_hung_sampler_is_not_ready_after_three_periods(serve: Serve) -> None:
    parts = make_parts()
    await sample(parts)
    browser = await serve(parts)
    health = parts.tasks.health[TASK_NAME]
    health.last_success_s = time.monotonic() - 29
    assert (await browser.json("/ready"))["parts"]["sampler"]["ok"] is True
    health.last_success_s = time.monotonic() - 30.1
    status, _, text = await browser.ask("/ready")
    assert status == 503
    assert json.loads(text)["parts"]["sampler"] == {"ok": False, "age_s": 30.1, "why": "hung"}


async def test_a_store_that_refuses_is_not_ready_and_says_why(serve: Serve) -> None:
    sink = Sink()
    parts = make_parts(sink=sink)
    await sample(parts)
    sink.error = StoreUnavailable("full", "no space left")
    await sample(parts)
    browser = await serve(parts)
    status, _, text = await browser.ask("/ready")
    assert status == 503
    assert json.loads(text)["parts"]["store"]["why"] == "full"
    assert (await browser.json("/api/v1/health"))["store"]["queue"] == 1


async def test_a_remote_store_that_is_away_is_told_of_but_leaves_the_bot_ready(
    serve: Serve,
) -> None:
    parts = make_parts()
    await sample(parts)
    browser = await serve(parts)
    assert (await browser.json("/api/v1/health"))["remote"] is None
    copying = Copying(
        "supabase", CopyPhase.COPYING, 9, 900, 40.0, 40.04, "away", 1, 2, 3, parts.now()
    )
    parts.copying = lambda: copying
    told = await browser.json("/api/v1/health")
    assert told["status"] == "degraded" and told["ready"] is True
    remote = told["remote"]
    assert (remote["ok"], remote["why"], remote["age_s"]) == (False, "away", 40.0)
    assert (remote["depth"], remote["refused"], remote["given_up"]) == (9, 1, 2)


async def test_a_store_that_has_gone_silent_is_not_ready(serve: Serve) -> None:
    parts = make_parts()
    await sample(parts)
    browser = await serve(parts)
    parts.recorder.last_write_s = time.monotonic() - 31
    told = await browser.json("/ready")
    assert (told["ready"], told["parts"]["store"]["why"]) == (False, "silent")


@pytest.mark.parametrize(
    ("look", "why"),
    [
        (DiscordLook(), "not_connected_yet"),
        (DiscordLook(away_s=7.0), "away"),
        (DiscordLook(away_s=math.nan), "not_connected_yet"),
        (DiscordLook(away_s=0.0, gateway_ping_ms=math.nan), None),
    ],
)
async def test_with_a_token_discord_must_be_there(
    serve: Serve, look: DiscordLook, why: str | None
) -> None:
    parts = make_parts(has_discord=True)
    await sample(parts)
    browser = await serve(parts, discord=Link(look))
    status, _, text = await browser.ask("/ready")
    assert status == (503 if why else 200)
    assert json.loads(text)["parts"]["discord"]["why"] == why
    assert (await browser.json("/api/v1/health"))["discord"]["gateway_ping_ms"] is None


async def test_without_a_token_discord_is_not_asked_for(serve: Serve) -> None:
    parts = make_parts()
    await sample(parts)
    browser = await serve(parts)
    assert "discord" not in (await browser.json("/ready"))["parts"]
    assert (await browser.json("/api/v1/health"))["discord"] is None


async def test_a_silent_kuma_is_told_and_leaves_us_ready(serve: Serve) -> None:
    clock = Clock()
    parts = make_parts(clock=clock)
    await sample(parts)
    parts.fleet.add_source("new", 60.0, clock())
    poll(parts.fleet, [reading(1)])
    poll(parts.fleet, [reading(1, instance="sick")], "sick")
    clock.step(5)
    parts.fleet.fail("sick", PollProblem.TIMEOUT, "", clock())
    browser = await serve(parts)
    status, _, text = await browser.ask("/ready")
    assert status == 200
    assert json.loads(text)["sources"] == {
        "new": {"ok": None, "age_s": None, "why": "not_asked_yet"},
        "main": {"ok": True, "age_s": 5.0, "why": None},
        "sick": {"ok": False, "age_s": 5.0, "why": "timeout"},
    }


# -- /api/v1/health --------------------------------------------------------------------------


async def test_the_health_report_names_every_part_with_its_age(serve: Serve) -> None:
    parts = make_parts()
    await sample(parts)
    poll(parts.fleet, [reading(1)])
    now_s = time.monotonic()
    parts.tasks.health["rules"] = TaskHealth("rules", 5.0, now_s - 60, now_s - 50, 12, 10)
    parts.tasks.health["rules"].last_error = "ValueError: http://u:hunter2@kuma/ is odd"
    parts.tasks.health["fresh"] = TaskHealth("fresh", 5.0, now_s)
    browser = await serve(parts)
    told = await browser.json("/api/v1/health")
    assert told["ready"] is True
    assert told["status"] == "degraded"
    rules = told["tasks"]["rules"]
    assert (rules["ok"], rules["age_s"], rules["why"]) == (False, 50.0, "failing")
    assert "hunter2" not in json.dumps(told)
    assert told["tasks"]["fresh"]["ok"] is None
    assert told["tasks"]["fresh"]["age_s"] is None
    assert told["sources"]["main"]["version"] == "2.5.3"
    assert told["delivery"]["queued"] == 0
    assert told["store"]["dropped"] == 0
    assert told["alerts"] == {"info": 0, "warning": 0, "critical": 0}
    for part in (*told["tasks"].values(), *told["sources"].values(), told["delivery"]):
        assert {"ok", "age_s", "why"} <= part.keys()
    del parts.tasks.health["rules"]
    assert (await browser.json("/api/v1/health"))["status"] == "ok"


# -- the token -----------------------------------------------------------------------------


async def test_with_a_token_every_other_page_asks_for_it(serve: Serve) -> None:
    browser = await serve(token=TOKEN)
    for path in GUARDED:
        for method in ("GET", "HEAD"):
            status, headers, _ = await browser.ask(path, method)
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert await browser.status(path, headers=bearer(TOKEN)) in (200, 503)
    assert await browser.status("/metrics", headers={"Authorization": f"bearer  {TOKEN}"}) == 200


@pytest.mark.parametrize(
    "header",
    [
        b"Bearer " + TOKEN.encode()[:-1],
        b"Bearer " + TOKEN.encode() + b"x",
        b"Bearer",
        b"Bearer ",
        b"Basic " + TOKEN.encode(),
        TOKEN.encode(),
        b"Bearer \xff\xfe\x80",
        "Bearer 日本語".encode(),
        b"Bearer \xed\xa0\x80",
    ],
)
async def test_anything_else_is_refused(serve: Serve, header: bytes) -> None:
    browser = await serve(token=TOKEN)
    answer = await browser.raw(
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: "
        + header
        + b"\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert TOKEN.encode() not in answer


@pytest.mark.parametrize("token", ["合言葉は山と川です😀", "not unicode \udcff\udc80"])
async def test_a_token_of_any_bytes_works(serve: Serve, token: str) -> None:
    browser = await serve(token=token)
    answer = await browser.raw(
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "
        + token.encode("utf-8", "surrogateescape")
        + b"\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_cookie_counts_once_somebody_hands_it_out(serve: Serve) -> None:
    browser = await serve(token=TOKEN)
    check = browser.server.token_check
    assert check is not None
    cookie = {"Cookie": "comet_session=abc"}
    assert await browser.status("/metrics", headers=cookie) == 401
    check.is_good_cookie = lambda value: value == "abc"
    assert await browser.status("/metrics", headers=cookie) == 200
    assert await browser.status("/metrics", headers={"Cookie": "comet_session=abd"}) == 401


async def test_after_ten_wrong_tokens_an_address_has_to_wait(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    browser = await serve(token=TOKEN)
    wrong = bearer("wrong")
    assert [await browser.status("/metrics", headers=wrong) for _ in range(11)] == [401] * 10 + [
        429
    ]
    assert browser.server.auth_failures_1m() == 11.0
    status, headers, text = await browser.ask("/metrics", headers=bearer(TOKEN))
    assert status == 429
    assert 1 <= int(headers["Retry-After"]) <= 60
    assert "Server" not in headers
    assert json.loads(text)["error"] == "too many wrong tokens"
    assert browser.server.auth_failures_1m() == 11.0
    assert await browser.status("/ping") == 200
    assert len(caplog.records) == 1 and "127.0.0.1" in caplog.text and "wrong t" in caplog.text
    elsewhere = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=elsewhere) as session:
        other = Browser(browser.server, session)
        assert await other.status("/metrics", headers=bearer(TOKEN)) == 200


async def test_asking_without_any_token_is_no_failure(serve: Serve) -> None:
    browser = await serve(token=TOKEN)
    assert {await browser.status("/metrics") for _ in range(15)} == {401}
    assert browser.server.auth_failures_1m() == 0.0


class Seconds:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_the_wait_ends_a_minute_after_the_first_of_ten_failures() -> None:
    clock = Seconds()
    failures = AuthFailures(clock)
    for _ in range(10):
        assert failures.wait_s("10.0.0.1") is None
        failures.note("10.0.0.1")
        clock.now_s += 1
    assert failures.wait_s("10.0.0.1") == 50
    assert failures.wait_s("10.0.0.2") is None
    clock.now_s += 49.5
    failures.note_refused()
    assert failures.wait_s("10.0.0.1") == 1
    clock.now_s += 0.5
    assert failures.wait_s("10.0.0.1") is None
    assert failures.count_1m() == 10.0
    clock.now_s += 61
    assert failures.count_1m() == 0.0


def test_an_ipv6_network_and_a_mapped_address_are_one_guesser() -> None:
    failures = AuthFailures(Seconds(), limit=2)
    failures.note("2001:db8:1:2::1")
    failures.note("2001:db8:1:2:ffff::9%eth0")
    assert failures.wait_s("2001:db8:1:2::5") is not None
    assert failures.wait_s("2001:db8:1:3::1") is None
    failures.note("::ffff:10.0.0.1")
    failures.note("10.0.0.1")
    assert failures.wait_s("10.0.0.1") is not None


def test_a_million_guesses_take_no_more_memory_than_a_few() -> None:
    clock = Seconds()
    failures = AuthFailures(clock, max_addresses=100)
    for number in range(5_000):
        clock.now_s += 0.005
        failures.note(f"10.0.{number % 250}.{number // 250}")
        failures.note("192.0.2.1")
        assert number < 9 or failures.wait_s("192.0.2.1") is not None
    assert len(failures._by_address) <= 100
    assert all(len(times) <= 10 for times in failures._by_address.values())
    assert len(failures._seconds) <= 61
    assert failures.count_1m() == 10_000.0
    clock.now_s += 61
    failures.note("10.9.9.9")
    assert len(failures._by_address) == 1


def test_half_a_surrogate_pair_is_just_another_wrong_token() -> None:
    check = TokenCheck(TOKEN, AuthFailures())
    assert not check.is_right("\ud800")
    assert not check.is_right(TOKEN + "\ud800")
    assert check.is_right(TOKEN)
    assert not TokenCheck("\udcff" * 16, AuthFailures()).is_right("?" * 16)


def test_an_empty_token_is_no_token() -> None:
    with pytest.raises(ValueError):
        TokenCheck("", AuthFailures())
    with pytest.raises(InsecureBinding):
        WebServer(make_parts(), "0.0.0.0", 0, "", None)


# -- without a token ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9:5001", True),
        ("localhost", True),
        ("LocalHost.:80", True),
        ("comet.localhost:5001", True),
        ("[::1]:5001", True),
        ("[::1]", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("evil.example:5001", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("user@localhost", False),
        ("0.0.0.0:5001", False),
        ("192.168.0.5", False),
        ("[::1].evil.example", False),
        ("[::]:5001", False),
        ("", False),
    ],
)
async def test_a_page_is_served_to_those_who_ask_for_this_machine(
    serve: Serve, host: str, expected: bool
) -> None:
    assert is_own_host(host) is expected
    browser = await serve()
    for path in ("/metrics", "/ping"):
        answer = await browser.raw(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
        assert (b" 200 " if expected else b" 403 ") in answer.partition(b"\r\n")[0]


async def test_a_probe_without_a_host_header_is_no_browser(serve: Serve) -> None:
    browser = await serve()
    assert b" 200 " in await browser.raw(b"GET /ping HTTP/1.0\r\n\r\n")


async def test_with_a_token_any_host_name_is_fine(serve: Serve) -> None:
    browser = await serve(token=TOKEN)
    headers = {**bearer(TOKEN), "Host": "comet.example"}
    assert await browser.status("/metrics", headers=headers) == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "example.org"])
def test_without_a_token_only_loopback_can_be_bound(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(InsecureBinding, match="loopback"):
        WebServer(make_parts(), host, 0, None, None)


async def test_a_name_that_only_looks_like_loopback_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = WebServer(make_parts(), "fake.localhost", 0, None, None)
    loop = asyncio.get_running_loop()
    create = loop.create_server

    async def elsewhere(factory: Any, host: str, port: int, **more: Any) -> asyncio.Server:
        return await create(factory, "0.0.0.0", port, **more)

    monkeypatch.setattr(loop, "create_server", elsewhere)
    with pytest.raises(InsecureBinding):
        await server.start()
    assert not server.is_running


# -- starting and stopping ----------------------------------------------------------------


@pytest.fixture
def quick() -> Iterator[None]:
    start_s = time.monotonic()
    yield
    assert time.monotonic() - start_s < 2


async def test_a_taken_port_is_told_and_can_be_tried_again() -> None:
    first = WebServer(make_parts(), "127.0.0.1", 0, None, None)
    await first.start()
    second = WebServer(make_parts(), "127.0.0.1", first.port, None, None)
    with pytest.raises(WebPortTaken, match=rf"^127\.0\.0\.1:{first.port}$"):
        await second.start()
    assert not second.is_running
    await first.stop()
    await second.start()
    assert second.is_running
    assert second.url == f"http://127.0.0.1:{second.port}"
    await second.stop()
    assert not second.is_running
    await second.stop()


async def test_an_address_that_is_not_ours_is_told_without_a_traceback() -> None:
    server = WebServer(make_parts(), "192.0.2.77", 0, TOKEN, None)
    with pytest.raises(WebCannotListen, match=r"192\.0\.2\.77") as caught:
        await server.start()
    assert not isinstance(caught.value, WebPortTaken)
    assert not server.is_running


@pytest.mark.usefixtures("quick")
async def test_it_stops_at_once_whatever_is_open(caplog: pytest.LogCaptureFixture) -> None:
    entered = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        entered.set()
        while True:
            await response.write(b"data: x\n\n")
            await asyncio.sleep(0.01)

    async def stubborn(request: web.Request) -> web.StreamResponse:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            raise
        return web.Response()

    server = WebServer(make_parts(), "127.0.0.1", 0, None, None)
    server.add(Route("GET", "/endless", endless), Route("GET", "/stubborn", stubborn))
    await server.start()
    host = f"Host: 127.0.0.1:{server.port}\r\n\r\n".encode()
    asked = (
        b"",
        b"GET /ping HT",
        b"GET /ping HTTP/1.1\r\n" + host,
        b"GET /endless HTTP/1.1\r\n" + host,
        b"GET /stubborn HTTP/1.1\r\n" + host,
        b"POST /ping HTTP/1.1\r\nContent-Length: 99\r\n" + host,
    )
    writers = []
    for request in asked:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        writers.append((reader, writer))
    await entered.wait()
    start_s = time.monotonic()
    await server.stop()
    assert time.monotonic() - start_s < 1.2
    for reader, writer in writers:
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 1)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", server.port)
    assert not caplog.records


async def test_a_request_that_is_nearly_done_is_finished() -> None:
    entered = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await asyncio.sleep(0.1)
        return web.Response(text="done")

    server = WebServer(make_parts(), "127.0.0.1", 0, None, None)
    server.add(Route("GET", "/slow", slow))
    await server.start()
    async with aiohttp.ClientSession() as session:
        asked = asyncio.create_task(Browser(server, session).ask("/slow"))
        await entered.wait()
        await server.stop()
        assert (await asked)[2] == "done"


async def test_connections_are_bounded(serve: Serve) -> None:
    browser = await serve()
    held = [
        await asyncio.open_connection("127.0.0.1", browser.server.port)
        for _ in range(MAX_CONNECTIONS)
    ]
    await asyncio.sleep(0.05)
    with pytest.raises(aiohttp.ClientError):
        await browser.status("/ping")
    for _, writer in held[:5]:
        writer.close()
    await asyncio.sleep(0.05)
    assert await browser.status("/ping") == 200
    for _, writer in held:
        writer.close()
    await asyncio.gather(*(w.wait_closed() for _, w in held), return_exceptions=True)
