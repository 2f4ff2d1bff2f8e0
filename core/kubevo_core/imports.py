"""What a warm start begins with, as a value and as bytes: genomes, and where they came from.

Resolved once, before generation 0, and kept in the run's directory; from then on the source may
change or go. The payload is one safetensors file, sealed by ``kubevo_core.container``::

    pool_…          the genomes, best first      (``kubevo_core.genome_pool``)
    metadata json   version, kind "import", dialect, network, source, wanted
"""

from dataclasses import asdict, dataclass
from typing import Any

from kubevo_core.errors import CheckpointCorrupt, CheckpointVersionError
from kubevo_core.genome import DIALECT, Genome
from kubevo_core.genome_pool import UNREADABLE, Pool, pack, unpack, unpool

__all__ = ["Imported", "Source", "decode", "encode"]

VERSION = 1
KIND = "import"


@dataclass(frozen=True)
class Source:
    """Where genomes came from; ``selected`` tells the parents of a generation from the best."""

    experiment: str
    uid: str
    repeat: int
    generation: int
    selected: bool

    def __str__(self) -> str:
        what = "the parents selected in" if self.selected else "the best, found in"
        return f"{self.experiment} ({self.uid}), repeat {self.repeat}, {what} generation {self.generation}"


@dataclass(frozen=True)
class Imported:
    """Genomes to start from, best first; ``wanted`` is the spec's warmStart that asked for them."""

    genomes: tuple[Genome, ...]
    source: Source
    wanted: str


def encode(imported: Imported) -> bytes:
    """Return the payload of ``import.ck``; equal values give equal bytes."""
    pool = Pool()
    order = [pool.add(genome) for genome in imported.genomes]
    arrays = pool.arrays()
    metadata = {
        "version": VERSION,
        "kind": KIND,
        "dialect": DIALECT,
        "network": imported.genomes[0].network,
        "order": order,
        "source": asdict(imported.source),
        "wanted": imported.wanted,
        "sigmas": pool.sigmas,
    }
    return pack(arrays, metadata)


def decode(payload: bytes) -> Imported:
    """Read what `encode` wrote.

    Raises:
        CheckpointVersionError: written by a newer program, or genomes of another dialect.
        CheckpointCorrupt: it is something else, or does not fit itself.
    """
    try:
        arrays, metadata = unpack(payload, VERSION, "the import")
        if metadata["kind"] != KIND:
            raise ValueError(f"expected the kind {KIND!r}, found {metadata['kind']!r}")
        if metadata["dialect"] != DIALECT:
            raise CheckpointVersionError(
                f"the import has genomes of the dialect {metadata['dialect']!r}, this program "
                f"reads {DIALECT}: resume it with the program that wrote it, or a newer one"
            )
        return _imported(unpool(arrays, metadata["network"], metadata["sigmas"]), metadata)
    except UNREADABLE as exc:
        raise CheckpointCorrupt(
            f"the import's contents do not fit each other: {type(exc).__name__}: {exc}"
        ) from exc


def _imported(pool: list[Genome], metadata: dict[str, Any]) -> Imported:
    source = metadata["source"]
    return Imported(
        tuple(pool[index] for index in metadata["order"]),
        Source(
            str(source["experiment"]),
            str(source["uid"]),
            int(source["repeat"]),
            int(source["generation"]),
            bool(source["selected"]),
        ),
        str(metadata["wanted"]),
    )
