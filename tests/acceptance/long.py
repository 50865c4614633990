"""Tests that take a minute or more each: `make promises` runs them, `make test` does not."""

from __future__ import annotations

import os

import pytest

long = pytest.mark.skipif(
    not os.environ.get("HAULIER_LONG"), reason="takes minutes: make promises runs it"
)
