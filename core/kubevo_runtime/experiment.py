"""One Experiment on a broker and a directory: describe it, drive its repeats, sum them up.

Its host gives it a broker, a run's directory that is claimed, and the spec as it is now. Whatever
ends it (a cancellation, an error, a kill), the host may call it again and it goes on.

Budget, checkpoint and failure policy may change while it runs; a budget counts when the running
generation finishes. A repeat that had stopped before its budget was raised goes on once the others
have stopped too, or at once if the host cancels and calls again. What tasks say of the evaluators
(``taskTimeoutSeconds``) is read at the call.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kubevo_core import checkpoint, names
from kubevo_core.errors import BusUnavailable, EnvironmentRefused, MessageError
from kubevo_core.evaluation import Episode
from kubevo_core.first_generation import require_fitting
from kubevo_core.generation import Limits, Phase, Settings, State, reopen, resume
from kubevo_core.imports import Imported
from kubevo_core.messages import (
    Context,
    Description,
    decode_describe_answer,
    decode_failure,
    encode_describe_task,
)
from kubevo_core.spec import Experiment, ExperimentSpec
from kubevo_runtime.bus import CoordinatorBus
from kubevo_runtime.driver import Lane, drive
from kubevo_runtime.events import Described, Describing, Ended, Fault, Sink, WarmStarted
from kubevo_runtime.outcomes import Outcomes
from kubevo_runtime.publisher import Bases, Confirmations, Publisher, put_failed
from kubevo_runtime.recordings import Recordings
from kubevo_runtime.store import Run
from kubevo_runtime.threads import to_the_end
from kubevo_runtime.warm_start import import_file, recall

__all__ = ["Outcomes", "can_go_on", "run_experiment"]

ASK_AGAIN_SECONDS = 5.0
DIGEST_LENGTH = 64
MOST_DEAD_LETTERS = 100


async def run_experiment(
    run: Run,
    experiment: Experiment,
    bus: CoordinatorBus,
    sink: Sink,
    clock: Callable[[], float],
    *,
    live: Callable[[], ExperimentSpec] | None = None,
    logs: str | None = None,
) -> Outcomes:
    """Carry every repeat of ``experiment`` to its end.

    ``live`` gives the spec as it is now (the module says what may change), ``logs`` where a person
    finds the workers' last words. Cancelling leaves everything resumable, and waits for a write
    that is under way.

    Raises:
        WarmStartRefused: the source of its warm start cannot be used; nothing was written.
        EnvironmentRefused: an evaluator says that the spec cannot be played.
        StoreError, BusError, RunStopped: as the tree in `kubevo_core.errors` says.
    """
    spec, reported, bases = experiment.spec, Confirmations(), Bases(bus)
    where = logs or f"the workers' logs in {run.path / 'logs'}"
    try:
        await bus.ensure()
        if not await bus.has_room():
            await bus.purge(">")  # else nobody could report: what was not saved is played again
        description, imported = await _prepared(run, spec, bus, sink)
        context = _context(spec, description)
        await _drop_old_bases(bus)
        await _pin(bus, context)

        def lane(repeat: int) -> Lane:
            settings = Settings.of(spec, repeat, description.network)
            return Lane(
                settings=settings,
                store=run.repeat(repeat),
                bus=bus,
                publisher=Publisher(
                    bus,
                    context.digest,
                    sink,
                    repeat=repeat,
                    bases=bases,
                    logs=where,
                    last_worker=reported.last_worker,
                ),
                recordings=Recordings(
                    bus=bus,
                    store=run.repeat(repeat),
                    bases=bases,
                    context=context.digest,
                    settings=settings,
                    live=live or (lambda: spec),
                    sink=sink,
                ),
                live=live or (lambda: spec),
                imported=imported.genomes if imported is not None else (),
                uid=run.uid,
                sink=sink,
                clock=clock,
            )

        with _first_error():
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(_watch_failures(bus, reported, sink))
                states = await _all([lane(repeat) for repeat in range(spec.repeats)])
                while live is not None and any(_goes_on(s, Limits.of(live())) for s in states):
                    states = await _all([lane(repeat) for repeat in range(spec.repeats)])
                watcher.cancel()
        return Outcomes(description, states)
    finally:
        sink(Ended())


async def _all(lanes: list[Lane]) -> tuple[State, ...]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(drive(lane)) for lane in lanes]
        return tuple(task.result() for task in tasks)
    finally:
        for lane in lanes:
            await lane.aclose()


def _goes_on(stopped: State, limits: Limits) -> bool:
    return reopen(stopped, limits).phase is Phase.EVALUATING


def can_go_on(run: Run, spec: ExperimentSpec) -> bool:
    """Tell whether ``spec``'s budget leaves a finished run anything to search; reads only.

    Raises:
        FormatError, StoreError: a repeat's newest checkpoint cannot be read.
    """
    for repeat in range(spec.repeats):
        loaded = run.repeat(repeat).latest()
        if loaded is None:
            return True
        found = checkpoint.decode(loaded.payload)
        settings = Settings.of(spec, repeat, found.finished.population[0].genome.network)
        state = resume(settings, found.finished, found.tests, found.stop)
        if _goes_on(state, Limits.of(spec)):
            return True
    return False


@contextmanager
def _first_error() -> Iterator[None]:
    """Raise a task group's first real error itself, so that callers catch what they know."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group


