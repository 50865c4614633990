"""Faults as they are found, with the path that the walk is at."""

from collections.abc import Iterator
from typing import Final

from shared.model.decoding.nodes import Entries, Items, Lines, Node, own_entries
from shared.model.problems import Fault, Path, path_text

MAX_FAULTS: Final = 1_000
"""More than anyone reads; a body made of faults must not become an answer many times its size."""


class Stop(Exception):
    """The rest of the document is not looked at."""


class Report:
    """All faults of one document, in the order of their places in it."""

    def __init__(self) -> None:
        self._found: list[tuple[Path, str, int | None]] = []
        self._lost: set[Path] = set()

    def lose(self, path: Path, message: str, offset: int | None) -> None:
        """A fault that leaves no value at all: nothing more can be said of what is under it."""
        self._lost.add(path)
        self.add(path, message, offset)

    def add(self, path: Path, message: str, offset: int | None) -> None:
        """One fault; Stop once there are too many."""
        self._found.append((path, message, offset))
        if len(self._found) >= MAX_FAULTS:
            self.stop(path, f"and more: only the first {MAX_FAULTS} faults are listed", offset)

    def stop(self, path: Path, message: str, offset: int | None) -> None:
        """A fault after which nothing more is looked at."""
        self._found.append((path, message, offset))
        raise Stop

    def lost(self, path: Path) -> bool:
        """Whether there is no value at this path because of a fault there or above it."""
        lengths = range(len(path) + 1) if self._lost else ()
        return any(path[:length] in self._lost for length in lengths)

    def __bool__(self) -> bool:
        return bool(self._found)

    def faults(self, text: str) -> list[Fault]:
        """The faults with their lines and columns, from the top of the document down."""
        lines = Lines(text)
        end = len(text) + 1
        found = sorted(self._found, key=lambda one: end if one[2] is None else one[2])
        return [_fault(path, message, offset, lines) for path, message, offset in found]


def _fault(path: Path, message: str, offset: int | None, lines: Lines) -> Fault:
    if offset is None:
        return Fault(path_text(path), message)
    place = lines.place(offset)
    return Fault(path_text(path), message, place.line, place.column)


def locate(root: Node, path: Path) -> int:
    """The offset of the deepest node on a path that is there."""
    node = root
    for step in path:
        found = _step(node, step)
        if found is None:
            break
        node = found
    return node.offset


def _step(node: Node, step: str | int) -> Node | None:
    if isinstance(node, Items) and isinstance(step, int):
        return node.items[step] if step < len(node.items) else None
    if isinstance(node, Entries) and isinstance(step, str):
        return next(_named(node, step), None)
    return None


def _named(node: Entries, name: str) -> Iterator[Node]:
    """The value of a key, a map's own before those of its merges; each map is looked at once."""
    waiting, seen = [node], {id(node)}
    while waiting:
        own, merges, _ = own_entries(waiting.pop(0))
        if name in own:
            yield own[name].value
        fresh = [m for m in merges if isinstance(m, Entries) and id(m) not in seen]
        seen.update(map(id, fresh))
        waiting.extend(fresh)
