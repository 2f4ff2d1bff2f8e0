"""Prometheus metrics of searches, fed by the driver's events: many Experiments in one registry.

Every series has the labels ``namespace`` and ``experiment`` (a local run's namespace is "local");
no label names an individual. `Metrics.forget` removes all series of an Experiment. Counters start
at 0 with the Experiment, because a rate does not see a series' first value.

`FAMILIES` and the tables beside it are the one place where metrics are named and explained;
``docs/reference-metrics.md`` is made of them.
"""

import time
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Any, Literal, NamedTuple
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.metrics import MetricWrapperBase

from kubevo_core.errors import UserError
from kubevo_core.generation import Outcome
from kubevo_core.generation_report import Finished
from kubevo_core.genome import Genome
from kubevo_runtime.events import (
    Ended,
    Event,
    Fault,
    GenerationFinished,
    Progress,
    ResultTaken,
    Resumed,
    Stopped,
)

__all__ = ["FAMILIES", "FAULTS", "STATES", "Family", "Metrics", "State"]

EPISODE_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300)
GENERATION_SECONDS = (0.1, 0.5, 2, 10, 60, 300, 1800, 7200)
STATS: tuple[Literal["max", "mean", "median", "min"], ...] = ("max", "mean", "median", "min")
State = Literal["running", "waiting", "blocked", "suspended", "succeeded", "failed"]
STATES: dict[State, str] = {
    "running": "the search is driven and an evaluator is ready",
    "waiting": "the search is driven, or about to be, and no evaluator is ready",
    "blocked": "the search is not driven although the spec wants it; a person may have to act",
    "suspended": "`spec.suspend` is obeyed",
    "succeeded": "the search has ended after its budget or target",
    "failed": "the search has ended without a usable result",
}
# Every kind of `Fault`; a test looks for more in the sources.
FAULTS: dict[str, str] = {
    "broker": "the broker did not take a failed result; tried again",
    "environment_exception": "an environment raised in an evaluator; counts once another agrees",
    "poisoned": "an evaluation was given up and counted as failed (`failurePolicy.onPoison: Score`)",
    "recording": "an elite was not recorded, or its video not kept; the search goes on",
    "task_reissued": "a task had used up its deliveries and was put on the queue again",
    "tasks_republished": "tasks were missing on the broker and were published again",
    "unreadable_failure": "a failure report could not be read",
    "unreadable_result": "a result could not be read",
    "worker_ended": "an evaluator process of `kubevo run` ended and was started again",
}


class Family(NamedTuple):
    """One metric: its type, help and unit, its labels besides an Experiment's, and options."""

    kind: type[MetricWrapperBase]
    help: str
    unit: str
    labels: tuple[str, ...] = ()
    options: Mapping[str, Any] = {}


