"""Environment and `.env` → frozen Settings; all faults at once, no secret in any of them."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import tzinfo
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, unquote, urlsplit

import pytz

from bot.i18n import Locale, Translator
from bot.redaction import Secret
from bot.settings_sources import Sources
from bot.settings_table import (
    BY_NAME,
    DISCORD_API,
    KUMA_PREFIX,
    KUMA_SPECS,
    SHORTEST_TOKEN,
    SPECS,
    Remark,
    echo,
    identify,
)

LogMode = Literal["full", "metadata", "off"]
Backend = Literal["sqlite", "supabase", "postgresql"]

FIRST_KUMA: Final = "kuma"
"""The instance of the variables without a name in them."""

_BOT_TOKEN: Final = re.compile(r"[\w-]{20,}\.[\w-]{5,}\.[\w-]{20,}")


class SettingsError(Exception):
    """The settings are refused; `faults` holds every one of them."""

    def __init__(self, faults: tuple[Remark, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        translator = Translator("en")
        return "; ".join(fault.text(translator) for fault in self.faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class KumaSettings:
    """One Uptime Kuma. `url` never holds a user name or password; see `login_url`."""

    key: str
    url: str
    api_key: Secret | None = None
    username: str | None = None
    password: Secret | None = None
    totp_secret: Secret | None = None
    status_page: str | None = None
    webhook_token: Secret | None = None
    check_interval_s: int = 60

    @property
    def login_url(self) -> Secret:
        """The address with user name and password in it, where there are any and no API key.

        Kuma lets its own user read `/metrics` until its first API key exists.
        """
        if self.api_key is not None or self.username is None or self.password is None:
            return Secret(self.url)
        user, password = quote(self.username, safe=""), quote(self.password.reveal(), safe="")
        return Secret(self.url.replace("://", f"://{user}:{password}@", 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment asked for, checked. Each field is its variable's name in lower case.

    `discord_api_base_url`, `discord_gateway_url`: None means Discord's own.
    `log_format`: None means text on a terminal, else json. `monitoring_db` names the remote store
    that rows are copied to; "sqlite" means none. It may be an implied "supabase".
    `backup_dir`: None means no scheduled backups. `alert_rules_file` need not exist: then the
    built-in rules are all there is.
    """

    discord_token: Secret | None
    discord_api_base_url: str | None
    discord_gateway_url: str | None
    discord_guild_ids: tuple[int, ...]
    operator_guild_ids: tuple[int, ...]
    discord_fallback_webhook_url: Secret | None
    conversation_log_mode: LogMode
    music_log_mode: LogMode
    network_probe_urls: tuple[str, ...]
    monitoring_db: Backend
    sqlite_db_path: Path
    supabase_url: str | None
    supabase_key: Secret | None
    database_url: Secret | None
    bot_id: str
    sample_interval_s: int
    alert_rules_file: Path
    metrics_retention_days: int
    hourly_retention_days: int
    conversation_retention_days: int
    music_retention_days: int
    bot_log_retention_days: int
    backup_dir: Path | None
    backup_interval_h: int
    backup_keep: int
    backup_age_recipient: str | None
    comet_locale: Locale
    comet_timezone: str
    web_host: str
    web_port: int
    web_token: Secret | None
    heartbeat_url: Secret | None
    log_level: str
    log_format: Literal["text", "json"] | None
    log_file: Path | None
    kuma_instances: tuple[KumaSettings, ...] = ()
    warnings: tuple[Remark, ...] = ()
    notices: tuple[Remark, ...] = ()

    @property
    def timezone(self) -> tzinfo:
        return pytz.timezone(self.comet_timezone)

    def webhook_tokens(self) -> dict[str, str]:
        """By Kuma: the token that its webhook shows. No two are equal."""
        kumas = self.kuma_instances
        return {k.key: k.webhook_token.reveal() for k in kumas if k.webhook_token is not None}

    def secrets(self) -> tuple[str, ...]:
        """Every secret value, and the secret parts of addresses: what the Redactor must know."""
        return tuple(dict.fromkeys(_secrets(self)))


