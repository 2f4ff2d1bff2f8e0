"""Who is validated, who becomes elite, who has children: small functions over slots and digests.

Such et al. 2017, as their GPU code does it; reference vectors in ``tests/golden/engine-v1.json``.
A *slot* numbers an individual of the population, 0 … N-1; slot N is the elite that was carried in.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from kubevo_core.seeding import mix

__all__ = [
    "Ranked",
    "candidates",
    "digest_word",
    "elite",
    "next_parents",
    "ranking",
    "rendezvous",
    "rendezvous_many",
]

Ranked = tuple[int, str]  # slot, genome digest


def ranking(fitnesses: Sequence[float | None]) -> list[int]:
    """Return the slots that have a fitness, best first, the lower slot on a tie."""
    ranked = [(-value, slot) for slot, value in enumerate(fitnesses) if value is not None]
    return [slot for _, slot in sorted(ranked)]


def _first_by_digest(ranked: Iterable[Ranked], most: int) -> list[Ranked]:
    found: dict[str, int] = {}
    for slot, digest in ranked:
        if len(found) == most:
            break
        found.setdefault(digest, slot)
    return [(slot, digest) for digest, slot in found.items()]


def candidates(carried: Ranked | None, ranked: Iterable[Ranked], most: int) -> list[Ranked]:
    """Return who is validated: the carried elite, then down the ranking, each digest once."""
    return _first_by_digest([*([carried] if carried else []), *ranked], most)


def elite(validated: Sequence[Ranked], means: Sequence[float | None]) -> int | None:
    """Return the index of the best validated candidate, the first on a tie, or None."""
    best: int | None = None
    for index, mean in enumerate(means[: len(validated)]):
        if mean is not None and (best is None or mean > (means[best] or 0.0)):
            best = index
    return best


def next_parents(chosen: Ranked, ranked: Iterable[Ranked], most: int) -> list[Ranked]:
    """Return the parents: the elite first, then down the ranking, each digest once."""
    return _first_by_digest([chosen, *ranked], most)


def digest_word(digest: str) -> int:
    """Return the first 8 bytes of a hex digest as a little-endian integer."""
    return int.from_bytes(bytes.fromhex(digest[:16]), "little")


def rendezvous(h: int, digests: Iterable[str]) -> str:
    """Return the digest that wins for the 64-bit hash ``h`` (highest random weight).

    Uniform over the set, independent of its order; taking one digest out moves only its own wins.
    """
    return max(digests, key=lambda digest: (mix(h ^ digest_word(digest)), digest))


def rendezvous_many(hashes: Sequence[int], digests: Sequence[str]) -> list[str]:
    """Return `rendezvous` of each of ``hashes`` over the same digests, vectorised."""
    ordered = sorted(digests, reverse=True)  # argmax takes the first: ties go to the larger digest
    words = np.array([digest_word(digest) for digest in ordered], np.uint64)
    z = np.array(hashes, np.uint64)[:, None] ^ words[None, :]
    z += np.uint64(0x9E37_79B9_7F4A_7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    z ^= z >> np.uint64(31)
    return [ordered[index] for index in z.argmax(axis=1)]
