"""A receiver of webhooks: a real HTTP server that keeps what it is sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    """By name in lower case."""
    raw: bytes
    at: float
    """When it came, by the monotonic clock, in seconds."""

    @property
    def body(self) -> Any:
        """The body, decoded."""
        return json.loads(self.raw)


@dataclass
class Receiver:
    """What was received so far, and what is answered: `answer(request, how many came before on its path)`."""

    port: int = 0
    requests: list[Received] = field(default_factory=list)
    answer: Callable[[Received, int], int] = lambda _request, _before: 200

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def at(self, path: str) -> list[Received]:
        """Return what came to a path, in order."""
        return [request for request in self.requests if request.path == path]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Serve on a free port until the block is left."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Received(self.path, headers, raw, time.monotonic())
            before = len(made.at(self.path))
            made.requests.append(request)
            self.send_response(made.answer(request, before))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
