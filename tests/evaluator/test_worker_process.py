"""``python -m kubevo_evaluator`` over a real broker: signals, freezes, kills and exit codes."""

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from kubevo_core import messages, names, spec
from kubevo_core.evaluation import Key
from kubevo_core.genome import Genome
from kubevo_core.messages import Context, Task
from kubevo_core.seeding import Purpose
from kubevo_evaluator.description import describe
from kubevo_runtime.broker import LocalBroker
from kubevo_runtime.bus import BusSettings, connect_coordinator
from kubevo_runtime.processes import start_child

PLUGINS = Path(__file__).parent / "plugins"
MODULE = "kubevo_worker_environments"
EXPERIMENT = "test-1a2b3c4d"
POLICY = {"network": "mlp", "hiddenLayers": [4], "backend": "numpy"}


class Rig:
    """A real broker with one pinned context, and worker processes on it."""

    def __init__(self, folder, broker, bus, environment):
        self.folder, self.broker, self.bus = folder, broker, bus
        self.environment = environment
        self.processes = []

    async def pin(self, **changes):
        policy = POLICY
        if self.environment["id"].startswith("ALE/"):
            policy = {"network": "dqn", "backend": "numpy"}
        described = describe(
            spec.Environment.model_validate(self.environment), spec.Policy.model_validate(policy)
        )
        self.context = replace(Context(self.environment, policy, 3600, described), **changes)
        await self.bus.put_blob(self.context.digest, self.context.encode())
        await self.bus.put_blob("context", self.context.digest.encode())

    async def add(self, slot=0):
        network = self.context.description.network
        genome = Genome(network, 7 + slot)
        key = Key(0, 0, Purpose.POPULATION, slot, genome.digest, 0)
        task = Task(key, 11 + slot, network, genome.init_seed, None, self.context.digest)
        episode = names.episode_subject(key)
        assert await self.bus.publish_task(episode, messages.encode_task(task))
        return episode

    async def start(self, name, **environment):
        process = await start_child(
            [sys.executable, "-m", "kubevo_evaluator"],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(PLUGINS), os.environ.get("PYTHONPATH", "")]),
                "KUBEVO_NATS_URL": self.broker.url,
                "KUBEVO_NATS_TOKEN": self.broker.token,
                "KUBEVO_EXPERIMENT_ID": EXPERIMENT,
                "KUBEVO_WORKER": name,
                **environment,
            },
            log=self.folder / f"{name}.log",
        )
        self.processes.append(process)
        return process

    def log(self, name):
        """Return a worker's log lines that are events."""
        lines = (self.folder / f"{name}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def started(self, name):
        """Wait until a worker is in the midst of a blocked episode."""
        await self.until((self.folder / f"started-{name}").exists)

    async def until(self, condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            await asyncio.sleep(0.01)

    async def result(self, episode, seconds=30):
        deadline = time.monotonic() + seconds
        while (body := await self.bus.result(episode)) is None:
            assert time.monotonic() < deadline, f"no result of {episode}"
            await asyncio.sleep(0.01)
        return messages.decode_result(body)

    async def idle(self, seconds=30):
        deadline = time.monotonic() + seconds
        while (backlog := await self.bus.backlog()).pending + backlog.held:
            assert time.monotonic() < deadline, backlog
            await asyncio.sleep(0.01)

    def go(self):
        (self.folder / "go").touch()


@pytest.fixture
async def rig(tmp_path, monkeypatch):
    """Return a maker of rigs; broker and workers end with the test."""
    monkeypatch.syspath_prepend(str(PLUGINS))
    async with AsyncExitStack() as stack:
        broker = LocalBroker(tmp_path / "broker", log=tmp_path / "nats-server.log")
        await stack.enter_async_context(broker)
        made = []

        async def make(fault="block", ack_wait_seconds=30.0, identifier=None):
            arguments = {"fault": json.dumps(fault), "folder": json.dumps(str(tmp_path))}
            environment = {"id": f"{MODULE}:KubevoFaulty-v0", "kwargs": arguments}
            if identifier is not None:
                environment = {"id": identifier, "kwargs": {}}
            settings = BusSettings(
                url=broker.url,
                experiment=EXPERIMENT,
                token=broker.token,
                ack_wait_seconds=ack_wait_seconds,
            )
            bus = await stack.enter_async_context(connect_coordinator(settings))
            await bus.ensure()
            made.append(Rig(tmp_path, broker, bus, environment))
            await made[-1].pin()
            return made[-1]

        yield make
        for process in [process for each in made for process in each.processes]:
            if process.returncode is None:
                process.kill()
            await process.wait()
    sys.modules.pop(MODULE, None)


async def ended(process, seconds=30):
    return await asyncio.wait_for(process.wait(), seconds)


async def test_sigterm_lets_the_episode_finish_within_its_grace(rig):
    there = await rig()
    first, second = await there.add(0), await there.add(1)
    worker = await there.start("w0")
    await there.started("w0")
    worker.send_signal(signal.SIGTERM)
    there.go()
    assert await ended(worker) == 0
    assert (await there.result(first)).worker == "w0"
    assert await there.bus.result(second) is None
    assert (await there.bus.backlog()).pending == 1


async def test_sigterm_gives_back_what_was_taken_ahead_and_the_episode_ends(rig, tmp_path):
    there = await rig(ack_wait_seconds=600.0)
    (tmp_path / "once").touch()
    episodes = [await there.add(slot) for slot in range(6)]
    worker = await there.start("w0")
    for episode in episodes[:2]:  # it learns that the fleet takes one task in one of its turns
        there.go()
        await there.result(episode)
    deadline = time.monotonic() + 30
    while (await there.bus.backlog()).held < 2:
        assert time.monotonic() < deadline, "nothing was taken ahead"
        await asyncio.sleep(0.01)
    worker.send_signal(signal.SIGTERM)
    (tmp_path / "once").unlink()
    there.go()
    assert await ended(worker) == 0
    await there.start("w1")  # the lease would have taken ten minutes
    workers = [(await there.result(episode)).worker for episode in episodes]
    assert workers == ["w0"] * 3 + ["w1"] * 3
    await there.idle()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_out_of_grace_the_task_goes_to_another_worker_at_once(rig, number):
    there = await rig(ack_wait_seconds=600.0)
    episode = await there.add()
    worker = await there.start("w0", KUBEVO_GRACE_SECONDS="0.1")
    await there.started("w0")
    worker.send_signal(number)
    assert await ended(worker) == 0
    assert "given back" in there.log("w0")[-1]["reason"]
    there.go()
    await there.start("w1")
    assert (await there.result(episode)).worker == "w1"  # the lease would have taken ten minutes
    await there.idle()


async def test_an_idle_worker_ends_with_code_0_at_sigterm(rig):
    there = await rig("")
    episode = await there.add()
    worker = await there.start("w0")
    await there.result(episode)
    await there.idle()
    worker.send_signal(signal.SIGTERM)
    assert await ended(worker, 5) == 0


async def test_a_killed_worker_costs_a_lease_and_nothing_else(rig):
    there = await rig(ack_wait_seconds=1.0)
    episode = await there.add()
    worker = await there.start("w0", KUBEVO_ACK_WAIT_SECONDS="1")
    await there.started("w0")
    worker.kill()
    await ended(worker)
    there.go()
    await there.start("w1", KUBEVO_ACK_WAIT_SECONDS="1")
    assert (await there.result(episode)).worker == "w1"
    await there.idle()


async def test_a_worker_that_was_frozen_comes_late_and_changes_nothing(rig):
    there = await rig(ack_wait_seconds=1.0)
    episode = await there.add()
    frozen = await there.start("w0", KUBEVO_ACK_WAIT_SECONDS="1")
    await there.started("w0")
    frozen.send_signal(signal.SIGSTOP)
    try:
        await there.start("w1", KUBEVO_ACK_WAIT_SECONDS="1")
        await there.started("w1")  # one redelivery, after the lease
        there.go()
        first = await there.result(episode)
        assert first.worker == "w1"
        await there.idle()
    finally:
        frozen.send_signal(signal.SIGCONT)
    later = await there.add(1)  # it works on
    await there.result(later)
    frozen.send_signal(signal.SIGTERM)
    assert await ended(frozen) == 0
    assert await there.result(episode) == first


@pytest.mark.alone
async def test_an_episode_longer_than_the_lease_is_played_once(rig):
    there = await rig(ack_wait_seconds=1.0)
    episode = await there.add()
    await there.start("w0", KUBEVO_ACK_WAIT_SECONDS="1")
    await there.started("w0")
    await there.start("w1", KUBEVO_ACK_WAIT_SECONDS="1")
    # Three leases, by the broker's own clock: nothing to wait for but the time itself.
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3.2):
            await there.started("w1")
    there.go()
    assert (await there.result(episode)).worker == "w0"
    await there.idle()


async def test_an_environment_that_raises_has_a_worker_replaced_when_it_is_alone(rig):
    there = await rig("ValueError")
    episode = await there.add()
    assert await ended(await there.start("w0")) == 4
    assert await ended(await there.start("w1")) == 4
    reader = there.bus.failures(">")
    reports = [messages.decode_failure(body) for body in await reader.fetch(10, 5)]
    await reader.aclose()
    assert [(report.worker, report.type, report.steps) for report in reports] == [
        ("w0", "ValueError", 5),
        ("w1", "ValueError", 5),
    ]
    assert await there.bus.result(episode) is None


@pytest.mark.parametrize("fault", ["OSError", "MemoryError", "ImportError", "SystemExit"])
async def test_what_a_machine_lacks_ends_the_worker_with_code_3_and_says_why(rig, fault):
    there = await rig(fault, ack_wait_seconds=600.0)
    episode = await there.add()
    assert await ended(await there.start("w0")) == 3
    last = there.log("w0")[-1]
    assert (last["event"], last["worker"]) == ("worker_unfit", "w0")
    assert fault in last["reason"]
    assert await there.bus.result(episode) is None
    reader = there.bus.failures(">")
    assert await reader.fetch(1, 0.1) == []
    await reader.aclose()
    backlog = await there.bus.backlog()
    assert backlog.pending + backlog.held == 1


async def test_a_missing_rom_ends_the_worker_before_it_takes_a_task(rig, tmp_path):
    there = await rig(identifier="ALE/Pong-v5")
    await there.add()
    (tmp_path / "no-roms").mkdir()
    worker = await there.start("w0", ALE_ROMS_DIR=str(tmp_path / "no-roms"))
    assert await ended(worker) == 3
    assert "ROM" in there.log("w0")[-1]["reason"]
    assert (await there.bus.backlog()).pending == 1


async def test_another_fingerprint_ends_the_worker_before_it_takes_a_task(rig):
    there = await rig("")
    prints = {**there.context.description.fingerprint, "forward": "00"}
    await there.pin(description=replace(there.context.description, fingerprint=prints))
    await there.add()
    assert await ended(await there.start("w0")) == 3
    assert "forward: expected 00, here" in there.log("w0")[-1]["reason"]
    assert (await there.bus.backlog()).pending == 1


async def test_a_library_that_breaks_gives_the_task_back_and_says_why(rig, tmp_path):
    there = await rig("", ack_wait_seconds=600.0)
    unpinned = replace(there.context, description=None)
    await there.bus.put_blob(unpinned.digest, unpinned.encode())
    await there.bus.drop_blob("context")
    subject = names.describe_subject(unpinned.digest)
    await there.bus.publish_task(subject, messages.encode_describe_task(unpinned.digest))
    broken = tmp_path / "broken" / "gymnasium"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('built for another numpy')\n")
    paths = os.pathsep.join([str(broken.parent), str(PLUGINS), os.environ.get("PYTHONPATH", "")])
    assert await ended(await there.start("w0", PYTHONPATH=paths)) == 1
    assert "built for another numpy" in there.log("w0")[-1]["reason"]
    await there.start("w1")
    answer = messages.decode_describe_answer(await _raw(there, subject))
    assert answer.description == there.context.description


async def _raw(there, episode):
    deadline = time.monotonic() + 30
    while (body := await there.bus.result(episode)) is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return body


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"KUBEVO_EXPERIMENT_ID": ""}, "a worker needs KUBEVO_EXPERIMENT_ID"),
        ({"KUBEVO_CACHE_MEBIBYTES": "much"}, "a worker's settings: invalid literal"),
        ({"KUBEVO_NATS_TOKEN": "wrong"}, "refused the credentials"),
    ],
)
async def test_wrong_settings_end_the_worker_with_one_clear_line(rig, environment, message):
    there = await rig("")
    assert await ended(await there.start("w0", **environment)) == 1
    (line,) = (there.folder / "w0.log").read_text().splitlines()
    assert message in json.loads(line)["reason"]
