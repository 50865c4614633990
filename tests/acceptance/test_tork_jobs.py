"""Job files as users of Tork have them, in its format and with its idioms, run as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.definitions import named
from tests.acceptance.processes import Standalone, wait_for
from tests.acceptance.receiving import receiver

pytestmark = pytest.mark.xdist_group("shell")

FILES = Path(__file__).parents[1] / "data" / "tork"
RESULTS = {
    "conditions": "yes",
    "each": "0-10 20-30 small-b.png",
    "parallel": "3",
    "pre-post": "in png",
    "retry": "after 3 tries",
    "subjob": "film.mp4",
    "webhooks": "done",
}
"""What each of them gives."""


def run(server: Standalone, name: str, written: str = "", real: object = "") -> Any:
    """Run a file, with something that is there for what it names."""
    text = (FILES / f"{name}.yaml").read_text()
    assert written in text
    done = server.wait_job(server.submit(text.replace(written, str(real)) if written else text))
    assert (done["state"], done["result"]) == ("COMPLETED", RESULTS[name]), done
    return done


def test_each_file_is_run_here() -> None:
    assert {path.stem for path in FILES.iterdir()} == set(RESULTS)


@pytest.mark.parametrize("name", ["each", "parallel", "subjob"])
def test_composites(shell: Standalone, name: str) -> None:
    run(shell, name)


def test_a_step_before_and_one_after(shell: Standalone) -> None:
    done = run(shell, "pre-post")
    assert shell.log_of(done["id"]) == "downloading\n1\nuploading\n"


def test_further_attempts(shell: Standalone, tmp_path: Path) -> None:
    done = run(shell, "retry", "/count", tmp_path / "count")
    states = [task["state"] for task in named(done, "flaky")]
    assert states == ["FAILED", "FAILED", "COMPLETED"]


def test_conditions(shell: Standalone) -> None:
    done = run(shell, "conditions")
    states = [task["state"] for task in done["execution"]]
    assert states == ["COMPLETED", "SKIPPED", "COMPLETED"]


def test_webhooks(shell: Standalone) -> None:
    with receiver() as hooks:
        run(shell, "webhooks", "http://localhost:9999", hooks.url)
        (told,) = wait_for(lambda: hooks.at("/jobs/ada"), 20, "the job's")
        (of_task,) = wait_for(lambda: hooks.at("/tasks"), 20, "the task's")
    assert told.body["state"] == "COMPLETED"
    assert told.headers["authorization"] == "Bearer 3a6b1e0f9d"
    assert (of_task.body["name"], of_task.body["state"]) == ("work", "COMPLETED")
