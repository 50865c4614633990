"""A test's need of a real service: met, or a skip on a developer's machine, or a failure in CI."""

from __future__ import annotations

import os
from functools import cache

import pytest

from devservices import images, podman
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
    fault = _fault(name)
    if fault is None:
        return SERVICES[name].env()
    if os.environ.get("CI"):
        pytest.fail(f"{REASON}{name}: {fault}", pytrace=False)
    pytest.skip(f"{REASON}{name}: {fault}")


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
