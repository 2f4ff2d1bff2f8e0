"""The blocks of an Experiment that make it the search it is; none changes while the object lives."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from kubevo_core.spec_rules import Rule, SpecModel, without_nulls
from kubevo_core.spec_texts import (
    ArgumentName,
    EnvironmentId,
    JsonScalar,
    ObjectName,
    Probability,
    Sigma,
    Uid,
)

__all__ = [
    "Algorithm",
    "Atari",
    "Environment",
    "GeneticAlgorithm",
    "Policy",
    "WarmStart",
]

# A generation and the next one must fit the broker's stream of results.
MOST_EPISODES = 300_000
Arguments = Annotated[
    dict[ArgumentName, JsonScalar], Field(max_length=32), BeforeValidator(without_nulls)
]
HiddenLayer = Annotated[int, Field(ge=1, le=4096)]


class Atari(SpecModel):
    """How an Atari game is played; only for environments whose id starts with ALE/."""

    frame_skip: int = Field(4, ge=1, le=16, description="Emulator frames per step.")
    sticky_action_probability: Probability = Field(
        "0", description="Chance that a frame repeats the last action (Machado et al. 2018: 0.25)."
    )
    max_noops: int = Field(
        30, ge=0, le=255, description="Up to this many no-op frames start an episode."
    )
    fire_reset: bool = Field(
        True,
        description="Press FIRE at the start in games that wait for it, and after a lost life.",
    )
    terminal_on_life_loss: bool = Field(False, description="A lost life ends the episode.")
    full_action_space: bool = Field(
        False, description="All 18 actions instead of the game's minimal set."
    )


class Environment(SpecModel):
    """The game: a Gymnasium id, ALE/<Game>-v5, or module:Id-v0."""

    RULES: ClassVar = (
        Rule(
            cel="!has(self.atari) || self.id.startsWith('ALE/')",
            holds=lambda block: block.atari is None or block.is_atari,
            message='atari is only for environments named ALE/<Game>-v5, but id is "{id}"; '
            "remove the block",
        ),
        Rule(
            cel="!self.id.startsWith('ALE/') || self.kwargs.size() == 0",
            holds=lambda block: not (block.is_atari and block.arguments),
            message='kwargs is only for environments other than ALE/<Game>-v5, but id is "{id}"; '
            "use the block atari",
        ),
    )
    id: EnvironmentId = Field(
        min_length=1, description="Environment id, such as CartPole-v1 or ALE/Frostbite-v5."
    )
    arguments: Arguments = Field(
        {}, alias="kwargs", description="Arguments of the environment: JSON scalars as text."
    )
    atari: Atari | None = Field(None, description="How an Atari game is played.")
    max_episode_steps: int = Field(
        5000, ge=1, le=10_000_000, description="An episode is cut after this many steps."
    )

    @property
    def is_atari(self) -> bool:
        """Whether our own Atari loop plays it."""
        return self.id.startswith("ALE/")


class Policy(SpecModel):
    """The network that plays."""

    RULES: ClassVar = (
        Rule(
            cel="self.network == 'mlp' || self.hiddenLayers.size() == 0",
            holds=lambda block: block.network == "mlp" or not block.hidden_layers,
            message='hiddenLayers is only for the network mlp, but network is "{network}"; '
            "remove it",
            field="hiddenLayers",
        ),
    )
    network: Literal["mlp", "dqn", "large-dqn"] = Field(description="Family of the network.")
    hidden_layers: tuple[HiddenLayer, ...] = Field(
        (), max_length=8, strict=False, description="Sizes of an mlp's hidden layers."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Number format of the weights; sums are float32 with both. bfloat16 halves what "
        "backend native reads for a fully connected layer, and is another search: an individual is "
        "its rounded weights (99.5 % or more of their actions were those of float32).",
    )
    backend: Literal["auto", "native", "numpy", "torch"] = Field(
        "auto",
        description="Who computes the forward; auto is resolved once, when the run starts: native, "
        "which gives the same bits on every CPU, or numpy where it was not built.",
    )


def _episodes(block: "GeneticAlgorithm") -> int:
    population = block.population_size * block.episodes_per_evaluation
    return population + block.elite_candidates * block.elite_episodes


_EPISODES = (
    "self.populationSize * self.episodesPerEvaluation + self.eliteCandidates * self.eliteEpisodes"
)


class GeneticAlgorithm(SpecModel):
    """Truncation selection with Gaussian mutation (Such et al. 2017); defaults are the paper's."""

    RULES: ClassVar = (
        Rule(
            cel="self.parents <= self.populationSize",
            holds=lambda block: block.parents <= block.population_size,
            message="parents must be at most populationSize, got parents {parents} and "
            "populationSize {populationSize}; lower parents or raise populationSize",
            field="parents",
        ),
        Rule(
            cel="self.eliteCandidates <= self.populationSize",
            holds=lambda block: block.elite_candidates <= block.population_size,
            message="eliteCandidates must be at most populationSize, got eliteCandidates "
            "{eliteCandidates} and populationSize {populationSize}; lower eliteCandidates or raise "
            "populationSize",
            field="eliteCandidates",
        ),
        Rule(
            cel=f"{_EPISODES} <= {MOST_EPISODES}",
            holds=lambda block: _episodes(block) <= MOST_EPISODES,
            message="populationSize x episodesPerEvaluation + eliteCandidates x eliteEpisodes must "
            f"be at most {MOST_EPISODES} episodes a generation, got {{episodes}}; lower one",
            computed=("episodes", _EPISODES, _episodes),
        ),
    )
    population_size: int = Field(
        1000, ge=2, le=100_000, description="Individuals a generation (N)."
    )
    parents: int = Field(20, ge=1, le=100_000, description="Parents of the next generation (T).")
    mutation_power: Sigma = Field("0.002", description="Standard deviation of a mutation (sigma).")
    elite_candidates: int = Field(
        10, ge=2, le=100_000, description="Best individuals that are validated (C)."
    )
    elite_episodes: int = Field(
        30, ge=1, le=10_000, description="Validation episodes of each candidate (E)."
    )
    episodes_per_evaluation: int = Field(
        1, ge=1, le=1_000, description="Episodes behind an individual's fitness."
    )
    test_episodes: int = Field(
        30, ge=0, le=10_000, description="Held-out episodes of a test; 0 for none."
    )
    test_every_generations: int = Field(
        0, ge=0, le=1_000_000, description="Test the elite every so many generations; 0 for never."
    )


class Algorithm(SpecModel):
    """The search algorithm: its type and the one block of that type."""

    type: Literal["GeneticAlgorithm"] = Field("GeneticAlgorithm", description="Which algorithm.")
    genetic_algorithm: GeneticAlgorithm = Field(
        description="Truncation selection with Gaussian mutation."
    )


class WarmStart(SpecModel):
    """Another Experiment of the namespace whose genomes generation 0 starts from."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.experiment) != has(self.uid)",
            holds=lambda block: (block.experiment is None) != (block.uid is None),
            message="warmStart names its source in one way: set experiment or uid, not both and "
            "not neither",
        ),
    )
    experiment: ObjectName | None = Field(
        None,
        description="Name of the source: the newest kept run of that name in this namespace.",
    )
    uid: Uid | None = Field(
        None, description="Uid of the source, when its name has been used again."
    )
    repeat: int | None = Field(
        None, ge=0, le=31, description="Repeat of the source; default: the one with the best."
    )
    generation: int | None = Field(
        None,
        ge=0,
        le=10_000_000,
        description="Start from the elite and the other parents that this generation selected; "
        "default: from the best genome alone.",
    )
