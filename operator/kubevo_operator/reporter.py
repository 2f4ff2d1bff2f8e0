"""What an Experiment's status says, and when it is written.

The host tells what it does; the reporter makes conditions, progress and events of it, and patches the
status: at once when a condition changes, else every few seconds, never without a change. It is the
only writer of a status, besides the host's takeover.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog

from kubevo_core.errors import Fenced
from kubevo_core.generation import Limits
from kubevo_core.spec import ExperimentSpec
from kubevo_operator import phases, status
from kubevo_operator.cluster import EXPERIMENT, ApiRefused, ApiUnavailable
from kubevo_operator.conditions import Condition, Type
from kubevo_operator.evaluators import Evaluators
from kubevo_operator.manifests import Owner, selector_text
from kubevo_operator.metrics import state_of
from kubevo_operator.services import Services, Watched
from kubevo_runtime.events import Event, Resumed
from kubevo_runtime.outcomes import Outcomes, final_test
from kubevo_runtime.progress import ProgressTracker
from kubevo_runtime.store import Run

__all__ = ["Reporter"]

LOOK_SECONDS = 1.0
RETRY_SECONDS = 2.0
ENDS = (Type.SUCCEEDED, Type.FAILED)

log = structlog.get_logger()


class Reporter:
    """One Experiment's status; ``progress`` is fed with the search's events."""

    def __init__(
        self, services: Services, owner: Owner, watched: Watched, progress: ProgressTracker
    ) -> None:
        self._services = services
        self._owner = owner
        self._watched = watched
        self._progress = progress
        self._written: dict[str, Any] = dict(watched.body().get("status") or {})
        self._current = self._written
        self._throttle = status.Throttle(services.settings.status_seconds)
        self._wake = asyncio.Event()
        self._generation = int(self._written.get("observedGeneration") or 0)
        self._spec: ExperimentSpec | None = None
        self._evaluators = Evaluators()
        self._phase: Callable[[], phases.Said] = tuple
        self._problem: Condition | None = None
        self._trouble: Condition | None = None
        self._refused: Condition | None = None
        self._skipped: phases.Said = ()
        self._ending: status.Ending | None = None
        self._path = ""
        self.takeover = int(self._written.get("takeover") or 0)
        self.is_finished = any(
            item.get("type") in ENDS and item.get("status") == "True"
            for item in self._written.get("conditions") or ()
        )

    # --- what the host asks --------------------------------------------------------------------

    @property
    def observed(self) -> int:
        """The generation of the spec that is obeyed, and that the status says so of."""
        return self._generation

    def seconds_since_end(self, now: float) -> float:
        """Return the seconds since the end; ``now`` is in seconds since 1970."""
        completed = self._current.get("completionTime")
        return 0.0 if completed is None else now - datetime.fromisoformat(completed).timestamp()

    # --- what the host tells -------------------------------------------------------------------

    def observe(self, generation: int, spec: ExperimentSpec | None) -> None:
        """Note which spec is obeyed from now on."""
        self._generation, self._spec, self._refused = generation, spec, None
        if spec is not None:
            self._progress.repeats = spec.repeats
            self._progress.limits = lambda: Limits.of(spec)
        self._wake.set()

    def refused(self, condition: Condition) -> None:
        """Say that the newest spec cannot be obeyed; the one before is, and stays observed."""
        self._refused = condition
        self._wake.set()

    def troubled(self, condition: Condition | None) -> None:
        """Say what is wrong beside what the phase says, or that it is not any more."""
        if condition != self._trouble:
            self._trouble = condition
            self._wake.set()

    def taken_over(self, number: int) -> None:
        """Note the takeover number under which this process writes."""
        self.takeover = number

    def resuming(self, run: Run) -> None:
        """Say that the search starts, or goes on."""
        self._path, self._skipped = str(run.path), ()
        self._enter(lambda: phases.resuming(self._live()))

    def searching(self) -> None:
        """Say what the search does, from now on at every look."""
        self._enter(
            lambda: (
                *phases.searching(
                    self._live(),
                    self._evaluators,
                    is_described=self._progress.snapshot().is_described,
                ),
                *self._skipped,
            )
        )

    def suspended(self) -> None:
        """Say that nothing is done, as the spec wants it."""
        self._enter(lambda: phases.suspended(self._evaluators))

    def failed(self, conditions: tuple[Condition, ...]) -> None:
        """Say why nothing is done although the spec wants it."""
        self._enter(lambda: (*conditions, phases.evaluators_ready(self._evaluators)))

    def ended(self, outcomes: Outcomes, run: Run) -> None:
        """Say what the search gave; it stays said until `reopened`."""
        stops = [state.stop for state in outcomes.states if state.stop in phases.FAILURES]
        stop = stops[0] if stops and stops[0] is not None else outcomes.reason
        test = final_test(run, outcomes.chosen, outcomes.best) if outcomes.best else None
        self._ending = status.Ending(
            reason=str(phases.reason_of(stop)),
            population_digest=outcomes.population_digest,
            result_digest=outcomes.result_digest,
            final_mean=test["mean"] if test else None,
            final_episodes=test["episodes"] if test else 0,
        )
        self.is_finished = True
        said = phases.finished(stop)
        self._enter(lambda: said)

    def reopened(self) -> None:
        """Say that a finished Experiment goes on."""
        self.is_finished, self._ending = False, None
        self._enter(lambda: phases.resuming(self._live()))

    def stays_finished(self) -> None:
        """Say that the larger budget of a finished Experiment does not make it go on."""
        failed = status.condition_is(self._current, Type.FAILED, "True")
        said = phases.resume_refused(self._live(), failed=failed)
        self._enter(lambda: said)

    def look(self, evaluators: Evaluators, problem: Condition | None) -> None:
        """Note what the evaluators do, and what is wrong with keeping the children."""
        if (evaluators, problem) != (self._evaluators, self._problem):
            self._evaluators, self._problem = evaluators, problem
            self._wake.set()

    def take(self, event: Event) -> None:
        """Note what the search tells, beside its progress."""
        if isinstance(event, Resumed) and event.skipped:
            self._skipped = phases.skipped(event.skipped)

    # --- writing -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the status written, for ever."""
        while True:
            self._wake.clear()
            pause = self._due()
            if pause is None or pause > 0:
                await self._sleep(min(pause or LOOK_SECONDS, LOOK_SECONDS))
            elif not await self._write():
                await asyncio.sleep(RETRY_SECONDS)

    async def flush(self, seconds: float) -> None:
        """Write what is not written yet, if it can be done within ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                if self._due() is not None:
                    await self._write()
        except TimeoutError:
            log.warning("status_not_written", experiment=self._owner.name)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _live(self) -> ExperimentSpec:
        assert self._spec is not None
        return self._spec

    def _enter(self, phase: Callable[[], phases.Said]) -> None:
        self._phase = phase
        self._wake.set()

    def _due(self) -> float | None:
        """Bring the document up to date; return the seconds until it should be written."""
        before = self._current
        self._current = status.document(self._view(), before)
        old, new = before.get("conditions") or (), self._current["conditions"]
        for kind, reason, message in status.events_for(old, new):
            self._watched.emit(kind, reason, message)
        self._services.metrics.situate(
            self._owner.namespace,
            self._owner.name,
            state_of(new),
            desired=self._evaluators.desired,
            ready=self._evaluators.ready,
        )
        return self._throttle.wait_seconds(self._written, self._current, self._services.clock())

    def _view(self) -> status.View:
        snapshot = self._progress.snapshot()
        said = {condition.type: condition for condition in self._phase()}
        has_checkpoint = snapshot.checkpoint is not None or "checkpoint" in self._current
        for condition in phases.checkpointed(is_saved=has_checkpoint):
            said.setdefault(condition.type, condition)
        for beside in (self._trouble, self._problem, self._refused):
            if beside is not None:
                said[beside.type] = beside
        return status.View(
            now=time.time(),
            generation=self._generation,
            takeover=self.takeover,
            conditions=tuple(said.values()),
            snapshot=snapshot,
            generations=self._spec.budget.max_generations if self._spec else None,
            evaluators=self._evaluators,
            selector=selector_text(self._owner),
            checkpoint_path=self._path,
            has_started=bool(self._path),
            is_finished=self.is_finished,
            ending=self._ending,
        )

    async def _write(self) -> bool:
        document, now = self._current, self._services.clock()
        shown = self._watched.body()
        if int((shown.get("status") or {}).get("takeover") or 0) > self.takeover:
            self._services.fatal(Fenced(f"another operator has taken over {self._owner.name}"))
        metadata = {"name": self._owner.name, "namespace": self._owner.namespace}
        try:
            await self._services.cluster.apply_status(
                {
                    "apiVersion": EXPERIMENT[0],
                    "kind": EXPERIMENT[1],
                    "metadata": {**metadata, "uid": self._owner.uid},
                    "status": document,
                }
            )
        except (ApiUnavailable, ApiRefused) as exc:
            log.warning("status_not_written", experiment=self._owner.name, error=str(exc))
            return False
        self._services.own_metrics.status_patches.inc()
        self._written = document
        self._throttle = replace(self._throttle, written_at=now)
        return True
