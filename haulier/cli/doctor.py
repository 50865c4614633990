"""`haulier doctor` looks whether all is well; `haulier completion` sets up the shell."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import msgspec

from haulier.cli.calls import ask, asks_server
from haulier.cli.forms import json_option
from haulier.cli.general import EXIT_FAULT, EXIT_REFUSED
from haulier.cli.output import plain_text, say, show_json_value, shown_width, styled, wrapped
from haulier.client import Client
from haulier.errors import ApiError, HaulierError
from haulier.results import Health, Node, Queue
from shared.model.queues import DEAD_QUEUE, is_task_queue

_SHELLS: Final = ("bash", "zsh", "fish")


class Diagnosis(msgspec.Struct):
    """Something that was looked at: whether it is well, and what to do if it is not."""

    well: bool
    what: str
    warning: bool = False
    """It may be as it should, and only whoever runs the machine knows."""


@click.command()
@json_option
@asks_server
def doctor(client: Client, as_json: bool) -> int:
    """Look whether the server, its workers and its queues are well; say what to do if not.

    On the machine of a worker, also warn of ports that tasks can reach."""
    checks, fault = ask(client, _checks)
    if as_json:
        show_json_value(msgspec.to_builtins(checks))
    else:
        for check in checks:
            icon = styled("✓", "green") if check.well else styled("✗", "red")
            icon = styled("!", "yellow") if check.warning else icon
            lines = wrapped(plain_text(check.what), "  ", shown_width())
            say(f"{icon} {lines[0].lstrip()}")
            for line in lines[1:]:
                say(line)
    return 0 if all(check.well for check in checks) else fault


async def _checks(client: Client) -> tuple[list[Diagnosis], int]:
    """Return what was looked at, and the exit code where something is not well."""
    from haulier import __version__

    health = await client.health()
    checks = [_health_check(client, health), _version_check(health, __version__)]
    try:
        nodes, queues = await client.nodes(), await client.queues()
    except ApiError as error:
        if error.status not in (401, 403):
            raise
        checks.append(
            Diagnosis(False, f"the server refuses: {error}: use --key, or user:password@")
        )
        return checks, EXIT_REFUSED
    except HaulierError as error:
        checks.append(Diagnosis(False, f"the nodes can't be seen: {error}"))
        return checks, EXIT_FAULT
    checks.append(Diagnosis(True, "the server lets you in"))
    checks += [_workers_check(nodes), *_queue_checks(queues)]
    if any(node.queue and node.hostname == socket.gethostname() for node in nodes):
        checks += host_checks(Path("/"))
    return checks, EXIT_FAULT


_OWN_NETWORKS: Final = "hl-*"
"""The interfaces of workers' own networks."""
_LISTENS: Final = "0A"
_LOOPBACK: Final = re.compile(r"[0-9A-F]{6}7F|0{24}01000000|0{16}FFFF0000[0-9A-F]{6}7F")
"""Addresses as /proc/net has them: 127.0.0.0/8, ::1, and the first inside IPv6."""
_MOST_PORTS: Final = 20


def host_checks(root: Path) -> list[Diagnosis]:
    """Look whether tasks can reach ports of this machine: where a worker has a network of its own on it."""
    if not any((root / "sys/class/net").glob(_OWN_NETWORKS)):
        return []
    ports = sorted({port for name in ("tcp", "tcp6") for port in _open_ports(root, name)})
    if not ports:
        return [Diagnosis(True, "tasks can reach no port of this machine")]
    shown = ", ".join(map(str, ports[:_MOST_PORTS]))
    more = f" and {len(ports) - _MOST_PORTS} more" if len(ports) > _MOST_PORTS else ""
    what = (
        f"tasks can reach the ports {shown}{more} of this machine, unless its firewall stops them: have them listen on "
        "127.0.0.1, or drop what comes from the interfaces of tasks: iptables -I INPUT -i 'hl-+' -j DROP"
    )
    return [Diagnosis(True, what, warning=True)]


def _open_ports(root: Path, name: str) -> Iterator[int]:
    """Yield the ports that something listens on at another address than the loopback ones."""
    try:
        lines = (root / "proc/net" / name).read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        _, local, _, state, *_ = line.split()
        address, _, port = local.partition(":")
        if state == _LISTENS and not _LOOPBACK.fullmatch(address):
            yield int(port, 16)


def _health_check(client: Client, health: Health) -> Diagnosis:
    if health.status == "UP":
        return Diagnosis(True, f"{client.server} is UP")
    return Diagnosis(False, f"{client.server} is {health.status}: {health.message}")


def _version_check(health: Health, own: str) -> Diagnosis:
    if not health.version or health.version == own:
        return Diagnosis(True, f"client and server have the version {own}")
    return Diagnosis(False, f"this is version {own}, the server {health.version}: install the same")


def _workers_check(nodes: list[Node]) -> Diagnosis:
    workers = [node for node in nodes if node.queue]
    up = [node for node in workers if node.status == "UP"]
    if up:
        return Diagnosis(True, f"{len(up)} worker{'s take' if len(up) > 1 else ' takes'} tasks")
    if workers:
        states = ", ".join(f"{node.name} is {node.status}: {_remedy(node)}" for node in workers)
        return Diagnosis(False, f"no worker takes tasks: {states}")
    return Diagnosis(False, "there is no worker: start one with haulier run worker")


def _remedy(worker: Node) -> str:
    """Return what has a worker take tasks again."""
    if worker.status == "DRAINING":
        return f"haulier resume {worker.id} lets it take tasks"
    return "start it again" if worker.status == "OFFLINE" else "its log says why"


def _queue_checks(queues: list[Queue]) -> list[Diagnosis]:
    alone = [queue for queue in queues if queue.size and not queue.subscribers]
    found = [
        Diagnosis(
            False,
            f"{queue.size} task{'s wait' if queue.size > 1 else ' waits'} in {queue.name}, from "
            f"which no worker takes: start one with --queue {queue.name}=2",
        )
        for queue in alone
        if is_task_queue(queue.name)
    ]
    dead = sum(queue.size for queue in queues if queue.name == DEAD_QUEUE)
    if dead:
        found.append(
            Diagnosis(False, f"{dead} messages are in the queue dead: nobody could read them")
        )
    return found or [Diagnosis(True, "no task waits in a queue without workers")]


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> int:
    """Print the script that lets a shell complete commands, options, ids and files.

    For bash, put this line into ~/.bashrc: eval "$(haulier completion bash)"
    """
    from click.shell_completion import get_completion_class

    from haulier.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None, "click knows these shells"
    say(found(cli, {}, "haulier", "_HAULIER_COMPLETE").source())
    return 0
