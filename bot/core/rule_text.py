"""TOML → checked rules: all of them, or every fault at once and nothing.

Texts are laid over one another, the built-in one first:

1. A table `[rules.NAME]` in a later text changes an earlier rule key by key, or adds a rule.
2. A new `when` that turns to another metric or direction leaves the earlier `clear` and
   `escalate` behind; they spoke of something else.
3. A new `when` whose level overtakes an earlier `clear` makes the level itself the clear level;
   one that overtakes an earlier `escalate` makes the rule as severe as it would have become.
   What the *same* text says must fit together, or it is a fault.
4. `enabled = false` keeps a rule in the set, but nothing evaluates it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bot.core.rule import Rule, RuleSet, Scope, Severity
from bot.core.rule_values import (
    Condition,
    ValueRefused,
    category_of,
    condition_or_none,
    did_you_mean,
    flag_of,
    level_of,
    parse_condition,
    parse_duration,
    parse_escalation,
    scope_of,
    severity_of,
    shown,
)
from bot.core.toml_lines import key_lines, syntax_place

BUILT_IN = "built-in"

_EXAMPLES = {
    "when": 'when = "cpu_usage > 80"',
    "for": 'for = "5m"',
    "clear": "clear = 75",
    "clear_for": 'clear_for = "1m"',
    "severity": 'severity = "warning"',
    "cooldown": 'cooldown = "5m"',
    "no_data": 'no_data = "2m"',
    "scope": 'scope = "operator"',
    "category": 'category = "system"',
    "escalate": 'escalate = "> 95 critical"',
    "escalate_at": "escalate_at = 95",
    "escalate_to": 'escalate_to = "critical"',
    "follow_status": "follow_status = false",
    "silent": "silent = true",
    "enabled": "enabled = false",
}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class RuleFault:
    """One thing wrong. `reason` is a short key for programs, `problem` says it in words.

    `source` names the text; `line` and `column` count from 1, None where nothing can be pointed
    at. `rule` and `key` are "" when the text as a whole is at fault.
    """

    source: str
    rule: str
    key: str
    reason: str
    problem: str
    example: str = ""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        where = self.source
        if self.line is not None:
            where += f", line {self.line}"
        if self.column is not None:
            where += f", column {self.column}"
        what = ".".join(part for part in (self.rule, self.key) if part)
        text = f"{where}: {what}: {self.problem}" if what else f"{where}: {self.problem}"
        return f"{text}; for example: {self.example}" if self.example else text


class RuleError(Exception):
    """The texts were refused as a whole. `faults` is complete, in the order of the texts."""

    def __init__(self, faults: Sequence[RuleFault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


def load_rules(
    builtin_text: str,
    overlay_text: str | None = None,
    overlay_name: str = "rules.toml",
    known_metrics: Mapping[str, object] | Collection[str] | None = None,
) -> RuleSet:
    """The built-in rules with one overlay. Raises RuleError with every fault of both texts.

    `known_metrics` None accepts any metric name.
    """
    layers = [(BUILT_IN, builtin_text)]
    if overlay_text is not None:
        layers.append((overlay_name, overlay_text))
    return load_layers(layers, known_metrics)


def load_layers(
    layers: Sequence[tuple[str, str]],
    known_metrics: Mapping[str, object] | Collection[str] | None = None,
) -> RuleSet:
    """As `load_rules`, for any number of (name, text), each laid over those before it."""
    return _Loading(known_metrics).run([_Layer.read(*layer) for layer in layers])


class _Layer(NamedTuple):
    """One text, read. `fault` says why it could not be; `lines` knows where its keys are."""

    name: str
    table: Mapping[str, Any]
    lines: Mapping[tuple[str, ...], int]
    fault: RuleFault | None = None

    @classmethod
    def read(cls, name: str, text: str) -> _Layer:
        text = text.removeprefix("\ufeff")
        try:
            return cls(name, tomllib.loads(text), key_lines(text))
        except ValueError as error:
            # Mostly a TOMLDecodeError; a number of thousands of digits is a plain ValueError.
            place = syntax_place(text, str(error))
            problem = f"not valid TOML: {place.problem}"
            fault = RuleFault(name, "", "", "syntax", problem, line=place.line, column=place.column)
            return cls(name, {}, {}, fault)
        except RecursionError:
            return cls(name, {}, {}, RuleFault(name, "", "", "syntax", "nested too deeply"))

    def line(self, *path: str) -> int | None:
        """Where `path` is written, or the nearest thing around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


class _Given(NamedTuple):
    """A value, the text that gave it and the key it was written under."""

    value: Any
    layer: int
    key: str


class _Escalation(NamedTuple):
    """A rule's severity, and at what level it becomes which."""

    severity: Severity
    at: float | None = None
    to: Severity | None = None


@dataclass(slots=True)
class _Draft:
    """A rule while texts are still being laid over it."""

    name: str
    layer: int
    given: dict[str, _Given] = field(default_factory=dict)

    @property
    def when(self) -> object:
        return self.given["when"].value if "when" in self.given else None

    def layer_of(self, key: str) -> int:
        """The text that `key` comes from; -1 for a default."""
        return self.given[key].layer if key in self.given else -1


