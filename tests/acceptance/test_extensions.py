"""The example of each kind of extension (`examples/extensions`), installed as a package is, and run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import READY_WITHIN, Standalone, clean_environment, wait_for

PACKAGE = Path(__file__).parents[2] / "examples" / "extensions"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed in it."""
    folder = tmp_path_factory.mktemp("site")
    install = [
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-build-isolation",
    ]
    command = [sys.executable, "-m", "pip", *install, "--target", str(folder), str(PACKAGE)]
    subprocess.run(command, check=True, timeout=90)
    return folder


@pytest.fixture
def settings(site: Path, tmp_path: Path) -> dict[str, str]:
    notes, tables = tmp_path / "notes", tmp_path / "extensions.toml"
    shared = tmp_path / "shared"
    shared.mkdir()
    named: dict[str, dict[str, object]] = {
        "stamp": {"closed": ["/jobs/counts"], "text": "seen"},
        "owner": {"notes": str(notes)},
        "region": {"notes": str(notes), "region": "north"},
        "roll-call": {"notes": str(notes)},
        "errors": {"notes": str(notes)},
        "shared": {"root": str(shared), "notes": str(notes)},
        "journal": {"file": str(tmp_path / "journal.db")},
    }
    lines = [
        f"[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        for name, table in named.items()
    ]
    tables.write_text("\n".join(lines))
    return {"PYTHONPATH": str(site), "HAULIER_EXTENSIONS_SETTINGS": str(tables)}


def task(script: str, **more: Any) -> dict[str, Any]:
    return {"name": "it", "image": "alpine:3.18.3", "run": script, **more}


def test_middleware_and_endpoints_of_a_package(
    standalone: Callable[..., Standalone], settings: dict[str, str], tmp_path: Path
) -> None:
    server = standalone(
        **settings,
        HAULIER_EXTENSIONS_MIDDLEWARE_WEB="stamp",
        HAULIER_EXTENSIONS_MIDDLEWARE_JOB="owner",
        HAULIER_EXTENSIONS_MIDDLEWARE_TASK="region",
        HAULIER_EXTENSIONS_MIDDLEWARE_NODE="roll-call",
        HAULIER_EXTENSIONS_MIDDLEWARE_LOG="errors",
        HAULIER_EXTENSIONS_ENDPOINTS="teapot",
    )
    job = {
        "name": "extended",
        "tasks": [task('echo an error; printf %s "$REGION" > "$TORK_OUTPUT"')],
    }
    status, body = server.call(
        "POST", "/jobs", json.dumps(job), {"Content-Type": "application/json"}
    )
    assert (status, body["message"]) == (400, "description: required here")
    job_id = server.submit({**job, "description": "one that says what it is"})
    ended = server.wait_job(job_id)
    assert ended["tags"] == ["owner-guest"]
    assert ended["execution"][0]["result"] == "north"
    assert server.call("GET", "/jobs/counts")[0] == 403
    assert server.get("/extra/count") == {"jobs": 1}
    assert "/extra/count" in server.get("/openapi.json")["paths"]
    ended_task = ended["execution"][0]["id"]
    wanted = {
        f"job.StateChange COMPLETED {job_id}",
        f"task.StateChange COMPLETED {ended_task}",
        f"log {ended_task} an error",
        "beat Worker UP",
    }
    notes = tmp_path / "notes"
    wait_for(lambda: wanted <= set(notes.read_text().splitlines()), 20, "notes of all kinds")


@pytest.mark.docker
def test_a_mount_of_a_packages_own_type(
    standalone: Callable[..., Standalone], settings: dict[str, str], tmp_path: Path
) -> None:
    server = standalone(
        docker=True,
        **settings,
        HAULIER_EXTENSIONS_MOUNTERS="shared",
        HAULIER_MOUNTS_BIND_ALLOWED="true",
        HAULIER_MOUNTS_BIND_SOURCES=str(tmp_path / "shared"),
    )
    mounts = [{"type": "shared", "source": "data", "target": "/data"}]
    job_id = server.submit({"name": "m", "tasks": [task("echo kept > /data/file", mounts=mounts)]})
    assert server.wait_job(job_id)["state"] == "COMPLETED"
    assert (tmp_path / "shared" / "data" / "file").read_text() == "kept\n"
    wait_for((tmp_path / "notes").exists, 20, "the mount to be unmade")
    mounts[0]["source"] = "../.."
    job_id = server.submit({"name": "m", "tasks": [task("true", mounts=mounts)]})
    ended = server.wait_job(job_id)
    assert "'../..' is no name of a shared folder" in ended["execution"][0]["error"]
    mounts[0]["type"] = "other"
    status, body = server.call(
        "POST", "/jobs", json.dumps({"name": "m", "tasks": [task("true", mounts=mounts)]}),
        {"Content-Type": "application/json"},
    )  # fmt: skip
    assert (status, "must be volume, bind or tmpfs" in body["message"]) == (400, True)


def test_broker_datastore_and_runtime_of_a_package(
    standalone: Callable[..., Standalone], settings: dict[str, str], tmp_path: Path
) -> None:
    server = standalone(
        **settings,
        HAULIER_EXTENSIONS_BROKER="counting",
        HAULIER_EXTENSIONS_DATASTORE="journal",
        HAULIER_EXTENSIONS_RUNTIME="dry-run",
    )
    job_id = server.submit(
        {"name": "dry", "tasks": [task("rm -r /", var="a")], "output": "{{ tasks.a }}"}
    )
    ended = server.wait_job(job_id)
    assert (ended["state"], ended["result"]) == ("COMPLETED", "dry")
    assert server.log_of(job_id) == "would run alpine:3.18.3: rm -r /\n"
    assert (tmp_path / "journal.db").stat().st_size > 0


def test_what_is_not_installed_ends_the_start_with_a_line(site: Path, tmp_path: Path) -> None:
    for setting, said in (
        (
            "BROKER",
            "extensions.broker: no package that is installed offers 'no' in the entry point group",
        ),
        ("MIDDLEWARE_WEB", "extensions.middleware.web: no package that is installed offers 'no'"),
        ("MOUNTERS", "extensions.mounters: no package that is installed offers 'no'"),
    ):
        environment = {
            "PYTHONPATH": str(site),
            "HAULIER_RUNTIME_TYPE": "shell",
            "HAULIER_WORKER_DATA": str(tmp_path / "worker"),
            "HAULIER_DATASTORE_SQLITE_PATH": str(tmp_path / "haulier.db"),
            "HAULIER_COORDINATOR_ADDRESS": "localhost:0",
            f"HAULIER_EXTENSIONS_{setting}": "no",
        }
        done = subprocess.run(
            [sys.executable, "-m", "haulier.cli", "run", "standalone"],
            env=clean_environment(environment),
            capture_output=True,
            text=True,
            timeout=READY_WITHIN,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("haulier: ")]
        assert said in line
        assert "Traceback" not in done.stderr
