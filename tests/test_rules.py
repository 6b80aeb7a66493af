"""Rule text: what is understood, what is refused and how that is said; the built-in rules."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.bound import bind
from bot.core.rule import Comparison, Rule, RuleSet, Scope, Severity, fingerprint
from bot.core.rule_text import (
    RuleError,
    RuleFault,
    ValueRefused,
    load_layers,
    load_rules,
    parse_condition,
    parse_duration,
)
from bot.services.rules_file import KNOWN_METRICS

KNOWN = {"cpu_usage", "memory_usage", "disk_usage", "queue"}

BASE = """
[rules.HighCPU]
when = "cpu_usage > 80"
for = "5m"
clear = 75
severity = "warning"

[rules.Expiring]
when = "queue < 14"
clear = 15
escalate = "< 3 critical"
"""


@pytest.fixture
def builtin(root: Path) -> str:
    return (root / "bot" / "rules.toml").read_text(encoding="utf-8")


def laid_over(overlay: str, base: str = BASE) -> RuleSet:
    return load_rules(base, overlay, "rules.toml", KNOWN)


def rule_of(overlay: str, name: str = "HighCPU") -> Rule:
    rule = laid_over(overlay).get(name)
    assert rule is not None
    return rule


def faults_of(overlay: str, base: str = BASE) -> list[RuleFault]:
    with pytest.raises(RuleError) as refused:
        laid_over(overlay, base)
    return list(refused.value.faults)


def fault_of(overlay: str, base: str = BASE) -> RuleFault:
    (fault,) = faults_of(overlay, base)
    return fault


# --- built-in rules ----------------------------------------------------------------------------


def test_every_built_in_rule_is_as_promised(builtin: str) -> None:
    told = {
        rule.name: (
            f"{rule.metric} {rule.comparison.value} {rule.level:g}",
            rule.hold_s,
            rule.severity.value,
            rule.scope.value,
        )
        for rule in load_rules(builtin)
    }
    assert told == {
        "HighCPU": ("cpu_usage > 80", 300, "warning", "operator"),
        "CriticalCPU": ("cpu_usage > 95", 60, "critical", "operator"),
        "HighMemory": ("memory_usage > 85", 0, "warning", "operator"),
        "CriticalMemory": ("memory_usage > 95", 0, "critical", "operator"),
        "HighDisk": ("disk_usage > 90", 0, "warning", "operator"),
        "CriticalDisk": ("disk_usage > 95", 0, "critical", "operator"),
        "DiskNearlyFull": ("disk_free < 6.71089e+07", 0, "critical", "operator"),
        "HighErrorRate": ("command_error_rate > 5", 300, "warning", "operator"),
        "CriticalErrorRate": ("command_error_rate > 10", 60, "critical", "operator"),
        "SlowResponse": ("command_latency_p95 > 1000", 300, "warning", "operator"),
        "service_down": ("monitor_down >= 1", 0, "critical", "service"),
        "service_slow": ("monitor_slowness > 1", 300, "warning", "service"),
        "service_unknown": ("monitor_missing >= 1", 600, "info", "service"),
        "certificate_expiring": ("monitor_cert_days_remaining < 14", 0, "warning", "service"),
        "KumaUnreachable": ("kuma_staleness >= 1", 0, "critical", "service"),
        "DatabaseConnectionLost": ("remote_away > 30", 0, "critical", "operator"),
        "LocalStoreFailing": ("store_failing > 10", 0, "critical", "operator"),
        "StoreSetAside": ("store_set_aside >= 1", 0, "critical", "operator"),
        "DiscordDegraded": ("discord_degradation >= 1", 0, "warning", "operator"),
        "EventLoopLag": ("loop_lag_p99 > 250", 60, "warning", "operator"),
        "TaskDead": ("task_lateness >= 3", 0, "critical", "operator"),
        "SecurityAuthFailures": ("web_auth_failures > 10", 0, "warning", "operator"),
    }


def test_built_in_rules_watch_only_what_is_read(builtin: str) -> None:
    assert load_rules(builtin, known_metrics=KNOWN_METRICS).metrics <= set(KNOWN_METRICS)


def test_every_built_in_rule_has_hysteresis_and_none_is_switched_off(builtin: str) -> None:
    for rule in load_rules(builtin):
        assert rule.clear_level != rule.level, rule.name
        assert not rule.comparison.holds(rule.clear_level, rule.level), rule.name
        assert rule.enabled and rule.origin == "built-in", rule.name


def test_a_new_outage_is_never_late_and_only_a_true_up_ends_one(builtin: str) -> None:
    rules = {rule.name: rule for rule in load_rules(builtin)}
    down = rules["service_down"]
    assert (down.cooldown_s, down.clear_level) == (0, 0.25)
    assert all(rule.cooldown_s == 300 for rule in rules.values() if rule is not down)
    assert [rule.name for rule in rules.values() if rule.silent] == ["service_unknown"]
    expiring = rules["certificate_expiring"]
    assert (expiring.escalate_level, expiring.escalate_severity) == (3, Severity.CRITICAL)


def test_a_disabled_rule_stays_in_the_set_but_is_not_bound(builtin: str) -> None:
    rules = load_rules(builtin, "[rules.HighCPU]\nenabled = false")
    high = rules.get("HighCPU")
    assert high is not None and not high.enabled
    bound = bind(rules)
    assert "HighCPU" not in bound.by_name and "CriticalCPU" in bound.by_name
    assert len(rules) == len(load_rules(builtin))


# --- overlays ----------------------------------------------------------------------------------


def test_an_overlay_changes_only_the_keys_it_names() -> None:
    before, after = rule_of(""), rule_of('[rules.HighCPU]\nfor = "10m"')
    assert after == replace(before, hold_s=600.0, origin="rules.toml")


def test_an_overlay_adds_rules_after_the_built_in_ones() -> None:
    rules = laid_over('[rules.Mine]\nwhen = "queue >= 5"\nscope = "service"\nsilent = true')
    assert [rule.name for rule in rules] == ["HighCPU", "Expiring", "Mine"]
    assert rules.get("Mine") == Rule(
        name="Mine",
        metric="queue",
        comparison=Comparison.GE,
        level=5.0,
        clear_level=5.0,
        severity=Severity.WARNING,
        scope=Scope.SERVICE,
        silent=True,
        origin="rules.toml",
    )


def test_every_key_arrives_where_it_belongs() -> None:
    rule = rule_of(
        """
        [rules.HighCPU]
        when = "memory_usage <= 1.5e1"
        for = "1h30m"
        clear = 20
        clear_for = 45
        severity = "INFO"
        cooldown = "2d"
        no_data = "1.5s"
        scope = "service"
        category = "mine"
        escalate_at = 5
        escalate_to = "warning"
        follow_status = false
        silent = true
        enabled = false
        """
    )
    assert rule == Rule(
        name="HighCPU",
        metric="memory_usage",
        comparison=Comparison.LE,
        level=15.0,
        clear_level=20.0,
        severity=Severity.INFO,
        scope=Scope.SERVICE,
        category="mine",
        hold_s=5400.0,
        clear_hold_s=45.0,
        cooldown_s=172_800.0,
        no_data_s=1.5,
        escalate_level=5.0,
        escalate_severity=Severity.WARNING,
        silent=True,
        enabled=False,
        origin="rules.toml",
        follow_status=False,
    )
    assert all(getattr(rule, f.name) != f.default for f in fields(Rule))


def test_a_new_level_beyond_the_inherited_clear_level_is_its_own_clear_level() -> None:
    assert rule_of('[rules.HighCPU]\nwhen = "cpu_usage > 90"').clear_level == 75
    assert rule_of('[rules.HighCPU]\nwhen = "cpu_usage > 70"').clear_level == 70


def test_a_new_metric_or_direction_leaves_inherited_levels_behind() -> None:
    assert rule_of('[rules.HighCPU]\nwhen = "memory_usage > 90"').clear_level == 90
    turned = rule_of('[rules.Expiring]\nwhen = "queue > 1"', "Expiring")
    assert (turned.clear_level, turned.escalate_level, turned.escalate_severity) == (1, None, None)


def test_a_new_level_that_overtakes_the_escalation_is_as_bad_as_it_would_have_become() -> None:
    overtaken = rule_of('[rules.Expiring]\nwhen = "queue < 2"', "Expiring")
    assert (overtaken.severity, overtaken.escalate_level) == (Severity.CRITICAL, None)
    said = rule_of('[rules.Expiring]\nwhen = "queue < 2"\nseverity = "info"', "Expiring")
    assert (said.severity, said.escalate_level) == (Severity.INFO, None)


def test_an_overlay_can_change_or_take_away_an_escalation() -> None:
    moved = rule_of("[rules.Expiring]\nescalate_at = 5", "Expiring")
    assert (moved.escalate_level, moved.escalate_severity) == (5, Severity.CRITICAL)
    without = rule_of("[rules.Expiring]\nescalate = false", "Expiring")
    assert (without.escalate_level, without.escalate_severity) == (None, None)
    pointless = rule_of('[rules.Expiring]\nseverity = "critical"', "Expiring")
    assert (pointless.severity, pointless.escalate_level) == (Severity.CRITICAL, None)


def test_layers_are_laid_over_one_another_in_order() -> None:
    rules = load_layers(
        [
            ("built-in", BASE),
            ("rules.toml", "[rules.HighCPU]\nfor = 10\nclear = 70"),
            ("chat", "[rules.HighCPU]\nfor = 20"),
        ],
        KNOWN,
    )
    rule = rules.get("HighCPU")
    assert rule is not None
    assert (rule.hold_s, rule.clear_level, rule.origin) == (20, 70, "chat")


def test_an_empty_overlay_and_a_byte_order_mark_are_harmless() -> None:
    assert laid_over("") == laid_over("\ufeff# nothing\r\n") == load_rules(BASE)


# --- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "key", "reason", "words"),
    [
        ("when = 5", "when", "condition", "5"),
        ('when = "cpu_usage"', "when", "condition", "cpu_usage"),
        ('when = ""', "when", "condition", ""),
        ('when = "> 80"', "when", "condition", ""),
        ('when = "cpu_usage == 80"', "when", "comparison", "=="),
        ('when = "cpu_usage => 80"', "when", "comparison", "=>"),
        ('when = "cpu_usage > 80%"', "when", "level", "80%"),
        ('when = "cpu_usage > memory_usage"', "when", "level", "memory_usage"),
        ('when = "cpu_usage > nan"', "when", "not_finite", "nan"),
        ('when = "cpu_usage > 1e999"', "when", "not_finite", "inf"),
        ('when = "cpu_usag > 80"', "when", "unknown_metric", 'did you mean "cpu_usage"?'),
        ('when = "CPU_Usage > 80"', "when", "unknown_metric", 'did you mean "cpu_usage"?'),
        ("clear = 81", "clear", "wrong_side", "at or below the level 80"),
        ('clear = "75"', "clear", "level", '"75"'),
        ("clear = true", "clear", "level", "true"),
        ("clear = inf", "clear", "not_finite", "inf"),
        (f"clear = 1{'0' * 400}", "clear", "not_finite", "more than 30 digits"),
        (f"clear = 0x1{'0' * 9000}", "clear", "not_finite", "more than 30 digits"),
        ('for = "5 minutes"', "for", "duration", "5 minutes"),
        ('for = ""', "for", "duration", ""),
        ('for = "90"', "for", "duration", "90"),
        ('for = "5m1h"', "for", "duration", "5m1h"),
        ('for = "-5m"', "for", "negative", "-5m"),
        ("for = -1", "for", "negative", "-1"),
        ("for = nan", "for", "not_finite", "nan"),
        ("for = false", "for", "duration", "false"),
        ("for = 12:30:00", "for", "duration", "12:30"),
        ('for = "400d"', "for", "too_long", "400d"),
        ("clear_for = -1", "clear_for", "negative", "-1"),
        ("cooldown = -1", "cooldown", "negative", "-1"),
        ("no_data = -1", "no_data", "negative", "-1"),
        ('severity = "HIGH"', "severity", "severity", "info, warning, critical"),
        ("severity = 1", "severity", "severity", "1"),
        ('scope = "everyone"', "scope", "scope", "operator, service"),
        ('category = ""', "category", "category", ""),
        ('silent = "yes"', "silent", "flag", "yes"),
        ("enabled = 0", "enabled", "flag", "0"),
        ("serverity = 1", "serverity", "unknown_key", 'did you mean "severity"?'),
        ("zzz = 1", "zzz", "unknown_key", "known are when, for"),
        ('escalate = "95 critical"', "escalate", "escalation", "95 critical"),
        ("escalate = true", "escalate", "escalation", "true"),
        ('escalate = "< 95 critical"', "escalate", "comparison", "must be >"),
        ('escalate = "> x critical"', "escalate", "level", "x"),
        ('escalate = "> 95 awful"', "escalate", "severity", "awful"),
        ('escalate = "> 80 critical"', "escalate", "wrong_side", "beyond the level 80"),
        ('escalate = "> 95 warning"', "escalate", "severity", "not worse"),
        ("escalate_at = 70", "escalate_at", "wrong_side", "beyond the level 80"),
        ('escalate_to = "critical"', "escalate_to", "missing", "escalate_at"),
        ('escalate = "> 9 info"\nescalate_at = 9', "escalate", "conflict", "not both"),
    ],
)
def test_a_fault_says_where_what_and_how_instead(
    line: str, key: str, reason: str, words: str
) -> None:
    overlay = f"# mine\n\n[rules.HighCPU]\n{line}\n"
    fault = fault_of(overlay)
    assert (fault.source, fault.rule, fault.key) == ("rules.toml", "HighCPU", key)
    assert (fault.reason, fault.line) == (reason, 4)
    assert words in fault.problem
    assert f"rules.toml, line 4: HighCPU.{key}: " in str(fault)
    if reason not in ("unknown_key", "conflict"):
        assert fault.example or reason == "severity"


def test_the_example_of_a_fault_is_accepted() -> None:
    tried = 0
    for line in (
        "clear = 81",
        'escalate = "< 95 critical"',
        "escalate_at = 70",
        'for = "soon"',
        'severity = "bad"',
        'scope = "all"',
        'silent = "no"',
        'when = "cpu"',
        'category = ""',
    ):
        example = fault_of(f"[rules.HighCPU]\n{line}").example
        laid_over(f"[rules.HighCPU]\n{example}")
        tried += 1
    assert tried == 9


def test_all_faults_of_all_texts_are_told_at_once_in_their_order() -> None:
    base = BASE + '\n[rules.Bad]\nwhen = "queue >> 1"\n'
    overlay = """
