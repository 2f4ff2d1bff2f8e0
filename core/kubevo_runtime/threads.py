"""Blocking work off the event loop, that a cancelled caller does not leave behind."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["to_the_end"]

P = ParamSpec("P")
T = TypeVar("T")


async def to_the_end(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``work`` in a thread; a cancellation is passed on once the thread has ended.

    A thread cannot be stopped. One that went on writing to a run's directory after its caller was
    gone would meet whoever works on the run next, in the same process and under the same takeover.
    Cancelled twice, the caller goes at once: the disk may hang.
    """
    thread = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        thread.add_done_callback(_look)
        await asyncio.wait({thread})
        raise


def _look(thread: "asyncio.Future[T]") -> None:
    """Take note of an error that nobody waits for any more."""
    if not thread.cancelled():
        thread.exception()
