"""A real nats-server for a run on one machine: loopback, a random token, watched and restarted.

It is an ordinary server with an ordinary store, so a local run takes the same path as one on a
cluster. It dies with this process, and what it leaves in its store is picked up by the next one.
"""

import asyncio
import contextlib
import errno
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from random import SystemRandom
from typing import Self

import structlog

from kubevo_core.errors import BusError, BusUnavailable, ServerTooOld
from kubevo_runtime.bus_types import require_version
from kubevo_runtime.processes import start_child, stop_child, tail

__all__ = ["LocalBroker", "find_server"]

PROGRAM = "nats-server"
HOST = "127.0.0.1"
# Below the ports that systems give to outgoing connections: a client that reconnects to such a
# port while the server is down can get it as its own, connect to itself, and keep the server out.
PORTS = range(20000, 32000)
MOST_PORT_TRIES = 50
READY_SECONDS = 30.0
QUICK_SECONDS = 5.0
MOST_QUICK_DEATHS = 5
FIRST_BACKOFF_SECONDS = 0.1
STOP_SECONDS = 5.0
LOG_LINES = 10
NOT_STARTED = "the local broker has not been started: enter it with `async with`"

log = structlog.get_logger()


async def find_server(server: Path | None = None) -> Path:
    """Return the nats-server to use: the given one, or on PATH, or beside the interpreter.

    Raises:
        BusError: there is none, or it cannot be run.
        ServerTooOld: there are only ones that are too old.
    """
    if server is not None:
        candidates = [server]
    else:
        beside = Path(sys.executable).parent / PROGRAM
        on_path = shutil.which(PROGRAM)
        candidates = [Path(on_path)] if on_path else []
        candidates += [beside] if beside.is_file() else []
    if not candidates:
        raise BusError(
            f"{PROGRAM} is neither on PATH nor beside {sys.executable}; install one with: "
            "pip install 'kubevo[local]'"
        )
    too_old = ServerTooOld("no server was tried")
    for candidate in candidates:
        try:
            require_version(await _version(candidate), str(candidate))
        except ServerTooOld as exc:
            too_old = exc
        else:
            return candidate
    raise too_old


async def _version(server: Path) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            server, "--version", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
    except OSError as exc:
        raise BusError(
            f"cannot run {server}: {exc}; install one with: pip install 'kubevo[local]'"
        ) from exc
    output, _ = await process.communicate()
    return output.decode("utf-8", "replace").strip().rpartition(" ")[2]  # nats-server: v2.15.1


