"""Logs and traces of a process: how lines are written, and how a trace goes on from one process to the next."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.config.schema import TelemetrySettings
from shared.errors import ApplicationError
from shared.ids import derived_id
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

NEVER_THE_SAME: Final = frozenset({"job ended", "task ended"})
"""Lines that come in great numbers, each once: to remember them would have others forgotten."""

BYTES_KNOWN: Final = 4 * 1024 * 1024
"""About how much of these lines is remembered at most."""

_LONGEST: Final = 2000
"""Characters of a reason that tell lines apart."""

LONGEST_FIELD: Final = 4096
"""Bytes of a field of a line, whoever wrote what is in it."""

LONGEST_TRACEBACK: Final = 16 * 1024

_Key = tuple[str, str, str, str]
"""Logger, level, event, and what tells its lines apart."""


class _Line(msgspec.Struct):
    """A line that was written, and how often it has come since."""

    written_at: float
    told: dict[str, Any]
    """What is written beside the count where no later line tells it."""
    size: int
    repeated: int = 0


class Repeats:
    """A processor that counts a line which repeats: the first is written, then one in `COUNTED_FOR` seconds at most,
    with `repeated`: how many since the last were not.

    Lines are the same that have the same logger, level, event and reason: their `reason`, else their exception, else
    all their fields."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: dict[_Key, _Line] = {}
        self._size = 0
        self._lock = threading.Lock()

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Pass a line on, or drop it."""
        if "repeated" in event or event.get("event") in NEVER_THE_SAME:
            return event
        level = "error" if method == "exception" else method
        told = _told_apart_by(event)
        told_text = repr(told)
        key = (logger.name, level, str(event.get("event")), told_text[:_LONGEST])
        with self._lock:
            line, now = self._lines.get(key), self._clock()
            if line is not None and now - line.written_at < COUNTED_FOR:
                line.repeated += 1
                raise structlog.DropEvent
            self._forget(key)
            # The last of all: they stay in the order in which they were written.
            self._lines[key] = _Line(now, told, len(told_text) + len("".join(key)))
            self._size += self._lines[key].size
            forgotten = self._forget_oldest(now)
        for each in forgotten:
            _tell(*each)
        if line is not None and line.repeated:
            event["repeated"] = line.repeated
        return event

    def size(self) -> int:
        """Return about how many bytes are remembered."""
        return self._size

    def tell(self) -> None:
        """Write the counts that no later line has told: the process ends."""
        with self._lock:
            lines, self._lines, self._size = self._lines, {}, 0
        for key, line in lines.items():
            _tell(key, line)

    def _forget(self, key: _Key) -> _Line | None:
        line = self._lines.pop(key, None)
        self._size -= line.size if line is not None else 0
        return line

    def _forget_oldest(self, now: float) -> list[tuple[_Key, _Line]]:
        """Forget what is too much, and what would not be counted any more; return what there is to tell of it."""
        forgotten = []
        while len(self._lines) > 1:
            key, line = next(iter(self._lines.items()))
            too_much = len(self._lines) > LINES_KNOWN or self._size > BYTES_KNOWN
            if not too_much and (line.repeated or now - line.written_at < COUNTED_FOR):
                break
            self._forget(key)
            forgotten.append((key, line))
        return forgotten


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
            _bounded,
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
            foreign_pre_chain=[*_BEFORE, _bounded],
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


def _bounded(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut what is long in any field: others may have written it, and it is kept and rendered."""
    for name, value in event.items():
        if value is None or isinstance(value, int | float) or name in _NO_TEXTS:
            continue
        text = value if isinstance(value, str) else str(value)
        short = cut_in_the_middle(text, LONGEST_FIELD)
        if short is not text or not isinstance(value, str | list | tuple | dict):
            event[name] = short
    return event


_NO_TEXTS: Final = frozenset({"exc_info", "_record", "_from_structlog"})


