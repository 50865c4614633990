"""No loop of the product is forgotten by the tests that have loops fail: its name stands in their lists, or here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_loops import OF_ALL, OF_CLUSTERS, OF_STANDALONE

ROOT = Path(__file__).parents[2]
PRODUCT = ("coordinator", "haulier", "shared", "worker")

GIVEN = {"ends-stored", "handle events", "later-writes", "log-parts", "send events"}
"""Names that a batcher or a backlog is given for its loop: that they are tried is seen where they are started."""

NOT_TRIED = {
    "access of a stream": (
        "only with users or a key, and who looks is the request's own",
        "tests/unit/api/test_roles.py",
        "test_a_stream_ends_when_its_reader_may_no_longer_read_it",
    ),
    "usage of a task": (
        "only with Docker or Podman: a sample that is missed costs a figure",
        "tests/contract/test_runtime.py",
        "test_usage",
    ),
    "extension": (
        "only with an extension that observes: what it is not told it has missed",
        "tests/unit/test_extensions.py",
        "test_an_observer_hears_all_in_order_and_holds_nobody_up",
    ),
}
"""Name of a loop that no system of `test_loops` starts → why, and the test of what it does."""


def names_in_product() -> Iterator[str]:
    """Return the name in each `Loop("…"` of the product."""
    for part in PRODUCT:
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(func=ast.Name("Loop"), args=[ast.Constant(str(name)), *_]):
                        yield name


def test_each_loop_is_tried_or_said_not_to_be() -> None:
    tried = {*OF_ALL, *OF_STANDALONE, *OF_CLUSTERS}
    assert set(names_in_product()) == {*tried, *NOT_TRIED} - GIVEN


@pytest.mark.parametrize("name", NOT_TRIED)
def test_what_is_not_tried_has_a_test_of_what_it_does(name: str) -> None:
    _, path, test = NOT_TRIED[name]
    assert f"async def {test}(" in (ROOT / path).read_text(), "the test has another name"
