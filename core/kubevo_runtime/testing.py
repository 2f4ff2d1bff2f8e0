"""The broker in memory, for tests of what stands on it: the same rules, and time by the hand.

Leases end when `FakeBus.advance` says that time has passed. The timeouts of ``fetch`` and ``pull``
are cut to a few real milliseconds, since nothing arrives in an idle test by waiting longer.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kubevo_core.errors import BusUnavailable
from kubevo_runtime.bus_types import (
    Backlog,
    CoordinatorBus,
    HeldTask,
    QueueMissing,
    Reader,
    WorkerBus,
    missing_text,
)

__all__ = ["FakeBus"]

EXPERIMENT = "fake"


@dataclass
class _Task:
    """A queued task; it is held until ``lease_end``, or waits, not before ``ready_at``."""

    body: bytes
    ready_at: float = 0.0
    lease_end: float | None = None
    deliveries: int = 0

    def is_stranded(self, most_deliveries: int) -> bool:
        return self.lease_end is None and self.deliveries >= most_deliveries


class FakeBus:
    """An Experiment's tasks, results, failures and blobs; gives both views of them."""

    def __init__(
        self,
        *,
        ack_wait_seconds: float = 20.0,
        max_deliver: int = 30,
        longest_wait_seconds: float = 0.02,
        most_results: int | None = None,
    ) -> None:
        self.ack_wait_seconds = ack_wait_seconds
        self.max_deliver = max_deliver
        self.longest_wait_seconds = longest_wait_seconds
        self.most_results = most_results
        self.is_made = False
        self.tasks: dict[str, _Task] = {}
        # What was stored, oldest first, with the position that readers count by.
        self.results: dict[str, tuple[int, bytes]] = {}
        self.failures: list[tuple[int, str, bytes]] = []
        self.blobs: dict[str, bytes] = {}
        self.recordings: dict[str, dict[int, bytes]] | None = None  # parts by name, once opened
        self._now = 0.0
        self._position = 0
        self._handed_out = 0
        self.idle_workers = 0
        self._changed = asyncio.Event()

    def coordinator(self) -> CoordinatorBus:
        """Return what a coordinator sees."""
        return _Coordinator(self)

    def worker(self) -> WorkerBus:
        """Return what one more worker sees."""
        return _Worker(self)

    def advance(self, seconds: float) -> None:
        """Let time pass: leases and delays end."""
        self._now += seconds
        self._wake()

    def lose_store(self) -> None:
        """Become a broker that came back empty; the coordinator's next call makes it anew."""
        self.tasks.clear()
        self.results.clear()
        self.failures.clear()
        if self.recordings is not None:
            self.recordings.clear()
        self.is_made = False

    @property
    def has_room(self) -> bool:
        """Tell whether another result would be kept."""
        return self.most_results is None or len(self.results) < self.most_results

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def store_result(self, episode: str, body: bytes) -> bool:
        """Keep the first result of an episode; False for a later one."""
        if episode in self.results:
            return False
        if not self.has_room:
            raise BusUnavailable("the stream is full")
        self.results[episode] = (self._next_position(), body)
        self._wake()
        return True

    def store_failure(self, episode: str, body: bytes) -> None:
        """Keep a failure report."""
        self.failures.append((self._next_position(), episode, body))
        self._wake()

    def _next_position(self) -> int:
        self._position += 1
        return self._position

    def add_task(self, episode: str, body: bytes) -> bool:
        """Queue a task; False when it is queued, held or stranded."""
        if episode in self.tasks:
            return False
        self.tasks[episode] = _Task(body)
        self._wake()
        return True

    def take_task(self) -> "HeldTask | None":
        """Lend the first task that is ready."""
        for episode, task in self.tasks.items():
            self._end_lease(task)
            if task.lease_end is None and task.ready_at <= self._now and not self._is_lost(task):
                task.deliveries += 1
                task.lease_end = self._now + self.ack_wait_seconds
                self._handed_out += 1
                behind = sum(each.deliveries == 0 for each in self.tasks.values())
                return _Held(self, episode, task, self._handed_out, behind)
        return None

    def _end_lease(self, task: _Task) -> None:
        if task.lease_end is not None and task.lease_end <= self._now:
            task.lease_end = None

    def _is_lost(self, task: _Task) -> bool:
        return task.is_stranded(self.max_deliver)

    def states(self) -> dict[str, str]:
        """Return each task's state: pending, held or stranded."""
        states = {}
        for episode, task in self.tasks.items():
            self._end_lease(task)
            waits_again = task.deliveries > 0 and not self._is_lost(task)
            held = task.lease_end is not None or waits_again  # as the server counts it
            states[episode] = "held" if held else "stranded" if task.deliveries else "pending"
        return states

    def renew(self, task: _Task) -> None:
        """Start a held task's lease again."""
        if task.lease_end is not None:
            task.lease_end = self._now + self.ack_wait_seconds

    def give_back(self, task: _Task, delay_seconds: float) -> None:
        """End a lease, and hand the task out again after a delay."""
        task.lease_end, task.ready_at = None, self._now + delay_seconds
        self._wake()

    def read(self, kind: str, episode_filter: str, after: int) -> list[tuple[int, bytes]]:
        """Return the stored messages of a kind that match and come after a position."""
        if kind == "results":
            stored = [(at, episode, body) for episode, (at, body) in self.results.items()]
        else:
            stored = self.failures
        return [
            (at, body)
            for at, episode, body in stored
            if at > after and _matches(episode_filter, episode)
        ]

    def purge(self, episode_filter: str) -> int:
        """Drop what matches, and return the number of tasks among it."""
        doomed = [episode for episode in self.tasks if _matches(episode_filter, episode)]
        for episode in doomed:
            del self.tasks[episode]
        self.results = {e: r for e, r in self.results.items() if not _matches(episode_filter, e)}
        self.failures = [f for f in self.failures if not _matches(episode_filter, f[1])]
        return len(doomed)

    async def wait_for(self, found: Callable[[], bool], timeout_seconds: float) -> None:
        """Wait until ``found`` says so, or until the shortened timeout."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(timeout_seconds, self.longest_wait_seconds)
        while not found() and (remaining := deadline - loop.time()) > 0:
            try:
                async with asyncio.timeout(remaining):
                    await self._changed.wait()
            except TimeoutError:
                return


def _matches(episode_filter: str, episode: str) -> bool:
    wanted, tokens = episode_filter.split("."), episode.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(
        want in ("*", token) for want, token in zip(wanted, tokens, strict=True)
    )


class _Held:
    """`HeldTask` in memory."""

    def __init__(self, bus: FakeBus, episode: str, task: _Task, number: int, behind: int) -> None:
        self._bus = bus
        self._task = task
        self.number = number
        self.behind = behind
        self.episode = episode
        self.body = task.body
        self.deliveries = task.deliveries

    async def in_progress(self) -> None:
        self._bus.renew(self._task)

    async def ack(self) -> None:
        # By identity: a task that was purged and published again is another one.
        if self._bus.tasks.get(self.episode) is self._task:
            del self._bus.tasks[self.episode]

    async def nak(self, delay_seconds: float = 0) -> None:
        self._bus.give_back(self._task, delay_seconds)


class _Reader:
    """`Reader` in memory."""

    def __init__(self, bus: FakeBus, kind: str, episode_filter: str) -> None:
        self._bus = bus
        self._kind = kind
        self._filter = episode_filter
        self._last = 0

    def _unread(self) -> list[tuple[int, bytes]]:
        return self._bus.read(self._kind, self._filter, self._last)

    async def fetch(self, limit: int, timeout_seconds: float) -> list[bytes]:
        await self._bus.wait_for(lambda: bool(self._unread()), timeout_seconds)
        unread = self._unread()[:limit]
        if unread:
            self._last = unread[-1][0]
        return [body for _, body in unread]

    async def aclose(self) -> None:
        return


class _Coordinator:
    """`CoordinatorBus` in memory."""

    def __init__(self, bus: FakeBus) -> None:
        self._bus = bus

    async def ensure(self) -> None:
        self._bus.is_made = True

    async def publish_task(self, episode: str, body: bytes) -> bool:
        await self.ensure()
        return self._bus.add_task(episode, body)

    async def publish_tasks(self, tasks: Sequence[tuple[str, bytes]]) -> int:
        return sum([await self.publish_task(episode, body) for episode, body in tasks])

    async def put_result(self, episode: str, body: bytes) -> bool:
        await self.ensure()
        return self._bus.store_result(episode, body)

    def results(self, episode_filter: str) -> Reader:
        return _Reader(self._bus, "results", episode_filter)

    def failures(self, episode_filter: str) -> Reader:
        return _Reader(self._bus, "failures", episode_filter)

    async def result(self, episode: str) -> bytes | None:
        stored = self._bus.results.get(episode)
        return None if stored is None else stored[1]

    async def backlog(self) -> Backlog:
        await self.ensure()
        states = list(self._bus.states().values())
        return Backlog(states.count("pending"), states.count("held"))

    async def has_room(self) -> bool:
        return self._bus.has_room

    async def purge_task(self, episode: str) -> int:
        return 0 if self._bus.tasks.pop(episode, None) is None else 1

    async def purge(self, episode_filter: str) -> None:
        self._bus.purge(episode_filter)

    async def dead_letters(self, limit: int) -> list[str]:
        states = self._bus.states()
        return [episode for episode, state in states.items() if state == "stranded"][:limit]

    async def put_blob(self, key: str, body: bytes) -> None:
        self._bus.blobs[key] = body

    async def drop_blob(self, key: str) -> None:
        self._bus.blobs.pop(key, None)

    async def blob_keys(self) -> list[str]:
        return sorted(self._bus.blobs)

    async def delete(self) -> None:
        self._bus.lose_store()
        self._bus.blobs.clear()
        self._bus.recordings = None

    async def open_recordings(self) -> None:
        if self._bus.recordings is None:
            self._bus.recordings = {}

    async def recording(self, name: str, size: int) -> bytes | None:
        parts = (self._bus.recordings or {}).get(name, {})
        body = b"".join(parts.values())
        return body if len(body) == size else None

    async def drop_recording(self, name: str) -> None:
        (self._bus.recordings or {}).pop(name, None)


class _Worker:
    """`WorkerBus` in memory."""

    def __init__(self, bus: FakeBus) -> None:
        self._bus = bus

    async def pull(self, timeout_seconds: float) -> HeldTask | None:
        taken: list[HeldTask] = []

        def take() -> bool:
            task = self._bus.take_task() if self._bus.is_made else None
            taken.extend([task] if task else [])
            return bool(taken)

        self._bus.idle_workers += 1
        try:
            await self._bus.wait_for(take, timeout_seconds)
        finally:
            self._bus.idle_workers -= 1
        if not self._bus.is_made:
            raise QueueMissing(missing_text(EXPERIMENT, "memory"))
        return taken[0] if taken else None

    async def pull_ready(self) -> HeldTask | None:
        return self._bus.take_task() if self._bus.is_made and not self._bus.idle_workers else None

    async def is_anyone_idle(self) -> bool:
        return self._bus.idle_workers > 0

    async def put_result(self, episode: str, body: bytes) -> bool:
        return self._bus.store_result(episode, body)

    async def put_failure(self, episode: str, body: bytes) -> None:
        self._bus.store_failure(episode, body)

    async def put_recording_part(self, name: str, part: int, body: bytes) -> None:
        if self._bus.recordings is None:
            raise QueueMissing(missing_text(EXPERIMENT, "memory"))
        self._bus.recordings.setdefault(name, {})[part] = body

    async def get_blob(self, key: str) -> bytes | None:
        return self._bus.blobs.get(key)