def _bounded_traceback(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if "exception" in event:
        event["exception"] = cut_in_the_middle(event["exception"], LONGEST_TRACEBACK)
    return event


def cut_in_the_middle(text: str, most: int) -> str:
    """Return a text, if it has more than `most` bytes in UTF-8 then without its middle."""
    if len(text) * 4 <= most:
        return text
    behind = most // 4
    # So many characters have at least so many bytes: however long a text is, little of it is looked at.
    first, last = _utf8(text[:most]), _utf8(text[-behind:])
    if len(text) <= most and len(first) <= most:
        return text
    kept = (
        first[: most - behind].decode("utf-8", "ignore"),
        last[-behind:].decode("utf-8", "ignore"),
    )
    return f"{kept[0]} … (of {len(text):,} characters) … {kept[1]}"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


_BEFORE: Final[list[Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


_CONTROL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"
)
"""Control characters of both sets, and those that turn the direction of writing."""
_CONTROL_IN_LINES: Final = re.compile(_CONTROL.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def _visible(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def _tamed(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Write what others wrote (a path, an error) so that it can neither steer a terminal nor begin a line."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = _CONTROL.sub(_visible, value)
    return event


def _tamed_traceback(out: TextIO, error: structlog.typing.ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    told = cut_in_the_middle(text.getvalue(), LONGEST_TRACEBACK)
    out.write(_CONTROL_IN_LINES.sub(_visible, told))


def _safe_json(value: Any, **options: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, **options)
    return text if text.isprintable() else _CONTROL.sub(lambda c: f"\\u{ord(c[0]):04x}", text)


def _last_steps(style: str, stream: TextIO) -> list[Processor]:
    if style == "json":
        return [
            _plain_level,
            structlog.processors.format_exc_info,
            _bounded_traceback,
            structlog.processors.UnicodeDecoder(),
            structlog.processors.JSONRenderer(_safe_json, default=_as_text),
        ]
    colors = hasattr(stream, "isatty") and stream.isatty()
    return [
        _tamed,
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_tamed_traceback),
    ]


def _as_text(value: Any) -> str:
    return str(value)


Value = str | int | float | bool

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?",
    re.ASCII,
)
"""A span as W3C's Trace Context names it in a `traceparent`: version, trace, span, flags."""


def known_trace(header: str) -> str:
    """Return a `traceparent` in the form of version 00, or "" where it is none."""
    found = _TRACEPARENT.fullmatch(header.strip())
    return "00-{}-{}-{}".format(*found.groups()) if found is not None else ""


def span_in(trace: str, *key: object) -> str:
    """Return the `traceparent` of the span that `key` names in the trace of another: whoever asks gets the same."""
    return f"{trace[:35]}-{derived_id('span', *key)[:16]}-{trace[-2:]}" if trace else ""


class _Tracing:
    """The process's tracer, if there is one."""

    tracer: Tracer | None = None


_tracing: Final = _Tracing()

_own: Final[ContextVar[tuple[int, int] | None]] = ContextVar("own", default=None)
"""The trace and the number of the span that is begun now, where it is to have one that others know already."""


def traces() -> bool:
    """Tell whether this process sends spans."""
    return _tracing.tracer is not None


def present_trace() -> str:
    """Return the `traceparent` of what is traced now; "" where nothing is."""
    if _tracing.tracer is None:
        return ""
    from opentelemetry.trace import get_current_span

    here = get_current_span().get_span_context()
    if not here.is_valid:
        return ""
    return f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags:02x}"


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
def span(
    name: str, attributes: Mapping[str, Value] | None = None, *, parent: str = "", own: str = ""
) -> Iterator[Span]:
    """Trace what is done inside, as a part of `parent` (a `traceparent`), else of what is traced around it; as the
    span `own`, where others know that already. An error that leaves marks it failed."""
    if _tracing.tracer is None:
        yield _NO_SPAN
        return
    from opentelemetry.trace import use_span

    with use_span(_begin(_tracing.tracer, name, attributes, parent, own), end_on_exit=True) as real:
        yield _RealSpan(real)


def past_span(
    name: str,
    attributes: Mapping[str, Value],
    began_at: int,
    ended_at: int,
    *,
    parent: str,
    own: str,
    error: str | None = None,
) -> None:
    """Trace what is over: it lasted from `began_at` to `ended_at` (µs since 1970), and failed where there is an
    `error`. Without a `parent` it is the first of its trace."""
    if _tracing.tracer is None:
        return
    real = _begin(_tracing.tracer, name, attributes, parent, own, began_at * 1000)
    if error is not None:
        _RealSpan(real).fail(error)
    real.end(ended_at * 1000)


def _begin(
    tracer: Tracer,
    name: str,
    attributes: Mapping[str, Value] | None,
    parent: str,
    own: str,
    at: int | None = None,
) -> OtelSpan:
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    context = Context() if own else None
    if parent:
        _, trace, number, flags = parent.split("-")
        above = SpanContext(
            int(trace, 16), int(number, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
        )
        context = set_span_in_context(NonRecordingSpan(above), Context())
    parts = own.split("-")
    chosen = _own.set((int(parts[1], 16), int(parts[2], 16)) if own else None)
    try:
        return tracer.start_span(name, context, attributes=attributes, start_time=at)
    finally:
        _own.reset(chosen)


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
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    except ImportError as error:
        raise ApplicationError(
            "telemetry.enabled needs OpenTelemetry: pip install 'haulier[telemetry]'"
        ) from error
    resource = Resource.create(
        {"service.name": settings.service, "service.version": version(), "haulier.role": role}
    )

    class Ids(RandomIdGenerator):
        """Numbers of spans: the one that was chosen, else any."""

        def generate_trace_id(self) -> int:
            own = _own.get()
            return own[0] if own is not None else super().generate_trace_id()

        def generate_span_id(self) -> int:
            own = _own.get()
            return own[1] if own is not None else super().generate_span_id()

    provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=Ids())
    endpoint = settings.endpoint.rstrip("/") + "/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
    return provider
