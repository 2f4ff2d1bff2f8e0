"""A finished generation: everything about it, its digest, and the row that history keeps.

The digests say what "same bytes" means: sha256 over newline-joined lines of single-spaced fields,
without a trailing newline, floats as ``float.hex()``, digests in full::

    generationDigest   <r> <g> <slot> <genome digest> <fitness | failed>     for each slot
                       <r> <g> v <genome digest> <mean | failed>             for each candidate
                       <r> <g> elite <digest | none>
                       <r> <g> best <digest | none>
                       <r> <g> frames <charged so far>
    resultDigest       <r> <g> <generationDigest>                            for each generation
    populationDigest   the genome texts of the last finished generation
"""

import hashlib
import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kubevo_core.evaluation import Episode
from kubevo_core.fitness import format_fitness, mean_return
from kubevo_core.genome import Genome, Mutation
from kubevo_core.seeding import Purpose
from kubevo_core.selection import Ranked

__all__ = [
    "Best",
    "Elite",
    "Finished",
    "Individual",
    "TestReport",
    "population_digest",
    "result_digest",
]

# Of each generation; a history row stays small even when every episode fails.
FAILURES_KEPT = 10
FAILURE_LENGTH = 600


@dataclass(frozen=True, slots=True)
class Individual:
    """A genome and how it is made: ``base`` plus at most one ``mutation``.

    ``parent_slot`` is the parent's slot in the generation before, N for the elite that was carried
    into it; in generation 0 it is -1, or for a child of an imported genome that one's slot.
    """

    genome: Genome
    base: Genome
    mutation: Mutation | None
    parent_slot: int


@dataclass(frozen=True, slots=True)
class Elite:
    """The candidate with the best validation; ``mean`` is None when it stayed unopposed."""

    slot: int
    genome: Genome
    mean: float | None


@dataclass(frozen=True, slots=True)
class Best:
    """The best elite so far: the result of the search."""

    genome: Genome
    mean: float
    generation: int


@dataclass(frozen=True, slots=True)
class TestReport:
    """A finished test of ``genome`` (a digest); failed episodes have no return."""

    generation: int
    purpose: Purpose
    genome: str
    episodes: tuple[Episode, ...]

    def row(self) -> dict[str, Any]:
        """Return the line for ``tests.jsonl``."""
        returns = [episode.episode_return for episode in self.episodes]
        return {
            "generation": self.generation,
            "purpose": self.purpose.name.lower(),
            "genome": self.genome,
            "mean": mean_return(returns),
            "episodes": len(returns),
            "episodeReturns": returns,
            "failures": [e.failure for e in self.episodes if e.failure],
        }


