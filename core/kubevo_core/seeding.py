"""Where every random number of a search comes from: a stateless hash of who asks for it.

``derive(root, purpose, path)`` folds its arguments through ``mix`` (the finaliser of splitmix64;
Steele, Lea and Flood 2014), so nothing random is ever stored, and arrival order cannot matter.
Reference values: ``tests/golden/noise-v1.json`` and ``engine-v1.json``.
"""

from enum import IntEnum

__all__ = ["MASK64", "Purpose", "derive", "derive_hash", "mix"]

MASK64 = 0xFFFF_FFFF_FFFF_FFFF


class Purpose(IntEnum):
    """What a seed is for; the numbers are part of every result and never change."""

    INIT = 1  # path: repeat, slot
    PARENT = 2  # path: repeat, generation, slot
    MUTATION = 3  # path: repeat, generation, slot
    POPULATION = 4  # path: repeat, generation, slot, episode
    VALIDATION = 5  # path: repeat, generation, episode; shared by all candidates
    TEST = 6  # path: repeat, generation, episode
    FINAL = 7  # path: repeat, episode
    RECORD = 8  # path: repeat, generation


def mix(z: int) -> int:
    """Return 64 well-mixed bits of the 64-bit integer ``z``."""
    z = (z + 0x9E37_79B9_7F4A_7C15) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB) & MASK64
    return z ^ (z >> 31)


def derive_hash(root: int, purpose: int, *path: int) -> int:
    """Return the 64-bit hash behind `derive`; the choice of a parent uses all of it."""
    h = mix(mix(root) ^ purpose)
    for value in path:
        h = mix(h ^ value)
    return h


def derive(root: int, purpose: int, *path: int) -> int:
    """Return the 32-bit seed for ``purpose`` at ``path`` (each value below 2**64)."""
    return derive_hash(root, purpose, *path) >> 32
