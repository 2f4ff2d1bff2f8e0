"""The worker: pull one task, decode it, play it, publish the result, then acknowledge.

The order matters. Killed anywhere, the task comes again, and a second result is refused by the
broker; so a worker keeps nothing that matters. What is wrong with *this process* (a library, a
file, memory, another fingerprint) gives the task back and ends the process; what an environment
raises is reported, and becomes a result only when another worker reports the same. A recording is
played in between, and whatever goes wrong with it is its answer.

One thread plays, one episode at a time; meanwhile the next task may be pulled and, in a second
thread, decoded (`kubevo_evaluator.ahead`). It is worked on when its turn comes, and not before.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from kubevo_core import names
from kubevo_core.errors import (
    BusUnavailable,
    EnvironmentRefused,
    GenomeError,
    MessageError,
    WorkerUnfit,
)
from kubevo_core.evaluation import Episode
from kubevo_core.messages import (
    Context,
    DescribeAnswer,
    FailureReport,
    ResultReport,
    Task,
    decode_task,
    encode_describe_answer,
    encode_failure,
    encode_result,
)
from kubevo_core.seeding import Purpose
from kubevo_evaluator.ahead import Ahead, Turn
from kubevo_evaluator.contexts import Contexts, specs
from kubevo_evaluator.description import describe
from kubevo_evaluator.evaluation import Decoded, Evaluator
from kubevo_evaluator.lease import LeaseKeeper, Recycle, in_thread, unless_lacking
from kubevo_evaluator.recorder import Recorder
from kubevo_evaluator.rollout import Played
from kubevo_evaluator.settings import Settings
from kubevo_runtime.bus import HeldTask, WorkerBus

__all__ = ["Recycle", "Worker"]

PULL_SECONDS = 5.0
MOST_REPORTED = 10_000
# A failure is confirmed by a second process. A worker that keeps getting its own failed task back
# is alone, so after this many it ends, and its replacement is that second process.
OWN_FAILURES = 3
# Making and testing an environment may import slowly, but one that hangs is noticed.
PREPARE_SECONDS = 300.0

log = structlog.get_logger()


class Worker:
    """One evaluator process at work on one Experiment."""

    def __init__(
        self,
        settings: Settings,
        bus: WorkerBus,
        stopping: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._stopping = stopping
        self._playing = ThreadPoolExecutor(1, thread_name_prefix="play")
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._lease = LeaseKeeper(settings, stopping, clock)
        self._contexts = Contexts(bus)
        self._recorder = Recorder(settings, bus, self._contexts, self._lease, self._playing, clock)
        self._ahead = Ahead(bus, self._decode_ahead, settings.ack_wait_seconds / 3)
        self._context: tuple[str, Context, Evaluator] | None = None
        self._reported: dict[str, int] = {}

    async def run(self) -> None:
        """Work until told to stop.

        Raises:
            WorkerUnfit: this process must not evaluate; start another one elsewhere.
            Recycle: start another one.
        """
        giving_back = asyncio.create_task(self._give_back_when_stopping())
        try:
            await self._prepare_pinned()
            log.info("worker_ready")
            while not self._stopping.is_set():
                turn = await self._next()
                if turn is not None:
                    await self._handle(turn)
        finally:
            if self._stopping.is_set():
                await giving_back
            else:
                giving_back.cancel()
                await self._ahead.close()
            for thread in (self._playing, self._decoding):
                thread.shutdown(wait=False, cancel_futures=True)

    async def _give_back_when_stopping(self) -> None:
        await self._stopping.wait()
        await self._ahead.close()

    async def _next(self) -> Turn | None:
        """Return the next task, or None after a while or as soon as the worker should stop."""
        turn = await self._ahead.turn()
        if turn is None:
            held = await self._pull()
            turn = None if held is None else Turn(held)
        if turn is not None and self._stopping.is_set():
            await turn.give_back()
            return None
        return turn

    async def _pull(self) -> HeldTask | None:
        pull = asyncio.ensure_future(self._bus.pull(PULL_SECONDS))
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({pull, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if self._stopping.is_set() and not pull.done():
            # A task may be on its way: wait for it shortly, so that it is given back at once.
            await asyncio.wait({pull}, timeout=0.2)
            if not pull.done():
                pull.cancel()
                return None
        return pull.result()

    async def _prepare_pinned(self) -> None:
        """Test this process against the pinned fingerprint before the first task is taken."""
        digest = await self._bus.get_blob(names.CONTEXT)
        if digest is not None:
            context = await self._contexts.context(digest.decode())
            if context is not None and context.description is not None:
                await self._evaluator(digest.decode(), context)

    async def _handle(self, turn: Turn) -> None:
        held = turn.held
        try:
            task = decode_task(held.body)
            if isinstance(task, str):
                await self._describe(held, task)
            elif task.key.purpose is Purpose.RECORD:
                await self._recorder.answer(held, task)
            else:
                await self._play(turn, task)
        except (MessageError, GenomeError) as exc:
            log.error("task_unreadable", episode=held.episode, error=str(exc))
            await held.nak(delay_seconds=5)
        except BusUnavailable as exc:
            # The task comes again after its lease; the result, if any, is played again.
            log.warning("broker_unavailable", episode=held.episode, error=str(exc))
        except Recycle:
            raise  # the task is given back already
        except Exception:
            # A broken library may raise anything; the task must not wait for its lease.
            await held.nak(delay_seconds=1)
            raise

    async def _describe(self, held: HeldTask, digest: str) -> None:
        context = await self._contexts.context(digest)
        if context is None:
            await held.nak(delay_seconds=1)
            return
        environment, policy = specs(context)
        try:
            describing = in_thread(self._playing, lambda: describe(environment, policy))
            description = await self._lease.until_done(describing, held, _prepare_seconds(context))
            answer = DescribeAnswer(description, None)
        except EnvironmentRefused as exc:
            answer = DescribeAnswer(None, str(exc))
        await self._bus.put_result(held.episode, encode_describe_answer(answer))
        await held.ack()

    async def _play(self, turn: Turn, task: Task) -> None:
        held, decoding = turn
        if self._context is None or self._context[0] != task.context:
            decoding = None
            context = await self._contexts.context(task.context)
            if context is None:
                await held.nak(delay_seconds=1)
                return
            await self._evaluator(task.context, context, held)
        assert self._context is not None
        _, context, evaluator = self._context
        limit = context.task_timeout_seconds
        if decoding is None:
            decoding = asyncio.create_task(self._decode(evaluator, task))
        # No limit: nothing of the environment runs, and the bucket may be away for a while.
        decoded = await self._lease.until_done(decoding, held)
        if decoded is None:
            await held.nak(delay_seconds=1)  # the coordinator puts the base there again
            return
        self._ahead.look(held)
        playing = in_thread(self._playing, lambda: evaluator.play(decoded, task.episode_seed))
        played, seconds = await self._lease.until_done(playing, held, limit)
        self._ahead.soon()
        if played.failure is not None and played.failure.confirm:
            await self._report_failure(held, task, played)
            return
        failure = played.failure.text if played.failure is not None else None
        episode = Episode(task.key, played.episode_return, played.steps, played.frames, failure)
        report = ResultReport(episode, self._settings.worker, task.context, seconds)
        await self._bus.put_result(held.episode, encode_result(report))
        await held.ack()

    async def _decode(self, evaluator: Evaluator, task: Task) -> Decoded | None:
        """Return the weights that a task is about; None while its base is missing."""
        base = await self._contexts.base(task)
        if base is None:
            return None
        if evaluator.decodes_at_once:
            return unless_lacking(lambda: evaluator.decode(base, task.mutation))
        return await in_thread(self._decoding, lambda: evaluator.decode(base, task.mutation))

    async def _decode_ahead(self, held: HeldTask) -> Decoded | None:
        """Decode a task before its turn, if the evaluator at hand can play it."""
        task = decode_task(held.body)
        if isinstance(task, str) or self._context is None or self._context[0] != task.context:
            return None
        if task.key.purpose is Purpose.RECORD:
            return None
        return await self._decode(self._context[2], task)

    async def _report_failure(self, held: HeldTask, task: Task, played: Played) -> None:
        assert played.failure is not None
        report = FailureReport(
            task.key,
            played.failure.type,
            played.failure.message,
            played.frames,
            played.steps,
            self._settings.worker,
        )
        times = self._reported.get(held.episode, 0)
        if times == 0:
            log.warning("environment_exception", episode=held.episode, error=played.failure.text)
            await self._bus.put_failure(held.episode, encode_failure(report))
        if len(self._reported) > MOST_REPORTED:
            self._reported.clear()  # a report sent twice changes nothing
        self._reported[held.episode] = times + 1
        if times > 0:
            await asyncio.sleep(0.2 * 2**times)  # time for another worker to become free
        # Without the broker's own delay, which nats-server may stretch to the whole lease.
        await held.nak()
        if times + 1 >= OWN_FAILURES:
            raise Recycle(f"no other worker took {held.episode}")

    async def _evaluator(
        self, digest: str, context: Context, held: HeldTask | None = None
    ) -> Evaluator:
        """Return the evaluator for a context, made and tested once."""
        environment, policy = specs(context)
        assert context.description is not None
        evaluator = Evaluator(
            environment, policy, context.description, self._settings.cache_mebibytes << 20
        )
        if self._context is not None:
            closing = in_thread(self._playing, self._context[2].close)
            await self._lease.until_done(closing, held)
        try:
            opening = in_thread(self._playing, evaluator.open)
            await self._lease.until_done(opening, held, _prepare_seconds(context))
        except EnvironmentRefused as exc:
            # It was described by another worker, so what is missing is missing here.
            raise WorkerUnfit(f"this worker cannot make the environment: {exc}") from exc
        self._context = (digest, context, evaluator)
        return evaluator


def _prepare_seconds(context: Context) -> float:
    return max(PREPARE_SECONDS, context.task_timeout_seconds)
