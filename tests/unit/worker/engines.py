"""What a run needs of a worker, on an engine of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.config.schema import Docker, WorkerSettings
from shared.model.language import TaskDefinition
from worker.runtime.docker.binds import BindRules
from worker.runtime.docker.engine import Engine
from worker.runtime.docker.images import Images, UsedImages
from worker.runtime.docker.networks import OwnNetwork
from worker.runtime.docker.resources import DockerContext
from worker.runtime.port import Assignment
from worker.runtime.task_folder import Folders


def engine_of(api: Any) -> Engine:
    """Return an engine that `api` answers for."""
    engine = Engine("", "")
    engine._api = api
    return engine


def context(tmp_path: Path, api: Any) -> DockerContext:
    """Return what a run needs, with its files in `tmp_path`."""
    engine = engine_of(api)
    folders = Folders(str(tmp_path), "node")
    folders.open()
    used = UsedImages(tmp_path / "images")
    return DockerContext(
        node_id="node",
        engine=engine,
        settings=Docker(),
        worker=WorkerSettings(),
        stop_timeout=1,
        folders=folders,
        images=Images(engine, used),
        own_network=OwnNetwork(engine, wanted=False),
        used=used,
        bind_rules=BindRules(False, (), None, folders.top, False),
    )


def assignment(task: TaskDefinition) -> Assignment:
    """Return an order to run `task`."""
    return Assignment(task_id="t" * 32, job_id="j", node_id="n", nonce="x", attempt=1, task=task)
