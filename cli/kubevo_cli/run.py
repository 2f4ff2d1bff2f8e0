"""``kubevo run``: a whole search on one machine, through a real broker and real workers.

Starts a loopback nats-server on the run's own store, the worker processes and the driver; all of
them end with this process, however it ends. What it leaves behind is resumable at any moment.
"""

import asyncio
import json
import os
import shlex
import shutil
import signal
import sys
import time
import uuid
from contextlib import AsyncExitStack
from typing import Any

from kubevo_cli.files import load_experiment
from kubevo_cli.options import RunOptions
from kubevo_cli.progress import ProgressView
from kubevo_cli.summary import summarise
from kubevo_cli.workers import WorkerPool
from kubevo_core import names, spec
from kubevo_core.errors import BusError, RunMismatch, RunNotFound, StoreFull, UserError
from kubevo_core.generation import Stop
from kubevo_core.spec import Experiment
from kubevo_runtime.broker import LocalBroker
from kubevo_runtime.bus import BusSettings, connect_coordinator
from kubevo_runtime.events import Event, Sink
from kubevo_runtime.experiment import Outcomes, run_experiment
from kubevo_runtime.exposition import Metrics
from kubevo_runtime.store import OWNER, Run, create_run, find_run, open_run

__all__ = ["run"]

NAMESPACE = "local"
INTERRUPTED = 130
FAILURES = (Stop.ALL_EVALUATIONS_FAILED, Stop.GENOME_TOO_LONG)
# Few, so that one deadly task ends or is scored within a minute; each reissue gives as many again.
MAX_DELIVER = 5
FREE_BYTES = 4 << 20
LOOK_SECONDS = 2.0
ACK_WAIT = "KUBEVO_ACK_WAIT_SECONDS"
LEASE_SECONDS = "8"  # shorter than on a cluster: signs of life only cross the loopback


def run(options: RunOptions) -> int:
    """Run an Experiment file and return the exit code: 0, 1 (all failed) or 130 (interrupted).

    Raises:
        KubevoError: as the tree in `kubevo_core.errors` says.
    """
    experiment = load_experiment(options.file, options.assignments)
    directory, is_new = _directory(options, experiment)
    with directory.lock(), ProgressView(experiment) as view:
        directory.claim()
        _require_same(directory, experiment)
        view.note(f"data in {directory.path}")
        try:
            outcomes = asyncio.run(_run(options, experiment, directory, view))
        except (KeyboardInterrupt, asyncio.CancelledError):
            outcomes = None
        except (UserError, BusError):
            if is_new:
                _remove_unused(directory)
            raise
    if outcomes is None:
        _say(f"interrupted; go on with: {_resume_command(options, directory)}")
        return INTERRUPTED
    summary = summarise(experiment, directory, outcomes)
    if options.output == "json":
        sys.stdout.write(json.dumps(summary) + "\n")
    else:
        _say(_report(summary))
    return 1 if any(row["reason"] in FAILURES for row in summary["repeats"]) else 0


def _directory(options: RunOptions, experiment: Experiment) -> tuple[Run, bool]:
    """Return the run's directory, and whether it is new: always, but with --resume if none is."""
    name = experiment.metadata.name
    if (options.data / OWNER).exists():  # a run's own directory: never the root of another one
        found = open_run(options.data)
        if not options.resume or found.name != name:
            raise RunMismatch(
                f"{options.data} is the directory of the run {found.name!r}; expected a folder for "
                f"new runs or, with --resume, the directory of a run of {name!r}"
            )
        return found, False
    if options.resume:
        try:
            found = open_run(find_run(options.data, name=name))
        except RunNotFound as exc:
            if exc.ambiguous:
                raise
        else:
            return found, False
    uid = str(uuid.uuid4())
    return create_run(options.data, NAMESPACE, name, uid, experiment.document()), True


def _remove_unused(directory: Run) -> None:
    """Remove a directory in which nothing was played, so that no later --resume finds two."""
    if directory.description() is None and not any(directory.path.glob("repeat-*/*")):
        shutil.rmtree(directory.path, ignore_errors=True)


