"""Structured logs on stderr: one event a line, JSON for machines, plain for a person."""

import logging
import sys
from typing import Literal

import structlog

__all__ = ["adopt", "configure"]


def configure(style: Literal["json", "console"], level: int = logging.INFO) -> None:
    """Set up structlog for this process; call it once, from a program's entry point."""
    shown: structlog.typing.Processor
    if style == "json":
        shown = structlog.processors.JSONRenderer(sort_keys=True)
    else:
        shown = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            shown,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def adopt(name: str, level: int = logging.WARNING) -> None:
    """Show what a library says by the standard library's logging as events of ours."""
    logger = logging.getLogger(name)
    logger.handlers = [_Adopted()]
    logger.setLevel(level)
    logger.propagate = False


class _Adopted(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        message = " ".join(record.getMessage().split())
        structlog.get_logger().log(
            record.levelno, "library", logger=record.name, message=message, exc_info=record.exc_info
        )
