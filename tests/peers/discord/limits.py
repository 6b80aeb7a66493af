"""What a message may hold, refused with 50035 otherwise.

Numbers are from Discord's message resource ("Embed Limits", "Create Message"). Lengths count
characters after trimming, as the reference says. Two things it does not say were seen in
the field: a URL whose host has no dot is refused, and a completely empty embed is refused as
a missing description.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from .errors import FormErrors

Path = tuple[str | int, ...]

CONTENT_LIMIT = 2000
EMBED_TOTAL_LIMIT = 6000
NONCE_LIMIT = 25
FILES_LIMIT = 10


def check_text(
    faults: FormErrors,
    path: Path,
    value: Any,
    limit: int,
    *,
    required: bool = False,
    low: int = 0,
) -> int:
    """Check one text and return how many characters it counts for."""
    if value is None:
        if required:
            faults.required(path)
        return 0
    if not isinstance(value, str):
        faults.wrong_type(path, value, "string")
        return 0
    length = len(value.strip())
    if required and length == 0:
        faults.required(path)
    elif low and length < low:
        faults.bad_length(path, low, limit)
    elif length > limit:
        if required or low:
            faults.bad_length(path, max(low, 1), limit)
        else:
            faults.too_long(path, limit)
    return length


def check_url(
    faults: FormErrors, path: Path, value: Any, *, attachments: bool = False, limit: int = 2048
) -> None:
    """Check an address: http or https, a host with a dot; `attachment://` where files may show."""
    if value is None:
        return
    if not isinstance(value, str):
        faults.wrong_type(path, value, "string")
        return
    if value == "":
        return
    if len(value) > limit:
        faults.too_long(path, limit)
        return
    try:
        parts = urlsplit(value)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        faults.add(path, "URL_TYPE_INVALID_URL", "Not a well formed URL.")
        return
    if attachments and parts.scheme == "attachment":
        return
    if parts.scheme not in ("http", "https"):
        allowed = "('http', 'https', 'attachment')" if attachments else "('http', 'https')"
        if not parts.scheme:
            faults.add(path, "URL_TYPE_INVALID_URL", "Not a well formed URL.")
        else:
            faults.add(
                path,
                "URL_TYPE_INVALID_SCHEME",
                f'Scheme "{parts.scheme}" is not supported. Scheme must be one of {allowed}.',
            )
    elif not _host_is_believable(host) or any(letter.isspace() for letter in value):
        faults.add(path, "URL_TYPE_INVALID_URL", "Not a well formed URL.")


def _host_is_believable(host: str | None) -> bool:
    if not host:
        return False
    if ":" in host:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True
    labels = host.rstrip(".").split(".")
    return len(labels) >= 2 and all(labels)


def check_content(faults: FormErrors, value: Any, limit: int = CONTENT_LIMIT) -> None:
    check_text(faults, ("content",), value, limit)


def check_embeds(faults: FormErrors, embeds: Any) -> None:
    """Check all embeds of a message, and their sum over the message."""
    if embeds is None:
        return
    if not isinstance(embeds, list):
        faults.wrong_type(("embeds",), embeds, "list")
        return
    if len(embeds) > 10:
        faults.too_long(("embeds",), 10)
    total = 0
    for index, embed in enumerate(embeds):
        path: Path = ("embeds", index)
        if not isinstance(embed, dict):
            faults.add(path, "MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType")
            continue
        total += _check_embed(faults, path, embed)
    if total > EMBED_TOTAL_LIMIT:
        faults.add(
            ("embeds",),
            "MAX_EMBED_SIZE_EXCEEDED",
            f"Embed size exceeds maximum size of {EMBED_TOTAL_LIMIT}",
        )


def _check_embed(faults: FormErrors, path: Path, embed: dict[str, Any]) -> int:
    total = check_text(faults, (*path, "title"), embed.get("title"), 256)
    total += check_text(faults, (*path, "description"), embed.get("description"), 4096)
    check_url(faults, (*path, "url"), embed.get("url"))
    for key in ("image", "thumbnail"):
        part = _part(faults, path, embed, key)
        if part:
            check_url(faults, (*path, key, "url"), part.get("url"), attachments=True)
    footer = _part(faults, path, embed, "footer")
    if footer:
        total += check_text(faults, (*path, "footer", "text"), footer.get("text"), 2048)
        check_url(faults, (*path, "footer", "icon_url"), footer.get("icon_url"), attachments=True)
    author = _part(faults, path, embed, "author")
    if author:
        total += check_text(
            faults, (*path, "author", "name"), author.get("name"), 256, required=True
        )
        check_url(faults, (*path, "author", "url"), author.get("url"))
        check_url(faults, (*path, "author", "icon_url"), author.get("icon_url"), attachments=True)
    total += _check_fields(faults, path, embed.get("fields"))
    _check_colour(faults, (*path, "color"), embed.get("color"))
    _check_timestamp(faults, (*path, "timestamp"), embed.get("timestamp"))
    shown = ("title", "description", "fields", "image", "thumbnail", "footer", "author")
    if not any(embed.get(key) for key in shown):
        faults.required((*path, "description"))
    return total


def _part(faults: FormErrors, path: Path, embed: dict[str, Any], key: str) -> dict[str, Any] | None:
    value = embed.get(key)
    if value is None or isinstance(value, dict):
        return value
    faults.add((*path, key), "MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType")
    return None


def _check_fields(faults: FormErrors, path: Path, fields: Any) -> int:
    if fields is None:
        return 0
    if not isinstance(fields, list):
        faults.wrong_type((*path, "fields"), fields, "list")
        return 0
    if len(fields) > 25:
        faults.too_long((*path, "fields"), 25)
    total = 0
    for index, item in enumerate(fields):
        here = (*path, "fields", index)
        if not isinstance(item, dict):
            faults.add(here, "MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType")
            continue
        for key, limit in (("name", 256), ("value", 1024)):
            total += check_text(faults, (*here, key), item.get(key), limit, required=True)
        if not isinstance(item.get("inline", False), bool):
            faults.wrong_type((*here, "inline"), item["inline"], "bool")
    return total


def _check_colour(faults: FormErrors, path: Path, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        faults.add(path, "NUMBER_TYPE_COERCE", f'Value "{value}" is not int.')
    elif value > 0xFFFFFF:
        faults.add(path, "NUMBER_TYPE_MAX", "int value should be less than or equal to 16777215.")
    elif value < 0:
        faults.add(path, "NUMBER_TYPE_MIN", "int value should be greater than or equal to 0.")


def _check_timestamp(faults: FormErrors, path: Path, value: Any) -> None:
    if value is None:
        return
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        faults.add(
            path,
            "DATE_TIME_TYPE_PARSE",
            f"Could not parse {value}. Should be ISO8601.",
        )


def check_nonce(faults: FormErrors, value: Any) -> None:
    """A nonce is a number or at most 25 characters; a UUID's text does not fit."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        faults.wrong_type(("nonce",), value, "string")
    elif len(str(value)) > NONCE_LIMIT:
        faults.too_long(("nonce",), NONCE_LIMIT)


