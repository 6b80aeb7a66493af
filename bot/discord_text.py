"""Text that Discord takes as it is meant: within its limits, without pings, without surprises.

Anybody who may name a monitor writes these texts. Nothing here needs discord.py.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

CONTENT_LIMIT: Final = 2000
TITLE_LIMIT: Final = 256
DESCRIPTION_LIMIT: Final = 4096
FIELD_COUNT_LIMIT: Final = 25
FIELD_NAME_LIMIT: Final = 256
FIELD_VALUE_LIMIT: Final = 1024
FOOTER_LIMIT: Final = 2048
EMBED_COUNT_LIMIT: Final = 10
EMBEDS_LIMIT: Final = 6000
"""Over all embeds of one message."""

URL_LIMIT: Final = 2048

BREAK: Final = "\u200b"
"""Has no width; keeps what looks like a mention from being one."""

ELLIPSIS: Final = "…"

_JOINER = "\u200d"
_VARIATION = "\ufe0f"
# Letters by category, and yet nothing to see: fillers of Hangul and Braille, and their like.
_BLANK = frozenset("\u115f\u1160\u17b4\u17b5\u180e\u2800\u3164\uffa0\u034f")
_MARKDOWN = re.compile(r"[\\*_~|`\[\]<]")
_LINE_START = re.compile(r"^(?:[#>+-]|\d+(?=\.))")
_MENTION = re.compile(r"@(?=everyone|here|[!&]?\d)|(?<=<)[@#:/](?=\S)", re.IGNORECASE)
_LINK = re.compile(r":(?=//)")


def units(text: str) -> int:
    """Length in UTF-16 units: at least as long as Discord counts it."""
    return len(text) + sum(1 for letter in text if letter > "\uffff")


def one_line(text: str) -> str:
    """A single line of visible characters: no control, zero-width or direction characters.

    Whatever is blank becomes a single space; the joiner inside an emoji stays. What cannot be
    encoded (half a surrogate pair) shows as a replacement character.
    """
    if text.isprintable() and _BLANK.isdisjoint(text):
        return " ".join(text.split())
    kept: list[str] = []
    for letter in text:
        if letter.isascii():
            kept.append(letter if letter.isprintable() else " ")
            continue
        category = unicodedata.category(letter)
        if category == "Cs":
            kept.append("\ufffd")
        elif category[0] == "Z" or category == "Cc" or letter in _BLANK:
            kept.append(" ")
        elif letter == _JOINER:
            if kept and not kept[-1].isascii():
                kept.append(letter)
        elif category != "Cf":
            kept.append(letter)
    return " ".join("".join(kept).rstrip(_JOINER).split())


def escape(text: str) -> str:
    """A name as harmless text: one line, no Markdown, no mention, no link. May be longer.

    Cut afterwards with `clip`, which never leaves half an escape behind. An embed pings nobody
    whatever it holds; this is for `content` too.
    """
    text = _MENTION.sub(lambda found: found.group() + BREAK, one_line(text))
    text = _MARKDOWN.sub(lambda found: "\\" + found.group(), text)
    text = _LINK.sub(r"\:", text)
    start = _LINE_START.match(text)
    if start is None:
        return text
    # "1." would begin a list, "#" a heading.
    head = start.group()
    return f"{head}\\{text[len(head) :]}" if head[0].isdigit() else f"\\{text}"


def clip(text: str, limit: int) -> str:
    """At most `limit` UTF-16 units; what was cut visibly ends with "…"."""
    if len(text) * 2 <= limit or units(text) <= limit:
        return text
    if limit <= 0:
        return ""
    room = limit - 1
    end = 0
    for letter in text:
        room -= 2 if letter > "\uffff" else 1
        if room < 0:
            break
        end += 1
    # A mark or a joiner whose neighbour was cut off, and an escape of nothing, must go too.
    while end and (
        text[end] in (_JOINER, _VARIATION)
        or text[end - 1] == _JOINER
        or unicodedata.category(text[end]) == "Mn"
    ):
        end -= 1
    kept = text[:end].rstrip()
    slashes = len(kept) - len(kept.rstrip("\\"))
    return kept[: len(kept) - slashes % 2] + ELLIPSIS


def shown_name(name: object, limit: int = 100) -> str:
    """A name anybody may have chosen: harmless, short enough and never empty."""
    whole = str(name)
    head = whole[: 4 * limit]
    shown = escape(head)
    if len(head) < len(whole):
        shown += ELLIPSIS
    return clip(shown, limit) or "—"


def as_code(text: str, limit: int = FIELD_VALUE_LIMIT) -> str:
    """Text between back-ticks, where nothing is Markdown; "" if there is nothing to see."""
    inner = clip(one_line(text).replace("`", "ˋ"), limit - 2)
    return f"`{inner}`" if inner else ""


def is_showable_url(url: str) -> bool:
    """Whether Discord takes it as a link: http(s), a host with a dot, at most 2,048 long.

    `http://uptime-kuma:3001` is refused by Discord with 400, and the whole message with it.
    """
    if units(url) > URL_LIMIT or any(letter.isspace() for letter in url):
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https"):
        return False
    if ":" in host:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True
    labels = host.rstrip(".").split(".")
    return len(labels) >= 2 and all(labels)


def whole_lines(lines: Iterable[str], total: int, limit: int, more: str) -> str:
    """As many whole lines as fit; `more`, with its {n} filled in, says how many were left out.

    `lines` may be made one by one: those that do not fit are never asked for.
    """
    kept: list[str] = []
    room = limit
    for position, line in enumerate(lines):
        rest = total - position
        reserve = units(more.format(n=rest)) + 1 if rest > 1 else 0
        if units(line) + 1 + reserve > room:
            kept.append(clip(more.format(n=rest), room))
            break
        kept.append(line)
        room -= units(line) + 1
    return "\n".join(kept)


def moment(at: datetime) -> str:
    """Date and time in the reader's own zone and language."""
    return f"<t:{int(at.timestamp())}:F>"


def relative(at: datetime) -> str:
    """A time that Discord keeps telling truly: "3 minutes ago"."""
    return f"<t:{int(at.timestamp())}:R>"


def embed_size(embed: Mapping[str, object]) -> int:
    """What one embed counts for in the 6,000."""
    return sum(units(text) for text in _texts(embed))


def _texts(embed: Mapping[str, object]) -> Iterable[str]:
    for key in ("title", "description"):
        yield str(embed.get(key) or "")
    for key, inner in (("footer", "text"), ("author", "name")):
        part = embed.get(key)
        if isinstance(part, Mapping):
            yield str(part.get(inner) or "")
    fields = embed.get("fields")
    if isinstance(fields, Iterable):
        for item in fields:
            if isinstance(item, Mapping):
                yield str(item.get("name") or "")
                yield str(item.get("value") or "")
