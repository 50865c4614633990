"""A test's need of a real service: met, or a skip on a developer's machine, or a failure in CI."""

from __future__ import annotations

import os
from functools import cache
from typing import NoReturn

import pytest

from devservices import images, packages, podman
from devservices.commands import SERVICES
from devservices.places import one_at_a_time
from devservices.processes import ServiceError

MARKERS = ("docker", "rabbitmq", "mongodb")
"""Marking a test with one of these says that it needs the service of that name."""

ENGINES = {"docker": "DOCKER_HOST", "podman": podman.HOST}
"""Services that run containers, and the variable of their address."""

REASON = "needs "
"""How the reason of such a skip begins."""


def need(name: str) -> dict[str, str]:
    """The addresses of a service that answers, by variable; they are in `os.environ` too.

    Where it does not answer it is started, and stays for the next run (`make services-stop`).
    """
    if (fault := _fault(name)) is not None:
        go_without(f"{REASON}{name}: {fault}")
    return SERVICES[name].env()


def need_program(program: str, package: str) -> None:
    """Have a program of a package of Debian's, installed where it is missing and nothing of it started."""
    try:
        packages.ensure({program: package})
    except ServiceError as fault:
        go_without(f"{REASON}{program}: {fault}")


def go_without(reason: str) -> NoReturn:
    """Skip a test, or fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@cache
def _fault(name: str) -> str | None:
    """Why the service can't be had; None where it is there. Tried once in a run."""
    service = SERVICES[name]
    try:
        with one_at_a_time():
            service.start()
            if name in ENGINES:
                host = service.env()[ENGINES[name]]
                for image in images.USUAL:
                    images.have(image, host)
    except ServiceError as fault:
        return str(fault)
    os.environ.update(service.env())
    return None