class LocalBroker:
    """A nats-server with its store in ``store``, its output in ``log``; an async context manager.

    A server that dies is started again on the same port and store; ``watch`` raises when that
    does not help. ``monitoring`` opens the server's HTTP pages on a free loopback port.
    """

    def __init__(
        self,
        store: Path,
        *,
        log: Path,
        server: Path | None = None,
        port: int | None = None,
        monitoring: bool = False,
        sync_interval: str = "1s",
    ) -> None:
        self._store = store
        self._log = log
        self._server = server
        self._port = port
        self._fixed_port = port is not None
        self._monitoring = monitoring
        self._monitoring_port: int | None = None
        self._sync_interval = sync_interval
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._down_seconds = 0.0
        self.token = secrets.token_urlsafe(24)
        self.restarts = 0

    @property
    def url(self) -> str:
        """Where clients connect; the port is chosen when the broker is entered."""
        return f"nats://{HOST}:{self._require(self._port)}"

    @property
    def monitoring_url(self) -> str:
        """Where the server's HTTP pages are, when they were asked for."""
        return f"http://{HOST}:{self._require(self._monitoring_port)}"

    @property
    def pid(self) -> int:
        """Process id of the server that runs now, or ran last."""
        return self._running().pid

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise BusError(NOT_STARTED)
        return self._process

    def _require(self, value: int | None) -> int:
        if value is None:
            raise BusError(NOT_STARTED)
        return value

    async def __aenter__(self) -> Self:
        server = await find_server(self._server)
        self._store.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._port is None:
            self._port = _free_port()
        elif not _is_free(self._port):
            raise BusError(
                f"port {self._port} on {HOST} is taken by another program; choose another port"
            )
        if self._monitoring:
            self._monitoring_port = _free_port()
        config = self._write_config()
        await self._start(server, config)
        try:
            await self._wait_until_ready()
        except BaseException:
            await self._stop()
            raise
        self._supervisor = asyncio.create_task(self._supervise(server, config))
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        await self._stop()

    async def watch(self) -> None:
        """Wait until the server cannot be kept running.

        Raises:
            BusError: it died too often; the message has its last log lines.
        """
        if self._supervisor is None:
            raise BusError(NOT_STARTED)
        await asyncio.shield(self._supervisor)

    async def kill(self, *, down_seconds: float = 0.0) -> None:
        """Kill the server with SIGKILL, for a test of recovery; it stays down for a while."""
        process = self._running()
        self._down_seconds = down_seconds
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def _write_config(self) -> Path:
        # A JSON string is also a string of the server's language.
        lines = [
            f"listen: {json.dumps(f'{HOST}:{self._port}')}",
            "server_name: kubevo-local",
            f"authorization {{ token: {json.dumps(self.token)} }}",
            "jetstream {",
            f"  store_dir: {json.dumps(str(self._store.resolve()))}",
            f"  sync_interval: {json.dumps(self._sync_interval)}",
            # Stated, because the default depends on the disk and streams reserve their limits.
            "  max_memory_store: 256MB",
            "  max_file_store: 8GB",
            "}",
        ]
        if self._monitoring_port is not None:
            lines.append(f"http: {json.dumps(f'{HOST}:{self._monitoring_port}')}")
        path = self._store / "nats-server.conf"
        path.unlink(missing_ok=True)
        # It holds the token, so it is never readable by others, not even for a moment.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        return path

    async def _start(self, server: Path, config: Path) -> None:
        self._process = await start_child([server, "--config", config], log=self._log)

    async def _wait_until_ready(self) -> None:
        process = self._running()
        deadline = _now() + READY_SECONDS
        while True:
            if process.returncode is not None:
                raise BusError(
                    f"{PROGRAM} ended with code {process.returncode} before it answered "
                    f"at {self.url}. {self._last_lines()}"
                )
            if await _answers(self._port or 0):
                return
            if _now() >= deadline:
                raise BusUnavailable(
                    f"{PROGRAM} did not answer at {self.url} within {READY_SECONDS:g} s. "
                    f"{self._last_lines()}"
                )
            await asyncio.sleep(0.01)

    async def _supervise(self, server: Path, config: Path) -> None:
        quick_deaths = 0
        while True:
            started = _now()
            code = await self._running().wait()
            quick_deaths = quick_deaths + 1 if _now() - started < QUICK_SECONDS else 1
            log.warning("broker_died", code=code, in_a_row=quick_deaths)
            if quick_deaths > MOST_QUICK_DEATHS:
                raise BusError(
                    f"{PROGRAM} at {self.url} died {quick_deaths} times in a row within "
                    f"{QUICK_SECONDS:g} s of its start; the run can be resumed. "
                    f"{self._last_lines()}"
                )
            backoff = FIRST_BACKOFF_SECONDS * 2 ** (quick_deaths - 1)
            down_seconds, self._down_seconds = self._down_seconds, 0.0
            await asyncio.sleep(max(backoff, down_seconds))
            await self._start(server, config)
            self.restarts += 1

    def _last_lines(self) -> str:
        return f"The last lines of {self._log}:\n{tail(self._log, LOG_LINES)}"

    async def _stop(self) -> None:
        if self._process is not None:
            await stop_child(self._process, STOP_SECONDS)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the server does it: connections of a server before may still be in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            if exc.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            return False
    return True


def _free_port() -> int:
    choice = SystemRandom()
    for _ in range(MOST_PORT_TRIES):
        port = choice.choice(PORTS)
        if _is_free(port):
            return port
    raise BusError(
        f"no free port on {HOST} in {PORTS.start}-{PORTS.stop - 1} after {MOST_PORT_TRIES} tries; "
        "end some of the programs that listen there"
    )


async def _answers(port: int) -> bool:
    """Tell whether a NATS server greets on ``port``; it does once its streams are recovered."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(1):
            return (await reader.readline()).startswith(b"INFO ")
    except (TimeoutError, OSError):
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
