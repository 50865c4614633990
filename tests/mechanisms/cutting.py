"""Knives: changing one step of the engine's flows, one condition of a compare-and-set, one answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import pytest

from coordinator.effects import FlowDriver
from coordinator.engine.flow import Flow
from shared.model.documents import Document
from shared.model.queries import Change

T = TypeVar("T")
AnyChange = Change[Any]


def rewrite_changes(patch: pytest.MonkeyPatch, rewrite: Callable[[AnyChange], AnyChange]) -> None:
    """Have each compare-and-set of the engine made as `rewrite` says."""
    made = FlowDriver._change

    async def change(self: FlowDriver, effect: AnyChange) -> Document | None:
        return await made(self, rewrite(effect))

    patch.setattr(FlowDriver, "_change", change)


def unlooked(effect: AnyChange, *fields: str) -> AnyChange:
    """Return a compare-and-set that does not compare `fields`."""
    where = {name: value for name, value in effect.where.items() if name not in fields}
    return msgspec.structs.replace(effect, where=where)


def setting(effect: AnyChange, **fields: Any) -> AnyChange:
    """Return a compare-and-set that sets these values instead."""
    return msgspec.structs.replace(effect, set={**effect.set, **fields})


def ends_a_run(effect: AnyChange) -> bool:
    """Whether a compare-and-set is the one that applies the end of a run."""
    return "log_parts" in effect.set


def grants(effect: AnyChange) -> bool:
    """Whether a compare-and-set is the one that grants a claim."""
    return "claim_beat" in effect.set


def answering(flow: Flow[T], alter: Callable[[Any, Any], Any]) -> Flow[T]:
    """Take `flow` with each answer as `alter(effect, answer)` gives it."""
    answer: Any = None
    while True:
        try:
            effect = flow.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value
        answer = alter(effect, (yield effect))


def nothing(*_: Any, **__: Any) -> Flow[list[Document]]:
    """Decide nothing: a flow that ends at once."""
    yield from ()
    return []


async def idle(*_: Any, **__: Any) -> None:
    """Do nothing."""


def read_as(kind: type[Document], fields: Mapping[str, Any]) -> Callable[[Any, Any], Any]:
    """Alter documents of `kind` that are read, so that they seem to have `fields`."""

    def alter(_: Any, answer: Any) -> Any:
        return msgspec.structs.replace(answer, **fields) if isinstance(answer, kind) else answer

    return alter