def check_snowflake(faults: FormErrors, path: Path, value: Any) -> int | None:
    """A snowflake as text or number; None after a fault."""
    if not isinstance(value, bool) and (
        isinstance(value, int) or (isinstance(value, str) and value.isdecimal())
    ):
        number = int(value)
        if 0 <= number < 1 << 63:
            return number
    faults.add(path, "NUMBER_TYPE_COERCE", f'Value "{value}" is not snowflake.')
    return None


def check_allowed_mentions(faults: FormErrors, value: Any) -> None:
    """`parse` and a non-empty list of the same kind exclude each other; lists hold up to 100."""
    if value is None:
        return
    path: Path = ("allowed_mentions",)
    if not isinstance(value, dict):
        faults.add(path, "MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType")
        return
    parse = value.get("parse") or []
    for index, kind in enumerate(parse):
        if kind not in ("users", "roles", "everyone"):
            faults.not_one_of((*path, "parse", index), ("users", "roles", "everyone"))
    for kind in ("users", "roles"):
        listed = value.get(kind) or []
        if len(listed) > 100:
            faults.too_long((*path, kind), 100)
        for index, item in enumerate(listed):
            check_snowflake(faults, (*path, kind, index), item)
        if listed and kind in parse:
            faults.add(
                path,
                "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE",
                f'parse:["{kind}"] and {kind}: [ids...] are mutually exclusive.',
            )


def check_attachments(faults: FormErrors, listed: Any, uploaded: set[int], kept: set[int]) -> None:
    """Every entry must name an uploaded file by its index, or a file the message already has."""
    if listed is None:
        return
    if not isinstance(listed, list):
        faults.wrong_type(("attachments",), listed, "list")
        return
    if len(listed) > FILES_LIMIT:
        faults.too_long(("attachments",), FILES_LIMIT)
    for index, item in enumerate(listed):
        path: Path = ("attachments", index)
        if not isinstance(item, dict):
            faults.add(path, "MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType")
            continue
        number = check_snowflake(faults, (*path, "id"), item.get("id"))
        if number is not None and number not in uploaded and number not in kept:
            faults.add(
                (*path, "id"), "ATTACHMENT_NOT_FOUND", f"Attachment data not found for {number}."
            )
        check_text(faults, (*path, "description"), item.get("description"), 1024)
