"""A real nats-server with the operator's own configuration, killed and started at a test's will."""

import asyncio
import json
import secrets
import time
from pathlib import Path
from typing import Self

from control_plane import free_ports

from kubevo_operator.nats_accounts import (
    BrokerKeys,
    broker_config,
    coordinator_credentials,
)
from kubevo_runtime.broker import find_server
from kubevo_runtime.processes import start_child, stop_child, tail


class BrokerProcess:
    """A server in operator mode on a fixed port and store, with keys of its own.

    ``authority`` replaces what it includes of those keys: an operator's own configuration.
    """

    def __init__(self, folder: Path) -> None:
        self.keys = BrokerKeys.make(secrets.token_bytes, int(time.time()))
        self.authority = broker_config(self.keys)
        self._folder = folder
        self._port = free_ports(1)[0]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def credentials(self) -> Path:
        """A file with the credentials of who may do everything."""
        path = self._folder / "coordinator.creds"
        path.write_text(coordinator_credentials(self.keys))
        return path

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "auth.conf").write_text(self.authority)
        (self._folder / "nats-server.conf").write_text(
            f'listen: "127.0.0.1:{self._port}"\n'
            f"jetstream {{ store_dir: {json.dumps(str(self._folder / 'store'))}, "
            "max_memory_store: 256MB, max_file_store: 32GB, sync_interval: 1s }\n"
            "include auth.conf\n"
        )
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            await stop_child(self._process, 5)

    async def start(self) -> None:
        """Start the server, and wait until it listens."""
        log = self._folder / "nats-server.log"
        config = self._folder / "nats-server.conf"
        self._process = await start_child([await find_server(), "-c", config], log=log)
        async with asyncio.timeout(30):
            while not await self._listens():
                assert self._process.returncode is None, tail(log, 10)
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Kill it without a word."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        return True
