"""Both languages say the same things, every key is used, and unknown never looks like zero."""

from __future__ import annotations

import ast
import logging
import math
import re
import string
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import i18n
from bot.i18n import Translator, flatten, pick_locale, supported, texts

DYNAMIC_PREFIXES = {
    "settings.meaning.": "settings_docs: one per variable",
    "settings.default.": "settings_docs: where the default needs words",
    "store.": "StoreError.reason",
    "reading.": "the table of readings",
}
"""Keys put together at run time; those whose code is an f-string are found without this."""

ASKING = {"t", "_t", "has", "locale_str"}
KEY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
JAPANESE = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff66-\uff9f]")


def fields_of(text: str) -> list[str]:
    return sorted({name for _, name, _, _ in string.Formatter().parse(text) if name is not None})


def parity_faults(tables: Mapping[str, Mapping[str, str]]) -> list[str]:
    found = []
    for key in sorted(set().union(*tables.values())):
        missing = [locale for locale, table in tables.items() if key not in table]
        if missing:
            found.append(f"{key}: not in {missing}")
            continue
        said = {locale: table[key] for locale, table in tables.items()}
        wanted = {tuple(fields_of(text)) for text in said.values()}
        if len(wanted) > 1:
            found.append(f"{key}: different placeholders {sorted(wanted)}")
        for name in set().union(*wanted):
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                found.append(f"{key}: placeholder {{{name}}} is not a plain name")
        for locale, text in said.items():
            if not text and key != "duration.joint":
                found.append(f"{key}: empty in {locale}")
            if text != text.strip() and key not in ("duration.joint", "settings.example"):
                found.append(f"{key}: blanks around it in {locale}")
    return found


