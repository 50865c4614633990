"""The image of deploy/Dockerfile: built on this machine's Debian with Python, and run as it is deployed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import docker
import pytest
from docker.models.containers import Container

from devservices import images
from shared.version import version

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.timeout(600),  # a Debian is made, and all packages are installed
    pytest.mark.xdist_group("image"),
]

ROOT = Path(__file__).parents[3]
BASE = "python:3.12-slim"
JOB = "name: hello\ntasks:\n  - name: greet\n    run: echo hello from the image\n"


@pytest.fixture(scope="module")
def image(docker_engine: docker.DockerClient, docker_host: str) -> Iterator[str]:
    """The image's name; its base is pulled or, where that cannot be, made of this machine's packages."""
    images.have(BASE, docker_host)
    name = f"haulier-test:{uuid4().hex[:8]}"
    docker_engine.images.build(
        path=str(ROOT), dockerfile="deploy/Dockerfile", tag=name, network_mode="host", rm=True
    )
    yield name
    docker_engine.images.remove(name, force=True)


@pytest.fixture
def start(docker_engine: docker.DockerClient, image: str) -> Iterator[Callable[..., Container]]:
    """Start a container of the image with a command."""
    started: list[Container] = []

    def begin(*command: str, **options: Any) -> Container:
        started.append(
            docker_engine.containers.run(image, list(command) or None, detach=True, **options)
        )
        return started[-1]

    yield begin
    for container in started:
        container.remove(force=True)


def test_it_has_the_commands_and_what_traces_need(start: Callable[..., Container]) -> None:
    for entrypoint, command, said in (
        ("haulier", ["--version"], version()),
        (
            "python",
            ["-c", "import opentelemetry.exporter.otlp.proto.http; print('traces')"],
            "traces",
        ),
    ):
        container = start(*command, entrypoint=entrypoint)
        assert container.wait(timeout=60)["StatusCode"] == 0, container.logs().decode()
        assert said in container.logs().decode()


def test_without_rights_of_root_it_serves_is_healthy_runs_a_job_and_stops(
    start: Callable[..., Container],
) -> None:
    settings = {"HAULIER_RUNTIME_TYPE": "shell", "HAULIER_RUNTIME_SHELL_IGNORE_IMAGE": "true"}
    # localhost is ::1 too, which a container may not have
    settings["HAULIER_COORDINATOR_ADDRESS"] = "localhost:8000"
    container = start(user="haulier", working_dir="/home/haulier", environment=settings)
    wait_until_healthy(container)
    done: Any = container.exec_run(["sh", "-c", f"echo '{JOB}' | haulier submit --follow -"])
    said = str(done.output, "utf-8")
    assert done.exit_code == 0, said
    assert "hello from the image" in said
    container.stop(timeout=60)
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 0, container.logs().decode()


def wait_until_healthy(container: Container, within: float = 90) -> None:
    """Wait until the image's own health check says that what runs in it is well; times are seconds."""
    deadline = time.monotonic() + within
    while container.attrs["State"].get("Health", {}).get("Status") != "healthy":
        assert time.monotonic() < deadline, container.attrs["State"]
        time.sleep(0.5)
        container.reload()
