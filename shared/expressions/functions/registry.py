"""The functions of the language, and the two that jobs have besides. Loops are in `loops`."""

from __future__ import annotations

from collections.abc import Callable

from shared.expressions.compilation.code import Frame
from shared.expressions.errors import ExpressionError
from shared.expressions.functions.arrays import ARRAYS
from shared.expressions.functions.conversions import CONVERSIONS
from shared.expressions.functions.numbers import NUMBER_FUNCTIONS
from shared.expressions.functions.texts import TEXT_FUNCTIONS
from shared.expressions.functions.times import TIMES
from shared.expressions.operations.operators import to_int
from shared.expressions.values.kinds import Ints, is_int, type_name

_Implementation = Callable[..., object]
"""Takes the frame, then the arguments, whose number has been checked. Raises a fault for wrong ones."""


def _bound(value: object) -> int:
    """Return a bound of a sequence, nil counting as zero."""
    if value is None:
        return 0
    if not is_int(value):
        raise ExpressionError(f"sequence takes an int, not {type_name(value)}")
    return to_int(value)


def _sequence(frame: Frame, start: object, stop: object) -> object:
    first, last = _bound(start), _bound(stop)
    frame.budget.build(max(0, last - first))
    return Ints(range(first, last))


def _random_int(frame: Frame, *bound: object) -> object:
    if not bound:
        return frame.random.getrandbits(63)
    limit = to_int(bound[0])
    if limit <= 0:
        raise ExpressionError("randomInt takes a number above zero")
    return frame.random.randrange(limit)


FUNCTIONS: dict[str, _Implementation] = {
    **TEXT_FUNCTIONS,
    **NUMBER_FUNCTIONS,
    **ARRAYS,
    **CONVERSIONS,
    **TIMES,
}
"""The functions of the language."""
EXTRA_FUNCTIONS: dict[str, _Implementation] = {"randomInt": _random_int, "sequence": _sequence}
"""The functions of the job language, found as if they stood in the scope."""
