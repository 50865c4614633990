"""The command line of every process that is started: the same flags for each way of starting it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal, NoReturn, get_args

import click
import msgspec

from shared.config.schema import LogFormat, LogLevel, RuntimeType
from shared.config.sources import Override

ProcessRole = Literal["standalone", "coordinator", "worker"]

_LEVELS: Final = ", ".join(get_args(LogLevel))
_FORMATS: Final = " or ".join(get_args(LogFormat))
_RUNTIMES: Final = " or ".join(get_args(RuntimeType))


class Flags(msgspec.Struct, frozen=True):
    """The settings given on a command line."""

    file: str | None = None
    overrides: tuple[Override, ...] = ()


def _any_setting(value: str) -> tuple[str, str]:
    path, equals, text = value.partition("=")
    if not equals or not path.strip():
        raise ValueError("must be KEY=VALUE, like engine.beat=2s")
    return path.strip(), text


def _queue(value: str) -> tuple[str, str]:
    name, equals, slots = value.rpartition("=")
    if not equals or not name:
        raise ValueError("must be NAME=SLOTS, like default=4")
    return f"worker.queues.{name}", slots


def _option(
    flag: str, metavar: str, help: str, split: Callable[[str], tuple[str, str]], **more: Any
) -> click.Option:
    """Return an option each value of which is an override. `split` gives the setting's path and text, or ValueError."""

    def read(
        _ctx: click.Context, _param: click.Parameter, values: Iterable[str]
    ) -> tuple[Override, ...]:
        try:
            return tuple(Override(flag, *split(value)) for value in values)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return click.Option([flag], metavar=metavar, help=help, callback=read, multiple=True, **more)


def _named(flag: str, path: str, metavar: str, help: str, **more: Any) -> click.Option:
    return _option(flag, metavar, help, lambda value: (path, value), **more)


def configuration_options() -> list[click.Option]:
    """Return `--config` and `--set`, for whatever reads the configuration."""
    return [
        click.Option(
            ["--config"],
            type=click.Path(),
            metavar="FILE",
            help="Configuration file; by default the first haulier.toml found.",
        ),
        _option(
            "--set",
            "KEY=VALUE",
            "Override a setting, for example engine.beat=2s; may be repeated.",
            _any_setting,
        ),
    ]


def _options(role: ProcessRole) -> Iterator[click.Option]:
    yield from configuration_options()
    side = "worker" if role == "worker" else "coordinator"
    what = "GET /health" if role == "worker" else "the REST API"
    yield _named("--address", f"{side}.address", "HOST:PORT", f"Address of {what}.")
    if role != "standalone":
        yield _named("--name", f"{role}.name", "NAME", "Name of this node in lists.")
    if role == "worker":
        yield _named(
            "--once",
            "worker.once",
            "",
            "Take one task, and exit when it has ended.",
            is_flag=True,
            flag_value="true",
        )
    if role != "coordinator":
        yield _named("--runtime", "runtime.type", "TYPE", f"How tasks run: {_RUNTIMES}.")
        yield _named(
            "--ignore-image",
            "runtime.shell.ignore_image",
            "",
            "With --runtime shell: also run tasks that name an image, on this host, ignoring the image.",
            is_flag=True,
            flag_value="true",
        )
        yield _option(
            "--queue",
            "NAME=SLOTS",
            "Take tasks from this queue, with this number of slots; may be repeated.",
            _queue,
        )
    yield _named("--log-level", "logging.level", "LEVEL", f"Lowest level to log: {_LEVELS}.")
    yield _named("--log-format", "logging.format", "FORMAT", f"Log format: {_FORMATS}.")


_HELP: Final = {
    "standalone": "Run a coordinator and a worker in one process.",
    "coordinator": "Run a coordinator: the REST API and the engine.",
    "worker": "Run a worker: it takes tasks from queues and runs them.",
}


class FlagsCommand(click.Command):
    """Starts a process of one role: calls `begin` with its flags, and exits with what that returns."""

    def __init__(self, role: ProcessRole, begin: Callable[[Flags], int]) -> None:
        super().__init__(
            role,
            params=list(_options(role)),
            help=_HELP[role],
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        self._begin = begin

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the flags, and keep their order: click itself gives the values of each flag apart."""
        _, _, ctx.obj = self.make_parser(ctx).parse_args(args=list(args))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> NoReturn:
        """Begin, and exit."""
        given = {name: iter(values) for name, values in ctx.params.items() if name != "config"}
        overrides = (next(given[flag.name]) for flag in ctx.obj if flag.name in given)
        ctx.exit(self._begin(Flags(ctx.params["config"], tuple(overrides))))
