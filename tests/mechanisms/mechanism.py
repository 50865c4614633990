"""What the engine's promises rest on, one mechanism at a time: how each is taken out, and which test then fails."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

Cut = Callable[[pytest.MonkeyPatch], None]
"""Takes a mechanism out of the running program, and nothing else."""


class Mechanism(msgspec.Struct, frozen=True, kw_only=True):
    """One mechanism. `tests` are node ids from the project's root: each passes with it and fails without it."""

    name: str
    promises: tuple[int, ...]
    """Numbers of the promises (engine spec, What holds when something dies) that need it."""
    out: str
    """What is taken out."""
    cut: Cut
    tests: tuple[str, ...]
    how: str
    """How the tests see that it is gone."""
    needs: str | None = None
    """The service without which its tests don't run."""
