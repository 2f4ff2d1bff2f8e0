"""``kubevo run``: a whole search on one machine, through a real broker and real workers.

Starts a loopback nats-server on the run's own store, the worker processes and the driver; all of
them end with this process, however it ends. What it leaves behind is resumable at any moment.
"""

import asyncio
import json
import os
import signal
import sys
import time
import uuid
from contextlib import AsyncExitStack
from typing import Any

import structlog

from kubevo_cli.files import load_experiment
from kubevo_cli.options import RunOptions
from kubevo_cli.progress import ProgressView
from kubevo_cli.summary import summarise
from kubevo_cli.workers import WorkerPool
from kubevo_core import names, spec
from kubevo_core.errors import RunMismatch, RunNotFound
from kubevo_core.generation import Stop
from kubevo_core.spec import Experiment
from kubevo_runtime.broker import LocalBroker
from kubevo_runtime.bus import BusSettings, connect_coordinator
from kubevo_runtime.events import Event, Sink
from kubevo_runtime.experiment import Outcomes, run_experiment
from kubevo_runtime.exposition import Metrics
from kubevo_runtime.store import Run, create_run, find_run, open_run

__all__ = ["run"]

NAMESPACE = "local"
INTERRUPTED = 130
log = structlog.get_logger()


def run(options: RunOptions) -> int:
    """Run an Experiment file and return the exit code: 0, 1 (all failed) or 130 (interrupted).

    Raises:
        KubevoError: as the tree in `kubevo_core.errors` says.
    """
    experiment = load_experiment(options.file, options.assignments)
    directory = _directory(options, experiment)
    with directory.lock(), ProgressView(experiment) as view:
        directory.claim()
        _require_same(directory, experiment)
        view.note(f"data in {directory.path}")
        try:
            outcomes = asyncio.run(_run(options, experiment, directory, view))
        except (KeyboardInterrupt, asyncio.CancelledError):
            outcomes = None
    if outcomes is None:
        _say(f"interrupted; go on with: {_resume_command(options)}")
        return INTERRUPTED
    summary = summarise(experiment, directory, outcomes.states)
    if options.output == "json":
        sys.stdout.write(json.dumps(summary) + "\n")
    else:
        _say(_report(summary))
    return 1 if summary["reason"] == Stop.ALL_EVALUATIONS_FAILED else 0


def _directory(options: RunOptions, experiment: Experiment) -> Run:
    """Return the run's directory: a new one, or with --resume the one that is there."""
    name = experiment.metadata.name
    if options.resume:
        try:
            found = open_run(find_run(options.data, name=name))
        except RunNotFound as exc:
            if exc.ambiguous:
                raise
        else:
            return found
    return create_run(options.data, NAMESPACE, name, str(uuid.uuid4()), experiment.document())


def _require_same(found: Run, experiment: Experiment) -> None:
    stored = spec.parse(found.experiment(), f"{found.path}/spec.yaml")
    differences = spec.differences(stored.spec, experiment.spec)
    if differences:
        raise RunMismatch(
            f"{found.path} belongs to another search; what differs:\n  "
            + "\n  ".join(differences)
            + "\nresume with the file it was started from, or start anew without --resume"
        )
    if stored != experiment:
        found.replace_experiment(experiment.document())  # a raised budget, say


async def _run(
    options: RunOptions, experiment: Experiment, directory: Run, view: ProgressView
) -> Outcomes:
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    assert main is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, main.cancel)
    identifier = names.experiment_id(directory.name, directory.uid)
    logs = directory.path / "logs"
    sinks: list[Sink] = [view]
    if options.metrics_port is not None:
        metrics = Metrics(experiment.metadata.name)
        metrics.serve(options.metrics_port)
        sinks.append(metrics)

    def sink(event: Event) -> None:
        for each in sinks:
            each(event)

    async with (
        LocalBroker(directory.path / "broker", log=logs / "nats-server.log") as broker,
        AsyncExitStack() as stack,
    ):
        environment = {
            **os.environ,
            "KUBEVO_NATS_URL": broker.url,
            "KUBEVO_NATS_TOKEN": broker.token,
            "KUBEVO_EXPERIMENT_ID": identifier,
        }
        settings = BusSettings(
            url=broker.url, experiment=identifier, token=broker.token, name="coordinator"
        )
        async with connect_coordinator(settings) as bus:
            await bus.ensure()  # the workers find their queue from the start
            workers = WorkerPool(options.workers, environment, logs, sink)
            await stack.enter_async_context(workers)
            sinks.append(workers.observe)
            search = asyncio.create_task(
                run_experiment(directory, experiment, bus, sink, time.monotonic)
            )
            watches = [asyncio.create_task(workers.watch()), asyncio.create_task(broker.watch())]
            return await _first(search, watches)


async def _first(
    search: "asyncio.Task[Outcomes]", watches: "list[asyncio.Task[None]]"
) -> Outcomes:
    """Return the search's outcome, or raise what ended a watched process first."""
    try:
        await asyncio.wait({search, *watches}, return_when=asyncio.FIRST_COMPLETED)
        for watch in watches:
            if watch.done() and not search.done():
                watch.result()
        return await search
    finally:
        for task in (search, *watches):
            task.cancel()
        await asyncio.gather(search, *watches, return_exceptions=True)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _resume_command(options: RunOptions) -> str:
    assignments = "".join(f" --set {item}" for item in options.assignments)
    return f"kubevo run {options.file} --data {options.data} --resume{assignments}"


def _report(summary: dict[str, Any]) -> str:
    best, test = summary["best"], summary["finalTest"]
    directory = summary["dataDir"]
    lines = [
        "",
        (
            f"stopped: {summary['reason']} after generation {summary['generation']}, "
            f"{summary['frames']:,} frames, {summary['wallSeconds']:.1f} s"
        ),
    ]
    if best is not None:
        lines.append(f"best: {best['fitness']:.6g} (generation {best['generation']})")
        shown = best["genome"] if len(best["genome"]) <= 160 else best["genome"][:157] + "..."
        lines.append(f"genome: {shown}")
    if test is not None and test["mean"] is not None:
        lines.append(f"final test: mean {test['mean']:.6g} over {test['episodes']} fresh episodes")
    lines += [
        f"result digest: {summary['resultDigest']}",
        "",
        "next:",
        f"  kubevo best {directory}",
        f"  kubevo plot {directory} -o curve.png",
        f"  kubevo play {directory} --record best.mp4",
        f"  kubevo evaluate {directory} --episodes 100",
    ]
    return "\n".join(lines)
