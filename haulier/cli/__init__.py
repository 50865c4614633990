"""The `haulier` command."""

from __future__ import annotations

from haulier import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from haulier.cli.main import cli

__all__ = ["cli", "run_cli"]


def __getattr__(name: str) -> Any:
    """Return the group of all commands, which is imported only once it is asked for."""
    if name != "cli":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from haulier.cli.main import cli as group

    return group


def run_cli(argv: Sequence[str] | None = None) -> None:
    """Run the command by `argv` (the process's own by default) and exit with its code.

    0: it was done. 1: it failed, or the job did. 2: it was asked for in a wrong way. 3: the server
    can't be reached. 4: the server refuses who asks. What is wrong is said in a line on stderr.
    """
    import sys

    try:
        from haulier.cli.interrupts import leaving_at_once

        with leaving_at_once():
            from haulier.cli.main import exit_code
        code = exit_code(argv)
    except KeyboardInterrupt:
        leave()
    sys.exit(code)


def leave(*_: object) -> NoReturn:
    """End the process, interrupted before anything was asked of a server: what runs later tells about that itself."""
    import os

    os.write(2, b"haulier: interrupted before anything was done\n")
    os._exit(130)
