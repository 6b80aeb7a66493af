"""How far a long piece of work is: one changing line on a terminal, a line now and then else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TextIO

_TERMINAL_S: Final = 0.1
_PLAIN_S: Final = 5.0


class ProgressLine:
    """Shows the newest text on `out`, not more often than people can read.

    `is_plain`: whether `out` is no terminal; then whole lines are written, one every five seconds.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self.is_plain = not out.isatty()
        self._every_s = _PLAIN_S if self.is_plain else _TERMINAL_S
        self._shown_s = clock() if self.is_plain else float("-inf")
        self._is_open = False

    def show(self, text: Callable[[], str], *, is_last: bool = False) -> None:
        """`text` is only asked for when it is shown. The last one is never left out."""
        now_s = self._clock()
        if now_s - self._shown_s < self._every_s and not (is_last and self._is_open):
            return
        self._shown_s = now_s
        if self.is_plain:
            print(text(), file=self._out, flush=True)
        else:
            # Back to the start of the line, and away with what a longer text left there.
            print(f"\r{text()}\x1b[K", end="", file=self._out, flush=True)
            self._is_open = True

    def clear(self) -> None:
        """Leave an empty line, for the result."""
        if self._is_open:
            print("\r\x1b[K", end="", file=self._out, flush=True)
            self._is_open = False
