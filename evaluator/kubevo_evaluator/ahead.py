"""The task after this one: pulled and decoded while an episode plays, so that no broker is awaited.

It is a held task like any other, but nobody plays it, and it must not make the fleet wait:

* It is taken only while the queue is deep: at least twice as many tasks wait as were handed out
  during any of this worker's last turns. Then some still wait when its turn comes, so whoever is
  free meanwhile finds work. The tasks themselves tell both numbers, and nothing is asked for it.
* It is taken only from what lies ready, never before a worker that waits.
* An episode may last longer than those before it. So with each sign of life, every third of a
  lease, it is asked whether a worker waits after all; then the task is given back to that one.
* A worker that is told to stop, or ends, gives it back at once. Giving back counts as a delivery:
  a worker that ends costs one of the 30 that a task has, as it does for the one that it plays.

Whatever is wrong with the task (its bytes, a missing base) is found when its turn comes, for only
then may this worker answer for it.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from kubevo_evaluator.evaluation import Decoded
from kubevo_runtime.bus import HeldTask, WorkerBus

__all__ = ["Ahead", "Turn"]

# Turns that tell how many tasks the fleet takes in one; lengths vary, so the longest counts.
TURNS = 8
# During an episode this short nothing is asked: the event loop would have to wait several times for
# the interpreter's lock, 5 ms each. The question then goes out together with the result.
SHORT_SECONDS = 0.05

# None: the task has to wait for its turn, or its base is missing.
Decoding = asyncio.Future[Decoded | None]


class Turn(NamedTuple):
    """A task to be worked on now, and the decoding of its genome if that has begun."""

    held: HeldTask
    decoding: Decoding | None = None

    async def give_back(self) -> None:
        """Let another worker have it, at once."""
        if self.decoding is not None:
            self.decoding.cancel()
        await self.held.nak()


class Ahead:
    """At most one task ahead of its turn, whose genome ``decode`` makes ready."""

    def __init__(
        self,
        bus: WorkerBus,
        decode: Callable[[HeldTask], Coroutine[Any, Any, Decoded | None]],
        sign_seconds: float,
    ) -> None:
        self._bus = bus
        self._decode = decode
        self._sign_seconds = sign_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._taking: asyncio.Task[Turn | None] | None = None
        self._called = asyncio.Event()
        self._closed = False
        self._number: int | None = None
        self._handed_out: deque[int] = deque(maxlen=TURNS)

    def look(self, current: HeldTask) -> None:
        """Take a task if the queue is deep; to be called as the episode of ``current`` begins."""
        self._count(current)
        if self._handed_out and current.behind >= 2 * max(self._handed_out):
            self._timer = asyncio.get_running_loop().call_later(SHORT_SECONDS, self.soon)

    def _count(self, current: HeldTask) -> None:
        if self._number is not None:
            if current.number > self._number:
                self._handed_out.append(current.number - self._number)
            else:
                self._handed_out.clear()  # a queue made anew counts from one again
        self._number = current.number

    def soon(self) -> None:
        """Wait no longer with what `look` decided; to be called as the episode has ended."""
        if self._stop_timer() and not self._closed:
            self._called.clear()
            self._taking = asyncio.create_task(self._take())

    def _stop_timer(self) -> bool:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        return timer is not None

    async def turn(self) -> Turn | None:
        """Return the task that was taken, if there is one."""
        self._stop_timer()  # still set where no episode ended that `soon` was told of
        self._called.set()
        taking, self._taking = self._taking, None
        return None if taking is None else await taking

    async def close(self) -> None:
        """Give back at once what was taken, and take nothing any more."""
        self._closed = True
        turn = await self.turn()
        if turn is not None:
            await turn.give_back()

    async def _take(self) -> Turn | None:
        held = await self._bus.pull_ready()
        if held is None:
            return None
        decoding = asyncio.create_task(self._decode(held))
        decoding.add_done_callback(_look)
        turn = Turn(held, decoding)
        while not await self._is_called():
            await held.in_progress()
            if await self._bus.is_anyone_idle():
                await turn.give_back()
                return None
        return turn

    async def _is_called(self) -> bool:
        """Wait until the turn has come, or until a sign of life is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._sign_seconds):
                await self._called.wait()
        return self._called.is_set()


def _look(decoding: Decoding) -> None:
    """Take note of an error that nobody may wait for any more."""
    if not decoding.cancelled():
        decoding.exception()
