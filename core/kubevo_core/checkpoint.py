"""A finished generation as bytes, and back: everything needed to go on, nothing of the next one.

The payload is one safetensors file (arrays, no code), sealed by ``kubevo_core.container``. Genomes
lie once in a pool as ragged chains; an individual is (pool index of its base, mutation)::

    pool_init      u32 [k]          pool_offsets  i64 [k+1]      into the two chains:
    pool_seed      u32 [m]          pool_sigma    u16 [m]        sigma = index into json.sigmas
    base, parent   i32 [N]          seed u32 [N]  sigma u16 [N]  sigma 65535 = no mutation
    returns        f64 [N,e]        steps, frames i64 [N,e]      NaN = failed, text in json.failures
    v_returns      f64 [C,E]        v_steps, v_frames i64 [C,E]
    digests        u8  [g+1,32]                                  generationDigests so far
    metadata json  version, network, elite, best, parents, candidates, totals, tests, stop, failures

The compact scores that outlive a pruned checkpoint are 16 bytes an individual: fitness f64 (NaN =
failed), frames u32 (saturating), parent slot i32.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from kubevo_core.errors import CheckpointCorrupt, CheckpointVersionError
from kubevo_core.evaluation import Episode, Key
from kubevo_core.generation import State, Stop, Test
from kubevo_core.generation_report import Best, Elite, Finished, Individual
from kubevo_core.genome import Genome, Mutation
from kubevo_core.seeding import Purpose

__all__ = ["SCORE", "Snapshot", "decode", "encode", "scores"]

VERSION = 1
NO_MUTATION = 0xFFFF
SCORE = np.dtype([("fitness", "<f8"), ("frames", "<u4"), ("parent", "<i4")])
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds: a finished generation, the tests still pending, and any stop."""

    finished: Finished
    tests: tuple[Test, ...]
    stop: Stop | None


class _Pool:
    """Genomes, each once, in the order in which they were first seen."""

    def __init__(self) -> None:
        self.genomes: list[Genome] = []
        self.sigmas: list[str] = []
        self._indices: dict[str, int] = {}

    def add(self, genome: Genome) -> int:
        index = self._indices.setdefault(genome.digest, len(self.genomes))
        if index == len(self.genomes):
            self.genomes.append(genome)
        return index

    def sigma(self, text: str) -> int:
        if text not in self.sigmas:
            self.sigmas.append(text)
        return self.sigmas.index(text)

    def arrays(self) -> Arrays:
        chains = [genome.mutations for genome in self.genomes]
        links = [mutation for chain in chains for mutation in chain]
        return {
            "pool_init": np.array([genome.init_seed for genome in self.genomes], np.uint32),
            "pool_offsets": np.cumsum([0, *map(len, chains)], dtype=np.int64),
            "pool_seed": np.array([mutation.seed for mutation in links], np.uint32),
            "pool_sigma": np.array([self.sigma(m.sigma) for m in links], np.uint16),
        }


def encode(state: State) -> bytes:
    """Return the payload of the checkpoint of ``state.finished``.

    Equal states give equal bytes but for the running time, which is in the metadata.
    """
    done = state.finished
    assert done is not None
    pool = _Pool()
    population: Arrays = {
        "base": np.array([pool.add(i.base) for i in done.population], np.int32),
        "parent": np.array([i.parent_slot for i in done.population], np.int32),
        "seed": np.array(
            [i.mutation.seed if i.mutation else 0 for i in done.population], np.uint32
        ),
        "sigma": np.array(
            [pool.sigma(i.mutation.sigma) if i.mutation else NO_MUTATION for i in done.population],
            np.uint16,
        ),
    }
    metadata = {
        "version": VERSION,
        "repeat": done.repeat,
        "generation": done.generation,
        "network": done.population[0].genome.network,
        "frames": done.frames,
        "runningSeconds": done.running_seconds,
        "candidates": done.candidates,
        "elite": [done.elite.slot, pool.add(done.elite.genome), done.elite.mean]
        if done.elite
        else None,
        "best": [pool.add(done.best.genome), done.best.mean, done.best.generation]
        if done.best
        else None,
        "parents": [[slot, pool.add(genome)] for slot, genome in done.parents],
        "tests": [[t.generation, int(t.purpose), pool.add(t.genome)] for t in state.tests],
        "stop": state.stop,
        "failures": _failures(done),
    }
    arrays = {
        **population,
        **pool.arrays(),
        **_played("", done.episodes),
        **_played("v_", done.validations),
        "digests": np.frombuffer(bytes.fromhex("".join(done.digests)), np.uint8).reshape(-1, 32),
    }
    metadata["sigmas"] = pool.sigmas
    found: bytes = save(arrays, {"json": json.dumps(metadata, sort_keys=True)})
    return found


def _played(prefix: str, groups: Sequence[Sequence[Episode]]) -> Arrays:
    shape = (len(groups), len(groups[0]) if groups else 0)

    def table(values: Iterable[Any], dtype: type) -> npt.NDArray[Any]:
        return np.array(list(values), dtype).reshape(shape)

    flat = [episode for group in groups for episode in group]
    returns = (np.nan if e.episode_return is None else e.episode_return for e in flat)
    return {
        f"{prefix}returns": table(returns, np.float64),
        f"{prefix}steps": table((e.steps for e in flat), np.int64),
        f"{prefix}frames": table((e.frames for e in flat), np.int64),
    }


