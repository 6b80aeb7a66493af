"""The command line: run, check, migrate, settings-table.

Exit codes: 0 fine, 1 something failed, 2 settings (or arguments) refused. Heavy parts are
imported by the verb that needs them, so that help and refusals come at once.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bot import backup_cli, migrate_cli, transfer_cli
from bot.i18n import DEFAULT_LOCALE, Locale, Translator, supported
from bot.settings import Settings, SettingsError, load_settings
from bot.settings_sources import Sources
from bot.settings_table import BY_NAME

EXIT_FINE: Final = 0
EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 2

DOTENV: Final = Path(".env")


def main(arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> int:
    """Do what the arguments ask; the process's exit code."""
    environ = os.environ if environ is None else environ
    translator = Translator(_locale(environ))
    parser = _parser(translator)
    asked = parser.parse_args(arguments)
    if asked.verb is None:
        parser.print_help()
        return EXIT_FINE
    if asked.verb == "settings-table":
        return _settings_table(asked)
    try:
        settings = load_settings(environ, DOTENV)
    except SettingsError as error:
        _refuse(error, translator)
        return EXIT_REFUSED
    if asked.verb == "run":
        return _run(settings)
    if asked.verb == "check":
        return _check(settings)
    if asked.verb in ("backup", "restore"):
        return backup_cli.run(asked, settings)
    if asked.verb == "transfer":
        return transfer_cli.run(asked, settings)
    return migrate_cli.run(asked, settings)


def _locale(environ: Mapping[str, str]) -> Locale:
    """The language to speak before all settings are read; other faults do not matter here."""
    found: Locale | None = Sources(environ, DOTENV).value(BY_NAME["COMET_LOCALE"])
    return found or DEFAULT_LOCALE


def _parser(translator: Translator) -> argparse.ArgumentParser:
    t = translator.t
    parser = argparse.ArgumentParser(
        prog="python -m bot", description=t("cli.about"), epilog=t("cli.settings_hint")
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    verbs.add_parser("run", help=t("cli.run"), description=t("cli.run"))
    verbs.add_parser("check", help=t("cli.check"), description=t("cli.check"))
    backup_cli.add_parsers(verbs, translator)
    transfer_cli.add_parser(verbs, translator)
    migrate_cli.add_parser(verbs, translator)
    table = verbs.add_parser("settings-table", help=t("cli.table"), description=t("cli.table"))
    table.add_argument("--locale", choices=supported, default=translator.default_locale)
    form = table.add_mutually_exclusive_group()
    form.add_argument("--env", action="store_true", help=t("cli.table_env"))
    form.add_argument("--write", type=Path, metavar="FILE", help=t("cli.table_write"))
    return parser


def _refuse(error: SettingsError, translator: Translator) -> None:
    print(translator.t("settings.refused", n=len(error.faults)), file=sys.stderr)
    for fault in error.faults:
        print(f"  ✖ {fault.text(translator)}", file=sys.stderr)


def _settings_table(asked: argparse.Namespace) -> int:
    from bot.settings_docs import render_env_example, render_settings_table, replace_block

    if asked.write is not None:
        path: Path = asked.write
        try:
            path.write_text(replace_block(path.read_text("utf-8"), asked.locale), "utf-8")
        except (OSError, ValueError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            return EXIT_FAILED
        return EXIT_FINE
    text = render_env_example() if asked.env else render_settings_table(asked.locale)
    sys.stdout.write(text)
    return EXIT_FINE


def _run(settings: Settings) -> int:
    """1. log, 2. what the settings are worth saying, 3. the app until it is told to stop."""
    from bot.logs import configure_logging
    from bot.redaction import Redactor

    logs = configure_logging(settings, Redactor(settings.secrets()))
    logger = logging.getLogger(__name__)
    translator = Translator(settings.comet_locale)
    try:
        for remark in settings.warnings:
            logger.warning("%s", remark.text(translator))
        for remark in settings.notices:
            logger.info("%s", remark.text(translator))
        from bot.app import run

        return asyncio.run(run(settings))
    except KeyboardInterrupt:
        return EXIT_FINE
    except Exception:
        logger.critical("stopped by an error of its own", exc_info=True)
        return EXIT_FAILED
    finally:
        logs.close()


def _check(settings: Settings) -> int:
    from bot.check import check

    return EXIT_FINE if asyncio.run(check(settings, sys.stdout)) else EXIT_FAILED
