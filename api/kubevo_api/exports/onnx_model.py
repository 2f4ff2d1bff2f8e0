"""A genome as an ONNX graph with its weights inside: what any runtime of the format plays.

::

    observation   float32 [batch, inputs], or uint8 [batch, 84, 84, 4] as the game shows it
    values        float32 [batch, outputs]: the last layer
    action        int64 [batch], the index of the largest value; [batch, blocks] for several numbers;
                  for continuous actions the values (clip them to the action space)

Pixels are divided by 255 and turned to the format's order (NCHW) in the graph, and back before the
first fully connected layer, whose weights expect NHWC; a convolution's SAME padding is written out,
the larger half after the image.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from kubevo_api.exports.model import Model
from kubevo_core import decode
from kubevo_core.errors import UserError
from kubevo_core.genome import DIALECT
from kubevo_core.networks import PIXELS, Conv, Dense, Network, network

__all__ = ["onnx_bytes"]

OPSET, IR_VERSION = 17, 8  # old enough for every runtime of the last years
MEANINGS = {
    "discrete": "the index of the largest value",
    "multi-discrete": "the index of the largest value of each block",
    "continuous": "the values; clip them to the action space",
}
ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh"}


def onnx_bytes(model: Model) -> bytes:
    """Return the ONNX file; equal models give equal bytes.

    Raises:
        UserError: onnx is not installed.
    """
    try:
        from onnx import checker, helper
    except ModuleNotFoundError as exc:
        raise UserError("ONNX files need the package onnx: pip install 'kubevo[api]'") from exc
    shape, theta = network(model.genome.network), model.weights
    graph = _Graph(helper, shape, theta)
    graph.layers()
    graph.action(model.actions)
    made = helper.make_model(
        graph.finished(),
        producer_name="kubevo",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        doc_string=f"{shape.id}; action: {_meaning(model.actions)}",
    )
    helper.set_model_props(
        made,
        {
            "dialect": DIALECT,
            "network": shape.id,
            "digest": model.genome.digest,
            "sha256": decode.sha256(theta),
            "environment": model.environment.id if model.environment else "",
            "actions": model.actions or "",
            **model.precision_document,
        },
    )
    checker.check_model(made, full_check=True)
    found: bytes = made.SerializeToString(deterministic=True)
    return found


def _meaning(layout: str | None) -> str:
    """Return in words what the output ``action`` is; ``layout`` is as a Description says it."""
    if layout is None:
        return "the index of the largest value (the environment is not known)"
    kind = layout.partition(" ")[0]
    return f"{layout}: {MEANINGS[kind]}"


class _Graph:
    """Nodes and weights as they are added; ``_last`` names the newest result."""

    def __init__(self, helper: Any, shape: Network, theta: npt.NDArray[np.float32]) -> None:
        self._helper = helper
        self._network = shape
        self._tensors = {}
        start = 0
        for tensor in shape.layout:
            self._tensors[tensor.name] = theta[start : start + tensor.size].reshape(tensor.shape)
            start += tensor.size
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._outputs: list[Any] = []
        self._last = "observation"

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(self._helper.make_node(kind, inputs, [output], output, **attributes))
        self._last = output

    def _constant(self, name: str, values: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def layers(self) -> None:
        """Add the network."""
        side, is_image = PIXELS[0], self._network.observation == "pixels"
        if is_image:
            self._node("Cast", [self._last], "floats", to=1)
            scale = self._constant("full_scale", np.array(255, np.float32))
            self._node("Div", [self._last, scale], "scaled")
            self._node("Transpose", [self._last], "channels_first", perm=[0, 3, 1, 2])
        for layer in self._network.layers:
            if isinstance(layer, Conv):
                side = self._convolution(layer, side)
                continue
            if is_image:
                self._node("Transpose", [self._last], "channels_last", perm=[0, 2, 3, 1])
                self._node("Flatten", [self._last], "flat")
                is_image = False
            self._product(layer)
        self._node("Identity", [self._last], "values")

    def _convolution(self, layer: Conv, side: int) -> int:
        weights, bias = (self._tensors[tensor.name] for tensor in layer.tensors)
        out = -(-side // layer.stride)
        total = max((out - 1) * layer.stride + layer.kernel - side, 0)
        before, after = total // 2, total - total // 2
        inputs = [
            self._last,
            self._constant(f"{layer.name}.w", weights.transpose(3, 2, 0, 1)),
            self._constant(f"{layer.name}.b", bias),
        ]
        self._node(
            "Conv",
            inputs,
            layer.name,
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[before, before, after, after],
        )
        self._node("Relu", [self._last], f"{layer.name}.relu")
        return out

    def _product(self, layer: Dense) -> None:
        weights, bias = (self._tensors[tensor.name] for tensor in layer.tensors)
        inputs = [self._last, self._constant(layer.weight_name, weights)]
        self._node("MatMul", inputs, f"{layer.weight_name}.product")
        added = [self._last, self._constant(layer.bias_name, bias)]
        self._node("Add", added, f"{layer.weight_name}.sum")
        if layer.activation in ACTIVATIONS:
            kind = ACTIVATIONS[layer.activation]
            self._node(kind, [self._last], f"{layer.weight_name}.{layer.activation}")

    def action(self, layout: str | None) -> None:
        """Add what the values mean; ``layout`` is as a Description says it."""
        kind, _, sizes = (layout or "discrete").partition(" ")
        if kind == "continuous":
            self._node("Identity", ["values"], "action")
            self._outputs = [self._value("action", 1, self._network.outputs)]
        elif kind == "multi-discrete":
            blocks = [int(size) for size in sizes.split("+")]
            split = self._constant("block_sizes", np.array(blocks, np.int64))
            names = [f"block{number}" for number in range(len(blocks))]
            self._nodes.append(
                self._helper.make_node("Split", ["values", split], names, "blocks", axis=1)
            )
            for name in names:
                self._node("ArgMax", [name], f"{name}.action", axis=1, keepdims=1)
            self._node("Concat", [f"{name}.action" for name in names], "action", axis=1)
            self._outputs = [self._value("action", 7, len(blocks))]
        else:
            # The lowest index wins a tie, as everywhere.
            self._node("ArgMax", ["values"], "action", axis=1, keepdims=0, select_last_index=0)
            self._outputs = [self._value("action", 7)]

    def finished(self) -> Any:
        """Return the graph."""
        pixels = self._network.observation == "pixels"
        sides = PIXELS if pixels else (self._network.inputs,)
        observation = self._value("observation", 2 if pixels else 1, *sides)
        values = self._value("values", 1, self._network.outputs)
        return self._helper.make_graph(
            self._nodes, "policy", [observation], [values, *self._outputs], self._weights
        )

    def _value(self, name: str, kind: int, *sides: int) -> Any:
        return self._helper.make_tensor_value_info(name, kind, ["batch", *sides])
