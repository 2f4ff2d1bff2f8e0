"""The torch policy: eager float32 on one CPU thread, the reference of the convolutional networks.

Weights are copied once per load: convolutions into channels-last order, in which observations already
lie in memory, fully connected layers into (out, in). TF32 stays off: float32 means float32.
"""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

from kubevo_core.networks import PIXELS, Conv, Dense, Network
from kubevo_core.noise import Float32Vector
from kubevo_evaluator.layouts import Action, ActionLayout, Observation
from kubevo_evaluator.numpy_policy import same_padding

__all__ = ["TorchPolicy"]


class TorchPolicy:
    """A network in torch; `load` must come before the first observation."""

    def __init__(self, network: Network, actions: ActionLayout) -> None:
        torch.set_num_threads(1)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        self._network = network
        self._decide = actions.decide
        # numpy and torch see the same memory; a read-only vector cannot become a tensor.
        self._flat = np.zeros(network.size, dtype=np.float32)
        self._tensors: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._sources: list[torch.Tensor] = []
        self._paddings: list[tuple[int, int]] = []
        self._lay_out()

    def _lay_out(self) -> None:
        flat, start, side = torch.from_numpy(self._flat), 0, PIXELS[0]
        for layer in self._network.layers:
            weight, bias = layer.tensors
            source = flat[start : start + weight.size].view(weight.shape)
            start += weight.size
            if isinstance(layer, Conv):
                source = source.permute(3, 2, 0, 1)  # (height, width, in, out) to torch's order
                used = torch.empty(source.shape).contiguous(memory_format=torch.channels_last)
                side, before, after = same_padding(side, layer.kernel, layer.stride)
                self._paddings.append((before, after))
            else:
                # One observation is a matrix-vector product, which reads rows: nearly twice as
                # fast on (out, in) as on (in, out).
                source = source.t()
                used = torch.empty(source.shape)
            self._sources.append(source)
            self._tensors.append((used, flat[start : start + bias.size]))
            start += bias.size

    def load(self, parameters: Float32Vector) -> None:
        """Copy these weights into the order that torch is fast with."""
        np.copyto(self._flat, parameters)
        for source, (used, _) in zip(self._sources, self._tensors, strict=True):
            used.copy_(source)

    def values(self, observation: Observation) -> Float32Vector:
        """Return the network's last layer: shape (outputs,)."""
        with torch.inference_mode():
            x = torch.from_numpy(observation)
            if self._network.observation == "pixels":
                x = x.float().div_(255).permute(2, 0, 1).unsqueeze(0)
            found: Float32Vector = self._forward(x).numpy()
            return found

    def act(self, observation: Observation) -> Action:
        """Return the action for an observation."""
        return self._decide(self.values(observation))

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        for index, layer in enumerate(self._network.layers):
            weight, bias = self._tensors[index]
            if isinstance(layer, Conv):
                before, after = self._paddings[index]
                if before != after:
                    x = F.pad(x, (before, after, before, after))
                    before = 0
                x = F.relu_(F.conv2d(x, weight, bias, layer.stride, before))
            else:
                x = _dense(layer, x, weight, bias)
        return x.reshape(-1)


def _dense(layer: Dense, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    if x.ndim == 4:
        x = x.permute(0, 2, 3, 1)
    y = torch.addmv(bias, weight, x.reshape(-1))
    if layer.activation == "tanh":
        return torch.tanh_(y)
    return F.relu_(y) if layer.activation == "relu" else y
