"""Exported models as files: made once, by a few at a time, served with ranges, dropped when old.

A model's bytes follow from what is exported, so the cache's key is a hash of that, and a file that
is there is right. Twenty who ask for the same model at once wait for one export.
"""

import asyncio
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kubevo_api.metrics import Metrics

__all__ = ["Exported", "Exports"]


@dataclass(frozen=True)
class Exported:
    """A file that is ready to be sent; ``etag`` is strong: the hash of its bytes."""

    path: Path
    etag: str


class Exports:
    """The exported models of one service, in a folder of its own."""

    def __init__(self, folder: Path, most_bytes: int, at_once: int, metrics: Metrics) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._slots = asyncio.Semaphore(at_once)
        self._metrics = metrics
        self._running: dict[str, asyncio.Task[Exported]] = {}
        self._known: dict[str, Exported] = {}

    def open(self) -> None:
        """Make the folder, empty."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, mode=0o700)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def get(self, key: tuple[str, ...], write: Callable[[], bytes]) -> Exported:
        """Return the file for ``key``, made by ``write`` in a thread where it is not there yet."""
        name = hashlib.sha256("\n".join(key).encode()).hexdigest()
        found = self._known.get(name)
        if found is not None:
            with suppress(FileNotFoundError):
                os.utime(found.path)  # used: the last to be dropped
                return found
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.create_task(self._make(name, write))
            task.add_done_callback(lambda _: self._running.pop(name, None))
        # One who goes away must not take the export from the others.
        return await asyncio.shield(task)

    async def _make(self, name: str, write: Callable[[], bytes]) -> Exported:
        async with self._slots:
            made = await asyncio.to_thread(self._write, name, write)
        self._known[name] = made
        return made

    def _write(self, name: str, write: Callable[[], bytes]) -> Exported:
        content = write()
        path = self._folder / name
        beside = self._folder / f".{name}.{secrets.token_hex(4)}"
        beside.write_bytes(content)
        beside.replace(path)
        self._drop_old(keep=path)
        return Exported(path, f'"{hashlib.sha256(content).hexdigest()}"')

    def _drop_old(self, keep: Path) -> None:
        found = []
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):
                found.append((entry.stat().st_mtime_ns, entry.stat().st_size, Path(entry.path)))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._most_bytes:
                break
            if path != keep:
                # Whoever is being sent it keeps it: an open file outlives its name.
                path.unlink(missing_ok=True)
                total -= size
        self._metrics.cache_bytes.set(total)
