"""The reference policy: every network in numpy, one observation at a time.

A convolution is a matrix product over the patches of its padded input (im2col). SAME padding as in
TensorFlow: output side ceil(side / stride), and of an odd padding the larger half after the image.
All buffers are made once; loading weights makes views of their vector and copies nothing.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from kubevo_core.networks import PIXELS, Conv, Dense, Network
from kubevo_core.noise import Float32Vector
from kubevo_evaluator.layouts import Action, ActionLayout, Observation

__all__ = ["NumpyPolicy", "same_padding"]

Array = npt.NDArray[np.float32]
FULL_SCALE = np.float32(255)


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """Return (output side, padding before, padding after) of a SAME convolution."""
    out = -(-side // stride)
    total = max((out - 1) * stride + kernel - side, 0)
    return out, total // 2, total - total // 2


class NumpyPolicy:
    """A network in numpy; with one BLAS thread, equal bytes on one type of CPU."""

    def __init__(self, network: Network, actions: ActionLayout) -> None:
        self._network = network
        self._decide = actions.decide
        self._layers: list[_Convolution | _Product] = []
        side = PIXELS[0]
        for layer in network.layers:
            if isinstance(layer, Conv):
                convolution = _Convolution(layer, side)
                side = convolution.side
                self._layers.append(convolution)
            else:
                self._layers.append(_Product(layer))

    def load(self, parameters: Float32Vector) -> None:
        """Use these weights, as views."""
        start = 0
        for layer, forward in zip(self._network.layers, self._layers, strict=True):
            weights, bias = (tensor.size for tensor in layer.tensors)
            forward.weights = parameters[start : start + weights].reshape(-1, layer.outputs)
            forward.bias = parameters[start + weights : start + weights + bias]
            start += weights + bias

    def values(self, observation: Observation) -> Float32Vector:
        """Return the network's last layer: shape (outputs,)."""
        x: Any = observation
        with np.errstate(all="ignore"):  # weights may overflow; NaN never wins
            for forward in self._layers:
                x = forward(x)
        found: Float32Vector = x
        return found

    def act(self, observation: Observation) -> Action:
        """Return the action for an observation."""
        return self._decide(self.values(observation))


class _Weights:
    weights: Array
    bias: Array


class _Convolution(_Weights):
    """SAME convolution and ReLU; its first input may be uint8 pixels, which it scales."""

    def __init__(self, layer: Conv, side: int) -> None:
        self.side, before, after = same_padding(side, layer.kernel, layer.stride)
        padded = np.zeros((side + before + after,) * 2 + (layer.inputs,), dtype=np.float32)
        self._inside = padded[before : before + side, before : before + side]
        row, column, channel = padded.strides
        kernel, step = layer.kernel, layer.stride
        self._windows = np.lib.stride_tricks.as_strided(
            padded,
            (self.side, self.side, kernel, kernel, layer.inputs),
            (row * step, column * step, row, column, channel),
            writeable=False,
        )
        self._patches = np.zeros(self._windows.shape, dtype=np.float32)
        self._rows = self._patches.reshape(self.side**2, -1)
        self._out = np.zeros((self.side**2, layer.outputs), dtype=np.float32)
        self._image = self._out.reshape(self.side, self.side, layer.outputs)

    def __call__(self, x: npt.NDArray[Any]) -> Array:
        if x.dtype == np.uint8:
            np.divide(x, FULL_SCALE, out=self._inside)
        else:
            self._inside[:] = x
        self._patches[:] = self._windows
        np.matmul(self._rows, self.weights, out=self._out)
        np.add(self._out, self.bias, out=self._out)
        np.maximum(self._out, np.float32(0), out=self._out)
        return self._image


class _Product(_Weights):
    """A fully connected layer; an image is flattened in C order."""

    def __init__(self, layer: Dense) -> None:
        self._out = np.zeros(layer.outputs, dtype=np.float32)
        self._activation = ACTIVATIONS[layer.activation]

    def __call__(self, x: Array) -> Array:
        np.matmul(x.reshape(-1), self.weights, out=self._out)
        np.add(self._out, self.bias, out=self._out)
        self._activation(self._out)
        return self._out


def _relu(x: Array) -> None:
    np.maximum(x, np.float32(0), out=x)


def _tanh(x: Array) -> None:
    np.tanh(x, out=x)


ACTIVATIONS: dict[str, Callable[[Array], None]] = {
    "relu": _relu,
    "tanh": _tanh,
    "none": lambda _: None,
}
