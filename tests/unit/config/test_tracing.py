"""Traces go to a collector, and cost nothing where they are off."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from shared.config.tree import TelemetrySettings
from shared.errors import ApplicationError
from shared.telemetry import span, tracing

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


class Collector:
    """A collector that speaks OTLP over HTTP."""

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


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


async def test_spans_reach_the_collector(collector: Collector) -> None:
    settings = TelemetrySettings(enabled=True, endpoint=collector.endpoint + "/", service="here")
    with tracing(settings, "worker"):
        with span("outer", {"a": 1}) as outer:
            outer.set("b", True)
            await asyncio.create_task(_inner())
        with pytest.raises(ValueError, match="boom"), span("failed"):
            raise ValueError("boom")
        with span("told") as told:
            told.fail("exit code 3")
    spans = {each.name: each for each in collector.spans()}
    assert set(spans) == {"outer", "inner", "failed", "told"}
    assert spans["inner"].parent_span_id == spans["outer"].span_id
    assert {each.key for each in spans["outer"].attributes} == {"a", "b"}
    assert (spans["failed"].status.code, spans["outer"].status.code) == (2, 0)
    assert spans["told"].status.message == "exit code 3"
    assert collector.resource["service.name"] == "here"
    assert collector.resource["haulier.role"] == "worker"


async def _inner() -> None:
    with span("inner"):
        await asyncio.sleep(0)


def test_nothing_is_sent_where_it_is_off(collector: Collector) -> None:
    settings = TelemetrySettings(enabled=False, endpoint=collector.endpoint)
    with tracing(settings, "worker"), span("unseen", {"a": 1}) as here:
        here.set("b", 2)
        here.fail("x")
    assert collector.collected == []


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    opened = tracing(TelemetrySettings(enabled=True), "worker")
    with pytest.raises(ApplicationError, match="pip install 'haulier"), opened:
        pytest.fail("must not be opened")
