"""Prometheus metrics of searches, fed by the driver's events: many Experiments in one registry.

Every series has the labels ``namespace`` and ``experiment`` (a local run's namespace is "local");
no label names an individual. `Metrics.forget` removes all series of an Experiment.

======================================  =========  ===============================================
kubevo_generation{repeat}               gauge      the last finished generation, counted from 0
kubevo_fitness{repeat,stat}             gauge      max, mean, median, min of the last generation
kubevo_elite_fitness{repeat}            gauge      validation mean of the last elite
kubevo_best_fitness{repeat}             gauge      validation mean of the best so far
kubevo_checkpoint_bytes{repeat}         gauge      size of the last checkpoint
kubevo_open_episodes{repeat}            gauge      demanded episodes that have no result yet
kubevo_results_total{outcome}           counter    accepted, duplicate, stale, unknown
kubevo_failed_episodes_total            counter    accepted results without a return
kubevo_frames_total                     counter    frames of accepted results
kubevo_episode_seconds{phase}           histogram  decode and play, as the evaluator measured them
kubevo_generation_seconds               histogram  from one checkpoint to the next
kubevo_faults_total{kind}               counter    what went wrong and was survived
======================================  =========  ===============================================
"""

from collections.abc import Callable
from threading import Thread
from typing import Any, Literal
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.metrics import MetricWrapperBase

from kubevo_core.errors import UserError
from kubevo_core.generation import Outcome
from kubevo_core.generation_report import Finished
from kubevo_runtime.events import (
    Event,
    Fault,
    GenerationFinished,
    Progress,
    ResultTaken,
    Resumed,
    Stopped,
)

__all__ = ["Metrics"]

EPISODE_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300)
GENERATION_SECONDS = (0.1, 0.5, 2, 10, 60, 300, 1800, 7200)
STATS: tuple[Literal["max", "mean", "median", "min"], ...] = ("max", "mean", "median", "min")
# Name -> type, help, labels besides namespace and experiment, options.
FAMILIES: dict[str, tuple[type[MetricWrapperBase], str, tuple[str, ...], dict[str, Any]]] = {
    "generation": (Gauge, "Last finished generation", ("repeat",), {}),
    "fitness": (Gauge, "Fitness over the last generation", ("repeat", "stat"), {}),
    "elite_fitness": (Gauge, "Validation mean of the last elite", ("repeat",), {}),
    "best_fitness": (Gauge, "Validation mean of the best elite", ("repeat",), {}),
    "checkpoint_bytes": (Gauge, "Size of the last checkpoint", ("repeat",), {}),
    "open_episodes": (Gauge, "Demanded episodes without a result", ("repeat",), {}),
    "results": (Counter, "Results read from the broker", ("outcome",), {}),
    "failed_episodes": (Counter, "Episodes without a return", (), {}),
    "frames": (Counter, "Frames of accepted results", (), {}),
    "episode_seconds": (
        Histogram,
        "Time of one episode in its evaluator",
        ("phase",),
        {"buckets": EPISODE_SECONDS},
    ),
    "generation_seconds": (
        Histogram,
        "Time of one generation",
        (),
        {"buckets": GENERATION_SECONDS},
    ),
    "faults": (Counter, "What went wrong and was survived", ("kind",), {}),
}


class Metrics:
    """The metrics of any number of Experiments in ``registry``, by default one of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._families = {
            name: kind(
                f"kubevo_{name}",
                text,
                ("namespace", "experiment", *labels),
                registry=self.registry,
                **options,
            )
            for name, (kind, text, labels, options) in FAMILIES.items()
        }
        self._sinks: dict[tuple[str, str], _ExperimentMetrics] = {}

    def of(self, namespace: str, name: str) -> Callable[[Event], None]:
        """Return the event sink of one Experiment; the same one until it is forgotten."""
        key = (namespace, name)
        if key not in self._sinks:
            self._sinks[key] = _ExperimentMetrics(self._families, key)
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

    def __init__(self, families: dict[str, MetricWrapperBase], key: tuple[str, str]) -> None:
        self._families = families
        self._key = key
        self._series: dict[tuple[str, ...], Any] = {}
        self._is_closed = False

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

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if self._is_closed:
            return
        if isinstance(event, ResultTaken):
            self._take_result(event)
        elif isinstance(event, Progress):
            self._of("open_episodes", str(event.repeat)).set(event.open)
        elif isinstance(event, GenerationFinished):
            self._of("generation_seconds").observe(event.seconds)
            self._take_generation(event.finished, event.checkpoint_bytes)
        elif isinstance(event, Resumed):
            self._take_generation(event.finished, event.checkpoint_bytes)
        elif isinstance(event, Stopped):
            self._of("open_episodes", str(event.repeat)).set(0)
        elif isinstance(event, Fault):
            self._of("faults", event.kind).inc()

    def _take_result(self, event: ResultTaken) -> None:
        self._of("results", event.outcome.value).inc()
        if event.outcome is Outcome.ACCEPTED:
            episode = event.report.episode
            self._of("frames").inc(episode.frames)
            if episode.episode_return is None:
                self._of("failed_episodes").inc()
            for phase, seconds in event.report.seconds.items():
                self._of("episode_seconds", phase).observe(seconds)

    def _take_generation(self, done: Finished, checkpoint_bytes: int) -> None:
        fitness, repeat = done.row()["fitness"], str(done.repeat)
        self._of("generation", repeat).set(done.generation)
        self._of("checkpoint_bytes", repeat).set(checkpoint_bytes)
        for stat in STATS:
            if fitness[stat] is not None:
                self._of("fitness", repeat, stat).set(fitness[stat])
        if done.elite is not None and done.elite.mean is not None:
            self._of("elite_fitness", repeat).set(done.elite.mean)
        if done.best is not None:
            self._of("best_fitness", repeat).set(done.best.mean)
