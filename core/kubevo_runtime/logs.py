"""Structured logs on stderr: one event a line, JSON for machines, plain for a person."""

import logging
import sys
from typing import Literal

import structlog

__all__ = ["configure"]


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
