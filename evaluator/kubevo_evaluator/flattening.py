"""Any supported observation space as one float32 vector, in an order that never changes.

::

    Box            its values in C order
    Discrete n     n values, one-hot
    MultiDiscrete  the one-hot blocks of its numbers, in C order
    MultiBinary    its 0s and 1s in C order
    Tuple          its members in order
    Dict           its members by sorted key

Pixels of environments other than Atari are just flattened, not scaled.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from kubevo_core.noise import Float32Vector

__all__ = ["Write", "flat_size", "writer"]

Write = Callable[[Float32Vector, Any], None]
SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, Tuple and Dict"


def flat_size(space: spaces.Space[Any]) -> int:
    """Return the length of a space's vector.

    Raises:
        TypeError: it is, or holds, a space without a fixed length.
    """
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return int(np.prod(space.shape, dtype=np.int64))
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    return sum(flat_size(member) for _, member in _members(space))


def writer(space: spaces.Space[Any]) -> Write:
    """Return the function that writes one observation into a vector of `flat_size` values."""
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return _write_array
    if isinstance(space, spaces.Discrete):
        return _one_hot([int(space.start)], [int(space.n)])
    if isinstance(space, spaces.MultiDiscrete):
        return _one_hot(space.start.ravel().tolist(), space.nvec.ravel().tolist())
    parts: list[tuple[Any, slice, Write]] = []
    end = 0
    for key, member in _members(space):
        begin, end = end, end + flat_size(member)
        parts.append((key, slice(begin, end), writer(member)))

    def write(target: Float32Vector, value: Any) -> None:
        for key, where, write_member in parts:
            write_member(target[where], value[key])

    return write


def _members(space: spaces.Space[Any]) -> list[tuple[Any, spaces.Space[Any]]]:
    if isinstance(space, spaces.Dict):
        return sorted(space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return list(enumerate(space.spaces))
    raise TypeError(f"expected a space made of {SUPPORTED}, got {type(space).__name__}")


def _write_array(target: Float32Vector, value: Any) -> None:
    values = np.asarray(value)
    if values.size != target.size:  # a single value would broadcast without a word
        raise ValueError(f"expected an observation of {target.size} values, got {values.size}")
    target[:] = values.ravel()


def _one_hot(starts: list[int], sizes: list[int]) -> Write:
    blocks = list(zip(np.cumsum([0, *sizes[:-1]]).tolist(), starts, sizes, strict=True))

    def write(target: Float32Vector, value: Any) -> None:
        target[:] = 0.0
        numbers = np.ravel(value).tolist()
        for (begin, start, size), number in zip(blocks, numbers, strict=True):
            if not 0 <= number - start < size:
                raise ValueError(f"expected a number from {start} to {start + size - 1}: {number}")
            target[begin + int(number) - start] = 1.0

    return write
