"""A search between two checkpoints, as values: what never changes, when to stop, where it is.

``kubevo_core.generation`` moves a `State` on; ``kubevo_core.demands`` says what it wants played.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from kubevo_core.evaluation import Demand, Episode, Key
from kubevo_core.generation_report import Best, Finished, Individual
from kubevo_core.genome import Genome
from kubevo_core.seeding import Purpose
from kubevo_core.spec import ExperimentSpec

__all__ = ["Limits", "Outcome", "Phase", "Settings", "State", "Stop", "Test"]


class Phase(StrEnum):
    """Where a search is."""

    EVALUATING = "evaluating"  # a generation is being played
    TESTING = "testing"  # stopped; pending tests are being played
    STOPPED = "stopped"  # nothing is left to do


class Stop(StrEnum):
    """Why a search stopped; the values are the reasons that users see, judged in this order."""

    ALL_EVALUATIONS_FAILED = "AllEvaluationsFailed"
    TARGET_FITNESS = "targetFitness"
    MAX_GENERATIONS = "maxGenerations"
    MAX_FRAMES = "maxFrames"
    MAX_WALL_CLOCK_SECONDS = "maxWallClockSeconds"
    GENOME_TOO_LONG = "GenomeTooLong"


class Outcome(StrEnum):
    """What ``tell`` made of a result; only ACCEPTED changes the state."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    STALE = "stale"  # of a generation that is finished or was dropped
    UNKNOWN = "unknown"  # never asked for


@dataclass(frozen=True, slots=True)
class Settings:
    """What never changes during a search."""

    seed: int
    repeat: int
    network: str
    population_size: int
    parents: int
    mutation_power: str
    elite_candidates: int
    elite_episodes: int
    episodes_per_evaluation: int
    test_episodes: int
    test_every_generations: int

    @staticmethod
    def of(spec: ExperimentSpec, repeat: int, network: str) -> "Settings":
        """Return the settings of one repeat of ``spec``."""
        genetic = spec.algorithm.genetic_algorithm
        return Settings(
            seed=spec.seed,
            repeat=repeat,
            network=network,
            population_size=genetic.population_size,
            parents=genetic.parents,
            mutation_power=genetic.mutation_power,
            elite_candidates=genetic.elite_candidates,
            elite_episodes=genetic.elite_episodes,
            episodes_per_evaluation=genetic.episodes_per_evaluation,
            test_episodes=genetic.test_episodes,
            test_every_generations=genetic.test_every_generations,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop; a person may change them while the search runs."""

    target_fitness: float | None = None
    max_generations: int | None = None
    max_frames: int | None = None
    max_wall_clock_seconds: float | None = None

    @staticmethod
    def of(spec: ExperimentSpec) -> "Limits":
        """Return the limits of ``spec``."""
        budget = spec.budget
        return Limits(
            None if budget.target_fitness is None else float(budget.target_fitness),
            budget.max_generations,
            budget.max_frames,
            budget.max_wall_clock_seconds,
        )


@dataclass(frozen=True, slots=True)
class Test:
    """Held-out episodes that somebody is waiting for; they never influence the search."""

    generation: int
    purpose: Purpose
    genome: Genome

    def keys(self, settings: Settings) -> list[Key]:
        """Return the identities of the test's episodes, in episode order."""
        return [
            Key(settings.repeat, self.generation, self.purpose, 0, self.genome.digest, episode)
            for episode in range(settings.test_episodes)
        ]


@dataclass
class State:
    """A search between two checkpoints. ``finish`` replaces it; ``tell`` alone fills its tables.

    The tables (results, open demands, determined children) grow in place, because copying them for
    each result would be quadratic; whoever holds a State owns it.
    """

    settings: Settings
    phase: Phase
    generation: int
    population: tuple[Individual, ...]
    carried: Genome | None
    best: Best | None
    frames: int
    running_seconds: float
    digests: tuple[str, ...]
    finished: Finished | None = None
    stop: Stop | None = None
    tests: tuple[Test, ...] = ()
    results: dict[Key, Episode] = field(default_factory=dict)
    open: dict[Key, Demand] = field(default_factory=dict)
    children: dict[int, Individual] = field(default_factory=dict)
    fitnesses: dict[int, float | None] = field(default_factory=dict)  # of fully played slots
    unplayed: dict[str, int] = field(default_factory=dict)  # digest -> slots not fully played
    stale_look: bool = True  # something arrived since `ask` last looked
