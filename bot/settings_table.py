"""Every setting, declared once: how it is read, what it is when unset, an example.

Parsing, `.env.example`, the README's table and `check` all come from this table. A new setting
is one row here, one field of `Settings`, and `settings.meaning.<name>` in each language.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

import pytz

from bot.i18n import Translator, supported
from bot.redaction import Secret

DISCORD_API: Final = "https://discord.com/api/v10"
SHORTEST_TOKEN: Final = 16
KUMA_PREFIX: Final = "UPTIME_KUMA_"
SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_ECHO_AT_MOST: Final = 20


class Refused(ValueError):
    """A value cannot be used. `key` is in the locale tables; the value itself is never held
    unless it is short and no secret."""

    def __init__(self, key: str, **params: object) -> None:
        super().__init__(key)
        self.key = key
        self.params = params


def echo(text: str) -> str:
    """What may be repeated of a refused value: a long one may be a secret in the wrong place."""
    return text if len(text) <= _ECHO_AT_MOST else "…"


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to say about one variable: a fault, a warning or a notice.

    `key` and `params` are for the locale tables; `example` is empty where none would help.
    """

    name: str
    key: str
    params: Mapping[str, object]
    example: str = ""

    def text(self, translator: Translator, locale: str | None = None) -> str:
        said = f"{self.name}: {translator.t(self.key, locale, **self.params)}"
        if self.example:
            example = f"{self.name}={self.example}"
            said += translator.t("settings.example", locale, example=example)
        return said


Parser = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Spec:
    """One variable. `parse` gets stripped, non-empty text and raises Refused.

    `default` is the value when unset. `is_unused`: read and checked, but nothing in this
    version acts on it; giving it earns a notice.
    """

    name: str
    parse: Parser
    example: str
    default: object = None
    is_secret: bool = False
    is_unused: bool = False

    @property
    def field(self) -> str:
        return self.name.lower()


def whole(least: int, most: int) -> Parser:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", text) or not least <= int(text) <= most:
            raise Refused("settings.fault.integer", least=least, most=most, value=echo(text))
        return int(text)

    return parse


def choice(*allowed: str, upper: bool = False) -> Parser:
    def parse(text: str) -> str:
        value = text.upper() if upper else text.lower()
        if value not in allowed:
            raise Refused("settings.fault.choice", allowed=", ".join(allowed), value=echo(text))
        return value

    return parse


def split_url(text: str, *schemes: str) -> SplitResult:
    """Raises Refused for anything but an address with a host; never repeats the address."""
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise Refused("settings.fault.url_space")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise Refused("settings.fault.url_broken") from None
    if parts.scheme not in schemes:
        raise Refused("settings.fault.url_scheme", schemes=" / ".join(f"{s}://" for s in schemes))
    if not parts.hostname or port == 0:
        raise Refused("settings.fault.url_broken")
    return parts


def url(*schemes: str) -> Parser:
    """A plain address: no user name or password in it, no slash at its end."""

    def parse(text: str) -> str:
        if "@" in split_url(text, *schemes).netloc:
            raise Refused("settings.fault.url_userinfo")
        return text.rstrip("/")

    return parse


def secret_url(*schemes: str) -> Parser:
    def parse(text: str) -> Secret:
        split_url(text, *schemes)
        return Secret(text)

    return parse


def _kuma_url(text: str) -> Secret:
    """May carry user:password; `load_settings` takes them out again."""
    split_url(text, "http", "https")
    return Secret(text.rstrip("/"))


def _supabase_url(text: str) -> str:
    """The project's own address; what people copy from other places is told apart."""
    if re.match(r"https?://(app\.|www\.)?supabase\.(com|io)(/|$)", text):
        raise Refused("settings.fault.supabase_dashboard")
    address = str(_HTTP(text))
    if re.search(r"/(rest|auth|storage|realtime|functions|graphql)/v1\b", address):
        raise Refused("settings.fault.supabase_path")
    return address


def _database_url(text: str) -> Secret:
    """A PostgreSQL address; its query may name `sslmode` and other things of libpq's."""
    if re.search(r"\[[A-Z-]+\]", text):
        raise Refused("settings.fault.placeholder")
    address = split_url(text, "postgresql", "postgres")
    if address.netloc.count("@") > 1:
        raise Refused("settings.fault.url_password")
    sslmode = parse_qs(address.query).get("sslmode", ["prefer"])[-1]
    if sslmode not in SSL_MODES:
        allowed = ", ".join(SSL_MODES)
        raise Refused("settings.fault.choice", allowed=f"sslmode={allowed}", value=echo(sslmode))
    return Secret(text)


def _webhook_url(text: str) -> Secret:
    if not re.search(r"/webhooks/\d+/[\w.-]+$", split_url(text, "http", "https").path):
        raise Refused("settings.fault.webhook_url")
    return Secret(text)


