"""Images by a real private registry: pulled once, with credentials, and pruned when unused."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from docker.errors import ImageNotFound

from shared.model import language
from tests.contract.runtime_runs import IMAGE, Subject, nobody_dead
from tests.integration.docker.conftest import Start
from tests.services.fixtures import Registry

pytestmark = pytest.mark.docker


@pytest.fixture
def image(api: Any, registry: Registry) -> Iterator[str]:
    """An image that only the registry has."""
    repository = f"{registry.address}/test-{uuid4().hex[:8]}"
    api.tag(IMAGE, repository, "1")
    auth = {"username": registry.username, "password": registry.password}
    for step in api.push(repository, "1", stream=True, decode=True, auth_config=auth):
        assert "error" not in step, step
    api.remove_image(f"{repository}:1")
    yield f"{repository}:1"
    try:
        api.remove_image(f"{repository}:1", force=True)
    except ImageNotFound:
        return


def given(registry: Registry) -> language.Registry:
    return language.Registry(username=registry.username, password=registry.password)


async def test_pulled_with_the_tasks_credentials_once_for_many(
    subject: Subject, image: str, registry: Registry
) -> None:
    rans = await asyncio.gather(
        *(subject.ran(run="echo hi", image=image, registry=given(registry)) for _ in range(3))
    )
    assert [ran.outcome.error for ran in rans] == [None] * 3
    assert all(ran.log.text.endswith("hi\n") for ran in rans)
    assert sum(ran.log.text.count(f"pulled {image}") for ran in rans) >= 1
    again = await subject.ran(run="echo hi", image=image)
    assert again.log.text == "hi\n"


async def test_no_access_and_not_found_are_told_apart(
    subject: Subject, image: str, registry: Registry
) -> None:
    anonymous = await subject.ran(run="true", image=image)
    assert anonymous.outcome.error is not None
    assert "no access" in anonymous.outcome.error
    wrong = language.Registry(username="nobody", password="wrong")
    refused = await subject.ran(run="true", image=image, registry=wrong)
    assert "no access" in (refused.outcome.error or "")
    assert "wrong" not in (refused.outcome.error or "")
    missing = await subject.ran(run="true", image=image + "-no", registry=given(registry))
    assert "not found" in (missing.outcome.error or "")
    assert "no access" not in (missing.outcome.error or "")


async def test_one_tasks_wrong_credentials_do_not_fail_another(
    subject: Subject, image: str, registry: Registry
) -> None:
    wrong = language.Registry(username="nobody", password="wrong")
    _, right = await asyncio.gather(
        subject.ran(run="true", image=image, registry=wrong),
        subject.ran(run="true", image=image, registry=given(registry)),
    )
    assert right.outcome.error is None


async def test_credentials_of_a_docker_config_file(
    start: Start, image: str, registry: Registry, tmp_path: Path
) -> None:
    token = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {registry.address: {"auth": token}}}))
    subject = await start(config=str(file))
    assert (await subject.ran(run="true", image=image)).outcome.error is None


async def test_credentials_of_a_helper(
    start: Start, image: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-test"
    told = {
        "ServerURL": registry.address,
        "Username": registry.username,
        "Secret": registry.password,
    }
    helper.write_text(f"#!/bin/sh\necho '{json.dumps(told)}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"credHelpers": {registry.address: "test"}}))
    subject = await start(config=str(file))
    assert (await subject.ran(run="true", image=image)).outcome.error is None


async def test_an_image_that_needed_credentials_is_pulled_again_for_others(
    start: Start, image: str, registry: Registry
) -> None:
    subject = await start(pull="private")
    with_them = await subject.ran(run="true", image=image, registry=given(registry))
    assert with_them.outcome.error is None
    without = await subject.ran(run="true", image=image)
    assert "no access" in (without.outcome.error or "")
    assert (await subject.ran(run="true")).outcome.error is None
    always = await start(pull="always")
    assert "no access" in str((await always.ran(run="true", image=image)).outcome.error)


async def test_only_images_that_are_listed(start: Start, api: Any) -> None:
    identity = api.inspect_image(IMAGE)["Id"].removeprefix("sha256:")[:12]
    subject = await start(images=("alpine:3.18.*",))
    assert (await subject.ran(run="true")).outcome.error is None
    for image in (identity, f"sha256:{identity}", "haulier/pause-1", "alpine:edge"):
        ran = await subject.ran(run="true", image=image)
        assert "not allowed by this worker (runtime.docker.images)" in (ran.outcome.error or "")
    anything = await start(images=("docker.io/library/*",))
    assert "not found" in str((await anything.ran(run="true", image=identity)).outcome.error) or (
        "cannot be pulled" in str((await anything.ran(run="true", image=identity)).outcome.error)
    )


@pytest.mark.parametrize("image", [":bad", "A B"])
async def test_an_error_of_the_engine_names_stage_and_image(subject: Subject, image: str) -> None:
    pre = language.SmallTask(name="before", image=image, run="true")
    ran = await subject.ran(run="true", pre=[pre])
    assert (ran.outcome.error or "").startswith(f"pre task 'before': image {image!r}: ")
    main = await subject.ran(run="true", image=image)
    assert (main.outcome.error or "").startswith(f"image {image!r}: ")
    sidecar = language.Sidecar(name="beside", image=image, run="true")
    beside = await subject.ran(run="true", sidecars=[sidecar])
    assert (beside.outcome.error or "").startswith(f"sidecar 'beside': image {image!r}: ")


async def test_unused_images_are_pruned(
    start: Start, image: str, registry: Registry, api: Any, tmp_path: Path
) -> None:
    subject = await start(image_ttl=3600.0)
    assert (
        await subject.ran(run="true", image=image, registry=given(registry))
    ).outcome.error is None
    await subject.runtime.sweep(nobody_dead, subject.node_id)
    assert api.inspect_image(image)
    for file in (tmp_path / "worker/images").iterdir():
        os.utime(file, (time.time() - 7200,) * 2)
    assert await subject.runtime.sweep(nobody_dead, subject.node_id) == 1
    with pytest.raises(ImageNotFound):
        api.inspect_image(image)
    assert api.inspect_image(IMAGE)


@pytest.mark.filterwarnings("ignore:docker-credential-not-there not installed")
async def test_a_broken_config_file_is_a_clear_error(
    start: Start, image: str, tmp_path: Path
) -> Any:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"credHelpers": {image.split("/")[0]: "not-there"}}))
    subject = await start(config=str(file))
    ran = await subject.ran(run="true", image=image)
    assert ran.outcome.error is not None
    assert image in ran.outcome.error