[rules.HighCPU]
for = "x"
clear = 99
severity = "bad"
[rules.New]
for = 1
[other]
a = 1
[rules.HihgCPU]
silent = true
[rules."two words"]
when = "queue > 1"
[rules.Expiring]
escalate = "> 3 critical"
wen = 1
"""
    told = [(f.source, f.line, f.rule, f.key, f.reason) for f in faults_of(overlay, base)]
    assert told == [
        ("built-in", 14, "Bad", "when", "comparison"),
        ("rules.toml", 3, "HighCPU", "for", "duration"),
        ("rules.toml", 4, "HighCPU", "clear", "wrong_side"),
        ("rules.toml", 5, "HighCPU", "severity", "severity"),
        ("rules.toml", 6, "New", "when", "missing"),
        ("rules.toml", 8, "", "other", "unknown_key"),
        ("rules.toml", 10, "HihgCPU", "when", "missing"),
        ("rules.toml", 12, "two words", "", "name"),
        ("rules.toml", 15, "Expiring", "escalate", "comparison"),
        ("rules.toml", 16, "Expiring", "wen", "unknown_key"),
    ]
    hint = faults_of(overlay, base)[6].problem
    assert 'did you mean "HighCPU"?' in hint


def test_a_syntax_error_tells_line_and_column_and_other_texts_are_still_checked() -> None:
    base = BASE + '\n[rules.Bad]\nwhen = "queue >> 1"\n'
    first, second = faults_of('[rules.HighCPU]\nfor = "5m\n', base)
    assert first.source == "built-in"
    assert (second.reason, second.line, second.column) == ("syntax", 2, 10)
    assert str(second).startswith("rules.toml, line 2, column 10: not valid TOML: ")


@pytest.mark.parametrize(
    ("overlay", "line", "column"),
    [
        ("[rules.HighCPU]\n\nfor 5\n", 3, 5),
        ("[rules.HighCPU]\nfor = ", 2, 7),
        ('[rules.HighCPU]\ncategory = """\n\nnever closed', 4, 13),
        ("[rules.HighCPU]\nfor = 1\nfor = 2\n", 3, 8),
        ("[rules.HighCPU]\n[rules.HighCPU]\n", 2, 15),
    ],
)
def test_syntax_errors_are_found_where_they_are(overlay: str, line: int, column: int) -> None:
    fault = fault_of(overlay)
    assert (fault.reason, fault.line, fault.column) == ("syntax", line, column)


