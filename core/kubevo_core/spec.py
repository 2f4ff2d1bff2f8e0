"""The Experiment: what a person writes, parsed once into a type that cannot be wrong.

The only module with pydantic; the custom resource definition will be generated from these models.
Unknown fields are errors with a suggestion; numbers with a fraction are decimal strings, because a
float has no one text on its way through YAML, JSON and a database.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from kubevo_core.errors import SpecError
from kubevo_core.genome import canonical_sigma

__all__ = [
    "API_VERSION",
    "Algorithm",
    "Atari",
    "Budget",
    "Checkpoint",
    "Environment",
    "Evaluator",
    "Experiment",
    "ExperimentSpec",
    "FailurePolicy",
    "GeneticAlgorithm",
    "Metadata",
    "Policy",
    "differences",
    "parse",
]

API_VERSION = "kubevo.dev/v1alpha1"
# A generation and the next one must fit the broker's stream of results.
MOST_EPISODES = 300_000
IMMUTABLE = ("seed", "repeats", "environment", "policy", "algorithm")


def _canonical_decimal(text: str) -> str:
    if not re.fullmatch(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,9})?", text, re.ASCII):
        raise ValueError(f'expected a decimal number in quotes, such as "475", got {text[:40]!r}')
    return text


def _probability(text: str) -> str:
    if not 0 <= Decimal(_canonical_decimal(text)) <= 1:
        raise ValueError(f'expected a probability from "0" to "1" in quotes, got {text!r}')
    return text


def _json_scalar(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        value = {}
    if isinstance(value, (dict, list)) or (isinstance(value, float) and value - value != 0):
        raise ValueError(
            f"expected a JSON scalar as text, such as '-9.8', 'true' or '\"hard\"', got {text[:40]!r}"
        )
    return text


Sigma = Annotated[str, Field(max_length=9), AfterValidator(canonical_sigma)]
DecimalText = Annotated[str, Field(max_length=26), AfterValidator(_canonical_decimal)]
Probability = Annotated[str, Field(max_length=12), AfterValidator(_probability)]
JsonScalar = Annotated[str, Field(max_length=256), AfterValidator(_json_scalar)]
KwargName = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class _Model(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, strict=True, validate_default=True
    )


class Atari(_Model):
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


class Environment(_Model):
    """The game: a Gymnasium id, ALE/<Game>-v5, or module:Id-v0."""

    id: str = Field(
        min_length=1,
        max_length=128,
        pattern=r"^([A-Za-z_][\w.]*:)?([\w-]+/)?[\w.-]+$",
        description="Environment id, such as CartPole-v1 or ALE/Frostbite-v5.",
    )
    arguments: dict[KwargName, JsonScalar] = Field(
        {},
        alias="kwargs",
        max_length=32,
        description="Arguments of the environment: JSON scalars as text.",
    )
    atari: Atari | None = Field(None, description="How an Atari game is played.")
    max_episode_steps: int = Field(
        5000, ge=1, le=10_000_000, description="An episode is cut after this many steps."
    )

    @property
    def is_atari(self) -> bool:
        """Whether our own Atari loop plays it."""
        return self.id.startswith("ALE/")

    @model_validator(mode="after")
    def _atari_only_for_atari(self) -> "Environment":
        if self.atari is not None and not self.is_atari:
            raise ValueError(
                f"atari is only for environments named ALE/<Game>-v5, but id is {self.id!r}; "
                "remove the block"
            )
        if self.is_atari and self.arguments:
            raise ValueError(
                f"kwargs is not used by {self.id!r}; its settings are in the block atari"
            )
        return self


class Policy(_Model):
    """The network that plays."""

    network: Literal["mlp", "dqn", "large-dqn"] = Field(description="Family of the network.")
    hidden_layers: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (), max_length=8, strict=False, description="Sizes of an mlp's hidden layers."
    )
    precision: Literal["float32"] = Field("float32", description="Number format of the forward.")
    backend: Literal["auto", "numpy", "torch"] = Field(
        "auto", description="Who computes the forward; auto is resolved once, when the run starts."
    )

    @model_validator(mode="after")
    def _hidden_layers_only_for_mlp(self) -> "Policy":
        if self.hidden_layers and self.network != "mlp":
            raise ValueError(
                f"hiddenLayers is only for the network mlp, but network is {self.network!r}; remove it"
            )
        return self


class GeneticAlgorithm(_Model):
    """Truncation selection with Gaussian mutation (Such et al. 2017); defaults are the paper's."""

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

    @model_validator(mode="after")
    def _sizes_fit(self) -> "GeneticAlgorithm":
        for name, value in (("parents", self.parents), ("eliteCandidates", self.elite_candidates)):
            if value > self.population_size:
                raise ValueError(
                    f"{name} must be at most populationSize, got {name} {value} and populationSize "
                    f"{self.population_size}; lower {name} or raise populationSize"
                )
        population = self.population_size * self.episodes_per_evaluation
        episodes = population + self.elite_candidates * self.elite_episodes
        if episodes > MOST_EPISODES:
            raise ValueError(
                "populationSize x episodesPerEvaluation + eliteCandidates x eliteEpisodes must be "
                f"at most {MOST_EPISODES:,} episodes a generation, got {episodes:,}; lower one"
            )
        return self


