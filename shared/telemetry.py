"""Logs and traces of a process: how lines are written, and how a trace goes on from one process to the next."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.config.tree import TelemetrySettings
from shared.errors import ApplicationError
from shared.version import version

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer


LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}

_CHATTY: Final = {
    # It logs each lost connection and failed try as an error with a traceback; our adapter says what is waited for.
    "aiormq": logging.CRITICAL,
    "aio_pika": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.WARNING,
    "docker": logging.WARNING,
    "urllib3": logging.WARNING,
    "pymongo": logging.WARNING,
}
"""Libraries that tell of what we tell of better ourselves, and from which level they are heard."""


COUNTED_FOR: Final = 60.0
"""Seconds after a line within which the same one is counted and not written."""

LINES_KNOWN: Final = 1000
"""Lines that are told apart at most; the one that was written longest ago is forgotten first."""

_LONGEST: Final = 2000
"""Characters of a reason that tell lines apart."""

_Key = tuple[str, str, str, str]
"""Logger, level, event, and what tells its lines apart."""


class _Line(msgspec.Struct):
    """A line that was written, and how often it has come since."""

    written_at: float
    told: dict[str, Any]
    """What is written beside the count where no later line tells it."""
    repeated: int = 0


class Repeats:
    """A processor that counts a line which repeats: the first is written, then one in `COUNTED_FOR` seconds at most,
    with `repeated`: how many since the last were not.

    Lines are the same that have the same logger, level, event and reason: their `reason`, else their exception, else
    all their fields."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: dict[_Key, _Line] = {}
        self._lock = threading.Lock()

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Pass a line on, or drop it."""
        if "repeated" in event:
            return event
        level = "error" if method == "exception" else method
        told = _told_apart_by(event)
        key = (logger.name, level, str(event.get("event")), repr(told)[:_LONGEST])
        with self._lock:
            line, now = self._lines.get(key), self._clock()
            if line is not None and now - line.written_at < COUNTED_FOR:
                line.repeated += 1
                raise structlog.DropEvent
            self._lines.pop(key, None)
            self._lines[key] = _Line(
                now, told
            )  # the last of all: they stay in the order in which they were written
            forgotten = self._forget_oldest()
        if forgotten is not None:
            _tell(*forgotten)
        if line is not None and line.repeated:
            event["repeated"] = line.repeated
        return event

    def tell(self) -> None:
        """Write the counts that no later line has told: the process ends."""
        with self._lock:
            lines, self._lines = self._lines, {}
        for key, line in lines.items():
            _tell(key, line)

    def _forget_oldest(self) -> tuple[_Key, _Line] | None:
        if len(self._lines) <= LINES_KNOWN:
            return None
        oldest = next(iter(self._lines))
        return oldest, self._lines.pop(oldest)


def _told_apart_by(event: EventDict) -> dict[str, Any]:
    if "reason" in event:
        return {"reason": str(event["reason"])[:_LONGEST]}
    error = event.get("exc_info")
    if not error:
        return {name: value for name, value in event.items() if name != "event"}
    if not isinstance(error, BaseException):
        error = sys.exc_info()[1] if error is True else error[1]
    return {"reason": f"{type(error).__name__}: {error}"[:_LONGEST]}


def _tell(key: _Key, line: _Line) -> None:
    if line.repeated:
        name, level, event, _ = key
        write = getattr(structlog.get_logger(name), level)
        write(event, **line.told, repeated=line.repeated)


def configure_logging(level: str, style: str, stream: TextIO | None = None) -> Repeats:
    """Send all logs of this process to `stream` (stderr by default), from `level` on.

    `level` is `debug`, `info`, `warn` or `error`; `style` is `pretty` (for people; coloured on a
    terminal) or `json` (an object a line). Lines that repeat are counted, but not at `debug`. May be
    called again: the last call counts. Returns what counts, to `tell` in the end.
    """
    target = sys.stderr if stream is None else stream
    repeats = Repeats()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *([] if level == "debug" else [repeats]),
            *_BEFORE,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        # A logger kept from before a second call must follow it.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_BEFORE,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_last_steps(style, target),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    for name, least in _CHATTY.items():
        logging.getLogger(name).setLevel(max(LEVELS[level], least))
    logging.captureWarnings(capture=True)
    return repeats


def _plain_level(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Say `warn` as the setting does, whatever the library said."""
    if event.get("level") == "warning":
        event["level"] = "warn"
    return event


_BEFORE: Final[list[Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


def _last_steps(style: str, stream: TextIO) -> list[Processor]:
    if style == "json":
        return [
            _plain_level,
            structlog.processors.format_exc_info,
            structlog.processors.UnicodeDecoder(),
            structlog.processors.JSONRenderer(default=_as_text, ensure_ascii=False),
        ]
    colors = hasattr(stream, "isatty") and stream.isatty()
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


def _as_text(value: Any) -> str:
    return str(value)


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
