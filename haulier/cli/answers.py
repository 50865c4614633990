"""What a server answered, as plain data and as results."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from haulier.errors import StrangeAnswerError

_T = TypeVar("_T")


def decoded(answer: bytes) -> Any:
    """Return an answer as plain data."""
    try:
        return json.loads(answer)
    except ValueError as error:
        raise StrangeAnswerError(error) from None


def converted(data: Any, kind: type[_T]) -> _T:
    """Return plain data of an answer as a result."""
    try:
        return msgspec.convert(data, kind, strict=False)
    except msgspec.ValidationError as error:
        raise StrangeAnswerError(error) from None
