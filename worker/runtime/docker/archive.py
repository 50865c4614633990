"""Copies files into and out of a container as archives, for engines that can't see the worker's files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

import msgspec
from docker import APIClient
from docker.errors import NotFound

from worker.runtime import task_folder
from worker.runtime.errors import TaskError

_SPECIAL = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
"""Bits of a mode as Go writes it: a folder, link, device, FIFO, socket, or something else not plain."""


class ArchiveEntry(msgspec.Struct, frozen=True):
    """A file (or a folder, where `contents` is None) and its path in the container."""

    path: str
    contents: bytes | None
    mode: int


def put(
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
            info.mode = entry.mode
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
        put(api, container_id, entries, folder)
    except NotFound:
        put(
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
