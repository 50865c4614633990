"""The client and the command beside a project that has rooms of the same names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from haulier import __version__
from tests.acceptance.processes import clean_environment

pytestmark = pytest.mark.slow

YAML = "name: mine\ntasks:\n  - name: a\n    run: echo\n"
COMMAND = [str(Path(sys.executable).with_name("haulier"))]
MODULE = [sys.executable, "-m", "haulier.cli"]
HOSTILE = "raise ImportError('this is not ours')\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for room in ("shared", "coordinator"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(HOSTILE)
    (tmp_path / "worker.py").write_text(HOSTILE)
    (tmp_path / "job.yaml").write_text(YAML)
    return tmp_path


def run(project: Path, *command: str, **variables: str) -> tuple[int, str, str]:
    """Run a command in the project's folder, which comes first wherever Python looks."""
    done = subprocess.run(
        command,
        cwd=project,
        env=clean_environment({"PYTHONPATH": str(project), **variables}),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_client_is_imported(project: Path) -> None:
    program = "import haulier, sys; print({'shared', 'worker', 'coordinator'} & {*sys.modules})"
    assert run(project, sys.executable, "-c", program) == (0, "set()\n", "")


def test_the_project_keeps_its_own(project: Path) -> None:
    (project / "shared" / "__init__.py").write_text("MINE = 1\n")
    program = "import shared, haulier; from shared import MINE; print(MINE)"
    assert run(project, sys.executable, "-c", program) == (0, "1\n", "")


@pytest.mark.parametrize("haulier", [COMMAND, MODULE], ids=["script", "module"])
def test_every_kind_of_command_works(project: Path, haulier: list[str]) -> None:
    assert run(project, *haulier, "version") == (0, f"haulier {__version__}\n", "")
    code, out, err = run(project, *haulier, "validate", "job.yaml")
    assert (code, out, err) == (0, "job.yaml: mine is valid, 1 task\n", "")
    code, out, err = run(project, *haulier, "submit", "job.yaml", HAULIER_SERVER="localhost:1")
    assert (code, out) == (3, "")
    assert err.startswith("haulier: can't reach http://localhost:1: ")


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["config"],
        ["run", "standalone", "--help"],
        ["run", "coordinator", "--help"],
        ["run", "worker", "--help"],
        ["audit", "--help"],
    ],
    ids=" ".join,
)
def test_commands_that_use_rooms_use_ours(project: Path, argv: list[str]) -> None:
    code, out, err = run(project, *COMMAND, *argv)
    assert (code, err) == (0, "")
    assert out


def test_the_processes_start(project: Path) -> None:
    """What they import only once they run is ours too: here they refuse for want of a good setting."""
    flags = ("--set", "datastore.sqlite.path=/dev/null/none")
    code, _, err = run(project, *COMMAND, "run", "standalone", "--runtime", "shell", *flags)
    assert code == 2
    assert "/dev/null" in err
    code, _, err = run(project, *COMMAND, "audit", *flags)
    assert (code, err) == (
        2,
        "haulier: there is no datastore at /dev/null/none (datastore.sqlite.path)\n",
    )


def test_a_room_that_is_loaded_already_is_told(project: Path) -> None:
    (project / "shared" / "__init__.py").write_text("MINE = 1\n")
    program = (
        "import sys, shared; from haulier.cli import run_cli; run_cli(['validate', 'job.yaml'])"
    )
    code, out, err = run(project, sys.executable, "-c", program)
    assert (code, out) == (1, "")
    assert err == (
        "haulier: this process has loaded another module named shared "
        f"({project}/shared/__init__.py): run the haulier command in a process of its own\n"
    )
