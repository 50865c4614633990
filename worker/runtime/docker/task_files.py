"""Two ways for files into and out of a container: a folder that the engine shares, or archives."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec
from docker import APIClient
from docker.errors import NotFound

from shared.model.language import SmallTask
from shared.threads import in_thread
from worker.runtime import task_folder
from worker.runtime.docker.container_spec import TORK, workdir
from worker.runtime.docker.engine import Engine
from worker.runtime.port import TaskError, file_error

_SPECIAL = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
"""Bits of a mode as Go writes it: a folder, link, device, FIFO, socket, or something else not plain."""


class ArchiveEntry(msgspec.Struct, frozen=True):
    """A file (or a folder, where `contents` is None) and its path in the container."""

    path: str
    contents: bytes | None
    mode: int


def put_archive(
    api: APIClient, container_id: str, entries: Iterable[ArchiveEntry], below: str = "/"
) -> None:
    """Put files into a created container, with paths relative to the folder `below`, which is there.

    Folders above them are made. Engines differ in whether they see what is mounted further down
    than `below`. Raises APIError, NotFound where `below` is not there.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.path.lstrip("/"))
            info.mode, info.mtime = entry.mode, int(time.time())
            if entry.contents is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(entry.contents)
                tar.addfile(info, io.BytesIO(entry.contents))
    # Without tarfile's padding: Podman's reader stops at the end mark, and then fails by what is left.
    api.put_archive(container_id, below, buffer.getvalue()[: tar.offset])


def put_in(api: APIClient, container_id: str, entries: list[ArchiveEntry], folder: str) -> None:
    """Put files into a folder of a created container, which is made if it is not there."""
    try:
        put_archive(api, container_id, entries, folder)
    except NotFound:
        put_archive(
            api,
            container_id,
            [msgspec.structs.replace(one, path=f"{folder}/{one.path}") for one in entries],
        )


def get_plain(api: APIClient, container_id: str, path: str, limit: int) -> bytes | None:
    """Return a plain file of a container's; None where there is none.

    Raises TaskError past `limit` bytes, and for what is no plain file: nothing more of it is read.
    """
    try:
        chunks, status = api.get_archive(container_id, path)
    except NotFound:
        return None
    if status["mode"] & _SPECIAL:  # of what the path names, not of what a link leads to
        raise task_folder.output_not_plain()
    try:
        return _first_file(_Reader(chunks), limit)
    except tarfile.TarError as error:
        raise TaskError(f"{path} cannot be read from the container: {error}") from None


def _first_file(reader: _Reader, limit: int) -> bytes | None:
    with tarfile.open(fileobj=reader, mode="r|") as tar:
        info = tar.next()
        if info is None:
            return None
        if not info.isreg():
            raise task_folder.output_not_plain()
        if info.size > limit:
            raise task_folder.output_too_large(limit)
        file = tar.extractfile(info)
        return file.read() if file else None


