"""From genome to weights: a left fold over the mutations, or one step from a cached parent.

Bit for bit the same either way; the cache changes speed only. One float32 add per parameter and
link (``kubevo_core.noise``), on any machine.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from kubevo_core.errors import GenomeError
from kubevo_core.genome import Genome, Mutation
from kubevo_core.networks import Network, network
from kubevo_core.noise import Float32Vector, add_noise, quantiles, scaled_quantiles

__all__ = [
    "PRECISIONS",
    "Link",
    "ParameterCache",
    "initial",
    "mutate",
    "parameters",
    "require_precision",
    "rounded",
    "sha256",
    "weights",
]

PRECISIONS = ("float32", "bfloat16")

# `kubevo_core.noise.add_noise`, or something faster with the same bits: (theta, seed, table, out).
Link = Callable[[Float32Vector, int, Float32Vector, Float32Vector | None], None]


class ParameterCache:
    """The least recently used parameter vectors, by genome digest, bounded in bytes.

    Vectors handed out are read-only. A capacity of 0 caches nothing.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._used = 0
        self._vectors: OrderedDict[str, Float32Vector] = OrderedDict()

    def get(self, digest: str) -> Float32Vector | None:
        """Return the vector of the genome with this digest, or None."""
        found = self._vectors.get(digest)
        if found is not None:
            self._vectors.move_to_end(digest)
        return found

    def put(self, digest: str, vector: Float32Vector) -> None:
        """Keep ``vector``, dropping the least recently used ones beyond the capacity."""
        vector.flags.writeable = False
        if vector.nbytes > self._capacity or digest in self._vectors:
            return
        self._vectors[digest] = vector
        self._used += vector.nbytes
        while self._used > self._capacity:
            _, dropped = self._vectors.popitem(last=False)
            self._used -= dropped.nbytes


def initial(identifier: str, init_seed: int, link: Link = add_noise) -> Float32Vector:
    """Return the first weights of a network: shape (size,), float32, writable.

    A weight is noise(init_seed)[p] * float32(std / sqrt(fan_in)), p its position in the whole
    vector; biases are +0 and their noise positions are skipped.
    """
    found = network(identifier)
    theta = np.zeros(found.size, np.float32)
    link(theta, init_seed, quantiles(), None)
    start = 0
    for tensor in found.layout:
        block = theta[start : start + tensor.size]
        if tensor.std is None:
            block[:] = 0.0
        else:
            np.multiply(block, np.float32(float(tensor.std) / math.sqrt(tensor.fan_in)), out=block)
        start += tensor.size
    return theta


def mutate(
    theta: Float32Vector,
    mutation: Mutation,
    out: Float32Vector | None = None,
    link: Link = add_noise,
) -> None:
    """Apply one mutation to every parameter, biases included, in place or into ``out``."""
    link(theta, mutation.seed, scaled_quantiles(mutation.sigma), out)


def parameters(
    genome: Genome, cache: ParameterCache | None = None, link: Link = add_noise
) -> Float32Vector:
    """Return the weights of ``genome``: shape (size,), float32, read-only if they are cached.

    With a cache, the nearest cached ancestor is taken, so that a new parent costs one link.
    """
    if cache is None:
        return _replay(initial(genome.network, genome.init_seed, link), genome.mutations, link)
    found = cache.get(genome.digest)
    if found is None:
        found = _from_ancestor(genome, cache, link)
        cache.put(genome.digest, found)
    return found


def _from_ancestor(genome: Genome, cache: ParameterCache, link: Link) -> Float32Vector:
    for depth, digest in reversed(list(enumerate(genome.ancestor_digests()))):
        vector = cache.get(digest)
        if vector is not None:
            return _replay(vector.copy(), genome.mutations[depth:], link)
    return _replay(initial(genome.network, genome.init_seed, link), genome.mutations, link)


def _replay(theta: Float32Vector, mutations: tuple[Mutation, ...], link: Link) -> Float32Vector:
    for mutation in mutations:
        mutate(theta, mutation, link=link)
    return theta


def weights(genome: Genome, precision: str) -> Float32Vector:
    """Return what a search of ``precision`` plays ``genome`` with: shape (size,), float32.

    Raises:
        GenomeError: there is no such precision.
    """
    return rounded(network(genome.network), parameters(genome), precision)


def rounded(found: Network, theta: Float32Vector, precision: str) -> Float32Vector:
    """Return weights as ``precision`` has them: shape (size,), float32; ``theta`` stays as it is.

    ``bfloat16`` keeps the upper half of each weight, rounded to nearest, ties to even; biases stay
    float32. With ``float32`` it is ``theta`` itself.

    Raises:
        GenomeError: there is no such precision.
    """
    if require_precision(precision) == "float32":
        return theta
    words = theta.view(np.uint32)
    halves = words + (((words >> 16) & 1) + np.uint32(0x7FFF))
    is_nan = (words & 0x7FFF_FFFF) > 0x7F80_0000
    halves[is_nan] = words[is_nan] | 0x40_0000
    halves &= 0xFFFF_0000
    start = 0
    for tensor in found.layout:
        if tensor.std is None:
            halves[start : start + tensor.size] = words[start : start + tensor.size]
        start += tensor.size
    return halves.view(np.float32)


def require_precision(text: str) -> str:
    """Return ``text`` if it names the number format of a search's weights.

    Raises:
        GenomeError: it does not.
    """
    if text not in PRECISIONS:
        raise GenomeError(
            f"precision: expected {' or '.join(PRECISIONS)}, got {str(text)[:40]!r}: decode the "
            "genome with the program that wrote it"
        )
    return text


def sha256(theta: Float32Vector) -> str:
    """Return the digest of a vector: sha256 of its little-endian float32 bytes, hex."""
    return hashlib.sha256(theta.astype("<f4", copy=False).tobytes()).hexdigest()
