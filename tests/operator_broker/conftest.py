"""A real nats-server in operator mode, that can be killed and started again, and users on it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
import pytest_asyncio

from kubevo_operator.nats_accounts import (
    BrokerKeys,
    broker_config,
    coordinator_credentials,
    evaluator_credentials,
)
from kubevo_runtime.broker import _answers, _free_port, find_server
from kubevo_runtime.bus import BusSettings
from kubevo_runtime.processes import start_child, stop_child

CREATED = 1_790_000_000


def keys_of(number: int) -> BrokerKeys:
    """Return the keys that a source of randomness with this number gives."""
    words = iter(range(number * 100, number * 100 + 3))
    return BrokerKeys.make(lambda count: next(words).to_bytes(count, "big"), CREATED)


class Broker:
    """A nats-server whose configuration includes the public part of some keys."""

    def __init__(self, folder: Path, keys: BrokerKeys, extra: str = "") -> None:
        self.folder, self.keys, self.extra = folder, keys, extra
        self.port = _free_port()
        self.log = folder / "nats-server.log"
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        (self.folder / "auth.conf").write_text(broker_config(self.keys))
        config = self.folder / "nats-server.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f"jetstream {{ store_dir: {json.dumps(str(self.folder / 'store'))}, "
            f"max_memory_store: 64MB, max_file_store: 8GB }}\n{self.extra}\n"
            "include auth.conf\n"
        )
        self.process = await start_child([await find_server(), "-c", config], log=self.log)
        while not await _answers(self.port):
            assert self.process.returncode is None, self.log.read_text()
            await asyncio.sleep(0.01)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            await stop_child(self.process, 5)

    def credentials(self, experiment: str | None, keys: BrokerKeys | None = None) -> Path:
        """Write the credentials of an Experiment's evaluators, or the coordinator's."""
        keys = keys or self.keys
        text = (
            coordinator_credentials(keys)
            if experiment is None
            else evaluator_credentials(keys, experiment)
        )
        path = self.folder / f"{experiment or 'coordinator'}-{keys.account[:8]}.creds"
        path.write_text(text)
        return path

    def settings(self, experiment: str, *, worker: bool, **changes: object) -> BusSettings:
        values: dict[str, object] = {
            "url": self.url,
            "experiment": experiment,
            "credentials": self.credentials(experiment if worker else None),
            "request_seconds": 1.0,
            "give_up_seconds": 20.0,
            "task_bytes": 8 << 20,
            "result_bytes": 8 << 20,
            "failure_bytes": 8 << 20,
            "blob_bytes": 8 << 20,
        }
        return BusSettings(**{**values, **changes})


class User:
    """A bare client with some credentials, which remembers what the server denied it."""

    def __init__(self, client: nats.NATS) -> None:
        self.client = client
        self.denied: list[str] = []

    async def _said(self, what: str) -> str:
        """Return what the server has said about ``what`` by the time it answers a ping."""
        for _ in range(2):  # the first ping may overtake what was sent before it
            await self.client.flush()
        said, self.denied = " ".join(self.denied), []
        assert not said or "permissions violation" in said.lower(), f"{what}: {said}"
        return said

    async def publish(self, subject: str, body: bytes = b"", reply: str = "") -> str:
        await self.client.publish(subject, body, reply=reply)
        return await self._said(subject)

    async def subscribe(self, subject: str) -> str:
        subscription = await self.client.subscribe(subject)
        said = await self._said(subject)
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()
        return said


@contextlib.asynccontextmanager
async def user(broker: Broker, experiment: str | None) -> AsyncIterator[User]:
    """Connect as an Experiment's worker, or as the coordinator."""
    made = User(nats.NATS())

    async def remember(exc: Exception) -> None:
        made.denied.append(str(exc))

    await made.client.connect(
        broker.url,
        user_credentials=str(broker.credentials(experiment)),
        error_cb=remember,
        allow_reconnect=False,
        inbox_prefix=f"_INBOX_{experiment}" if experiment else "_INBOX",
    )
    try:
        yield made
    finally:
        await made.client.close()


@pytest.fixture(scope="session")
def make_keys():
    return keys_of


@pytest.fixture(scope="session")
def connect_user():
    return user


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_operated_broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("operated"), keys_of(1))
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture
async def make_broker(tmp_path: Path):
    """Return a maker of brokers of one test; they end with it."""
    made: list[Broker] = []

    async def make(keys: BrokerKeys | None = None, extra: str = "") -> Broker:
        folder = tmp_path / f"broker-{len(made)}"
        folder.mkdir()
        broker = Broker(folder, keys or keys_of(1), extra)
        made.append(broker)
        await broker.start()
        return broker

    yield make
    for broker in made:
        await broker.stop()
