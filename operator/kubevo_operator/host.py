"""The life of one Experiment on a cluster: what a daemon runs, from its object to its end.

Three loops share one situation. `_carry` goes through the phases (searching, suspended, finished,
waiting for a person); `_tend` looks at the object and keeps the children as they should be; the
reporter writes the status. Each is level-triggered, so a host may be killed on any line and started
again: what is durable is the run's directory, and everything else follows from it and from the spec.
"""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import structlog

from kubevo_core import names
from kubevo_core import spec as specs
from kubevo_core.errors import BusError, Fenced, KubevoError, SpecError
from kubevo_core.spec import Experiment, ExperimentSpec
from kubevo_operator import evaluators, scaling
from kubevo_operator.children import Children, NotYet
from kubevo_operator.cluster import EXPERIMENT, ApiRefused, ApiUnavailable
from kubevo_operator.conditions import Condition, Type, failure_of
from kubevo_operator.directory import Directory
from kubevo_operator.manifests import Owner, processes_per_pod, selector_text
from kubevo_operator.reporter import Reporter
from kubevo_operator.services import Services, Watched
from kubevo_runtime.bus import BusSettings, connect_coordinator
from kubevo_runtime.events import Event, GenerationFinished
from kubevo_runtime.experiment import Outcomes, run_experiment
from kubevo_runtime.limits import stream_limits
from kubevo_runtime.progress import ProgressTracker
from kubevo_runtime.store import Run

__all__ = ["Host"]

TICK_SECONDS = 1.0
CLEAN_UP_SECONDS = 5.0
FAREWELL_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 300.0
LEAST_LONGEST_PAUSE_SECONDS = 10.0

log = structlog.get_logger()