def _context(spec: ExperimentSpec, description: Description | None) -> Context:
    document = spec.document()
    return Context(
        document["environment"],
        document["policy"],
        spec.evaluator.task_timeout_seconds,
        description,
    )


async def _pin(bus: CoordinatorBus, context: Context) -> None:
    await bus.put_blob(context.digest, context.encode())
    await bus.put_blob(names.CONTEXT, context.digest.encode())


async def _drop_old_bases(bus: CoordinatorBus) -> None:
    """Drop the bases that processes before this one have left; what is needed comes again."""
    for key in await bus.blob_keys():
        if len(key) == DIGEST_LENGTH:
            await bus.drop_blob(key)


async def _prepared(
    run: Run, spec: ExperimentSpec, bus: CoordinatorBus, sink: Sink
) -> tuple[Description, Imported | None]:
    """Return the description and what generation 0 starts from; each is asked for once and kept.

    A source that is not there is refused before a worker is asked anything, one that does not fit
    before anything is written: so the file or resource can be corrected. The description is kept
    last, because its presence says that everything before generation 0 is settled.
    """
    imported = await to_the_end(recall, run, spec)
    stored = await to_the_end(run.description)
    if stored is not None:
        description = Description(**stored)
    else:
        sink(Describing())
        description = await _ask_for_description(spec, bus)
    if imported is not None:
        require_fitting(imported.genomes, description.network, str(imported.source))
        await to_the_end(import_file, run, imported)
    if stored is None:
        await to_the_end(run.save_description, description.document())
    sink(Described(description))
    if imported is not None:
        sink(WarmStarted(imported))
    return description, imported


async def _ask_for_description(spec: ExperimentSpec, bus: CoordinatorBus) -> Description:
    context = _context(spec, None)
    await _pin(bus, context)
    subject = names.describe_subject(context.digest)
    reader = bus.results(subject)
    try:
        while True:
            # Refused while it is queued or held; published again if a broker lost it.
            await bus.publish_task(subject, encode_describe_task(context.digest))
            for body in await reader.fetch(1, ASK_AGAIN_SECONDS):
                answer = decode_describe_answer(body)
                if answer.description is None:
                    raise EnvironmentRefused(answer.refused or "refused without a reason")
                return answer.description
            if subject in await bus.dead_letters(MOST_DEAD_LETTERS):
                await bus.purge_task(subject)  # whoever keeps the workers judges their deaths
    finally:
        await reader.aclose()


async def _watch_failures(bus: CoordinatorBus, confirmations: Confirmations, sink: Sink) -> None:
    """Turn a failure that two workers agree on into a failed result."""
    reader = bus.failures(">")
    try:
        while True:
            for body in await reader.fetch(64, ASK_AGAIN_SECONDS):
                try:
                    report = decode_failure(body)
                except MessageError as exc:
                    sink(Fault("unreadable_failure", str(exc)))
                    continue
                sink(Fault("environment_exception", f"{report.type}: {report.message}"))
                failed = confirmations.confirm(report)
                if failed is not None:
                    await _put_failed_surely(bus, failed, sink)
    finally:
        await reader.aclose()


async def _put_failed_surely(bus: CoordinatorBus, failed: Episode, sink: Sink) -> None:
    while True:
        try:
            await put_failed(bus, failed)
        except BusUnavailable as exc:
            sink(Fault("broker", str(exc)))
            await asyncio.sleep(1)
        else:
            return
