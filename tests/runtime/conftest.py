"""A bus to test (the fake one, or the real one over a nats-server), and a worker that plays."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from kubevo_core import messages
from kubevo_core.evaluation import Demand, Episode
from kubevo_core.genome import parse
from kubevo_core.messages import DescribeAnswer, Description, ResultReport
from kubevo_runtime.broker import LocalBroker
from kubevo_runtime.bus import (
    Backlog,
    BusSettings,
    CoordinatorBus,
    QueueMissing,
    WorkerBus,
    connect_coordinator,
    connect_worker,
)
from kubevo_runtime.testing import FakeBus

ACK_WAIT_SECONDS = 1.0
MAX_DELIVER = 3
BACKLOG_SECONDS = 5.0
EXPERIMENT = "test-1a2b3c4d"


@dataclass
class Rig:
    """An Experiment's coordinator and two of its workers."""

    coordinator: CoordinatorBus
    worker: WorkerBus
    other_worker: WorkerBus
    fake: FakeBus | None = None

    async def pass_time(self, seconds: float) -> None:
        if self.fake is not None:
            self.fake.advance(seconds)
        else:
            await asyncio.sleep(seconds)

    async def until_backlog(self, pending: int, held: int) -> None:
        """Wait until the backlog is this: a server counts what is published a little after it answers."""
        expected, found = Backlog(pending, held), await self.coordinator.backlog()
        deadline = time.monotonic() + BACKLOG_SECONDS
        while self.fake is None and found != expected and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            found = await self.coordinator.backlog()
        assert found == expected

    async def until_somebody_waits(self) -> None:
        """Wait until a worker's request has reached the queue."""
        deadline = time.monotonic() + BACKLOG_SECONDS
        is_idle = await self.worker.is_anyone_idle()
        while not is_idle and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            is_idle = await self.worker.is_anyone_idle()
        assert is_idle


@pytest.fixture
def settings_of() -> Callable[..., BusSettings]:
    def make(broker: LocalBroker, **changes: object) -> BusSettings:
        values = {
            "url": broker.url,
            "token": broker.token,
            "experiment": EXPERIMENT,
            "ack_wait_seconds": ACK_WAIT_SECONDS,
            "max_deliver": MAX_DELIVER,
            "request_seconds": 1.0,
            "give_up_seconds": 20.0,
        }
        return BusSettings(**{**values, **changes})

    return make


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Return a function that waits for a condition, and fails when it does not come."""

    async def wait(condition: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            await asyncio.sleep(0.01)

    return wait


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalBroker]:
    folder = tmp_path_factory.mktemp("shared-broker")
    async with LocalBroker(folder / "broker", log=folder / "nats-server.log") as running:
        yield running


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[LocalBroker]:
    async with LocalBroker(tmp_path / "broker", log=tmp_path / "nats-server.log") as running:
        yield running


@pytest.fixture
async def nats_rig(
    broker: LocalBroker, settings_of: Callable[..., BusSettings]
) -> AsyncIterator[Rig]:
    settings = settings_of(broker)
    async with (
        connect_coordinator(settings) as coordinator,
        connect_worker(settings) as worker,
        connect_worker(settings) as other_worker,
    ):
        yield Rig(coordinator, worker, other_worker)


@pytest.fixture(params=["fake", "nats"])
async def rig(
    request: pytest.FixtureRequest,
    shared_broker: LocalBroker,
    settings_of: Callable[..., BusSettings],
) -> AsyncIterator[Rig]:
    """Yield a rig whose streams are made."""
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            fake = FakeBus(ack_wait_seconds=ACK_WAIT_SECONDS, max_deliver=MAX_DELIVER)
            made = Rig(fake.coordinator(), fake.worker(), fake.worker(), fake)
        else:
            # One server for all of these tests, but an Experiment for each of them.
            settings = settings_of(
                shared_broker,
                experiment=f"test-{secrets.token_hex(4)}",
                task_bytes=8 << 20,
                result_bytes=8 << 20,
                blob_bytes=8 << 20,
            )
            made = Rig(
                await stack.enter_async_context(connect_coordinator(settings)),
                await stack.enter_async_context(connect_worker(settings)),
                await stack.enter_async_context(connect_worker(settings)),
            )
        await made.coordinator.ensure()
        yield made
        await made.coordinator.delete()


@pytest.fixture(scope="session")
def synthetic_worker() -> Callable[..., Awaitable[None]]:
    """Return a worker that describes, plays synthetically, publishes, acknowledges; for ever."""

    async def work(
        bus: WorkerBus, play: Callable[[Demand], Episode], network: str = "mlp-4-16-2"
    ) -> None:
        description = Description(network, "numpy", "4 numbers", "2 actions", {})
        while True:
            await asyncio.sleep(0)
            try:
                held = await bus.pull(5)
            except QueueMissing:
                continue
            if held is None:
                continue
            task = messages.decode_task(held.body)
            if isinstance(task, str):
                answer = messages.encode_describe_answer(DescribeAnswer(description, None))
                await bus.put_result(held.episode, answer)
                await held.ack()
                continue
            text = (
                f"kubevo-1:{task.network}:{task.base}".encode()
                if isinstance(task.base, int)
                else await bus.get_blob(task.base)
            )
            if text is None:  # a new coordinator puts it there again
                await held.nak()
                continue
            episode = play(Demand(task.key, parse(text.decode()), task.mutation, task.episode_seed))
            report = ResultReport(episode, "w", task.context, {"play": 0.1})
            await bus.put_result(held.episode, messages.encode_result(report))
            await held.ack()

    return work
