"""A finished generation as bytes, and back: everything needed to go on, nothing of the next one.

The payload is one safetensors file (arrays, no code), sealed by ``kubevo_core.container``. Genomes
lie once in a pool (``kubevo_core.genome_pool``); an individual is (pool index of its base,
mutation)::

    pool_…                                                       the genomes
    base, parent   i32 [N]          seed u32 [N]  sigma u16 [N]  sigma 65535 = no mutation
    returns        f64 [N,e]        steps, frames i64 [N,e]      NaN = failed, text in json.failures
    v_returns      f64 [C,E]        v_steps, v_frames i64 [C,E]
    digests        u8  [g+1,32]                                  generationDigests so far
    metadata json  version, network, elite, best, parents, candidates, totals, tests, stop, failures

The compact scores that outlive a pruned checkpoint are 16 bytes an individual: fitness f64 (NaN =
failed), frames u32 (saturating), parent slot i32.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kubevo_core.errors import CheckpointCorrupt
from kubevo_core.evaluation import Episode, Key
from kubevo_core.generation import State, Stop, Test
from kubevo_core.generation_report import Best, Elite, Finished, Individual
from kubevo_core.genome import Mutation
from kubevo_core.genome_pool import UNREADABLE, Arrays, Pool, pack, unpack, unpool
from kubevo_core.seeding import Purpose

__all__ = ["SCORE", "Snapshot", "decode", "encode", "scores"]

VERSION = 1
NO_MUTATION = 0xFFFF
SCORE = np.dtype([("fitness", "<f8"), ("frames", "<u4"), ("parent", "<i4")])


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds: a finished generation, the tests still pending, and any stop."""

    finished: Finished
    tests: tuple[Test, ...]
    stop: Stop | None


def encode(state: State) -> bytes:
    """Return the payload of the checkpoint of ``state.finished``.

    Equal states give equal bytes but for the running time, which is in the metadata.
    """
    done = state.finished
    assert done is not None
    pool = Pool()
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
    return pack(arrays, metadata)


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
        return _snapshot(*unpack(payload, VERSION, "the checkpoint"))
    except UNREADABLE as exc:
        raise CheckpointCorrupt(
            f"the checkpoint's contents do not fit each other: {type(exc).__name__}: {exc}"
        ) from exc


def _snapshot(arrays: Arrays, metadata: dict[str, Any]) -> Snapshot:
    sigmas: list[str] = metadata["sigmas"]
    pool = unpool(arrays, metadata["network"], sigmas)
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


def scores(done: Finished) -> bytes:
    """Return a generation's compact scores: 16 bytes an individual, in slot order (``SCORE``)."""
    table = np.zeros(len(done.population), SCORE)
    table["fitness"] = [np.nan if f is None else f for f in done.fitnesses]
    frames = [min(sum(e.frames for e in each), 0xFFFF_FFFF) for each in done.episodes]
    table["frames"] = frames
    table["parent"] = [individual.parent_slot for individual in done.population]
    return table.tobytes()
