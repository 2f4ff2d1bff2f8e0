"""The pool of worker processes: real processes that end as they are told, without a broker."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from kubevo_cli import workers
from kubevo_cli.workers import WorkerPool
from kubevo_core.errors import WorkersFailing
from kubevo_core.evaluation import Episode, Key
from kubevo_core.generation import Outcome
from kubevo_core.messages import ResultReport
from kubevo_core.seeding import Purpose
from kubevo_runtime.events import Fault, ResultTaken

# Stands in the place of the real package: how each worker ends is in a file named by its slot.
PACKAGE = """
import os, sys, time
from pathlib import Path
folder = Path(os.environ["POOL_TEST"])
name = os.environ["KUBEVO_WORKER"]
slot = name.split("-")[1]
with (folder / f"starts-{slot}").open("a") as file:
    file.write(f"{name} {os.environ['KUBEVO_GRACE_SECONDS']}\\n")
how = (folder / f"how-{slot}").read_text()
if how == "live":
    time.sleep(60)
print(f"worker {name} is broken", flush=True)
os._exit(int(how))
"""


class Rig:
    def __init__(self, folder, count):
        package = folder / "stub/kubevo_evaluator"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(PACKAGE)
        self.folder, self.faults = folder, []
        environment = {**os.environ, "POOL_TEST": str(folder)}
        environment["PYTHONPATH"] = str(package.parent)
        self.pool = WorkerPool(count, environment, folder / "logs", self.faults.append)

    def how(self, slot, text):
        (self.folder / f"how-{slot}").write_text(text)

    def starts(self, slot):
        file: Path = self.folder / f"starts-{slot}"
        return file.read_text().splitlines() if file.exists() else []

    async def until(self, condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            await asyncio.sleep(0.01)


@pytest.fixture
def rig(tmp_path):
    return lambda count: Rig(tmp_path, count)


def result_of(worker):
    key = Key(0, 0, Purpose.POPULATION, 0, "0" * 64, 0)
    return ResultTaken(Outcome.ACCEPTED, ResultReport(Episode(key, 1.0, 1, 1), worker, "", {}))


async def test_a_killed_worker_is_started_again_under_a_new_name(rig):
    there = rig(2)
    there.how(0, "live")
    there.how(1, "live")
    async with there.pool as pool:
        await there.until(lambda: there.starts(0) and there.starts(1))
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)
        await there.until(lambda: len(there.starts(0)) == len(there.starts(1)) == 2)
        names = [line.split()[0] for slot in (0, 1) for line in there.starts(slot)]
        assert len(set(names)) == 4
        pids = pool.pids
    assert [fault.kind for fault in there.faults] == ["worker_ended"] * 2
    assert all(isinstance(fault, Fault) and "code -9" in fault.message for fault in there.faults)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_worker_may_finish_or_give_back_its_task_before_it_is_killed(rig):
    there = rig(1)
    there.how(0, "live")
    async with there.pool:
        await there.until(lambda: there.starts(0))
    assert float(there.starts(0)[0].split()[1]) < workers.STOP_SECONDS


async def test_workers_that_all_end_are_an_error_with_their_last_lines(rig):
    there = rig(2)
    there.how(0, "3")
    there.how(1, "1")
    async with there.pool as pool:
        with pytest.raises(WorkersFailing, match=r"each of 2 ended 5 times.*\n.*is broken"):
            await asyncio.wait_for(pool.watch(), 60)


async def test_a_worker_that_wants_to_be_replaced_is_no_failure(rig):
    there = rig(1)
    there.how(0, "4")
    async with there.pool as pool:
        await there.until(lambda: len(there.starts(0)) > workers.FAILURES_IN_A_ROW + 1)
        there.how(0, "live")
        assert there.faults == []
        await there.until(lambda: pool.pids)


async def test_one_bad_worker_is_started_less_and_less_often_while_others_give_results(rig):
    there = rig(2)
    there.how(0, "3")
    there.how(1, "live")
    async with there.pool as pool:
        watching = asyncio.create_task(pool.watch())
        await there.until(lambda: there.starts(1))
        good = there.starts(1)[0].split()[0]
        began = time.monotonic()
        while len(there.starts(0)) < 6:
            pool.observe(result_of(good))
            await asyncio.sleep(0.01)
        # 0.1 + 0.2 + 0.4 + 0.8 + 1.6 s of waits; without them it would eat a core.
        assert time.monotonic() - began >= 1.5
        assert not watching.done()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_workers_own_result_forgives_its_failures(rig):
    there = rig(1)
    there.how(0, "3")
    async with there.pool as pool:
        await there.until(lambda: len(there.starts(0)) == 4)
        there.how(0, "live")
        await there.until(lambda: len(there.starts(0)) == 5)
        pool.observe(result_of(there.starts(0)[-1].split()[0]))
        assert pool._own_failures == [0]
