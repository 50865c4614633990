"""`haulier config`: the settings in effect."""

from __future__ import annotations

import json

import click

from haulier.cli.calls import MISUSE
from haulier.cli.output import complain, say_on_stderr
from shared.config import ConfigurationError, Override, load
from shared.config.flags import general_options
from shared.config.show import as_toml
from shared.config.show import settings_as_json as origins_and_values


@click.command("config", params=general_options())
@click.option("--json", "as_json", is_flag=True, help="Print JSON: {key: {value, origin}}.")
def config_command(config: str | None, set: tuple[Override, ...], as_json: bool) -> int:
    """Print the settings in effect and where each came from, with secrets masked."""
    try:
        loaded = load(set, file=config)
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