_REPEAT = ("repeat",)
# By name, without the prefix and without a counter's suffix.
FAMILIES: dict[str, Family] = {
    "generation": Family(Gauge, "Last finished generation, from 0", "generation", _REPEAT),
    "fitness": Family(Gauge, "Fitness over the last generation", "reward", (*_REPEAT, "stat")),
    "elite_fitness": Family(Gauge, "Validation mean of the last elite", "reward", _REPEAT),
    "elite_mutations": Family(Gauge, "Mutations in the last elite's genome", "mutations", _REPEAT),
    "best_fitness": Family(Gauge, "Validation mean of the best elite", "reward", _REPEAT),
    "best_generation": Family(
        Gauge, "Generation in which the best elite was found", "generation", _REPEAT
    ),
    "lineages": Family(
        Gauge,
        "Different first ancestors among the last population, and among the next one's parents",
        "lineages",
        (*_REPEAT, "group"),
    ),
    "checkpoint_bytes": Family(Gauge, "Size of the last checkpoint", "bytes", _REPEAT),
    "checkpoint_timestamp_seconds": Family(
        Gauge, "When the last checkpoint was saved", "seconds since 1970", _REPEAT
    ),
    "generation_start_timestamp_seconds": Family(
        Gauge, "When this process began the running generation", "seconds since 1970", _REPEAT
    ),
    "running_seconds": Family(
        Gauge, "Time that the finished generations took, over all processes", "seconds", _REPEAT
    ),
    "open_episodes": Family(Gauge, "Demanded episodes without a result", "episodes", _REPEAT),
    "experiment_state": Family(Gauge, "1 for the state it is in, else 0", "0 or 1", ("state",)),
    "evaluators": Family(
        Gauge, "Evaluator processes that are desired, and ready", "processes", ("state",)
    ),
    "results": Family(Counter, "Results read from the broker", "results", ("outcome",)),
    "failed_episodes": Family(Counter, "Accepted results without a return", "episodes"),
    "frames": Family(Counter, "Frames of accepted results", "frames"),
    "episode_seconds": Family(
        Histogram,
        "Time of one episode in its evaluator",
        "seconds",
        ("phase",),
        {"buckets": EPISODE_SECONDS},
    ),
    "generation_seconds": Family(
        Histogram,
        "Time from one checkpoint to the next",
        "seconds",
        (),
        {"buckets": GENERATION_SECONDS},
    ),
    "faults": Family(Counter, "What went wrong and was survived", "faults", ("kind",)),
}


