"""The networks that a genome can stand for: what their parameters are called and how they lie.

A network's id names it wholly: ``mlp-4-16-2``, ``dqn-18``, ``large-dqn-18``. Parameters form one
float32 vector: the tensors in order, each flattened in C order. To add a network, write a function
from the id's numbers to a `Network` and one line in ``FAMILIES`` (docs/how-to-add-a-network.md).

Shapes: ``dqn`` is Mnih et al. 2013, ``large-dqn`` Mnih et al. 2015 as Such et al. 2017 use it:
input (84, 84, 4), weights (height, width, in, out), SAME padding, ReLU, NHWC.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from kubevo_core.errors import GenomeError

__all__ = ["FAMILIES", "Conv", "Dense", "Layer", "Network", "Tensor", "network", "network_id"]

MAX_PARAMETERS = 64_000_000
PIXELS = (84, 84, 4)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named block of the parameter vector; ``std`` (a decimal) is None for a bias."""

    name: str
    shape: tuple[int, ...]
    fan_in: int = 0
    std: str | None = None

    @property
    def size(self) -> int:
        """Number of parameters."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution with SAME padding, NHWC: input (side, side, in), then ReLU."""

    name: str
    kernel: int
    stride: int
    inputs: int
    outputs: int

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Weights (kernel, kernel, in, out) and bias."""
        shape = (self.kernel, self.kernel, self.inputs, self.outputs)
        return (
            Tensor(f"{self.name}.w", shape, self.kernel**2 * self.inputs, "1.0"),
            Tensor(f"{self.name}.b", (self.outputs,)),
        )


@dataclass(frozen=True, slots=True)
class Dense:
    """A fully connected layer; its input is flattened in C order."""

    weight_name: str
    bias_name: str
    inputs: int
    outputs: int
    activation: Literal["tanh", "relu", "none"]

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Weights (in, out) and bias; an output layer starts small (std 0.1) as in Such et al."""
        std = "0.1" if self.activation == "none" else "1.0"
        return (
            Tensor(self.weight_name, (self.inputs, self.outputs), self.inputs, std),
            Tensor(self.bias_name, (self.outputs,)),
        )


Layer = Conv | Dense


@dataclass(frozen=True)
class Network:
    """A network's id, its layers in order, and what it reads and writes.

    Units: observations are ``pixels`` of shape (84, 84, 4), uint8, divided by 255, or a ``vector``
    of ``inputs`` float32 values; ``outputs`` counts the values of the last layer.
    """

    id: str
    observation: Literal["pixels", "vector"]
    inputs: int
    outputs: int
    layers: tuple[Layer, ...]

    @property
    def layout(self) -> tuple[Tensor, ...]:
        """Tensors in the order of the parameter vector."""
        return tuple(tensor for layer in self.layers for tensor in layer.tensors)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(tensor.size for tensor in self.layout)


def _mlp(identifier: str, sizes: tuple[int, ...]) -> Network:
    if len(sizes) < 2:
        raise ValueError("an mlp needs at least an input and an output size")
    last = len(sizes) - 1
    layers = tuple(
        Dense(f"w{i}", f"b{i}", sizes[i - 1], sizes[i], "tanh" if i < last else "none")
        for i in range(1, last + 1)
    )
    return Network(identifier, "vector", sizes[0], sizes[-1], layers)


def _pixels(
    identifier: str, sizes: tuple[int, ...], convs: tuple[Conv, ...], hidden: int
) -> Network:
    if len(sizes) != 1:
        raise ValueError("it takes one number, the number of actions")
    side = PIXELS[0]
    for conv in convs:
        side = -(-side // conv.stride)
    flat = side * side * convs[-1].outputs
    dense = (
        Dense("fc.w", "fc.b", flat, hidden, "relu"),
        Dense("out.w", "out.b", hidden, sizes[0], "none"),
    )
    return Network(identifier, "pixels", math.prod(PIXELS), sizes[0], (*convs, *dense))


def _dqn(identifier: str, sizes: tuple[int, ...]) -> Network:
    convs = (Conv("conv1", 8, 4, 4, 16), Conv("conv2", 4, 2, 16, 32))
    return _pixels(identifier, sizes, convs, 256)


def _large_dqn(identifier: str, sizes: tuple[int, ...]) -> Network:
    convs = (
        Conv("conv1", 8, 4, 4, 32),
        Conv("conv2", 4, 2, 32, 64),
        Conv("conv3", 3, 1, 64, 64),
    )
    return _pixels(identifier, sizes, convs, 512)


FAMILIES: dict[str, Callable[[str, tuple[int, ...]], Network]] = {
    "mlp": _mlp,
    "dqn": _dqn,
    "large-dqn": _large_dqn,
}


def network_id(family: str, sizes: tuple[int, ...]) -> str:
    """Return the id of the network ``family`` with ``sizes`` (inputs, hidden…, outputs; or actions)."""
    return "-".join([family, *map(str, sizes)])


@lru_cache(maxsize=64)
def network(identifier: str) -> Network:
    """Return the network that ``identifier`` names.

    Raises:
        GenomeError: no such family, or numbers that do not fit it.
    """
    parts = identifier.split("-")
    count = sum(1 for part in parts if not part.isdecimal())
    family, numbers = "-".join(parts[:count]), parts[count:]
    build = FAMILIES.get(family)
    if build is None:
        raise GenomeError(
            f"unknown network {identifier[:80]!r}: expected an id that starts with one of "
            f"{', '.join(FAMILIES)}, such as mlp-4-16-2 or large-dqn-18"
        )
    canonical = all(part.isascii() and part == str(int(part)) and int(part) > 0 for part in numbers)
    if not canonical or len(numbers) > 18 or any(len(part) > 7 for part in numbers):
        raise GenomeError(
            f"network {identifier[:80]!r}: expected positive sizes without leading zeros, "
            "such as mlp-4-16-2"
        )
    try:
        found = build(identifier, tuple(int(part) for part in numbers))
    except ValueError as exc:
        raise GenomeError(f"network {identifier!r}: {exc}, got {len(numbers)}") from exc
    if found.size > MAX_PARAMETERS:
        raise GenomeError(
            f"network {identifier!r} has {found.size:,} parameters, more than {MAX_PARAMETERS:,}"
        )
    return found
