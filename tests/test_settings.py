"""Settings: every variable of the table, all faults at once, no secret in any output."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import pprint
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.i18n import Translator, supported
from bot.redaction import MASK, Secret
from bot.settings import Settings, SettingsError, is_loopback, load_settings
from bot.settings_docs import (
    BEGIN,
    END,
    render_env_example,
    render_settings_table,
    replace_block,
)
from bot.settings_table import BY_NAME, KUMA_PREFIX, SPECS, Remark, identify

SNOWFLAKE = "123456789012345678"
KUMA = {"UPTIME_KUMA_URL": "http://kuma:3001", "UPTIME_KUMA_STATUS_PAGE": "fans"}
SUPABASE = {"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_KEY": "sb_secret_0123456789"}


def jwt(role: object) -> str:
    parts = ({"alg": "HS256"}, {"role": role})
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(part.rstrip("=") for part in coded), "c2ln"])


def faults(environ: Mapping[str, str]) -> dict[str, str]:
    """Name → key of every fault; empty when the settings are taken."""
    try:
        load_settings(environ)
    except SettingsError as error:
        return {fault.name: fault.key.removeprefix("settings.fault.") for fault in error.faults}
    return {}


def keys(remarks: tuple[Remark, ...]) -> set[tuple[str, str]]:
    return {(remark.name, remark.key.split(".", 1)[1]) for remark in remarks}


# --- the table ---------------------------------------------------------------------------------


def test_the_table_and_the_settings_have_the_same_fields() -> None:
    own = {field.name for field in fields(Settings)} - {"kuma_instances", "warnings", "notices"}
    assert own == {spec.field for spec in SPECS if not spec.name.startswith(KUMA_PREFIX)}


def test_nothing_configured_is_fine_and_says_nothing() -> None:
    settings = load_settings({})
    assert settings.discord_token is None and settings.kuma_instances == ()
    assert settings.sqlite_db_path == Path("data/monitoring.db")
    assert (settings.web_host, settings.web_port) == ("127.0.0.1", 5001)
    assert settings.network_probe_urls == ("https://discord.com/api/v10/gateway",)
    assert settings.warnings == settings.notices == ()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_example_is_a_value_its_variable_takes(spec: object) -> None:
    assert hasattr(spec, "parse") and hasattr(spec, "example")
    assert spec.parse(spec.example) is not None


@pytest.mark.parametrize("locale", supported)
def test_the_table_for_people_lists_every_variable(locale: str) -> None:
    table = render_settings_table(locale)
    assert [line.split("`")[1] for line in table.splitlines()[2:]] == [s.name for s in SPECS]
    assert all(line.count("|") == 4 for line in table.splitlines())


def test_the_env_example_stands_in_the_repository_as_rendered(root: Path) -> None:
    assert (root / ".env.example").read_text("utf-8") == render_env_example(), "run `make docs`"


def test_the_env_example_changes_nothing_until_a_line_is_used(root: Path) -> None:
    assert load_settings({}, root / ".env.example") == load_settings({})
    used = [
        line[1:]
        for line in (root / ".env.example").read_text("utf-8").splitlines()
        if line.startswith("#") and not line.startswith("# ")
    ]
    assert [line.split("=")[0] for line in used] == [spec.name for spec in SPECS]


def test_the_readme_holds_the_table_as_rendered(root: Path) -> None:
    readme = (root / "README.md").read_text("utf-8")
    assert any(
        f"{BEGIN}\n{render_settings_table(locale)}{END}" in readme for locale in supported
    ), "run `make docs`"


def test_the_block_is_replaced_between_its_markers_only() -> None:
    made = replace_block(f"head\n{BEGIN}\nold\n{END}\ntail", "en")
    assert made == f"head\n{BEGIN}\n{render_settings_table('en')}{END}\ntail"
    with pytest.raises(ValueError, match="settings:end"):
        replace_block(f"{BEGIN} without an end", "en")


# --- values ------------------------------------------------------------------------------------

REFUSED = [
    ("DISCORD_TOKEN", "Bot abc.def.ghi", "token_prefix"),
    ("DISCORD_TOKEN", "abc def", "characters"),
    ("DISCORD_TOKEN", '"abc.def.ghi"', "quotes"),
    ("DISCORD_TOKEN", "トークン", "characters"),
    ("DISCORD_API_BASE_URL", "ws://host/api", "url_scheme"),
    ("DISCORD_API_BASE_URL", "http://user:pw@host/api", "url_userinfo"),
    ("DISCORD_GATEWAY_URL", "https://host/gateway", "url_scheme"),
    ("DISCORD_GUILD_IDS", "12345", "snowflake"),
    ("DISCORD_GUILD_IDS", f"{SNOWFLAKE}, my-server", "snowflake"),
    ("OPERATOR_GUILD_IDS", "١٢٣٤٥٦٧٨٩٠١٢٣٤٥٦٧٨", "snowflake"),
    ("CONVERSATION_LOG_MODE", "some", "choice"),
    ("MUSIC_LOG_MODE", "yes", "choice"),
    ("NETWORK_PROBE_URLS", "https://a.jp, b.jp", "url_scheme"),
    ("NETWORK_PROBE_URLS", ",", "url_broken"),
    ("DISCORD_FALLBACK_WEBHOOK_URL", "https://discord.com/channels/1/2", "webhook_url"),
    ("MONITORING_DB", "mysql", "choice"),
    ("SQLITE_DB_PATH", ":memory:", "path"),
    ("SQLITE_DB_PATH", "/", "path"),
    ("SUPABASE_URL", "x.supabase.co", "url_scheme"),
    ("SUPABASE_URL", "https://supabase.com/dashboard/project/abcdef", "supabase_dashboard"),
    ("SUPABASE_URL", "https://app.supabase.io", "supabase_dashboard"),
    ("SUPABASE_URL", "https://x.supabase.co/rest/v1/", "supabase_path"),
    ("SUPABASE_KEY", "sb_publishable_0123456789", "public_key"),
    ("SUPABASE_KEY", jwt("anon"), "public_key"),
    ("SUPABASE_KEY", jwt("authenticated"), "public_key"),
    ("SUPABASE_KEY", "eyJhbGciOiJIUzI1NiJ9.eyJy", "jwt"),
    ("DATABASE_URL", "mysql://host/db", "url_scheme"),
    ("DATABASE_URL", "postgresql://u:[YOUR-PASSWORD]@db.x.supabase.co/postgres", "placeholder"),
    ("DATABASE_URL", "postgresql://u:p@ss@host/db", "url_password"),
    ("DATABASE_URL", "postgresql://host/db?sslmode=on", "choice"),
    ("BOT_ID", "my bot", "bot_id"),
    ("SAMPLE_INTERVAL_S", "0", "integer"),
    ("SAMPLE_INTERVAL_S", "3601", "integer"),
    ("SAMPLE_INTERVAL_S", "10s", "integer"),
    ("SAMPLE_INTERVAL_S", "1_0", "integer"),
    ("SAMPLE_INTERVAL_S", "1.5", "integer"),
    ("UPTIME_KUMA_CHECK_INTERVAL_S", "-1", "integer"),
    ("UPTIME_KUMA_WEBHOOK_TOKEN", "with blanks", "characters"),
    ("UPTIME_KUMA_TOTP_SECRET", "not base32!", "totp"),
    ("METRICS_RETENTION_DAYS", "0", "integer"),
    ("BACKUP_DIR", "/dev/null", "folder"),
    ("BACKUP_INTERVAL_H", "0", "integer"),
    ("BACKUP_KEEP", "1001", "integer"),
    ("BACKUP_AGE_RECIPIENT", "AGE-SECRET-KEY-1QQQ", "age_secret"),
    ("BACKUP_AGE_RECIPIENT", "alice@example.jp", "age_recipient"),
    ("COMET_LOCALE", "fr", "choice"),
    ("COMET_TIMEZONE", "Asia/Tokio", "timezone"),
    ("COMET_TIMEZONE", "../../etc/passwd", "timezone"),
    ("WEB_HOST", "*", "host"),
    ("WEB_HOST", "http://0.0.0.0", "host"),
    ("WEB_PORT", "65536", "integer"),
    ("WEB_TOKEN", "with blanks in the middle", "characters"),
    ("HEARTBEAT_URL", "https://", "url_broken"),
    ("HEARTBEAT_URL", "https://host:port/x", "url_broken"),
    ("LOG_LEVEL", "LOUD", "choice"),
    ("LOG_FORMAT", "xml", "choice"),
    ("LOG_FILE", "/", "path"),
]


@pytest.mark.parametrize(("name", "text", "key"), REFUSED)
def test_it_refuses_what_cannot_work(name: str, text: str, key: str) -> None:
    assert faults({name: text})[name] == key


def test_every_variable_that_can_be_wrong_is_seen_to_be_refused() -> None:
    free = {"UPTIME_KUMA_USERNAME", "UPTIME_KUMA_PASSWORD", "ALERT_RULES_FILE"}
    named = {name for name, _, _ in REFUSED} | free
    same_as_another = {
        name for name in BY_NAME if name.endswith("_RETENTION_DAYS") or name == "LOG_FILE"
    }
    kuma = {f"{KUMA_PREFIX}{part}" for part in ("URL", "API_KEY", "STATUS_PAGE")}
    assert set(BY_NAME) == named | same_as_another | kuma


def test_all_faults_are_told_at_once_in_both_languages_with_examples() -> None:
    wrong = {"SAMPLE_INTERVAL_S": "x", "LOG_LEVEL": "x", "COMET_TIMEZONE": "x", "WEB_PORT": "x"}
    with pytest.raises(SettingsError) as caught:
        load_settings(wrong)
    assert {fault.name for fault in caught.value.faults} == set(wrong)
    for locale in supported:
        for fault in caught.value.faults:
            said = fault.text(Translator(), locale)
            assert said.startswith(fault.name)
            assert f"{fault.name}={BY_NAME[fault.name].example}" in said


def test_it_takes_what_people_write() -> None:
    settings = load_settings(
        {
            "DISCORD_TOKEN": "  abc.def.ghi \n",
            "DISCORD_GUILD_IDS": f" {SNOWFLAKE} ,{SNOWFLAKE}9, ",
            "CONVERSATION_LOG_MODE": "Metadata",
            "LOG_LEVEL": "debug",
            "NETWORK_PROBE_URLS": "https://a.jp/, http://192.0.2.1:8080/x",
            "WEB_HOST": "[::1]",
            "DISCORD_API_BASE_URL": "http://127.0.0.1:9/api/v10/",
            "SQLITE_DB_PATH": "somewhere/監視.db",
            "BOT_ID": "",
            "WEB_PORT": "   ",
        }
    )
    assert settings.discord_token == Secret("abc.def.ghi")
    assert settings.discord_guild_ids == (int(SNOWFLAKE), int(f"{SNOWFLAKE}9"))
    assert (settings.conversation_log_mode, settings.log_level) == ("metadata", "DEBUG")
    assert settings.network_probe_urls == ("https://a.jp", "http://192.0.2.1:8080/x")
    assert settings.discord_api_base_url == "http://127.0.0.1:9/api/v10"
    assert (settings.web_host, settings.bot_id, settings.web_port) == ("::1", "primary", 5001)


def test_a_proxy_in_front_of_discord_is_also_the_proof_of_a_way_out() -> None:
    settings = load_settings({"DISCORD_API_BASE_URL": "http://127.0.0.1:9/api/v10"})
    assert settings.network_probe_urls == ("http://127.0.0.1:9/api/v10/gateway",)


# --- what belongs together ---------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host) and not faults({"WEB_HOST": host})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "comet.example.jp"])
def test_anything_else_demands_a_token(host: str) -> None:
    assert faults({"WEB_HOST": host}) == {"WEB_TOKEN": "web_token"}
    assert not faults({"WEB_HOST": host, "WEB_TOKEN": "0123456789abcdef"})


def test_supabase_is_implied_by_its_address_and_key_and_said() -> None:
    settings = load_settings(SUPABASE)
    assert settings.monitoring_db == "supabase"
    assert keys(settings.notices) == {("MONITORING_DB", "notice.implied_supabase")}
    assert load_settings(SUPABASE | {"MONITORING_DB": "sqlite"}).monitoring_db == "sqlite"
    assert load_settings({**SUPABASE, "SUPABASE_KEY": jwt("service_role")}).supabase_key


def test_half_of_supabase_is_a_warning() -> None:
    settings = load_settings({"SUPABASE_URL": SUPABASE["SUPABASE_URL"]})
    assert settings.monitoring_db == "sqlite"
    assert keys(settings.warnings) == {("SUPABASE_URL", "warning.alone")}


def test_a_chosen_backend_demands_its_address_and_key() -> None:
    assert load_settings({**SUPABASE, "MONITORING_DB": "supabase"}).monitoring_db == "supabase"
    assert faults({"MONITORING_DB": "supabase"}) == {
        "SUPABASE_URL": "needed_by",
        "SUPABASE_KEY": "needed_by",
    }
    assert faults({"MONITORING_DB": "postgresql"}) == {"DATABASE_URL": "needed_by"}
    own = {"MONITORING_DB": "postgresql", "DATABASE_URL": "postgresql://db/comet"}
    settings = load_settings(own)
    assert settings.monitoring_db == "postgresql" and not settings.notices


def test_a_database_address_that_leads_nowhere_is_told_what_it_is_for() -> None:
    alone = {"DATABASE_URL": "postgresql://db/comet"}
    settings = load_settings(alone)
    assert settings.monitoring_db == "sqlite"
    assert keys(settings.notices) == {("DATABASE_URL", "notice.database_url")}
    for chosen in ({"MONITORING_DB": "sqlite"}, SUPABASE):
        notices = keys(load_settings({**alone, **chosen}).notices)
        assert ("DATABASE_URL", "notice.database_url") not in notices


@pytest.mark.parametrize(
    ("url", "is_warned"),
    [
        ("http://127.0.0.1:54321", False),
        ("http://localhost:54321", False),
        ("http://[::1]:54321", False),
        ("https://supabase.example.jp/behind/a/path", False),
        ("http://kong:8000", True),
    ],
)
def test_a_key_that_would_travel_in_clear_is_a_warning(url: str, is_warned: bool) -> None:
    settings = load_settings({**SUPABASE, "SUPABASE_URL": url})
    assert settings.supabase_url == url
    assert (("SUPABASE_URL", "warning.supabase_http") in keys(settings.warnings)) == is_warned


def test_a_backup_may_be_encrypted_for_age_and_ssh_keys() -> None:
    ssh = f"ssh-ed25519 {'A' * 68} operator@example.jp"
    for public in (BY_NAME["BACKUP_AGE_RECIPIENT"].example, ssh):
        assert load_settings({"BACKUP_AGE_RECIPIENT": public}).backup_age_recipient == public


def test_what_is_not_used_yet_is_said() -> None:
    settings = load_settings({"HEARTBEAT_URL": "https://hc.example.jp/ping/some-id"})
    assert keys(settings.notices) == {("HEARTBEAT_URL", "notice.unused")}


def test_a_rules_file_that_is_not_there_yet_is_a_warning(tmp_path: Path) -> None:
    settings = load_settings({"ALERT_RULES_FILE": str(tmp_path / "rules.toml")})
    assert keys(settings.warnings) == {("ALERT_RULES_FILE", "warning.no_rules_file")}
    (tmp_path / "rules.toml").touch()
    assert not load_settings({"ALERT_RULES_FILE": str(tmp_path / "rules.toml")}).warnings


# --- Uptime Kuma -------------------------------------------------------------------------------


def test_several_kumas_each_have_their_own_settings() -> None:
    first, lab, tokyo = load_settings(
        {
            **KUMA,
            "UPTIME_KUMA_CHECK_INTERVAL_S": "20",
            "UPTIME_KUMA_TOKYO_2_URL": "https://tokyo.example.jp/kuma/",
            "UPTIME_KUMA_TOKYO_2_API_KEY": "uk3_abc",
            "UPTIME_KUMA_LAB_URL": "http://lab:3001",
            "UPTIME_KUMA_LAB_STATUS_PAGE": "lab",
            "UPTIME_KUMA_LAB_CHECK_INTERVAL_S": "5",
        }
    ).kuma_instances
    assert (first.key, first.status_page, first.check_interval_s) == ("kuma", "fans", 20)
    assert (lab.key, lab.url, lab.check_interval_s) == ("lab", "http://lab:3001", 5)
    assert (tokyo.key, tokyo.url) == ("tokyo_2", "https://tokyo.example.jp/kuma")
    assert tokyo.api_key == Secret("uk3_abc") and tokyo.check_interval_s == 20


def test_a_kuma_needs_an_address_and_something_to_read_it_with() -> None:
    alone = {"UPTIME_KUMA_URL": "http://kuma:3001"}
    assert faults(alone) == {"UPTIME_KUMA_URL": "kuma_no_source"}
    for part in ("API_KEY", "STATUS_PAGE", "TOTP_SECRET"):
        assert faults({f"UPTIME_KUMA_{part}": "JBSWY3DPEHPK3PXP"})["UPTIME_KUMA_URL"] == "needed_by"
    assert faults({"UPTIME_KUMA_LAB_API_KEY": "uk1_a"}) == {"UPTIME_KUMA_LAB_URL": "needed_by"}
    user = {**alone, "UPTIME_KUMA_USERNAME": "admin"}
    assert faults(user) == {"UPTIME_KUMA_PASSWORD": "needed_by"}
    secret = {**alone, "UPTIME_KUMA_PASSWORD": "pw"}
    assert faults(secret) == {"UPTIME_KUMA_USERNAME": "needed_by"}
    assert faults({**KUMA, "UPTIME_KUMA_KUMA_URL": "http://k", "UPTIME_KUMA_KUMA_STATUS_PAGE": "a"})
    assert faults({**KUMA, "UPTIME_KUMA_STATUS_PAGE": "http://kuma/status/a"}) == {
        "UPTIME_KUMA_STATUS_PAGE": "slug"
    }


def test_a_wrong_general_period_is_told_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(
            {
                **KUMA,
                "UPTIME_KUMA_CHECK_INTERVAL_S": "never",
                "UPTIME_KUMA_LAB_URL": "http://lab",
                "UPTIME_KUMA_LAB_STATUS_PAGE": "lab",
            }
        )
    assert [fault.name for fault in caught.value.faults] == ["UPTIME_KUMA_CHECK_INTERVAL_S"]


def test_a_login_in_the_address_is_taken_out_of_it() -> None:
    settings = load_settings({"UPTIME_KUMA_URL": "http://adm:p%40ss%2F@[::1]:3001/a@b"})
    kuma = settings.kuma_instances[0]
    assert kuma.url == "http://[::1]:3001/a@b"
    assert (kuma.username, kuma.password) == ("adm", Secret("p@ss/"))
    assert kuma.login_url.reveal() == "http://adm:p%40ss%2F@[::1]:3001/a@b"
    assert "p@ss/" in settings.secrets()


def test_an_api_key_beats_a_login() -> None:
    login = {"UPTIME_KUMA_USERNAME": "adm", "UPTIME_KUMA_PASSWORD": "pw"}
    settings = load_settings({**KUMA, **login, "UPTIME_KUMA_API_KEY": "uk1_abc"})
    assert settings.kuma_instances[0].login_url.reveal() == "http://kuma:3001"
    assert ("UPTIME_KUMA_USERNAME", "notice.kuma_login") in keys(settings.notices)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("UPTIME_KUMA_URL", ("UPTIME_KUMA_URL", "")),
        ("UPTIME_KUMA_API_KEY_FILE", ("UPTIME_KUMA_API_KEY", "")),
        ("UPTIME_KUMA_API_API_KEY", ("UPTIME_KUMA_API_KEY", "API_")),
        ("UPTIME_KUMA_A_B_PASSWORD_FILE", ("UPTIME_KUMA_PASSWORD", "A_B_")),
        ("UPTIME_KUMA_LAB_URL_FILE", None),
        ("UPTIME_KUMA_lab_URL", None),
        ("UPTIME_KUMA__URL", None),
        ("WEB_TOKEN_FILE", ("WEB_TOKEN", "")),
        ("WEB_PORT_FILE", None),
        ("PATH", None),
    ],
)
def test_it_knows_its_own_variables(name: str, found: tuple[str, str] | None) -> None:
    known = identify(name)
    assert (known and (known[0].name, known[1])) == found


# --- names that are nearly ours ----------------------------------------------------------------


def test_it_warns_of_names_that_would_be_ignored_in_silence() -> None:
    settings = load_settings(
        {
            "DISCORD_TOKN": "abcdef",
            "sample_interval_s": "5",
            "WEB_PORT_FILE": "/run/port",
            "UPTIME_KUMA_UR": "http://kuma",
            "UPTIME_KUMA_SERVICE_HOST": "10.0.0.1",
        }
    )
    assert keys(settings.warnings) == {
        ("DISCORD_TOKN", "warning.look_alike"),
        ("sample_interval_s", "warning.look_alike"),
        ("WEB_PORT_FILE", "warning.no_file_form"),
        ("UPTIME_KUMA_UR", "warning.look_alike"),
        ("UPTIME_KUMA_SERVICE_HOST", "warning.unknown_kuma"),
    }


def test_an_ordinary_environment_earns_no_warning() -> None:
    names = """PATH HOME USER SHELL LANG LC_ALL TERM PWD OLDPWD LOGNAME HOSTNAME EDITOR TZ MAIL
        XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS SSH_AUTH_SOCK DISPLAY VIRTUAL_ENV PYTHONPATH
        PM2_HOME NODE_ENV PORT REDIS_HOST REDIS_PORT LAVALINK_PASSWORD WEB_CONCURRENCY CI
        SYSTEMD_EXEC_PID INVOCATION_ID JOURNAL_STREAM GITHUB_TOKEN DISCORD_CLIENT_ID"""
    assert load_settings(dict.fromkeys(names.split(), "value")).warnings == ()


def test_odd_looking_secrets_are_taken_with_a_warning() -> None:
    odd = {"DISCORD_TOKEN": "abc", "UPTIME_KUMA_API_KEY": "admin", "WEB_TOKEN": "guessable"}
    settings = load_settings({**KUMA, **odd})
    assert keys(settings.warnings) == {
        ("DISCORD_TOKEN", "warning.token_shape"),
        ("WEB_TOKEN", "warning.short_token"),
        ("UPTIME_KUMA_API_KEY", "warning.kuma_key"),
    }


# --- .env and files ----------------------------------------------------------------------------


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("\ufeffWEB_PORT='99'\nexport BOT_ID=file\nLOG_LEVEL=DEBUG # loud\nBOT_ID_\n")
    settings = load_settings({"BOT_ID": "environment", "LOG_LEVEL": ""}, env)
    assert (settings.bot_id, settings.web_port) == ("environment", 99)
    assert settings.log_level == "DEBUG", "empty in the environment means unset"
    assert [(w.name, w.params) for w in settings.warnings] == [(".env", {"line": 4})]


def test_a_secret_in_the_environment_also_hides_its_other_form_in_the_file(
    tmp_path: Path,
) -> None:
    env, token = tmp_path / ".env", tmp_path / "token"
    env.write_text("WEB_TOKEN=0123456789abcdef-old\n")
    token.write_text("0123456789abcdef-new\n")
    settings = load_settings({"WEB_TOKEN_FILE": str(token)}, env)
    assert settings.web_token == Secret("0123456789abcdef-new")


def test_nothing_in_the_file_is_filled_in_from_elsewhere(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text('HEARTBEAT_URL="https://x/${HOME}$1"\n')
    url = load_settings({"HOME": "/root"}, env).heartbeat_url
    assert url is not None and url.reveal() == "https://x/${HOME}$1"


def test_no_dotenv_file_is_fine_and_an_unreadable_one_is_a_fault(tmp_path: Path) -> None:
    assert load_settings({}, tmp_path / ".env") == load_settings({}, tmp_path)
    (tmp_path / ".env").write_bytes("BOT_ID=监".encode("utf-16"))
    with pytest.raises(SettingsError, match=r"\.env: the file cannot be read"):
        load_settings({}, tmp_path / ".env")


@pytest.mark.parametrize("spec", [s for s in SPECS if s.is_secret], ids=lambda spec: spec.name)
def test_every_secret_may_come_from_a_file(spec: object, tmp_path: Path) -> None:
    assert hasattr(spec, "name") and hasattr(spec, "example") and hasattr(spec, "parse")
    path = tmp_path / "secret"
    path.write_text(f"\ufeff{spec.example}\r\n\n", "utf-8")
    login = {"UPTIME_KUMA_USERNAME": "a"} if spec.name == "UPTIME_KUMA_PASSWORD" else {}
    settings = load_settings({**KUMA, **login, f"{spec.name}_FILE": str(path)})
    assert spec.parse(spec.example).reveal() in settings.secrets()


def test_both_forms_or_a_bad_file_are_faults(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef")
    both = {"WEB_TOKEN": "0123456789abcdef", "WEB_TOKEN_FILE": str(path)}
    assert faults(both) == {"WEB_TOKEN": "both"}
    for bad in (tmp_path / "nowhere", tmp_path):
        assert faults({"WEB_TOKEN_FILE": str(bad)}) == {"WEB_TOKEN_FILE": "unreadable"}
    path.write_text(" \n")
    assert faults({"WEB_TOKEN_FILE": str(path)}) == {"WEB_TOKEN_FILE": "empty_file"}


def test_two_kumas_must_not_share_a_webhook_token() -> None:
    """The token tells which of them speaks."""
    second = {
        "UPTIME_KUMA_LAB_URL": "http://lab:3001",
        "UPTIME_KUMA_LAB_STATUS_PAGE": "lab",
        "UPTIME_KUMA_WEBHOOK_TOKEN": "one-and-the-same-word",
    }
    with pytest.raises(SettingsError) as caught:
        load_settings({**KUMA, **second, "UPTIME_KUMA_LAB_WEBHOOK_TOKEN": "one-and-the-same-word"})
    assert [fault.name for fault in caught.value.faults] == ["UPTIME_KUMA_LAB_WEBHOOK_TOKEN"]
    settings = load_settings(
        {**KUMA, **second, "UPTIME_KUMA_LAB_WEBHOOK_TOKEN": "another-long-word"}
    )
    assert sorted(settings.webhook_tokens().values()) == [
        "another-long-word",
        "one-and-the-same-word",
    ]


# --- secrets -----------------------------------------------------------------------------------

PLAIN = {
    "DISCORD_TOKEN": "discord-token-plain",
    "DISCORD_FALLBACK_WEBHOOK_URL": "https://discord.com/api/webhooks/1/webhook-plain",
    "SUPABASE_KEY": "sb_secret_plain_supabase",
    "DATABASE_URL": "postgresql://u:database-plain@db/x",
    "UPTIME_KUMA_API_KEY": "uk1_kuma-plain",
    "UPTIME_KUMA_PASSWORD": "password-plain",
    "UPTIME_KUMA_TOTP_SECRET": "ABCDEFGHIJKLMNOP",
    "UPTIME_KUMA_WEBHOOK_TOKEN": "webhook-token-plain",
    "WEB_TOKEN": "web-token-plain-text",
    "HEARTBEAT_URL": "https://hc.example.jp/heartbeat-plain",
}
PARTS = ("webhook-plain", "database-plain", "heartbeat-plain")


def test_no_way_of_printing_the_settings_shows_a_secret() -> None:
    assert set(PLAIN) == {spec.name for spec in SPECS if spec.is_secret}
    settings = load_settings({**KUMA, **PLAIN, "UPTIME_KUMA_USERNAME": "adm"})
    printed = [
        repr(settings),
        str(settings),
        f"{settings}",
        f"{settings.web_token} {settings.web_token!r} {settings.web_token!s:>30}",
        "%s %r" % (settings, settings.discord_token),  # noqa: UP031
        repr(asdict(settings)),
        json.dumps(asdict(settings), default=str),
        pprint.pformat(settings),
        repr(copy.deepcopy(settings)),
        repr(settings.kuma_instances[0].login_url),
        *(remark.text(Translator()) for remark in settings.warnings + settings.notices),
    ]
    for text in printed:
        for secret in (*PLAIN.values(), *PARTS):
            assert secret not in text
    assert MASK in printed[0]
    with pytest.raises(TypeError):
        pickle.dumps(settings)
    with pytest.raises(TypeError):
        json.dumps(settings.web_token)
    assert {*PLAIN.values(), *PARTS} <= set(settings.secrets())


@pytest.mark.parametrize("name", sorted(BY_NAME))
@given(garbage=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=25))
def test_no_fault_repeats_a_value_that_may_be_a_secret(name: str, garbage: str) -> None:
    long = f"pasted-here-by-mistake-{garbage}"
    try:
        load_settings({name: long})
    except SettingsError as error:
        assert long.strip() not in str(error)
        assert "pasted-here" not in str(error)
        for fault in error.faults:
            assert "pasted-here" not in fault.text(Translator())


@given(st.dictionaries(st.sampled_from(sorted(BY_NAME)), st.text(max_size=40)))
def test_whatever_is_given_either_loads_or_is_refused_with_reasons(environ: dict[str, str]) -> None:
    try:
        settings = load_settings(environ)
    except SettingsError as error:
        assert all(fault.text(Translator(), "en") for fault in error.faults)
    else:
        assert settings.timezone is not None


def test_secrets_compare_and_hash_by_value() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a" and len({Secret("a"), Secret("a")}) == 1
    assert not Secret("") and Secret("a")
