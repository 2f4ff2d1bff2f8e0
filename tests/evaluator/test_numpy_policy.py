import math

import numpy as np
import pytest

from kubevo_core import decode
from kubevo_core.genome import Genome
from kubevo_core.networks import Conv, Dense, Network, network
from kubevo_core.noise import noise
from kubevo_evaluator.layouts import ActionLayout
from kubevo_evaluator.numpy_policy import NumpyPolicy, _Convolution, same_padding


def naive_convolution(x, weights, bias, stride):
    """Return a SAME convolution and ReLU by its definition, in float64."""
    side, kernel = x.shape[0], weights.shape[0]
    out = math.ceil(side / stride)
    total = max((out - 1) * stride + kernel - side, 0)
    found = np.zeros((out, out, weights.shape[3]))
    for row in range(out):
        for column in range(out):
            total_here = bias.astype(np.float64).copy()
            for i in range(kernel):
                for j in range(kernel):
                    y, z = row * stride + i - total // 2, column * stride + j - total // 2
                    if 0 <= y < side and 0 <= z < side:
                        total_here += x[y, z].astype(np.float64) @ weights[i, j]
            found[row, column] = np.maximum(total_here, 0)
    return found


@pytest.mark.parametrize(
    ("side", "kernel", "stride"), [(9, 4, 2), (12, 8, 4), (5, 3, 1), (11, 4, 2)]
)
def test_a_convolution_equals_its_definition(side, kernel, stride):
    layer = Conv("c", kernel, stride, 3, 5)
    weights = noise(1, kernel * kernel * 15).reshape(kernel, kernel, 3, 5)
    bias, x = noise(2, 5), noise(3, side * side * 3).reshape(side, side, 3)
    convolution = _Convolution(layer, side)
    convolution.weights, convolution.bias = weights.reshape(-1, 5), bias
    expected = naive_convolution(x, weights, bias, stride)
    np.testing.assert_allclose(convolution(x), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(convolution(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((84, 8, 4), (21, 2, 2)), ((21, 4, 2), (11, 1, 2)), ((11, 3, 1), (11, 1, 1))],
)
def test_same_padding_is_that_of_the_paper(arguments, expected):
    assert same_padding(*arguments) == expected


def test_pixels_are_divided_by_255():
    convolution = _Convolution(Conv("c", 1, 1, 1, 1), 2)
    convolution.weights, convolution.bias = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    pixels = np.array([[[0], [51]], [[102], [255]]], dtype=np.uint8)
    assert convolution(pixels).ravel().tolist() == [
        0.0,
        float(np.float32(51) / np.float32(255)),
        float(np.float32(102) / np.float32(255)),
        1.0,
    ]


@pytest.mark.parametrize("name", ["dqn", "large-dqn"])
def test_a_whole_pixel_network_equals_its_definition(name):
    net = network(f"{name}-6")
    theta = decode.parameters(Genome(net.id, 5))
    policy = NumpyPolicy(net, ActionLayout("discrete", (6,)))
    policy.load(theta)
    pixels = np.clip(noise(9, 84 * 84 * 4) * 60 + 128, 0, 255).astype(np.uint8).reshape(84, 84, 4)
    x, start = pixels.astype(np.float32) / np.float32(255), 0
    for layer in net.layers:
        weight, bias = layer.tensors
        w = theta[start : start + weight.size].reshape(weight.shape)
        b = theta[start + weight.size : start + weight.size + bias.size]
        start += weight.size + bias.size
        if isinstance(layer, Conv):
            x = naive_convolution(x, w, b, layer.stride)
        else:
            x = x.reshape(-1) @ w + b
            x = np.maximum(x, 0) if layer.activation == "relu" else x
    np.testing.assert_allclose(policy.values(pixels), x, rtol=1e-3, atol=1e-5)


def test_an_mlp_equals_its_definition_and_loading_swaps_its_weights():
    net = network("mlp-3-5-4-2")
    policy = NumpyPolicy(net, ActionLayout("discrete", (2,)))
    x = noise(8, 3)
    for seed in (1, 2, 1):
        theta = decode.parameters(Genome(net.id, seed))
        policy.load(theta)
        w1, b1, w2, b2, w3, b3 = np.split(theta, np.cumsum([15, 5, 20, 4, 8]))
        hidden = np.tanh(x @ w1.reshape(3, 5) + b1)
        expected = np.tanh(hidden @ w2.reshape(5, 4) + b2) @ w3.reshape(4, 2) + b3
        np.testing.assert_allclose(policy.values(x), expected, rtol=1e-5, atol=1e-6)
        assert policy.act(x) == int(np.argmax(expected))


def test_weights_that_overflow_play_on_without_a_warning():
    net = Network("n", "vector", 2, 2, (Dense("w", "b", 2, 2, "none"),))
    policy = NumpyPolicy(net, ActionLayout("discrete", (2,)))
    policy.load(np.array([np.inf, 1, -np.inf, 1, 0, 0], dtype=np.float32))
    assert policy.act(np.ones(2, dtype=np.float32)) == 1
