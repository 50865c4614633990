"""What the source of one tree measures: read and parsed, never run."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PRODUCT = ("coordinator", "worker", "shared", "haulier")
"""The rooms that are installed. All other folders with Python in them count as totals."""

SMALL_LINES = 60
"""A file of fewer lines is small."""

SHORT_BY_NATURE = frozenset({"__init__.py", "__main__.py"})
SUPERVISION = Path("shared/supervision.py")
"""Where asyncio tasks may be made."""

TASK_MAKERS = frozenset({"create_task", "ensure_future"})
LOGGER = "log"
"""Every module has its own: no second meaning."""

CLASS, FUNCTION, CONSTANT = "class", "function", "constant"


@dataclass(frozen=True)
class Function:
    """A function or method, nested ones too, from its `def` to its last line."""

    place: str
    """`file:line name`."""
    lines: int


class SourceFile:
    """A Python file of a tree."""

    def __init__(self, tree: Path, path: Path) -> None:
        self.path = path
        """Relative to the tree."""
        text = (tree / path).read_text(encoding="utf-8")
        self.lines = text.count("\n")
        self._module = ast.parse(text)

    @property
    def small(self) -> bool:
        """Whether it has too few lines for a file of its own."""
        return self.lines < SMALL_LINES and self.path.name not in SHORT_BY_NATURE

    def functions(self) -> Iterator[Function]:
        """Yield its functions."""
        for node in ast.walk(self._module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield Function(f"{self.path}:{node.lineno} {node.name}", lines)

    @cached_property
    def public_names(self) -> dict[str, str]:
        """The public things it defines at top level, with their kinds."""
        return {
            name: kind
            for statement in self._module.body
            for kind, name in _defined(statement)
            if not name.startswith("_") and name != LOGGER
        }

    def task_makers(self) -> Iterator[str]:
        """Yield the places where it makes an asyncio task or future by hand."""
        for node in ast.walk(self._module):
            if isinstance(node, ast.Call) and _called(node.func) in TASK_MAKERS:
                yield f"{self.path}:{node.lineno}"


def _defined(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    match statement:
        case ast.ClassDef(name=name):
            yield CLASS, name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield FUNCTION, name
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec"))):
            return
        case ast.Assign(targets=targets):
            yield from ((CONSTANT, target.id) for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield CONSTANT, name


def _called(function: ast.expr) -> str:
    match function:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


class SourceTree:
    """All Python of a checkout: what Git tracks, and what it would add."""

    def __init__(self, root: Path) -> None:
        self.root = root
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
        listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
        paths = {Path(line) for line in listed.stdout.splitlines()}
        self.files = [SourceFile(root, path) for path in sorted(paths) if (root / path).is_file()]

    @cached_property
    def product(self) -> list[SourceFile]:
        """The files of the product."""
        return [file for file in self.files if file.path.parts[0] in PRODUCT]

    def rooms(self) -> dict[str, tuple[int, int]]:
        """Return files and lines by room; of a room of the product, by each folder in it too."""
        found: dict[str, tuple[int, int]] = {}
        for file in self.files:
            for room in _rooms_of(file.path):
                files, lines = found.get(room, (0, 0))
                found[room] = files + 1, lines + file.lines
        return found

    def functions(self) -> list[Function]:
        """Return the product's functions, shortest first."""
        every = (function for file in self.product for function in file.functions())
        return sorted(every, key=lambda function: function.lines)

    def small_files(self) -> list[str]:
        """Return the product's small files."""
        return [f"{file.path} {file.lines}" for file in self.product if file.small]

    def repeated_names(self) -> dict[str, list[str]]:
        """Return the public names that more than one module of the product defines, by kind.

        A name that is of several kinds counts as the first of them.
        """
        homes: dict[str, list[SourceFile]] = {}
        for file in self.product:
            for name in file.public_names:
                homes.setdefault(name, []).append(file)
        repeated: dict[str, list[str]] = {CLASS: [], FUNCTION: [], CONSTANT: []}
        for name, files in sorted(homes.items()):
            if len(files) > 1:
                kinds = {file.public_names[name] for file in files}
                kind = next(kind for kind in repeated if kind in kinds)
                repeated[kind].append(f"{name}: {', '.join(str(file.path) for file in files)}")
        return repeated

    def task_makers(self) -> list[str]:
        """Return where the product makes asyncio tasks outside `shared/supervision.py`."""
        return [
            place
            for file in self.product
            if file.path != SUPERVISION
            for place in file.task_makers()
        ]


def _rooms_of(path: Path) -> Iterator[str]:
    yield path.parts[0]
    if path.parts[0] in PRODUCT and len(path.parts) > 2:
        yield "/".join(path.parts[:2])


def places_by_file(places: Iterable[str]) -> list[str]:
    """Return how many places each file has, most first."""
    counted = Counter(place.rpartition(":")[0] for place in places)
    return [f"{file} {count}" for file, count in counted.most_common()]
