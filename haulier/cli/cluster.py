"""Commands for the cluster: nodes, queues, health."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import click

from haulier.cli.answers import converted, decoded
from haulier.cli.calls import ask, asks_server
from haulier.cli.forms import Form, json_option
from haulier.cli.general import EXIT_FAULT
from haulier.cli.lists import Listing, change_command, lists, show_list
from haulier.cli.output import percent, show_fields, show_json_value
from haulier.cli.times import relative
from haulier.client import UNAVAILABLE, Client
from haulier.results import Health, Node, Queue

_OF_A_NODE: Final = "x-"
"""How the names of queues begin that only one node takes from."""


def _node_row(node: Node, at: datetime) -> tuple[str, ...]:
    return (
        node.id,
        node.name,
        node.status,
        str(node.task_count),
        percent(node.cpu_percent),
        relative(node.last_heartbeat_at, at),
        node.version,
        node.hostname,
    )


_NODES: Final = Listing(
    path="/nodes",
    kind=Node,
    noun="node",
    headings=("ID", "NAME", "STATUS", "TASKS", "CPU", "HEARD", "VERSION", "HOST"),
    row=_node_row,
    name=lambda node: node.id,
    empty="no nodes",
    flexible=("NAME", "HOST"),
    optional=("CPU", "TASKS", "HEARD", "VERSION", "HOST"),
    hides=lambda node: node.status == "OFFLINE",
    hidden="OFFLINE",
    about_all="Those that are gone too.",
)


@click.command()
@lists(_NODES)
@asks_server
def nodes(client: Client, form: Form) -> int:
    """List the coordinators and workers that are there."""
    return show_list(client, form, _NODES)


drain = change_command(
    _NODES,
    "drain",
    "Stop the worker ID from taking new tasks.",
    Client.drain,
    "draining",
    "draining {id}: it takes no new tasks",
)
resume = change_command(
    _NODES,
    "resume",
    "Let the drained worker ID take tasks again.",
    Client.resume,
    "resumed",
    "resumed {id}: it takes tasks again",
)


def _queue_row(queue: Queue, _at: datetime) -> tuple[str, ...]:
    unacked = "" if queue.unacked is None else str(queue.unacked)
    return queue.name, str(queue.size), str(queue.subscribers), unacked


_QUEUES: Final = Listing(
    path="/queues",
    kind=Queue,
    noun="queue",
    headings=("NAME", "SIZE", "SUBSCRIBERS", "UNACKED"),
    row=_queue_row,
    name=lambda queue: queue.name,
    empty="no queues",
    hides=lambda queue: queue.name.startswith(_OF_A_NODE),
    about_all="The queues of single nodes too.",
)


@click.command()
@lists(_QUEUES)
@asks_server
def queues(client: Client, form: Form) -> int:
    """List the queues."""
    return show_list(client, form, _QUEUES)


async def _asked_health(client: Client) -> bytes:
    return await client.request("GET", "/health", accept_status=UNAVAILABLE)


@click.command("health")
@json_option
@asks_server
def health_command(client: Client, as_json: bool) -> int:
    """Check the health of the server; exit with 0 only if it is UP."""
    answer = decoded(ask(client, _asked_health))
    found = converted(answer, Health)
    if as_json:
        show_json_value(answer)
    else:
        show_fields(
            [("status", found.status), ("version", found.version), ("reason", found.message)]
        )
    return 0 if found.status == "UP" else EXIT_FAULT
