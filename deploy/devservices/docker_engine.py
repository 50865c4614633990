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
from pathlib import Path

from devservices import firewall, packages, places
from devservices.processes import ServiceError, await_answer, halt, launch, running

NAME = "docker"
SOCKET = Path("/var/run/docker.sock")
USUAL = f"unix://{SOCKET}"
POLICY = "forward-policy.json"
"""The file that keeps the firewall's policy of before."""


def address() -> str:
    """The engine's address: what DOCKER_HOST says, else the usual socket."""
    return os.environ.get("DOCKER_HOST") or USUAL


def answers(host: str | None = None) -> bool:
    """Whether an engine answers there."""
    docker = packages.find("docker")
    if docker is None:
        return False
    return _quiet(docker, "--host", host or address(), "version") == 0


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
    return [
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
    listed = subprocess.run(
        ["docker", "--host", USUAL, "ps", "-aq"], capture_output=True, text=True, check=False
    ).stdout.split()
    if listed:
        _quiet("docker", "--host", USUAL, "rm", "-fv", *listed)


def _clear_leftovers() -> None:
    """What an engine that was killed leaves where the next one would trip over it."""
    SOCKET.unlink(missing_ok=True)
    shutil.rmtree("/var/run/haulier-docker", ignore_errors=True)
    (places.SERVICES / NAME / "dockerd.pid").unlink(missing_ok=True)


def _restore_network(folder: Path) -> None:
    """Take back the bridge and the firewall rules that dockerd made and leaves behind."""
    _quiet("ip", "link", "delete", "docker0")
    firewall.forget("DOCKER", "docker0")
    with contextlib.suppress(OSError):
        firewall.set_policy(json.loads((folder / POLICY).read_text()))


def _quiet(*command: str) -> int:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return -1
