"""The evaluator processes of a local run: started, watched, started again, stopped together."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from kubevo_core.errors import WorkersFailing
from kubevo_runtime.events import Described, Event, Fault, ResultTaken, Sink
from kubevo_runtime.processes import start_child, stop_child, tail

__all__ = ["WorkerPool"]

READY = "worker_ready"  # kubevo_evaluator.worker: it has passed its self-test
MOST_SAID = 64 * 1024
UNFIT = 3  # kubevo_evaluator.__main__: must not evaluate here
REPLACE = 4  # kubevo_evaluator.__main__: wants to be replaced, nothing is wrong
FAILURES_IN_A_ROW = 5  # of every worker, without a result in between: then no worker stays alive
FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 15.0
# A worker that gives its task back in time saves the next process the rest of the lease.
GRACE_SECONDS = 3.0
STOP_SECONDS = 5.0


class WorkerPool:
    """``count`` worker processes; an async context manager.

    ``environment`` is what the workers are told; ``logs`` the folder that keeps their output, also
    of processes that died. ``watch`` ends only by an error.
    """

    def __init__(self, count: int, environment: Mapping[str, str], logs: Path, sink: Sink) -> None:
        self._environment = {**environment, "KUBEVO_GRACE_SECONDS": str(GRACE_SECONDS)}
        self._logs = logs
        self._sink = sink
        # Deaths of each slot since anybody's last result, and since its own: the first says that
        # nobody works, the second keeps one bad worker from eating the cores of the good ones.
        self._failures = [0] * count
        self._is_described = False
        self._own_failures = [0] * count
        self._names: dict[str, int] = {}
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
        """Take the driver's events: a description or a result shows that workers live."""
        if isinstance(event, Described):
            self._is_described = True
        elif isinstance(event, ResultTaken):
            self._failures = [0] * len(self._failures)
            slot = self._names.get(event.report.worker)
            if slot is not None:
                self._own_failures[slot] = 0

    async def watch(self) -> None:
        """Wait until no worker stays alive.

        Raises:
            WorkersFailing: with the last log lines of one of them.
        """
        await asyncio.gather(*self._keepers)

    def _is_about_the_worker(self, code: int, said: str) -> bool:
        """Tell whether a death says that workers cannot work, or only that a task is deadly.

        A worker that was ready and crashed has cost its task a delivery: the broker counts those,
        and ``spec.failurePolicy.onPoison`` decides. Before there is a description nobody does.
        """
        return code == UNFIT or READY not in said or not self._is_described

    def _log(self, slot: int) -> Path:
        return self._logs / f"worker-{slot}.log"

    async def _keep(self, slot: int) -> None:
        attempt = 0
        while True:
            name = f"{os.getpid()}-{slot}-{attempt}"
            self._names[name] = slot
            environment = {**self._environment, "KUBEVO_WORKER": name}
            argv = [sys.executable, "-m", "kubevo_evaluator"]
            before = self._log(slot).stat().st_size if self._log(slot).exists() else 0
            process = await start_child(argv, env=environment, log=self._log(slot))
            self._processes[slot] = process
            code = await process.wait()
            attempt += 1
            self.restarts += 1
            if code == REPLACE:
                continue
            said = _said(self._log(slot), before)
            self._failures[slot] += self._is_about_the_worker(code, said)
            self._own_failures[slot] += 1
            self._sink(
                Fault("worker_ended", f"worker {slot} ended with code {code}: {_last_words(said)}")
            )
            if min(self._failures) >= FAILURES_IN_A_ROW:
                raise WorkersFailing(
                    f"no worker stays alive: each of {len(self._failures)} ended "
                    f"{FAILURES_IN_A_ROW} times without a result. The last lines of "
                    f"{self._log(slot)}:\n{tail(self._log(slot), 10)}"
                )
            backoff = FIRST_BACKOFF_SECONDS * 2 ** min(self._own_failures[slot] - 1, 20)
            await asyncio.sleep(min(backoff, LONGEST_BACKOFF_SECONDS))


def _said(log: Path, start: int) -> str:
    """Return what a process has logged since ``start``, a position in bytes; bounded."""
    with log.open("rb") as file:
        file.seek(start)
        return file.read(MOST_SAID).decode("utf-8", "replace")


def _last_words(said: str) -> str:
    """Return why a worker ended, in its own words if it left any."""
    line = said.strip().rpartition("\n")[2]
    try:
        event = json.loads(line)
    except ValueError:
        return line[-300:] or "it died without a word"
    if event.get("event") == READY:
        return "it died without a word while it worked"
    return str(event.get("reason") or event.get("error") or event.get("event"))
