"""Sets up the log of the process, in one format for our code and for libraries.

Our code takes a logger from `structlog.get_logger(__name__)` and names the event in a few words,
with the data as keywords: `log.info("job stored", job=job.id)`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

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


def configure_logging(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (stderr by default), from `level` on.

    `level` is `debug`, `info`, `warn` or `error`; `style` is `pretty` (for people; coloured on a
    terminal) or `json` (an object a line). May be called again: the last call counts.
    """
    target = sys.stderr if stream is None else stream
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
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
