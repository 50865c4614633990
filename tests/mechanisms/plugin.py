"""A pytest plugin that takes a mechanism out for a whole run:

python -m pytest -p tests.mechanisms.plugin --without=pulse tests/unit/engine -x -q
"""

from __future__ import annotations

import pytest

from tests.mechanisms.catalogue import MECHANISMS, named


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--without`."""
    parser.addoption(
        "--without",
        action="append",
        default=[],
        choices=[mechanism.name for mechanism in MECHANISMS],
        help="take this mechanism out of the program",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take out what was asked for, before any test is imported; put it back at the end."""
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for name in config.getoption("without"):
        named(name).cut(patch)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what is out."""
    return [f"without: {named(name).out}" for name in config.getoption("without")]