def test_texts_beyond_what_python_reads_are_refused_too() -> None:
    assert fault_of(f"[rules.HighCPU]\nclear = 1{'0' * 9000}").reason == "syntax"
    deep = "a = " + "[" * 9000 + "]" * 9000
    assert fault_of(deep).problem == "nested too deeply"


@pytest.mark.parametrize(
    ("overlay", "line"),
    [
        ('rules.HighCPU.for = "x"', 1),
        ('\nrules = { HighCPU = { for = "x" } }', 2),
        ('[rules]\nHighCPU.clear = 70\nHighCPU.for = "x"', 3),
        ('[rules."HighCPU"]\n"for" = "x"', 2),
        ("[ rules . 'HighCPU' ] # hm\n  'for'='x'", 2),
        ('[rules.HighCPU]\ncategory = """\nfor = 1\n"""\nfor = "x"', 5),
        ('[rules.HighCPU]\r\n\r\nfor = "x"\r\n', 3),
    ],
)
def test_lines_are_found_however_the_key_is_written(overlay: str, line: int) -> None:
    by_key = {fault.key: fault for fault in faults_of(overlay)}
    assert by_key["for"].line == line


@pytest.mark.parametrize("overlay", ["rules = 1", "[[rules]]", "[rules]\nHighCPU = 1"])
def test_what_is_not_a_table_is_refused(overlay: str) -> None:
    assert fault_of(overlay).reason == "not_a_table"


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "名前", "a.b", "x\\n"])
def test_odd_rule_names_are_refused(name: str) -> None:
    assert fault_of(f'[rules."{name}"]\nwhen = "queue > 1"').reason == "name"


