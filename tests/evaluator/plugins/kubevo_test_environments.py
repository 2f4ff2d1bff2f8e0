"""Environments that a user might bring: ``kubevo_test_environments:<Id>-v0``."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Mixed(gymnasium.Env[Any, Any]):
    """A Dict observation of every supported space, and MultiDiscrete actions."""

    def __init__(self, length: int = 20, fail_at: int = 0, error: str = "ValueError"):
        self.observation_space = spaces.Dict(
            {
                "z": spaces.Box(-1, 1, (2, 2), dtype=np.float64),
                "a": spaces.Discrete(3, start=1),
                "m": spaces.Tuple((spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3]))),
            }
        )
        self.action_space = spaces.MultiDiscrete([3, 2])
        self.length, self.fail_at, self.error = length, fail_at, error
        self.steps = 0

    def _observe(self) -> dict[str, Any]:
        random = self.np_random
        return {
            "z": random.uniform(-1, 1, (2, 2)),
            "a": 1 + int(random.integers(3)),
            "m": (random.integers(0, 2, 2), np.array([random.integers(2), random.integers(3)])),
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.steps += 1
        if self.steps == self.fail_at:
            raise {"ValueError": ValueError, "OSError": OSError}[self.error]("the cable\nbroke")
        reward = float(action[0] - action[1] + self.np_random.normal())
        return self._observe(), reward, self.steps >= self.length, False, {}


class Words(gymnasium.Env[Any, Any]):
    """Shows text, which no network here can read."""

    observation_space = spaces.Text(5)
    action_space = spaces.Discrete(2)


class Shifted(Mixed):
    """Discrete actions that begin at 5, and continuous ones without bounds via kwargs."""

    def __init__(self, bounded: bool = True):
        super().__init__()
        self.action_space = spaces.Discrete(2, start=5)

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.steps += 1
        return self._observe(), float(action), self.steps >= 3, False, {}


for _name, _class in (("Mixed", Mixed), ("Words", Words), ("Shifted", Shifted)):
    if f"Kubevo{_name}-v0" not in gymnasium.registry:
        gymnasium.register(f"Kubevo{_name}-v0", entry_point=_class)
