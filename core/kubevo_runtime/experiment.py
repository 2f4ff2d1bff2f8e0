"""One Experiment on a broker and a directory: describe it, drive its repeats, sum them up."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kubevo_core import names
from kubevo_core.errors import BusUnavailable, EnvironmentRefused, MessageError
from kubevo_core.evaluation import Episode
from kubevo_core.generation import Limits, Settings, State
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
from kubevo_runtime.events import Described, Fault, Sink
from kubevo_runtime.publisher import Confirmations, Publisher, put_failed
from kubevo_runtime.store import Run

__all__ = ["Outcomes", "run_experiment"]

ASK_AGAIN_SECONDS = 5.0
DIGEST_LENGTH = 64
MOST_DEAD_LETTERS = 100


@dataclass(frozen=True)
class Outcomes:
    """What a finished Experiment gave: its description and the last state of each repeat."""

    description: Description
    states: tuple[State, ...]


async def run_experiment(
    run: Run,
    experiment: Experiment,
    bus: CoordinatorBus,
    sink: Sink,
    clock: Callable[[], float],
) -> Outcomes:
    """Carry every repeat of ``experiment`` to its end.

    Cancelling leaves everything resumable.

    Raises:
        EnvironmentRefused: an evaluator says that the spec cannot be played.
        StoreError, BusError, RunStopped: as the tree in `kubevo_core.errors` says.
    """
    spec = experiment.spec
    await bus.ensure()
    description = await _described(run, spec, bus, sink)
    context = _context(spec, description)
    await _drop_old_bases(bus)
    await _pin(bus, context)
    limits = Limits.of(spec)
    lanes = [
        Lane(
            settings=Settings.of(spec, repeat, description.network),
            store=run.repeat(repeat),
            bus=bus,
            publisher=Publisher(bus, context.digest, sink),
            limits=lambda: limits,
            keep=spec.checkpoint,
            failure_policy=spec.failure_policy,
            uid=run.uid,
            sink=sink,
            clock=clock,
        )
        for repeat in range(spec.repeats)
    ]
    with _first_error():
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(_watch_failures(bus, sink))
            states = await _all(lanes)
            watcher.cancel()
    return Outcomes(description, states)


async def _all(lanes: list[Lane]) -> tuple[State, ...]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(drive(lane)) for lane in lanes]
        return tuple(task.result() for task in tasks)
    finally:
        for lane in lanes:
            await lane.aclose()


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


async def _described(
    run: Run, spec: ExperimentSpec, bus: CoordinatorBus, sink: Sink
) -> Description:
    """Return the stored description, or ask an evaluator once and store its answer first."""
    stored = await asyncio.to_thread(run.description)
    if stored is not None:
        description = Description(**stored)
    else:
        description = await _ask_for_description(spec, bus)
        await asyncio.to_thread(run.save_description, description.document())
    sink(Described(description))
    return description


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


async def _watch_failures(bus: CoordinatorBus, sink: Sink) -> None:
    """Turn a failure that two workers agree on into a failed result."""
    confirmations = Confirmations()
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