@pytest.mark.parametrize("name", ["a", "A-1_b", "9" * 64])
def test_plain_rule_names_are_fine(name: str) -> None:
    assert rule_of(f'[rules.{name}]\nwhen = "queue > 1"', name).name == name


def test_a_wrong_side_that_comes_from_different_texts_is_no_fault() -> None:
    assert fault_of("[rules.HighCPU]\nclear = 90").key == "clear"
    rule = rule_of('[rules.HighCPU]\nwhen = "cpu_usage > 95"\nclear = 90')
    assert rule.clear_level == 90


def test_without_known_metrics_any_name_will_do() -> None:
    rules = load_rules("", '[rules.x]\nwhen = "recipe.cache/hit-rate:1m < 0.5"')
    assert rules.metrics == {"recipe.cache/hit-rate:1m"}


@given(st.text(max_size=200))
def test_any_text_is_rules_or_a_rule_error(text: str) -> None:
    try:
        load_rules(BASE, text, known_metrics=KNOWN)
    except RuleError as error:
        assert error.faults


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["when", "for", "clear", "severity", "escalate", "escalate_at", "escalate_to", "x"]
            ),
            st.one_of(
                st.sampled_from(
                    [
                        '"cpu_usage > 80"',
                        '"queue < 3"',
                        '"> 90 critical"',
                        '"critical"',
                        '"warning"',
                        '"5m"',
                        "false",
                    ]
                ),
                st.integers().map(str),
                st.floats().map(str),
            ),
        ),
        unique_by=lambda pair: pair[0],
    ),
    st.sampled_from(["HighCPU", "Expiring", "New"]),
)
def test_any_table_gives_sound_rules_or_faults_with_lines(
    pairs: list[tuple[str, str]], name: str
) -> None:
    overlay = f"[rules.{name}]\n" + "\n".join(f"{key} = {value}" for key, value in pairs)
    try:
        rules = laid_over(overlay)
    except RuleError as error:
        assert all(fault.line is not None for fault in error.faults)
        return
    for rule in rules:
        is_beyond = rule.comparison.holds
        assert rule.clear_level == rule.level or not is_beyond(rule.clear_level, rule.level)
        assert (rule.escalate_level is None) is (rule.escalate_severity is None)
        if rule.escalate_level is not None and rule.escalate_severity is not None:
            assert is_beyond(rule.escalate_level, rule.level)
            assert rule.escalate_severity.rank > rule.severity.rank


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1d2h3m4.5s", 93_784.5),
        ("0s", 0),
        ("1H 30M", 5400),
        ("５m", 300),
        (0, 0),
        (90, 90),
        (1.5, 1.5),
    ],
)
def test_durations_are_understood(value: Any, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "text", ["cpu_usage>80", " cpu_usage  >  80 ", "cpu_usage ＞ ８０", "cpu_usage > 8e1"]
)
def test_conditions_are_understood_however_they_are_typed(text: str) -> None:
    assert parse_condition(text) == ("cpu_usage", Comparison.GT, 80.0)


