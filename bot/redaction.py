"""No secret in any output: a wrapper that never prints, and a filter for text of any origin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final, NoReturn
from urllib.parse import quote, quote_plus

MASK: Final = "***"
SHORTEST: Final = 4
"""Shorter known values are left alone: masking every "a" would leave no readable log."""


class Secret:
    """A value that prints as `***` everywhere; `reveal()` is the only way to it.

    Not a str on purpose: joining, encoding or dumping one fails instead of leaking it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


# Shapes that are secret wherever they come from. Group 1 stays, the rest of the match goes.
_SHAPES: Final = tuple(
    re.compile(pattern)
    for pattern in (
        # Authorization: Bearer …, 'Authorization': 'Basic …' (headers, dict reprs)
        r"(?i)(\b(?:proxy-)?authorization['\"]?\s*[:=]\s*(?:b?['\"])?(?:(?:bearer|basic|bot)\s+)?)"
        r"[^\s'\",;]+",
        r"(?i)(\bx?-?(?:apikey|api[_-]key)['\"]?\s*[:=]\s*(?:b?['\"])?)[^\s'\",;&]+",
        r"(\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/-]{8,}=*",
        # user:password@ and token@ in addresses
        r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#'\"]+(?=@)",
        # webhooks, interaction answers and push addresses carry their token in the path
        r"(/webhooks/\d+/)[A-Za-z0-9_.-]+",
        r"(/webhooks/uptime-kuma/)[^\s/?#'\"]+",
        r"(/interactions/\d+/)[A-Za-z0-9_.-]+",
        r"(/api/push/)[A-Za-z0-9_-]+",
        r"(?i)([?&](?:access_|auth_?)?(?:token|key|apikey|api_key|password|secret)=)[^\s&#'\"]+",
        # API keys of Kuma and Supabase, signed tokens, Discord's bot tokens
        r"(\b)uk\d+_[A-Za-z0-9_-]{8,}",
        r"(\b)sb_secret_[A-Za-z0-9_-]{8,}",
        r"(\b)eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*",
        r"(\b)[A-Za-z0-9_-]{23,28}\.[A-Za-z0-9_-]{6,7}\.[A-Za-z0-9_-]{27,}",
    )
)


class Redactor:
    """Takes known secrets and secret-looking shapes out of any text.

    A known value is also found as it looks inside JSON, a Python repr or an address.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        forms: set[str] = set()
        for value in known:
            if len(value) >= SHORTEST:
                forms |= {
                    value,
                    quote(value, safe=""),
                    quote(value),
                    quote_plus(value),
                    json.dumps(value)[1:-1],
                    json.dumps(value, ensure_ascii=False)[1:-1],
                    repr(value)[1:-1],
                }
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def redact(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for shape in _SHAPES:
            text = shape.sub(rf"\g<1>{MASK}", text)
        return text
