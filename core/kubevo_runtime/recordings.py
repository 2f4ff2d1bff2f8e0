"""Recordings of one repeat's elites: asked of the evaluators beside the search, kept as videos.

One at a time, the newest generation first, by a task of its own that the search never waits for
until it has stopped. Whatever goes wrong is a `Fault`: a search with recordings is the same as one
without. What a process before this one had asked for is asked again, only for its last generation.
"""

import asyncio
import hashlib
from collections.abc import Callable

from kubevo_core import names, recordings
from kubevo_core.errors import KubevoError, MessageError
from kubevo_core.evaluation import Demand
from kubevo_core.generation import Settings
from kubevo_core.generation_report import Finished
from kubevo_core.genome import Genome
from kubevo_core.messages import encode_task, task_of
from kubevo_core.recordings import Answer, Video
from kubevo_core.spec import ExperimentSpec
from kubevo_runtime.bus import CoordinatorBus
from kubevo_runtime.events import Fault, Recorded, Sink
from kubevo_runtime.publisher import Bases
from kubevo_runtime.store import RepeatStore
from kubevo_runtime.threads import to_the_end

__all__ = ["Recordings"]

ASK_AGAIN_SECONDS = 5.0
MOST_DEAD_LETTERS = 10_000
# At the end: without a sign of a worker so long, and in all.
PATIENCE_SECONDS = 30.0
LONGEST_FINISH_SECONDS = 600.0
LOOK_SECONDS = 0.5


class Recordings:
    """Asks for the recordings of one repeat and keeps what comes.

    ``live`` gives the spec as it is now, and with it how often something is recorded.
    """

    def __init__(
        self,
        *,
        bus: CoordinatorBus,
        store: RepeatStore,
        bases: Bases,
        context: str,
        settings: Settings,
        live: Callable[[], ExperimentSpec],
        sink: Sink,
    ) -> None:
        self._bus = bus
        self._store = store
        self._bases = bases
        self._context = context
        self._settings = settings
        self._live = live
        self._sink = sink
        self._wanted: dict[int, Genome] = {}
        self._best_generation: int | None = None
        self._asking: asyncio.Task[None] | None = None

    @property
    def open(self) -> int:
        """How many recordings a worker could be busy with now: one at most."""
        return 1 if self._asking is not None and not self._asking.done() else 0

    def saved(self, done: Finished) -> None:
        """Have a saved generation's elite recorded, if that is due; returns at once."""
        self._note_best(done)
        if done.elite is not None and recordings.is_due(done.generation, self._every):
            self._want(done.generation, done.elite.genome)

    async def resumed(self, done: Finished) -> None:
        """Have the loaded generation's elite recorded, if that was due and there is no video."""
        self._note_best(done)
        if self._every and done.generation not in await self._videos():
            self.saved(done)

    async def finish(self, done: Finished | None, waits: Callable[[], None]) -> None:
        """Have the best recorded, then wait for all that is wanted; ``waits`` is called if so.

        At most half a minute without a worker that holds a task, and ten minutes in all.
        """
        best = done.best if done is not None else None
        if best is not None and self._every and best.generation not in await self._videos():
            self._want(best.generation, best.genome)
        if self._asking is None:
            return
        waits()
        loop = asyncio.get_running_loop()
        started = seen = loop.time()
        while not self._asking.done():
            await asyncio.wait({self._asking}, timeout=LOOK_SECONDS)
            now = loop.time()
            if await self._is_held():
                seen = now
            if now - seen > PATIENCE_SECONDS or now - started > LONGEST_FINISH_SECONDS:
                waiting = ", ".join(map(str, sorted(self._wanted)))
                self._fail(f"no video of generations {waiting}: no worker was done in time")
                break
        await self.aclose()

    async def aclose(self) -> None:
        """Stop asking. What lies on the broker stays: it may not answer, and nobody waits here."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    @property
    def _every(self) -> int:
        return self._live().recording.every_generations

    def _note_best(self, done: Finished) -> None:
        self._best_generation = done.best.generation if done.best else None

    def _fail(self, reason: str) -> None:
        self._sink(Fault("recording", f"repeat {self._settings.repeat}: {reason}"))

    async def _videos(self) -> set[int]:
        try:
            return set(await to_the_end(self._store.videos))
        except KubevoError as exc:
            self._fail(f"which videos are there cannot be read: {exc}")
            return set()

    async def _is_held(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):  # an outage lasts longer than that
                return (await self._bus.backlog()).held > 0
        except (KubevoError, TimeoutError):
            return False

    def _want(self, generation: int, genome: Genome) -> None:
        self._wanted[generation] = genome
        best = self._best_generation
        for number in sorted(self._wanted)[: -recordings.MOST_KEPT]:
            if number != best:
                del self._wanted[number]  # its video would be gone at once
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_for_all())

    async def _ask_for_all(self) -> None:
        while self._wanted:
            generation = max(self._wanted)
            settings = self._settings
            demand = recordings.demand(
                settings.seed, settings.repeat, generation, self._wanted[generation]
            )
            for step in (self._record, self._clean):
                try:
                    await step(demand)
                except Exception as exc:  # noqa: BLE001 - the loop's edge: none may end a search
                    text = str(exc) or type(exc).__name__
                    self._fail(f"no video of generation {generation}: {text}")
            self._wanted.pop(generation, None)

    @property
    def _owner(self) -> int:
        """Who needs a recording's base: nobody else, as a repeat drops its own at a save."""
        return -1 - self._settings.repeat

    async def _record(self, demand: Demand) -> None:
        subject, generation = names.record_subject(demand.key), demand.key.generation
        await self._bus.open_recordings()
        await self._bus.purge(subject)  # what a process before this one left
        if demand.base.mutations:
            await self._bases.put(self._owner, [demand.base], again=False)
        answer = await self._ask(subject, encode_task(task_of(demand, self._context)))
        if answer.video is None:
            self._fail(f"no video of generation {generation}: {answer.failure}")
        else:
            await self._keep(generation, answer.video)

    async def _clean(self, demand: Demand) -> None:
        await self._bus.purge(names.record_subject(demand.key))
        await self._bases.keep_only(self._owner, ())

    async def _ask(self, subject: str, task: bytes) -> Answer:
        reader = self._bus.results(subject)
        try:
            while True:
                # Refused while it is queued or held; published again if a broker lost it.
                await self._bus.publish_task(subject, task)
                for body in await reader.fetch(1, ASK_AGAIN_SECONDS):
                    return recordings.decode_answer(body)
                if subject in await self._bus.dead_letters(MOST_DEAD_LETTERS):
                    raise MessageError(f"{subject} used up its deliveries")
        finally:
            await reader.aclose()

    async def _keep(self, generation: int, video: Video) -> None:
        content = await self._bus.recording(video.object, video.size)
        await self._bus.drop_recording(video.object)
        if content is None:
            raise MessageError(f"its {video.size:,} bytes were gone before they were fetched")
        if hashlib.sha256(content).hexdigest() != video.sha256:
            raise MessageError("it arrived damaged: its bytes have another sha256")
        removed = await to_the_end(
            self._store.save_video,
            generation,
            content,
            self._best_generation,
            recordings.MOST_KEPT,
        )
        repeat = self._settings.repeat
        self._sink(Recorded(repeat, generation, video.size, video.pictures, tuple(removed)))
