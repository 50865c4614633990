"""A Docker engine: the one that answers, or a dockerd of our own where none does.

A machine has one engine (two would fight over its bridges), so ours listens at the usual socket
where that is free and every tool finds it without being told.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import docker as docker_sdk
from docker import DockerClient
from docker.errors import DockerException

from devservices import firewall, packages, places
from devservices.processes import ServiceError, await_answer, halt, launch, running

NAME = "docker"
SOCKET = Path("/var/run/docker.sock")
USUAL = f"unix://{SOCKET}"
OCI_RUNTIME = "haulier-runc"
"""The name by which our engine knows runc once more: a runtime that has to be asked for."""
POLICY = "forward-policy.json"
"""The file that keeps the firewall's policy of before."""


@cache
def address() -> str:
    """The engine's address, as the docker command has it: DOCKER_HOST, a context, the usual one."""
    docker = packages.find("docker")
    if os.environ.get("DOCKER_HOST") or docker is None:
        return os.environ.get("DOCKER_HOST") or USUAL
    shown = subprocess.run(
        [docker, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return shown or USUAL


@contextmanager
def client(host: str | None = None, seconds: float = 30) -> Iterator[DockerClient]:
    """A client of the engine (DOCKER_TLS_VERIFY and DOCKER_CERT_PATH count).

    Raises ServiceError where nothing is at its address.
    """
    place = host or address()
    try:
        engine = docker_sdk.from_env(
            timeout=int(seconds), environment={**os.environ, "DOCKER_HOST": place}
        )
    except DockerException as fault:
        raise ServiceError(f"no Docker engine answers at {place}: {fault}") from fault
    try:
        yield engine
    finally:
        engine.close()


def answers(host: str | None = None) -> bool:
    """Whether an engine answers there."""
    try:
        with client(host) as engine:
            return bool(engine.ping())
    except (ServiceError, DockerException, OSError):
        return False


def ours() -> bool:
    """Whether the engine is one that this program started and that still runs."""
    return running(places.SERVICES / NAME)


def env() -> dict[str, str]:
    """What the tests need to know."""
    return {"DOCKER_HOST": address()}


def start() -> None:
    """Have an engine that answers. Raises ServiceError where there can be none."""
    if answers():
        return
    if os.environ.get("DOCKER_HOST"):
        raise ServiceError(f"no Docker engine answers at DOCKER_HOST={address()}")
    packages.ensure(
        {
            "dockerd": "docker.io",
            # The command is a package of its own since Debian 13.
            "docker": packages.first_known("docker-cli", "docker.io"),
            "iptables": "iptables",
            "ip": "iproute2",
        }
    )
    if os.geteuid() != 0:
        raise ServiceError("no Docker engine answers; start it, or run as root")
    folder = places.folder(NAME)
    if not ours():
        _clear_leftovers()
        (folder / POLICY).write_text(json.dumps(firewall.policy()))
        launch(folder, [packages.find("dockerd") or "dockerd", *_options(folder)], _environment())
    await_answer("dockerd", folder, answers)


def stop() -> None:
    """Stop our engine and remove what it made: containers, images, bridge, firewall rules."""
    folder = places.SERVICES / NAME
    if not folder.exists():
        return
    if ours():
        _remove_containers()
        halt(folder)
        _restore_network(folder)
        _clear_leftovers()
    places.forget(NAME)


def _options(folder: Path) -> list[str]:
    """The data under our folder; the storage driver is dockerd's choice (overlay2, else vfs)."""
    runc = packages.find("runc")
    again = ["--add-runtime", f"{OCI_RUNTIME}={runc}"] if runc else []
    return [
        *again,
        "--host",
        USUAL,
        "--data-root",
        str(folder / "data"),
        "--exec-root",
        "/var/run/haulier-docker",
        "--pidfile",
        str(folder / "dockerd.pid"),
    ]


def _environment() -> dict[str, str]:
    """Dockerd looks for containerd, runc and iptables on its path."""
    return {"PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"}


def _remove_containers() -> None:
    with contextlib.suppress(ServiceError, DockerException, OSError), client(USUAL) as engine:
        for container in engine.containers.list(all=True, ignore_removed=True):
            container.remove(force=True, v=True)


def _clear_leftovers() -> None:
    """What an engine that was killed leaves where the next one would trip over it."""
    SOCKET.unlink(missing_ok=True)
    shutil.rmtree("/var/run/haulier-docker", ignore_errors=True)
    (places.SERVICES / NAME / "dockerd.pid").unlink(missing_ok=True)


def _restore_network(folder: Path) -> None:
    """Take back the bridge and the firewall rules that dockerd made and leaves behind."""
    if ip := packages.find("ip"):
        subprocess.run([ip, "link", "delete", "docker0"], capture_output=True, check=False)
    firewall.forget("DOCKER", "docker0")
    with contextlib.suppress(OSError):
        firewall.set_policy(json.loads((folder / POLICY).read_text()))
