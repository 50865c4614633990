"""Putting messages of our own into the engine's queues."""

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


def put(vhost: Vhost, queue: str, message: Any) -> None:
    """Put a message into a queue, through the management API."""
    parts = urlsplit(vhost.management_url)
    url = (
        f"http://{parts.hostname}:{parts.port}"
        f"/api/exchanges/{quote(vhost.name, safe='')}/amq.default/publish"
    )
    body = {
        "properties": {},
        "routing_key": queue,
        "payload": json.dumps(message),
        "payload_encoding": "string",
    }
    passwords = HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, url, parts.username or "", parts.password or "")
    request = Request(url, data=json.dumps(body).encode(), method="POST")
    with build_opener(HTTPBasicAuthHandler(passwords)).open(request, timeout=30) as answer:
        assert json.loads(answer.read()) == {"routed": True}
