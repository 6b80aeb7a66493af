"""How long the texts may be that others hand us to keep; the same in every store.

Lengths are in characters. What is longer is cut, and the cut is marked with how many characters
are missing, so that nobody takes a part for the whole.
"""

from __future__ import annotations

from typing import Final

TEXT_LIMIT: Final = 20_000
"""A prompt, a response. Discord's own messages end at 4,000."""

TITLE_LIMIT: Final = 500
NAME_LIMIT: Final = 100
MESSAGE_LIMIT: Final = 2_000
"""A log message."""

DETAIL_LIMIT: Final = 500
"""One value in the context of a log line."""


def kept(text: str, limit: int) -> str:
    """At most `limit` characters; a cut ends in "…(+980012)". Cutting twice changes nothing."""
    if len(text) <= limit:
        return text
    # The mark's own length depends on the number in it; the next round settles that.
    head = limit
    for _ in range(2):
        mark = f"…(+{len(text) - head})"
        head = limit - len(mark)
    return text[:head] + f"…(+{len(text) - head})"
