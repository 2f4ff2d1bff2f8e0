"""Event streams: what changed, told to any number of listeners without a queue for any of them.

A stream of one Experiment keeps nothing but its place: the id of an event is the newest generation
of each repeat that the client has seen, so whoever comes back with it goes on without a gap, from
any replica and after any restart. The stream of all Experiments counts the catalogue's changes; who
missed too many is told to load the list again.
"""

import asyncio
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi.sse import format_sse_event

from kubevo_api.catalogue import Catalogue, Entry, Key
from kubevo_api.history import record
from kubevo_api.metrics import Metrics
from kubevo_api.models import Summary
from kubevo_api.runs import Library
from kubevo_core.errors import KubevoError

__all__ = ["StreamLimits", "TooManyStreams", "all_events", "one_events"]

# A change is told at most this often: a search may finish a hundred generations a second.
PAUSE_SECONDS = 0.25
# How often a run's history is looked at where the catalogue does not tell.
LOOK_SECONDS = 1.0
MOST_ROWS = 500
RETRY_MILLISECONDS = 2000
PING_SECONDS = 15.0


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


def _event(name: str, data: Any, identifier: str | None = None) -> bytes:
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
            yield _event("reset", "{}", f"{EPOCH}-{revision}")
    while True:
        while not await _within(index.wait(revision), PING_SECONDS):
            yield PING
        changes = index.since(revision)
        revision = changes.revision
        identifier = f"{EPOCH}-{revision}"
        if changes.keys is None:
            yield _event("reset", "{}", identifier)
        else:
            for key in sorted(filter(visible, changes.keys)):
                entry = index.get(key)
                if entry is None:
                    data = {"namespace": key[0], "name": key[1]}
                    yield _event("deleted", data, identifier)
                else:
                    yield _event(
                        "summary", summarise(entry).model_dump_json(by_alias=True), identifier
                    )
        await asyncio.sleep(PAUSE_SECONDS)


# --- one Experiment --------------------------------------------------------------------------------


async def one_events(
    catalogue: Catalogue,
    library: Library,
    entry: Entry,
    summarise: Callable[[Entry], Summary],
    last_id: str | None,
) -> AsyncIterator[bytes]:
    """Yield an Experiment's finished generations and changes of its status, from ``last_id`` on."""
    key, uid = entry.key, entry.uid
    repeats = int(entry.document["spec"].get("repeats", 1))
    places = _places(last_id, repeats)
    if places is None:
        places = await asyncio.to_thread(_newest, library, entry, repeats)
    told: str | None = None
    yield OPENED
    pinged = time.monotonic()
    while True:
        revision = catalogue.index.revision
        found = catalogue.index.get(key)
        if found is None or found.uid != uid:
            yield _event("deleted", "{}")
            return
        text = summarise(found).model_dump_json(by_alias=True)
        if text != told:
            told = text
            yield _event("status", text, _identifier(places))
        for repeat in range(repeats):
            for row in await asyncio.to_thread(_rows, library, found, repeat, places[repeat]):
                places[repeat] = int(row["generation"])
                yield _event("generation", {"repeat": repeat, "row": row}, _identifier(places))
        await asyncio.sleep(PAUSE_SECONDS)
        await _within(catalogue.index.wait(revision), LOOK_SECONDS)
        if time.monotonic() - pinged > PING_SECONDS:
            pinged = time.monotonic()
            yield PING


async def _within(waiting: Awaitable[None], seconds: float) -> bool:
    """Wait for something; return whether it came within ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        return False
    return True


def _identifier(places: list[int]) -> str:
    return ".".join(map(str, places))


def _places(last_id: str | None, repeats: int) -> list[int] | None:
    """Return the newest generation of each repeat that a client has seen; None: it does not say."""
    if last_id is None or not re.fullmatch(r"(-1|\d{1,9})(\.(-1|\d{1,9}))*", last_id, re.ASCII):
        return None
    places = [int(part) for part in last_id.split(".")]
    return places if len(places) == repeats else None


def _newest(library: Library, entry: Entry, repeats: int) -> list[int]:
    found = []
    for repeat in range(repeats):
        rows = _columns(library, entry, repeat)
        is_empty = rows is None or not len(rows["generation"])
        found.append(-1 if is_empty else int(rows["generation"][-1]))
    return found


def _columns(library: Library, entry: Entry, repeat: int, first: int | None = None) -> Any:
    try:
        return library.repeat(entry.directory, repeat).history().columns(first)
    except KubevoError:  # no directory yet, or none any more
        return None


def _rows(library: Library, entry: Entry, repeat: int, after: int) -> list[dict[str, Any]]:
    columns = _columns(library, entry, repeat, after + 1)
    if columns is None:
        return []
    count = min(len(columns["generation"]), MOST_ROWS)
    return [record(columns, index) for index in range(count)]
