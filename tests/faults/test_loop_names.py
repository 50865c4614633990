"""No loop of the product is forgotten by the tests that have loops fail: its name stands in their lists."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.faults.test_loops import OF_KINDS

ROOT = Path(__file__).parents[2]
PRODUCT = ("coordinator", "haulier", "shared", "worker")

GIVEN = {"ends-stored", "handle events", "later-writes", "log-parts", "send events"}
"""Names that a batcher or a backlog is given for its loop: that they are tried is seen where they are started."""


def names_in_product() -> Iterator[str]:
    """Return the name in each `Loop("…"` of the product."""
    for part in PRODUCT:
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(func=ast.Name("Loop"), args=[ast.Constant(str(name)), *_]):
                        yield name


def test_each_loop_is_tried() -> None:
    assert (
        set(names_in_product()) == {name for names in OF_KINDS.values() for name in names} - GIVEN
    )