class Algorithm(_Model):
    """The search algorithm: its type and the one block of that type."""

    type: Literal["GeneticAlgorithm"] = Field("GeneticAlgorithm", description="Which algorithm.")
    genetic_algorithm: GeneticAlgorithm = Field(description="Settings of the genetic algorithm.")


class Budget(_Model):
    """When to stop: the first limit that is met when a generation finishes."""

    target_fitness: DecimalText | None = Field(
        None, description="Stop when a generation's elite has at least this mean."
    )
    max_generations: int | None = Field(
        None, ge=1, le=10_000_000, description="Stop after this many generations."
    )
    max_frames: int | None = Field(
        None, ge=1, le=10**15, description="Stop after this many frames; tests are not counted."
    )
    max_wall_clock_seconds: int | None = Field(
        None, ge=1, le=10**9, description="Stop after this running time; not reproducible."
    )

    @model_validator(mode="after")
    def _has_an_end(self) -> "Budget":
        if all(value is None for value in self.__dict__.values()):
            raise ValueError(
                "a search needs an end: set at least one of targetFitness, maxGenerations, "
                "maxFrames, maxWallClockSeconds"
            )
        return self


class Evaluator(_Model):
    """The processes that play; used on a cluster, except for taskTimeoutSeconds."""

    image: str | None = Field(None, min_length=1, max_length=512, description="Container image.")
    resources: dict[
        Literal["requests", "limits"],
        dict[Annotated[str, Field(max_length=128)], Annotated[str, Field(max_length=32)]],
    ] = Field({}, description="Requests and limits of an evaluator pod.")
    processes_per_pod: int | None = Field(
        None, ge=1, le=512, description="Evaluator processes a pod; default: its CPU limit."
    )
    pod_template: dict[Annotated[str, Field(max_length=64)], Any] = Field(
        {}, max_length=64, description="Merged into the evaluator pods' template."
    )
    task_timeout_seconds: int = Field(
        3600,
        ge=1,
        le=604_800,
        description="An episode that takes longer is given to another worker.",
    )


class Checkpoint(_Model):
    """Which checkpoints are kept; compact scores of every generation always are."""

    keep_last: int = Field(3, ge=1, le=1000, description="Newest checkpoints kept.")
    keep_every: int = Field(
        0, ge=0, le=1_000_000, description="Also keep every so many generations; 0 for none."
    )
    quota_mebibytes: int = Field(
        2048,
        ge=1,
        le=10_000_000,
        description="Most MiB of the run's checkpoints, scores and history.",
    )


class FailurePolicy(_Model):
    """What to do when an evaluation cannot be carried out."""

    on_poison: Literal["Fail", "Score"] = Field(
        "Fail", description="An evaluation kills every worker: stop resumable, or score it failed."
    )


