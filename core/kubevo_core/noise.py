"""Gaussian noise from a 32-bit seed, with the same bits on every machine.

A counter goes through a 32-bit integer hash; its two halves pick entries of a table Q of 65,536
normal quantiles. Integers and one table look-up need no libm and no library's promise about its
random stream, so numpy, torch, C and CUDA agree bit for bit (``docs/adr/0001-genome-format.md``).

::

    position p       2j            2j+1
    x = hash(j)   [ low 16 bits | high 16 bits ]      noise[p] = Q[half]

A link of a genome adds sigma*Q[half] to each parameter: one float32 add of a table entry that was
multiplied and rounded beforehand; never fused, never widened.
"""

import hashlib
import pkgutil
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from kubevo_core.seeding import mix

__all__ = ["Float32Vector", "add_noise", "keys", "noise", "quantiles"]

Float32Vector = npt.NDArray[np.float32]

TABLE_SHA256 = "1cfbba1e07e34386a57626f82aeb43e6ed54ba70a3ea6b7d964dc66a841074a8"
_BLOCK = 1 << 15  # pairs a block: hash, halves and gathered values together stay in the L2 cache


@cache
def quantiles() -> Float32Vector:
    """Return the table Q: float32 of shape (65536,), read-only, checked against its digest.

    Raises:
        RuntimeError: the packaged file is missing or damaged; reinstall kubevo.
    """
    raw = pkgutil.get_data(__package__, "quantiles.f32")
    found = hashlib.sha256(raw or b"").hexdigest()
    if raw is None or found != TABLE_SHA256:
        raise RuntimeError(
            f"the packaged noise table quantiles.f32 has sha256 {found}, expected {TABLE_SHA256}; "
            "reinstall kubevo"
        )
    return np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)


@lru_cache(maxsize=8)
def scaled_quantiles(sigma: str) -> Float32Vector:
    """Return float32(sigma)*Q, each product rounded to float32; ``sigma`` is a decimal string."""
    table = quantiles() * np.float32(sigma)
    table.flags.writeable = False
    return table


def keys(seed: int) -> tuple[int, int]:
    """Return the two 32-bit keys of ``seed``; with one key, seeds would be shifts of each other."""
    z = mix(seed)
    return z & 0xFFFF_FFFF, z >> 32


def add_noise(
    theta: Float32Vector, seed: int, table: Float32Vector, out: Float32Vector | None = None
) -> None:
    """Add ``table[half]`` of ``seed``'s stream to every position of ``theta``, into ``out``.

    ``theta`` has shape (n,), ``table`` shape (65536,); n may be odd (the last half is dropped).
    Without ``out``, of shape (n,) too, ``theta`` itself is changed.
    """
    result = theta if out is None else out
    k0, k1 = keys(seed)
    n = theta.shape[0]
    pairs = (n + 1) // 2
    size = min(_BLOCK, pairs)
    x = np.empty(size, np.uint32)
    shifted = np.empty(size, np.uint32)
    gathered = np.empty(2 * size, np.float32)
    indices = np.empty(2 * size, np.intp)
    counter = np.arange(size, dtype=np.uint32)
    counter += np.uint32(k0)
    second = np.uint32(k1)
    for start in range(0, pairs, size):
        count = min(size, pairs - start)
        a, b = x[:count], shifted[:count]
        np.add(counter[:count], np.uint32(start), out=a)
        np.right_shift(a, 16, out=b)
        np.bitwise_xor(a, b, out=a)
        np.multiply(a, np.uint32(0x7FEB_352D), out=a)
        np.right_shift(a, 15, out=b)
        np.bitwise_xor(a, b, out=a)
        np.bitwise_xor(a, second, out=a)
        np.multiply(a, np.uint32(0x846C_A68B), out=a)
        np.right_shift(a, 16, out=b)
        np.bitwise_xor(a, b, out=a)
        block = slice(2 * start, 2 * (start + count))
        target = result[block]
        halves = a.astype("<u4", copy=False).view("<u2")[: target.shape[0]]
        values, index = gathered[: target.shape[0]], indices[: target.shape[0]]
        # take converts other integers itself, but slower; clip skips a check that cannot fail.
        np.copyto(index, halves)
        np.take(table, index, out=values, mode="clip")
        np.add(theta[block], values, out=target)


def noise(seed: int, length: int) -> Float32Vector:
    """Return the first ``length`` values of ``seed``'s standard normal stream, float32."""
    values = np.zeros(length, np.float32)
    add_noise(values, seed, quantiles())
    return values
