"""Kuma's words become observations, whatever they look like, and equal to the reference parser.

`COMET_KUMA_CASES=100000 pytest tests/test_kuma_text.py` looks at that many texts per property.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bot.core.kuma import (
    KumaTextError,
    MetricsScanner,
    check_complete,
    decode_heartbeats,
    display_url,
    looks_complete,
    parse_status_page,
)
from bot.core.observation import KumaReport, MonitorReading, MonitorStatus, PollProblem
from tests.peers.kuma.replay import Dialect, ReplayMonitor, render

RECORDED = Path(__file__).resolve().parent / "recorded"
VERSIONS = ("1.23.16", "2.0.0-dev.0", "2.5.3")

UP, DOWN, PENDING, MAINTENANCE, UNKNOWN = (
    MonitorStatus.UP,
    MonitorStatus.DOWN,
    MonitorStatus.PENDING,
    MonitorStatus.MAINTENANCE,
    MonitorStatus.UNKNOWN,
)

CASES = int(os.environ.get("COMET_KUMA_CASES", "0")) or settings().max_examples
many = settings(max_examples=CASES, deadline=None)


def recorded(version: str, name: str) -> str:
    return (RECORDED / f"kuma-{version}" / name).read_text(encoding="utf-8")


def scan(text: str | bytes) -> KumaReport:
    return MetricsScanner().scan(text, "main")


def only(text: str | bytes) -> MonitorReading:
    (reading,) = scan(text).monitors
    return reading


def series(family: str, block: str, value: str = "1") -> str:
    return f"{family}{{{block}}} {value}\n"


def status(block: str, value: str = "1") -> str:
    return series("monitor_status", block, value)


def by_name(report: KumaReport) -> dict[str, MonitorReading]:
    return {reading.identity.name: reading for reading in report.monitors}


# --- recorded --------------------------------------------------------------------------


def test_it_reads_what_2_5_3_said() -> None:
    report = scan(recorded("2.5.3", "metrics.txt"))
    assert (report.instance, report.version, report.skipped) == ("main", "2.5.3", 0)
    told = [
        (
            reading.identity.key,
            reading.identity.name,
            reading.identity.monitor_type,
            reading.status,
            reading.response_time_ms,
            reading.uptime_ratio_1d,
        )
        for reading in report.monitors
    ]
    assert told == [
        ("main:1", 'Web "shop" \\ Übersicht', "http", DOWN, None, 0.4),
        ("main:2", "Slow starter", "http", PENDING, None, 0.4),
        ("main:3", "TCP port", "port", UP, 0.0, 1.0),
        ("main:6", "In maintenance", "http", MAINTENANCE, None, 1.0),
        ("main:8", "Same name", "http", DOWN, None, 0.4),
        ("main:9", "Same name", "http", DOWN, None, 0.4),
        ("main:10", "TLS", "http", UP, 11.0, 1.0),
        ("main:11", "Group", "group", DOWN, None, 0.25),
        ("main:5", "Child", "http", DOWN, None, 0.5714285714285714),
        ("main:4", "Backup job", "push", DOWN, None, None),
    ]


def test_it_reads_labels_certificates_and_tags() -> None:
    monitors = by_name(scan(recorded("2.5.3", "metrics.txt")))
    web, port, tls = monitors['Web "shop" \\ Übersicht'], monitors["TCP port"], monitors["TLS"]
    assert web.identity.tags == {"env": "prod", "TeamOps": ""}
    assert (web.identity.url, web.identity.hostname) == ("http://127.0.0.1:44521/", None)
    assert (web.cert_days_remaining, web.cert_is_valid) == (None, None)
    assert (port.identity.url, port.identity.hostname, port.identity.port) == (
        None,
        "127.0.0.1",
        "39749",
    )
    assert (tls.cert_days_remaining, tls.cert_is_valid) == (5.0, True)


@pytest.mark.parametrize("version", ["1.23.16", "2.0.0-dev.0"])
def test_without_ids_a_key_comes_from_the_labels(version: str) -> None:
    report = scan(recorded(version, "metrics.txt"))
    assert report.version == version
    assert [reading.status for reading in report.monitors] == [
        DOWN, PENDING, UP, MAINTENANCE, DOWN, UP, DOWN, DOWN, DOWN,
    ]  # fmt: skip
    keys = [reading.identity.key for reading in report.monitors]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == len("main:~") + 12 and key.startswith("main:~") for key in keys)
    tls = by_name(report)["TLS"]
    assert (tls.cert_days_remaining, tls.cert_is_valid) == (5.0, True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_kuma_without_monitors_is_a_whole_answer(version: str) -> None:
    text = recorded(version, "metrics-empty.txt")
    assert looks_complete(text)
    assert scan(text) == KumaReport("main", (), version, 0)


def test_keys_and_identities_are_the_same_from_poll_to_poll() -> None:
    text = recorded("1.23.16", "metrics.txt")
    scanner = MetricsScanner()
    first, second = scanner.scan(text, "main"), scanner.scan(text, "main")
    assert first == second == scan(text)
    for one, other in zip(first.monitors, second.monitors, strict=True):
        assert one.identity is other.identity
        assert one is other  # nothing moved, so not even the reading is made anew


def test_a_renamed_monitor_has_its_new_name_though_nothing_else_moved() -> None:
    scanner = MetricsScanner()
    scanner.scan(status('monitor_id="1",monitor_name="before"'), "main")
    (reading,) = scanner.scan(status('monitor_id="1",monitor_name="after"'), "main").monitors
    assert reading.identity.name == "after"


def test_the_instance_is_part_of_the_key() -> None:
    scanner = MetricsScanner()
    text = status('monitor_id="7",monitor_name="a"')
    assert scanner.scan(text, "home").monitors[0].identity.key == "home:7"
    assert scanner.scan(text, "work").monitors[0].identity.key == "work:7"


# --- single lines ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", DOWN), ("1", UP), ("2", PENDING), ("3", MAINTENANCE), ("0.0", DOWN), ("1e0", UP),
        ("3E+0", MAINTENANCE), ("4", UNKNOWN), ("-1", UNKNOWN), ("1.5", UNKNOWN),
        ("Nan", UNKNOWN), ("NaN", UNKNOWN), ("+Inf", UNKNOWN), ("-Inf", UNKNOWN),
    ],
)  # fmt: skip
def test_a_status_number_kuma_has_not_got_is_unknown_and_stays(
    value: str, expected: MonitorStatus
) -> None:
    report = scan(status('monitor_id="1",monitor_name="a"', value))
    assert [reading.status for reading in report.monitors] == [expected]
    assert report.skipped == 0


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (r"back\\slash", "back\\slash"),
        (r"say \"hi\"", 'say "hi"'),
        (r"two\nlines", "two\nlines"),
        (r"C:\\new", "C:\\new"),
        (r"C:\new", "C:\new"),  # what Kuma prints for the same name: its escaping forgets "\n"
        (r"tab\t stays", r"tab\t stays"),
        ("a,b={c}", "a,b={c}"),
        ("} 0", "} 0"),
        ('",monitor_id=\\"9\\"'.replace('"', '\\"', 1), '",monitor_id="9"'),
        ("emoji 🚀👩‍🚀", "emoji 🚀👩‍🚀"),
        ("監視" * 100, "監視" * 100),
        ("bare\rreturn", "bare\rreturn"),
        ("line\u2028separator\x85\x0b\x0c\x1c", "line\u2028separator\x85\x0b\x0c\x1c"),
        ("# HELP", "# HELP"),
        ("null", "null"),
    ],
)
def test_any_name_survives(written: str, told: str) -> None:
    reading = only(status(f'monitor_id="1",monitor_name="{written}",monitor_type="http"'))
    assert (reading.identity.name, reading.identity.key) == (told, "main:1")


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ('monitor_id="5",monitor_name="  "', "#5"),
        ('monitor_id="5"', "#5"),
        ('monitor_name="",monitor_url="http://a/"', "http://a/"),
        ('monitor_name="",monitor_hostname="db"', "db"),
        ('monitor_name=""', "?"),
    ],
)
def test_a_name_of_nothing_gets_something_to_show(block: str, name: str) -> None:
    assert only(status(block)).identity.name == name


@pytest.mark.parametrize("empty", ["null", "", "https://"])
def test_what_kuma_writes_for_nothing_is_none(empty: str) -> None:
    block = f'monitor_name="a",monitor_url="{empty}",monitor_hostname="null",monitor_port="null"'
    identity = only(status(block)).identity
    assert (identity.url, identity.hostname, identity.port) == (None, None, None)


def test_an_id_of_null_is_no_id() -> None:
    assert only(status('monitor_id="null",monitor_name="a"')).identity.key.startswith("main:~")


def test_a_url_loses_its_secrets_but_not_its_key() -> None:
    one = only(status('monitor_name="a",monitor_url="https://me:pw@h/x?token=1"'))
    two = only(status('monitor_name="a",monitor_url="https://me:pw@h/x?token=2"'))
    assert one.identity.url == two.identity.url == "https://h/x"
    assert one.identity.key != two.identity.key


def test_no_tag_can_pass_for_the_name_or_id() -> None:
    # Kuma writes its own labels after the tags, so the later of two is Kuma's.
    reading = only(
        status('monitor_name="tag",monitor_id="666",env="prod",monitor_id="1",monitor_name="real"')
    )
    assert (reading.identity.key, reading.identity.name) == ("main:1", "real")
    assert reading.identity.tags == {"env": "prod"}


def test_a_tag_called_window_does_not_confuse_uptime() -> None:
    block = 'monitor_id="1",monitor_name="a"'
    text = status(f'window="prod",{block}') + "".join(
        series("monitor_uptime_ratio", f'window="{window}",{block}', value)
        for window, value in (("30d", "0.3"), ("1d", "0.9"), ("365d", "0.2"))
    )
    reading = only(text)
    assert reading.identity.tags == {"window": "prod"}
    assert reading.uptime_ratio_1d == 0.9


def test_strange_tags_do_not_hide_their_monitor() -> None:
    block = '2024="x","quoted name"="y",日本="z",="nameless",monitor_id="1",monitor_name="a"'
    assert only(status(block)).identity.key == "main:1"


def test_a_number_that_is_none_is_counted_in_every_family() -> None:
    block = 'monitor_id="1",monitor_name="a"'
    for family, label in (
        ("monitor_response_time", ""),
        ("monitor_uptime_ratio", ',window="1d"'),
        ("monitor_cert_days_remaining", ""),
        ("monitor_cert_is_valid", ""),
    ):
        for value in ("1_0", "0_1", "x", "", "1 x", "--1"):
            report = scan(status(block) + series(family, block + label, value))
            assert (len(report.monitors), report.skipped) == (1, 1)
            assert report.monitors[0] == only(status(block))


def test_response_time_below_zero_or_without_end_is_none() -> None:
    block = 'monitor_id="1",monitor_name="a"'
    for value, expected in (
        ("-1", None), ("0", 0.0), ("0.5", 0.5), ("1.5e3", 1500.0), ("NaN", None), ("+Inf", None),
    ):  # fmt: skip
        text = status(block) + series("monitor_response_time", block, value)
        assert only(text).response_time_ms == expected


def test_days_and_validity_of_a_certificate() -> None:
    block = 'monitor_id="1",monitor_name="a"'
    text = status(block) + series("monitor_cert_days_remaining", block, "-3")
    reading = only(text + series("monitor_cert_is_valid", block, "0"))
    assert (reading.cert_days_remaining, reading.cert_is_valid) == (-3.0, False)
    reading = only(text + series("monitor_cert_is_valid", block, "NaN"))
    assert reading.cert_is_valid is None


def test_only_the_day_window_becomes_the_uptime() -> None:
    block = 'monitor_id="1",monitor_name="a"'
    for window, value, expected in (
        ("1d", "0", 0.0), ("1d", "0.5", 0.5), ("1d", "NaN", None), ("1d", "1.5", None),
        ("30d", "0.5", None), ("365d", "0.5", None),
    ):  # fmt: skip
        text = series("monitor_uptime_ratio", f'{block},window="{window}"', value) + status(block)
        assert only(text).uptime_ratio_1d == expected


def test_a_monitor_without_status_is_not_live_and_no_error() -> None:
    # 2.1 and 2.2 keep the window series of paused monitors.
    paused = 'monitor_id="2",monitor_name="paused"'
    text = status('monitor_id="1",monitor_name="a"')
    text += series("monitor_uptime_ratio", f'{paused},window="1d"', "0.5")
    text += series("monitor_response_time", paused, "12")
    report = scan(text)
    assert [reading.identity.key for reading in report.monitors] == ["main:1"]
    assert report.skipped == 0


def test_of_two_series_with_one_identity_the_later_counts() -> None:
    text = status('monitor_id="1",monitor_name="before"', "1")
    text += status('monitor_id="2",monitor_name="other"', "1")
    text += status('monitor_id="1",monitor_name="after"', "0")
    report = scan(text)
    assert [(r.identity.name, r.status) for r in report.monitors] == [
        ("after", DOWN),
        ("other", UP),
    ]
    assert report.skipped == 1


@pytest.mark.parametrize(
    "garbage",
    [
        'monitor_status{monitor_id="9",monitor_name="x"} abc',
        'monitor_status{monitor_id="9",monitor_name="x"} 1_0',
        'monitor_status{monitor_id="9",monitor_name="x"}',
        'monitor_status{monitor_id="9",monitor_name="x',
        'monitor_status{monitor_id="9" monitor_name="x"} 1',
        "monitor_status{monitor_id=9} 1",
        'monitor_status{env="prod"} 1',
        "monitor_status{} 1",
        "monitor_status 1",
        "}}}{{{",
        "1 2 3",
        "ä",
        "\x00\x01",
    ],
)
def test_garbage_is_counted_and_the_others_stand(garbage: str) -> None:
    good = status('monitor_id="1",monitor_name="a"') + status('monitor_id="2",monitor_name="b"')
    first, second = good.splitlines()
    report = scan(f"{first}\n{garbage}\n{second}\n")
    assert [reading.identity.key for reading in report.monitors] == ["main:1", "main:2"]
    assert report.skipped == 1


def test_other_families_and_comments_are_not_counted() -> None:
    text = (
        "# monitor_status{\n\n  \n# EOF\nmonitor_response_time_seconds{x} y\n"
        "monitor_future{} z\nprocess_cpu 1\nmonitor_statuses 1\n"
    )
    assert scan(text) == KumaReport("main", (), None, 0)


def test_carriage_returns_spaces_and_timestamps_are_understood() -> None:
    text = (
        'monitor_status{monitor_id="1",monitor_name="crlf"} 0\r\n'
        '  monitor_status{monitor_id="2",monitor_name="indented"} 1\n'
        'monitor_status {monitor_id="3",monitor_name="space"} 1\n'
        'monitor_status{ monitor_id = "4" , monitor_name = "wide", }\t2\n'
        'monitor_status{monitor_id="5",monitor_name="stamped"} 3 1395066363000\n'
        'monitor_status{monitor_id="6",monitor_name="tight"}1\n'
        'monitor_status{monitor_id="7",monitor_name="exemplar"} 0 # {trace="}"} 1\n'
        'app_version{version="9.9"} 1\r\n'
    )
    report = scan(text)
    assert [reading.status for reading in report.monitors] == [DOWN, UP, UP, PENDING, MAINTENANCE, UP, DOWN]  # noqa: E501  # fmt: skip
    assert (report.version, report.skipped) == ("9.9", 0)


def test_bytes_that_are_no_utf_8_hide_nothing() -> None:
    data = b'monitor_status{monitor_id="1",monitor_name="\xff\xfe"} 1\n'
    assert only(data).identity.name == "\ufffd\ufffd"


# --- equal to the reference parser -----------------------------------------------------

Told = tuple[str, MonitorStatus, float | None, float | None, bool | None, float | None]


def reference(text: str) -> dict[tuple[str, ...], Told]:
    """What prometheus_client's parser makes of the same text."""
    values: dict[str, dict[tuple[str, ...], float]] = {}
    names: dict[tuple[str, ...], str] = {}
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples:
            labels = sample.labels
            if sample.name == "monitor_uptime_ratio" and labels.get("window") != "1d":
                continue
            who: tuple[str, ...]
            if "monitor_id" in labels:
                who = (labels["monitor_id"],)
            else:
                who = tuple(
                    labels.get(f"monitor_{label}", "")
                    for label in ("name", "type", "url", "hostname", "port")
                )
            values.setdefault(sample.name, {})[who] = float(sample.value)
            names[who] = labels.get("monitor_name", "")
    told: dict[tuple[str, ...], Told] = {}
    for who, number in values.get("monitor_status", {}).items():
        ping = values.get("monitor_response_time", {}).get(who, -1.0)
        days = values.get("monitor_cert_days_remaining", {}).get(who, math.nan)
        valid = values.get("monitor_cert_is_valid", {}).get(who)
        ratio = values.get("monitor_uptime_ratio", {}).get(who, math.nan)
        told[who] = (
            names[who],
            {0: DOWN, 1: UP, 2: PENDING, 3: MAINTENANCE}.get(number, UNKNOWN),  # type: ignore[call-overload]
            ping if 0 <= ping < math.inf else None,
            days if math.isfinite(days) else None,
            {0: False, 1: True}.get(valid),  # type: ignore[call-overload]
            ratio if 0 <= ratio <= 1 else None,
        )
    return told


