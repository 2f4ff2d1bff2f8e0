"""What a status says while a search runs: an event sink that keeps the last of everything.

``snapshot`` gives one frozen value. The Experiment's generation is the lowest of its repeats, its
best the highest, of the lowest repeat on a tie.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from kubevo_core.generation import Limits, Outcome, Stop
from kubevo_core.generation_report import Finished
from kubevo_runtime import events
from kubevo_runtime.events import Event

__all__ = [
    "CheckpointView",
    "FitnessView",
    "PopulationView",
    "ProgressTracker",
    "RepeatView",
    "Snapshot",
]

WINDOW_SECONDS = 60.0
# A generation's time is averaged over so many of the last ones.
GENERATIONS_AVERAGED = 5


@dataclass(frozen=True)
class FitnessView:
    """A validated genome: the mean of its validation episodes, where it was found, its digest."""

    fitness: float
    generation: int
    repeat: int
    digest: str


@dataclass(frozen=True)
class PopulationView:
    """Fitness over the last finished generation; None where every evaluation failed."""

    max: float | None
    mean: float | None
    median: float | None
    min: float | None
    failed: int


@dataclass(frozen=True)
class CheckpointView:
    """The last durable generation; ``saved_at`` in seconds since 1970."""

    generation: int
    bytes: int
    saved_at: float


@dataclass(frozen=True)
class RepeatView:
    """One repeat. ``generation`` is the last finished one, -1 before the first.

    ``evaluations`` and ``failed`` count individuals, and candidates, of all finished generations;
    ``frames`` is what they were charged. ``played`` of ``wanted`` episodes of the running
    generation have a result; ``open`` episodes are demanded and have none. ``elite.generation`` is
    the generation whose elite it is.
    """

    repeat: int
    generation: int = -1
    frames: int = 0
    evaluations: int = 0
    failed: int = 0
    running_seconds: float = 0.0
    best: FitnessView | None = None
    elite: FitnessView | None = None
    population: PopulationView | None = None
    checkpoint: CheckpointView | None = None
    played: int = 0
    wanted: int = 0
    open: int = 0
    eta_seconds: float | None = None
    final_test: tuple[float | None, int] | None = None
    stop: Stop | None = None


@dataclass(frozen=True)
class Snapshot:
    """A whole Experiment. ``eta_seconds`` is None where no limit lets it be told.

    ``best``, ``elite``, ``population`` and ``final_test`` (mean, episodes) are those of the repeat
    with the best; ``checkpoint`` is the one of the repeat that is furthest behind. ``open_tasks``
    counts what workers could do now, the question for a description included.
    """

    is_described: bool
    generation: int
    frames: int
    frames_per_second: float
    evaluations: int
    failed: int
    running_seconds: float
    open_tasks: int
    eta_seconds: float | None
    best: FitnessView | None
    elite: FitnessView | None
    population: PopulationView | None
    checkpoint: CheckpointView | None
    final_test: tuple[float | None, int] | None
    repeats: tuple[RepeatView, ...]


@dataclass
class _Repeat:
    """What is kept of one repeat besides its view."""

    view: RepeatView
    since: float
    ran_before: float = 0.0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=GENERATIONS_AVERAGED))


class ProgressTracker:
    """Keeps what a status needs of one Experiment; an instance is an event sink.

    ``clock`` counts seconds from anywhere, ``wall_clock`` from 1970. ``repeats`` and ``limits`` may
    be set later, and changed: without limits there is no time of arrival.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        repeats: int = 1,
        limits: Callable[[], Limits] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.repeats = repeats
        self.limits = limits
        self._clock = clock
        self._wall_clock = wall_clock
        self._repeats: dict[int, _Repeat] = {}
        self._is_described = False
        self._is_describing = False
        # Frames of each second that had some, oldest first; what was read back is no speed.
        self._seconds: deque[tuple[int, int]] = deque()
        self._watched_since = clock()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        match event:
            case events.Describing():
                self._is_describing = True
            case events.Described():
                self._is_described, self._is_describing = True, False
                self._watched_since = self._clock()
            case events.Resumed():
                self._resume(event)
            case events.ResultTaken():
                self._take_result(event)
            case events.Progress():
                of = self._of(event.repeat)
                of.view = replace(
                    of.view, played=event.played, wanted=event.wanted, open=event.open, stop=None
                )
            case events.GenerationFinished():
                self._finish(event)
            case events.TestFinished():
                self._take_test(event)
            case events.Stopped():
                of = self._of(event.repeat)
                of.view = replace(of.view, open=0, stop=event.stop)
            case events.Ended():
                self._end()

    @property
    def open_tasks(self) -> int:
        """What workers could do now; the question for a description is one task."""
        open_ = sum(of.view.open for of in self._repeats.values())
        return open_ + self._is_describing

    def snapshot(self) -> Snapshot:
        """Return everything as it is now."""
        now = self._clock()
        views = [self._view(self._of(repeat), now) for repeat in range(self.repeats)]
        chosen = max(views, key=lambda v: (v.best.fitness if v.best else -math.inf, -v.repeat))
        behind = min(views, key=lambda view: (view.generation, view.repeat))
        running = [view.eta_seconds for view in views if view.stop is None]
        known = [eta for eta in running if eta is not None]
        return Snapshot(
            is_described=self._is_described,
            generation=behind.generation,
            frames=sum(view.frames for view in views),
            frames_per_second=self._frames_per_second(now),
            evaluations=sum(view.evaluations for view in views),
            failed=sum(view.failed for view in views),
            running_seconds=max(view.running_seconds for view in views),
            open_tasks=self.open_tasks,
            eta_seconds=max(known, default=0.0) if len(known) == len(running) else None,
            best=chosen.best,
            elite=chosen.elite,
            population=chosen.population,
            checkpoint=behind.checkpoint,
            final_test=chosen.final_test,
            repeats=tuple(views),
        )

    # ---- events ----

    def _of(self, repeat: int) -> _Repeat:
        found = self._repeats.get(repeat)
        if found is None:
            found = self._repeats[repeat] = _Repeat(RepeatView(repeat), self._clock())
        self.repeats = max(self.repeats, repeat + 1)
        return found

    def _resume(self, event: events.Resumed) -> None:
        of = self._of(event.repeat)
        of.since, of.ran_before = self._clock(), event.finished.running_seconds
        of.view = replace(
            _after(of.view, event.finished, event.finished.row()),
            evaluations=event.evaluations,
            failed=event.failed,
            checkpoint=CheckpointView(event.generation, event.checkpoint_bytes, event.saved_at),
            played=0,
            wanted=0,
            open=0,
            stop=event.stop,
        )

    def _finish(self, event: events.GenerationFinished) -> None:
        done = event.finished
        of, row = self._of(done.repeat), done.row()
        of.since, of.ran_before = self._clock(), done.running_seconds
        of.seconds.append(event.seconds)
        of.view = replace(
            _after(of.view, done, row),
            evaluations=of.view.evaluations + row["evaluations"],
            failed=of.view.failed + row["failed"],
            checkpoint=CheckpointView(done.generation, event.checkpoint_bytes, self._wall_clock()),
        )

    def _take_result(self, event: events.ResultTaken) -> None:
        frames = event.report.episode.frames
        if event.outcome is not Outcome.ACCEPTED or event.read_back or not frames:
            return
        second = int(self._clock())
        if self._seconds and self._seconds[-1][0] == second:
            frames += self._seconds.pop()[1]
        self._seconds.append((second, frames))
        self._drop_old(second)

    def _take_test(self, event: events.TestFinished) -> None:
        of = self._of(event.repeat)
        if event.row["purpose"] == "final":
            of.view = replace(of.view, final_test=(event.row["mean"], event.row["episodes"]))

    def _end(self) -> None:
        self._is_describing = False
        self._seconds.clear()
        for of in self._repeats.values():
            of.ran_before = self._running_seconds(of, self._clock())
            of.since = math.inf
            of.view = replace(of.view, open=0)

    # ---- what follows from them ----

    def _view(self, of: _Repeat, now: float) -> RepeatView:
        running = self._running_seconds(of, now)
        return replace(of.view, running_seconds=running, eta_seconds=self._eta(of, running))

    def _running_seconds(self, of: _Repeat, now: float) -> float:
        is_over = of.view.stop is not None or of.since == math.inf
        return of.ran_before if is_over else max(0.0, of.ran_before + now - of.since)

    def _drop_old(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] < second - WINDOW_SECONDS:
            self._seconds.popleft()

    def _frames_per_second(self, now: float) -> float:
        self._drop_old(int(now))
        watched = min(now - self._watched_since, WINDOW_SECONDS)
        return sum(frames for _, frames in self._seconds) / max(watched, 1.0)

    def _eta(self, of: _Repeat, running_seconds: float) -> float | None:
        """Return the seconds until the first limit that can be told; None where none can."""
        if of.view.stop is not None:
            return 0.0
        if self.limits is None:
            return None
        limits, generations = self.limits(), of.view.generation + 1
        found = []
        if limits.max_wall_clock_seconds is not None:
            found.append(limits.max_wall_clock_seconds - running_seconds)
        if generations:
            left = [math.inf]
            if limits.max_generations is not None:
                left.append(limits.max_generations - generations)
            if limits.max_frames is not None and of.view.frames:
                frames = of.view.frames / generations
                left.append(math.ceil((limits.max_frames - of.view.frames) / frames))
            before = of.ran_before / generations
            average = sum(of.seconds) / len(of.seconds) if of.seconds else before
            elapsed = running_seconds - of.ran_before
            found.append(min(left) * average - min(elapsed, average))
        told = [seconds for seconds in found if math.isfinite(seconds)]
        return max(0.0, min(told)) if told else None


def _after(view: RepeatView, done: Finished, row: dict[str, Any]) -> RepeatView:
    """Return ``view`` with what a finished generation and its history row say by themselves."""
    fitness, repeat = row["fitness"], done.repeat
    best, elite = done.best, done.elite
    population = PopulationView(
        fitness["max"],
        fitness["mean"],
        fitness["median"],
        fitness["min"],
        row["failed"],
    )
    return replace(
        view,
        generation=done.generation,
        frames=done.frames,
        population=population,
        best=FitnessView(best.mean, best.generation, repeat, best.genome.digest) if best else None,
        # An elite that stayed although its own re-test failed has no mean: the last one stands.
        elite=FitnessView(elite.mean, done.generation, repeat, elite.genome.digest)
        if elite and elite.mean is not None
        else view.elite,
    )
