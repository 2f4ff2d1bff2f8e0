"""Event streams: how many there may be, and the one that tells of all Experiments.

It counts the catalogue's changes, so that no listener needs a queue; who missed too many is told to
load the list again. ``feeds`` has the streams of single Experiments.
"""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from fastapi.sse import format_sse_event

from kubevo_api.catalogue import Catalogue, Entry, Key, Unavailable
from kubevo_api.metrics import Metrics
from kubevo_api.models import Summary
from kubevo_core.errors import KubevoError

__all__ = [
    "OPENED",
    "PAUSE_SECONDS",
    "PING",
    "PING_SECONDS",
    "StreamLimits",
    "TooManyStreams",
    "all_events",
    "event_bytes",
    "while_allowed",
    "within",
]

# A change is told at most this often: a search may finish a hundred generations a second.
PAUSE_SECONDS = 0.25
RETRY_MILLISECONDS = 2000
PING_SECONDS = 15.0
# Answers about rights are remembered as long; a stream outlives a withdrawn right by twice that.
RIGHTS_SECONDS = 60.0


class TooManyStreams(KubevoError):
    """A limit on open event streams is reached; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class StreamLimits:
    """How many streams are open, in all and by caller."""

    def __init__(self, most: int, most_each: int, metrics: Metrics) -> None:
        self._most = most
        self._most_each = most_each
        self._open: Counter[str] = Counter()
        self._metrics = metrics

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Count one stream of a caller as long as the context lasts.

        Raises:
            TooManyStreams: one more would be too many.
        """
        if self._open.total() >= self._most:
            raise TooManyStreams(f"{self._most} event streams are open: come back later", 503)
        if self._open[caller] >= self._most_each:
            raise TooManyStreams(
                f"you have {self._most_each} event streams open: close some of them", 429
            )
        self._open[caller] += 1
        self._metrics.streams.set(self._open.total())
        try:
            yield
        finally:
            self._open[caller] -= 1
            self._open += Counter()  # drops those that are zero
            self._metrics.streams.set(self._open.total())


OPENED = format_sse_event(comment="open", retry=RETRY_MILLISECONDS)
# Keeps proxies from closing a stream on which nothing happens.
PING = format_sse_event(comment="ping")


def event_bytes(name: str, data: Any, identifier: str | None = None) -> bytes:
    """Return one event; ``data`` is JSON text, or what becomes it."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return format_sse_event(event=name, data_str=text, id=identifier)


# --- all Experiments -------------------------------------------------------------------------------

# Numbers of another process's catalogue mean nothing here.
EPOCH = secrets.token_hex(4)


async def all_events(
    catalogue: Catalogue,
    visible: Callable[[Key], bool],
    summarise: Callable[[Entry], Summary],
    last_id: str | None,
) -> AsyncIterator[bytes]:
    """Yield what changes among the visible Experiments, from ``last_id`` on."""
    index = catalogue.index
    epoch, _, number = (last_id or "").partition("-")
    revision = index.revision
    yield OPENED
    if last_id is not None:
        if epoch == EPOCH and number.isdecimal() and int(number) <= revision:
            revision = int(number)
        else:
            yield event_bytes("reset", "{}", f"{EPOCH}-{revision}")
    while True:
        while not await within(index.wait(revision), PING_SECONDS):
            yield PING
        changes = index.since(revision)
        revision = changes.revision
        identifier = f"{EPOCH}-{revision}"
        if changes.keys is None:
            yield event_bytes("reset", "{}", identifier)
        else:
            for key in sorted(filter(visible, changes.keys)):
                entry = index.get(key)
                if entry is None:
                    data = {"namespace": key[0], "name": key[1]}
                    yield event_bytes("deleted", data, identifier)
                else:
                    yield event_bytes(
                        "summary", summarise(entry).model_dump_json(by_alias=True), identifier
                    )
        await asyncio.sleep(PAUSE_SECONDS)


async def while_allowed(
    events: AsyncIterator[bytes], is_allowed: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Pass events on as long as the caller's rights last; the client then comes again, or not.

    The pings see to it that a silent stream is looked at as well.
    """
    clock = asyncio.get_running_loop().time
    checked = clock()
    async with aclosing(events) as open_events:  # type: ignore[type-var]
        async for event in open_events:
            if clock() - checked >= RIGHTS_SECONDS:
                try:
                    if not await is_allowed():
                        return
                except Unavailable:
                    pass  # nobody can tell now; what was so is so for a while
                except KubevoError:
                    return  # the token has ended
                checked = clock()
            yield event


async def within(waiting: Awaitable[object], seconds: float) -> bool:
    """Wait for something; return whether it came within ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        return False
    return True
