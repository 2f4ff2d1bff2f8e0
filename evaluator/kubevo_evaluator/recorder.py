"""The task of a recording: record an episode, send the video in parts, and answer where it is.

Whatever goes wrong is the answer, so that a search never waits for a video. A recording that hangs
ends this process, since nothing else can end its thread.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Executor

import structlog

from kubevo_core import recordings
from kubevo_core.errors import BusError, BusUnavailable, WorkerUnfit
from kubevo_core.messages import Task
from kubevo_evaluator.contexts import Contexts, specs
from kubevo_evaluator.lease import LeaseKeeper, Recycle, in_thread
from kubevo_evaluator.recording import Recorded, record
from kubevo_evaluator.settings import Settings
from kubevo_runtime.bus import HeldTask, WorkerBus

__all__ = ["Recorder"]

# A renderer or an encoder that hangs is given up, and this process with it.
RECORD_SECONDS = 600.0

log = structlog.get_logger()


class Recorder:
    """Answers one worker's recording tasks, playing them in its thread."""

    def __init__(
        self,
        settings: Settings,
        bus: WorkerBus,
        contexts: Contexts,
        lease: LeaseKeeper,
        thread: Executor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._contexts = contexts
        self._lease = lease
        self._thread = thread
        self._clock = clock

    async def answer(self, held: HeldTask, task: Task) -> None:
        """Record an episode, and answer with the video or with why there is none."""
        if held.deliveries > recordings.MOST_DELIVERIES:
            await self._publish(
                held,
                f"{recordings.MOST_DELIVERIES} workers took this recording and died or gave it back",
            )
            return
        context = await self._contexts.context(task.context)
        base = await self._contexts.base(task)
        if context is None or context.description is None or base is None:
            await held.nak(delay_seconds=1)  # the coordinator puts it there again
            return
        environment, policy = specs(context)
        backend, seed = context.description.backend, task.episode_seed
        recording = in_thread(
            self._thread, lambda: record(base, environment, backend, seed, policy.precision)
        )
        try:
            recorded = await self._lease.until_done(recording, held, RECORD_SECONDS)
        except WorkerUnfit:
            await self._publish(held, f"it was not done after {RECORD_SECONDS:g} s")
            raise Recycle("a recording hangs in this process") from None
        if recorded.failure is not None:
            await self._publish(held, recorded.failure)
            return
        try:
            video = await self._send(held, recorded)
        except BusUnavailable:
            raise
        except BusError as exc:
            await self._publish(held, f"the video could not be sent: {exc}")
            return
        await self._publish(held, None, video)

    async def _send(self, held: HeldTask, recorded: Recorded) -> recordings.Video:
        """Send a video in parts; a name that is new each time keeps two senders apart."""
        name, content = secrets.token_hex(16), recorded.content
        signed = self._clock()
        for part, start in enumerate(range(0, len(content), recordings.PART_BYTES)):
            body = content[start : start + recordings.PART_BYTES]
            await self._bus.put_recording_part(name, part, body)
            if self._clock() - signed >= self._settings.ack_wait_seconds / 3:
                await held.in_progress()
                signed = self._clock()
        digest = hashlib.sha256(content).hexdigest()
        return recordings.Video(name, len(content), digest, recorded.pictures)

    async def _publish(
        self, held: HeldTask, failure: str | None, video: recordings.Video | None = None
    ) -> None:
        if failure is not None:
            log.warning("recording_failed", episode=held.episode, error=failure)
        answer = recordings.Answer(video, failure, self._settings.worker)
        await self._bus.put_result(held.episode, recordings.encode_answer(answer))
        await held.ack()
