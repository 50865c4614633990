"""Exit codes, and options that stand anywhere on the command line: before the command's name and after it."""

from __future__ import annotations

import os
from typing import Any, Final

import click

from haulier import DEFAULT_SERVER

EXIT_FAULT: Final = 1
EXIT_MISUSE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_REFUSED: Final = 4
EXIT_INTERRUPTED: Final = 130

ASKS_SERVER: Final = "asks_server"
"""The attribute of a command's function by which it gets the options that name the server."""
_SERVER: Final = "haulier.server"
_KEY: Final = "haulier.key"
_TLS_FILES: Final = {
    "ca": "PEM file of the authorities to trust instead of the system's.",
    "cert": "PEM file of a certificate to show to servers that ask for one.",
    "cert-key": "PEM file of its key, if the key is not in the same file.",
}
"""Options that name files of TLS, in the order of `TlsFiles`."""


def general_options() -> list[click.Option]:
    """Return `--version` and `--color`, which every command has."""
    return [
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Print the version and exit.",
        ),
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            expose_value=False,
            callback=_set_color,
            help="Whether to use colours; auto: on a terminal, if NO_COLOR is not set.",
        ),
    ]


def server_options() -> list[click.Option]:
    """Return the options that name whom to ask, and as whom."""
    return [
        click.Option(
            ["--server"],
            metavar="URL",
            expose_value=False,
            callback=_keep(_SERVER),
            help="URL of the server; can include user:password@. "
            f"[env var: HAULIER_SERVER; default: {DEFAULT_SERVER}]",
        ),
        click.Option(
            ["--key"],
            expose_value=False,
            callback=_keep(_KEY),
            help="Key or token, if the server requires one. [env var: HAULIER_KEY]",
        ),
        *(
            click.Option(
                [f"--{name}"],
                type=click.Path(),
                metavar="FILE",
                expose_value=False,
                callback=_keep(f"haulier.{name}"),
                help=f"{about} [env var: {_variable(name)}]",
            )
            for name, about in _TLS_FILES.items()
        ),
    ]


def _keep(name: str) -> Any:
    def kept(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.meta[name] = value

    return kept


def server_of(ctx: click.Context) -> tuple[str, str | None, list[str]]:
    """Return the server's URL, the key and the files of TLS, by options or else by the environment."""
    server = ctx.meta.get(_SERVER) or os.environ.get("HAULIER_SERVER") or DEFAULT_SERVER
    key = ctx.meta.get(_KEY) or os.environ.get("HAULIER_KEY") or None
    files = [
        ctx.meta.get(f"haulier.{name}") or os.environ.get(_variable(name), "")
        for name in _TLS_FILES
    ]
    return server, key, files


def _variable(option: str) -> str:
    return f"HAULIER_{option.upper().replace('-', '_')}"


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from haulier import __version__

    click.echo(f"haulier {__version__}")
    ctx.exit()


def _set_color(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value in ("always", "never"):
        ctx.color = value == "always"
    elif value == "auto":
        ctx.color = None
    if ctx.color is None and (os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"):
        ctx.color = False


def _asks_server(command: click.Command) -> bool:
    """Return whether a command, or one in it, asks a server."""
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    return getattr(command.callback, ASKS_SERVER, False) or any(map(_asks_server, inner))


def add_options(command: click.Command) -> None:
    """Give a command, and the commands in it, the options that it lacks of those for all."""
    options = general_options()
    if _asks_server(command):
        options = server_options() + options
    taken = {name for param in command.params for name in param.opts}
    command.params.extend(option for option in options if not taken.intersection(option.opts))
    if isinstance(command, click.Group):
        for each in command.commands.values():
            add_options(each)