@dataclass(frozen=True)
class Finished:
    """A generation after selection. Frames and digests run from generation 0 up to this one."""

    repeat: int
    generation: int
    population: tuple[Individual, ...]
    episodes: tuple[tuple[Episode, ...], ...]
    candidates: tuple[Ranked, ...]
    validations: tuple[tuple[Episode, ...], ...]
    elite: Elite | None
    best: Best | None
    parents: tuple[tuple[int, Genome], ...]
    frames: int
    running_seconds: float
    digests: tuple[str, ...]

    @staticmethod
    def of(
        *,
        frames_before: int,
        digests_before: Sequence[str],
        episodes: tuple[tuple[Episode, ...], ...],
        validations: tuple[tuple[Episode, ...], ...],
        **fields: Any,
    ) -> "Finished":
        """Return the generation with its frames charged and its digest appended."""
        played = (
            episode for group in (episodes, validations) for each in group for episode in each
        )
        frames = frames_before + sum(episode.frames for episode in played)
        bare = Finished(
            episodes=episodes, validations=validations, frames=frames, digests=(), **fields
        )
        digests = (*digests_before, bare._digest())
        return Finished(
            episodes=episodes, validations=validations, frames=frames, digests=digests, **fields
        )

    @property
    def fitnesses(self) -> list[float | None]:
        """Fitness by slot; None for a failed evaluation."""
        return [mean_return([e.episode_return for e in each]) for each in self.episodes]

    @property
    def means(self) -> list[float | None]:
        """Validation mean by candidate; None for an ineligible one."""
        return [mean_return([e.episode_return for e in each]) for each in self.validations]

    @property
    def digest(self) -> str:
        """This generation's generationDigest."""
        return self.digests[-1]

    def _digest(self) -> str:
        r, g = self.repeat, self.generation
        lines = [
            f"{r} {g} {slot} {individual.genome.digest} {format_fitness(fitness)}"
            for slot, (individual, fitness) in enumerate(
                zip(self.population, self.fitnesses, strict=True)
            )
        ]
        lines += [
            f"{r} {g} v {digest} {format_fitness(mean)}"
            for (_, digest), mean in zip(self.candidates, self.means, strict=True)
        ]
        lines.append(f"{r} {g} elite {self.elite.genome.digest if self.elite else 'none'}")
        lines.append(f"{r} {g} best {self.best.genome.digest if self.best else 'none'}")
        lines.append(f"{r} {g} frames {self.frames}")
        return _sha256_lines(lines)

    def row(self) -> dict[str, Any]:
        """Return the line for ``history.jsonl``: plain JSON values, fitness in reward units."""
        ranked = sorted(value for value in self.fitnesses if value is not None)
        evaluations = len(self.population) + len(self.candidates)
        best_slots = [s for s, f in enumerate(self.fitnesses) if ranked and f == ranked[-1]]
        groups = (*self.episodes, *self.validations)
        return {
            "repeat": self.repeat,
            "generation": self.generation,
            "fitness": {
                "max": ranked[-1] if ranked else None,
                "mean": statistics.fmean(ranked) if ranked else None,
                "median": statistics.median(ranked) if ranked else None,
                "min": ranked[0] if ranked else None,
                "slot": best_slots[0] if best_slots else None,
            },
            "failed": len(self.population) - len(ranked),
            "elite": self._elite_row(self.elite) if self.elite else None,
            "best": {
                "genome": self.best.genome.digest,
                "mean": self.best.mean,
                "generation": self.best.generation,
            }
            if self.best
            else None,
            "evaluations": evaluations,
            "episodes": sum(len(each) for each in groups),
            "steps": sum(episode.steps for each in groups for episode in each),
            "frames": self.frames,
            "runningSeconds": round(self.running_seconds, 3),
            "generationDigest": self.digest,
            "failures": self._failures(),
        }

    def _failures(self) -> list[dict[str, Any]]:
        """Return the first failed episodes: the checkpoint that has all of them is pruned one day."""
        groups = (*self.episodes, *self.validations)
        failed = (episode for group in groups for episode in group if episode.failure is not None)
        return [
            {
                "purpose": episode.key.purpose.name.lower(),
                "slot": episode.key.slot,
                "episode": episode.key.episode,
                "genome": episode.key.digest,
                "failure": str(episode.failure)[:FAILURE_LENGTH],
            }
            for episode in itertools.islice(failed, FAILURES_KEPT)
        ]

    def _elite_row(self, elite: Elite) -> dict[str, Any]:
        digest = elite.genome.digest
        returns = [
            episode.episode_return
            for (_, candidate), group in zip(self.candidates, self.validations, strict=True)
            if candidate == digest
            for episode in group
            if episode.episode_return is not None
        ]
        return {
            "slot": elite.slot,
            "genome": digest,
            "mean": elite.mean,
            "sd": statistics.stdev(returns) if len(returns) > 1 else None,
            "episodes": len(returns),
            "mutations": len(elite.genome.mutations),
        }


def _sha256_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("ascii")).hexdigest()


def population_digest(repeats: Sequence[Finished]) -> str:
    """Return the populationDigest of the last finished generations, repeats in order."""
    return _sha256_lines(i.genome.text for done in repeats for i in done.population)


def result_digest(repeats: Sequence[Finished]) -> str:
    """Return the resultDigest, repeats in order, each with its generations in order."""
    return _sha256_lines(
        f"{done.repeat} {generation} {digest}"
        for done in repeats
        for generation, digest in enumerate(done.digests)
    )