def test_a_refused_value_can_be_told_to_people() -> None:
    with pytest.raises(ValueRefused, match="negative") as refused:
        parse_duration(-5)
    assert refused.value.reason == "negative"


# --- fingerprint -------------------------------------------------------------------------------

PLAIN = Rule("r", "m", Comparison.GT, 80.0, 75.0, Severity.WARNING)


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "n"},
        {"comparison": Comparison.GE},
        {"level": 81.0},
        {"clear_level": 74.0},
        {"hold_s": 1.0},
        {"clear_hold_s": 1.0},
        {"cooldown_s": 1.0},
        {"no_data_s": 1.0},
        {"escalate_level": 90.0},
        {"escalate_severity": Severity.CRITICAL},
        {"severity": Severity.INFO},
        {"scope": Scope.SERVICE},
        {"follow_status": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_decides_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(replace(PLAIN, **change)) != fingerprint(PLAIN)


def test_what_does_not_decide_leaves_the_fingerprint() -> None:
    other = replace(
        PLAIN, name="q", origin="chat", enabled=False, silent=True, category="x", level=80
    )
    assert fingerprint(other) == fingerprint(PLAIN)
    assert fingerprint(replace(PLAIN, level=-0.0)) == fingerprint(replace(PLAIN, level=0))


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    assert fingerprint(PLAIN) == "ca6d5b22ce64a703"
