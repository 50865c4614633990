"""What holds for every test: real services by fixture, and markers that say which are needed."""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import Iterator

import hypothesis
import pytest
import structlog

from devservices.commands import SERVICES
from tests.services.need import MARKERS, REASON, need

# Where the suite is started in the background, its shell has SIGINT ignored, and what it starts would too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile(
    "unhurried"
)  # how long an example takes says how busy the machine is


pytest_plugins = ["tests.services.fixtures"]

RUNNING_BEFORE = pytest.StashKey[set[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Log as processes do; remember which services were there, to tell in the end which the run left."""
    config.stash[RUNNING_BEFORE] = _ours()
    plain = structlog.dev.ConsoleRenderer(
        colors=False,
        exception_formatter=structlog.dev.plain_traceback,  # by default, rich takes a second for one
    )
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])


@pytest.fixture(autouse=True)
def _log_restored() -> Iterator[None]:
    """Give this process's log back as it was: a test that configures it must not change the next one's."""
    root, configured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.configure(**configured)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Meet a marked test's needs, or skip it (on a developer's machine) or fail it (in CI)."""
    for name in MARKERS:
        if item.get_closest_marker(name):
            need(name)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say in the last lines what did not run for want of a service, and what was left running."""
    wanting = Counter(
        reason
        for report in terminalreporter.stats.get("skipped", [])
        if (reason := _reason(report)).startswith(REASON)
    )
    for reason, count in sorted(wanting.items()):
        terminalreporter.write_line(f"NOT RUN: {count} tests, {reason}", yellow=True)
    before = config.stash[RUNNING_BEFORE]
    if left := _ours() - before:
        names = ", ".join(sorted(left))
        terminalreporter.write_line(f"left running: {names} (make services-stop ends them)")


def _reason(report: pytest.TestReport) -> str:
    """The reason given with a skip."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _ours() -> set[str]:
    return {name for name, service in SERVICES.items() if service.ours()}
