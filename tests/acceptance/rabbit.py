"""What RabbitMQ itself says and does, through its management API."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    Request,
    build_opener,
)

from tests.services.fixtures import Vhost

Figures = dict[str, tuple[int, int, int]]
"""Ready, unacknowledged and consumers of each queue, by name; those of events left out."""


def figures_of(vhost: Vhost) -> Figures:
    """Return what RabbitMQ says of its queues."""
    return {
        queue["name"]: (
            queue.get("messages_ready", 0),
            queue.get("messages_unacknowledged", 0),
            queue.get("consumers", 0),
        )
        for queue in ask(vhost, "GET", f"queues/{quote(vhost.name, safe='')}")
        if not queue["name"].startswith("events-")
    }


def put(vhost: Vhost, queue: str, body: bytes) -> None:
    """Put a message into a queue, as a stranger with rights would."""
    message = {
        "properties": {},
        "routing_key": queue,
        "payload": body.decode(),
        "payload_encoding": "string",
    }
    path = f"exchanges/{quote(vhost.name, safe='')}/amq.default/publish"
    assert ask(vhost, "POST", path, message) == {"routed": True}


def ask(vhost: Vhost, method: str, path: str, body: object = None) -> Any:
    """Return what the management API answers."""
    parts = urlsplit(vhost.management_url)
    url = f"http://{parts.hostname}:{parts.port}/api/{path}"
    passwords = HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, url, parts.username or "", parts.password or "")
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data=data, method=method)
    with build_opener(HTTPBasicAuthHandler(passwords)).open(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")
