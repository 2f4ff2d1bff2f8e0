"""Server-sent events: from the lines of a stream to events. Pure.

::

    id: 12                  the place to go on from, kept for the events after it
    event: generation       what kind; default: message
    data: {"repeat": 0}     any number of lines, joined by newlines
                            an empty line ends the event
    : open                  a comment; it only shows that the other side lives
    retry: 2000             milliseconds before a reconnect
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kubevo_client.errors import ServiceError

__all__ = ["Event", "parse"]


@dataclass(frozen=True)
class Event:
    """One event: ``kind`` such as status or generation, its JSON, and the id to go on from."""

    kind: str
    document: dict[str, Any]
    id: str | None = None


def parse(lines: Iterable[str], last_id: str | None = None) -> Iterator[Event]:
    """Yield the events of a stream; what its end cuts off is dropped.

    Raises:
        ServiceError: the data of an event is not a JSON object.
    """
    kind, data = "", list[str]()
    for line in lines:
        text = line.rstrip("\r\n")
        if not text:
            if data:
                yield Event(kind or "message", _document("\n".join(data)), last_id)
            kind, data = "", []
            continue
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value


def _document(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServiceError(f"expected an event with a JSON object, got {text[:80]!r}")
    return found
