"""What buttons, selects, layouts and modals may hold, refused with 50035 otherwise.

Numbers are from Discord's component reference: five rows of five buttons or one select in
the older style; with the IS_COMPONENTS_V2 flag 40 components altogether, no content and no
embeds, and 4000 characters over all text displays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .errors import FormErrors
from .limits import Path, check_text, check_url

ROW, BUTTON, STRING_SELECT, TEXT_INPUT = 1, 2, 3, 4
SELECTS = (3, 5, 6, 7, 8)
SECTION, TEXT_DISPLAY, THUMBNAIL, GALLERY, FILE, SEPARATOR, CONTAINER = 9, 10, 11, 12, 13, 14, 17
LABEL = 18
V2_TOP_LEVEL = (ROW, SECTION, TEXT_DISPLAY, GALLERY, FILE, SEPARATOR, CONTAINER)
V2_TOTAL_LIMIT = 40
V2_TEXT_LIMIT = 4000


def walk(components: list[Any]) -> Iterator[dict[str, Any]]:
    """Every component, however deep."""
    for item in components:
        if not isinstance(item, dict):
            continue
        yield item
        yield from walk(item.get("components") or [])
        for key in ("accessory", "component"):
            if isinstance(item.get(key), dict):
                yield from walk([item[key]])


class _Checker:
    def __init__(self, faults: FormErrors) -> None:
        self.faults = faults
        self.custom_ids: set[str] = set()
        self.text_length = 0

    def row(self, path: Path, row: dict[str, Any]) -> None:
        children = row.get("components")
        inner = (*path, "components")
        if not isinstance(children, list) or not 1 <= len(children) <= 5:
            self.faults.bad_length(inner, 1, 5)
            return
        kinds = [item.get("type") if isinstance(item, dict) else None for item in children]
        if any(kind in SELECTS for kind in kinds) and len(children) > 1:
            self.faults.add(
                inner,
                "COMPONENT_LAYOUT_WIDTH_EXCEEDED",
                "The specified component exceeds the maximum width",
            )
        for index, item in enumerate(children):
            here = (*inner, index)
            if kinds[index] == BUTTON:
                self.button(here, item)
            elif kinds[index] in SELECTS:
                self.select(here, item)
            else:
                self.faults.not_one_of((*here, "type"), (BUTTON, *SELECTS))

    def custom_id(self, path: Path, item: dict[str, Any]) -> None:
        value = item.get("custom_id")
        if value is None:
            self.faults.add(
                (*path, "custom_id"),
                "COMPONENT_CUSTOM_ID_REQUIRED",
                "A custom id is required",
            )
        elif not isinstance(value, str):
            self.faults.wrong_type((*path, "custom_id"), value, "string")
        elif not 1 <= len(value) <= 100:
            self.faults.bad_length((*path, "custom_id"), 1, 100)
        elif value in self.custom_ids:
            self.faults.add(
                (*path, "custom_id"),
                "COMPONENT_CUSTOM_ID_DUPLICATED",
                "Component custom id cannot be duplicated",
            )
        else:
            self.custom_ids.add(value)

    def button(self, path: Path, item: dict[str, Any]) -> None:
        style = item.get("style")
        if style not in (1, 2, 3, 4, 5, 6):
            self.faults.not_one_of((*path, "style"), (1, 2, 3, 4, 5, 6))
            return
        if style == 5:
            if item.get("custom_id") is not None:
                self.faults.add(
                    path,
                    "BUTTON_COMPONENT_CUSTOM_ID_URL_MUTUALLY_EXCLUSIVE",
                    "A custom id and url cannot both be specified",
                )
            if not item.get("url"):
                self.faults.add((*path, "url"), "BASE_TYPE_REQUIRED", "A url is required")
            check_url(self.faults, (*path, "url"), item.get("url"), limit=512)
        elif style != 6:
            self.custom_id(path, item)
            if item.get("url") is not None:
                self.faults.add(
                    path,
                    "BUTTON_COMPONENT_CUSTOM_ID_URL_MUTUALLY_EXCLUSIVE",
                    "A custom id and url cannot both be specified",
                )
        check_text(self.faults, (*path, "label"), item.get("label"), 80)
        self.emoji(path, item.get("emoji"))
        if style != 6 and not (item.get("label") or "").strip() and not item.get("emoji"):
            self.faults.add(
                path,
                "BUTTON_COMPONENT_LABEL_OR_EMOJI_REQUIRED",
                "A button must have a label or emoji",
            )

    def emoji(self, path: Path, emoji: Any) -> None:
        if emoji is None:
            return
        name = emoji.get("name") if isinstance(emoji, dict) else None
        custom = isinstance(emoji, dict) and emoji.get("id")
        if not custom and (not name or (name.isascii() and not name[0].isdigit())):
            self.faults.add((*path, "emoji", "name"), "COMPONENT_INVALID_EMOJI", "Invalid emoji")

    def select(self, path: Path, item: dict[str, Any]) -> None:
        self.custom_id(path, item)
        check_text(self.faults, (*path, "placeholder"), item.get("placeholder"), 150)
        low, high = item.get("min_values", 1), item.get("max_values", 1)
        for key, value, least in (("min_values", low, 0), ("max_values", high, 1)):
            if not isinstance(value, int) or not least <= value <= 25:
                self.faults.add(
                    (*path, key), "NUMBER_TYPE_MAX", f"int value should be {least} to 25."
                )
                return
        if low > high:
            self.faults.add(
                (*path, "min_values"), "NUMBER_TYPE_MAX", "min_values exceeds max_values."
            )
        if item.get("type") == STRING_SELECT:
            self.options(path, item.get("options"), high)

    def options(self, path: Path, options: Any, max_values: int) -> None:
        inner = (*path, "options")
        if not isinstance(options, list) or not 1 <= len(options) <= 25:
            self.faults.bad_length(inner, 1, 25)
            return
        if max_values > len(options):
            self.faults.add(
                (*path, "max_values"),
                "SELECT_COMPONENT_MAX_VALUES_EXCEEDS_OPTIONS",
                "max_values exceeds the number of options",
            )
        seen: set[str] = set()
        for index, option in enumerate(options):
            here = (*inner, index)
            check_text(self.faults, (*here, "label"), option.get("label"), 100, required=True)
            check_text(self.faults, (*here, "value"), option.get("value"), 100, required=True)
            check_text(self.faults, (*here, "description"), option.get("description"), 100)
            self.emoji(here, option.get("emoji"))
            if option.get("value") in seen:
                self.faults.add(
                    (*here, "value"),
                    "SELECT_COMPONENT_OPTION_VALUE_DUPLICATED",
                    "The specified option value is already used",
                )
            seen.add(option.get("value"))

    def layout(self, path: Path, item: Any, allowed: tuple[int, ...]) -> None:
        """One component of the newer style, with its children."""
        kind = item.get("type") if isinstance(item, dict) else None
        if kind not in allowed:
            self.faults.not_one_of((*path, "type"), allowed)
        elif kind == ROW:
            self.row(path, item)
        elif kind == TEXT_DISPLAY:
            self.text_length += check_text(
                self.faults, (*path, "content"), item.get("content"), V2_TEXT_LIMIT, required=True
            )
        elif kind == SECTION:
            self.section(path, item)
        elif kind in (THUMBNAIL, FILE):
            self.media(path, item, "media" if kind == THUMBNAIL else "file")
        elif kind == GALLERY:
            items = item.get("items")
            if not isinstance(items, list) or not 1 <= len(items) <= 10:
                self.faults.bad_length((*path, "items"), 1, 10)
                return
            for index, picture in enumerate(items):
                self.media((*path, "items", index), picture, "media")
        elif kind == CONTAINER:
            children = item.get("components")
            if not isinstance(children, list) or not children:
                self.faults.required((*path, "components"))
                return
            inner = tuple(known for known in V2_TOP_LEVEL if known != CONTAINER)
            for index, child in enumerate(children):
                self.layout((*path, "components", index), child, inner)

    def section(self, path: Path, item: dict[str, Any]) -> None:
        texts = item.get("components")
        if not isinstance(texts, list) or not 1 <= len(texts) <= 3:
            self.faults.bad_length((*path, "components"), 1, 3)
            return
        for index, text in enumerate(texts):
            self.layout((*path, "components", index), text, (TEXT_DISPLAY,))
        accessory = item.get("accessory")
        here = (*path, "accessory")
        if not isinstance(accessory, dict):
            self.faults.required(here)
        elif accessory.get("type") == BUTTON:
            self.button(here, accessory)
        else:
            self.layout(here, accessory, (THUMBNAIL,))

    def media(self, path: Path, item: dict[str, Any], key: str) -> None:
        media = item.get(key)
        url = media.get("url") if isinstance(media, dict) else None
        if not url:
            self.faults.required((*path, key, "url"))
        check_url(self.faults, (*path, key, "url"), url, attachments=True)
        check_text(self.faults, (*path, "description"), item.get("description"), 1024)


def check_components(faults: FormErrors, components: Any, *, v2: bool) -> None:
    """Check a message's components in the style its flags ask for."""
    if components is None:
        return
    if not isinstance(components, list):
        faults.wrong_type(("components",), components, "list")
        return
    checker = _Checker(faults)
    if not v2 and len(components) > 5:
        faults.bad_length(("components",), 1, 5)
    for index, item in enumerate(components):
        checker.layout(("components", index), item, V2_TOP_LEVEL if v2 else (ROW,))
    if v2 and sum(1 for _ in walk(components)) > V2_TOTAL_LIMIT:
        faults.add(
            ("components",),
            "COMPONENT_MAX_TOTAL_COMPONENTS_EXCEEDED",
            f"The total number of components cannot exceed {V2_TOTAL_LIMIT}",
        )
    if checker.text_length > V2_TEXT_LIMIT:
        faults.add(
            ("components",),
            "COMPONENT_DISPLAYABLE_TEXT_SIZE_EXCEEDED",
            f"Component displayable text size exceeds maximum size of {V2_TEXT_LIMIT}",
        )


