"""Two ways to move files into and out of a container: a shared host folder, or archives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Protocol

from shared.model.language import SmallTask
from worker.runtime import errors, task_folder
from worker.runtime.docker import archive
from worker.runtime.docker.archive import ArchiveEntry
from worker.runtime.docker.container_spec import workdir
from worker.runtime.docker.engine import Engine
from worker.runtime.docker.mounts import TORK

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
        await asyncio.to_thread(self._make, small)
        body["HostConfig"]["Mounts"].append(
            {"Type": "bind", "Source": str(self._folder), "Target": TORK}
        )

    async def after(self, small: SmallTask, container_id: str, workdir: str) -> None:
        """Copy the files in whose folder is not the bound one."""
        self._container_id = container_id
        if small.files and not _in_tork(workdir):
            put = archive.put_in
            await self._engine.call(put, self._engine.api, container_id, _files(small), workdir)

    async def output(self, limit: int) -> str:
        """Read the output on this machine; through the engine where another user's file can't be read."""
        try:
            return await asyncio.to_thread(
                task_folder.read_output, self._folder / task_folder.OUTPUT_FILE, limit
            )
        except PermissionError:  # the file of another user, where the worker is not root
            get = archive.get_plain
            data = await self._engine.call(get, self._engine.api, self._container_id, OUTPUT, limit)
            return task_folder.decoded_output(data or b"", limit)
        except OSError as error:
            raise errors.of_files(error, "the output cannot be read") from None

    async def progress(self) -> float | None:
        """Read the progress on this machine."""
        return await asyncio.to_thread(
            task_folder.read_progress, self._folder / task_folder.PROGRESS_FILE
        )

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
            raise errors.of_files(error, f"cannot make {error.filename or self._folder}") from None


class ArchivedFiles:
    """Archives copied in and out, through the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._container_id = ""

    async def before(self, small: SmallTask, body: dict[str, Any]) -> None:
        """Make nothing: all is copied in."""

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
                    f"{TORK}/{task_folder.SCRIPT_FILE}", task_folder.encoded(small.run), 0o555
                )
            )
        if _in_tork(workdir) and workdir != TORK:
            entries.append(ArchiveEntry(workdir, None, 0o777))
        await self._engine.call(archive.put, self._engine.api, container_id, entries)
        if small.files:
            put = archive.put_in
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
        get = archive.get_plain
        return await self._engine.call(get, self._engine.api, self._container_id, path, limit)


def _in_tork(workdir: str) -> bool:
    return workdir == TORK or workdir.startswith(f"{TORK}/")


def _files(small: SmallTask) -> list[ArchiveEntry]:
    return [
        ArchiveEntry(task_folder.safe_name(name), task_folder.encoded(contents), 0o444)
        for name, contents in small.files.items()
    ]
