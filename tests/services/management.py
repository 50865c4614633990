"""The few calls of RabbitMQ's management API that isolate tests."""

from __future__ import annotations

import json
import urllib.request
from base64 import b64encode
from urllib.parse import quote, urlsplit

ALL_RIGHTS = {"configure": ".*", "write": ".*", "read": ".*"}


class Management:
    """A client of the management API; its address carries user and password."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._base = f"{parts.scheme}://{parts.hostname}:{parts.port}/api"
        self._user = parts.username or "guest"
        secret = b64encode(f"{self._user}:{parts.password or 'guest'}".encode()).decode()
        self._headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/json"}

    def add_vhost(self, name: str) -> None:
        """Make a virtual host where our user may do everything."""
        self.send("PUT", f"/vhosts/{quote(name, safe='')}", {})
        path = f"/permissions/{quote(name, safe='')}/{quote(self._user, safe='')}"
        self.send("PUT", path, ALL_RIGHTS)

    def delete_vhost(self, name: str) -> None:
        """Remove it with its queues, messages and connections."""
        self.send("DELETE", f"/vhosts/{quote(name, safe='')}")

    def vhosts(self) -> set[str]:
        """The names of all virtual hosts."""
        return {entry["name"] for entry in json.loads(self.send("GET", "/vhosts"))}

    def send(self, method: str, path: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._base + path, data=data, method=method, headers=self._headers
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            content: bytes = answer.read()
        return content
