"""The event streams of single Experiments: one look for all who listen.

A listener keeps nothing but its place: the id of an event is the newest generation of each repeat
that the client has seen, so whoever comes back with it goes on without a gap, from any replica and
after any restart. What is new is read and encoded once, by the Experiment's feed, which lives as
long as somebody listens; who is further behind than it remembers reads the file.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog

from kubevo_api.catalogue import Catalogue, Entry, Key
from kubevo_api.history import record
from kubevo_api.models import Summary
from kubevo_api.runs import Library
from kubevo_api.streams import OPENED, PAUSE_SECONDS, PING, PING_SECONDS, event_bytes, within
from kubevo_core.errors import KubevoError

__all__ = ["Feeds"]

# How often a run's history is looked at where the catalogue does not tell.
LOOK_SECONDS = 1.0
REMEMBERED = 256
MOST_ROWS = 500
Row = tuple[int, str]  # generation, JSON

log = structlog.get_logger()


class Feed:
    """What happens to one Experiment: its summary, the newest generations, and its end."""

    def __init__(
        self,
        catalogue: Catalogue,
        library: Library,
        summarise: Callable[[Entry], Summary],
        entry: Entry,
    ) -> None:
        self.listeners = 0
        self.is_gone = False
        self.status = ""
        self.newest = [-1] * int(entry.document["spec"].get("repeats", 1))
        self.changed = asyncio.Event()
        self._recent: list[deque[Row]] = [deque(maxlen=REMEMBERED) for _ in self.newest]
        self._catalogue = catalogue
        self._library = library
        self._summarise = summarise
        self._entry = entry

    async def run(self) -> None:
        """Look again and again, until the Experiment is gone."""
        while not self.is_gone:
            revision = self._catalogue.index.revision
            if await self._look():
                changed, self.changed = self.changed, asyncio.Event()
                changed.set()
            await asyncio.sleep(PAUSE_SECONDS)
            await within(self._catalogue.index.wait(revision), LOOK_SECONDS)

    async def begin(self) -> None:
        """Note where the histories are now."""
        self.newest = await asyncio.to_thread(self._ends)
        await self._look()

    async def _look(self) -> bool:
        try:
            return await self._read()
        except Exception:
            # What cannot be shown now may be shown after the next change.
            log.exception("experiment_not_understood", experiment="/".join(self._entry.key))
            return False

    async def _read(self) -> bool:
        found = self._catalogue.index.get(self._entry.key)
        if found is None or found.uid != self._entry.uid:
            self.is_gone = True
            return True
        before = self.status
        self.status = self._summarise(found).model_dump_json(by_alias=True)
        is_new = self.status != before
        for repeat, end in enumerate(await asyncio.to_thread(self._ends)):
            if end < self.newest[repeat]:  # a resumed search does it again
                self._recent[repeat].clear()
                self.newest[repeat] = end
            while self.newest[repeat] < end:
                rows = await self.after(repeat, self.newest[repeat])
                if not rows:
                    break
                self._recent[repeat].extend(rows)
                self.newest[repeat] = rows[-1][0]
                is_new = True
        return is_new

    async def after(self, repeat: int, generation: int) -> list[Row]:
        """Return some rows that follow a generation, without a gap; none where it is the newest."""
        recent = self._recent[repeat]
        if recent and recent[0][0] <= generation + 1 <= recent[-1][0]:
            return [row for row in recent if row[0] > generation]
        return await asyncio.to_thread(self._rows, repeat, generation + 1)

    def _columns(self, repeat: int, first: int | None) -> Any:
        try:
            return self._library.repeat(self._entry.directory, repeat).history().columns(first)
        except KubevoError:  # no directory yet, or none any more
            return None

    def _ends(self) -> list[int]:
        found = []
        for repeat in range(len(self.newest)):
            columns = self._columns(repeat, None)
            is_empty = columns is None or not len(columns["generation"])
            found.append(-1 if is_empty else int(columns["generation"][-1]))
        return found

    def _rows(self, repeat: int, first: int) -> list[Row]:
        columns = self._columns(repeat, first)
        if columns is None:
            return []
        count = min(len(columns["generation"]), MOST_ROWS)
        rows = [record(columns, index) for index in range(count)]
        return [
            (row["generation"], json.dumps({"repeat": repeat, "row": row}, separators=(",", ":")))
            for row in rows
        ]


class Feeds:
    """The feeds of all Experiments that somebody listens to."""

    def __init__(
        self, catalogue: Catalogue, library: Library, summarise: Callable[[Entry], Summary]
    ) -> None:
        self._parts = catalogue, library, summarise
        self._open: dict[tuple[Key, str], tuple[Feed, asyncio.Task[None]]] = {}

    async def events(self, entry: Entry, last_id: str | None) -> AsyncIterator[bytes]:
        """Yield an Experiment's finished generations and changes of its status, from ``last_id`` on."""
        async with self._feed(entry) as feed:
            places = _places(last_id, len(feed.newest)) or list(feed.newest)
            told = ""
            yield OPENED
            while True:
                changed = feed.changed
                if feed.is_gone:
                    yield event_bytes("deleted", "{}")
                    return
                # In one piece: many listen, and a search may finish many generations at a time.
                events = []
                if feed.status != told:
                    told = feed.status
                    events.append(event_bytes("status", told, _identifier(places)))
                for repeat, newest in enumerate(feed.newest):
                    places[repeat] = min(places[repeat], newest)
                    while places[repeat] < newest:
                        rows = await feed.after(repeat, places[repeat])
                        for generation, text in rows:
                            places[repeat] = generation
                            events.append(event_bytes("generation", text, _identifier(places)))
                        if not rows:
                            break
                        yield b"".join(events)
                        events = []
                if events:
                    yield b"".join(events)
                while not await within(changed.wait(), PING_SECONDS):
                    yield PING

    @asynccontextmanager
    async def _feed(self, entry: Entry) -> AsyncIterator[Feed]:
        key = entry.key, entry.uid
        if key not in self._open:
            feed = Feed(*self._parts, entry)
            await feed.begin()
            # Somebody else may have begun one meanwhile.
            if key not in self._open:
                self._open[key] = feed, asyncio.create_task(feed.run())
        feed, task = self._open[key]
        feed.listeners += 1
        try:
            yield feed
        finally:
            feed.listeners -= 1
            if not feed.listeners:
                task.cancel()
                self._open.pop(key, None)


def _identifier(places: list[int]) -> str:
    return ".".join(map(str, places))


def _places(last_id: str | None, repeats: int) -> list[int] | None:
    """Return the newest generation of each repeat that a client has seen; None: it does not say."""
    if last_id is None or not re.fullmatch(r"(-1|\d{1,9})(\.(-1|\d{1,9}))*", last_id, re.ASCII):
        return None
    places = [int(part) for part in last_id.split(".")]
    return places if len(places) == repeats else None
