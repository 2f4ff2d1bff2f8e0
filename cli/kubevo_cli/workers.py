"""The evaluator processes of a local run: started, watched, started again, stopped together."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from kubevo_core.errors import WorkersFailing
from kubevo_runtime.events import Event, Fault, ResultTaken, Sink
from kubevo_runtime.processes import start_child, stop_child, tail

__all__ = ["WorkerPool"]

REPLACE = 4  # kubevo_evaluator.__main__: wants to be replaced, nothing is wrong
FAILURES_IN_A_ROW = 5  # of every worker, without a result in between: then no worker stays alive
FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 5.0
STOP_SECONDS = 5.0


class WorkerPool:
    """``count`` worker processes; an async context manager.

    ``environment`` is what the workers are told; ``logs`` the folder that keeps their output, also
    of processes that died. ``watch`` ends only by an error.
    """

    def __init__(self, count: int, environment: Mapping[str, str], logs: Path, sink: Sink) -> None:
        self._environment = dict(environment)
        self._logs = logs
        self._sink = sink
        self._failures = [0] * count
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self.restarts = 0

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._keepers = [
            asyncio.create_task(self._keep(slot)) for slot in range(len(self._failures))
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(
            *(stop_child(process, STOP_SECONDS) for process in self._processes.values())
        )

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [p.pid for p in self._processes.values() if p.returncode is None]

    def observe(self, event: Event) -> None:
        """Take the driver's events: a result shows that workers live."""
        if isinstance(event, ResultTaken):
            self._failures = [0] * len(self._failures)

    async def watch(self) -> None:
        """Wait until no worker stays alive.

        Raises:
            WorkersFailing: with the last log lines of one of them.
        """
        await asyncio.gather(*self._keepers)

    def _log(self, slot: int) -> Path:
        return self._logs / f"worker-{slot}.log"

    async def _keep(self, slot: int) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        attempt = 0
        while True:
            environment = {
                **self._environment,
                "KUBEVO_WORKER": f"{os.getpid()}-{slot}-{attempt}",
            }
            argv = [sys.executable, "-m", "kubevo_evaluator"]
            process = await start_child(argv, env=environment, log=self._log(slot))
            self._processes[slot] = process
            code = await process.wait()
            attempt += 1
            self.restarts += 1
            if code == REPLACE:
                continue
            if self._failures[slot] == 0:
                backoff = FIRST_BACKOFF_SECONDS
            self._failures[slot] += 1
            last = tail(self._log(slot), 3)
            self._sink(
                Fault("worker_ended", f"worker {slot} ended with code {code}: {last[-300:]}")
            )
            if min(self._failures) >= FAILURES_IN_A_ROW:
                raise WorkersFailing(
                    f"no worker stays alive: each of {len(self._failures)} ended "
                    f"{FAILURES_IN_A_ROW} times without a result. The last lines of "
                    f"{self._log(slot)}:\n{tail(self._log(slot), 10)}"
                )
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)
