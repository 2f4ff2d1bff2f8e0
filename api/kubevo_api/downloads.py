"""Exported models as files: made once, by a few at a time, served with ranges, dropped when old.

A model's bytes follow from what is exported, so the cache's key is a hash of that, and a file that
is there is right. Twenty who ask for the same model at once wait for one export.
"""

import asyncio
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kubevo_api.metrics import Metrics
from kubevo_core.errors import UserError

__all__ = ["Exported", "Exports"]

PREFIX = "kubevo-exports-"
# What was asked for so lately may not be opened yet.
GRACE_SECONDS = 5


@dataclass(frozen=True)
class Exported:
    """A file that is ready to be sent; ``etag`` is strong: the hash of its bytes."""

    path: Path
    etag: str


class Exports:
    """The exported models of one service, in a folder of its own inside ``folder``."""

    def __init__(self, folder: Path, most_bytes: int, at_once: int, metrics: Metrics) -> None:
        self._parent = folder
        self._folder = folder
        self._lock: int | None = None
        self._most_bytes = most_bytes
        self._slots = asyncio.Semaphore(at_once)
        self._metrics = metrics
        self._running: dict[str, asyncio.Task[Exported]] = {}
        self._known: dict[str, Exported] = {}

    def open(self) -> None:
        """Make a folder of our own in the cache's, and remove those of services that died.

        Raises:
            UserError: the cache's folder cannot be written to.
        """
        try:
            self._parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in self._parent.glob(f"{PREFIX}*"):
                _remove_unused(left)
            self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._parent))
            self._lock = os.open(self._folder, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as exc:
            raise UserError(
                f"{self._parent}: expected a folder for exported models that can be written to: "
                f"{exc.strerror or exc}; choose another KUBEVO_API_CACHE"
            ) from exc

    def close(self) -> None:
        """Remove our folder, and nothing else."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

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
        now = time.time_ns()
        for used, size, path in sorted(found):
            if total <= self._most_bytes:
                break
            if path != keep and used < now - GRACE_SECONDS * 10**9:
                # Whoever is being sent it keeps it: an open file outlives its name.
                path.unlink(missing_ok=True)
                self._known.pop(path.name, None)
                total -= size
        self._metrics.cache_bytes.set(total)


def _remove_unused(folder: Path) -> None:
    """Remove the folder of a service that has ended; a living one holds its lock."""
    with suppress(OSError):  # somebody else's, or in use
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
