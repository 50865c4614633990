"""Which host files a task can mount: opened once, without following links, so that what was checked is what is mounted.

Whoever can write to an allowed folder can replace what is below it at any moment, by a link to `/etc` for instance. So
the engine is not told a path but an open folder of this process (`/proc/PID/fd/N`), by way of a volume.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from worker.runtime.port import TaskError, file_error

_SOCKETS = (
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
)


class BindSource(msgspec.Struct, frozen=True):
    """What to mount: a path that no task can replace, or what was opened, which is to be closed."""

    path: str
    descriptor: int = -1
    is_folder: bool = True

    @property
    def device(self) -> str:
        """The path by which the engine gets to what was opened."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"


class Listed(msgspec.Struct, frozen=True):
    """A path of the list, and what it led to when the worker started."""

    path: Path
    real: Path

    def holds(self, other: Listed) -> bool:
        """Return whether another one is below this one: whoever mounts this one can replace that one."""
        return self is not other and (
            (self.path != other.path and other.path.is_relative_to(self.path))
            or (self.real != other.real and other.real.is_relative_to(self.real))
        )


def listed_source(source: str) -> Listed:
    """Return an entry of `mounts.bind.sources`, its links followed now and never again."""
    return msgspec.structs.replace(unseen_source(source), real=Path(os.path.realpath(source)))


def unseen_source(source: str) -> Listed:
    """Return an entry of a path that does not answer, with its links not followed."""
    path = Path(os.path.normpath(source))
    return Listed(path, path)


class BindRules(msgspec.Struct, frozen=True):
    """What the worker's configuration allows. `private`: folders of ours that no task may see.

    `same_machine`: the engine sees the worker's files under the same paths. `opens`: it also mounts what the worker
    has opened; else only the listed paths themselves can be mounted.
    """

    allowed: bool
    sources: tuple[Listed, ...]
    engine_socket: Path | None
    private: Path
    same_machine: bool
    opens: bool = False

    def check_any(self, where: str, what: str) -> None:
        """Refuse what reaches the host or the network, and is no path that could be listed. Raises TaskError."""
        if not self.allowed:
            raise TaskError(f"{where}: {what} is not allowed by this worker (mounts.bind.allowed)")
        if self.sources:
            raise TaskError(
                f"{where}: {what} is not allowed by this worker, which lists what can be mounted: mount it on the host "
                "and list that path (mounts.bind.sources)"
            )

    def source(self, source: str, where: str, *, by_path: bool = False) -> BindSource:
        """Return what to mount for `source`. Raises TaskError for what is not allowed.

        `by_path`: its mounts are to be followed by the container's, which needs the path itself.
        """
        if not self.allowed:
            raise TaskError(f"{where}: bind mounts are not allowed by this worker (mounts.bind)")
        if not source.startswith("/") or "\0" in source:
            raise TaskError(f"{where}: the source {source!r} is not an absolute path")
        if not self.same_machine:
            return BindSource(
                str(self._itself_listed(Path(os.path.normpath(source)), source, where))
            )
        real = self._real(source, where)
        if not self._is_listed(real):
            raise TaskError(f"{where}: the source {source} is not in the worker's allowed sources")
        try:
            self._check_exposed(real, source, where)
            if self.opens and not by_path:
                return self._opened(real)
        except OSError as error:
            raise file_error(error, f"{where}: the source {source} changed meanwhile") from None
        if not self.sources and self.opens:
            return BindSource(str(real))
        return BindSource(str(self._itself_listed(real, source, where)))

    # --- what is listed ---

    def _real(self, source: str, where: str) -> Path:
        try:
            return Path(os.path.realpath(source, strict=True))
        except OSError as error:
            raise file_error(error, f"{where}: the source {source}") from None

    def _is_listed(self, real: Path) -> bool:
        """Return whether a path is below one that no task can have replaced."""
        if not self.sources:
            return True
        return any(
            real.is_relative_to(one.real)
            for one in self.sources
            if not any(other.holds(one) for other in self.sources)
        )

    def _itself_listed(self, path: Path, source: str, where: str) -> Path:
        """Return a path that is listed itself, so that no task can replace it by a link. Raises TaskError."""
        for one in self.sources:
            if path not in ((one.real,) if self.same_machine else (one.path, one.real)):
                continue
            if any(other.holds(one) for other in self.sources):
                raise TaskError(
                    f"{where}: the source {source} is in another allowed source, where a task could replace it"
                )
            return path
        raise TaskError(
            f"{where}: the source {source} is not itself in the worker's allowed sources (mounts.bind.sources), and "
            "nothing below them can be mounted safely here"
        )

    def _opened(self, real: Path) -> BindSource:
        descriptor = _open_path(real)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return BindSource(str(real), descriptor)
        if self._is_safe_file(real):
            os.close(descriptor)
            return BindSource(str(real))
        return BindSource(str(real), descriptor, is_folder=False)

    def _is_safe_file(self, real: Path) -> bool:
        """Return whether a file's path can't be made to lead to what is not allowed."""
        if not self.sources:
            return True
        named = [one for one in self.sources if one.real == real]
        return any(not any(other.holds(one) for other in self.sources) for one in named)

    # --- what must stay hidden ---

    def _check_exposed(self, real: Path, source: str, where: str) -> None:
        named = {one.real for one in self.sources}
        if stat.S_ISSOCK(real.stat().st_mode) and self._is_engines(real) and real not in named:
            raise TaskError(f"{where}: {source} is the engine's socket")
        for engines in self._sockets():
            if engines.is_relative_to(real) and engines not in named:
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


def _open_path(real: Path) -> int:
    """Open a path of which no part is a link, without reading it. Raises OSError."""
    at = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in real.parts[1:]:
        try:
            below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        finally:
            os.close(at)
        at = below
    if stat.S_ISLNK(os.fstat(at).st_mode):
        os.close(at)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return at


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
