"""Finds the engine's address: from the settings, or else in the same way as the docker command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from docker.context import ContextAPI
from docker.errors import DockerException
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env

from shared.errors import RuntimeUnavailable

USUAL = "unix:///var/run/docker.sock"


class Address(msgspec.Struct, frozen=True):
    """An engine's address, with what TLS needs, and where it came from, for messages."""

    host: str
    origin: str
    tls: TLSConfig | bool = False

    @property
    def socket(self) -> Path | None:
        """The engine's socket, where it is one of this machine."""
        return Path(self.host.removeprefix("unix://")) if self.host.startswith("unix://") else None


def find_address(configured: str, environ: Mapping[str, str]) -> Address:
    """Return the engine's address. Raises RuntimeUnavailable for settings that can't be read."""
    try:
        if configured:
            return _by_variables(configured, "runtime.docker.host", environ)
        if host := environ.get("DOCKER_HOST"):
            return _by_variables(host, "DOCKER_HOST", environ)
        return _by_context(environ.get("DOCKER_CONTEXT")) or Address(
            _usual(environ), "the usual socket"
        )
    except (DockerException, OSError, ValueError) as error:
        raise RuntimeUnavailable(f"the Docker engine's address cannot be read: {error}") from None


def _by_variables(host: str, origin: str, environ: Mapping[str, str]) -> Address:
    if "://" not in host:
        host = f"unix://{host}" if host.startswith("/") else f"tcp://{host}"
    found = kwargs_from_env({**environ, "DOCKER_HOST": host})
    tls = found.get("tls", False) if not host.startswith("unix://") else False
    return Address(host, origin, tls)


def _by_context(name: str | None) -> Address | None:
    context = ContextAPI.get_context(name) if name else ContextAPI.get_current_context()
    if context is None:
        raise ValueError(f"there is no Docker context {name!r}")
    if context.name == "default":
        return None
    host = context.Host or USUAL
    return Address(host, f"the context {context.name!r}", context.TLSConfig or False)


def _usual(environ: Mapping[str, str]) -> str:
    candidates = [Path("/var/run/docker.sock"), Path.home() / ".docker/run/docker.sock"]
    if folder := environ.get("XDG_RUNTIME_DIR"):
        candidates.insert(1, Path(folder, "docker.sock"))
    for path in candidates:
        if path.exists() and os.access(path, os.R_OK | os.W_OK):
            return f"unix://{path}"
    return USUAL
