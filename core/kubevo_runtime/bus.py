"""The broker as a coordinator and a worker see it: bytes in and out, NATS JetStream underneath.

::

    T_<id>  tasks     work queue   a subject is refused while it is queued or held
    R_<id>  results   kept         a subject's first message stays, later ones are refused
    F_<id>  failures  oldest go    failure reports, and the broker's notes on given-up tasks
    K_<id>  blobs     key-value    base genomes and contexts
    V_<id>  videos    oldest go    recordings on their way; only where something is recorded

Everything in the broker can be published again, so every operation is idempotent and is repeated
through an outage, until ``give_up_seconds`` pass. A broker that comes back *without its store* is
noticed by the first operation that misses a stream: the coordinator makes everything again, and
puts back its blobs; tasks and results are for the driver to miss and to republish.

Only this module and its ``bus_*`` parts know nats-py. They avoid what is known to hang in it:
``publish_async`` (futures that never end), ``drain`` (30 s), ``fetch`` (loses a message to a
cancelled wait, and takes a deleted consumer for an empty queue), and reconnects that give up.
"""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from nats.js.errors import APIError

from kubevo_core import names
from kubevo_runtime.bus_connection import Connection
from kubevo_runtime.bus_coordinator import NatsCoordinator
from kubevo_runtime.bus_types import (
    Backlog,
    BusSettings,
    CoordinatorBus,
    HeldTask,
    QueueMissing,
    Reader,
    WorkerBus,
)
from kubevo_runtime.bus_worker import NatsWorker, blob_stream, blob_subject

__all__ = [
    "Backlog",
    "BusSettings",
    "CoordinatorBus",
    "HeldTask",
    "QueueMissing",
    "Reader",
    "WorkerBus",
    "WorkerRights",
    "connect_coordinator",
    "connect_worker",
    "experiments_on",
    "worker_rights",
]

# As `names.experiment_id` makes them, with eight digits of the uid or more.
_ID = re.compile(r"[A-Za-z0-9_-]+-[0-9a-f]{8,32}")


@asynccontextmanager
async def connect_coordinator(settings: BusSettings) -> AsyncIterator[CoordinatorBus]:
    """Connect as the coordinator of an Experiment.

    Raises:
        BusUnavailable: no server answered within ``connect_seconds``.
        ServerTooOld: the server is older than ``MINIMUM_SERVER``.
        BusError: the credentials or certificates cannot be used, or the server refused them. Once
            connected, what it refuses at a reconnect is asked again, like what it does not answer.
    """
    async with _connected(settings, "_INBOX") as connection:
        yield NatsCoordinator(connection)


@asynccontextmanager
async def connect_worker(settings: BusSettings) -> AsyncIterator[WorkerBus]:
    """Connect as a worker of an Experiment; raises as `connect_coordinator` does."""
    # Its own prefix, so that a worker's user on the broker can be kept from other inboxes.
    async with _connected(settings, _worker_inbox(settings.experiment)) as connection:
        worker = NatsWorker(connection)
        try:
            yield worker
        finally:
            await worker.aclose()


def _worker_inbox(experiment: str) -> str:
    return f"_INBOX_{experiment}"


class WorkerRights(NamedTuple):
    """The subjects that a worker publishes to and listens on; ``>`` stands for any tail."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def worker_rights(experiment: str) -> WorkerRights:
    """Return what an Experiment's workers need of the broker, and nothing else."""
    tasks, bucket = names.task_stream(experiment), names.bucket(experiment)
    return WorkerRights(
        publish=(
            f"$JS.API.CONSUMER.MSG.NEXT.{tasks}.{names.CONSUMER}",
            f"$JS.API.CONSUMER.INFO.{tasks}.{names.CONSUMER}",
            f"$JS.ACK.{tasks}.{names.CONSUMER}.>",
            # With the domain and the account before the stream: the form that is to come.
            f"$JS.ACK.*.*.{tasks}.{names.CONSUMER}.>",
            f"$JS.API.DIRECT.GET.{blob_stream(bucket)}.{blob_subject(bucket, '>')}",
            names.result_subject(experiment, ">"),
            names.failure_subject(experiment, ">"),
            names.recording_subject(experiment, "*", "*"),
        ),
        subscribe=(f"{_worker_inbox(experiment)}.>",),
    )


async def experiments_on(settings: BusSettings) -> list[str]:
    """Return the ids of the Experiments that have anything on the broker, sorted.

    Raises as `connect_coordinator` does; ``settings.experiment`` plays no part.
    """
    found: set[str] = set()
    async with _connected(settings, "_INBOX") as connection:
        seen, total = 0, 1
        while seen < total:

            async def attempt(offset: int = seen) -> tuple[list[str], int]:
                answer = await connection.client.request(
                    "$JS.API.STREAM.NAMES",
                    json.dumps({"offset": offset}).encode(),
                    timeout=settings.request_seconds,
                )
                page = json.loads(answer.data)
                if "error" in page:
                    APIError.from_error(page["error"])
                return page["streams"] or [], page["total"]

            streams, total = await connection.call("listing the streams", attempt)
            found |= {identifier for stream in streams for identifier in _experiment_of(stream)}
            seen += len(streams) or total
    return sorted(found)


def _experiment_of(stream: str) -> list[str]:
    """Return the Experiment that a stream belongs to, if it is one of ours."""
    makers = (
        names.task_stream,
        names.result_stream,
        names.failure_stream,
        names.recording_stream,
        lambda experiment: blob_stream(names.bucket(experiment)),
    )
    prefixes = [make("") for make in makers]
    tails = [stream.removeprefix(prefix) for prefix in prefixes if stream.startswith(prefix)]
    return [tail for tail in tails if _ID.fullmatch(tail)]


@asynccontextmanager
async def _connected(settings: BusSettings, inbox_prefix: str) -> AsyncIterator[Connection]:
    connection = Connection(settings, inbox_prefix)
    try:
        await connection.open()
        yield connection
    finally:
        await connection.close()
