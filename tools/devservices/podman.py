"""Podman's Docker-compatible socket, to see that the runtime asks nothing that only Docker knows.

Its images and containers are under our folder. The limits and the cgroup manager are set because a
machine without systemd has neither Podman's defaults nor a manager.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from devservices import addresses, docker_engine, firewall, packages, places
from devservices.processes import ServiceError, await_answer, halt, launch, running

NAME = "podman"
HOST = "HAULIER_TEST_PODMAN_HOST"
PROGRAMS = {
    "podman": "podman",
    "runc": "runc",
    "/usr/lib/podman/netavark": "netavark",
    "catatonit": "catatonit",
    "iptables": "iptables",
    "nft": "nftables",
}


def env() -> dict[str, str]:
    """The socket's address, as DOCKER_HOST would have it."""
    return addresses.given(HOST) or addresses.recall(_folder())


def answers() -> bool:
    """Whether the socket serves Docker's API."""
    found = env()
    return HOST in found and docker_engine.answers(found[HOST])


def ours() -> bool:
    """Whether ours runs."""
    return running(_folder())


def start() -> None:
    """Have Podman's socket. Raises ServiceError where there can be none."""
    if answers():
        return
    if addresses.given(HOST):
        raise ServiceError(f"no engine answers at {HOST}")
    packages.ensure(PROGRAMS)
    if os.geteuid() != 0:
        raise ServiceError("Podman's socket is started by root only")
    stop()
    folder = places.folder(NAME)
    (folder / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{folder / "networks"}"\n'
    )
    socket = f"unix://{folder / 'sock'}"
    addresses.remember(folder, {HOST: socket})
    launch(folder, [*_podman(), "system", "service", "--time=0", socket], _environment())
    await_answer("Podman", folder, answers)


def stop() -> None:
    """End ours with its containers, images and data."""
    folder = _folder()
    if not folder.exists():
        return
    if ours():
        _run("rm", "--all", "--force", "--volumes", "--time=0")
    halt(folder)
    if shutil.which("podman"):
        _run("system", "reset", "--force")
        firewall.forget("NETAVARK")
        firewall.forget_table("netavark")
    places.forget(NAME)


def _folder() -> Path:
    return places.SERVICES / NAME


def _podman() -> list[str]:
    folder = _folder()
    return [
        packages.find("podman") or "podman",
        *("--cgroup-manager", "cgroupfs", "--runtime", "runc"),
        *("--root", str(folder / "data"), "--runroot", str(folder / "run")),
    ]


def _environment() -> dict[str, str]:
    return {"CONTAINERS_CONF": str(_folder() / "containers.conf")}


def _run(*arguments: str) -> None:
    subprocess.run(
        [*_podman(), *arguments],
        env={**os.environ, **_environment()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
