"""`haulier config` and `haulier version`."""

from __future__ import annotations

import json
from typing import Final

import click

from haulier import __version__
from haulier.cli.calls import MISUSE
from haulier.cli.output import complain, say_on_stderr
from shared.config import ConfigurationError, Override, load
from shared.config.show import as_toml
from shared.config.show import settings_as_json as origins_and_values


@click.command("config")
@click.option("--config", "file", metavar="FILE", help="Configuration file to read.")
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a setting; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: {key: {value, origin}}.")
def config_command(file: str | None, assignments: tuple[str, ...], as_json: bool) -> int:
    """Print the settings in effect and where each one comes from, with secrets masked."""
    try:
        loaded = load([override(text) for text in assignments], file=file)
    except ConfigurationError as error:
        complain(str(error))
        return MISUSE
    for warning in loaded.warnings:
        say_on_stderr(f"haulier: {warning}")
    if as_json:
        click.echo(json.dumps(origins_and_values(loaded), indent=2, ensure_ascii=False))
    else:
        click.echo(as_toml(loaded))
    return 0


def override(text: str) -> Override:
    """Return what `--set text` says. Raises `BadParameter`."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise click.BadParameter("must be KEY=VALUE, like engine.beat=2s", param_hint="--set")
    return Override("--set", path.strip(), value)


@click.command("version")
def version_command() -> None:
    """Print the version."""
    click.echo(f"haulier {__version__}")


SETTINGS_COMMANDS: Final = (config_command, version_command)
