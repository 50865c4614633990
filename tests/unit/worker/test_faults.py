"""Who is to blame for files that cannot be made: the task, or the machine under it."""

from __future__ import annotations

import errno
import os

import pytest

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


def _error(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number), "/x")
