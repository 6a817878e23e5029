"""Log lines: structured, to standard error; no line ever carries an identity."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.settings import Settings


@contextlib.contextmanager
def _as_if_absent(name: str) -> Iterator[None]:
    """Let imports within the block find that a library is not installed, unless it was imported before."""
    is_known = name in sys.modules
    sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # Python's own way to say that there is no such module
    try:
        yield
    finally:
        if not is_known:
            del sys.modules[name]


# Where rich is installed, as beside what training needs, structlog would take it for tracebacks that no line here has: 4 MB of each process.
with _as_if_absent("rich"):
    import structlog

get_logger = structlog.get_logger


def set_up_log(settings: "Settings") -> None:
    """Set the format and level of all log lines."""
    renderer = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    exceptions = [structlog.processors.format_exc_info] if settings.log_format == "json" else []
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *exceptions,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
