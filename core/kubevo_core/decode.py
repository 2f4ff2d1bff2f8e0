"""From genome to weights: a left fold over the mutations, or one step from a cached parent.

Bit for bit the same either way; the cache changes speed only. One float32 add per parameter and
link (``kubevo_core.noise``), on any machine.
"""

import hashlib
import math
from collections import OrderedDict

import numpy as np

from kubevo_core.genome import Genome, Mutation
from kubevo_core.networks import network
from kubevo_core.noise import Float32Vector, add_noise, noise, scaled_quantiles

__all__ = ["ParameterCache", "initial", "mutate", "parameters", "sha256"]


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


def initial(identifier: str, init_seed: int) -> Float32Vector:
    """Return the first weights of a network: shape (size,), float32, writable.

    A weight is noise(init_seed)[p] * float32(std / sqrt(fan_in)), p its position in the whole
    vector; biases are +0 and their noise positions are skipped.
    """
    found = network(identifier)
    theta = noise(init_seed, found.size)
    start = 0
    for tensor in found.layout:
        block = theta[start : start + tensor.size]
        if tensor.std is None:
            block[:] = 0.0
        else:
            np.multiply(block, np.float32(float(tensor.std) / math.sqrt(tensor.fan_in)), out=block)
        start += tensor.size
    return theta


def mutate(theta: Float32Vector, mutation: Mutation, out: Float32Vector | None = None) -> None:
    """Apply one mutation to every parameter, biases included, in place or into ``out``."""
    add_noise(theta, mutation.seed, scaled_quantiles(mutation.sigma), out)


def parameters(genome: Genome, cache: ParameterCache | None = None) -> Float32Vector:
    """Return the weights of ``genome``: shape (size,), float32, read-only if they are cached.

    With a cache, the nearest cached ancestor is taken, so that a new parent costs one link.
    """
    if cache is None:
        return _replay(initial(genome.network, genome.init_seed), genome.mutations)
    found = cache.get(genome.digest)
    if found is None:
        found = _from_ancestor(genome, cache)
        cache.put(genome.digest, found)
    return found


def _from_ancestor(genome: Genome, cache: ParameterCache) -> Float32Vector:
    for depth, digest in reversed(list(enumerate(genome.ancestor_digests()))):
        vector = cache.get(digest)
        if vector is not None:
            return _replay(vector.copy(), genome.mutations[depth:])
    return _replay(initial(genome.network, genome.init_seed), genome.mutations)


def _replay(theta: Float32Vector, mutations: tuple[Mutation, ...]) -> Float32Vector:
    for mutation in mutations:
        mutate(theta, mutation)
    return theta


def sha256(theta: Float32Vector) -> str:
    """Return the digest of a vector: sha256 of its little-endian float32 bytes, hex."""
    return hashlib.sha256(theta.astype("<f4", copy=False).tobytes()).hexdigest()