def check_modal(data: Any) -> None:
    """Check a modal: title of 45 characters, one to five rows or labels."""
    faults = FormErrors()
    data = data if isinstance(data, dict) else {}
    path: Path = ("data",)
    checker = _Checker(faults)
    checker.custom_id(path, data)
    check_text(faults, (*path, "title"), data.get("title"), 45, required=True)
    rows = data.get("components")
    if not isinstance(rows, list) or not 1 <= len(rows) <= 5:
        faults.bad_length((*path, "components"), 1, 5)
        rows = []
    for index, row in enumerate(rows):
        _check_modal_row(checker, (*path, "components", index), row)
    faults.raise_if_any()


def _check_modal_row(checker: _Checker, path: Path, row: Any) -> None:
    faults = checker.faults
    kind = row.get("type") if isinstance(row, dict) else None
    if kind == ROW:
        children = row.get("components") or []
        if len(children) != 1 or children[0].get("type") != TEXT_INPUT:
            faults.not_one_of((*path, "components", 0, "type"), (TEXT_INPUT,))
            return
        _check_text_input(checker, (*path, "components", 0), children[0], label=True)
    elif kind == LABEL:
        check_text(faults, (*path, "label"), row.get("label"), 45, required=True)
        check_text(faults, (*path, "description"), row.get("description"), 100)
        child = row.get("component") or {}
        here = (*path, "component")
        if child.get("type") == TEXT_INPUT:
            _check_text_input(checker, here, child, label=False)
        elif child.get("type") in SELECTS:
            checker.select(here, child)
        elif child.get("type") in (19, 21, 22, 23):
            checker.custom_id(here, child)
        else:
            faults.not_one_of((*here, "type"), (TEXT_INPUT, *SELECTS, 19, 21, 22, 23))
    elif kind == TEXT_DISPLAY:
        checker.layout(path, row, (TEXT_DISPLAY,))
    else:
        faults.not_one_of((*path, "type"), (ROW, TEXT_DISPLAY, LABEL))


def _check_text_input(checker: _Checker, path: Path, item: dict[str, Any], *, label: bool) -> None:
    faults = checker.faults
    checker.custom_id(path, item)
    if item.get("style") not in (1, 2):
        faults.not_one_of((*path, "style"), (1, 2))
    if label:
        check_text(faults, (*path, "label"), item.get("label"), 45, required=True)
    check_text(faults, (*path, "placeholder"), item.get("placeholder"), 100)
    check_text(faults, (*path, "value"), item.get("value"), 4000)
    for key, least in (("min_length", 0), ("max_length", 1)):
        value = item.get(key)
        if value is not None and not least <= value <= 4000:
            faults.add((*path, key), "NUMBER_TYPE_MAX", f"int value should be {least} to 4000.")