def _require_same(found: Run, experiment: Experiment) -> None:
    stored = spec.parse(found.experiment(), f"{found.path}/spec.yaml")
    differences = spec.differences(stored.spec, experiment.spec)
    # Before an evaluator has described it nothing was played, so a corrected file may replace it.
    if differences and (found.description() is not None or found.is_played()):
        raise RunMismatch(
            f"{found.path} belongs to another search; what differs:\n  "
            + "\n  ".join(differences)
            + "\nresume with the file it was started from, or start anew without --resume"
        )
    if differences:
        # The broker still holds the question about the old one, which would be answered first.
        shutil.rmtree(found.path / "broker", ignore_errors=True)
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
    ack_wait = _ack_wait_seconds()
    logs = directory.path / "logs"
    sinks: list[Sink] = [view]
    if options.metrics_port is not None:
        metrics = Metrics()
        server, _ = metrics.serve(options.metrics_port)
        view.note(f"metrics at http://127.0.0.1:{server.server_port}/metrics")
        sinks.append(metrics.of(NAMESPACE, experiment.metadata.name))

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
            ACK_WAIT: str(ack_wait),
        }
        settings = BusSettings(
            url=broker.url,
            experiment=identifier,
            token=broker.token,
            name="coordinator",
            ack_wait_seconds=ack_wait,
            max_deliver=MAX_DELIVER,
        )
        async with connect_coordinator(settings) as bus:
            await bus.ensure()  # the workers find their queue from the start
            workers = WorkerPool(options.workers, environment, logs, sink)
            await stack.enter_async_context(workers)
            sinks.append(workers.observe)
            search = asyncio.create_task(
                run_experiment(directory, experiment, bus, sink, time.monotonic)
            )
            watches = [
                asyncio.create_task(watch)
                for watch in (workers.watch(), broker.watch(), _watch_space(directory))
            ]
            outcomes = await _first(search, watches)
            await bus.delete()  # all of it is in the checkpoints; a resume makes it again
            return outcomes


def _ack_wait_seconds() -> float:
    """Return the lease on a task: one setting for the broker's consumer and for the workers."""
    text = os.environ.get(ACK_WAIT) or LEASE_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(
            f"expected {ACK_WAIT} to be the lease on a task in seconds, such as 20, got {text!r}; "
            "correct or unset it"
        )
    return seconds


async def _watch_space(directory: Run) -> None:
    """Stop while the last checkpoint is intact: a broker without space only falls silent.

    Raises:
        StoreFull: the volume is nearly full.
    """
    while True:
        free = shutil.disk_usage(directory.path).free
        if free < FREE_BYTES:
            raise StoreFull(
                f"the volume of {directory.path} has {free:,} bytes free, and a run needs "
                f"{FREE_BYTES:,}; what is saved is intact: make room, then go on with --resume"
            )
        await asyncio.sleep(LOOK_SECONDS)


async def _first(search: "asyncio.Task[Outcomes]", watches: "list[asyncio.Task[None]]") -> Outcomes:
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


def _resume_command(options: RunOptions, directory: Run) -> str:
    """Return what to type to go on, from the same folder, as it was started."""
    words = ["kubevo", "run", str(options.file), "--data", str(directory.path), "--resume"]
    words += ["--workers", str(options.workers)]
    for assignment in options.assignments:
        words += ["--set", assignment]
    if options.output == "json":
        words += ["--output", "json"]
    if options.metrics_port is not None:
        words += ["--metrics-port", str(options.metrics_port)]
    return shlex.join(words)


def _report(summary: dict[str, Any]) -> str:
    best, test = summary["best"], summary["finalTest"]
    directory = shlex.quote(summary["dataDir"])
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
    lines.append(f"result digest: {summary['resultDigest']}")
    if best is None:
        lines += ["", f"no evaluation succeeded; look at {directory}/logs and mend the environment"]
        return "\n".join(lines)
    lines += [
        "",
        "next:",
        f"  kubevo best {directory}",
        f"  kubevo plot {directory} -o curve.png",
        f"  kubevo play {directory} --record best.mp4",
        f"  kubevo evaluate {directory} --episodes 100",
    ]
    return "\n".join(lines)
