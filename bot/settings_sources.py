"""Where a variable's text comes from: the environment, then `.env`, or the file it names."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dotenv.parser import parse_stream

from bot.settings_table import BY_NAME, KUMA_PREFIX, SPECS, Refused, Remark, Spec, identify

_LOOKS_ALIKE: Final = 0.88
_SHORTEST_LOOK_ALIKE: Final = 6


class Sources:
    """Reads variables and collects every fault and warning on the way.

    Empty text counts as unset. `given` holds the names that are set in either layer.
    """

    def __init__(self, environ: Mapping[str, str], dotenv_path: Path | None) -> None:
        self.faults: list[Remark] = []
        self.warnings: list[Remark] = []
        self._layers = [
            {name: text.strip() for name, text in layer.items() if text.strip()}
            for layer in (environ, self._dotenv(dotenv_path))
        ]
        self.given = sorted(set().union(*self._layers))

    def fault(self, name: str, key: str, example: str = "", /, **params: object) -> None:
        self.faults.append(Remark(name, key, params, example))

    def warn(self, name: str, key: str, /, **params: object) -> None:
        self.warnings.append(Remark(name, key, params))

    def has(self, name: str) -> bool:
        return name in self.given or (f"{name}_FILE" in self.given and identify(name) is not None)

    def value(self, spec: Spec, name: str | None = None) -> Any:
        """The parsed value or the default; None after a fault, which ends the start anyway.

        `name` is the variable's when it is not the spec's own: one of several Kumas.
        """
        name = name or spec.name
        faults = len(self.faults)
        text = self._text(name, spec)
        if text is None:
            return spec.default if len(self.faults) == faults else None
        try:
            return spec.parse(text)
        except Refused as refused:
            self.fault(name, refused.key, spec.example, **refused.params)
            return None

    def look_for_typos(self) -> None:
        """Warn of names that are not ours but nearly are; they would be ignored in silence."""
        for name in self.given:
            if identify(name) is not None:
                continue
            base = name.removesuffix("_FILE")
            meant = _closest(name)
            if base in BY_NAME:
                self.warn(name, "settings.warning.no_file_form", base=base)
            elif meant is not None:
                self.warn(name, "settings.warning.look_alike", meant=meant)
            elif name.startswith(KUMA_PREFIX):
                self.warn(name, "settings.warning.unknown_kuma")

    def _dotenv(self, path: Path | None) -> dict[str, str]:
        """Taken literally: no `${…}` is filled in, so that a password may hold a dollar sign."""
        found: dict[str, str] = {}
        if path is None:
            return found
        try:
            with path.open(encoding="utf-8") as file:
                for binding in parse_stream(file):
                    if binding.key is not None and binding.value is not None:
                        found[binding.key] = binding.value
                    elif binding.error or binding.key is not None:
                        line = binding.original.line
                        self.warn(path.name, "settings.warning.dotenv_line", line=line)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            pass
        except (OSError, UnicodeError) as error:
            self.fault(path.name, "settings.fault.unreadable", why=_why(error))
        return found

    def _text(self, name: str, spec: Spec) -> str | None:
        for layer in self._layers:
            text = layer.get(name)
            path = layer.get(f"{name}_FILE") if spec.is_secret else None
            if text is not None and path is not None:
                self.fault(name, "settings.fault.both", file=f"{name}_FILE")
                return None
            if text is not None:
                return text
            if path is not None:
                return self._from_file(f"{name}_FILE", path, spec)
        return None

    def _from_file(self, name: str, path: str, spec: Spec) -> str | None:
        example = f"/run/secrets/{spec.field}"
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8-sig").strip()
        except (OSError, ValueError, RuntimeError) as error:
            self.fault(name, "settings.fault.unreadable", example, why=_why(error))
            return None
        if not text:
            self.fault(name, "settings.fault.empty_file", example)
            return None
        return text


def _closest(name: str) -> str | None:
    if len(name) < _SHORTEST_LOOK_ALIKE:
        return None
    known = [spec.name for spec in SPECS]
    known += [f"{spec.name}_FILE" for spec in SPECS if spec.is_secret]
    found = difflib.get_close_matches(name.upper(), known, 1, _LOOKS_ALIKE)
    return found[0] if found else None


def _why(error: Exception) -> str:
    """The system's word for it, without the path or the content."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return type(error).__name__
