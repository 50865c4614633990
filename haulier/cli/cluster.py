"""Commands for the cluster: nodes, queues, health."""

from __future__ import annotations

from typing import Any, Final

import click

from haulier.cli.calls import FAULT, ask, asks_server, json_option
from haulier.cli.output import moment, percent, show_fields, show_json, show_table
from haulier.client import UNAVAILABLE, Client


def _answer(client: Client, path: str, **more: Any) -> bytes:
    return ask(client, lambda client: client.request("GET", path, **more))


@click.command()
@json_option
@asks_server
def nodes(client: Client, as_json: bool) -> int:
    """List the coordinators and workers."""
    if as_json:
        show_json(_answer(client, "/nodes"))
        return 0
    rows = [
        (
            node.id,
            node.name,
            node.status,
            node.hostname,
            str(node.task_count),
            percent(node.cpu_percent),
            moment(node.last_heartbeat_at),
            node.version,
        )
        for node in ask(client, Client.nodes)
    ]
    headings = ("ID", "NAME", "STATUS", "HOST", "TASKS", "CPU", "LAST HEARTBEAT", "VERSION")
    show_table(headings, rows, "no nodes")
    return 0


@click.command()
@click.argument("node_id", metavar="ID")
@asks_server
def drain(client: Client, node_id: str) -> int:
    """Stop the worker ID from taking new tasks."""
    ask(client, lambda client: client.drain(node_id))
    return 0


@click.command()
@click.argument("node_id", metavar="ID")
@asks_server
def resume(client: Client, node_id: str) -> int:
    """Let the drained worker ID take tasks again."""
    ask(client, lambda client: client.resume(node_id))
    return 0


@click.command()
@json_option
@asks_server
def queues(client: Client, as_json: bool) -> int:
    """List the queues."""
    if as_json:
        show_json(_answer(client, "/queues"))
        return 0
    rows = [
        (
            queue.name,
            str(queue.size),
            str(queue.subscribers),
            "" if queue.unacked is None else str(queue.unacked),
        )
        for queue in ask(client, Client.queues)
    ]
    show_table(("NAME", "SIZE", "SUBSCRIBERS", "UNACKED"), rows, "no queues")
    return 0


@click.command("health")
@json_option
@asks_server
def health_command(client: Client, as_json: bool) -> int:
    """Check the health of the server; exit with 0 only if it is UP."""
    if as_json:
        show_json(_answer(client, "/health", accept_status=UNAVAILABLE))
    found = ask(client, Client.health)
    if not as_json:
        show_fields(
            [("status", found.status), ("version", found.version), ("reason", found.message)]
        )
    return 0 if found.status == "UP" else FAULT


CLUSTER_COMMANDS: Final = (nodes, drain, resume, queues, health_command)