def assert_equal_to_reference(text: str, report: KumaReport) -> None:
    assert [
        (
            reading.identity.name,
            reading.status,
            reading.response_time_ms,
            reading.cert_days_remaining,
            reading.cert_is_valid,
            reading.uptime_ratio_1d,
        )
        for reading in report.monitors
    ] == list(reference(text).values())


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_texts_read_as_the_reference_parser_reads_them(version: str) -> None:
    text = recorded(version, "metrics.txt")
    assert_equal_to_reference(text, scan(text))


# Everything that may stand in a name, with the dangerous things more often than by chance.
_names = st.lists(
    st.sampled_from([*'\\"{}=, \t\r\n\u2028\x85🚀', "\\n", '",', '="', "} 1", "監視"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    min_size=1,
    max_size=8,
).map("".join).filter(lambda name: name.strip() != "")  # fmt: skip
_tag_names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: not name.startswith(("monitor_", "__"))
)
_numbers = st.one_of(
    st.sampled_from(["0", "1", "2", "3", "-1", "NaN", "Nan", "+Inf", "-Inf", "1e3", "2.5E-3"]),
    st.integers(-5, 10**6).map(str),
    st.floats(allow_nan=False).map(repr),
)


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@st.composite
def monitor_blocks(draw: st.DrawFn) -> list[str]:
    """Label blocks of up to six monitors, each with an identity of its own."""
    with_id = draw(st.booleans())
    names = draw(st.lists(_names, max_size=6, unique=True))
    blocks = []
    for number, name in enumerate(names, start=1):
        pairs: dict[str, str] = draw(st.dictionaries(_tag_names, _names, max_size=2))
        if with_id:
            pairs["monitor_id"] = str(number)
        pairs["monitor_name"] = name
        pairs["monitor_type"] = draw(st.sampled_from(["http", "port", "push"]))
        pairs["monitor_url"] = draw(st.sampled_from(["https://", "http://a/?b={c},d"]) | _names)
        pairs["monitor_hostname"] = "null"
        blocks.append(",".join(f'{label}="{escaped(value)}"' for label, value in pairs.items()))
    return blocks


@st.composite
def texts(draw: st.DrawFn, blocks: list[str] | None = None) -> str:
    """A well-formed text with all families and a few liberties of layout."""
    if blocks is None:
        blocks = draw(monitor_blocks())
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    lines = []
    for family, windows in (
        ("monitor_cert_days_remaining", [""]),
        ("monitor_cert_is_valid", [""]),
        ("monitor_uptime_ratio", [',window="1d"', ',window="30d"']),
        ("monitor_response_time_seconds", [',window="1d"']),
        ("monitor_response_time", [""]),
        ("monitor_status", [""]),
    ):
        lines.append(f"# HELP {family} words {{}} \\\\ words")
        lines.append(f"# TYPE {family} gauge")
        for block in blocks:
            if not draw(st.booleans() if family != "monitor_status" else st.just(True)):
                continue
            for window in windows:
                space = draw(st.sampled_from([" ", " ", " ", "  ", "\t", ""]))
                comma = draw(st.sampled_from(["", "", "", ",", " , "]))
                stamp = draw(st.sampled_from(["", "", "", " 1395066363000"]))
                value = draw(_numbers)
                space = " " if stamp else space
                lines.append(f"{family}{{{block}{window}{comma}}}{space}{value}{stamp}")
        lines.append("")
    lines.append('app_version{version="2.5.3",major="2"} 1')
    return end.join([*lines, ""])


@many
@given(texts())
def test_any_well_formed_text_reads_as_the_reference_parser_reads_it(text: str) -> None:
    report = scan(text)
    assert_equal_to_reference(text, report)
    assert (report.version, report.skipped) == ("2.5.3", 0)


@many
@given(st.data())
def test_what_is_remembered_never_changes_what_is_read(data: st.DataObject) -> None:
    scanner = MetricsScanner()
    pool = data.draw(monitor_blocks())
    for _ in range(3):
        blocks = data.draw(st.lists(st.sampled_from(pool), unique=True)) if pool else []
        text = data.draw(texts(blocks))
        assert scanner.scan(text, "main") == scan(text)


# --- never raises, never hides ---------------------------------------------------------

_soup = st.lists(
    st.sampled_from(
        [
            "monitor_status", "monitor_response_time", "monitor_uptime_ratio", "app_version", "{",
            "}", '"', "\\", ",", "=", " ", "\t", "\r", "\n", "\n", "monitor_id", "monitor_name",
            'monitor_id="1"', 'monitor_name="a"', 'window="1d"', "version", "1", "0", "-", "NaN",
            "1e999", "_", "# HELP ", "monitor_", "\x00", "\ufeff", "日本", "\u2028", "\ud800",
        ]
    ),
    max_size=60,
).map("".join)  # fmt: skip


@many
@given(st.one_of(_soup, st.text(st.characters(), max_size=200), st.binary(max_size=200)))
def test_no_text_whatever_makes_it_raise(text: str | bytes) -> None:
    scanner = MetricsScanner()
    report = scanner.scan(text, "main")
    assert scanner.scan(text, "main") == report
    looks_complete(text)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A line that is garbage, or was a good line of a monitor nobody asks about."""
    if draw(st.booleans()):
        return draw(_soup).replace("\n", " ").replace("monitor_id", "monitor_1d")
    line = status('env="a",monitor_id="999999",monitor_name="lost \\" {one}"', "1").strip()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(line) - 1)))
        line = draw(
            st.sampled_from(
                [line[:at], line[at:], line[:at] + line[at + 1 :], line[:at] + '"' + line[at:],
                 line[:at] + "\\" + line[at:], line[:at] + "}" + line[at:]]
            )
        )  # fmt: skip
    return line


@many
@given(st.data())
def test_garbage_in_between_hides_no_good_monitor(data: st.DataObject) -> None:
    numbers = range(1, data.draw(st.integers(1, 6)) + 1)
    wanted = {
        f"main:{number}": data.draw(st.sampled_from([DOWN, UP, PENDING, MAINTENANCE]))
        for number in numbers
    }
    lines = [
        status(
            f'monitor_id="{number}",monitor_name="{escaped(data.draw(_names))}"',
            str([DOWN, UP, PENDING, MAINTENANCE].index(wanted[f"main:{number}"])),
        ).removesuffix("\n")
        for number in numbers
    ]
    for garbage in data.draw(st.lists(damaged(), max_size=6)):
        lines.insert(data.draw(st.integers(0, len(lines))), garbage)
    found = {r.identity.key: r.status for r in scan("\n".join([*lines, ""])).monitors}
    assert {key: found.get(key) for key in wanted} == wanted


# --- slices and memory -----------------------------------------------------------------


def fleet(n: int, dialect: Dialect = "2.5", first: int = 1) -> str:
    return render(
        [
            ReplayMonitor(id=number, name=f"service {number} 監視", url=f"http://10.0.0.{number}/")
            for number in range(first, first + n)
        ],
        dialect=dialect,
    )


def in_slices(text: str | bytes | bytearray, scanner: MetricsScanner) -> tuple[int, KumaReport]:
    """With a clock that says the time is up at every look."""
    ticks = iter(range(10**9))
    slices = scanner.scan_slices(text, "main", clock=lambda: float(next(ticks)), slice_s=0.5)
    count = 0
    while True:
        try:
            next(slices)
            count += 1
        except StopIteration as done:
            return count, done.value


@pytest.mark.parametrize("dialect", ["1.23", "2.0", "2.5"])
def test_slices_and_pieces_change_nothing(dialect: Dialect) -> None:
    text = fleet(300, dialect)
    whole = scan(text)
    assert len(whole.monitors) == 300
    for form in (text, text.encode(), bytearray(text.encode())):
        count, report = in_slices(form, MetricsScanner())
        assert report == whole
        assert count > len(text) / 10_000


def test_a_line_across_many_pieces_is_read_and_an_endless_one_counted() -> None:
    long = status(f'monitor_id="1",monitor_name="{"x" * 100_000}"')
    endless = status(f'monitor_id="2",monitor_name="{"x" * 2_000_000}"')
    report = scan(long + endless + status('monitor_id="3",monitor_name="c"') + "\n" * 20_000)
    assert [reading.identity.key for reading in report.monitors] == ["main:1", "main:3"]
    assert report.skipped == 1


def test_it_remembers_only_what_the_last_text_held() -> None:
    scanner = MetricsScanner()
    scanner.scan(fleet(200), "main")
    assert scanner.remembered == 200
    scanner.scan(fleet(30, first=150), "main")
    assert scanner.remembered == 30
    scanner.scan("", "main")
    assert scanner.remembered == 0


def test_an_abandoned_scan_leaves_nothing_and_harms_nothing() -> None:
    scanner = MetricsScanner()
    text = fleet(200)
    slices = scanner.scan_slices(text, "main", clock=lambda: 0.0, slice_s=0.0)
    next(slices)
    slices.close()
    assert scanner.remembered == 0
    assert scanner.scan(text, "main") == scan(text)


# --- complete or not -------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_text_cut_anywhere_is_noticed_or_harmless(version: str) -> None:
    text = recorded(version, "metrics.txt").encode()
    assert looks_complete(text)
    whole = scan(text)
    noticed = 0
    for end in range(1, len(text)):
        if looks_complete(text[:end]):
            assert scan(text[:end]) == whole
        else:
            noticed += 1
    assert noticed > len(text) * 0.9


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", PollProblem.EMPTY),
        (" \r\n\n", PollProblem.EMPTY),
        (" " * 3000, PollProblem.EMPTY),
        ("<!DOCTYPE html><html></html>\n", PollProblem.NOT_KUMA),
        ("\ufeff\n  <html>\n", PollProblem.NOT_KUMA),
        ("<pre>\nmonitor_status{} 1\napp_version{} 1\n", PollProblem.NOT_KUMA),
        ('{"status":"fail"}\n', PollProblem.NOT_KUMA),
        ("# HELP node_cpu words\nnode_cpu 1\n", PollProblem.NOT_KUMA),
        ('# HELP app_version x\napp_version{version="1"} 1\n', PollProblem.NOT_KUMA),
        ("# HE", PollProblem.INCOMPLETE),
        ("# HELP monitor_cert_days_remaining The\n", PollProblem.INCOMPLETE),
        ("# HELP monitor_status x\nmonitor_status{a", PollProblem.INCOMPLETE),
        ("# HELP monitor_status x\n# TYPE monitor_status gauge\n", PollProblem.INCOMPLETE),
    ],
)
def test_what_is_no_whole_answer_says_what_it_is(text: str, problem: PollProblem) -> None:
    for form in (text, text.encode(), bytearray(text.encode())):
        with pytest.raises(KumaTextError) as caught:
            check_complete(form)
        assert caught.value.problem is problem


def test_windows_line_ends_are_complete_too() -> None:
    assert looks_complete(recorded("2.5.3", "metrics.txt").replace("\n", "\r\n"))


# --- status pages ----------------------------------------------------------------------


def page_of(version: str) -> tuple[Any, Any]:
    return (
        json.loads(recorded(version, "statuspage.json")),
        json.loads(recorded(version, "statuspage-heartbeat.json")),
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_status_page_tells_every_published_monitor(version: str) -> None:
    page, beats = page_of(version)
    report = parse_status_page(page, beats, "main")
    assert [(r.identity.key, r.identity.name, r.status) for r in report.monitors] == [
        ("main:1", 'Web "shop" \\ Übersicht', DOWN),
        ("main:2", "Slow starter", PENDING),
        ("main:3", "TCP port", UP),
        ("main:4", "Backup job", DOWN),
        ("main:5", "Child", DOWN),
        ("main:6", "In maintenance", MAINTENANCE),
        ("main:7", "Paused", UP),
        ("main:8", "Same name", DOWN),
        ("main:9", "Same name", DOWN),
        ("main:10", "TLS", UP),
        ("main:11", "Group", DOWN),
    ]
    assert (report.version, report.skipped) == (None, 0)
    certificates = {
        r.identity.name: (r.cert_days_remaining, r.cert_is_valid) for r in report.monitors
    }
    assert certificates["TLS"] == (5.0, True)
    assert certificates["Child"] == (None, None)  # 2.5 writes "" and false there
    first = report.monitors[0]
    assert first.uptime_ratio_1d == beats["uptimeList"]["1_24"]
    assert first.response_time_ms is None
    assert report.monitors[9].response_time_ms == beats["heartbeatList"]["10"][-1]["ping"]


def test_both_sources_give_a_monitor_the_same_identity() -> None:
    page, beats = page_of("2.5.3")
    public = by_name(parse_status_page(page, beats, "main"))['Web "shop" \\ Übersicht'].identity
    metrics = by_name(scan(recorded("2.5.3", "metrics.txt")))['Web "shop" \\ Übersicht'].identity
    assert (public.key, public.monitor_type, public.tags) == (
        metrics.key,
        metrics.monitor_type,
        metrics.tags,
    )


def small_page(*monitors: object) -> dict[str, Any]:
    return {"publicGroupList": [{"id": 1, "name": "g", "monitorList": list(monitors)}]}


def beat(status: object, time: object = "2026-11-20 09:00:00.000", ping: object = 5) -> Any:
    return {"status": status, "time": time, "msg": "", "ping": ping}


def test_a_published_monitor_without_beats_is_unknown() -> None:
    for beats in ({}, {"1": []}, {"1": None}, {"1": ["x"]}, {"1": [beat(9)]}, {"1": [beat(True)]}):
        report = parse_status_page(
            small_page({"id": 1, "name": "a"}), {"heartbeatList": beats}, "main"
        )
        assert [reading.status for reading in report.monitors] == [UNKNOWN]


def test_the_last_beat_counts_and_a_wrong_ping_is_none() -> None:
    rows = [beat(1), beat(0), beat(1, ping=-1)]
    report = parse_status_page(
        small_page({"id": 1, "name": "a"}), {"heartbeatList": {"1": rows}}, "main"
    )
    assert (report.monitors[0].status, report.monitors[0].response_time_ms) == (UP, None)


def test_beats_that_stopped_long_ago_prove_nothing() -> None:
    # Monitor 1 was paused at 09:00 having beaten every minute; monitor 2 goes on.
    old = [beat(1, f"2026-11-20 08:5{minute}:00.000") for minute in range(10)]

    def status_of_1(newest: str) -> MonitorStatus:
        beats = {"heartbeatList": {"1": old, "2": [beat(1, newest)]}}
        page = small_page({"id": 1, "name": "a"}, {"id": 2, "name": "b"})
        return parse_status_page(page, beats, "main").monitors[0].status

    assert status_of_1("2026-11-20 09:03:00.000") is UP
    assert status_of_1("2026-11-20 09:05:00.000") is UNKNOWN


def test_odd_rows_of_a_status_page_are_counted_and_the_others_stand() -> None:
    page = small_page({"id": 1, "name": "a"}, None, {"name": "no id"}, {"id": "2"}, {"id": 1})
    page["publicGroupList"] += ["no group", {"monitorList": None}]
    report = parse_status_page(page, {"heartbeatList": {"1": [beat(0)]}}, "main")
    assert [(r.identity.name, r.status) for r in report.monitors] == [("a", DOWN)]
    assert report.skipped == 5


def test_numbers_without_end_are_not_told() -> None:
    for endless in (math.inf, -math.inf, math.nan, 10**400):
        row = {"id": 1, "name": "a", "certExpiryDaysRemaining": endless, "validCert": True}
        beats = {"heartbeatList": {"1": [beat(1, ping=endless)]}, "uptimeList": {"1_24": endless}}
        report = parse_status_page(small_page(row, {"id": endless}), beats, "main")
        (reading,) = report.monitors
        assert (reading.cert_days_remaining, reading.response_time_ms) == (None, None)
        assert (reading.uptime_ratio_1d, reading.status, report.skipped) == (None, UP, 1)


@pytest.mark.parametrize("page", [None, [], "x", {}, {"status": "fail"}, {"publicGroupList": None}])
def test_what_is_no_status_page_says_so(page: object) -> None:
    with pytest.raises(KumaTextError) as caught:
        parse_status_page(page, {"heartbeatList": {}}, "main")
    assert caught.value.problem is PollProblem.NOT_KUMA


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["publicGroupList", "monitorList", "heartbeatList", "uptimeList", "id", "name", "tags",
             "status", "time", "ping", "1", "1_24", "type", "url", "value", "validCert"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@many
@given(_json, _json, _json)
def test_no_status_page_whatever_makes_it_raise_anything_else(
    row: object, beats: object, rest: object
) -> None:
    for page, heartbeats in (
        (small_page(row, {"id": 1, "name": "a"}), {"heartbeatList": {"1": beats}}),
        (rest, {"heartbeatList": beats, "uptimeList": rest}),
        (small_page({"id": 1, "tags": row}), beats),
    ):
        try:
            parse_status_page(page, heartbeats, "main")
        except KumaTextError as error:
            assert error.problem is PollProblem.NOT_KUMA


def decoded(text: str, clock: Callable[[], float] = lambda: 0.0) -> tuple[int, object]:
    slices: Generator[None, None, object] = decode_heartbeats(text, clock, slice_s=0.0)
    count = 0
    while True:
        try:
            next(slices)
            count += 1
        except StopIteration as done:
            return count, done.value


@many
@given(_json, st.sampled_from([None, 1]))
def test_heartbeats_decode_as_json_does(value: object, indent: int | None) -> None:
    for whole in ({"heartbeatList": value, "uptimeList": value}, {"a": value}, {}):
        text = json.dumps(whole, indent=indent)
        expected = json.loads(text)
        if isinstance(expected.get("heartbeatList"), dict):
            expected["heartbeatList"] = {
                key: rows[-10:] if isinstance(rows, list) else rows
                for key, rows in expected["heartbeatList"].items()
            }
        # Text against text, because NaN is not equal to itself.
        assert json.dumps(decoded(f" {text}\n")[1]) == json.dumps(expected)


def test_many_heartbeats_are_decoded_in_slices() -> None:
    rows = [beat(1)] * 100
    text = json.dumps({"heartbeatList": {str(n): rows for n in range(50)}, "uptimeList": {}})
    count, value = decoded(text)
    assert count == 50
    assert value == {"heartbeatList": {str(n): rows[:10] for n in range(50)}, "uptimeList": {}}


@pytest.mark.parametrize(
    "text",
    ["", " ", "[]", "1", "{", '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1}x', "{}{}", "{1:1}"],
)
def test_half_a_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        decoded(text)


@many
@given(st.text(max_size=30) | st.lists(st.sampled_from([*'{}[]":, ', "heartbeatList", "1"])))
def test_text_that_is_no_json_object_is_a_value_error(parts: str | list[str]) -> None:
    text = "".join(parts)
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        decoded(text)
    else:
        with pytest.raises(ValueError):
            decoded(text)


# --- addresses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (None, None),
        ("", None),
        ("https://example.org/", "https://example.org/"),
        ("http://127.0.0.1:3001/a/b", "http://127.0.0.1:3001/a/b"),
        ("https://me:secret@example.org:8443/x", "https://example.org:8443/x"),
        ("https://me@example.org/x", "https://example.org/x"),
        ("https://me:p@ss@example.org/x", "https://example.org/x"),
        ("https://example.org/x?token=secret#part", "https://example.org/x"),
        ("https://example.org?token=secret", "https://example.org"),
        ("https://example.org/@someone", "https://example.org/@someone"),
        ("https://me:pa/ss@example.org/x", None),
        ("https://me:pa?ss@example.org/x", None),
        ("https://m/e:pass@example.org/x", None),
        ("https://me:12/34@example.org/x", None),
        ("https://m@e/pass@example.org/x", None),
        ("https://me:p@a/ss@example.org/x", None),
        ("http://[::1]:3001/", "http://[::1]:3001/"),
        ("mongodb://me:pw@a:1,b:2/db?x=1", "mongodb://a:1,b:2/db"),
        ("me:pw@db:3306/shop", "db:3306/shop"),
        ("Server=db;User Id=sa;Password=pw", None),
        ("https://日本.jp/パス", "https://日本.jp/パス"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str | None, shown: str | None) -> None:
    assert display_url(url) == shown
    assert display_url(shown) == shown


_secret = st.text(st.sampled_from("XYZ:@/?#%&=+ 0"), max_size=8).map(
    lambda text: f"s3cret{text}s3cret"
)


@many
@given(_secret, _secret, st.sampled_from(["http://", "https://", "ftp://", ""]))
def test_no_password_is_ever_shown(user: str, password: str, scheme: str) -> None:
    shown = display_url(f"{scheme}{user}:{password}@host.example/path?key={password}")
    assert shown is None or "s3cret" not in shown