class _Reader(io.RawIOBase):
    """Chunks of bytes as a file that can be read once."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = next(self._chunks, b"")
        part = self._rest[: len(buffer)]
        self._rest = self._rest[len(part) :]
        buffer[: len(part)] = part
        return len(part)


OUTPUT = f"{TORK}/{task_folder.OUTPUT_FILE}"
PROGRESS = f"{TORK}/{task_folder.PROGRESS_FILE}"


class TaskFiles(Protocol):
    """Files in, output and progress out, of one container."""

    async def before(self, small: SmallTask, body: dict[str, Any]) -> None:
        """Make what has to be there at the creation, and add it to the request's body.

        Raises TaskError, RunLostError.
        """

    async def after(self, small: SmallTask, container_id: str, workdir: str) -> None:
        """Put in what can only be put in after the creation."""

    async def output(self, limit: int) -> str:
        """Return the output of the ended container. Raises TaskError, RunLostError."""

    async def progress(self) -> float | None:
        """Return the progress that the running container has written."""

    def script_read(self) -> float | None:
        """Return when the script was first read, in seconds since the epoch; None where nobody knows.

        An earlier time than that of the container's start says nothing.
        """


class SharedFolderFiles:
    """A folder of the host's, bound to `/tork`: nothing is copied."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._container_id = ""

    async def before(self, small: SmallTask, body: dict[str, Any]) -> None:
        """Make the folder with the script, the files and those to write to, and bind it."""
        await in_thread(self._make, small)
        body["HostConfig"]["Mounts"].append(
            {"Type": "bind", "Source": str(self._folder), "Target": TORK}
        )

    async def after(self, small: SmallTask, container_id: str, workdir: str) -> None:
        """Copy the files in whose folder is not the bound one."""
        self._container_id = container_id
        if small.files and not _in_tork(workdir):
            put = put_in
            await self._engine.call(put, self._engine.api, container_id, _files(small), workdir)

    async def output(self, limit: int) -> str:
        """Read the output on this machine; through the engine where another user's file can't be read."""
        try:
            return await in_thread(
                task_folder.read_output, self._folder / task_folder.OUTPUT_FILE, limit
            )
        except PermissionError:  # the file of another user, where the worker is not root
            get = get_plain
            data = await self._engine.call_until_answered(
                get, self._engine.api, self._container_id, OUTPUT, limit
            )
            return task_folder.decoded_output(data or b"", limit)
        except OSError as error:
            raise file_error(error, "the output cannot be read") from None

    async def progress(self) -> float | None:
        """Read the progress on this machine."""
        return await in_thread(task_folder.read_progress, self._folder / task_folder.PROGRESS_FILE)

    def script_read(self) -> float | None:
        """Return the kernel's word, where the file system keeps it (not with `noatime`)."""
        try:
            return (self._folder / task_folder.SCRIPT_FILE).lstat().st_atime
        except OSError:
            return None

    def _make(self, small: SmallTask) -> None:
        directory = workdir(small)
        try:
            task_folder.make(self._folder, small.run)
            if _in_tork(directory):
                inside = self._folder / directory.removeprefix(TORK).lstrip("/")
                task_folder.write_files(inside, small.files)
        except OSError as error:
            place = str(error.filename or self._folder).replace(str(self._folder), TORK, 1)
            raise file_error(error, f"cannot make {place}") from None


class ArchivedFiles:
    """Archives copied in and out, through the engine."""

    def __init__(self, engine: Engine, *, readonly_root: bool = False) -> None:
        self._engine = engine
        self._readonly_root = readonly_root
        self._container_id = ""

    async def before(self, _: SmallTask, body: dict[str, Any]) -> None:
        """Make nothing: all is copied in; where nothing else could be written to, into a volume."""
        if self._readonly_root:
            body["HostConfig"]["Mounts"].append({"Type": "volume", "Target": TORK})

    async def after(self, small: SmallTask, container_id: str, workdir: str) -> None:
        """Copy the script, the files and those to write to into the container."""
        self._container_id = container_id
        entries = [
            ArchiveEntry(TORK, None, 0o777),
            ArchiveEntry(OUTPUT, b"", 0o666),
            ArchiveEntry(PROGRESS, b"", 0o666),
        ]
        if small.run:
            entries.append(
                ArchiveEntry(
                    f"{TORK}/{task_folder.SCRIPT_FILE}", task_folder.script_of(small.run), 0o555
                )
            )
        if _in_tork(workdir) and workdir != TORK:
            entries.append(ArchiveEntry(workdir, None, 0o777))
        below = "/"
        if self._readonly_root:
            below, entries = TORK, _relative(entries)
        await self._engine.call(put_archive, self._engine.api, container_id, entries, below)
        if small.files:
            put = put_in
            await self._engine.call(put, self._engine.api, container_id, _files(small), workdir)

    async def output(self, limit: int) -> str:
        """Copy the output out of the container."""
        data = await self._get(OUTPUT, limit)
        return task_folder.decoded_output(data or b"", limit)

    async def progress(self) -> float | None:
        """Copy the progress out of the container; None where that fails."""
        try:
            return task_folder.parse_progress(await self._get(PROGRESS, 64) or b"")
        except Exception:
            return None

    def script_read(self) -> float | None:
        """Return None: no engine tells."""
        return None

    async def _get(self, path: str, limit: int) -> bytes | None:
        get = get_plain
        return await self._engine.call_until_answered(
            get, self._engine.api, self._container_id, path, limit
        )


def _in_tork(workdir: str) -> bool:
    return workdir == TORK or workdir.startswith(f"{TORK}/")


def _relative(entries: list[ArchiveEntry]) -> list[ArchiveEntry]:
    """Return what is below `/tork`, by paths in there, and that folder's own mode."""
    return [
        msgspec.structs.replace(one, path=one.path.removeprefix(TORK).lstrip("/") or ".")
        for one in entries
    ]


def _files(small: SmallTask) -> list[ArchiveEntry]:
    return [
        ArchiveEntry(task_folder.safe_name(name), task_folder.encoded(contents), 0o444)
        for name, contents in small.files.items()
    ]
