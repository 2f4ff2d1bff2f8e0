"""The worker: pull one task, play it in a thread, publish the result, then acknowledge.

The order matters. Killed anywhere, the task comes again, and a second result is refused by the
broker; so a worker keeps nothing that matters. What is wrong with *this process* (a library, a
file, memory, another fingerprint) gives the task back and ends the process; what an environment
raises is reported, and becomes a result only when another worker reports the same. A recording is
played in between, and whatever goes wrong with it is its answer.
"""

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog

from kubevo_core import genome as genomes
from kubevo_core import names, recordings, spec
from kubevo_core.errors import (
    BusError,
    BusUnavailable,
    EnvironmentRefused,
    GenomeError,
    MessageError,
    WorkerUnfit,
)
from kubevo_core.evaluation import Episode
from kubevo_core.genome import Genome
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
from kubevo_evaluator.description import describe
from kubevo_evaluator.evaluation import Evaluator
from kubevo_evaluator.recording import Recorded, record
from kubevo_evaluator.rollout import Played
from kubevo_evaluator.settings import Settings
from kubevo_runtime.bus import HeldTask, WorkerBus

__all__ = ["Recycle", "Worker"]

PULL_SECONDS = 5.0
MOST_BASES = 256
MOST_REPORTED = 10_000
# A failure is confirmed by a second process. A worker that keeps getting its own failed task back
# is alone, so after this many it ends, and its replacement is that second process.
OWN_FAILURES = 3
# Making and testing an environment may import slowly, but one that hangs is noticed.
PREPARE_SECONDS = 300.0
# A renderer or an encoder that hangs is given up, and this process with it.
RECORD_SECONDS = 600.0
# What this machine lacks, also where a library lets it through; an environment that ends the
# process by sys.exit ends this one, and not the search.
LACKS = (ImportError, MemoryError, OSError, SystemExit)

T = TypeVar("T")
log = structlog.get_logger()


