"""The command line of every process that is started: the same flags for each way of starting it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import msgspec

from shared.config.sources import Override
from shared.config.tree import LogFormat, LogLevel, RuntimeType

ProcessRole = Literal["standalone", "coordinator", "worker"]

_LEVELS: Final = ", ".join(get_args(LogLevel))
_FORMATS: Final = " or ".join(get_args(LogFormat))
_RUNTIMES: Final = " or ".join(get_args(RuntimeType))


class Flags(msgspec.Struct, frozen=True):
    """The settings given on a command line."""

    file: str | None = None
    overrides: tuple[Override, ...] = ()


def parse_flags(role: ProcessRole, argv: Sequence[str], program: str) -> Flags:
    """Return what `argv` (without the program's name) says for a process of this role.

    Like any argparse parser it prints help and exits 0 for `--help`, and says what is wrong and
    exits 2 for a flag that it does not know.
    """
    parser = argparse.ArgumentParser(
        prog=program, description=_DESCRIPTIONS[role], allow_abbrev=False
    )
    add_general_flags(parser)
    _add_named_flags(parser, role)
    parsed = parser.parse_args(argv)
    return Flags(parsed.config, tuple(parsed.overrides))


def add_general_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and `--set`, which every process takes."""
    parser.set_defaults(overrides=[])
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="configuration file; by default the first haulier.toml found",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action=_SetAny,
        help="override a setting, for example engine.beat=2s; may be repeated",
    )


_DESCRIPTIONS: Final = {
    "standalone": "Run a coordinator and a worker in one process.",
    "coordinator": "Run a coordinator: the REST API and the engine.",
    "worker": "Run a worker: it takes tasks from queues and runs them.",
}


def _add_named_flags(parser: argparse.ArgumentParser, role: ProcessRole) -> None:
    side = "worker" if role == "worker" else "coordinator"
    what = "GET /health" if role == "worker" else "the REST API"
    _named(parser, "--address", f"{side}.address", "HOST:PORT", f"address of {what}")
    if role != "standalone":
        _named(parser, "--name", f"{role}.name", "NAME", "name of this node in lists")
    if role != "coordinator":
        _named(parser, "--runtime", "runtime.type", "TYPE", f"how tasks run: {_RUNTIMES}")
        parser.add_argument(
            "--ignore-image",
            action=_SetTrue,
            path="runtime.shell.ignore_image",
            help="with --runtime shell: also run tasks that name an image, on this host, ignoring the image",
        )
        parser.add_argument(
            "--queue",
            metavar="NAME=SLOTS",
            action=_SetQueue,
            help="take tasks from this queue, with this number of slots; may be repeated",
        )
    _named(parser, "--log-level", "logging.level", "LEVEL", f"lowest level to log: {_LEVELS}")
    _named(parser, "--log-format", "logging.format", "FORMAT", f"log format: {_FORMATS}")


def _named(
    parser: argparse.ArgumentParser, flag: str, path: str, metavar: str, explanation: str
) -> None:
    parser.add_argument(flag, action=_SetPath, path=path, metavar=metavar, help=explanation)


class _Set(argparse.Action):
    """Add an override, in the order of the command line: later ones win."""

    def __init__(self, option_strings: list[str], dest: str, path: str = "", **more: Any) -> None:
        super().__init__(option_strings, dest, default=argparse.SUPPRESS, **more)
        self.path = path

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002  (argparse's signature)
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        try:
            path, text = self.split(values if isinstance(values, str) else "")
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        override = Override(option_string or self.option_strings[0], path, text)
        namespace.overrides = [*namespace.overrides, override]

    def split(self, value: str) -> tuple[str, str]:
        """Return the path that is meant, and the text it is given."""
        raise NotImplementedError


class _SetAny(_Set):
    def split(self, value: str) -> tuple[str, str]:
        path, equals, text = value.partition("=")
        if not equals or not path.strip():
            raise ValueError("must be KEY=VALUE, like engine.beat=2s")
        return path.strip(), text


class _SetPath(_Set):
    def split(self, value: str) -> tuple[str, str]:
        return self.path, value


class _SetQueue(_Set):
    def split(self, value: str) -> tuple[str, str]:
        name, equals, slots = value.rpartition("=")
        if not equals or not name:
            raise ValueError("must be NAME=SLOTS, like default=4")
        return f"worker.queues.{name}", slots


class _SetTrue(_Set):
    def __init__(self, option_strings: list[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **more)

    def split(self, value: str) -> tuple[str, str]:
        return self.path, value or "true"
