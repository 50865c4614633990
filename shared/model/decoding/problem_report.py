"""Collects problems as they are found, with the path of each."""

from collections.abc import Iterator
from typing import Final

from shared.model.decoding.nodes import DocumentNode, ListNode, MapNode, SourceLines, own_entries
from shared.model.problems import Path, Problem, path_text

MAX_FAULTS: Final = 1_000
"""More than anyone reads; a body made of problems must not become an answer many times its size."""


class TooManyProblems(Exception):
    """Too many problems: the rest of the document is not checked."""


class ProblemReport:
    """All problems of one document, in the order of their places in it."""

    def __init__(self) -> None:
        self._found: list[tuple[Path, str, int | None]] = []
        self._lost: set[Path] = set()

    def lose(self, path: Path, message: str, offset: int | None) -> None:
        """Add a problem that leaves no value at all: nothing more can be said of what is under it."""
        self._lost.add(path)
        self.add(path, message, offset)

    def add(self, path: Path, message: str, offset: int | None) -> None:
        """Add a problem. Raises `TooManyProblems` past the limit."""
        self._found.append((path, message, offset))
        if len(self._found) >= MAX_FAULTS:
            self.stop(path, f"and more: only the first {MAX_FAULTS} problems are listed", offset)

    def stop(self, path: Path, message: str, offset: int | None) -> None:
        """Add a problem and raise `TooManyProblems`: nothing more is looked at."""
        self._found.append((path, message, offset))
        raise TooManyProblems

    def lost(self, path: Path) -> bool:
        """Return whether there is no value at this path because of a problem there or above it."""
        lengths = range(len(path) + 1) if self._lost else ()
        return any(path[:length] in self._lost for length in lengths)

    def __bool__(self) -> bool:
        return bool(self._found)

    def problems(self, text: str) -> list[Problem]:
        """Return the problems with their lines and columns, from the top of the document down."""
        lines = SourceLines(text)
        end = len(text) + 1
        found = sorted(self._found, key=lambda one: end if one[2] is None else one[2])
        return [_problem(path, message, offset, lines) for path, message, offset in found]


def _problem(path: Path, message: str, offset: int | None, lines: SourceLines) -> Problem:
    if offset is None:
        return Problem(path_text(path), message)
    place = lines.place(offset)
    return Problem(path_text(path), message, place.line, place.column)


def locate(root: DocumentNode, path: Path) -> int:
    """Return the offset of the deepest node on a path that is there."""
    node = root
    for step in path:
        found = _step(node, step)
        if found is None:
            break
        node = found
    return node.offset


def _step(node: DocumentNode, step: str | int) -> DocumentNode | None:
    if isinstance(node, ListNode) and isinstance(step, int):
        return node.items[step] if step < len(node.items) else None
    if isinstance(node, MapNode) and isinstance(step, str):
        return next(_named(node, step), None)
    return None


def _named(node: MapNode, name: str) -> Iterator[DocumentNode]:
    """Yield the value of a key, a map's own before those of its merges; each map is looked at once."""
    waiting, seen = [node], {id(node)}
    while waiting:
        own, merges, _ = own_entries(waiting.pop(0))
        if name in own:
            yield own[name].value
        fresh = [m for m in merges if isinstance(m, MapNode) and id(m) not in seen]
        seen.update(map(id, fresh))
        waiting.extend(fresh)
