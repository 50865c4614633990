"""Traces by OpenTelemetry, where `telemetry.enabled` says so; else `span` costs nothing.

Needs the extra `haulier[telemetry]`. Spans go out in batches over OTLP/HTTP, from a thread of their
own: a collector that is slow or away costs spans, never work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from shared.config.tree import TelemetrySettings
from shared.errors import ApplicationError
from shared.version import version

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

Value = str | int | float | bool


class _Tracing:
    """The process's tracer, if there is one."""

    tracer: Tracer | None = None


_tracing: Final = _Tracing()


class Span:
    """What happens now, as a trace shows it."""

    def set(self, name: str, value: Value) -> None:
        """Add what is known only now."""

    def fail(self, reason: str) -> None:
        """Say that it went wrong, and why."""


class _RealSpan(Span):
    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def fail(self, reason: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_status(Status(StatusCode.ERROR, reason))


_NO_SPAN: Final = Span()


@contextmanager
def span(name: str, attributes: Mapping[str, Value] | None = None) -> Iterator[Span]:
    """Trace what is done inside, as a part of what is traced around it. An error that leaves marks it failed."""
    if _tracing.tracer is None:
        yield _NO_SPAN
        return
    with _tracing.tracer.start_as_current_span(name, attributes=attributes) as real:
        yield _RealSpan(real)


@contextmanager
def tracing(settings: TelemetrySettings, role: str) -> Iterator[None]:
    """Send the process's spans as long as this is open, and what is left of them at the end.

    Raises `ApplicationError` where it is enabled and the extra is not installed.
    """
    if not settings.enabled:
        yield
        return
    provider = _provider(settings, role)
    _tracing.tracer = provider.get_tracer("haulier", version())
    try:
        yield
    finally:
        _tracing.tracer = None
        provider.shutdown()


def _provider(settings: TelemetrySettings, role: str) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ApplicationError(
            "telemetry.enabled needs OpenTelemetry: pip install 'haulier[telemetry]'"
        ) from error
    resource = Resource.create(
        {"service.name": settings.service, "service.version": version(), "haulier.role": role}
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    endpoint = settings.endpoint.rstrip("/") + "/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
    return provider
