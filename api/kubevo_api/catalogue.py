"""What Experiments there are: the one interface to where they come from, a cluster or a directory.

A catalogue keeps every Experiment as one plain resource (metadata, spec, status) in memory, so that
a list costs no request, and counts its changes, so that any number of streams can wait for the next
one without a queue each.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from kubevo_core.errors import KubevoError

__all__ = ["ActionRefused", "Catalogue", "Changes", "Entry", "Index", "Key", "Unavailable"]

Document = dict[str, Any]
Key = tuple[str, str]  # namespace, name
REMEMBERED = 10_000


class ActionRefused(KubevoError):
    """The Experiment cannot be changed so; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(KubevoError):
    """What the answer depends on cannot be asked now; a retry may help."""


@dataclass(frozen=True)
class Entry:
    """One Experiment: its resource, and the directory of its run, which may not be there yet."""

    document: Document
    directory: Path

    @property
    def key(self) -> Key:
        """Namespace and name."""
        metadata = self.document["metadata"]
        return metadata["namespace"], metadata["name"]

    @property
    def uid(self) -> str:
        """The resource's uid."""
        return str(self.document["metadata"]["uid"])


@dataclass(frozen=True)
class Changes:
    """What changed since a revision; ``keys`` is None when too much did to be told apart."""

    revision: int
    keys: frozenset[Key] | None


class Index:
    """The entries and the count of their changes; a catalogue feeds it, streams wait on it."""

    def __init__(self) -> None:
        self.revision = 0
        self._entries: dict[Key, Entry] = {}
        self._log: deque[tuple[int, Key]] = deque(maxlen=REMEMBERED)
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Entry | None:
        """Return an entry; None where there is none."""
        return self._entries.get(key)

    def entries(self) -> Iterable[Entry]:
        """Return all entries, in no order."""
        return self._entries.values()

    def put(self, entry: Entry) -> None:
        """Add or replace an entry."""
        self._entries[entry.key] = entry
        self._note(entry.key)

    def remove(self, key: Key) -> None:
        """Forget an entry."""
        if self._entries.pop(key, None) is not None:
            self._note(key)

    def replace(self, entries: Mapping[Key, Entry], within: str | None = None) -> None:
        """Make the entries (of one namespace, if it is named) be these."""
        for key in [k for k in self._entries if within in (None, k[0]) and k not in entries]:
            self.remove(key)
        for key, entry in entries.items():
            known = self._entries.get(key)
            if known is None or known.document != entry.document:
                self.put(entry)

    def _note(self, key: Key) -> None:
        self.revision += 1
        self._log.append((self.revision, key))
        self._changed.set()
        self._changed = asyncio.Event()

    def since(self, revision: int) -> Changes:
        """Return what changed after ``revision``, at once."""
        if revision > self.revision or (self._log and revision + 1 < self._log[0][0]):
            return Changes(self.revision, None)
        keys = frozenset(key for number, key in self._log if number > revision)
        return Changes(self.revision, keys)

    async def wait(self, revision: int) -> None:
        """Wait until something has changed after ``revision``."""
        while self.revision <= revision:
            await self._changed.wait()


class Catalogue(Protocol):
    """Where Experiments come from; an asynchronous context manager that keeps ``index`` current."""

    mode: Literal["local", "cluster"]
    index: Index

    @property
    def is_ready(self) -> bool:
        """Whether the index has been filled and is current."""

    async def patch(self, entry: Entry, spec: Document) -> Entry:
        """Merge ``spec`` into an Experiment's spec and return what it is now.

        Raises:
            ActionRefused: it cannot be changed, or not so.
            Unavailable: nobody answered.
        """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...
