"""Steps of a coordinator that come to nothing, in silence, as by a fault of the program: the sweeper is to put right
what comes of that, however it came about."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from shared.errors import Unstorable
from shared.model.documents import JobDocument, TaskDocument
from shared.model.queries import Change

SLIP: Final = "slip"
"""What goes wrong, as the checker calls it."""

EVERY: Final = 2
"""In one of so many seeds something slips."""

SO_OFTEN: Final = 6
"""Steps that slip in such a seed, all of one kind."""


def _completes(args: Sequence[Any]) -> bool:
    change = args[0]
    return _of_tasks(change) and "expanded" in change.where and change.set["state"] == "COMPLETED"


def _of_tasks(change: Change[Any]) -> bool:
    return change.kind is TaskDocument and "state" in change.set


def _ends_well(args: Sequence[Any]) -> bool:
    change = args[0]
    return _of_tasks(change) and "log_parts" in change.set and change.set["state"] == "COMPLETED"


def _any(_: Sequence[Any]) -> bool:
    return True


def _finds_open(args: Sequence[Any]) -> bool:
    kind, where = args[0], args[1]
    return kind is TaskDocument and "active" in where and isinstance(where.get("job_id"), str)


def _finds_attached(args: Sequence[Any]) -> bool:
    return args[0] is JobDocument and isinstance(args[1].get("parent_id"), str)


def _drops_ended(args: Sequence[Any]) -> bool:
    return any("ended" in change.drop_then for change in args[0])


def _finds_runs(args: Sequence[Any]) -> bool:
    kind, where = args[0], args[1]
    return kind is TaskDocument and "epoch" in where and isinstance(where.get("node_id"), str)


KINDS: Final[Mapping[str, tuple[str, Callable[[Sequence[Any]], bool], Any]]] = {
    "completion": ("change", _completes, None),
    "hand-over": ("change_first", _any, None),
    "done": ("change_many", _drops_ended, 0),
    "withdrawal": ("find", _finds_open, []),
    "withdrawal of sub-jobs": ("find", _finds_attached, []),
    "lost runs": ("find", _finds_runs, []),
    "end": ("change", _ends_well, Unstorable("simulated: no store keeps this")),
}
"""What slips → the call of the store that it is, which of them, and what is answered in its place."""


def _unheard(_: str) -> None:
    """Take note of nothing."""


class Slips:
    """What slips in a seed. A look that finds nothing anyway does not."""

    def __init__(self, seed: int, *, calm: bool) -> None:
        chance = random.Random(f"{seed} slips")
        self._left = SO_OFTEN if chance.random() * EVERY < 1 and not calm else 0
        self.kind = chance.choice(sorted(KINDS))
        self._call, self._fits, self._answer = KINDS[self.kind]
        self.noted: Callable[[str], None] = _unheard
        """Told of each."""

    @property
    def any_left(self) -> bool:
        """Whether something is still to slip."""
        return self._left > 0

    @property
    def of_withdrawals(self) -> bool:
        """Whether what slips are withdrawals."""
        return self.any_left and self.kind.startswith("withdrawal")

    def end(self) -> None:
        """Have nothing slip any more."""
        self._left = 0

    def slips(self, call: str, args: Sequence[Any]) -> bool:
        """Return whether this call comes to nothing, should it come to something."""
        return self._left > 0 and call == self._call and self._fits(args)

    def answer(self) -> Any:
        """Take note of a slip; return what is answered, or raise it."""
        self._left -= 1
        self.noted(SLIP)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer
