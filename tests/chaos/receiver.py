"""A receiver of webhooks: it counts what comes, so that the engine's own word is not needed."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class Receiver:
    """Serves while it is entered. A delivery is known by its id, however often it comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deliveries: dict[str, tuple[str, str]] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(self.headers["webhook-id"], body)
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where webhooks go."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def take(self, delivery: str, body: bytes) -> None:
        """Keep a delivery."""
        job = json.loads(body)
        with self._lock:
            self._deliveries[delivery] = (job["id"], job["state"])

    def told(self, job_id: str) -> Counter[str]:
        """How many different deliveries there were of a job, by the state they told."""
        with self._lock:
            told = list(self._deliveries.values())
        return Counter(state for job, state in told if job == job_id)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
