"""Who is to blame for files that cannot be made, and what an engine refuses: the task, or the machine under it."""

from __future__ import annotations

import errno
import os

import pytest
from docker.errors import APIError, DockerException
from requests import Response

from shared.model.language import Mount, TaskDefinition
from worker.runtime.docker.images import pull_error
from worker.runtime.docker.resources import engine_refusals
from worker.runtime.port import RunLostError, TaskError, file_error


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EROFS", "EIO", "ENFILE", "EMFILE"])
def test_no_task_is_to_blame_for_the_machine(name: str) -> None:
    fault = file_error(_error(name), "cannot make /x")
    assert isinstance(fault, RunLostError)
    assert str(fault) == f"cannot make /x: {os.strerror(getattr(errno, name))}"


@pytest.mark.parametrize("name", ["ENAMETOOLONG", "ENOTDIR", "EACCES", "EEXIST"])
def test_a_task_is_to_blame_for_its_names(name: str) -> None:
    fault = file_error(_error(name), "cannot make /x")
    assert isinstance(fault, TaskError)
    assert str(fault) == f"cannot make /x: {os.strerror(getattr(errno, name))}"


def test_a_task_that_names_a_read_only_place_is_to_blame_for_it() -> None:
    assert isinstance(file_error(_error("EROFS"), "cannot make /x", chosen=True), TaskError)
    assert isinstance(file_error(_error("ENOSPC"), "cannot make /x", chosen=True), RunLostError)


@pytest.mark.parametrize(
    ("words", "blamed"),
    [
        ("write /var/lib/docker/tmp: no space left on device", RunLostError),
        ("could not find an available, non-overlapping IPv4 address pool", RunLostError),
        ("all predefined address pools have been fully subnetted", RunLostError),
        ("could not find free subnet from subnet pools", RunLostError),
        ("invalid reference format", TaskError),
    ],
)
def test_who_is_to_blame_by_the_engines_words(words: str, blamed: type[Exception]) -> None:
    with pytest.raises(blamed, match=words), engine_refusals(TaskDefinition()):
        raise APIError("refused", explanation=words)


FULL = "no space left on device"


def refusal(status: int, words: str) -> APIError:
    response = Response()
    response.status_code = status
    return APIError("refused", response, words)


@pytest.mark.parametrize(
    ("status", "task", "words", "kind"),
    [
        (500, TaskDefinition(image="a"), f"write /var: {FULL}", RunLostError),
        (400, TaskDefinition(workdir=f"/{FULL}"), f"invalid working directory: /{FULL}", TaskError),
        (400, TaskDefinition(image="a"), "address pools have been fully subnetted", RunLostError),
        (500, TaskDefinition(image=f"X {FULL}"), f"invalid reference: X {FULL}", TaskError),
        (
            500,
            TaskDefinition(mounts=[Mount(type="volume", target="/a", opts={"device": f"/{FULL}"})]),
            f"failed to mount /{FULL}",
            TaskError,
        ),
        (
            500,
            TaskDefinition(
                mounts=[
                    Mount(type="volume", target="/a", opts={"type": "x no  space\tleft on device"})
                ]
            ),
            f"no such device: x {FULL}",
            TaskError,
        ),
    ],
)
def test_an_engine_that_repeats_what_a_user_gave_does_not_blame_its_host(
    status: int, task: TaskDefinition, words: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind), engine_refusals(task, task.image):
        raise refusal(status, words)


@pytest.mark.parametrize(
    ("image", "error", "kind"),
    [
        ("a", DockerException(f"failed to register layer: write /x: {FULL}"), RunLostError),
        ("a", refusal(500, f"write /var/lib/docker/tmp/x: {FULL}"), RunLostError),
        (f"x {FULL}", refusal(500, f"invalid reference format: x {FULL}"), TaskError),
        ("a", refusal(500, f"error parsing HTTP 403 response body: denied: {FULL}"), TaskError),
        ("a", refusal(404, f"manifest for a: {FULL}"), TaskError),
    ],
)
def test_a_registry_or_an_image_of_such_a_name_does_not_blame_the_host(
    image: str, error: DockerException, kind: type[Exception]
) -> None:
    assert type(pull_error(image, error, given=False)) is kind


def _error(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number), "/x")
