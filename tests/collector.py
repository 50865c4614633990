"""A collector of traces that speaks OTLP over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


class Collector:
    """What it was sent, and where it listens."""

    def __init__(self) -> None:
        collected: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    pytest.fail("not asked for")
                collected.append((self.path, body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.collected = collected
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def spans(self) -> list[Any]:
        found = []
        for path, body in self.collected:
            assert path == "/v1/traces"
            request = trace_service.ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                self.resource = {
                    each.key: each.value.string_value for each in resource.resource.attributes
                }
                found += [each for scope in resource.scope_spans for each in scope.spans]
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listen as long as this is open."""
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()
