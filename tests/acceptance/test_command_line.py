"""The command, as a process, against a real server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import SHELL, Standalone, clean_environment

JOB = """
name: fetch and report
inputs: {who: world}
tasks:
  - name: left
    parallel:
      tasks:
        - env: {WHO: "{{ inputs.who }}"}
          run: echo one of $WHO
  - name: right
    parallel: {tasks: [{run: echo two}]}
  - name: fetch numbers
    retry: {limit: 1}
    run: echo no such page; exit 2
  - name: aggregate
    run: echo not reached
"""


class Command:
    """Runs `haulier` in a pipe, as a process of its own."""

    def __init__(self, server: str) -> None:
        self._environment = clean_environment({"HAULIER_SERVER": server, "TZ": "UTC"})

    def __call__(self, *argv: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "haulier.cli", *argv],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def haulier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The command, with a server that no other test leaves anything on."""
    server = Standalone(tmp_path_factory.mktemp("command-line"), 8, **SHELL)
    server.start()
    yield Command(server.url)
    server.stop()


def test_a_job_is_submitted_watched_explained_and_run_again(
    haulier: Command, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB)
    followed = haulier("submit", str(file), "-f", "-i", "who=us", code=1).splitlines()
    assert sorted(followed[:2]) == ["[left/task 1] one of us", "[right/task 1] two"]
    assert followed[-1] == "FAILED"
    id = haulier("jobs", "fetch", "-q").split()[0]
    shown = haulier("job", id[:8]).splitlines()
    assert re.fullmatch(rf"✗ fetch and report  {id[:8]}  failed after [0-9.]+s, .*", shown[0])
    assert shown[1] == "  Failed at fetch numbers: exit code 2 (attempt 2 of 2)"
    assert any(re.fullmatch(r"  ✗ fetch numbers +[0-9.]+s +×2", line) for line in shown)
    assert any(re.fullmatch(r"  · aggregate +not run", line) for line in shown)
    assert haulier("logs", id[:8], "--failed") == "[fetch numbers] no such page\n"
    assert haulier("logs", "@last", "--grep", "two") == "[right/task 1] two\n"
    assert haulier("logs", id, "--tail", "1") == "[fetch numbers] no such page\n"
    assert "fetch numbers" in haulier("why", id[:6])
    assert json.loads(haulier("why", id, "--json"))["state"] == "FAILED"
    again = haulier("rerun", id[:8], "-i", "who=them", "--from", "fetch numbers").strip()
    assert haulier("wait", again, code=1).startswith("✗ fetch and report")
    assert "one of" not in haulier("logs", again)
    assert haulier("watch", again, code=1).splitlines()[-1].startswith("✗ fetch and report")
    assert haulier("delete", id[:8], again) == f"deleted {id[:8]}\ndeleted {again[:8]}\n"
    haulier("job", id, code=1)


def test_a_schedule_is_added_run_paused_and_removed(haulier: Command, tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text("name: nightly\nschedule: {cron: 0 5 * * *}\ntasks: [{name: a, run: echo}]\n")
    haulier("submit", str(file), code=2)
    assert haulier("schedule", "add", str(file)).startswith("scheduled nightly as ")
    made = haulier("schedule", "run", "nightly").strip()
    assert haulier("wait", made).startswith("✓ nightly")
    haulier("schedule", "pause", "nightly")
    assert json.loads(haulier("schedule", "show", "nightly", "--json"))["state"] == "PAUSED"
    haulier("schedule", "rm", "nightly")
    assert haulier("schedule", "list") == ""


def test_doctor_finds_a_worker(haulier: Command) -> None:
    assert "✓ 1 worker takes tasks" in haulier("doctor")
