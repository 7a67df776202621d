"""The collector's own log: structured, one event a line, on standard error.

Invariants:
1. A value of a sender can neither begin a line nor control a terminal. test_the_console_has_no_forged_lines
2. Libraries' loggers (clickhouse_connect, aiokafka, asyncio, …) write the same way. test_json_is_one_object_a_line
3. A library's event about a failed connection is one line, without a traceback. test_network_faults_of_libraries_are_one_line
"""

import logging
import logging.config
import sys
from collections.abc import Iterator
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from collector.config.process import Logging

# Controls (a line's end is one), and the separators that Unicode also ends lines with; each is shown as Python writes it.
_CONTROLS: Final = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
# A traceback keeps its lines, but indented, so that none of them looks like an event.
_CONTROLS_IN_TRACEBACK: Final = {**_CONTROLS, ord("\n"): "\n    "}


# Libraries whose exceptions are all about connections and the data that came over them.
_NETWORK_LIBRARIES: Final = {"urllib3", "http", "aiokafka", "redis", "h11", "httpcore", "httpx"}


def escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters in text, and in the text of other values. This is a structlog processor."""
    escaped: dict[str, Any] = {}
    for key, value in event.items():
        if key == "exception":
            escaped[key] = "    " + str(value).translate(_CONTROLS_IN_TRACEBACK)
        elif isinstance(value, bool | int | float | None):
            escaped[key] = value
        else:
            escaped[key.translate(_CONTROLS)] = str(value).translate(_CONTROLS)
    return escaped


def shorten_network_faults(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the traceback of a failed connection by its error. This is a structlog processor for libraries' events.

    The library's caller logs what failed and why. Any other exception of a library may be a defect, and keeps its traceback.
    """
    exc_info = event.get("exc_info")
    if exc_info is True:
        exc_info = sys.exc_info()
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException) and any(map(_is_network_fault, _chain(error))):
        del event["exc_info"]
        event["error"] = " ".join(f"{type(error).__name__}: {error}".split())
    return event


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, and the errors that it was raised from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__


def _is_network_fault(error: BaseException) -> bool:
    # By name: most processes load few of these libraries.
    libraries = {each.__module__.partition(".")[0] for each in type(error).__mro__}
    return isinstance(error, OSError | EOFError | TimeoutError) or not libraries.isdisjoint(_NETWORK_LIBRARIES)


def set_up_quietly(settings: Logging) -> None:
    """Set up the log as `set_up` does, for a command that prints its result: only warnings and errors are logged."""
    set_up(settings.model_copy(update={"level": "warning"}))


def set_up(settings: Logging) -> None:
    """Let structlog and the standard library's logging write to standard error, as `settings` say."""
    json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        structlog.processors.UnicodeDecoder(),
    ]
    render: list[Processor] = (
        [structlog.processors.JSONRenderer(default=str)]  # JSON escapes what has to be escaped
        if json
        else [escape_controls, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[shorten_network_faults, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Libraries log every connection and request at info; for operators of a collector that is debug.
    for name in ("hypercorn", "grpc", "asyncio", "clickhouse_connect", "httpx"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
    # They log every attempt that failed, with the whole URL, and an answer that was cut, with a traceback; the caller logs it
    # once. Not their parent, whose level clickhouse_connect sets.
    for name in ("urllib3.connectionpool", "urllib3.connection"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
