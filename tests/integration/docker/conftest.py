"""A Docker runtime on a real engine, with settings of each test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from docker import APIClient

from shared.config import Config
from shared.config.schema import Bind, Docker, Mounts, RuntimeSettings, WorkerLimits, WorkerSettings
from tests.contract.runtime_runs import Subject
from worker.runtime.docker import DockerRuntime

Start = Callable[..., Awaitable[Subject]]


@pytest.fixture
def api(docker_host: str) -> Any:
    """The engine, to look at what the runtime has made."""
    client = APIClient(base_url=docker_host)
    yield client
    client.close()


@pytest.fixture
async def start(docker_host: str, tmp_path: Path) -> AsyncIterator[Start]:
    """Start a runtime: `docker` are its settings, `bind` those of bind mounts, `limits` the worker's, `known`
    whether the coordinators know its node."""
    async with AsyncExitStack() as stack:

        async def begin(
            *,
            bind: Bind | None = None,
            limits: WorkerLimits | None = None,
            slots: int = 2,
            data: Path | None = None,
            known: bool = True,
            **docker: Any,
        ) -> Subject:
            docker.setdefault("host", docker_host)
            config = Config(
                runtime=RuntimeSettings(stop_timeout=1, docker=Docker(**docker)),
                mounts=Mounts(bind=bind or Bind()),
                worker=WorkerSettings(
                    data=str(data or tmp_path / "worker"),
                    queues={"default": slots},
                    limits=limits or WorkerLimits(),
                ),
            )
            node_id = uuid4().hex[:12]
            runtime = DockerRuntime(config, node_id)
            await runtime.start()
            if known:
                runtime.warm_up()
            stack.push_async_callback(runtime.close)
            return Subject("docker", runtime, node_id)

        yield begin


@pytest.fixture
async def subject(start: Start) -> Subject:
    """A runtime with the usual settings."""
    return await start()


def named_for(api: Any, node_id: str, **filters: Any) -> list[dict[str, Any]]:
    """Return the containers that a node has made."""
    found: list[dict[str, Any]] = api.containers(
        all=True, filters={"label": [f"haulier.node={node_id}", *filters.get("labels", [])]}
    )
    return found
