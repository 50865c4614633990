"""`make demo`: what a newcomer sees first."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import docker
import pytest

from devservices.places import ROOT

NO_ENGINE = "unix:///nothing-is-here.sock"


def demo(*arguments: str | Path, host: str) -> subprocess.CompletedProcess[str]:
    """Run it with this engine; its output and errors in one text."""
    return subprocess.run(
        [ROOT / "tools" / "demo", *arguments],
        env={**os.environ, "DOCKER_HOST": host},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=110,
    )


@pytest.mark.docker
def test_with_an_engine_both_tasks_run_in_containers(
    docker_host: str, docker_engine: docker.DockerClient
) -> None:
    began = int(time.time())
    done = demo(host=docker_host)
    assert done.returncode == 0, done.stdout
    assert "[say it] hello world" in done.stdout.splitlines()
    assert "COMPLETED" in done.stdout
    job = job_of(done.stdout)
    happened = docker_engine.events(
        since=began,
        until=int(time.time()) + 1,
        filters={"event": "start", "label": f"haulier.job={job}"},
        decode=True,
    )
    assert len({event["id"] for event in happened}) == 2
    left = docker_engine.containers.list(all=True, filters={"label": f"haulier.job={job}"})
    assert left == []


def test_without_an_engine_processes_run_and_it_says_so() -> None:
    done = demo(host=NO_ENGINE)
    assert done.returncode == 0, done.stdout
    assert "local processes, without isolation" in done.stdout
    assert "[say it] hello world" in done.stdout.splitlines()
    assert "COMPLETED" in done.stdout


def test_a_job_that_fails_fails_the_demo(tmp_path: Path) -> None:
    job = tmp_path / "fails.yaml"
    job.write_text("name: fails\ntasks:\n  - name: fails\n    image: x\n    run: exit 3\n")
    done = demo(job, host=NO_ENGINE)
    assert done.returncode == 1, done.stdout
    assert "FAILED" in done.stdout


def job_of(text: str) -> str:
    """The id of the job that the demo ran."""
    found = re.search(r"\bjob ([0-9a-f]{32})\b", text)
    assert found, text
    return found[1]
