"""Shared by the evaluator's tests: specs, an environment made of a script, the random policy."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubevo_core import spec
from kubevo_core.seeding import derive
from kubevo_evaluator.layouts import Action, ActionLayout, Observation, ObservationLayout

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_torch_*.py"]

PLUGIN = "kubevo_test_environments"


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
