"""The base of all views, and the format of times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from shared.model.documents import MICROS_PER_SECOND, Micros

TimeText = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339 in UTC, to the microsecond, with a Z."""


class View(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all views. A field that has its default value is left out; numbers have no default."""


def rfc3339(at: Micros | None) -> str:
    """Return a time as it is shown, "" for None."""
    if at is None:
        return ""
    seconds, micros = divmod(at, MICROS_PER_SECOND)
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return f"{moment.isoformat()}.{micros:06d}Z"


def as_plain(view: View) -> dict[str, Any]:
    """Return a view as the plain map that its JSON is."""
    shown = msgspec.to_builtins(view)
    assert isinstance(shown, dict)
    return shown
