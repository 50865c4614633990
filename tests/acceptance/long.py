"""Tests that take a minute or more each: `make chaos` runs them, `make test` does not."""

from __future__ import annotations

import os

import pytest

SECONDS = float(os.environ.get("HAULIER_CHAOS_SECONDS", "0"))
"""How long the long campaign lasts; 0: none of the long tests run."""

long = pytest.mark.skipif(not SECONDS, reason="takes minutes: make chaos runs it")
