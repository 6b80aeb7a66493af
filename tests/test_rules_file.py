"""The operator's rules: laid over the built-in ones, read again on change, never half applied."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bot.core.rule import Rule
from bot.services.rules_file import RulesFile


class Used:
    """What the rules file handed on."""

    def __init__(self) -> None:
        self.sets: list[dict[str, Rule]] = []

    async def __call__(self, rules: Iterable[Rule]) -> None:
        self.sets.append({rule.name: rule for rule in rules})


async def test_without_a_file_the_built_in_rules_hold(tmp_path: Path) -> None:
    rules = await RulesFile(tmp_path / "rules.toml", Used()).load()
    cpu = rules.get("HighCPU")
    assert cpu is not None
    assert (cpu.level, cpu.hold_s) == (80, 300)
    assert rules.get("service_down") is not None


async def test_a_changed_file_is_taken_over_and_an_unchanged_one_left_alone(tmp_path: Path) -> None:
    used, path = Used(), tmp_path / "rules.toml"
    file = RulesFile(path, used)
    await file.load()
    await file.check()
    assert used.sets == []
    path.write_text('[rules.HighCPU]\nwhen = "cpu_usage > 90"\n')
    await file.check()
    await file.check()
    assert [rules["HighCPU"].level for rules in used.sets] == [90]
    path.unlink()
    await file.check()
    assert used.sets[-1]["HighCPU"].level == 80


async def test_a_bad_file_keeps_the_old_rules_and_says_why_once(
    tmp_path: Path, caplog: object
) -> None:
    used, path = Used(), tmp_path / "rules.toml"
    path.write_text('[rules.HighCPU]\nwhen = "cpu_usage > 90"\n')
    file = RulesFile(path, used)
    assert (await file.load()).get("HighCPU").level == 90  # type: ignore[union-attr]
    path.write_text('[rules.HighCPU]\nwhen = "cpu_usge > 95"\nfor = "a while"\n')
    await file.check()
    await file.check()
    assert used.sets == []
    assert file.problem is not None
    for word in ("cpu_usge", "cpu_usage", "line 2", "line 3"):
        assert word in file.problem
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1  # type: ignore[attr-defined]
    path.write_text('[rules.HighCPU]\nwhen = "cpu_usage > 95"\n')
    await file.check()
    assert used.sets[-1]["HighCPU"].level == 95
    assert file.problem is None


async def test_a_file_that_is_bad_from_the_start_leaves_the_built_in_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("this is not TOML")
    file = RulesFile(path, Used())
    assert (await file.load()).get("HighCPU") is not None
    assert file.problem is not None
