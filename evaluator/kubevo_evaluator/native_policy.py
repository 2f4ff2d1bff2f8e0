"""The native policy: the C kernel behind the interface of all policies.

Equal bits on every CPU (``native/kernel.h`` says why), so it needs no word about threads or types
of CPU. Loading lays an individual's weights out once, in two milliseconds for `large-dqn`.
"""

from typing import TYPE_CHECKING

import numpy as np

from kubevo_core.networks import PIXELS, Conv, Network
from kubevo_core.noise import Float32Vector
from kubevo_evaluator import native
from kubevo_evaluator.layouts import Action, ActionLayout, Observation
from kubevo_evaluator.numpy_policy import same_padding

if TYPE_CHECKING:
    from kubevo_evaluator.native._kernel import Layer

__all__ = ["NativePolicy", "layers"]

ACTIVATIONS = {"none": 0, "relu": 1, "tanh": 2}


class NativePolicy:
    """A network in C; ``level`` is one of `native.levels` (None: the best), for tests.

    Raises:
        WorkerUnfit: the kernel was not built here.
        ValueError: the network has a shape that the kernel does not know.
    """

    def __init__(
        self,
        network: Network,
        actions: ActionLayout,
        precision: str = "float32",
        level: str | None = None,
    ) -> None:
        self._decide = actions.decide
        self._net = native.make_net(layers(network), precision == "bfloat16", level)
        self._values = np.zeros(network.outputs, dtype=np.float32)

    def load(self, parameters: Float32Vector) -> None:
        """Use these weights, as a copy."""
        self._net.load(parameters)

    def values(self, observation: Observation) -> Float32Vector:
        """Return the network's last layer: shape (outputs,)."""
        self._net.forward(observation, self._values)
        return self._values

    def act(self, observation: Observation) -> Action:
        """Return the action for an observation."""
        self._net.forward(observation, self._values)
        return self._decide(self._values)


def layers(network: Network) -> tuple["Layer", ...]:
    """Return a network as the kernel wants it: a tuple of integers for each layer."""
    found: list[Layer] = []
    side = PIXELS[0]
    for each in network.layers:
        if isinstance(each, Conv):
            out, before, after = same_padding(side, each.kernel, each.stride)
            shape = (each.kernel, each.stride, side, before, after)
            found.append((*shape, each.inputs, each.outputs, ACTIVATIONS["relu"]))
            side = out
        else:
            kind = ACTIVATIONS[each.activation]
            found.append((0, 0, 0, 0, 0, each.inputs, each.outputs, kind))
    return tuple(found)
