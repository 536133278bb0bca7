"""Log events: one a line, a word for what happened and the facts beside it.

``configure`` is called once, by the application. structlog and the standard library's loggers (grpc, asyncpg, nats,
aiokafka) end in the same place, so that every line has the same shape: JSON for machines, or ``key=value`` for people.
An exception's traceback is one field of its line. Secrets never get out: fields whose name says secret are masked
whatever their value, and so are bearer tokens, JWTs, private keys and the password in an address, wherever they stand.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO, TypeAlias

import structlog

from fallow_chassis.telemetry import current_trace_id

MASK: Final = "***"
_SECRET_NAME: Final = re.compile(
    r"(^|_)(secret|secrets|password|passphrase|token|authorization|credential|credentials|private_key|seed|api_key|"
    r"signature|mnemonic|jwt|cookie)($|_)",
    re.IGNORECASE,
)
_INNOCENT_NAMES: Final = frozenset({"page_token"})
_SECRET_TEXT: Final = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?=@)"
    r"|(?P<bearer>\bBearer\s+)[A-Za-z0-9._~+/-]{8,}=*"
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"
    r"|\bS[UAOCNX][A-Z2-7]{56}\b",
    re.IGNORECASE | re.DOTALL,
)
_MAX_DEPTH: Final = 6
_ROOT: Final = logging.getLogger()

LogEvent: TypeAlias = MutableMapping[str, Any]


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module: ``get_logger(__name__)``."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger


def is_debugged() -> bool:
    """Whether debug events are written: where there is one for each call, asking is cheaper than telling."""
    return _ROOT.isEnabledFor(logging.DEBUG)


def configure(service: str, *, log_format: str = "console", level: str = "info", output: TextIO | None = None) -> None:
    """Send every log event of this process to ``output`` (standard error by default), one a line."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _AddFacts(service),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    structlog.configure(
        processors=[
            # What nobody will read costs nothing more.
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(default=str) if log_format == "json" else _render_line
    )
    handler = logging.StreamHandler(output or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    _ROOT.handlers[:] = [handler]
    _ROOT.setLevel(level.upper())


class _AddFacts:
    """Adds the service and, inside a span, the trace to each event."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, _logger: object, _method: str, event: LogEvent) -> LogEvent:
        event.setdefault("service", self._service)
        trace_id = current_trace_id()
        if trace_id:
            event.setdefault("trace_id", trace_id)
        return event


def mask_secrets(_logger: object, _method: str, event: LogEvent) -> LogEvent:
    """Mask what must not be read in a log, by the field's name and by the value's look."""
    for name, value in list(event.items()):
        event[name] = _masked(str(name), value, 0)
    return event


def mask_text(text: str) -> str:
    """A text with tokens, private keys and the passwords of addresses masked."""
    return _SECRET_TEXT.sub(lambda match: (match["scheme"] or match["bearer"] or "") + MASK, text)


def _masked(name: str, value: object, depth: int) -> object:
    """A value that may be logged under ``name``."""
    if _SECRET_NAME.search(name) and name not in _INNOCENT_NAMES and value not in ("", None):
        return MASK
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if depth >= _MAX_DEPTH:
        return f"<{type(value).__name__}>"
    if isinstance(value, dict):
        return {key: _masked(str(key), inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked("", inner, depth + 1) for inner in value]
    if isinstance(value, BaseException):
        return mask_text(str(value))
    return value


def _render_line(_logger: object, _method: str, event: LogEvent) -> str:
    """One line for people: time, level, event, then the facts; line ends inside values are escaped."""
    head = f"{event.pop('timestamp', '')} {event.pop('level', '')!s:<7} {event.pop('event', '')}"
    facts = " ".join(f"{name}={_plain(value)}" for name, value in event.items())
    return f"{_one_line(head)} {facts}".rstrip()


def _plain(value: object) -> str:
    """A value as it stands in a line: quoted where it holds a blank."""
    text = _one_line(str(value))
    return f'"{text}"' if " " in text or not text else text


def _one_line(text: str) -> str:
    """A text with its line ends escaped, so that an event stays one line."""
    return text.replace("\r", "\\r").replace("\n", "\\n")