class Metrics:
    """The metrics of any number of Experiments in ``registry``, by default one of their own.

    ``wall_clock`` gives seconds since 1970.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._wall_clock = wall_clock
        self._families = {
            name: family.kind(
                f"kubevo_{name}",
                family.help,
                ("namespace", "experiment", *family.labels),
                registry=self.registry,
                **family.options,
            )
            for name, family in FAMILIES.items()
        }
        self._sinks: dict[tuple[str, str], _ExperimentMetrics] = {}

    def of(self, namespace: str, name: str) -> Callable[[Event], None]:
        """Return the event sink of one Experiment; the same one until it is forgotten."""
        return self._of(namespace, name)

    def situate(self, namespace: str, name: str, state: State, *, desired: int, ready: int) -> None:
        """Set what the events do not tell: the state, and evaluator processes desired and ready."""
        self._of(namespace, name).situate(state, desired, ready)

    def _of(self, namespace: str, name: str) -> "_ExperimentMetrics":
        key = (namespace, name)
        if key not in self._sinks:
            self._sinks[key] = _ExperimentMetrics(self._families, key, self._wall_clock)
        return self._sinks[key]

    def forget(self, namespace: str, name: str) -> None:
        """Remove every series of an Experiment; events that come late bring none back."""
        sink = self._sinks.pop((namespace, name), None)
        if sink is not None:
            sink.close()

    def serve(self, port: int, address: str = "127.0.0.1") -> tuple[WSGIServer, Thread]:
        """Serve ``/metrics`` from a thread of its own and return both; port 0 picks a free one.

        Raises:
            UserError: the port is taken or not ours to take.
        """
        try:
            return start_http_server(port, address, registry=self.registry)
        except OSError as exc:
            raise UserError(
                f"metrics cannot be served on {address}:{port}: {exc.strerror or exc}; choose "
                "another --metrics-port"
            ) from exc


class _ExperimentMetrics:
    """One Experiment's series; an instance is an event sink."""

    def __init__(
        self,
        families: dict[str, MetricWrapperBase],
        key: tuple[str, str],
        wall_clock: Callable[[], float],
    ) -> None:
        self._families = families
        self._key = key
        self._wall_clock = wall_clock
        self._series: dict[tuple[str, ...], Any] = {}
        self._repeats: set[str] = set()
        self._is_closed = False

    def _count_from_zero(self) -> None:
        """Show the counters: an alert on one that appears at 1 would never see it rise."""
        for outcome in Outcome:
            self._of("results", outcome.value)
        for kind in FAULTS:
            self._of("faults", kind)
        for name in ("failed_episodes", "frames"):
            self._of(name)

    def _of(self, name: str, *labels: str) -> Any:
        """Return one series; the client's own look-up by labels costs a lock and a tuple."""
        series = self._series.get((name, *labels))
        if series is None:
            series = self._families[name].labels(*self._key, *labels)
            self._series[(name, *labels)] = series
        return series

    def close(self) -> None:
        """Remove the series, and take no more events."""
        self._is_closed = True
        for name, *labels in self._series:
            self._families[name].remove(*self._key, *labels)
        self._series.clear()

    def situate(self, state: State, desired: int, ready: int) -> None:
        """Set the state, and evaluator processes."""
        if not self._series:
            self._count_from_zero()
        for each in STATES:
            self._of("experiment_state", each).set(each == state)
        self._of("evaluators", "desired").set(desired)
        self._of("evaluators", "ready").set(ready)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if self._is_closed:
            return
        if not self._series:
            if isinstance(event, Ended):
                return  # the last word of a search that was forgotten brings nothing back
            self._count_from_zero()
        match event:
            case ResultTaken():
                self._take_result(event)
            case Progress():
                self._take_progress(event)
            case GenerationFinished():
                now = self._wall_clock()
                self._of("generation_seconds").observe(event.seconds)
                self._take_generation(event.finished, event.checkpoint_bytes, now)
                self._of("generation_start_timestamp_seconds", str(event.finished.repeat)).set(now)
            case Resumed():
                self._take_generation(event.finished, event.checkpoint_bytes, event.saved_at)
            case Stopped():
                self._repeats.discard(str(event.repeat))
                self._of("open_episodes", str(event.repeat)).set(0)
            case Ended():
                # Suspended, over or failed: whatever is still open, nobody asks for it now.
                for repeat in self._repeats:
                    self._of("open_episodes", repeat).set(0)
                self._repeats.clear()
            case Fault():
                self._of("faults", event.kind).inc()

    def _take_progress(self, event: Progress) -> None:
        repeat = str(event.repeat)
        if repeat not in self._repeats:
            # The first since the search began or went on: the time before does not count.
            self._repeats.add(repeat)
            self._of("generation_start_timestamp_seconds", repeat).set(self._wall_clock())
        self._of("open_episodes", repeat).set(event.open)

    def _take_result(self, event: ResultTaken) -> None:
        self._of("results", event.outcome.value).inc()
        if event.outcome is Outcome.ACCEPTED:
            episode = event.report.episode
            self._of("frames").inc(episode.frames)
            if episode.episode_return is None:
                self._of("failed_episodes").inc()
            for phase, seconds in event.report.seconds.items():
                self._of("episode_seconds", phase).observe(seconds)

    def _take_generation(self, done: Finished, checkpoint_bytes: int, saved_at: float) -> None:
        fitness, repeat = done.row()["fitness"], str(done.repeat)
        self._of("generation", repeat).set(done.generation)
        self._of("running_seconds", repeat).set(done.running_seconds)
        self._of("checkpoint_bytes", repeat).set(checkpoint_bytes)
        self._of("checkpoint_timestamp_seconds", repeat).set(saved_at)
        for stat in STATS:
            if fitness[stat] is not None:
                self._of("fitness", repeat, stat).set(fitness[stat])
        if done.elite is not None:
            self._of("elite_mutations", repeat).set(len(done.elite.genome.mutations))
            if done.elite.mean is not None:
                self._of("elite_fitness", repeat).set(done.elite.mean)
        if done.best is not None:
            self._of("best_fitness", repeat).set(done.best.mean)
            self._of("best_generation", repeat).set(done.best.generation)
        population = [individual.genome for individual in done.population]
        parents = [genome for _, genome in done.parents]
        self._of("lineages", repeat, "population").set(_lineages(population))
        self._of("lineages", repeat, "parents").set(_lineages(parents))


def _lineages(genomes: list[Genome]) -> int:
    """Return the number of different first ancestors; one says that a single line has won."""
    return len({genome.init_seed for genome in genomes})