class ExperimentSpec(_Model):
    """One search."""

    seed: int = Field(0, ge=0, le=0xFFFF_FFFF, description="Root of everything random.")
    repeats: int = Field(1, ge=1, le=32, description="Independent searches that share the workers.")
    environment: Environment = Field(description="The game.")
    policy: Policy = Field(description="The network that plays.")
    algorithm: Algorithm = Field(description="The search algorithm.")
    budget: Budget = Field(description="When to stop.")
    evaluator: Evaluator = Field(
        default_factory=lambda: Evaluator.model_validate({}), description="The processes that play."
    )
    checkpoint: Checkpoint = Field(
        default_factory=lambda: Checkpoint.model_validate({}),
        description="Which checkpoints are kept.",
    )
    failure_policy: FailurePolicy = Field(
        default_factory=lambda: FailurePolicy.model_validate({}),
        description="What to do about poison.",
    )

    @model_validator(mode="after")
    def _network_fits_the_kind_of_game(self) -> "ExperimentSpec":
        if self.environment.is_atari and self.policy.network == "mlp":
            raise ValueError(
                f"policy.network mlp reads vectors, but {self.environment.id} shows pixels; "
                "use dqn or large-dqn"
            )
        return self

    def document(self) -> dict[str, Any]:
        """Return the spec as plain JSON values with the names that a person writes."""
        found: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return found

    def digest(self) -> str:
        """Return the sha256 of what makes two searches the same: the immutable fields."""
        document = self.document()
        text = json.dumps({name: document[name] for name in IMMUTABLE}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Metadata(BaseModel):
    """The part of an object's metadata that matters here; the rest belongs to Kubernetes."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    name: str = Field(
        max_length=52,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        description="Lower-case letters, digits, '-' and '.'.",
    )


class Experiment(_Model):
    """An Experiment file or resource."""

    api_version: Literal["kubevo.dev/v1alpha1"]
    kind: Literal["Experiment"]
    metadata: Metadata
    spec: ExperimentSpec
    status: dict[str, Any] = Field({}, exclude=True)

    def document(self) -> dict[str, Any]:
        """Return the object as plain JSON values."""
        found: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return found


def parse(document: object, source: str) -> Experiment:
    """Check an Experiment that was read from ``source`` (a file's name or a resource).

    Raises:
        SpecError: one line per problem: where, expected, actual, and a suggestion.
    """
    if not isinstance(document, Mapping):
        raise SpecError(
            f"{source}: expected an Experiment (apiVersion, kind, metadata, spec), got "
            f"{'nothing' if document is None else type(document).__name__}"
        )
    try:
        return Experiment.model_validate(document)
    except ValidationError as exc:
        lines = dict.fromkeys(_sentence(error) for error in exc.errors(include_url=False))
        raise SpecError("\n".join(f"{source}: {line}" for line in lines)) from None


def differences(old: ExperimentSpec, new: ExperimentSpec) -> list[str]:
    """Return one line for each immutable field in which two specs differ."""
    before, after = old.document(), new.document()
    return [
        line
        for name in IMMUTABLE
        for line in _differences(f"spec.{name}", before[name], after[name])
    ]


def _differences(where: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        return [
            line
            for key in names
            for line in _differences(f"{where}.{key}", old.get(key), new.get(key))
        ]
    return [] if old == new else [f"{where}: {json.dumps(old)} -> {json.dumps(new)}"]


# Keyed by pydantic's error types; {input} is the offending value, the rest its context.
_SENTENCES = {
    "missing": "is required and missing",
    "int_type": "expected an integer, got {input}",
    "int_from_float": "expected an integer, got {input}",
    "bool_type": "expected true or false, got {input}",
    "string_type": "expected a text, got {input}",
    "dict_type": "expected a mapping, got {input}",
    "model_type": "expected a mapping, got {input}",
    "model_attributes_type": "expected a mapping, got {input}",
    "tuple_type": "expected a list, got {input}",
    "literal_error": "expected {expected}, got {input}",
    "greater_than_equal": "expected at least {ge}, got {input}",
    "less_than_equal": "expected at most {le}, got {input}",
    "string_too_long": "expected at most {max_length} characters, got {input}",
    "string_too_short": "expected at least {min_length} characters, got {input}",
    "string_pattern_mismatch": "expected a text like {pattern}, got {input}",
    "too_long": "expected at most {max_length} items, got {actual_length}",
}


def _sentence(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"] if part != "[key]") or "the document"
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{where}: unknown field{_suggestion(error['loc'])}"
    if kind == "value_error":
        return f"{where}: {context['error']}"
    shown = _shown(error["input"])
    sentence = _SENTENCES.get(kind, error["msg"]).format(input=shown, **context)
    if kind == "string_type" and isinstance(error["input"], (int, float)):
        sentence += f'; put it in quotes: "{error["input"]}"'
    return f"{where}: {sentence}" if kind != "missing" else f"{where} {sentence}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _suggestion(location: tuple[Any, ...]) -> str:
    model: Any = Experiment
    for part in location[:-1]:
        fields = {info.alias or name: info for name, info in model.model_fields.items()}
        annotation = fields[part].annotation if part in fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if model is None:
            return ""
    names = [info.alias or name for name, info in model.model_fields.items()]
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(names)}"