class _Loading:
    """One run of `load_layers`: collects drafts and faults, then answers or refuses."""

    def __init__(self, known_metrics: Mapping[str, object] | Collection[str] | None) -> None:
        self._known_metrics = known_metrics
        self._layers: list[_Layer] = []
        self._drafts: dict[str, _Draft] = {}
        self._faults: list[tuple[int, int, RuleFault]] = []

    def run(self, layers: list[_Layer]) -> RuleSet:
        self._layers = layers
        for index, layer in enumerate(layers):
            if layer.fault is not None:
                self._faults.append((index, layer.fault.line or 0, layer.fault))
            self._read_layer(index, layer)
        rules = [self._finish(draft) for draft in self._drafts.values()]
        if self._faults:
            self._faults.sort(key=lambda placed: placed[:2])
            raise RuleError([fault for _, _, fault in self._faults])
        return RuleSet(tuple(rule for rule in rules if rule is not None))

    def _fault(
        self, layer: int, rule: str, key: str, reason: str, problem: str, example: str = ""
    ) -> None:
        path = ("rules", rule, key) if rule else (key,)
        line = self._layers[layer].line(*path)
        name = self._layers[layer].name
        fault = RuleFault(name, rule, key, reason, problem, example, line)
        self._faults.append((layer, line or 0, fault))

    def _read_layer(self, index: int, layer: _Layer) -> None:
        for key in layer.table:
            if key != "rules":
                hint = did_you_mean(key, ["rules"])
                problem = f"unknown key {shown(key)}{hint}"
                self._fault(index, "", key, "unknown_key", problem, "[rules.HighCPU]")
        tables = layer.table.get("rules", {})
        if not isinstance(tables, dict):
            self._fault(index, "", "rules", "not_a_table", "is not a table", "[rules.HighCPU]")
            return
        for name, table in tables.items():
            if not isinstance(table, dict):
                self._fault(index, name, "", "not_a_table", "is not a table", f"[rules.{name}]")
            elif not _NAME.fullmatch(name):
                problem = f"the name {shown(name)} is not 1 to 64 of A-Z a-z 0-9 _ -"
                self._fault(index, name, "", "name", problem, "[rules.HighCPU]")
            else:
                self._lay_over(index, name, table)

    def _lay_over(self, index: int, name: str, table: Mapping[str, Any]) -> None:
        draft = self._drafts.get(name)
        if draft is None:
            if "when" not in table:
                hint = did_you_mean(name, self._drafts)
                problem = f"there is no such rule yet, and a new one needs a condition{hint}"
                self._fault(index, name, "when", "missing", problem, _EXAMPLES["when"])
            draft = self._drafts[name] = _Draft(name, index)
        draft.layer = index
        if "when" in table and "when" in draft.given:
            self._leave_behind(draft, table["when"])
        if "escalate" in table:
            self._take_escalation(index, draft, table)
        for key, value in table.items():
            if key not in _EXAMPLES:
                hint = did_you_mean(key, _EXAMPLES) or f"; known are {', '.join(_EXAMPLES)}"
                self._fault(index, name, key, "unknown_key", f"unknown key{hint}")
            elif "escalate" not in table or not key.startswith("escalate"):
                draft.given[key] = _Given(value, index, key)

    @staticmethod
    def _leave_behind(draft: _Draft, when: object) -> None:
        """Drop levels that spoke of another metric or direction."""
        before, after = condition_or_none(draft.when), condition_or_none(when)
        if before is None or after is None:
            return
        same_metric = before.metric == after.metric
        if not same_metric or before.comparison.is_upward != after.comparison.is_upward:
            for key in ("clear", "escalate_at", "escalate_to"):
                draft.given.pop(key, None)

    def _take_escalation(self, index: int, draft: _Draft, table: Mapping[str, Any]) -> None:
        """`escalate` is short for `escalate_at` and `escalate_to`, checked for its comparison."""
        value = table["escalate"]
        if "escalate_at" in table or "escalate_to" in table:
            problem = "say either this or escalate_at and escalate_to, not both"
            self._fault(index, draft.name, "escalate", "conflict", problem)
            return
        draft.given.pop("escalate_at", None)
        draft.given.pop("escalate_to", None)
        if value is False:
            return
        condition = condition_or_none(table.get("when") or draft.when)
        try:
            level, severity = parse_escalation(value, condition)
        except ValueRefused as refused:
            example = _EXAMPLES["escalate"]
            if condition is not None:
                further = _beyond(condition, 0.1)
                example = f'escalate = "{condition.comparison.value} {further:g} critical"'
            self._fault(index, draft.name, "escalate", refused.reason, str(refused), example)
            return
        draft.given["escalate_at"] = _Given(level, index, "escalate")
        draft.given["escalate_to"] = _Given(severity, index, "escalate")

    def _finish(self, draft: _Draft) -> Rule | None:
        """The rule, or None after noting everything that is wrong with it."""
        faults_before = len(self._faults)
        condition = self._value(draft, "when", parse_condition, None)
        severity = self._value(draft, "severity", severity_of, Severity.WARNING)
        clear = self._value(draft, "clear", level_of, None)
        fields: dict[str, Any] = {
            "scope": self._value(draft, "scope", scope_of, Scope.OPERATOR),
            "category": self._value(draft, "category", category_of, "system"),
            "hold_s": self._value(draft, "for", parse_duration, 0.0),
            "clear_hold_s": self._value(draft, "clear_for", parse_duration, 0.0),
            "cooldown_s": self._value(draft, "cooldown", parse_duration, 300.0),
            "no_data_s": self._value(draft, "no_data", parse_duration, 120.0),
            "follow_status": self._value(draft, "follow_status", flag_of, True),
            "silent": self._value(draft, "silent", flag_of, False),
            "enabled": self._value(draft, "enabled", flag_of, True),
        }
        escalation = self._escalation(draft, condition, severity)
        if condition is None:
            return None
        self._check_metric(draft, condition.metric)
        clear_level = self._clear_level(draft, condition, clear)
        if len(self._faults) > faults_before:
            return None
        return Rule(
            name=draft.name,
            metric=condition.metric,
            comparison=condition.comparison,
            level=condition.level,
            clear_level=clear_level,
            severity=escalation.severity,
            escalate_level=escalation.at,
            escalate_severity=escalation.to,
            origin=self._layers[draft.layer].name,
            **fields,
        )

    def _value(self, draft: _Draft, key: str, parse: Any, default: Any) -> Any:
        if key not in draft.given:
            return default
        given = draft.given[key]
        try:
            return parse(given.value)
        except ValueRefused as refused:
            example = _EXAMPLES[given.key]
            self._fault(given.layer, draft.name, given.key, refused.reason, str(refused), example)
            return default

    def _check_metric(self, draft: _Draft, metric: str) -> None:
        if self._known_metrics is None or metric in self._known_metrics:
            return
        problem = f"unknown metric {shown(metric)}{did_you_mean(metric, self._known_metrics)}"
        layer = draft.given["when"].layer
        self._fault(layer, draft.name, "when", "unknown_metric", problem, _EXAMPLES["when"])

    def _clear_level(self, draft: _Draft, condition: Condition, clear: float | None) -> float:
        """Where it clears; a level that a firing value may already be clear of is refused."""
        if clear is None:
            return condition.level
        is_upward = condition.comparison.is_upward
        if clear <= condition.level if is_upward else clear >= condition.level:
            return clear
        layer = draft.layer_of("clear")
        if layer >= draft.layer_of("when"):
            side = "at or below" if is_upward else "at or above"
            problem = f"{clear:g} must be {side} the level {condition.level:g}"
            example = f"clear = {_beyond(condition, -0.05):g}"
            self._fault(layer, draft.name, "clear", "wrong_side", problem, example)
        return condition.level

    def _escalation(
        self, draft: _Draft, condition: Condition | None, severity: Severity
    ) -> _Escalation:
        """Severity and escalation as they stand in the end."""
        if "escalate_at" not in draft.given:
            if "escalate_to" in draft.given:
                problem, example = "needs escalate_at too", _EXAMPLES["escalate_at"]
                layer = draft.layer_of("escalate_to")
                self._fault(layer, draft.name, "escalate_to", "missing", problem, example)
            return _Escalation(severity)
        at = self._value(draft, "escalate_at", level_of, None)
        to = self._value(draft, "escalate_to", severity_of, Severity.CRITICAL)
        if at is None or condition is None:
            return _Escalation(severity)
        given = draft.given["escalate_at"]
        if to.rank <= severity.rank:
            return self._pointless_escalation(draft, severity, to)
        is_upward = condition.comparison.is_upward
        if at > condition.level if is_upward else at < condition.level:
            return _Escalation(severity, at, to)
        if given.layer < draft.layer_of("when"):
            is_newly_said = draft.layer_of("severity") >= draft.layer_of("when")
            return _Escalation(severity if is_newly_said else to)
        problem = f"{at:g} must lie beyond the level {condition.level:g}"
        further = _beyond(condition, 0.1)
        example = f"escalate_at = {further:g}"
        if given.key == "escalate":
            example = f'escalate = "{condition.comparison.value} {further:g} {to.value}"'
        self._fault(given.layer, draft.name, given.key, "wrong_side", problem, example)
        return _Escalation(severity)

    def _pointless_escalation(self, draft: _Draft, severity: Severity, to: Severity) -> _Escalation:
        """Escalating to what it already is: a fault, unless a later text made it so."""
        given = draft.given.get("escalate_to", draft.given["escalate_at"])
        if given.layer >= draft.layer_of("severity"):
            problem = f"{to.value} is not worse than the rule's own {severity.value}"
            self._fault(given.layer, draft.name, given.key, "severity", problem)
        return _Escalation(severity)


def _beyond(condition: Condition, share: float) -> float:
    """A level a little worse than the condition's (better for a negative share)."""
    step = max(abs(condition.level), 1.0) * share
    return condition.level + (step if condition.comparison.is_upward else -step)
