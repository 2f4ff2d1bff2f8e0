"""What an environment shows and what it takes: the two types between environments and policies.

An observation is Atari's ``pixels`` or a flat ``vector``; an action is one number, one number a
block, or a vector of floats. How the values of a network's last layer become an action is said
here, once, for every backend.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from kubevo_core.noise import Float32Vector

__all__ = ["Action", "ActionLayout", "Observation", "ObservationLayout"]

Action = int | npt.NDArray[np.int64] | Float32Vector
Observation = npt.NDArray[np.uint8] | Float32Vector


@dataclass(frozen=True)
class ObservationLayout:
    """Shape and type of an observation: pixels are uint8 (height, width, frames), newest last."""

    kind: Literal["pixels", "vector"]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        dtype = "uint8" if self.kind == "pixels" else "float32"
        return f"{self.kind} {'x'.join(map(str, self.shape))} {dtype}"


@dataclass(frozen=True)
class ActionLayout:
    """How many values a network must give and what action they mean.

    ``discrete``: the index of the largest of ``sizes[0]`` values. ``multi-discrete``: the same for
    each block of ``sizes``, one after another. ``continuous``: one value for each of ``low``,
    clipped to ``low`` … ``high`` (infinite: unclipped). The lowest index wins a tie; NaN never
    wins, and counts as 0 in a continuous action.
    """

    kind: Literal["discrete", "multi-discrete", "continuous"]
    sizes: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def outputs(self) -> int:
        """Number of values a network must give."""
        return len(self.low) if self.kind == "continuous" else sum(self.sizes)

    def __str__(self) -> str:
        if self.kind == "continuous":
            return f"continuous {len(self.low)}"
        return f"{self.kind} {'+'.join(map(str, self.sizes))}"

    def decide(self, values: Float32Vector) -> Action:
        """Return the action for the network's ``values``, float32 of shape (outputs,)."""
        if self.kind == "discrete":
            return _largest(values)
        if self.kind == "multi-discrete":
            blocks = np.split(values, self._ends)
            return np.array([_largest(block) for block in blocks], dtype=np.int64)
        if np.isnan(values).any():
            values = np.where(np.isnan(values), np.float32(0), values)
        clipped: Float32Vector = np.clip(values, *self._bounds)
        return clipped

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        return np.cumsum(self.sizes[:-1], dtype=np.int64)

    @cached_property
    def _bounds(self) -> tuple[Float32Vector, Float32Vector]:
        return np.array(self.low, dtype=np.float32), np.array(self.high, dtype=np.float32)


def _largest(values: Float32Vector) -> int:
    index = int(values.argmax())
    if values[index] == values[index]:
        return index
    # argmax puts NaN first; below every number it can win only when all are NaN, as index 0.
    return int(np.where(np.isnan(values), -np.inf, values).argmax())
