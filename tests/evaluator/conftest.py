"""Shared by the evaluator's tests: specs, scripted environments and policies, workers in memory."""

import asyncio
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubevo_core import messages, names, spec
from kubevo_core.evaluation import Key
from kubevo_core.genome import Genome
from kubevo_core.messages import Context, Task
from kubevo_core.seeding import Purpose, derive
from kubevo_evaluator.description import describe
from kubevo_evaluator.layouts import Action, ActionLayout, Observation, ObservationLayout
from kubevo_evaluator.settings import Settings
from kubevo_evaluator.worker import Worker
from kubevo_runtime.testing import FakeBus

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_torch_*.py"]

PLUGIN = "kubevo_test_environments"
WORKER_PLUGIN = "kubevo_worker_environments"
POLICY = {"network": "mlp", "hiddenLayers": [4], "backend": "numpy"}


class ScriptedEnvironment:
    """Gives the rewards of a list; an exception in it is raised by that step (or by reset)."""

    observation = ObservationLayout("vector", (1,))
    actions = ActionLayout("discrete", (2,))

    def __init__(self, rewards: list[float | Exception], on_reset: Exception | None = None):
        self.frames = 0
        self.rewards = rewards
        self.on_reset = on_reset

    def reset(self, episode_seed: int) -> Observation:
        self.frames = 0
        if self.on_reset is not None:
            raise self.on_reset
        return np.zeros(1, dtype=np.float32)

    def step(self, action: Action) -> tuple[Observation, float, bool]:
        reward = self.rewards[self.frames]
        if isinstance(reward, Exception):
            raise reward
        self.frames += 1
        return np.zeros(1, dtype=np.float32), reward, self.frames == len(self.rewards)

    def render(self) -> Any:
        return np.zeros((2, 2, 3), dtype=np.uint8)

    def close(self) -> None:
        return


class FixedActions:
    """Chooses pseudo-random actions that depend on the seed and the step's number only."""

    def __init__(self, actions: ActionLayout, seed: int) -> None:
        self.actions = actions
        self.seed = seed
        self.number = 0

    def load(self, parameters: Any) -> None:
        return

    def values(self, observation: Observation) -> Any:
        self.number += 1
        count = self.actions.outputs
        return np.array(
            [derive(self.seed, 99, self.number, index) / 2**31 - 1 for index in range(count)],
            dtype=np.float32,
        )

    def act(self, observation: Observation) -> Action:
        return self.actions.decide(self.values(observation))


@pytest.fixture(scope="session")
def scripted() -> type[ScriptedEnvironment]:
    return ScriptedEnvironment


@pytest.fixture(scope="session")
def fixed_actions() -> type[FixedActions]:
    return FixedActions


@pytest.fixture(scope="session")
def environment_spec() -> Callable[..., spec.Environment]:
    def make(identifier: str, **fields: Any) -> spec.Environment:
        return spec.Environment.model_validate({"id": identifier, **fields})

    return make


@pytest.fixture(scope="session")
def policy_spec() -> Callable[..., spec.Policy]:
    def make(network: str, *hidden: int, backend: str = "numpy") -> spec.Policy:
        return spec.Policy.model_validate(
            {"network": network, "hiddenLayers": list(hidden), "backend": backend}
        )

    return make


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Put the folder of a plug-in module on the path and return the module's name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "plugins"))
    yield PLUGIN
    sys.modules.pop(PLUGIN, None)


class Rig:
    """A broker in memory with one pinned context, and workers on it."""

    def __init__(self, environment, timeout_seconds=3600):
        self.fake = FakeBus()
        self.fake.is_made = True
        documents = {"id": environment["id"], "kwargs": environment.get("kwargs", {})}
        described = describe(
            spec.Environment.model_validate(documents), spec.Policy.model_validate(POLICY)
        )
        self.pin(Context(documents, POLICY, timeout_seconds, described))
        self.running = []

    def pin(self, context):
        self.context = context
        self.fake.blobs[context.digest] = context.encode()
        self.fake.blobs["context"] = context.digest.encode()

    def task(self, slot=0, **changes):
        network = self.context.description.network
        genome = Genome(network, 7 + slot)
        key = Key(0, 0, Purpose.POPULATION, slot, genome.digest, 0)
        task = Task(key, 11 + slot, network, genome.init_seed, None, self.context.digest)
        return replace(task, **changes)

    def add(self, slot=0, **changes):
        task = self.task(slot, **changes)
        return self.add_raw(names.episode_subject(task.key), messages.encode_task(task))

    def add_raw(self, episode, body):
        assert self.fake.add_task(episode, body)
        return episode

    def start(self, name="w0", *, bus=None, stopping=None, grace=20.0, ack_wait=20.0):
        settings = Settings("memory", "fake", worker=name, grace_seconds=grace)
        settings = replace(settings, ack_wait_seconds=ack_wait)
        worker = Worker(settings, bus or self.fake.worker(), stopping or asyncio.Event())
        self.running.append(asyncio.create_task(worker.run()))
        return self.running[-1]

    async def until(self, condition, seconds=20):
        deadline = time.monotonic() + seconds
        while not condition():
            for task in self.running:
                if task.done() and not task.cancelled():
                    task.result()  # why it ended
            assert time.monotonic() < deadline, (self.fake.states(), self.fake.results)
            await asyncio.sleep(0.005)

    def result(self, episode):
        return messages.decode_result(self.fake.results[episode][1])


@pytest.fixture
async def rig(monkeypatch):
    """Return a maker of rigs; their workers end with the test."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "plugins"))
    made = []

    def make(environment=None, **arguments):
        made.append(Rig(environment or {"id": "CartPole-v1"}, **arguments))
        return made[-1]

    yield make
    workers = [task for each in made for task in each.running]
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    sys.modules.pop(WORKER_PLUGIN, None)


@pytest.fixture(scope="session")
def faulty():
    """Return a maker of the environment that goes wrong on demand."""

    def make(fault, folder=""):
        kwargs = {"fault": f'"{fault}"', "folder": f'"{folder}"'}
        return {"id": f"{WORKER_PLUGIN}:KubevoFaulty-v0", "kwargs": kwargs}

    return make
