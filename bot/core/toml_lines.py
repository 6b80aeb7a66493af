"""Where things stand in a TOML text; `tomllib` keeps no line numbers of what it has read."""

from __future__ import annotations

import re
from typing import NamedTuple

_PLACE = re.compile(
    r" ?\(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$", re.ASCII
)
_KEY_PART = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*\.?""")
_TABLE = re.compile(r"\s*\[\[?(?P<path>[^\]]+)\]")
_KEY = re.compile(r"""(?P<path>(?:"[^"]*"|'[^']*'|[^=#"'])+)=""")


class SyntaxPlace(NamedTuple):
    """What `tomllib` says of a text it cannot read, taken apart; line and column from 1."""

    problem: str
    line: int
    column: int


def syntax_place(text: str, message: str) -> SyntaxPlace:
    """The place named in the message of a TOMLDecodeError; "end of document" is a place too."""
    place = _PLACE.search(message)
    if place is None or place["line"] is None:
        lines = text.split("\n")
        line, column = len(lines), len(lines[-1]) + 1
    else:
        line, column = int(place["line"]), int(place["column"])
    return SyntaxPlace(message[: place.start()] if place else message, line, column)


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """The line on which each table and key is first written.

    A light scan of a text known to be valid: keys inside inline tables are not found, nor is
    anything inside a long string taken for a key.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    is_inside_long_string = False
    for number, line in enumerate(text.split("\n"), start=1):
        if not is_inside_long_string:
            path: tuple[str, ...] = ()
            if found := _TABLE.match(line):
                table = path = _key_parts(found["path"])
            elif found := _KEY.match(line):
                path = table + _key_parts(found["path"])
            for length in range(1, len(path) + 1):
                lines.setdefault(path[:length], number)
        if (line.count('"""') + line.count("'''")) % 2 == 1:
            is_inside_long_string = not is_inside_long_string
    return lines


def _key_parts(text: str) -> tuple[str, ...]:
    return tuple(
        next(part for part in match.groups() if part is not None)
        for match in _KEY_PART.finditer(text)
    )
