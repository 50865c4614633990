"""The `tools/services` command: start, stop, status, env, and run: a command among services.

`run [SERVICE ...] -- COMMAND` starts what does not answer, runs the command with the addresses in
its environment, stops what it started, and exits as the command did. Where a service can't be had,
it goes on without it and says so; with CI=true it fails instead.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from devservices import docker_engine, mongodb, nodes, podman, rabbitmq, registry
from devservices.places import one_at_a_time
from devservices.processes import ServiceError
from devservices.service import Service

SERVICES: dict[str, Service] = {
    module.NAME: module for module in (docker_engine, rabbitmq, mongodb, registry, podman)
}
"""In the order in which they are started; stopped the other way round."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 1 where a service can't be had."""
    parser = argparse.ArgumentParser(prog="tools/services", description=__doc__)
    parser.add_argument("action", choices=[*ACTIONS, "run"])
    known = f"of {', '.join(SERVICES)}; all where none is named"
    parser.add_argument("services", nargs="*", metavar="SERVICE", help=known)
    parser.add_argument("-q", "--quiet", action="store_true", help="print only what goes wrong")
    own, command = _at_dashes(sys.argv[1:] if arguments is None else list(arguments))
    chosen = parser.parse_args(own)
    if unknown := set(chosen.services) - set(SERVICES):
        parser.error(f"unknown service {', '.join(sorted(unknown))}: it must be {known}")
    names = [name for name in SERVICES if name in chosen.services or not chosen.services]
    say = _nothing if chosen.quiet else _aloud
    if chosen.action != "run":
        return ACTIONS[chosen.action](names, say)
    if not command:
        parser.error("run needs a command after --")
    return run(names, say, command)


Say = Callable[[str], None]


def run(names: list[str], say: Say, command: list[str]) -> int:
    """Run a command among the services; says nothing after it."""
    before = {name for name in names if SERVICES[name].ours()}
    with _handling(signal.SIGTERM, lambda: sys.exit(143)):
        try:
            if start(names, say) and os.environ.get("CI"):
                return 1
            found = {k: v for name in names if SERVICES[name].answers() for k, v in _env(name)}
            return _call(command, found)
        except KeyboardInterrupt:
            return 130
        finally:
            stop([name for name in names if name not in before], _nothing)


def start(names: list[str], say: Say) -> int:
    """Start each that does not answer; go on after one that fails."""
    failed = 0
    for name in names:
        service = SERVICES[name]
        with one_at_a_time():
            found = service.answers()
            try:
                service.start()
            except ServiceError as fault:
                failed = 1
                print(f"{name}: can't be had: {fault}", file=sys.stderr)
                continue
        say(f"{name}: {'already running' if found else 'started'}, {_place(service)}")
    return failed


def stop(names: list[str], say: Say) -> int:
    """Stop ours and remove their data."""
    if set(names) == set(SERVICES):
        nodes.end_all()
    for name in reversed(names):
        service = SERVICES[name]
        with one_at_a_time():
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
        if SERVICES[name].answers():
            for variable, value in _env(name):
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


def _env(name: str) -> Iterable[tuple[str, str]]:
    return SERVICES[name].env().items()


def _at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and the command after `--`."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _call(command: list[str], found: dict[str, str]) -> int:
    """Run it in the foreground. Ctrl-C reaches it from the terminal: we wait for its own end."""
    with (
        subprocess.Popen(command, env={**os.environ, **found}) as process,
        _handling(signal.SIGINT, lambda: None),
        _handling(signal.SIGTERM, process.terminate),
    ):
        code = process.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _handling(number: signal.Signals, act: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(number, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(number, before)


def _aloud(text: str) -> None:
    """Print at once, so that nothing comes after the output of a command that is run."""
    print(text, flush=True)


def _nothing(_text: str) -> None:
    """Say nothing."""


if __name__ == "__main__":
    sys.exit(main())
