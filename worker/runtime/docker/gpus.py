"""GPUs as Docker's `--gpus` writes them: `all`, `2`, `"device=0,1",capabilities=utility`."""

from __future__ import annotations

import csv
from typing import Any

from worker.runtime.errors import TaskError


def device_requests(text: str) -> list[dict[str, Any]]:
    """Return the engine's DeviceRequests. Raises TaskError for what Docker would not take."""
    if not text:
        return []
    request: dict[str, Any] = {
        "Driver": "",
        "Count": 0,
        "DeviceIDs": None,
        "Capabilities": [["gpu"]],
        "Options": {},
    }
    counted = False
    for part in next(csv.reader([text])):
        key, equals, value = part.strip().partition("=")
        if not equals:
            key, value = "count", key
        counted |= key in ("count", "device")
        _set(request, key, value)
    if not counted:
        request["Count"] = 1
    if request["Count"] and request["DeviceIDs"]:
        raise TaskError("gpus: give a count or devices, not both")
    return [request]


def _set(request: dict[str, Any], key: str, value: str) -> None:
    if key == "count":
        request["Count"] = _count(value)
    elif key == "device":
        request["DeviceIDs"] = value.split(",")
    elif key == "driver":
        request["Driver"] = value
    elif key == "capabilities":
        request["Capabilities"] = [["gpu", *(c for c in value.split(",") if c != "gpu")]]
    elif key == "options":
        request["Options"] = dict(option.partition("=")[::2] for option in value.split(","))
    else:
        raise TaskError(f"gpus: unknown key {key!r}")


def _count(value: str) -> int:
    if value == "all":
        return -1
    if not value.isdecimal():
        raise TaskError(f'gpus: {value!r} is not a count: write "all", "2" or "device=0"')
    return int(value)