def _secrets(part: Settings | KumaSettings) -> Iterator[str]:
    for field in fields(part):
        value = getattr(part, field.name)
        if field.name == "kuma_instances":
            for kuma in value:
                yield from _secrets(kuma)
        elif isinstance(value, Secret):
            text = value.reveal()
            yield text
            if "://" in text:
                address = urlsplit(text)
                if address.password:
                    yield from (address.password, unquote(address.password))
                last = address.path.rstrip("/").rsplit("/", 1)[-1]
                if field.name != "database_url" and len(last) >= 8:
                    yield last


def is_loopback(host: str) -> bool:
    """True when only this machine can reach what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def load_settings(environ: Mapping[str, str], dotenv_path: Path | None = None) -> Settings:
    """Read, check and freeze. The environment wins over `.env`; empty text means unset.

    Raises SettingsError with all faults. Opens `.env` and the files that `<NAME>_FILE` names.
    """
    return _Loader(Sources(environ, dotenv_path)).load()


class _Loader:
    """1. parse each variable, 2. check what belongs together, 3. freeze."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.notices: list[Remark] = []

    def load(self) -> Settings:
        values: dict[str, Any] = {
            spec.field: self.sources.value(spec) for spec in SPECS if spec not in KUMA_SPECS
        }
        kumas = self._kumas()
        self._check_discord(values)
        self._check_backend(values)
        self._check_web(values)
        self._check_rules_file(values)
        self._say_unused()
        self.sources.look_for_typos()
        if self.sources.faults:
            raise SettingsError(tuple(self.sources.faults))
        return Settings(
            **values,
            kuma_instances=kumas,
            warnings=tuple(self.sources.warnings),
            notices=tuple(self.notices),
        )

    def _notice(self, name: str, key: str, /, **params: object) -> None:
        self.notices.append(Remark(name, key, params))

    def _needs(self, name: str, by: str) -> None:
        found = identify(name)
        example = found[0].example if found else ""
        self.sources.fault(name, "settings.fault.needed_by", example, by=by)

    def _kumas(self) -> tuple[KumaSettings, ...]:
        known = (identify(name) for name in self.sources.given)
        infixes = dict.fromkeys(["", *(infix for spec, infix in filter(None, known))])
        interval_s = self.sources.value(BY_NAME[f"{KUMA_PREFIX}CHECK_INTERVAL_S"])
        found: dict[str, KumaSettings] = {}
        tokens: set[str] = set()
        for infix in infixes:
            kuma = self._kuma(infix, interval_s)
            if kuma is not None and kuma.key in found:
                name = f"{KUMA_PREFIX}{infix}URL"
                self.sources.fault(name, "settings.fault.kuma_twice", key=kuma.key)
            elif kuma is not None:
                token = kuma.webhook_token
                if token and token.reveal() in tokens:
                    name = f"{KUMA_PREFIX}{infix}WEBHOOK_TOKEN"
                    self.sources.fault(name, "settings.fault.webhook_token_twice")
                tokens |= {token.reveal()} if token else set()
                found[kuma.key] = kuma
        return tuple(found.values())

    def _kuma(self, infix: str, interval_s: int | None) -> KumaSettings | None:
        """One instance; `infix` is "" or "LAB_". None when it is not asked for, or faulty."""
        prefix = f"{KUMA_PREFIX}{infix}"
        before = len(self.sources.faults)
        values: dict[str, Any] = {}
        for spec in KUMA_SPECS:
            part = spec.name.removeprefix(KUMA_PREFIX)
            is_general = part == "CHECK_INTERVAL_S" and not (
                infix and self.sources.has(prefix + part)
            )
            values[part.lower()] = (
                interval_s if is_general else self.sources.value(spec, prefix + part)
            )
        if len(self.sources.faults) > before:
            return None

        address: Secret | None = values.pop("url")
        if address is None:
            alone = ("api_key", "status_page", "username", "password", "totp_secret")
            asked = next((part for part in alone if values[part] is not None), None)
            if asked is not None:
                self._needs(f"{prefix}URL", f"{prefix}{asked.upper()}")
            return None
        url, username, password = _without_login(address.reveal())
        if values["username"] is None and values["password"] is None:
            values["username"], values["password"] = username, password
        if (values["username"] is None) != (values["password"] is None):
            given, missing = "USERNAME", "PASSWORD"
            if values["username"] is None:
                given, missing = missing, given
            self._needs(prefix + missing, prefix + given)
            return None
        if not (values["api_key"] or values["status_page"] or values["username"]):
            self.sources.fault(
                f"{prefix}URL",
                "settings.fault.kuma_no_source",
                api_key=f"{prefix}API_KEY",
                status_page=f"{prefix}STATUS_PAGE",
            )
            return None
        if values["api_key"] and not re.match(r"uk\d+_", values["api_key"].reveal()):
            self.sources.warn(f"{prefix}API_KEY", "settings.warning.kuma_key")
        self._check_token(f"{prefix}WEBHOOK_TOKEN", values["webhook_token"])
        if self.sources.has(f"{prefix}USERNAME"):
            self._notice(f"{prefix}USERNAME", "settings.notice.kuma_login")
        return KumaSettings(key=infix.rstrip("_").lower() or FIRST_KUMA, url=url, **values)

    def _check_token(self, name: str, token: Secret | None) -> None:
        if token is not None and len(token.reveal()) < SHORTEST_TOKEN:
            self.sources.warn(name, "settings.warning.short_token", least=SHORTEST_TOKEN)

    def _check_discord(self, values: dict[str, Any]) -> None:
        token: Secret | None = values["discord_token"]
        if token is not None and not _BOT_TOKEN.fullmatch(token.reveal()):
            self.sources.warn("DISCORD_TOKEN", "settings.warning.token_shape")
        if not values["network_probe_urls"]:
            base = values["discord_api_base_url"] or DISCORD_API
            values["network_probe_urls"] = (f"{base}/gateway",)

    def _check_backend(self, values: dict[str, Any]) -> None:
        chosen = values["monitoring_db"] if self.sources.has("MONITORING_DB") else None
        pair = ("SUPABASE_URL", "SUPABASE_KEY")
        missing = [name for name in pair if not self.sources.has(name)]
        if chosen == "supabase":
            for name in missing:
                self._needs(name, "MONITORING_DB=supabase")
        elif chosen == "postgresql" and not self.sources.has("DATABASE_URL"):
            self._needs("DATABASE_URL", "MONITORING_DB=postgresql")
        elif len(missing) == 1:
            alone = pair[1 - pair.index(missing[0])]
            self.sources.warn(alone, "settings.warning.alone", other=missing[0])
        elif not missing and not self.sources.has("MONITORING_DB"):
            values["monitoring_db"] = "supabase"
            self._notice("MONITORING_DB", "settings.notice.implied_supabase")
        if len(missing) and chosen is None and self.sources.has("DATABASE_URL"):
            self._notice("DATABASE_URL", "settings.notice.database_url")
        address = urlsplit(values["supabase_url"] or "")
        if address.scheme == "http" and not is_loopback(address.hostname or ""):
            self.sources.warn("SUPABASE_URL", "settings.warning.supabase_http")

    def _check_web(self, values: dict[str, Any]) -> None:
        self._check_token("WEB_TOKEN", values["web_token"])
        host = values["web_host"]
        if host is not None and not is_loopback(host) and not self.sources.has("WEB_TOKEN"):
            example = BY_NAME["WEB_TOKEN"].example
            self.sources.fault("WEB_TOKEN", "settings.fault.web_token", example, host=echo(host))

    def _check_rules_file(self, values: dict[str, Any]) -> None:
        path: Path | None = values["alert_rules_file"]
        if path and self.sources.has("ALERT_RULES_FILE") and not os.path.exists(path):
            self.sources.warn("ALERT_RULES_FILE", "settings.warning.no_rules_file")

    def _say_unused(self) -> None:
        for name in self.sources.given:
            found = identify(name)
            if found is not None and found[0].is_unused:
                self._notice(name, "settings.notice.unused")


def _without_login(url: str) -> tuple[str, str | None, Secret | None]:
    """The address without user:password, and these, decoded; None without both."""
    address = urlsplit(url)
    host = address.netloc.rpartition("@")[2]
    plain = address._replace(netloc=host).geturl()
    if not address.username or not address.password:
        return plain, None, None
    return plain, unquote(address.username), Secret(unquote(address.password))
