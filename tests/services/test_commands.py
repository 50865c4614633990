"""`tools/services` as scripts and people use it: a command among services."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from devservices import commands
from devservices.places import ROOT
from devservices.processes import ServiceError

COMMAND = ROOT / "tools" / "services"


class Pretended:
    """A service whose whole state is in view: it starts and stops, or can't be had."""

    NAME = "pretended"

    def __init__(self, *, up: bool = False, fault: str | None = None) -> None:
        self.up = up
        self.fault = fault
        self.begun = up
        self.elsewhere = False

    def env(self) -> dict[str, str]:
        return {"PRETENDED_ADDRESS": "here it is"} if self.up else {}

    def answers(self) -> bool:
        return self.up and not self.elsewhere

    def ours(self) -> bool:
        return self.up

    def start(self) -> None:
        if self.fault:
            raise ServiceError(self.fault)
        self.up = self.begun = True

    def stop(self) -> None:
        self.up = False


@pytest.fixture
def among(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pretended:
    service = Pretended()
    monkeypatch.setattr(commands, "SERVICES", {"pretended": service, "other": Pretended(up=True)})
    monkeypatch.setattr("devservices.places.SERVICES", tmp_path / ".services")
    monkeypatch.delenv("CI", raising=False)
    return service


def test_run_gives_the_command_the_addresses_and_exits_as_it_did(
    among: Pretended, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    script = f'echo "$PRETENDED_ADDRESS" > {seen}; exit 7'
    assert commands.main(["run", "pretended", "--", "sh", "-c", script]) == 7
    assert seen.read_text() == "here it is\n"


def test_run_stops_what_it_started(among: Pretended) -> None:
    assert commands.main(["run", "pretended", "--", "true"]) == 0
    assert among.begun
    assert not among.up


def test_run_leaves_what_was_there(among: Pretended) -> None:
    among.up = True
    assert commands.main(["run", "pretended", "--", "true"]) == 0
    assert among.up


def test_run_leaves_ours_where_another_one_was_given(among: Pretended) -> None:
    among.up, among.elsewhere = True, True
    assert commands.main(["run", "pretended", "--", "true"]) == 0
    assert among.up


def test_run_tells_a_signal_as_a_shell_does(among: Pretended) -> None:
    assert commands.main(["run", "pretended", "--", "sh", "-c", "kill -9 $$"]) == 137


def test_run_goes_on_without_a_service_on_a_developers_machine(
    among: Pretended, capfd: pytest.CaptureFixture[str]
) -> None:
    among.fault = "nothing to be had"
    assert commands.main(["run", "pretended", "--", "echo", "went on"]) == 0
    said = capfd.readouterr()
    assert "went on" in said.out
    assert "pretended: can't be had: nothing to be had" in said.err


def test_run_fails_without_a_service_in_ci(
    among: Pretended, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", "true")
    among.fault = "nothing to be had"
    assert commands.main(["run", "pretended", "--", "echo", "went on"]) == 1
    assert "went on" not in capfd.readouterr().out


def test_status_is_1_where_one_does_not_answer(among: Pretended) -> None:
    assert commands.main(["status", "other"]) == 0
    assert commands.main(["status"]) == 1


def test_env_can_be_evaluated_by_a_shell(
    among: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    among.up = True
    assert commands.main(["env", "pretended"]) == 0
    assert capsys.readouterr().out == "export PRETENDED_ADDRESS='here it is'\n"


def test_an_unknown_service_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main(["start", "rabbit"])
    assert ended.value.code == 2
    assert "unknown service rabbit" in capsys.readouterr().err


def test_a_terminated_run_ends_its_command(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'exit 9' TERM; touch {ready}; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [COMMAND, "run", "registry", "--", "sh", "-c", script],
        env={**os.environ, "HAULIER_TEST_REGISTRY": "127.0.0.1:1", "CI": ""},
        stderr=subprocess.DEVNULL,
    ) as process:
        killer = threading.Thread(target=_terminate_when, args=(ready, process))
        killer.start()
        assert process.wait(60) == 9
        killer.join()


def _terminate_when(ready: Path, process: subprocess.Popen[bytes]) -> None:
    while not ready.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
