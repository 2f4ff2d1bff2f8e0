"""Work on a held task in a thread: its lease meanwhile, its time limit, and a stop's grace.

The one place where a worker waits for its threads, so that whatever it is at, the broker hears a
sign of life every third of a lease, and SIGTERM ends it within the grace.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from kubevo_core.errors import WorkerUnfit
from kubevo_evaluator.settings import Settings
from kubevo_runtime.bus import HeldTask

__all__ = ["LeaseKeeper", "Recycle", "in_thread", "unless_lacking"]

# What this machine lacks, also where a library lets it through; an environment that ends the
# process by sys.exit ends this one, and not the search.
LACKS = (ImportError, MemoryError, OSError, SystemExit)

T = TypeVar("T")


class Recycle(Exception):
    """This process should be replaced by a fresh one."""


class LeaseKeeper:
    """Waits for work on behalf of one worker."""

    def __init__(
        self,
        settings: Settings,
        stopping: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._stopping = stopping
        self._clock = clock

    async def until_done(
        self, work: "asyncio.Future[T]", held: HeldTask | None, timeout_seconds: float | None = None
    ) -> T:
        """Return what ``work`` gives, with signs of life for the task meanwhile.

        Raises:
            WorkerUnfit: it was not done within ``timeout_seconds``.
            Recycle: it was not done within the grace; the task is given back.
        """
        started = self._clock()
        give_up: float | None = None
        while not work.done():
            now = self._clock()
            if self._stopping.is_set() and give_up is None:
                give_up = now + self._settings.grace_seconds
            if give_up is not None and now >= give_up:
                if held is not None:
                    await held.nak()
                raise Recycle("stopped before the episode ended; it was given back")
            wait = self._settings.ack_wait_seconds / 3
            if timeout_seconds is not None:
                wait = min(wait, started + timeout_seconds - now)
                if wait <= 0:
                    raise WorkerUnfit(
                        f"an episode, or making its environment, took longer than {timeout_seconds}"
                        " s (spec.evaluator.taskTimeoutSeconds); another worker gets it"
                    )
            if give_up is not None:
                wait = min(wait, give_up - now)
            if not await self._is_done(work, wait) and held is not None:
                await held.in_progress()
        return work.result()

    async def _is_done(self, work: "asyncio.Future[T]", seconds: float) -> bool:
        """Wait for the work or, unless it came already, for the word to stop."""
        waits: set[asyncio.Future[Any]] = {work}
        if not self._stopping.is_set():
            waits.add(asyncio.ensure_future(self._stopping.wait()))
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits - {work}:
            wait.cancel()
        return work.done()


def in_thread(thread: Executor, work: Callable[[], T]) -> "asyncio.Future[T]":
    """Begin ``work`` in a thread; what this machine lacks for it is WorkerUnfit."""
    return asyncio.get_running_loop().run_in_executor(thread, unless_lacking, work)


def unless_lacking(work: Callable[[], T]) -> T:
    """Do ``work``; what this machine lacks for it is WorkerUnfit."""
    try:
        return work()
    except LACKS as exc:
        raise WorkerUnfit(
            f"this process lacks something to evaluate: {type(exc).__name__}: {exc}"
        ) from exc
