"""Services from `deploy/docker-compose.yml`, where the machine has Docker but is no Debian."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

from devservices import docker_engine, packages, places
from devservices.processes import ServiceError

FILE = places.ROOT / "deploy" / "docker-compose.yml"


def available() -> bool:
    """Whether an engine answers and Docker's compose plugin is there."""
    docker = packages.find("docker")
    return docker is not None and _works(docker, "compose", "version") and docker_engine.answers()


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


def _works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(service: str, ports: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    docker = packages.find("docker") or "docker"
    clone = hashlib.sha256(str(places.ROOT).encode()).hexdigest()[:8]
    project = f"haulier-test-{service}-{clone}"
    return subprocess.run(
        [docker, "compose", "--project-name", project, "--file", str(FILE), *arguments],
        env={**os.environ, **ports},
        capture_output=True,
        text=True,
        check=False,
    )
