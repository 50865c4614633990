"""Places for worlds with bad luck."""

import pytest

pytest.register_assert_rewrite(
    "tests.faults.scenarios", "tests.unit.engine.world", "tests.unit.engine.audit"
)

from tests.unit.engine.conftest import folder  # noqa: E402 - assertions in it are to be rewritten

__all__ = ["folder"]
