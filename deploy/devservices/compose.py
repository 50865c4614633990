"""Services from `deploy/docker-compose.yml`, where the machine has Docker but is no Debian."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from devservices import docker_engine, packages, places
from devservices.processes import ServiceError

FILE = places.ROOT / "deploy" / "docker-compose.yml"


def available() -> bool:
    """Whether an engine answers and a compose command is there."""
    return _command() is not None and docker_engine.answers()


def up(service: str, ports: dict[str, str]) -> None:
    """Start one service with its ports on the loopback and wait until it is healthy.

    `ports` are the variables of the compose file. Raises ServiceError.
    """
    _kept(service).write_text(json.dumps(ports))
    done = _run(service, ports, "up", "--detach", "--wait", service)
    if done.returncode != 0:
        down(service)
        raise ServiceError(f"{service} did not start by compose: {done.stderr.strip()}")


def down(service: str) -> None:
    """Remove what `up` started, data included; nothing where it started nothing."""
    if ours(service):
        ports: dict[str, str] = json.loads(_kept(service).read_text())
        _run(service, ports, "down", "--volumes")
        places.forget(service)


def ours(service: str) -> bool:
    """Whether `up` started it here."""
    return (places.SERVICES / service / "compose.json").exists()


def _kept(service: str) -> Path:
    return places.folder(service) / "compose.json"


def _command() -> list[str] | None:
    docker, alone = packages.find("docker"), packages.find("docker-compose")
    if docker and _works(docker, "compose", "version"):
        return [docker, "compose"]
    return [alone] if alone else None


def _works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(service: str, ports: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = _command() or ["docker", "compose"]
    return subprocess.run(
        [*command, "--project-name", f"haulier-test-{service}", "--file", str(FILE), *arguments],
        env={**os.environ, **ports},
        capture_output=True,
        text=True,
        check=False,
    )
