"""A decision taken step by step, so that a test can put anything between two of its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coordinator.effects import FlowDriver
from coordinator.engine.flow import Flow


class Stepper:
    """Takes a flow on, one effect at a time."""

    def __init__(self, driver: FlowDriver, flow: Flow[Any]) -> None:
        self._driver = driver
        self._flow = flow
        self._answer: Any = None
        self._next: Any = None
        self.done = False
        self.value: Any = None
        self._advance()

    def _advance(self) -> None:
        try:
            self._next = self._flow.send(self._answer)
        except StopIteration as end:
            self.done, self.value = True, end.value

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        """Go on until the next effect is one that is `wanted`; return it, not taken yet."""
        while not self.done and not wanted(self._next):
            await self.take()
        assert not self.done, "the decision came to its end before that"
        return self._next

    async def finish(self) -> Any:
        """Go on to the end, and return what the flow gives."""
        while not self.done:
            await self.take()
        return self.value

    async def take(self) -> None:
        """Take the next effect."""
        self._answer = await self._driver._steps[type(self._next)](self._next)
        self._advance()


def changes(kind: type, **fields: Any) -> Callable[[Any], bool]:
    """Return the test for a compare-and-set of a `kind` that sets these fields, or for several such."""

    def matches(change: Any) -> bool:
        return (
            getattr(change, "kind", None) is kind
            and hasattr(change, "set")
            and all(change.set.get(name, ...) == value for name, value in fields.items())
        )

    def wanted(effect: Any) -> bool:
        return any(map(matches, getattr(effect, "changes", (effect,))))

    return wanted
