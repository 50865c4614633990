"""The reference cases: expressions with what the original language gives for them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from shared.expressions import Duration, Month, Table, Time, Weekday, to_plain

_FILE = Path(__file__).parents[2] / "data" / "expr-cases.jsonl"


def load() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The scope, and the cases."""
    head, *cases = [json.loads(line) for line in _FILE.read_text("utf-8").splitlines()]
    return head["env"], cases


def tagged(value: object) -> object:
    """A value so that its kind shows: what the cases write for what JSON lacks, floats marked."""
    if isinstance(value, float):
        return {"float": "NaN" if math.isnan(value) else repr(value)}
    if isinstance(value, Time):
        return {"date": to_plain(value)}
    if isinstance(value, Duration):
        return {"duration": value.ns}
    if isinstance(value, Month | Weekday):
        return value.number
    if isinstance(value, list):
        return [tagged(item) for item in value]
    if isinstance(value, Table):
        return {
            "map": sorted(([tagged(key), tagged(item)] for key, item in value.items()), key=repr)
        }
    if isinstance(value, dict):
        return {"map": sorted(([key, tagged(item)] for key, item in value.items()), key=repr)}
    return value


def expected(written: object) -> object:
    """The same form of what a case has written."""
    if isinstance(written, float):
        return tagged(written)
    if isinstance(written, list):
        return [expected(item) for item in written]
    if not isinstance(written, dict):
        return written
    if set(written) == {"$float"}:
        return tagged(float(written["$float"]))
    if set(written) == {"$date"}:
        return {"date": written["$date"]}
    if set(written) == {"$duration"}:
        return {"duration": written["$duration"]}
    pairs = written["$map"] if set(written) == {"$map"} else list(written.items())
    return {"map": sorted(([expected(key), expected(item)] for key, item in pairs), key=repr)}