def sources(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    for folder in ("bot", "cogs"):
        for path in sorted((root / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text("utf-8"))


def asked_keys(tree: ast.Module) -> set[str]:
    """Literal keys given to `t(…)` and its like."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            if (
                name in ASKING
                and isinstance(first, ast.Constant)
                and isinstance(first.value, str)
                and KEY.fullmatch(first.value)
            ):
                found.add(first.value)
    return found


def mentioned(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Every text constant that may be a key, and every f-string head that may be a prefix."""
    constants, heads = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            constants.add(node.value)
        elif isinstance(node, ast.JoinedStr) and node.values:
            head = node.values[0]
            if isinstance(head, ast.Constant) and isinstance(head.value, str):
                heads.add(head.value)
    return constants, heads


def test_both_tables_say_the_same_things() -> None:
    assert not parity_faults({locale: texts(locale) for locale in supported})


@pytest.mark.parametrize(
    ("ja", "en"),
    [
        ({"a": "x"}, {}),
        ({"a": "{n}"}, {"a": "{m}"}),
        ({"a": ""}, {"a": "x"}),
        ({"a": "{x.y}"}, {"a": "{x.y}"}),
        ({"a": "{}"}, {"a": "{}"}),
        ({"a": "x "}, {"a": "x"}),
    ],
)
def test_a_difference_between_the_tables_is_found(ja: dict[str, str], en: dict[str, str]) -> None:
    assert parity_faults({"ja": ja, "en": en})


def test_every_key_asked_for_is_there(root: Path) -> None:
    known = texts("ja")
    missing = {
        f"{path.name}: {key}"
        for path, tree in sources(root)
        for key in asked_keys(tree)
        if key not in known
    }
    assert not missing


def test_every_key_is_used(root: Path) -> None:
    constants: set[str] = set()
    heads: set[str] = set()
    for _, tree in sources(root):
        more, begun = mentioned(tree)
        constants |= more
        heads |= {head for head in begun if re.fullmatch(r"[a-z][a-z0-9_]*\.[a-z0-9_.]*", head)}
    prefixes = tuple(heads | set(DYNAMIC_PREFIXES))
    unused = [key for key in texts("ja") if key not in constants and not key.startswith(prefixes)]
    assert not unused


def test_the_scan_sees_keys_asked_for_and_put_together() -> None:
    tree = ast.parse('t("a.b", x)\nself.tr.t("c.d")\nf"e.{x}"\nother("g.h")\nt(key)')
    assert asked_keys(tree) == {"a.b", "c.d"}
    assert "e." in mentioned(tree)[1] and "g.h" in mentioned(tree)[0]


def test_no_japanese_stands_in_code(root: Path) -> None:
    assert JAPANESE.search("状態") and JAPANESE.search("ｱ")
    found = [
        f"{path.name}:{number}"
        for path, _ in sources(root)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if JAPANESE.search(line)
    ]
    assert not found


def test_an_unknown_key_raises_in_tests_and_shows_itself_at_run_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    translator = Translator()
    with pytest.raises(i18n.TranslationError):
        translator.t("no.such.key")
    with pytest.raises(i18n.TranslationError):
        translator.t("duration.days")
    i18n.be_strict(False)
    try:
        with caplog.at_level(logging.ERROR):
            assert translator.t("no.such.key") == translator.t("no.such.key") == "no.such.key"
            assert translator.t("duration.days", "en") == "{n} d"
    finally:
        i18n.be_strict()
    assert [record.getMessage() for record in caplog.records].count(
        "locale key no.such.key: no such key"
    ) == 1


def test_an_unknown_locale_falls_back_to_the_default() -> None:
    assert Translator("en").t("value.unknown", "fr") == "unknown"
    assert Translator("ja").t("value.unknown") == texts("ja")["value.unknown"]


def test_a_value_may_hold_braces_and_any_name() -> None:
    said = Translator().t("settings.fault.slug", "en", value="{n}{0}{x.__class__}")
    assert "{n}{0}{x.__class__}" in said


@pytest.mark.parametrize(
    ("tag", "locale"),
    [
        ("ja", "ja"),
        ("ja-JP", "ja"),
        ("ja_JP", "ja"),
        ("JA", "ja"),
        ("en-US", "en"),
        ("fr", "en"),
        ("jam", "en"),
        ("zh-TW", "en"),
        ("", "ja"),
        (None, "ja"),
    ],
)
def test_a_person_sees_a_language_they_are_likely_to_read(tag: str | None, locale: str) -> None:
    assert pick_locale(tag) == locale


def test_without_a_language_the_default_is_used() -> None:
    assert pick_locale(None, "en") == "en"


@pytest.mark.parametrize(
    ("seconds", "ja", "en"),
    [
        (0, "0秒", "0 s"),
        (0.35, "350ミリ秒", "350 ms"),
        (0.0001, "1ミリ秒", "1 ms"),
        (0.9999, "999ミリ秒", "999 ms"),
        (59.9, "59秒", "59 s"),
        (125, "2分5秒", "2 min 5 s"),
        (3600, "1時間", "1 h"),
        (3605, "1時間", "1 h"),
        (3780, "1時間3分", "1 h 3 min"),
        (90061, "1日1時間", "1 d 1 h"),
        (-3, "0秒", "0 s"),
        (None, "不明", "unknown"),
        (math.nan, "不明", "unknown"),
        (math.inf, "不明", "unknown"),
    ],
)
def test_durations_name_their_two_largest_units(seconds: float | None, ja: str, en: str) -> None:
    assert Translator().format_duration(seconds, "ja") == ja
    assert Translator().format_duration(seconds, "en") == en


def test_numbers_percent_and_bytes() -> None:
    tr = Translator("en")
    assert tr.format_number(1234567.891, digits=2) == "1,234,567.89"
    assert tr.format_number(5.0, digits=2) == "5"
    assert tr.format_number(-0.001, digits=1) == "0"
    assert tr.format_number(100) == "100"
    assert tr.format_percent(83.25) == "83.2%"
    assert tr.format_percent(100.0) == "100%"
    assert tr.format_bytes(0) == "0 B"
    assert tr.format_bytes(1536) == "1.5 KB"
    assert tr.format_bytes(52.5 * 1024**2, unit="MB") == "52.5 MB"
    assert tr.format_bytes(3 * 1024**5) == "3,072 TB"


@given(st.sampled_from([None, math.nan, math.inf, -math.inf]), st.sampled_from(supported))
def test_what_is_unknown_never_looks_like_a_number(value: float | None, locale: str) -> None:
    tr = Translator()
    for said in (
        tr.format_number(value, locale),
        tr.format_percent(value, locale),
        tr.format_bytes(value, locale),
        tr.format_duration(value, locale),
    ):
        assert said == tr.unknown(locale) and not re.search(r"\d", said)


def test_a_table_with_anything_but_text_is_refused() -> None:
    assert flatten({"a": {"b": "x"}, "c": "y"}) == {"a.b": "x", "c": "y"}
    with pytest.raises(TypeError, match=r"a\.b"):
        flatten({"a": {"b": 1}})