class Host:
    """One Experiment under this operator's care."""

    def __init__(self, services: Services, owner: Owner, watched: Watched) -> None:
        self._services = services
        self._owner = owner
        self._watched = watched
        self._progress = ProgressTracker(services.clock)
        self._reporter = Reporter(services, owner, watched, self._progress)
        self._directory = Directory(services.settings.data, owner, services.cluster)
        self._children = Children(services, owner)
        self._experiment: Experiment | None = None
        self._observed: int = 0
        # The generation of the spec of which it is decided whether a finished search goes on.
        self._judged: int | None = self._reporter.observed if self._reporter.is_finished else None
        self._failures = 0
        self._turn = asyncio.Event()
        self._takeover: int | None = None
        self._has_queue = False
        self._memory: scaling.Memory | None = None
        self._log = log.bind(namespace=owner.namespace, experiment=owner.name)

    async def run(self) -> None:
        """Carry the Experiment wherever it goes, until it is deleted or this process ends."""
        self._observe()
        tasks = [
            asyncio.create_task(work)
            for work in (self._carry(), self._tend(), self._reporter.run(), self._until_stopped())
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            if self._watched.is_deleting:
                # At once: what follows may wait for a slow volume longer than this may take.
                self._services.metrics.forget(self._owner.namespace, self._owner.name)
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._watched.is_deleting:
                await self.clean_up()
            else:
                await self._reporter.flush(FAREWELL_SECONDS)

    async def _until_stopped(self) -> None:
        await self._watched.stopped.wait()

    # --- what the object says ------------------------------------------------------------------

    @property
    def _spec(self) -> ExperimentSpec | None:
        return self._experiment.spec if self._experiment is not None else None

    def _live(self) -> ExperimentSpec:
        assert self._experiment is not None
        return self._experiment.spec

    def _observe(self) -> None:
        """Read the object's spec when it has changed, and let `_carry` look at it."""
        body = self._watched.body()
        generation = body["metadata"].get("generation")
        if generation == self._observed:
            return
        self._observed = generation
        self._turn.set()
        try:
            self._experiment = specs.parse(body, f"Experiment {self._owner.name}")
        except SpecError as exc:
            # The API server refuses nearly all of it; another version of it may let some through.
            self._log.warning("spec_invalid", error=str(exc))
            conditions = failure_of(exc).conditions
            if self._experiment is None:
                self._reporter.failed(conditions)
            else:
                self._reporter.refused(conditions[0])
            return
        if not self._reporter.is_finished:  # else `_rest` judges it first
            self._reporter.observe(generation, self._spec)

    # --- the phases ----------------------------------------------------------------------------

    async def _carry(self) -> None:
        while True:
            self._turn.clear()
            patience: float | None = None
            try:
                patience = await self._step()
                self._reporter.troubled(None)
            except Fenced as exc:
                self._services.fatal(exc)
                return
            except Exception as exc:  # noqa: BLE001 - the loop's edge: one defect ends no other search
                patience = self._survive(exc)
            await _within(self._turn.wait(), patience)

    async def _step(self) -> float | None:
        """Do what the phase wants; return how long to leave it alone, None until a change."""
        if self._experiment is None:
            return None  # `_observe` has said why
        spec = self._experiment.spec
        if self._reporter.is_finished or spec.suspend:
            # A search notes it by itself; what ends after this must find the wish, not the old one.
            await asyncio.to_thread(self._directory.note_retention, spec.retention)
        if self._reporter.is_finished:
            return await self._rest(spec)
        if spec.suspend:
            self._reporter.suspended()
            return None
        await self._search(self._experiment)
        return 0.0

    def _survive(self, exc: Exception) -> float | None:
        """Say what went wrong; return the pause before the next attempt, None until a change."""
        is_expected = isinstance(exc, (KubevoError, OSError))
        text = str(exc) or type(exc).__name__
        self._log.warning("search_failed", error=text, exc_info=None if is_expected else exc)
        self._services.own_metrics.faults.labels("search").inc()
        failure = failure_of(exc)
        if self._reporter.is_finished:
            # An end stays an end, whatever keeps it from being looked after.
            said = failure.conditions[0]
            self._reporter.troubled(Condition(Type.DEGRADED, "True", said.reason, said.message))
        else:
            self._reporter.failed(failure.conditions)
        if failure.retry_after_seconds is None:
            return None
        base, self._failures = failure.retry_after_seconds, self._failures + 1
        longest = min(max(LEAST_LONGEST_PAUSE_SECONDS, 5 * base), LONGEST_PAUSE_SECONDS)
        return min(base * 2.0 ** min(self._failures - 1, 6), longest)

    async def _search(self, experiment: Experiment) -> None:
        """Search to the end, or until the spec wants something else."""
        if self._takeover is None:
            self._takeover = await self._directory.take_over()
            self._reporter.taken_over(self._takeover)
        run = await asyncio.to_thread(self._directory.open, experiment, self._takeover)
        self._reporter.resuming(run)
        async with connect_coordinator(self._bus_settings()) as bus:
            await bus.ensure()  # evaluators find their queue from the start
            self._has_queue = True
            if await asyncio.to_thread(run.description) is None:
                await bus.purge("describe.>")  # an answer of another image, perhaps
            self._reporter.searching()
            search = asyncio.create_task(
                run_experiment(
                    run,
                    experiment,
                    bus,
                    self._take,
                    self._services.clock,
                    live=self._live,
                    logs=f"kubectl logs -n {self._owner.namespace} -l {selector_text(self._owner)}",
                )
            )
            try:
                outcomes = await self._unless_interrupted(search, run, experiment.spec)
            finally:
                search.cancel()
                await asyncio.gather(search, return_exceptions=True)
            if outcomes is not None:
                self._judged = None  # an edit may have come too late for this search
                self._reporter.ended(outcomes, run)
                self._watched.changed.set()
                # All of it is in the checkpoints; what stays behind here is swept later.
                await bus.delete()

    async def _unless_interrupted(
        self, search: "asyncio.Task[Outcomes]", run: Run, started_with: ExperimentSpec
    ) -> Outcomes | None:
        """Return what the search gave; None when the spec wants it to stop or to start again."""
        while True:
            turn = asyncio.create_task(self._turn.wait())
            try:
                await asyncio.wait({search, turn}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                turn.cancel()
            if search.done():
                return search.result()
            self._turn.clear()
            assert self._experiment is not None
            await asyncio.to_thread(run.replace_experiment, self._experiment.document())
            spec, seconds = self._live(), started_with.evaluator.task_timeout_seconds
            if spec.suspend or spec.evaluator.task_timeout_seconds != seconds:
                return None

    def _take(self, event: Event) -> None:
        if isinstance(event, GenerationFinished):
            self._failures = 0
        self._progress(event)
        self._services.metrics.of(self._owner.namespace, self._owner.name)(event)
        self._reporter.take(event)

    async def _rest(self, spec: ExperimentSpec) -> float | None:
        """Let a finished Experiment go on if its budget allows; return how long to leave it alone."""
        wanted = self._observed
        if self._judged != wanted:
            goes_on = spec.resume_policy == "FromCheckpoint" and await asyncio.to_thread(
                self._directory.can_go_on, spec
            )
            is_asked = not goes_on and await asyncio.to_thread(self._directory.is_asked_more, spec)
            self._judged = wanted
            self._reporter.observe(wanted, spec)
            if goes_on:
                self._reporter.reopened()
                return 0.0
            if is_asked:
                self._reporter.stays_finished()
        ttl = spec.ttl_seconds_after_finished
        if ttl is None:
            return None
        left = ttl - self._reporter.seconds_since_end(time.time())
        if left > 0:
            return left
        self._watched.emit("Normal", "TimeToLiveExpired", f"finished over {ttl} s ago: deleted")
        await self._services.cluster.delete(
            EXPERIMENT, self._owner.namespace, self._owner.name, uid=self._owner.uid
        )
        return LONGEST_PAUSE_SECONDS

    async def clean_up(self) -> None:
        """Remove what nobody else would; the children follow their owner by themselves.

        Also for an Experiment that was deleted while no operator ran, without a life before.
        """
        self._services.metrics.forget(self._owner.namespace, self._owner.name)
        self._observe()
        retention = self._spec.retention if self._spec is not None else "Retain"
        try:
            await asyncio.to_thread(self._directory.note_retention, retention)
        except OSError as exc:
            self._log.warning("retention_not_noted", error=str(exc))
        try:
            async with asyncio.timeout(CLEAN_UP_SECONDS):
                async with connect_coordinator(self._bus_settings()) as bus:
                    await bus.delete()
        except (BusError, TimeoutError, OSError) as exc:
            # The object must not wait for it: the sweep removes the streams once the broker is
            # back. It knows them by the directory, so that stays until then, too.
            self._log.warning("streams_left", error=str(exc) or type(exc).__name__)
            return
        if retention == "Delete":
            await asyncio.to_thread(self._directory.remove)
        self._log.info("deleted")

    def _bus_settings(self) -> BusSettings:
        identifier = names.experiment_id(self._owner.name, self._owner.uid)
        limits = stream_limits(self._spec) if self._spec is not None else None
        return self._services.bus_settings(identifier, limits)

    # --- the children --------------------------------------------------------------------------

    async def _tend(self) -> None:
        changed = self._watched.changed
        while not self._watched.is_deleting:
            changed.clear()
            self._observe()
            problem = None
            if self._experiment is not None:
                try:
                    with self._services.own_metrics.reconcile.time():
                        await self._tend_once(self._experiment.spec)
                except NotYet:
                    self._log.info("children_wait_for_a_namesakes_end")
                except Exception as exc:  # noqa: BLE001 - the loop's edge, as in `_carry`
                    is_expected = isinstance(exc, (ApiUnavailable, ApiRefused))
                    text = str(exc) or type(exc).__name__
                    self._log.warning(
                        "children_failed", error=text, exc_info=None if is_expected else exc
                    )
                    problem = _degraded(exc)
                    self._services.own_metrics.faults.labels("children").inc()
            deployment, pods = self._watched.deployment(), self._watched.pods()
            self._reporter.look(evaluators.look(deployment, pods), problem)
            if problem is not None:
                await asyncio.sleep(TICK_SECONDS)
            await _within(changed.wait(), TICK_SECONDS)

    async def _tend_once(self, spec: ExperimentSpec) -> None:
        is_over = self._reporter.is_finished or spec.suspend
        if not (self._has_queue or is_over):
            return  # KEDA takes a missing queue for an endless one
        deployment, now = self._watched.deployment(), self._services.clock()
        if self._memory is None:
            self._memory = scaling.Memory.of(deployment["replicas"] if deployment else 0, now)
        genetic = spec.algorithm.genetic_algorithm
        episodes = genetic.population_size * genetic.episodes_per_evaluation
        demand = scaling.Demand(
            population_tasks=episodes * spec.repeats,
            open_tasks=self._progress.open_tasks,
            finished=self._reporter.is_finished,
            suspended=spec.suspend,
        )
        replicas, self._memory = scaling.desired_pods(
            spec.scaling, processes_per_pod(spec.evaluator), demand, self._memory, now
        )
        labels = self._watched.body()["metadata"].get("labels") or {}
        await self._children.tend(spec, labels, replicas, deployment)


def _degraded(exc: Exception) -> Condition:
    said = failure_of(exc).conditions[0]
    return Condition(Type.DEGRADED, "True", said.reason, said.message)


async def _within(waiting: Awaitable[Any], seconds: float | None) -> None:
    """Wait for ``waiting``, but no longer than ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        pass
