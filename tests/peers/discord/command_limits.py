"""What an application command may be, refused with 50035 otherwise.

From Discord's application command page: names of chat commands and options match
^[-_'\\p{L}\\p{N}\\p{sc=Deva}\\p{sc=Thai}]{1,32}$ and are lower case where letters have case;
descriptions 1 to 100; at most 25 options and choices; required before optional; groups hold
subcommands and nothing nests deeper; 8000 characters in all, longest localisation counted.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from .errors import FormErrors
from .limits import Path

CHAT_INPUT, USER_COMMAND, MESSAGE_COMMAND = 1, 2, 3
SUB_COMMAND, SUB_COMMAND_GROUP = 1, 2
STRING, INTEGER, BOOLEAN, USER, CHANNEL, ROLE, MENTIONABLE, NUMBER, ATTACHMENT = range(3, 12)
TOTAL_LIMIT = 8000
COUNT_LIMITS = {CHAT_INPUT: 100, USER_COMMAND: 15, MESSAGE_COMMAND: 15}

LOCALES = frozenset(
    [
        *("id", "da", "de", "en-GB", "en-US", "es-ES", "es-419", "fr", "hr", "it", "lt", "hu"),
        *("nl", "no", "pl", "pt-BR", "ro", "fi", "sv-SE", "vi", "tr", "cs", "el", "bg", "ru"),
        *("uk", "hi", "th", "zh-CN", "ja", "zh-TW", "ko"),
    ]
)


def name_fits(name: str) -> bool:
    """Whether a chat command or option may have this name."""
    if not 1 <= len(name) <= 32 or name != name.lower():
        return False
    return all(_letter_fits(letter) for letter in name)


def _letter_fits(letter: str) -> bool:
    if letter in "-_'" or unicodedata.category(letter)[0] in "LN":
        return True
    # Devanagari and Thai need their vowel signs, which are marks and not letters.
    return "\u0900" <= letter <= "\u097f" or "\u0e00" <= letter <= "\u0e7f"


def check_command(command: Any, path: Path = ()) -> None:
    """Raise what Discord would answer to this one command."""
    faults = FormErrors()
    check_into(faults, command, path)
    faults.raise_if_any()


def check_into(faults: FormErrors, command: Any, path: Path) -> None:
    """Note every fault of a command below `path`."""
    if not isinstance(command, dict):
        faults.add(path, "MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType")
        return
    kind = command.get("type", CHAT_INPUT)
    if kind not in COUNT_LIMITS:
        faults.not_one_of((*path, "type"), (1, 2, 3))
        return
    _check_name(faults, path, command, chat=kind == CHAT_INPUT)
    if kind == CHAT_INPUT:
        _check_description(faults, path, command)
        _check_options(faults, path, command.get("options"), depth=0)
    else:
        if command.get("description"):
            faults.add(
                (*path, "description"),
                "APPLICATION_COMMAND_CONTEXT_MENU_DESCRIPTION_INVALID",
                "Context menu commands cannot have description",
            )
        if command.get("options"):
            faults.add(
                (*path, "options"),
                "APPLICATION_COMMAND_CONTEXT_MENU_OPTIONS_INVALID",
                "Context menu commands cannot have options",
            )
    _check_rest(faults, path, command)
    if size(command) > TOTAL_LIMIT:
        faults.add(
            path,
            "APPLICATION_COMMAND_TOO_LARGE",
            f"Command exceeds maximum size ({TOTAL_LIMIT})",
        )


def check_set(commands: Any) -> None:
    """Raise what Discord would answer to a bulk overwrite."""
    faults = FormErrors()
    if not isinstance(commands, list):
        faults.add((), "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
        faults.raise_if_any()
    seen: set[tuple[Any, Any]] = set()
    counts: dict[Any, int] = {}
    for index, command in enumerate(commands):
        check_into(faults, command, (index,))
        if not isinstance(command, dict):
            continue
        kind = command.get("type", CHAT_INPUT)
        counts[kind] = counts.get(kind, 0) + 1
        key = (kind, command.get("name"))
        if key in seen:
            faults.add(
                (index,),
                "APPLICATION_COMMANDS_DUPLICATE_NAME",
                "Application command names must be unique",
            )
        seen.add(key)
    for kind, limit in COUNT_LIMITS.items():
        if counts.get(kind, 0) > limit:
            faults.add((), "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")
    faults.raise_if_any()


def size(item: dict[str, Any]) -> int:
    """Characters of names, descriptions and values, each by its longest localisation."""
    total = 0
    for key in ("name", "description"):
        texts = [item.get(key) or "", *(item.get(f"{key}_localizations") or {}).values()]
        total += max(len(text) for text in texts if isinstance(text, str))
    if isinstance(item.get("value"), str):
        total += len(item["value"])
    for key in ("options", "choices"):
        total += sum(size(child) for child in item.get(key) or [] if isinstance(child, dict))
    return total


def _check_name(faults: FormErrors, path: Path, item: dict[str, Any], *, chat: bool) -> None:
    names: list[tuple[Path, Any]] = [((*path, "name"), item.get("name"))]
    names += _localised(faults, path, item, "name_localizations")
    for here, name in names:
        if name is None:
            faults.required(here)
        elif not isinstance(name, str):
            faults.wrong_type(here, name, "string")
        elif not 1 <= len(name) <= 32:
            faults.bad_length(here, 1, 32)
        elif chat and not name_fits(name):
            faults.add(here, "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")


def _check_description(faults: FormErrors, path: Path, item: dict[str, Any]) -> None:
    texts: list[tuple[Path, Any]] = [((*path, "description"), item.get("description"))]
    texts += _localised(faults, path, item, "description_localizations")
    for here, text in texts:
        if text is None:
            faults.required(here)
        elif not isinstance(text, str):
            faults.wrong_type(here, text, "string")
        elif not 1 <= len(text) <= 100:
            faults.bad_length(here, 1, 100)


def _localised(
    faults: FormErrors, path: Path, item: dict[str, Any], key: str
) -> list[tuple[Path, Any]]:
    table = item.get(key)
    if table is None:
        return []
    if not isinstance(table, dict):
        faults.add((*path, key), "DICT_TYPE_CONVERT", "Only dictionaries may be used in a DictType")
        return []
    for locale in table:
        if locale not in LOCALES:
            faults.add(
                (*path, key, locale),
                "APPLICATION_COMMAND_INVALID_LOCALE",
                f"Value must be one of {sorted(LOCALES)}.",
            )
    return [((*path, key, locale), text) for locale, text in table.items()]


def _check_options(faults: FormErrors, path: Path, options: Any, *, depth: int) -> None:
    if options is None:
        return
    inner = (*path, "options")
    if not isinstance(options, list):
        faults.wrong_type(inner, options, "list")
        return
    if len(options) > 25:
        faults.too_long(inner, 25)
    kinds = {option.get("type") for option in options if isinstance(option, dict)}
    nested = kinds & {SUB_COMMAND, SUB_COMMAND_GROUP}
    if nested and kinds - nested:
        faults.add(
            inner,
            "APPLICATION_COMMAND_OPTIONS_TYPE_INVALID",
            "Sub-command and sub-command group option types are mutually exclusive to all other "
            "types",
        )
    _check_order_and_names(faults, inner, options)
    for index, option in enumerate(options):
        here = (*inner, index)
        if not isinstance(option, dict):
            faults.add(here, "MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType")
            continue
        _check_option(faults, here, option, depth)


def _check_order_and_names(faults: FormErrors, path: Path, options: list[Any]) -> None:
    optional_seen = False
    names: set[str] = set()
    for index, option in enumerate(options):
        if not isinstance(option, dict):
            continue
        if option.get("required"):
            if optional_seen:
                faults.add(
                    (*path, index),
                    "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID",
                    "Required options must be placed before non-required options",
                )
        elif option.get("type") not in (SUB_COMMAND, SUB_COMMAND_GROUP):
            optional_seen = True
        if option.get("name") in names:
            faults.add(
                (*path, index, "name"),
                "APPLICATION_COMMAND_OPTIONS_NAME_ALREADY_EXISTS",
                "Option name already exists",
            )
        names.add(str(option.get("name")))


def _check_option(faults: FormErrors, path: Path, option: dict[str, Any], depth: int) -> None:
    kind = option.get("type")
    if not isinstance(kind, int) or kind not in range(1, 12):
        faults.not_one_of((*path, "type"), tuple(range(1, 12)))
        return
    _check_name(faults, path, option, chat=True)
    _check_description(faults, path, option)
    if kind in (SUB_COMMAND, SUB_COMMAND_GROUP):
        # depth 0: in the command; 1: in a group, where only subcommands may stand.
        if depth > 1 or (depth == 1 and kind == SUB_COMMAND_GROUP):
            faults.add(
                (*path, "type"),
                "APPLICATION_COMMAND_OPTIONS_TYPE_INVALID",
                "Sub-commands and groups cannot be nested this deep",
            )
            return
        if kind == SUB_COMMAND_GROUP and not option.get("options"):
            faults.required((*path, "options"))
        next_depth = 1 if kind == SUB_COMMAND_GROUP else 2
        _check_options(faults, path, option.get("options"), depth=next_depth)
    elif depth == 1:
        faults.not_one_of((*path, "type"), (SUB_COMMAND,))
    else:
        _check_value_option(faults, path, option, kind)


def _check_value_option(faults: FormErrors, path: Path, option: dict[str, Any], kind: int) -> None:
    choices = option.get("choices")
    if choices:
        if kind not in (STRING, INTEGER, NUMBER):
            faults.add(
                (*path, "choices"),
                "APPLICATION_COMMAND_OPTION_CHOICES_INVALID",
                "Choices are not supported by this option type",
            )
        if option.get("autocomplete"):
            faults.add(
                (*path, "autocomplete"),
                "APPLICATION_COMMAND_OPTION_AUTOCOMPLETE_INVALID",
                "Autocomplete may not be set to true if choices are present",
            )
        _check_choices(faults, (*path, "choices"), choices, kind)
    if option.get("autocomplete") and kind not in (STRING, INTEGER, NUMBER):
        faults.add(
            (*path, "autocomplete"),
            "APPLICATION_COMMAND_OPTION_AUTOCOMPLETE_INVALID",
            "Autocomplete is not supported by this option type",
        )
    _check_range(faults, path, option, kind)


def _check_choices(faults: FormErrors, path: Path, choices: list[Any], kind: int) -> None:
    if len(choices) > 25:
        faults.too_long(path, 25)
    names: set[str] = set()
    for index, choice in enumerate(choices):
        check_choice(faults, (*path, index), choice, kind)
        if choice.get("name") in names:
            faults.add(
                (*path, index, "name"),
                "APPLICATION_COMMAND_OPTIONS_CHOICE_NAME_ALREADY_EXISTS",
                "Option choice name already exists",
            )
        names.add(str(choice.get("name")))


def check_choice(faults: FormErrors, path: Path, choice: dict[str, Any], kind: int) -> None:
    """Check one choice of a command or of an autocomplete answer."""
    texts = [((*path, "name"), choice.get("name"))]
    texts += _localised(faults, path, choice, "name_localizations")
    for here, text in texts:
        if not isinstance(text, str) or not 1 <= len(text) <= 100:
            faults.bad_length(here, 1, 100)
    value = choice.get("value")
    here = (*path, "value")
    if kind == STRING:
        if not isinstance(value, str):
            faults.wrong_type(here, value, "string")
        elif not 1 <= len(value) <= 100:
            faults.bad_length(here, 1, 100)
    elif isinstance(value, bool) or not isinstance(value, int if kind == INTEGER else (int, float)):
        faults.add(here, "NUMBER_TYPE_COERCE", f'Value "{value}" is not a number.')
    elif abs(value) > 1 << 53:
        faults.add(here, "NUMBER_TYPE_MAX", "Numbers must be between -2^53 and 2^53.")


def _check_range(faults: FormErrors, path: Path, option: dict[str, Any], kind: int) -> None:
    numeric = kind in (INTEGER, NUMBER)
    for keys, fits, low, high in (
        (("min_value", "max_value"), numeric, -(1 << 53), 1 << 53),
        (("min_length", "max_length"), kind == STRING, 0, 6000),
    ):
        values = [option.get(key) for key in keys]
        for key, value in zip(keys, values, strict=True):
            if value is None:
                continue
            if not fits:
                faults.add(
                    (*path, key), "APPLICATION_COMMAND_OPTION_RANGE_INVALID", "Not for this type"
                )
            elif not low <= value <= high or (key == "max_length" and value < 1):
                faults.add((*path, key), "NUMBER_TYPE_MAX", f"Must be between {low} and {high}.")
        if None not in values and values[0] > values[1]:  # type: ignore[operator]
            faults.add((*path, keys[0]), "NUMBER_TYPE_MAX", f"{keys[0]} exceeds {keys[1]}.")


def _check_rest(faults: FormErrors, path: Path, command: dict[str, Any]) -> None:
    wanted = command.get("default_member_permissions")
    if wanted is not None and not str(wanted).isdecimal():
        faults.wrong_type((*path, "default_member_permissions"), wanted, "permissions")
    for key, allowed in (("contexts", (0, 1, 2)), ("integration_types", (0, 1))):
        for index, value in enumerate(command.get(key) or []):
            if value not in allowed:
                faults.not_one_of((*path, key, index), allowed)