def _urls(text: str) -> tuple[str, ...]:
    one = url("http", "https")
    found = tuple(str(one(part.strip())) for part in text.split(",") if part.strip())
    if not found:
        raise Refused("settings.fault.url_broken")
    return found


def _snowflakes(text: str) -> tuple[int, ...]:
    ids = [part for part in re.split(r"[\s,]+", text) if part]
    wrong = next((part for part in ids if not re.fullmatch(r"[1-9][0-9]{14,19}", part)), None)
    if wrong is not None or not ids:
        raise Refused("settings.fault.snowflake", value=echo(wrong or text))
    return tuple(dict.fromkeys(int(part) for part in ids))


def _no_space(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise Refused("settings.fault.characters")
    return text


def _discord_token(text: str) -> Secret:
    if re.match(r"(?i)(bot|bearer)\s", text):
        raise Refused("settings.fault.token_prefix")
    if text[0] in "\"'" or text[-1] in "\"'":
        raise Refused("settings.fault.quotes")
    return Secret(_no_space(text))


def _own_token(text: str) -> Secret:
    return Secret(_no_space(text))


def _api_key(text: str) -> Secret:
    return Secret(_no_space(text))


def _totp(text: str) -> Secret:
    plain = text.replace(" ", "").rstrip("=").upper()
    try:
        base64.b32decode(plain + "=" * (-len(plain) % 8))
    except ValueError:
        raise Refused("settings.fault.totp") from None
    return Secret(plain)


def _supabase_key(text: str) -> Secret:
    """Refuses keys meant for browsers: they may not write, and reading shows no rows."""
    _no_space(text)
    role = None
    if text.startswith("eyJ"):
        try:
            payload = text.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            role = claims.get("role")
        except (IndexError, ValueError, AttributeError):
            raise Refused("settings.fault.jwt") from None
    if text.startswith("sb_publishable_") or role in ("anon", "authenticated"):
        raise Refused("settings.fault.public_key")
    return Secret(text)


def _slug(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", text):
        raise Refused("settings.fault.slug", value=echo(text))
    return text


def _bot_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        raise Refused("settings.fault.bot_id", value=echo(text))
    return text


def _timezone(text: str) -> str:
    try:
        return str(pytz.timezone(text))
    except (pytz.UnknownTimeZoneError, ValueError):
        raise Refused("settings.fault.timezone", value=echo(text)) from None


def _host(text: str) -> str:
    host = text.strip("[]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", host):
            raise Refused("settings.fault.host", value=echo(text)) from None
    return host


def _file(text: str) -> Path:
    """A path to a file that need not exist yet; relative to the working directory."""
    try:
        path = Path(text).expanduser()
        is_file = text != ":memory:" and "\0" not in text and not path.is_dir()
    except (OSError, RuntimeError):
        is_file = False
    if not is_file:
        raise Refused("settings.fault.path", value=echo(text))
    return path


def _folder(text: str) -> Path:
    """A directory that need not exist yet; relative to the working directory."""
    try:
        path = Path(text).expanduser()
        is_folder = "\0" not in text and (path.is_dir() or not path.exists())
    except (OSError, RuntimeError, ValueError):
        is_folder = False
    if not is_folder:
        raise Refused("settings.fault.folder", value=echo(text))
    return path


def _age_recipient(text: str) -> str:
    """A public key; the secret one belongs anywhere but beside the backups."""
    if text.upper().startswith("AGE-SECRET-KEY-") or "PRIVATE KEY" in text:
        raise Refused("settings.fault.age_secret")
    if not re.fullmatch(r"age1[0-9a-z]{58}|ssh-(ed25519|rsa) [A-Za-z0-9+/]{40,}=*( .*)?", text):
        raise Refused("settings.fault.age_recipient")
    return text


_DAYS = whole(1, 36_500)
_HTTP = url("http", "https")
_LOG_MODE = choice("full", "metadata", "off")

SPECS: Final[tuple[Spec, ...]] = (
    Spec("DISCORD_TOKEN", _discord_token, "MTIz.AbCdEf.your-own-token", is_secret=True),
    Spec("DISCORD_API_BASE_URL", _HTTP, "http://127.0.0.1:8080/api/v10"),
    Spec("DISCORD_GATEWAY_URL", url("ws", "wss"), "ws://127.0.0.1:8080/gateway"),
    Spec("DISCORD_GUILD_IDS", _snowflakes, "123456789012345678", ()),
    Spec("OPERATOR_GUILD_IDS", _snowflakes, "123456789012345678", ()),
    Spec(
        "DISCORD_FALLBACK_WEBHOOK_URL",
        _webhook_url,
        "https://discord.com/api/webhooks/123456789012345678/your-own-token",
        is_secret=True,
    ),
    Spec("CONVERSATION_LOG_MODE", _LOG_MODE, "metadata", "full"),
    Spec("MUSIC_LOG_MODE", _LOG_MODE, "metadata", "full"),
    Spec("NETWORK_PROBE_URLS", _urls, "https://www.example.jp", (), is_unused=True),
    Spec("MONITORING_DB", choice("sqlite", "supabase", "postgresql"), "sqlite", "sqlite"),
    Spec("SQLITE_DB_PATH", _file, "data/monitoring.db", Path("data/monitoring.db")),
    Spec("SUPABASE_URL", _supabase_url, "https://your-project.supabase.co"),
    Spec("SUPABASE_KEY", _supabase_key, "sb_secret_your-own-key", is_secret=True),
    Spec(
        "DATABASE_URL",
        _database_url,
        "postgresql://comet:password@db.example.jp:5432/comet",
        is_secret=True,
    ),
    Spec("BOT_ID", _bot_id, "primary", "primary"),
    Spec("SAMPLE_INTERVAL_S", whole(1, 3600), "10", 10),
    Spec("UPTIME_KUMA_URL", _kuma_url, "http://kuma.example.jp:3001"),
    Spec("UPTIME_KUMA_API_KEY", _api_key, "uk1_your-own-key", is_secret=True),
    Spec("UPTIME_KUMA_USERNAME", str, "admin"),
    Spec("UPTIME_KUMA_PASSWORD", Secret, "your-own-password", is_secret=True),
    Spec("UPTIME_KUMA_TOTP_SECRET", _totp, "JBSWY3DPEHPK3PXP", is_secret=True, is_unused=True),
    Spec("UPTIME_KUMA_STATUS_PAGE", _slug, "fans"),
    Spec("UPTIME_KUMA_WEBHOOK_TOKEN", _own_token, "a-long-random-word", is_secret=True),
    Spec("UPTIME_KUMA_CHECK_INTERVAL_S", whole(1, 3600), "60", 60),
    Spec("ALERT_RULES_FILE", _file, "rules.toml", Path("rules.toml")),
    Spec("METRICS_RETENTION_DAYS", _DAYS, "30", 30),
    Spec("HOURLY_RETENTION_DAYS", _DAYS, "400", 400),
    Spec("CONVERSATION_RETENTION_DAYS", _DAYS, "90", 90),
    Spec("MUSIC_RETENTION_DAYS", _DAYS, "90", 90),
    Spec("BOT_LOG_RETENTION_DAYS", _DAYS, "30", 30),
    Spec("BACKUP_DIR", _folder, "backups"),
    Spec("BACKUP_INTERVAL_H", whole(1, 8760), "24", 24),
    Spec("BACKUP_KEEP", whole(1, 1000), "7", 7),
    Spec(
        "BACKUP_AGE_RECIPIENT",
        _age_recipient,
        "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    ),
    Spec("COMET_LOCALE", choice(*supported), "en", "ja"),
    Spec("COMET_TIMEZONE", _timezone, "Asia/Tokyo", "Asia/Tokyo"),
    Spec("WEB_HOST", _host, "127.0.0.1", "127.0.0.1"),
    Spec("WEB_PORT", whole(0, 65_535), "5001", 5001),
    Spec("WEB_TOKEN", _own_token, "a-long-random-word", is_secret=True),
    Spec(
        "HEARTBEAT_URL",
        secret_url("http", "https"),
        "https://hc.example.jp/ping/your-own-id",
        is_secret=True,
        is_unused=True,
    ),
    Spec(
        "LOG_LEVEL",
        choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", upper=True),
        "DEBUG",
        "INFO",
    ),
    Spec("LOG_FORMAT", choice("text", "json"), "json"),
    Spec("LOG_FILE", _file, "data/comet.log"),
)

BY_NAME: Final = {spec.name: spec for spec in SPECS}

KUMA_SPECS: Final = tuple(spec for spec in SPECS if spec.name.startswith(KUMA_PREFIX))
"""These exist once per Kuma: UPTIME_KUMA_URL, UPTIME_KUMA_LAB_URL, …"""


def identify(name: str) -> tuple[Spec, str] | None:
    """The setting a variable belongs to, and its Kuma infix: "LAB_" of UPTIME_KUMA_LAB_URL.

    Knows the `_FILE` form of secrets. None for a name that is not ours.
    """
    for spec in _LONGEST_FIRST:
        for full in (f"{spec.name}_FILE", spec.name) if spec.is_secret else (spec.name,):
            if name == full:
                return spec, ""
    for spec in _LONGEST_FIRST:
        for full in (f"{spec.name}_FILE", spec.name) if spec.is_secret else (spec.name,):
            ending = full.removeprefix(KUMA_PREFIX)
            if ending != full and name.startswith(KUMA_PREFIX) and name.endswith(ending):
                infix = name.removeprefix(KUMA_PREFIX).removesuffix(ending)
                if re.fullmatch(r"([A-Z0-9]+_)+", infix):
                    return spec, infix
    return None


_LONGEST_FIRST: Final = sorted(SPECS, key=lambda spec: len(spec.name), reverse=True)
