"""From demands to tasks on the broker: base genomes first, each task once, and again when lost.

Publishing is idempotent: the broker refuses a task that is queued or held, and a second result of
one episode. So whatever is in doubt is simply published again.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from kubevo_core import names
from kubevo_core.errors import Poisoned
from kubevo_core.evaluation import Demand, Episode, Key
from kubevo_core.genome import Genome
from kubevo_core.messages import FailureReport, ResultReport, encode_result, encode_task, task_of
from kubevo_runtime.bus import CoordinatorBus
from kubevo_runtime.events import Fault, Sink

__all__ = ["Bases", "Confirmations", "Publisher", "put_failed"]

MOST_REISSUES = 3
MOST_DEAD_LETTERS = 10_000
MOST_UNCONFIRMED = 10_000
COORDINATOR = "coordinator"


class Bases:
    """The base genomes in an Experiment's bucket, each for as long as a repeat names it.

    Repeats that start from the same imported genomes share them, and finish generation 0 at
    different times.
    """

    def __init__(self, bus: CoordinatorBus) -> None:
        self._bus = bus
        self._repeats: dict[str, set[int]] = {}
        # A base that is being dropped must not be put meanwhile: the bucket keeps no order.
        self._lock = asyncio.Lock()

    async def put(self, repeat: int, genomes: Iterable[Genome], *, again: bool) -> None:
        """Put what is not there into the bucket, or all of it ``again``, and keep it there."""
        async with self._lock:
            for genome in genomes:
                repeats = self._repeats.get(genome.digest, set())
                if again or not repeats:
                    await self._bus.put_blob(genome.digest, genome.text.encode("ascii"))
                self._repeats[genome.digest] = repeats | {repeat}

    async def keep_only(self, repeat: int, needed: Collection[str]) -> None:
        """Drop the bases that ``repeat`` needs no more, unless another repeat does."""
        async with self._lock:
            for digest, repeats in list(self._repeats.items()):
                if digest in needed or repeat not in repeats:
                    continue
                if repeats == {repeat}:
                    await self._bus.drop_blob(digest)
                    del self._repeats[digest]
                else:
                    self._repeats[digest] = repeats - {repeat}


class Publisher:
    """Keeps one repeat's demanded work on the broker.

    ``logs`` says where the workers' last words are, and ``last_worker`` who had an episode last,
    where that is known: for the one who has to find out why an evaluation kills its workers.
    """

    def __init__(
        self,
        bus: CoordinatorBus,
        context: str,
        sink: Sink,
        *,
        repeat: int,
        bases: Bases,
        logs: str,
        last_worker: Callable[[Key], str | None],
    ) -> None:
        self._bus = bus
        self._context = context
        self._sink = sink
        self._repeat = repeat
        self._bases = bases
        self._logs = logs
        self._last_worker = last_worker
        self._published: set[Key] = set()
        self._reissues: Counter[str] = Counter()

    async def publish(self, demands: Sequence[Demand]) -> None:
        """Publish the demands that this process has not published yet."""
        fresh = [demand for demand in demands if demand.key not in self._published]
        if fresh:
            await self._put_bases(fresh, again=False)
            await self._put_tasks(fresh)
            self._published.update(demand.key for demand in fresh)

    async def _put_tasks(self, demands: Iterable[Demand]) -> int:
        tasks = [
            (names.episode_subject(d.key), encode_task(task_of(d, self._context))) for d in demands
        ]
        return await self._bus.publish_tasks(tasks)

    async def _put_bases(self, demands: Iterable[Demand], *, again: bool) -> None:
        """Put every base that a task names into the bucket before the first task that names it."""
        await self._bases.put(self._repeat, _named_bases(demands), again=again)

    async def recover(self, open_demands: Collection[Demand], on_poison: str) -> None:
        """After a silence: reissue what reached its last delivery, and publish what is missing.

        Raises:
            Poisoned: a task was reissued too often and the policy is Fail.
        """
        by_subject = {names.episode_subject(demand.key): demand for demand in open_demands}
        for subject in await self._bus.dead_letters(limit=MOST_DEAD_LETTERS):
            demand = by_subject.get(subject)
            if demand is not None:
                await self._reissue(subject, demand, on_poison)
        await self._put_bases(open_demands, again=True)
        sent = await self._put_tasks(open_demands)  # refused for all that are queued or held
        if sent:
            self._sink(Fault("tasks_republished", f"{sent} tasks were missing on the broker"))

    async def _reissue(self, subject: str, demand: Demand, on_poison: str) -> None:
        self._reissues[subject] += 1
        if self._reissues[subject] <= MOST_REISSUES:
            await self._bus.purge_task(subject)
            await self._put_bases([demand], again=True)
            await self._bus.publish_task(subject, encode_task(task_of(demand, self._context)))
            self._sink(Fault("task_reissued", f"{subject} had used up its deliveries"))
            return
        worker = self._last_worker(demand.key)
        reason = (
            f"episode {subject} of genome {demand.key.digest} used up its deliveries "
            f"{self._reissues[subject]} times: every worker that took it died or gave it back"
            + (f", the last that is known was {worker}" if worker else "")
        )
        if on_poison != "Score":
            raise Poisoned(
                f"{reason}; look at {self._logs}, then resume, or set "
                "spec.failurePolicy.onPoison: Score to count it as failed",
                episode=subject,
                genome=demand.key.digest,
                worker=worker,
            )
        await put_failed(self._bus, Episode(demand.key, None, 0, 0, "poisoned"))
        self._sink(Fault("poisoned", reason))

    async def forget_all_but(self, demands: Sequence[Demand]) -> None:
        """Drop what is known of other work than ``demands``, and the bases that nothing names."""
        self._published &= {demand.key for demand in demands}
        self._reissues.clear()
        await self._bases.keep_only(self._repeat, {g.digest for g in _named_bases(demands)})


def _named_bases(demands: Iterable[Demand]) -> list[Genome]:
    bases = {d.base.digest: d.base for d in demands if d.mutation or d.base.mutations}
    return list(bases.values())


async def put_failed(bus: CoordinatorBus, episode: Episode) -> None:
    """Publish a failed result for everybody to read back, and take its task off the queue."""
    subject = names.episode_subject(episode.key)
    await bus.put_result(subject, encode_result(ResultReport(episode, COORDINATOR, "", {})))
    await bus.purge_task(subject)


class Confirmations:
    """Which failures two different worker processes agree on; one bad worker proves nothing."""

    def __init__(self) -> None:
        self._workers: dict[tuple[Key, str, int, int], set[str]] = {}
        self._last: dict[Key, str] = {}

    def last_worker(self, key: Key) -> str | None:
        """Return the last worker that reported a failure of this episode, if any has."""
        return self._last.get(key)

    def confirm(self, report: FailureReport) -> Episode | None:
        """Return the failed episode once a second worker reports the same failure, else None."""
        same = (report.key, report.type, report.steps, report.frames)
        if len(self._workers) > MOST_UNCONFIRMED:
            self._workers.clear()  # they are reported again
            self._last.clear()
        self._last[report.key] = report.worker
        workers = self._workers.setdefault(same, set())
        workers.add(report.worker)
        if len(workers) < 2:
            return None
        return Episode(
            report.key, None, report.steps, report.frames, f"{report.type}: {report.message}"
        )
