"""How far a pull is: the sum over the image's layers."""

from __future__ import annotations

from typing import Any

MIB = 2**20


class Layers:
    """Hears the steps of a pull (in a thread), and says how far it is (in another)."""

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[int, int]] = {}

    def hear(self, step: dict[str, Any]) -> None:
        """Take a step as the engine tells it."""
        detail = step.get("progressDetail") or {}
        if step.get("status") == "Downloading" and detail.get("total"):
            self._sizes[str(step.get("id"))] = (int(detail["current"]), int(detail["total"]))

    def text(self) -> str:
        """Return how much has been downloaded; empty where that is not known."""
        sizes = list(self._sizes.values())
        if not sizes:
            return ""
        done, total = (sum(column) for column in zip(*sizes, strict=True))
        return f"{done / MIB:.1f} of {total / MIB:.1f} MiB"
