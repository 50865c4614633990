"""Places for worlds with bad luck."""

import pytest

pytest.register_assert_rewrite(
    "tests.faults.scenarios", "tests.unit.engine.world", "tests.unit.engine.audit"
)

from tests.unit.conftest import folder  # noqa: E402 - after what is registered

__all__ = ["folder"]
