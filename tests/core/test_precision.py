"""Weights in bfloat16: rounded to the nearest, bit for bit, and biases left as they are."""

import math
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest

from kubevo_core import decode, spec
from kubevo_core.errors import GenomeError
from kubevo_core.genome import Genome, Mutation
from kubevo_core.networks import network

NET = network("mlp-40-30-2")


def as_floats(words):
    return np.array(words, np.uint32).view(np.float32)


def half_of(word: int) -> int:
    """Return the bits of the bfloat16 nearest to a float32's, by exact arithmetic: the reference."""
    sign, magnitude = word & 0x8000_0000, word & 0x7FFF_FFFF
    value = float(as_floats([magnitude])[0])
    if math.isnan(value):
        return (word | 0x40_0000) & 0xFFFF_0000
    if math.isinf(value):
        return word
    lower = magnitude & 0xFFFF_0000
    upper = lower + 0x1_0000
    # What lies beyond the largest one is measured as if the exponent went on.
    above = Fraction(2) ** 128 if upper == 0x7F80_0000 else Fraction(float(as_floats([upper])[0]))
    below, exact = Fraction(float(as_floats([lower])[0])), Fraction(value)
    if exact - below == above - exact:
        return sign | (lower if lower >> 16 & 1 == 0 else upper)
    return sign | (lower if exact - below < above - exact else upper)


def rounded_words(words):
    """Return what `decode.rounded` makes of them as weights, not as biases."""
    theta = np.zeros(NET.size, np.float32)
    places = NET.layout[0].size
    assert len(words) <= places
    theta[: len(words)] = as_floats(words)
    return decode.rounded(NET, theta, "bfloat16").view(np.uint32)[: len(words)].tolist()


SPECIAL = {
    "a tie goes to the even neighbour, below": 0x3F80_8000,
    "a tie goes to the even neighbour, above": 0x3F81_8000,
    "just above a tie": 0x3F80_8001,
    "just below a tie": 0x3F81_7FFF,
    "a carry into the exponent": 0x3FFF_8000,
    "nothing to round": 0x4049_0000,
    "the smallest subnormal": 0x0000_0001,
    "a subnormal tie": 0x0000_8000,
    "the largest subnormal": 0x007F_FFFF,
    "zero": 0x0000_0000,
    "the largest number": 0x7F7F_FFFF,
    "the last below infinity": 0x7F7F_7FFF,
    "infinity": 0x7F80_0000,
    "a NaN whose payload lies below": 0x7F80_0001,
    "a quiet NaN": 0x7FC1_2345,
    "a NaN of ones": 0x7FFF_FFFF,
}


@pytest.mark.parametrize("sign", [0, 0x8000_0000])
@pytest.mark.parametrize("name", SPECIAL)
def test_a_weight_becomes_the_nearest_bfloat16(name, sign):
    word = SPECIAL[name] | sign
    assert rounded_words([word]) == [half_of(word)]


def test_any_bits_become_the_nearest_bfloat16():
    words = np.random.default_rng(1).integers(0, 2**32, 1000).tolist()
    assert rounded_words(words) == [half_of(word) for word in words]


@pytest.mark.parametrize("identifier", ["mlp-40-30-2", "dqn-4"])
def test_biases_stay_and_all_else_is_rounded(identifier):
    found = network(identifier)
    theta = decode.parameters(Genome(identifier, 3, (Mutation(5, "0.1"),)))
    before, rounded = theta.copy(), decode.rounded(found, theta, "bfloat16")
    assert theta.tobytes() == before.tobytes()
    start = 0
    for tensor in found.layout:
        end = start + tensor.size
        if tensor.std is None:
            assert rounded[start:end].tobytes() == theta[start:end].tobytes()
            assert np.any(theta[start:end].view(np.uint32) & 0xFFFF)
        else:
            assert not np.any(rounded[start:end].view(np.uint32) & 0xFFFF)
            assert np.allclose(rounded[start:end], theta[start:end], rtol=2**-8)
        start = end


def test_rounding_twice_changes_nothing():
    theta = decode.weights(Genome(NET.id, 3), "bfloat16")
    assert decode.rounded(NET, theta, "bfloat16").tobytes() == theta.tobytes()


def test_a_genomes_weights_are_its_rounded_parameters():
    genome = Genome(NET.id, 3, (Mutation(5, "0.1"),))
    theta = decode.parameters(genome)
    assert decode.weights(genome, "float32").tobytes() == theta.tobytes()
    rounded = decode.rounded(NET, theta, "bfloat16")
    assert decode.weights(genome, "bfloat16").tobytes() == rounded.tobytes()
    assert rounded.tobytes() != theta.tobytes()


def test_the_precisions_are_those_of_the_spec():
    assert get_args(spec.Policy.model_fields["precision"].annotation) == decode.PRECISIONS


def test_another_precision_is_refused_with_those_that_there_are():
    with pytest.raises(GenomeError, match="expected float32 or bfloat16, got 'float16'"):
        decode.weights(Genome(NET.id, 3), "float16")
