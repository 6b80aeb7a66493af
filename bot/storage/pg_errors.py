"""What the errors of PostgreSQL, PostgREST and the gateway before it mean to us.

Only real faults of a row (`refused`) may ever cost that row; everything else keeps it and tries
again. No detail repeats what stands in a row, which PostgreSQL's messages like to do.
"""

from __future__ import annotations

import re
from typing import Final

from bot.storage.store import StoreError, StoreUnavailable

_BY_CODE: Final = {
    "53100": "full",
    "25006": "readonly",
    "42501": "rights",
    # The address names a database that is not there.
    "3D000": "key",
    # A prepared statement that another client of the same pooler made.
    "42P05": "odd",
}
_BY_CLASS: Final = {
    "08": "away",
    "25": "away",
    "40": "away",
    "53": "away",
    "55": "away",
    "57": "away",
    "58": "away",
    "XX": "away",
    "28": "key",
    "0L": "rights",
    "0P": "rights",
    "3F": "schema",
    "42": "schema",
    "21": "refused",
    "22": "refused",
    "23": "refused",
    "44": "refused",
    # A text too long for an index: the row's own fault, and no second try changes it.
    "54": "refused",
}
"""SQLSTATE classes; what is not here is odd."""

_BY_POSTGREST: Final = {
    "PGRST000": "away",
    "PGRST001": "away",
    "PGRST002": "away",
    "PGRST003": "away",
    "PGRST102": "refused",
    "PGRST106": "rights",
    "PGRST200": "schema",
    "PGRST201": "schema",
    "PGRST202": "schema",
    "PGRST203": "schema",
    "PGRST204": "schema",
    "PGRST205": "schema",
    "PGRST300": "key",
    "PGRST301": "key",
    "PGRST302": "key",
    "PGRST303": "key",
    "PGRSTX00": "away",
}
"""https://docs.postgrest.org/en/v12/references/errors.html"""

_BY_STATUS: Final = {401: "key", 403: "rights", 404: "schema", 413: "refused"}
_HARMLESS: Final = frozenset(("08", "23", "28", "3D", "42", "53", "57"))
"""Classes whose message names tables, columns, functions and roles, but no values."""

_PAUSED: Final = 540
_KNOWN_STATUS: Final = {_PAUSED: "project paused", 522: "the gateway gets no answer"}


class Dropped(StoreUnavailable):
    """The connection broke, so that it is not known whether anything happened."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("away", _said(error))


def store_error(reason: str, detail: str) -> StoreError:
    """The error for a reason: only "refused" is not worth trying again."""
    if reason == "refused":
        return StoreError(reason, detail, retriable=False)
    return StoreUnavailable(reason, detail)


def from_sqlstate(code: str, message: str) -> StoreError:
    """An error that PostgreSQL itself raised."""
    reason = _BY_CODE.get(code) or _BY_CLASS.get(code[:2], "odd")
    return store_error(reason, f"{code} {_harmless(code[:2], message)}".rstrip())


def from_http(status: int, code: str | None, message: str, *, is_json: bool) -> StoreError:
    """An answer that is no success. `code` is that of its JSON body, None where it has none.

    PostgREST hands PostgreSQL's SQLSTATE on as its code, and gives an empty one for the first
    request over a connection that died with the database (seen with 12.0.2).
    """
    if code and code.startswith("PGRST"):
        reason = _BY_POSTGREST.get(code, "away" if status >= 500 else "odd")
        return store_error(reason, f"{code} {_first_line(message)}")
    if code and re.fullmatch(r"[0-9A-Z]{5}", code):
        return from_sqlstate(code, message)
    detail = f"HTTP {status}"
    if status in _KNOWN_STATUS:
        detail += f", {_KNOWN_STATUS[status]}"
    if status >= 500 or status in (408, 429) or (status == 400 and code == ""):
        return StoreUnavailable("away", detail)
    if not is_json and status not in (401, 413):
        return StoreUnavailable("odd", detail)
    return store_error(_BY_STATUS.get(status, "odd"), detail)


def away(error: BaseException) -> StoreUnavailable:
    """No connection, or no answer in time."""
    return StoreUnavailable("away", _said(error))


def _harmless(kind: str, message: str) -> str:
    """`invalid input syntax for type uuid: "their words"` loses what comes after the type."""
    line = _first_line(message)
    return line if kind in _HARMLESS else re.split(r"[:\"]", line)[0].strip()


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]


def _said(error: BaseException) -> str:
    """The system's own words, which name hosts but no rows."""
    return _first_line(str(error)) or type(error).__name__
