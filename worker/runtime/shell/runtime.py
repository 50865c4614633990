"""Tasks as local processes, without isolation: for a single trusted machine (the runtime spec)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Collection
from functools import partial

from shared.config import Config
from shared.errors import RuntimeUnavailable
from worker.runtime import task_folder
from worker.runtime.port import Assignment, Sink
from worker.runtime.shell.folder_pool import FolderPool
from worker.runtime.shell.run import ShellRun
from worker.runtime.shell.supervisors import Supervisors


class ShellRuntime:
    """The shell adapter of the Runtime port. `node_id` is the worker's own."""

    def __init__(self, config: Config, node_id: str) -> None:
        self._config = config
        self._folders = task_folder.Folders(config.worker.data, node_id)
        self._keepers = Supervisors()
        self._spares = FolderPool()

    async def start(self) -> None:
        """Start the keepers of processes. Raises `RuntimeUnavailable` where `cmd` is no program of this machine."""
        program = self._config.runtime.shell.cmd[0]
        if shutil.which(program) is None:
            raise RuntimeUnavailable(
                f"runtime.shell.cmd: the program {program!r} does not exist on this machine"
            )
        await asyncio.to_thread(self._folders.open)
        await asyncio.to_thread(self._keepers.start)

    def warm_up(self) -> None:
        """Do nothing: what is kept warm is what runs have left."""

    async def prepare(self, assignment: Assignment, sink: Sink) -> ShellRun:
        """Make the folder with script and files."""
        folder = self._folders.new()
        run = ShellRun(assignment, sink, self._config, self._keepers, self._spares, folder)
        try:
            await run.prepare()
        except BaseException:
            await asyncio.shield(run.remove())
            raise
        return run

    async def sweep(
        self, dead: Callable[[Collection[str]], Awaitable[Collection[str]]], mine: str
    ) -> int:
        """Remove the folders of dead nodes; their processes died with them."""
        owners = await asyncio.to_thread(self._folders.owners)
        gone = await dead(owners - {mine}) if owners - {mine} else ()
        removed = 0
        for node in set(gone) - {mine}:
            removed += await asyncio.to_thread(partial(self._folders.remove_all, node))
        return removed

    async def ping(self) -> None:
        """Return at once: there is no engine to ask."""

    async def close(self) -> None:
        """End the keepers, with what still runs, and remove the folders."""
        await asyncio.to_thread(self._keepers.close)
        await asyncio.to_thread(self._spares.close)
        await asyncio.to_thread(self._folders.close)


__all__ = ["ShellRuntime"]
