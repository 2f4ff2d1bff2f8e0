"""The broker as a coordinator and a worker see it: bytes in and out, NATS JetStream underneath.

::

    T_<id>  tasks     work queue   a subject is refused while it is queued or held
    R_<id>  results   kept         a subject's first message stays, later ones are refused
    F_<id>  failures  oldest go    failure reports, and the broker's notes on given-up tasks
    K_<id>  blobs     key-value    base genomes and contexts

Everything in the broker can be published again, so every operation is idempotent and is repeated
through an outage, until ``give_up_seconds`` pass. A broker that comes back *without its store* is
noticed by the first operation that misses a stream: the coordinator makes everything again, and
puts back its blobs; tasks and results are for the driver to miss and to republish.

Only this module and its ``bus_*`` parts know nats-py. They avoid what is known to hang in it:
``publish_async`` (futures that never end), ``drain`` (30 s), ``fetch`` (loses a message to a
cancelled wait, and takes a deleted consumer for an empty queue), and reconnects that give up.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
from kubevo_runtime.bus_worker import NatsWorker

__all__ = [
    "Backlog",
    "BusSettings",
    "CoordinatorBus",
    "HeldTask",
    "QueueMissing",
    "Reader",
    "WorkerBus",
    "connect_coordinator",
    "connect_worker",
]


@asynccontextmanager
async def connect_coordinator(settings: BusSettings) -> AsyncIterator[CoordinatorBus]:
    """Connect as the coordinator of an Experiment.

    Raises:
        BusUnavailable: no server answered within ``connect_seconds``.
        ServerTooOld: the server is older than ``MINIMUM_SERVER``.
        BusError: the server refused the credentials.
    """
    async with _connected(settings, "_INBOX") as connection:
        yield NatsCoordinator(connection)


@asynccontextmanager
async def connect_worker(settings: BusSettings) -> AsyncIterator[WorkerBus]:
    """Connect as a worker of an Experiment; raises as `connect_coordinator` does."""
    # Its own prefix, so that a worker's user on the broker can be kept from other inboxes.
    async with _connected(settings, f"_INBOX_{settings.experiment}") as connection:
        worker = NatsWorker(connection)
        try:
            yield worker
        finally:
            await worker.aclose()


@asynccontextmanager
async def _connected(settings: BusSettings, inbox_prefix: str) -> AsyncIterator[Connection]:
    connection = Connection(settings, inbox_prefix)
    try:
        await connection.open()
        yield connection
    finally:
        await connection.close()
