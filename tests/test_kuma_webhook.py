"""What a webhook body says: recorded ones of three versions, other shapes, and rubbish."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.kuma import MetricsScanner
from bot.core.kuma_webhook import Beat, Notice, NoticeKind, read_webhook
from bot.core.observation import MonitorStatus
from tests.conftest import ROOT

RECORDED = ROOT / "tests" / "recorded"
VERSIONS = ("1.23.16", "2.0.0-dev.0", "2.5.3")
BODIES = sorted(RECORDED.glob("kuma-*/webhook-*.json"))
BOUNDARY = "--------------------------349587"


def body(version: str, name: str) -> bytes:
    return (RECORDED / f"kuma-{version}" / f"webhook-{name}.json").read_bytes()


def beat(raw: bytes) -> Beat:
    told = read_webhook(raw)
    assert isinstance(told, Beat)
    return told


def form(**fields: str) -> bytes:
    """As axios sends form data."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return f"{''.join(parts)}--{BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_outage_is_read_whole(version: str) -> None:
    down = beat(body(version, "down"))
    assert down.number == "1"
    assert down.name == 'Web "shop" \\ Übersicht'
    assert down.status is MonitorStatus.DOWN
    assert down.message == "Request failed with status code 503"
    assert down.is_important
    assert down.at is not None
    assert down.at.date() == datetime(2026, 11, 20, tzinfo=UTC).date()
    up = beat(body(version, "up"))
    assert up.status is MonitorStatus.UP
    assert up.response_time_ms in (3, 4)
    again = beat(body(version, "resend"))
    assert (again.status, again.is_important) == (MonitorStatus.DOWN, False)
    assert beat(body(version, "push-down")).message == "disk full"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["down", "up", "resend", "push-down", "group-down"])
def test_a_webhook_means_the_monitor_that_metrics_mean(version: str, name: str) -> None:
    text = (RECORDED / f"kuma-{version}" / "metrics.txt").read_text("utf-8")
    known = {m.identity.key: m.identity for m in MetricsScanner().scan(text, "lab").monitors}
    told = beat(body(version, name))
    identity = told.by_number("lab") if version == "2.5.3" else told.by_labels("lab")
    assert identity is not None
    assert known[identity.key].name == told.name
    assert told.speaks_of_ids == (version == "2.5.3")


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_without_a_heartbeat_are_notices(version: str) -> None:
    test = read_webhook(body(version, "test"))
    assert isinstance(test, Notice)
    assert test.kind is NoticeKind.TEST
    certificate = read_webhook(body(version, "cert"))
    assert isinstance(certificate, Notice)
    assert (certificate.kind, certificate.days) == (NoticeKind.CERTIFICATE, 5)


def test_a_domain_that_expires_is_a_notice_with_its_days() -> None:
    told = read_webhook(b'{"msg": "Domain name example.org will expire in 12 days"}')
    assert isinstance(told, Notice)
    assert (told.kind, told.days) == (NoticeKind.DOMAIN, 12)


def shapes(value: dict[str, Any]) -> dict[str, bytes]:
    """One body in every shape that Kuma or an admin's template gives it."""
    text = json.dumps(value)
    heartbeat, monitor = json.dumps(value["heartbeat"]), json.dumps(value["monitor"])
    flat = {
        f"{part}[{name}]": item if isinstance(item, str) else json.dumps(item).replace("null", "")
        for part in ("heartbeat", "monitor")
        for name, item in value[part].items()
    }
    return {
        "json": text.encode(),
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "indented": json.dumps(value, indent=2, ensure_ascii=False).encode(),
        "form": form(data=text),
        "form of others": form(token="x", data=text),
        "form by parts": form(heartbeat=heartbeat, monitor=monitor, msg="x"),
        "urlencoded": b"data=" + quote_plus(text).encode(),
        "urlencoded by parts": urlencode({"heartbeat": heartbeat, "monitor": monitor}).encode(),
        "urlencoded flat": urlencode(flat).encode(),
        "template": json.dumps({"text": "x", "kuma": {"event": value}}).encode(),
        "template of texts": json.dumps({"heartbeatJSON": heartbeat, "monitorJSON": monitor})
        .encode(),
    }  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shape", shapes({"heartbeat": {}, "monitor": {}}))
def test_every_shape_says_the_same(version: str, shape: str) -> None:
    for name in ("down", "resend", "push-down"):
        value = json.loads(body(version, name))
        plain = beat(json.dumps(value).encode())
        assert beat(shapes(value)[shape]) == plain


