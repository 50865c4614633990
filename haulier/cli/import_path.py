"""The commands that work with the other rooms: `shared`, `coordinator`, `worker`.

A project may have folders of these names itself, and `PYTHONPATH` or the current folder may put
them before ours. So nothing of a room is imported before ours come first, and commands that only
ask a server never import one.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final

import click

from haulier.cli.general import add_options
from haulier.cli.interrupts import leaving_at_once
from haulier.errors import HaulierError

ROOMS: Final = ("shared", "coordinator", "worker")

_DISTRIBUTION: Final = Path(__file__).resolve().parents[2]
"""The folder of all rooms: `site-packages`, or the repository of an editable installation."""


_WHOLE: Final = 200
"""Characters of a sentence in the help: more than any of ours has."""


class LazyCommands(click.Group):
    """A group whose commands are imported when they are asked for.

    `places`: where each command is, `module:name`, by its name. `room_places`: those that work with
    other rooms. `sections`: what the help lists together, under which heading.
    """

    def __init__(
        self,
        *args: Any,
        places: dict[str, str],
        room_places: dict[str, str],
        sections: dict[str, str],
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.sections = {heading: names.split() for heading, names in sections.items()}
        self._places = places | room_places
        self._rooms = room_places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in order."""
        return sorted({*super().list_commands(ctx), *self._places})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each command does, in whole sentences."""
        for heading, names in self.sections.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                assert command is not None, name
                said = command.get_short_help_str(limit=_WHOLE).partition(";")[0]
                rows.append((name, said.removesuffix(".")))
            with formatter.section(heading):
                formatter.write_dl(rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command. Raises `HaulierError` if the rooms that it needs are not ours."""
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in self._places:
            if cmd_name in self._rooms:
                put_rooms_first()
            with leaving_at_once():
                command = resolve_name(self._places[cmd_name])
        if command is not None:
            add_options(command)
        return command


def put_rooms_first() -> None:
    """Make the rooms of this distribution the ones that are imported from now on.

    Raises `HaulierError` where another module of such a name is loaded already: it can't be
    replaced without breaking the program that uses it.
    """
    if sys.path[0] != str(_DISTRIBUTION):
        sys.path.insert(0, str(_DISTRIBUTION))
    for room in ROOMS:
        spec = find_spec(room)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin != _DISTRIBUTION / room / "__init__.py":
            raise HaulierError(
                f"this process has loaded another module named {room} ({origin or 'a folder'}): "
                "run the haulier command in a process of its own"
            )
