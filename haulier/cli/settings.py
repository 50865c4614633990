"""`haulier config`: the settings in effect."""

from __future__ import annotations

import os
from pathlib import Path

import click

from haulier.cli.forms import json_option
from haulier.cli.general import EXIT_MISUSE
from haulier.cli.output import complain, say_on_stderr, show_json_value
from shared.config import ConfigurationError, Override, load
from shared.config.flags import configuration_options
from shared.config.from_tork import settings_file as as_file
from shared.config.from_tork import translate_settings
from shared.config.show import as_toml
from shared.config.show import settings_as_json as origins_and_values
from shared.errors import ApplicationError


@click.command("config", params=configuration_options())
@json_option
@click.option(
    "--from-tork",
    type=click.Path(),
    metavar="FILE",
    help="Print the settings that Tork's configuration FILE and TORK_ variables come to, secrets included.",
)
def config_command(
    config: str | None, set: tuple[Override, ...], as_json: bool, from_tork: str | None
) -> int:
    """Print the settings in effect and where each came from, with secrets masked.

    With --json each key has its value and origin, or with --from-tork its value.
    """
    if from_tork is not None:
        return _translated(Path(from_tork), as_json=as_json)
    try:
        loaded = load(set, file=config)
    except ConfigurationError as error:
        complain(str(error))
        return EXIT_MISUSE
    for warning in loaded.warnings:
        say_on_stderr(f"haulier: {warning}")
    if as_json:
        show_json_value(origins_and_values(loaded))
    else:
        click.echo(as_toml(loaded))
    return 0


def _translated(file: Path, *, as_json: bool) -> int:
    """Print Tork's settings as ours, and a warning on stderr for each that has no counterpart."""
    try:
        found = translate_settings(file, os.environ)
    except ApplicationError as error:
        complain(str(error))
        return EXIT_MISUSE
    for warning in found.warnings:
        say_on_stderr(f"haulier: {warning}")
    if as_json:
        show_json_value(found.values)
    else:
        click.echo(as_file(found.values), nl=False)
    return 0
