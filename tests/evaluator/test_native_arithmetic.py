"""The kernel's arithmetic where it is hard: one rounding for two operations, tanh, a thread's modes."""

import ctypes
import platform
from fractions import Fraction

import numpy as np
import pytest

from kubevo_core import decode
from kubevo_core.genome import Genome
from kubevo_core.networks import network
from kubevo_core.noise import scaled_quantiles
from kubevo_evaluator import native
from kubevo_evaluator.layouts import ActionLayout
from kubevo_evaluator.native_policy import NativePolicy

_kernel = pytest.importorskip("kubevo_evaluator.native._kernel", reason=str(native.missing()))


def policy(net, level=None):
    return NativePolicy(net, ActionLayout("discrete", (net.outputs,)), "float32", level)


def nearest(exact):
    """Return the float32 nearest to a fraction, of two the even one."""
    guess = np.float32(float(exact))
    around = [np.nextafter(guess, np.float32(end)) for end in (-np.inf, np.inf)]
    return min(
        (guess, *around), key=lambda x: (abs(Fraction(float(x)) - exact), x.view(np.uint32) & 1)
    )


@pytest.mark.parametrize("level", _kernel.levels())
@pytest.mark.parametrize(
    "size",
    [8.0, 2.0**-127, 2.0**-126 - 2.0**-149],
    ids=["normal", "subnormal", "the largest subnormal"],
)
def test_a_product_and_its_sum_are_rounded_once(size, level):
    # Each hidden unit counts for four outputs alone, the lanes of the portable level: there one
    # lane's hard case is all lanes' care.
    units, lanes, twice = 32, 4, 0
    count = units * lanes
    net, one = network(f"mlp-1-{units}-{count}"), np.float32([1])
    chosen = np.repeat(np.eye(units, dtype=np.float32), lanes, axis=1)
    tested = policy(net, level)
    half = max(size * 2.0**-24, 2.0**-150)  # of the way to the next float32 after the bias
    sign = np.where(np.arange(count) % 2, 1.0, -1.0)
    biases = (sign * size).astype(np.float32)
    for number in range(1, 41):
        inwards = np.linspace(0.1, 0.9, units) * number * (0.025 if size == 8 else 2.0**-30)
        first = np.concatenate([inwards, np.zeros(units)]).astype(np.float32)
        tested.load(np.concatenate([first, chosen.ravel(), 0 * biases]))
        hidden = tested.values(one).copy()
        # Products so near to half the way that a double may not tell on which side they are.
        weights = (sign * half / hidden).astype(np.float32)
        tested.load(np.concatenate([first, (chosen * weights).ravel(), biases]))
        expected = [
            nearest(Fraction(float(h)) * Fraction(float(w)) + Fraction(float(b)))
            for h, w, b in zip(hidden, weights, biases, strict=True)
        ]
        assert tested.values(one).tolist() == expected
        doubles = hidden.astype(np.float64) * weights + biases
        twice += np.count_nonzero(doubles.astype(np.float32) != expected)
    assert twice > 20, "these cases tell one rounding from two"


def test_tanh_is_within_two_units_of_the_last_place():
    net = network("mlp-1-1-1")
    tested = policy(net)
    # hidden = tanh(x), output = hidden
    tested.load(np.float32([1, 0, 1, 0]))
    magnitudes = np.concatenate([np.logspace(-44, 2, 40_000), np.linspace(0, 12, 40_000)])
    xs = np.concatenate([magnitudes, -magnitudes]).astype(np.float32)
    found = np.float32([tested.values(xs[i : i + 1])[0] for i in range(len(xs))])
    exact = np.tanh(xs.astype(np.longdouble))
    unit = np.spacing(np.maximum(np.abs(exact.astype(np.float32)), np.finfo(np.float32).tiny))
    assert np.max(np.abs(found - exact) / unit) <= 2
    assert np.all(np.abs(found) <= 1)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="knows this CPU's mode register")
def test_a_library_that_flushes_subnormals_or_rounds_otherwise_changes_nothing():
    libm = ctypes.CDLL("libm.so.6")
    saved = (ctypes.c_uint32 * 8)()
    libm.fegetenv(saved)
    flushing = (ctypes.c_uint32 * 8)(*saved)
    flushing[7] |= 0x8040  # flush to zero, subnormals are zero
    net = network("mlp-3-20-4")
    theta = decode.parameters(Genome(net.id, 1)) * np.float32(1e-20)
    seen, tested = np.float32([1e-20, -1e-19, 1]), policy(net)
    tested.load(theta)
    expected = tested.values(seen).copy()
    assert np.any((expected != 0) & (np.abs(expected) < np.finfo(np.float32).tiny))
    linked, table = np.zeros(4, np.float32), scaled_quantiles("0.002")
    native.add_noise(theta[:4], 5, table, linked)
    libm.fesetenv(flushing)
    libm.fesetround(0x800)  # upward
    try:
        found, again = tested.values(seen).copy(), np.zeros(4, np.float32)
        native.add_noise(theta[:4], 5, table, again)
        now = (ctypes.c_uint32 * 8)()
        libm.fegetenv(now)
    finally:
        libm.fesetenv(saved)
    assert found.tobytes() == expected.tobytes()
    assert again.tobytes() == linked.tobytes()
    assert now[7] & 0x8040 == 0x8040  # and the thread's own mode is put back