def _failures(done: Finished) -> list[list[Any]]:
    return [
        [prefix, row, column, episode.failure]
        for prefix, groups in (("", done.episodes), ("v_", done.validations))
        for row, group in enumerate(groups)
        for column, episode in enumerate(group)
        if episode.failure is not None
    ]


def decode(payload: bytes) -> Snapshot:
    """Read a checkpoint's payload.

    Raises:
        CheckpointVersionError: written by a newer program.
        CheckpointCorrupt: the arrays and the metadata do not fit each other.
    """
    try:
        arrays, metadata = _load(payload)
        return _snapshot(arrays, metadata)
    except (SafetensorError, KeyError, IndexError, TypeError, ValueError) as exc:
        raise CheckpointCorrupt(
            f"the checkpoint's contents do not fit each other: {type(exc).__name__}: {exc}"
        ) from exc


def _load(payload: bytes) -> tuple[Arrays, dict[str, Any]]:
    header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
    metadata = json.loads(header["__metadata__"]["json"])
    if metadata["version"] != VERSION:
        raise CheckpointVersionError(
            f"the checkpoint has version {metadata['version']!r}, this program reads {VERSION}: "
            "resume it with the program that wrote it, or a newer one"
        )
    types = {"F64": "<f8", "I64": "<i8", "I32": "<i4", "U32": "<u4", "U16": "<u2", "U8": "u1"}
    return {
        name: np.frombuffer(view["data"], types[view["dtype"]]).reshape(view["shape"])
        for name, view in deserialize(payload)  # type: ignore[no-untyped-call]
    }, metadata


def _snapshot(arrays: Arrays, metadata: dict[str, Any]) -> Snapshot:
    sigmas: list[str] = metadata["sigmas"]
    pool = _unpool(arrays, metadata["network"], sigmas)
    population = []
    columns = (arrays[name].tolist() for name in ("base", "parent", "seed", "sigma"))
    for base, parent, seed, sigma in zip(*columns, strict=True):
        mutation = None if sigma == NO_MUTATION else Mutation(seed, sigmas[sigma])
        genome = pool[base].child(mutation) if mutation else pool[base]
        population.append(Individual(genome, pool[base], mutation, parent))
    candidates = tuple((int(slot), str(digest)) for slot, digest in metadata["candidates"])
    repeat, generation = int(metadata["repeat"]), int(metadata["generation"])
    failures = {(p, row, column): text for p, row, column, text in metadata["failures"]}
    lowest: dict[str, int] = {}
    for slot, individual in enumerate(population):
        lowest.setdefault(individual.genome.digest, slot)

    def episodes(
        prefix: str, purpose: Purpose, rows: Sequence[tuple[int, str]]
    ) -> tuple[tuple[Episode, ...], ...]:
        columns = [arrays[f"{prefix}{name}"].tolist() for name in ("returns", "steps", "frames")]
        return tuple(
            tuple(
                Episode(
                    Key(repeat, generation, purpose, slot, digest, column),
                    None if math.isnan(value) else value,
                    steps,
                    frames,
                    failures.get((prefix, row, column)),
                )
                for column, (value, steps, frames) in enumerate(zip(*played, strict=True))
            )
            for row, ((slot, digest), *played) in enumerate(zip(rows, *columns, strict=True))
        )

    individuals = [(slot, i.genome.digest) for slot, i in enumerate(population)]
    validated = [(s if s == len(population) else lowest[d], d) for s, d in candidates]
    elite, best = metadata["elite"], metadata["best"]
    finished = Finished(
        repeat=repeat,
        generation=generation,
        population=tuple(population),
        episodes=episodes("", Purpose.POPULATION, individuals),
        candidates=candidates,
        validations=episodes("v_", Purpose.VALIDATION, validated),
        elite=Elite(elite[0], pool[elite[1]], elite[2]) if elite else None,
        best=Best(pool[best[0]], best[1], best[2]) if best else None,
        parents=tuple((slot, pool[index]) for slot, index in metadata["parents"]),
        frames=int(metadata["frames"]),
        running_seconds=float(metadata["runningSeconds"]),
        digests=tuple(row.tobytes().hex() for row in arrays["digests"]),
    )
    tests = tuple(Test(g, Purpose(p), pool[index]) for g, p, index in metadata["tests"])
    return Snapshot(finished, tests, Stop(metadata["stop"]) if metadata["stop"] else None)


def _unpool(arrays: Arrays, network: str, sigmas: Sequence[str]) -> list[Genome]:
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


def scores(done: Finished) -> bytes:
    """Return a generation's compact scores: 16 bytes an individual, in slot order (``SCORE``)."""
    table = np.zeros(len(done.population), SCORE)
    table["fitness"] = [np.nan if f is None else f for f in done.fitnesses]
    frames = [min(sum(e.frames for e in each), 0xFFFF_FFFF) for each in done.episodes]
    table["frames"] = frames
    table["parent"] = [individual.parent_slot for individual in done.population]
    return table.tobytes()
