"""The `tools/measure` command: one table of the shape of the product, for one tree or two."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from devservices.places import ROOT
from structure import path
from structure.source import PRODUCT, SMALL_LINES, SourceTree, places_by_file


@dataclass
class Measured:
    """What one tree measures: files and lines by room, figures by name, and the lists behind some."""

    rooms: dict[str, str] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)

    def count(self, name: str, things: list[str]) -> None:
        """Add a list, and its length as a figure."""
        self.figures[name] = str(len(things))
        self.lists[name] = things


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 1 where something could not be measured."""
    parser = argparse.ArgumentParser(prog="tools/measure", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the things that are counted too")
    parser.add_argument("--trace", action="store_true", help="run a task, and count what it passes")
    parser.add_argument("--compare", metavar="REF", help="measure that commit too, as before")
    given = parser.parse_args(arguments)
    ways = path.answering_ways() if given.trace else []
    try:
        trees: dict[str, Measured] = {}
        if given.compare:
            with _checkout(given.compare) as root:
                trees[given.compare] = measure(root, ways)
        trees["now"] = measure(ROOT, ways)
    except (path.PathError, TimeoutError, subprocess.CalledProcessError) as error:
        print(f"measure: {getattr(error, 'stderr', None) or error}", file=sys.stderr)
        return 1
    _print_table(trees)
    if given.list:
        _print_lists(trees["now"])
    return 0


def measure(root: Path, ways: Sequence[str]) -> Measured:
    """Measure the checkout at `root`; the path of a task by each of the ways."""
    tree, measured = SourceTree(root), Measured()
    for room, (files, lines) in tree.rooms().items():
        measured.rooms[room] = f"{lines} in {files}"
    total = sum(file.lines for file in tree.product)
    measured.figures["product, lines in files"] = f"{total} in {len(tree.product)}"
    _measure_functions(tree, measured)
    measured.count(f"product files under {SMALL_LINES} lines", tree.small_files())
    for kind, names in tree.repeated_names().items():
        measured.count(f"public {kind} names of several modules", names)
    makers = tree.task_makers()
    measured.count("tasks made outside supervision", places_by_file(makers))
    measured.figures["tasks made outside supervision"] = str(len(makers))
    for way in ways:
        measured.count(f"files on a task's path ({way})", asyncio.run(path.passed(root, way)))
    return measured


def _measure_functions(tree: SourceTree, measured: Measured) -> None:
    functions = tree.functions()
    measured.figures["functions"] = str(len(functions))
    for name, share in (("median", 0.5), ("nine of ten at most", 0.9)):
        lines = functions[int(share * (len(functions) - 1))].lines
        measured.figures[f"function lines, {name}"] = str(lines)
    longest = functions[-1]
    measured.figures["function lines, longest"] = f"{longest.lines} {longest.place}"


@contextmanager
def _checkout(ref: str) -> Iterator[Path]:
    """A work tree of a commit, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="haulier-measure-") as folder:
        tree = Path(folder).resolve() / "tree"
        _git("worktree", "add", "--quiet", "--detach", str(tree), ref)
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)


def _print_table(trees: Mapping[str, Measured]) -> None:
    table = Table("lines in files, by room", *trees, box=None, pad_edge=False)
    rooms = {room for measured in trees.values() for room in measured.rooms}
    for room in sorted(rooms, key=_product_first):
        table.add_row(room, *(measured.rooms.get(room, "") for measured in trees.values()))
    table.add_section()
    for name in dict.fromkeys(name for measured in trees.values() for name in measured.figures):
        table.add_row(name, *(measured.figures.get(name, "") for measured in trees.values()))
    _console().print(table)


def _product_first(room: str) -> tuple[int, str]:
    top = room.partition("/")[0]
    return PRODUCT.index(top) if top in PRODUCT else len(PRODUCT), room


def _print_lists(measured: Measured) -> None:
    for name, things in measured.lists.items():
        print(f"\n{name}:")
        for thing in things:
            print(f"  {thing}")


def _console() -> Console:
    """Lines are as long as they are where nobody watches."""
    return Console() if sys.stdout.isatty() else Console(width=160)


if __name__ == "__main__":
    sys.exit(main())