def test_what_is_not_told_is_not_made_up() -> None:
    told = beat(b'{"heartbeat": {"monitorID": 7, "status": 0}}')
    assert (told.number, told.name, told.at, told.message) == ("7", None, None, "")
    assert told.by_labels("lab") is None
    identity = told.by_number("lab")
    assert identity is not None
    assert (identity.key, identity.name) == ("lab:7", "#7")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b"{}", b'"x"', b"--", b"a=b", b"\xff\xfe\x00", b"[" * 100_000,
        b'{"a":' * 50_000, b'{"heartbeat": {}}', b'{"heartbeat": {"status": 0}}', b"1" * 5000,
        b'{"heartbeat": {"status": 9, "monitorID": 1}}', b"GET / HTTP/1.1", b"data={", b"data=",
        b'{"heartbeat": {"status": true, "monitorID": 1}}',
        b'{"heartbeat": {"status": 0, "monitorID": -1}}',
        b'{"heartbeat": {"status": 0, "monitorID": NaN}}',
        b'{"heartbeat": {"status": 1e999, "monitorID": 1}}',
    ],
)  # fmt: skip
def test_what_says_nothing_we_know_is_none(raw: bytes) -> None:
    assert read_webhook(raw) is None


@pytest.mark.parametrize("at", ["", "now", "0001-01-01", "9999-12-31T23:59:59-14:00", 5, None])
def test_a_time_that_is_none_does_not_hide_the_beat(at: object) -> None:
    raw = json.dumps({"heartbeat": {"monitorID": 1, "status": 0, "time": at}}).encode()
    assert beat(raw).at is None


def test_a_login_in_a_message_is_never_kept() -> None:
    value = json.loads(body("2.5.3", "down"))
    value["heartbeat"]["msg"] = "connect to https://me:s3cret@db.example/x failed\nagain"
    value["monitor"]["url"] = "https://me:s3cret@db.example/x"
    told = beat(json.dumps(value).encode())
    assert told.message == "connect to https://db.example/x failed again"
    assert "s3cret" not in repr(told)
    assert "s3cret" not in str(told.by_number("lab"))


# -- rubbish: never raises, and tells beats and notices apart from it ----------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["heartbeat", "monitor", "msg", "status", "monitorID", "id", "name", "time", "ping",
             "important", "url", "port", "heartbeatJSON", "data"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


def sound(raw: bytes) -> None:
    """What may be said of any answer."""
    told = read_webhook(raw)
    assert told is None or isinstance(told, Beat | Notice)
    if isinstance(told, Beat):
        assert told.number is not None or told.name is not None
        assert len(told.message) <= 500
        for identity in (told.by_number("i"), told.by_labels("i")):
            assert identity is None or identity.key.startswith("i:")


@given(JSON)
def test_any_json_is_read_or_refused(value: object) -> None:
    text = json.dumps(value)
    sound(text.encode())
    sound(form(data=text))
    sound(b"data=" + quote_plus(text).encode())


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda t: t.encode("utf-8", "replace")))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    sound(raw)
    sound(b"--x\r\n" + raw)


def test_a_hundred_thousand_damaged_bodies_raise_nothing_and_hide_no_good_one() -> None:
    """Real bodies in every shape with bytes cut, doubled, swapped and replaced."""
    rng = random.Random(4)
    originals = [p.read_bytes() for p in BODIES]
    small: list[bytes] = []
    for raw in originals:
        value = json.loads(raw)
        if value["heartbeat"] is not None:
            kept = ("id", "name", "type", "url", "hostname", "port")
            value["monitor"] = {name: value["monitor"][name] for name in kept}
            small.extend(shapes(value).values())
        else:
            small.append(raw)
    tokens = [b'"', b"{", b"}", b"[", b":", b",", b"\\", b"--", b"\r\n\r\n", b"\x00", b"\xff",
              b"&", b"=", b"%", b"heartbeat", b"1e400", b"null", b"9" * 40]  # fmt: skip
    good = shapes(json.loads(body("2.5.3", "down")))["form"]
    expected = read_webhook(good)
    began_s = time.perf_counter()
    cases = 0
    while cases < 100_000:
        raw = small[cases % len(small)]
        for _ in range(rng.randrange(1, 4)):
            start = rng.randrange(len(raw) + 1)
            stop = min(len(raw), start + rng.choice((0, 1, 1, 2, 10, 100)))
            raw = raw[:start] + rng.choice(tokens) + raw[stop:]
        sound(raw)
        cases += 1
        if cases % 1000 == 0:
            assert read_webhook(good) == expected
    assert time.perf_counter() - began_s < 60


def test_the_longest_body_is_read_at_once() -> None:
    """256 KB is what the route lets in."""
    worst = [
        b'{"msg": "' + b"a." * 130_000 + b'"}',
        b'{"msg": "' + b"a://" * 65_000 + b'"}',
        json.dumps({"a": {str(n): {"b": {}} for n in range(15_000)}}).encode(),
        b"--x\r\n" + b"\n--x;" * 50_000,
        b"--x\r\n" + b"; name=" * 37_000,
        b"&".join(b"a%d=%%7B" % n for n in range(25_000)),
        json.dumps({"data": json.dumps({"data": json.dumps({"d": "x" * 200_000})})}).encode(),
    ]
    for raw in worst:
        began_s = time.perf_counter()
        read_webhook(raw[: 256 * 1024])
        assert time.perf_counter() - began_s < 2.0
