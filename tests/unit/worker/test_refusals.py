"""What is said of a container that the engine makes, and then refuses something for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from docker.errors import APIError, DockerException

from shared.model.language import Sidecar, SmallTask, TaskDefinition
from tests.unit.worker.engines import assignment, context
from tests.unit.worker.sinks import NoLog
from worker.runtime.docker import container_spec
from worker.runtime.docker.images import UsedImages
from worker.runtime.docker.resources import Maker, RefusedError
from worker.runtime.docker.run import DockerRun
from worker.runtime.docker.task_files import SharedFolderFiles
from worker.runtime.port import RunLostError, TaskError

NO_FOLDER = "extraction point is not a directory"


class Api:
    """An engine that creates containers, and takes no archives."""

    def __init__(self, fault: Exception) -> None:
        self._fault = fault

    def create_container_from_config(self, *_: Any) -> dict[str, str]:
        return {"Id": "made"}

    def put_archive(self, *_: Any, **__: Any) -> None:
        raise self._fault

    def __getattr__(self, name: str) -> Any:
        raise self._fault


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (
            APIError("refused", explanation=NO_FOLDER),
            RefusedError,
            f"image 'an/image': the engine refuses: {NO_FOLDER}",
        ),
        (
            APIError("refused", explanation="no space left on device"),
            RunLostError,
            "image 'an/image': the engine refuses: no space left on device",
        ),
        (DockerException("odd"), TaskError, "image 'an/image': odd"),
    ],
)
async def test_what_is_refused_after_the_creation_names_the_image(
    tmp_path: Path, fault: Exception, kind: type[Exception], said: str
) -> None:
    maker = Maker(assignment(TaskDefinition(image="x")), NoLog(), context(tmp_path, Api(fault)))
    await maker.common()
    with pytest.raises(kind) as refused:
        await maker.container(
            "main", SmallTask(image="an/image", run="true"), container_spec.Network("none")
        )
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("owner", "name"),
    [(UsedImages, "is_private"), (UsedImages, "note_used"), (SharedFolderFiles, "script_read")],
)
async def test_what_is_asked_of_the_disk_while_a_run_goes_on_holds_up_nobody_else(
    owner: type, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop, real = threading.get_ident(), getattr(owner, name)
    asked: list[bool] = []

    def noted(*args: Any) -> Any:
        asked.append(threading.get_ident() == on_loop)
        return real(*args)

    monkeypatch.setattr(owner, name, noted)
    services = context(tmp_path, Api(APIError("refused")))
    services.settings = msgspec.structs.replace(services.settings, pull="private")
    services.shares_files = True
    run = DockerRun(assignment(TaskDefinition(image="x")), NoLog(), services)
    small = SmallTask(image="an/image", run="true")
    await run._maker.common()
    run._ran.append(await run._maker.container("main", small, container_spec.Network("none")))
    await run._usage()
    assert asked == [False]


async def test_a_sidecar_of_which_something_is_refused_is_named(tmp_path: Path) -> None:
    sidecar = Sidecar(name="db", image="an/image")
    task = TaskDefinition(image="x", sidecars=[sidecar])
    fault = APIError("refused", explanation=NO_FOLDER)
    run = DockerRun(assignment(task), NoLog(), context(tmp_path, Api(fault)))
    await run._maker.common()
    run._private = "private"
    with pytest.raises(TaskError) as refused:
        await run._sidecars()
    assert str(refused.value) == (
        f"sidecar 'db': image 'an/image': the engine refuses: {NO_FOLDER}"
    )