class Recycle(Exception):
    """This process should be replaced by a fresh one."""


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
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evaluate")
        self._context: tuple[str, Context, Evaluator] | None = None
        self._bases: OrderedDict[str, Genome] = OrderedDict()
        self._reported: dict[str, int] = {}

    async def run(self) -> None:
        """Work until told to stop.

        Raises:
            WorkerUnfit: this process must not evaluate; start another one elsewhere.
            Recycle: start another one.
        """
        try:
            await self._prepare_pinned()
            log.info("worker_ready")
            while not self._stopping.is_set():
                held = await self._pull()
                if held is not None:
                    await self._handle(held)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _pull(self) -> HeldTask | None:
        """Return the next task, or None after a while or as soon as the worker should stop."""
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
        held = pull.result()
        if held is not None and self._stopping.is_set():
            await held.nak()
            return None
        return held

    async def _prepare_pinned(self) -> None:
        """Test this process against the pinned fingerprint before the first task is taken."""
        digest = await self._bus.get_blob(names.CONTEXT)
        if digest is not None:
            context = await self._load_context(digest.decode())
            if context is not None and context.description is not None:
                await self._evaluator(digest.decode(), context)

    async def _handle(self, held: HeldTask) -> None:
        try:
            task = decode_task(held.body)
            if isinstance(task, str):
                await self._describe(held, task)
            elif task.key.purpose is Purpose.RECORD:
                await self._record(held, task)
            else:
                await self._play(held, task)
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

    async def _load_context(self, digest: str) -> Context | None:
        body = await self._bus.get_blob(digest)
        return None if body is None else Context.decode(body)

    async def _describe(self, held: HeldTask, digest: str) -> None:
        context = await self._load_context(digest)
        if context is None:
            await held.nak(delay_seconds=1)
            return
        environment, policy = _specs(context)
        try:
            description = await self._in_thread(
                held, lambda: describe(environment, policy), _prepare_seconds(context)
            )
            answer = DescribeAnswer(description, None)
        except EnvironmentRefused as exc:
            answer = DescribeAnswer(None, str(exc))
        await self._bus.put_result(held.episode, encode_describe_answer(answer))
        await held.ack()

    async def _play(self, held: HeldTask, task: Task) -> None:
        if self._context is None or self._context[0] != task.context:
            context = await self._load_context(task.context)
            if context is None:
                await held.nak(delay_seconds=1)
                return
            await self._evaluator(task.context, context, held)
        assert self._context is not None
        _, context, evaluator = self._context
        base = await self._base(task)
        if base is None:
            await held.nak(delay_seconds=1)  # the coordinator puts it there again
            return
        mutation, seed = task.mutation, task.episode_seed
        played, seconds = await self._in_thread(
            held, lambda: evaluator.evaluate(base, mutation, seed), context.task_timeout_seconds
        )
        if played.failure is not None and played.failure.confirm:
            await self._report_failure(held, task, played)
            return
        failure = played.failure.text if played.failure is not None else None
        episode = Episode(task.key, played.episode_return, played.steps, played.frames, failure)
        report = ResultReport(episode, self._settings.worker, task.context, seconds)
        await self._bus.put_result(held.episode, encode_result(report))
        await held.ack()

    async def _record(self, held: HeldTask, task: Task) -> None:
        """Record an episode, and answer with the video or with why there is none."""
        if held.deliveries > recordings.MOST_DELIVERIES:
            await self._answer_recording(
                held,
                f"{recordings.MOST_DELIVERIES} workers took this recording and died or gave it back",
            )
            return
        context = await self._load_context(task.context)
        base = await self._base(task)
        if context is None or context.description is None or base is None:
            await held.nak(delay_seconds=1)  # the coordinator puts it there again
            return
        environment, _ = _specs(context)
        backend, seed = context.description.backend, task.episode_seed
        try:
            recorded = await self._in_thread(
                held, lambda: record(base, environment, backend, seed), RECORD_SECONDS
            )
        except WorkerUnfit:
            await self._answer_recording(held, f"it was not done after {RECORD_SECONDS:g} s")
            raise Recycle("a recording hangs in this process") from None
        if recorded.failure is not None:
            await self._answer_recording(held, recorded.failure)
            return
        try:
            video = await self._send(held, recorded)
        except BusUnavailable:
            raise
        except BusError as exc:
            await self._answer_recording(held, f"the video could not be sent: {exc}")
            return
        await self._answer_recording(held, None, video)

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

    async def _answer_recording(
        self, held: HeldTask, failure: str | None, video: recordings.Video | None = None
    ) -> None:
        if failure is not None:
            log.warning("recording_failed", episode=held.episode, error=failure)
        answer = recordings.Answer(video, failure, self._settings.worker)
        await self._bus.put_result(held.episode, recordings.encode_answer(answer))
        await held.ack()

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
        environment, policy = _specs(context)
        assert context.description is not None
        evaluator = Evaluator(
            environment, policy, context.description, self._settings.cache_mebibytes << 20
        )
        if self._context is not None:
            await self._in_thread(held, self._context[2].close)
        try:
            await self._in_thread(held, evaluator.open, _prepare_seconds(context))
        except EnvironmentRefused as exc:
            # It was described by another worker, so what is missing is missing here.
            raise WorkerUnfit(f"this worker cannot make the environment: {exc}") from exc
        self._context = (digest, context, evaluator)
        return evaluator

    async def _base(self, task: Task) -> Genome | None:
        if isinstance(task.base, int):
            return Genome(task.network, task.base)
        found = self._bases.get(task.base)
        if found is None:
            body = await self._bus.get_blob(task.base)
            if body is None:
                return None
            found = genomes.parse(body.decode("ascii", "replace"))
            if found.digest != task.base:
                raise GenomeError(f"the bucket holds genome {found.digest} under {task.base}")
            self._bases[task.base] = found
            if len(self._bases) > MOST_BASES:
                self._bases.popitem(last=False)
        return found

    async def _in_thread(
        self, held: HeldTask | None, work: Callable[[], T], timeout_seconds: float | None = None
    ) -> T:
        """Run ``work`` off the event loop, with signs of life for the broker's lease meanwhile."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, _unless_lacking, work)
        started = self._clock()
        give_up: float | None = None
        while True:
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
            if await self._done_within(future, wait):
                return future.result()
            if held is not None:
                await held.in_progress()

    async def _done_within(self, future: "asyncio.Future[T]", seconds: float) -> bool:
        waits: set[asyncio.Future[Any]] = {future}
        if not self._stopping.is_set():
            waits.add(asyncio.ensure_future(self._stopping.wait()))
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits - {future}:
            wait.cancel()
        return future.done()


def _unless_lacking(work: Callable[[], T]) -> T:
    try:
        return work()
    except LACKS as exc:
        raise WorkerUnfit(
            f"this process lacks something to evaluate: {type(exc).__name__}: {exc}"
        ) from exc


def _prepare_seconds(context: Context) -> float:
    return max(PREPARE_SECONDS, context.task_timeout_seconds)


def _specs(context: Context) -> tuple[spec.Environment, spec.Policy]:
    try:
        return (
            spec.Environment.model_validate(context.environment),
            spec.Policy.model_validate(context.policy),
        )
    except ValueError as exc:
        raise MessageError(f"the context's spec cannot be read: {exc}") from exc
