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

from haulier.errors import HaulierError

ROOMS: Final = ("shared", "coordinator", "worker")

_DISTRIBUTION: Final = Path(__file__).resolve().parents[2]
"""The folder of all rooms: `site-packages`, or the repository of an editable installation."""


class RoomCommands(click.Group):
    """A group whose commands in `room_commands` are imported when they are asked for.

    `room_commands`: where each command is, `module:name`, by its name.
    """

    def __init__(self, *args: Any, room_commands: dict[str, str], **more: Any) -> None:
        super().__init__(*args, **more)
        self._places = room_commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in order."""
        return sorted([*super().list_commands(ctx), *self._places])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command. Raises `HaulierError` if the rooms that it needs are not ours."""
        if cmd_name not in self._places:
            return super().get_command(ctx, cmd_name)
        put_rooms_first()
        command: click.Command = resolve_name(self._places[cmd_name])
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
