"""Prometheus metrics of a run, fed by the driver's events. No label names an individual.

======================================  =========  ===============================================
kubevo_generation                       gauge      finished generations minus one, by repeat
kubevo_fitness{stat}                    gauge      max, mean, median, min of the last generation
kubevo_elite_fitness                    gauge      validation mean of the last elite
kubevo_best_fitness                     gauge      validation mean of the best so far
kubevo_results_total{outcome}           counter    accepted, duplicate, stale, unknown
kubevo_failed_episodes_total            counter    accepted results without a return
kubevo_frames_total                     counter    frames of accepted results
kubevo_episode_seconds{phase}           histogram  decode and play, as the evaluator measured them
kubevo_generation_seconds               histogram  from one checkpoint to the next
kubevo_checkpoint_bytes                 gauge      size of the last checkpoint
kubevo_faults_total{kind}               counter    what went wrong and was survived
======================================  =========  ===============================================
"""

from threading import Thread
from typing import Literal
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from kubevo_core.errors import UserError
from kubevo_core.generation import Outcome
from kubevo_runtime.events import Event, Fault, GenerationFinished, ResultTaken

__all__ = ["Metrics"]

EPISODE_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300)
GENERATION_SECONDS = (0.1, 0.5, 2, 10, 60, 300, 1800, 7200)
STATS: tuple[Literal["max", "mean", "median", "min"], ...] = ("max", "mean", "median", "min")


class Metrics:
    """The metrics of one Experiment in a registry of its own; an instance is an event sink."""

    def __init__(self, experiment: str) -> None:
        self.registry = CollectorRegistry()
        self._experiment = experiment
        labels = ["experiment", "repeat"]
        r = self.registry
        self._generation = Gauge(
            "kubevo_generation", "Last finished generation", labels, registry=r
        )
        self._fitness = Gauge(
            "kubevo_fitness", "Fitness over the last generation", [*labels, "stat"], registry=r
        )
        self._elite = Gauge(
            "kubevo_elite_fitness", "Validation mean of the last elite", labels, registry=r
        )
        self._best = Gauge(
            "kubevo_best_fitness", "Validation mean of the best elite", labels, registry=r
        )
        self._checkpoint = Gauge(
            "kubevo_checkpoint_bytes", "Size of the last checkpoint", labels, registry=r
        )
        self._results = Counter(
            "kubevo_results", "Results read from the broker", ["experiment", "outcome"], registry=r
        )
        self._failed = Counter(
            "kubevo_failed_episodes", "Episodes without a return", ["experiment"], registry=r
        )
        self._frames = Counter(
            "kubevo_frames", "Frames of accepted results", ["experiment"], registry=r
        )
        self._episode = Histogram(
            "kubevo_episode_seconds",
            "Time of one episode in its evaluator",
            ["experiment", "phase"],
            buckets=EPISODE_SECONDS,
            registry=r,
        )
        self._seconds = Histogram(
            "kubevo_generation_seconds",
            "Time of one generation",
            ["experiment"],
            buckets=GENERATION_SECONDS,
            registry=r,
        )
        self._faults = Counter(
            "kubevo_faults", "What went wrong and was survived", ["experiment", "kind"], registry=r
        )

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, ResultTaken):
            self._take_result(event)
        elif isinstance(event, GenerationFinished):
            self._take_generation(event)
        elif isinstance(event, Fault):
            self._faults.labels(self._experiment, event.kind).inc()

    def _take_result(self, event: ResultTaken) -> None:
        self._results.labels(self._experiment, event.outcome.value).inc()
        if event.outcome is Outcome.ACCEPTED:
            episode = event.report.episode
            self._frames.labels(self._experiment).inc(episode.frames)
            if episode.episode_return is None:
                self._failed.labels(self._experiment).inc()
            for phase, seconds in event.report.seconds.items():
                self._episode.labels(self._experiment, phase).observe(seconds)

    def _take_generation(self, event: GenerationFinished) -> None:
        done, row = event.finished, event.finished.row()
        labels = (self._experiment, str(done.repeat))
        self._generation.labels(*labels).set(done.generation)
        self._checkpoint.labels(*labels).set(event.checkpoint_bytes)
        self._seconds.labels(self._experiment).observe(event.seconds)
        for stat in STATS:
            if row["fitness"][stat] is not None:
                self._fitness.labels(*labels, stat).set(row["fitness"][stat])
        if done.elite is not None and done.elite.mean is not None:
            self._elite.labels(*labels).set(done.elite.mean)
        if done.best is not None:
            self._best.labels(*labels).set(done.best.mean)

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
