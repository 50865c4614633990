"""Inspects a network namespace, to find out whether a task has left anything in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

Lines = list[list[str]]

_OWN_COUNTS = frozenset({"used", "inuse", "tw"})
_LONGEST = 256 * 1024


def _all(lines: Lines) -> list[tuple[str, ...]]:
    return [tuple(line) for line in lines]


def _counts(lines: Lines) -> list[tuple[str, ...]]:
    """Return how many sockets there are of each kind, those in time-wait too; what else is there is the machine's."""
    found = []
    for line in lines:
        pairs = zip(line[1::2], line[2::2], strict=False)
        found.append((line[0], *(f"{key} {value}" for key, value in pairs if key in _OWN_COUNTS)))
    return found


def _first(lines: Lines) -> list[tuple[str, ...]]:
    return sorted((line[0],) for line in lines if line)


def _without_counters(lines: Lines) -> list[tuple[str, ...]]:
    """Return an IPv6 route without its use: destination, source, next hop, flags, device."""
    return sorted((*line[:5], *line[8:]) for line in lines)


_COMPARED: dict[str, Callable[[Lines], list[tuple[str, ...]]]] = {
    "sockstat": _counts,  # the tables of sockets themselves take milliseconds to read
    "sockstat6": _counts,
    "dev": _first,  # the rest of a line counts packets
    "route": _all,
    "if_inet6": _all,
    "ipv6_route": _without_counters,
    "ip_tables_names": _all,
    "ip6_tables_names": _all,
    "arp": lambda lines: [tuple(line) for line in lines if len(line) > 2 and line[2] == "0x6"],
}
"""Files of /proc/net, and what of each must be as it was. Of arp only what was set by hand."""


class Namespace:
    """The network namespace of a process, for as long as that lives."""

    def __init__(self, process: int) -> None:
        """Raise OSError where the process cannot be seen."""
        self._folder = os.open(f"/proc/{process}", os.O_DIRECTORY | os.O_CLOEXEC)
        self._before: dict[str, list[tuple[str, ...]]] = {}

    def program(self) -> str:
        """Return the name of the process's program. Raises OSError when it has ended."""
        return self._read("comm").strip()

    def remember(self) -> None:
        """Take what it looks like now for clean. Raises OSError."""
        self._before = self._look()

    def clean(self) -> bool:
        """Return whether it looks as it did: no socket left, time-wait included, and nothing else new."""
        try:
            return self._look() == self._before
        except OSError:
            return False

    def close(self) -> None:
        """Let go of it."""
        os.close(self._folder)

    def _look(self) -> dict[str, list[tuple[str, ...]]]:
        self._read("comm")  # fails when the process has ended
        found = {}
        for name, compared in _COMPARED.items():
            try:
                lines = [line.split() for line in self._read(f"net/{name}").splitlines()]
            except FileNotFoundError:  # not in this kernel
                continue
            found[name] = compared(lines)
        return found

    def _read(self, name: str) -> str:
        with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=self._folder), "rb") as file:
            return file.read(_LONGEST).decode("ascii", "replace")


def is_own(process: int) -> bool:
    """Return whether a process is in another network namespace than this one. Raises OSError."""
    return Path(f"/proc/{process}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
