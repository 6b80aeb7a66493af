"""Addresses without their secrets."""

from __future__ import annotations

import re
from typing import Final

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*")
_ONE_HOST: Final = r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:@;=,\[\]]+)(?::\d+)?"
_HOST: Final = re.compile(f"{_ONE_HOST}(?:,{_ONE_HOST})*")


def display_url(url: str | None) -> str | None:
    """A monitored address without its secrets: scheme, host, port, path.

    User name and password, query and fragment go. None when it cannot be told for sure
    where a password ends.
    """
    text = (url or "").strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    elif not _SCHEME.fullmatch(scheme):
        return None
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    _user, at, host = authority.rpartition("@")
    # An "@" further on is innocent in https://host/@name. With a colon before it, it may
    # end a password that holds an unescaped "/" or "?", and what looks like the host is none.
    if "@" in tail and (at or ":" in authority or ":" in tail.rpartition("@")[0]):
        return None
    if not _HOST.fullmatch(host):
        return None
    path = re.split(r"[?#]", tail, maxsplit=1)[0]
    return f"{scheme}{separator}{host}{path}"
