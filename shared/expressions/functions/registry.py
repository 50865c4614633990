"""The functions of the language, and the two that jobs have besides. Loops are in `loops`."""

from __future__ import annotations

from collections.abc import Callable

from shared.expressions.functions.arrays import ARRAYS, sequence
from shared.expressions.functions.conversions import CONVERSIONS
from shared.expressions.functions.numbers import NUMBER_FUNCTIONS, random_int
from shared.expressions.functions.texts import TEXT_FUNCTIONS
from shared.expressions.functions.times import TIMES

_Implementation = Callable[..., object]
"""Takes the frame, then the arguments, whose number has been checked. Raises a fault for wrong ones."""

FUNCTIONS: dict[str, _Implementation] = {
    **TEXT_FUNCTIONS,
    **NUMBER_FUNCTIONS,
    **ARRAYS,
    **CONVERSIONS,
    **TIMES,
}
"""The functions of the language."""
EXTRA_FUNCTIONS: dict[str, _Implementation] = {"randomInt": random_int, "sequence": sequence}
"""The functions of the job language, found as if they stood in the scope."""
