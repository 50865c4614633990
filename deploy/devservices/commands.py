"""The `deploy/services` command: start, stop, status and env of the services that tests need."""

from __future__ import annotations

import argparse
import fcntl
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from devservices import docker_engine, mongodb, places, podman, rabbitmq, registry
from devservices.processes import ServiceFailed
from devservices.service import Service

SERVICES: dict[str, Service] = {
    module.NAME: module for module in (docker_engine, rabbitmq, mongodb, registry, podman)
}
"""In the order in which they are started; stopped the other way round."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 1 where a service can't be had."""
    parser = argparse.ArgumentParser(prog="deploy/services", description=__doc__)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument(
        "services",
        nargs="*",
        choices=[*SERVICES, []],
        metavar="SERVICE",
        help=f"of {', '.join(SERVICES)}; all where none is named",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print only what goes wrong")
    chosen = parser.parse_args(arguments)
    names = [name for name in SERVICES if name in chosen.services or not chosen.services]
    return ACTIONS[chosen.action](names, print if not chosen.quiet else _nothing)


Say = Callable[[str], None]


def start(names: list[str], say: Say) -> int:
    """Start each that does not answer; go on after one that fails."""
    failed = 0
    for name in names:
        service = SERVICES[name]
        with _one_at_a_time():
            found = service.answers()
            try:
                service.start()
            except ServiceFailed as fault:
                failed = 1
                print(f"{name}: {fault}", file=sys.stderr)
                continue
        say(f"{name}: {'was there' if found else 'started'}, {_place(service)}")
    return failed


def stop(names: list[str], say: Say) -> int:
    """Stop ours and remove their data."""
    for name in reversed(names):
        service = SERVICES[name]
        with _one_at_a_time():
            running = service.ours()
            service.stop()
        say(f"{name}: {'stopped' if running else 'none of ours ran'}")
    return 0


def status(names: list[str], say: Say) -> int:
    """Tell of each whether it answers, where, and who started it; 1 where one does not answer."""
    silent = 0
    for name in names:
        service = SERVICES[name]
        if service.answers():
            say(f"{name}: answers, {'ours' if service.ours() else 'not ours'}, {_place(service)}")
        else:
            silent = 1
            say(f"{name}: does not answer")
    return silent


def env(names: list[str], _say: Say) -> int:
    """Print the addresses of those that answer as lines that a shell can evaluate."""
    for name in names:
        service = SERVICES[name]
        if service.answers():
            for variable, value in service.env().items():
                print(f"export {variable}={shlex.quote(value)}")
    return 0


ACTIONS: dict[str, Callable[[list[str], Say], int]] = {
    "start": start,
    "stop": stop,
    "status": status,
    "env": env,
}


def _place(service: Service) -> str:
    return " ".join(service.env().values())


def _nothing(_text: str) -> None:
    """Say nothing."""


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two commands at once would start a service twice."""
    places.SERVICES.mkdir(exist_ok=True)
    with (places.SERVICES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
