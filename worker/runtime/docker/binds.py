"""Checks which host files a task can mount, by their real paths with all links resolved."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from worker.runtime.port import TaskError

_SOCKETS = (
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
)


class BindRules(msgspec.Struct, frozen=True):
    """What the worker's configuration allows. `private`: folders of ours that no task may see."""

    allowed: bool
    sources: tuple[str, ...]
    engine_socket: Path | None
    private: Path
    same_machine: bool

    def real_path(self, source: str, where: str) -> str:
        """Return the path to mount for `source`. Raises TaskError for what is not allowed."""
        if not self.allowed:
            raise TaskError(f"{where}: bind mounts are not allowed by this worker (mounts.bind)")
        if not source.startswith("/") or "\0" in source:
            raise TaskError(f"{where}: the source {source!r} is not an absolute path")
        if not self.same_machine:
            raise TaskError(
                f"{where}: bind mounts need a Docker engine on the worker's machine, "
                "because links in their paths can't be checked otherwise"
            )
        try:
            real = Path(os.path.realpath(source, strict=True))
        except OSError as error:
            raise TaskError(f"{where}: the source {source}: {error.strerror}") from None
        if not self._listed(real):
            raise TaskError(f"{where}: the source {source} is not in the worker's allowed sources")
        self._check_exposed(real, source, where)
        return str(real)

    def _listed(self, real: Path) -> bool:
        if not self.sources:
            return True
        return any(real.is_relative_to(os.path.realpath(allowed)) for allowed in self.sources)

    def _check_exposed(self, real: Path, source: str, where: str) -> None:
        named = {os.path.realpath(allowed) for allowed in self.sources}
        if stat.S_ISSOCK(real.stat().st_mode) and self._is_engines(real) and str(real) not in named:
            raise TaskError(f"{where}: {source} is the engine's socket")
        for engines in self._sockets():
            if engines.is_relative_to(real) and str(engines) not in named:
                raise TaskError(f"{where}: {source} contains the engine's socket, {engines}")
        private = self.private.resolve()
        if private.is_relative_to(real) or real.is_relative_to(private):
            raise TaskError(f"{where}: {source} contains the worker's files")

    def _is_engines(self, real: Path) -> bool:
        return any(_same(real, engines) for engines in self._sockets())

    def _sockets(self) -> Iterable[Path]:
        candidates = [Path(path) for path in _SOCKETS]
        if self.engine_socket is not None:
            candidates.append(self.engine_socket)
        return [path.resolve() for path in candidates if path.exists()]


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
