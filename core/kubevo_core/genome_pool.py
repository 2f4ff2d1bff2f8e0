"""Many genomes in few bytes, and the safetensors file around them: what all stored files share.

Genomes lie once in a pool, as ragged chains::

    pool_init      u32 [k]          pool_offsets  i64 [k+1]      into the two chains:
    pool_seed      u32 [m]          pool_sigma    u16 [m]        sigma = index into json.sigmas

The file holds arrays and one JSON text with a ``version``; there is no code in it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from kubevo_core.errors import CheckpointVersionError
from kubevo_core.genome import Genome, Mutation

__all__ = ["UNREADABLE", "Arrays", "Pool", "pack", "unpack", "unpool"]

Arrays = dict[str, npt.NDArray[Any]]
# What a payload that does not fit itself may raise while it is read.
UNREADABLE = (SafetensorError, KeyError, IndexError, TypeError, ValueError)
_TYPES = {"F64": "<f8", "I64": "<i8", "I32": "<i4", "U32": "<u4", "U16": "<u2", "U8": "u1"}


class Pool:
    """Genomes, each once, in the order in which they were first seen."""

    def __init__(self) -> None:
        self.genomes: list[Genome] = []
        self.sigmas: list[str] = []
        self._indices: dict[str, int] = {}

    def add(self, genome: Genome) -> int:
        """Return the genome's index, taking it in if it is new."""
        index = self._indices.setdefault(genome.digest, len(self.genomes))
        if index == len(self.genomes):
            self.genomes.append(genome)
        return index

    def sigma(self, text: str) -> int:
        """Return a sigma's index, taking it in if it is new."""
        if text not in self.sigmas:
            self.sigmas.append(text)
        return self.sigmas.index(text)

    def arrays(self) -> Arrays:
        """Return the pool's arrays; ``sigmas`` is complete only after this."""
        chains = [genome.mutations for genome in self.genomes]
        links = [mutation for chain in chains for mutation in chain]
        return {
            "pool_init": np.array([genome.init_seed for genome in self.genomes], np.uint32),
            "pool_offsets": np.cumsum([0, *map(len, chains)], dtype=np.int64),
            "pool_seed": np.array([mutation.seed for mutation in links], np.uint32),
            "pool_sigma": np.array([self.sigma(m.sigma) for m in links], np.uint16),
        }


def unpool(arrays: Arrays, network: str, sigmas: Sequence[str]) -> list[Genome]:
    """Return a pool's genomes by index."""
    links = [
        Mutation(seed, sigmas[sigma])
        for seed, sigma in zip(
            arrays["pool_seed"].tolist(), arrays["pool_sigma"].tolist(), strict=True
        )
    ]
    offsets = arrays["pool_offsets"].tolist()
    return [
        Genome(network, init_seed, tuple(links[offsets[index] : offsets[index + 1]]))
        for index, init_seed in enumerate(arrays["pool_init"].tolist())
    ]


def pack(arrays: Arrays, metadata: Mapping[str, Any]) -> bytes:
    """Return arrays and metadata as one safetensors file; equal values give equal bytes."""
    found: bytes = save(arrays, {"json": json.dumps(metadata, sort_keys=True)})
    return found


def unpack(payload: bytes, version: int, what: str) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the metadata of a file that `pack` made.

    Raises:
        CheckpointVersionError: ``what`` was written by another version.
        SafetensorError, KeyError, IndexError, TypeError, ValueError: it is something else.
    """
    header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
    metadata = json.loads(header["__metadata__"]["json"])
    if metadata["version"] != version:
        raise CheckpointVersionError(
            f"{what} has version {metadata['version']!r}, this program reads {version}: resume it "
            "with the program that wrote it, or a newer one"
        )
    return {
        name: np.frombuffer(view["data"], _TYPES[view["dtype"]]).reshape(view["shape"])
        for name, view in deserialize(payload)  # type: ignore[no-untyped-call]
    }, metadata
