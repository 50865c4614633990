"""Regular expressions by RE2: linear in their input, whatever the pattern."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import re2

from shared.expressions.errors import ExpressionError, limit_error
from shared.expressions.limits import MAX_PATTERN
from shared.expressions.values.strings import to_bytes

_MEMORY = 4 * 1024 * 1024
"""Bytes that RE2 may spend on one pattern."""
_BYTE = re.compile(r"(?<!\\)(?:\\\\)*\\C")


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    return options


_OPTIONS = _options()


@lru_cache(maxsize=64)
def compile_pattern(pattern: str) -> Any:
    """Return a compiled pattern, whose `search` takes bytes. Raises a fault where it is none."""
    if len(pattern) > MAX_PATTERN:
        raise limit_error(f"the regular expression has more than {MAX_PATTERN:,} characters")
    if _BYTE.search(pattern):
        raise ExpressionError("the regular expression has an unknown escape: \\C")
    try:
        return re2.compile(to_bytes(pattern), _OPTIONS)
    except re2.error:
        raise ExpressionError("the regular expression is not valid (RE2 syntax)") from None
