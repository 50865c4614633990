"""A private image registry that wants a user and a password, on a free port of the loopback.

Docker engines talk plain HTTP to loopback registries, so it needs no certificate.
"""

from __future__ import annotations

import secrets
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from devservices import addresses, packages, places
from devservices.places import LOOPBACK
from devservices.processes import ServiceError, await_answer, halt, launch, running

NAME = "registry"
ADDRESS = "HAULIER_TEST_REGISTRY"
USERNAME = "HAULIER_TEST_REGISTRY_USERNAME"
PASSWORD = "HAULIER_TEST_REGISTRY_PASSWORD"  # noqa: S105 - the variable's name


def env() -> dict[str, str]:
    """Its `host:port`, user and password."""
    return addresses.given(ADDRESS, USERNAME, PASSWORD) or addresses.recall(_folder())


def answers() -> bool:
    """Whether it is there and turns strangers away."""
    found = env()
    if ADDRESS not in found:
        return False
    try:
        urllib.request.urlopen(f"http://{found[ADDRESS]}/v2/", timeout=5).close()
    except urllib.error.HTTPError as refused:
        return refused.code == 401
    except OSError:
        return False
    return False


def ours() -> bool:
    """Whether ours runs."""
    return running(_folder())


def start() -> None:
    """Have a registry that answers. Raises ServiceError where there can be none."""
    if answers():
        return
    if addresses.given(ADDRESS):
        raise ServiceError(f"no private registry answers at {ADDRESS}")
    packages.ensure({"docker-registry": "docker-registry", "htpasswd": "apache2-utils"})
    stop()
    folder, port = places.folder(NAME), places.free_port()
    password = secrets.token_urlsafe(12)
    _configure(folder, port, password)
    values = {ADDRESS: f"{LOOPBACK}:{port}", USERNAME: "haulier", PASSWORD: password}
    addresses.remember(folder, values)
    launch(folder, [packages.find("docker-registry") or "", "serve", folder / "config.yml"])
    await_answer("the registry", folder, answers)


def stop() -> None:
    """End ours and remove its data."""
    halt(_folder())
    places.forget(NAME)


def _folder() -> Path:
    return places.SERVICES / NAME


def _configure(folder: Path, port: int, password: str) -> None:
    line = subprocess.run(
        ["htpasswd", "-Bbn", "haulier", password], capture_output=True, text=True, check=True
    ).stdout
    (folder / "htpasswd").write_text(line)
    (folder / "config.yml").write_text(
        "version: 0.1\n"
        "log: {level: warn, accesslog: {disabled: true}}\n"
        "storage:\n"
        f"  filesystem: {{rootdirectory: {folder / 'data'}}}\n"
        "  delete: {enabled: true}\n"
        f"http: {{addr: '{LOOPBACK}:{port}'}}\n"
        f"auth: {{htpasswd: {{realm: haulier, path: {folder / 'htpasswd'}}}}}\n"
    )
