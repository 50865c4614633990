"""What all runs of one Docker runtime share."""

from __future__ import annotations

from pathlib import Path

import msgspec

from shared.config.tree import Docker, WorkerSettings
from worker.runtime.docker.binds import BindRules
from worker.runtime.docker.engine import Engine
from worker.runtime.docker.images import Images, UsedImages
from worker.runtime.docker.network_sandboxes import Sandboxes
from worker.runtime.docker.task_files import ArchivedFiles, SharedFolderFiles, TaskFiles
from worker.runtime.docker.usage import Cgroups
from worker.runtime.run_folders import Folders


class DockerContext(msgspec.Struct):
    """The engine, the settings, and what was found out about them at the start."""

    node_id: str
    engine: Engine
    settings: Docker
    worker: WorkerSettings
    stop_timeout: float
    folders: Folders
    images: Images
    used: UsedImages
    bind_rules: BindRules
    cgroups: Cgroups | None = None
    sandboxes: Sandboxes | None = None
    shares_files: bool = False
    """Whether the engine sees the worker's files under the same paths."""

    def exchange(self, folder: Path) -> TaskFiles:
        """Return the way files go into and out of one container; `folder` is not yet made."""
        if self.shares_files:
            return SharedFolderFiles(self.engine, folder)
        return ArchivedFiles(self.engine)
