"""The blocks of an Experiment that may be changed while it runs: budget, workers, what is kept."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from kubevo_core.spec_rules import Rule, SpecModel, without_nulls
from kubevo_core.spec_texts import (
    DecimalText,
    LabelName,
    LabelValue,
    Quantity,
    ResourceName,
)

__all__ = [
    "Budget",
    "Checkpoint",
    "Evaluator",
    "FailurePolicy",
    "PodMetadata",
    "PodTemplate",
    "Recording",
    "Scaling",
]

Labels = Annotated[
    dict[LabelName, LabelValue], Field(max_length=64), BeforeValidator(without_nulls)
]
Annotations = Annotated[
    dict[LabelName, Annotated[str, Field(max_length=4096)]],
    Field(max_length=64),
    BeforeValidator(without_nulls),
]
Amounts = Annotated[
    dict[ResourceName, Quantity], Field(max_length=16), BeforeValidator(without_nulls)
]
Resources = Annotated[dict[Literal["requests", "limits"], Amounts], BeforeValidator(without_nulls)]


class Budget(SpecModel):
    """When to stop: the first limit that is met when a generation finishes."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.targetFitness) || has(self.maxGenerations) || has(self.maxFrames)"
            " || has(self.maxWallClockSeconds)",
            holds=lambda block: any(value is not None for value in block.__dict__.values()),
            message="a search needs an end: set at least one of targetFitness, maxGenerations, "
            "maxFrames, maxWallClockSeconds",
        ),
    )
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


class PodMetadata(SpecModel):
    """Labels and annotations of the evaluator pods, besides kubevo's own."""

    labels: Labels = Field({}, description="Labels.")
    annotations: Annotations = Field({}, description="Annotations.")


class PodTemplate(SpecModel):
    """What the evaluator pods have besides what kubevo gives them."""

    metadata: PodMetadata = Field(
        default_factory=lambda: PodMetadata.model_validate({}),
        description="Labels and annotations of the evaluator pods.",
    )
    spec: dict[str, Any] = Field(
        {},
        description="Merged into the evaluator pods' spec: nodeSelector, tolerations, affinity, "
        "volumes and the like.",
    )


class Evaluator(SpecModel):
    """The processes that play; used on a cluster, except for taskTimeoutSeconds."""

    image: str | None = Field(None, min_length=1, max_length=512, description="Container image.")
    resources: Resources = Field({}, description="Requests and limits of an evaluator pod.")
    processes_per_pod: int | None = Field(
        None, ge=1, le=512, description="Evaluator processes a pod; default: its CPU limit."
    )
    pod_template: PodTemplate = Field(
        default_factory=lambda: PodTemplate.model_validate({}),
        description="What the evaluator pods have besides what kubevo gives them.",
    )
    task_timeout_seconds: int = Field(
        3600,
        ge=1,
        le=604_800,
        description="An episode that takes longer is given to another worker.",
    )


class Scaling(SpecModel):
    """How many evaluator pods there are; none while suspended or finished."""

    RULES: ClassVar = (
        Rule(
            cel="self.min <= self.max",
            holds=lambda block: block.min <= block.max,
            message="min must be at most max, got min {min} and max {max}; lower min or raise max",
            field="min",
        ),
    )
    mode: Literal["Operator", "Fixed", "KEDA", "HPA", "External"] = Field(
        "Operator", description="Who decides how many evaluator pods there are."
    )
    replicas: int = Field(
        0, ge=0, le=10_000, description="Evaluator pods in mode Fixed; kubectl scale sets it."
    )
    min: int = Field(0, ge=0, le=10_000, description="Fewest evaluator pods while there is work.")
    max: int = Field(10, ge=1, le=10_000, description="Most evaluator pods.")
    tasks_per_replica: int = Field(
        10, ge=1, le=100_000, description="Tasks of a generation for each evaluator process."
    )
    idle_seconds: int = Field(
        120, ge=0, le=86_400, description="Without work for so long: no evaluator pods."
    )
    scale_down_stabilization_seconds: int = Field(
        300, ge=60, le=3_600, description="Fewer pods only when fewer were enough for so long."
    )


class Checkpoint(SpecModel):
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


class Recording(SpecModel):
    """Videos of the search: of a generation's elite now and then, and of the best at the end."""

    every_generations: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Record an episode of the elite of every so many generations, and of the best "
        "at the end; 0 for none. A repeat keeps 20 videos at most: the newest, and the best's.",
    )


class FailurePolicy(SpecModel):
    """What to do when an evaluation cannot be carried out."""

    on_poison: Literal["Fail", "Score"] = Field(
        "Fail", description="An evaluation kills every worker: stop resumable, or score it failed."
    )
