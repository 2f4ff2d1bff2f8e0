"""One environment that goes wrong on demand: ``kubevo_worker_environments:KubevoFaulty-v0``.

Its first four steps, the worker's self-test, always pass, unless the fault is one of the machine:
``scratch`` writes to ``$TMPDIR`` and ``memory`` takes half a gibibyte in every reset.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

FAULTS = {
    "ValueError": ValueError("broken physics"),
    "OSError": OSError(5, "Input/output error"),
    "MemoryError": MemoryError(),
    "ImportError": ImportError("libfoo.so.1: cannot open shared object file"),
}


class Faulty(gymnasium.Env[Any, Any]):
    """Eight steps; the fault comes in the sixth, when there is one.

    ``block`` makes the sixth step say ``started`` in ``folder`` and wait there for ``go``, which with
    ``once`` lets one episode go on.
    """

    observation_space = spaces.Box(-1, 1, (3,))
    action_space = spaces.Discrete(2)

    def __init__(self, fault: str = "", folder: str = ""):
        self.fault, self.folder, self.steps = fault, folder, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        if self.fault == "scratch":
            with open(os.path.join(os.environ["TMPDIR"], f"scratch-{os.getpid()}"), "w") as file:  # noqa: PTH118, PTH123
                file.write("x")
        if self.fault == "memory":
            np.zeros(1 << 29, dtype=np.uint8)
        return self._observe(), {}

    def _observe(self) -> Any:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 6:
            self._go_wrong()
        reward = float(self.np_random.integers(8)) if action else 1.0
        return self._observe(), reward, self.steps >= 8, False, {}

    def _go_wrong(self) -> None:
        if self.fault in FAULTS:
            raise FAULTS[self.fault]
        if self.fault == "SystemExit":
            sys.exit(9)
        if self.fault == "block":
            folder = Path(self.folder)
            (folder / f"started-{os.environ.get('KUBEVO_WORKER', 'here')}").touch()
            deadline = time.monotonic() + 60
            while not (folder / "go").exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            if (folder / "once").exists():
                (folder / "go").unlink(missing_ok=True)


if "KubevoFaulty-v0" not in gymnasium.registry:
    gymnasium.register("KubevoFaulty-v0", entry_point=Faulty)
