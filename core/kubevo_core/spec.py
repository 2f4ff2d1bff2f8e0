"""The Experiment: what a person writes, parsed once into a type that cannot be wrong.

The one public import of the spec; its blocks are in `spec_fixed` and `spec_live`, built with
`spec_rules` and `spec_texts`. Only these use pydantic; the custom resource definition is generated from the models.
Unknown fields are errors with a suggestion; numbers with a fraction are decimal strings, because a
float has no one text on its way through YAML, JSON and a database.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from kubevo_core.errors import SpecError
from kubevo_core.spec_errors import sentence
from kubevo_core.spec_fixed import (
    Algorithm,
    Atari,
    Environment,
    GeneticAlgorithm,
    Policy,
    WarmStart,
)
from kubevo_core.spec_live import (
    Budget,
    Checkpoint,
    Evaluator,
    FailurePolicy,
    PodMetadata,
    PodTemplate,
    Recording,
    Scaling,
)
from kubevo_core.spec_rules import Rule, SpecModel, without_nulls
from kubevo_core.spec_texts import (
    LabelName,
    LabelValue,
    NamespaceName,
    ObjectName,
)

__all__ = [
    "API_VERSION",
    "IMMUTABLE",
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
    "PodMetadata",
    "PodTemplate",
    "Policy",
    "Recording",
    "Scaling",
    "WarmStart",
    "differences",
    "parse",
]

API_VERSION = "kubevo.dev/v1alpha1"
MetadataLabels = Annotated[dict[LabelName, LabelValue], BeforeValidator(without_nulls)]
MetadataAnnotations = Annotated[dict[LabelName, str], BeforeValidator(without_nulls)]
# The fields, as a person writes them, that no later version of an Experiment may change.
IMMUTABLE = ("seed", "repeats", "environment", "policy", "algorithm", "warmStart")


class ExperimentSpec(SpecModel):
    """One search."""

    RULES: ClassVar = (
        Rule(
            cel="self.policy.network != 'mlp' || !self.environment.id.startsWith('ALE/')",
            holds=lambda block: block.policy.network != "mlp" or not block.environment.is_atari,
            message="policy.network mlp reads vectors, not pixels, but {environment.id} shows "
            "pixels; use dqn or large-dqn",
            field="policy.network",
        ),
    )
    seed: int = Field(0, ge=0, le=0xFFFF_FFFF, description="Root of everything random.")
    repeats: int = Field(1, ge=1, le=32, description="Independent searches that share the workers.")
    suspend: bool = Field(
        False, description="Pause: the evaluators go, the search continues when this is false."
    )
    environment: Environment = Field(description="The game.")
    policy: Policy = Field(description="The network that plays.")
    algorithm: Algorithm = Field(description="The search algorithm.")
    budget: Budget = Field(description="When to stop.")
    evaluator: Evaluator = Field(
        default_factory=lambda: Evaluator.model_validate({}), description="The processes that play."
    )
    scaling: Scaling = Field(
        default_factory=lambda: Scaling.model_validate({}),
        description="How many evaluator pods there are.",
    )
    checkpoint: Checkpoint = Field(
        default_factory=lambda: Checkpoint.model_validate({}),
        description="Which checkpoints are kept.",
    )
    recording: Recording = Field(
        default_factory=lambda: Recording.model_validate({}),
        description="Which episodes are recorded as videos; the search is the same with and "
        "without.",
    )
    warm_start: WarmStart | None = Field(
        None,
        description="Another Experiment of the namespace whose genomes generation 0 starts from.",
    )
    resume_policy: Literal["FromCheckpoint", "Never"] = Field(
        "FromCheckpoint", description="Whether a larger budget lets a finished search go on."
    )
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        le=315_360_000,
        description="Delete the Experiment so long after it has finished; default: never.",
    )
    retention: Literal["Retain", "Delete"] = Field(
        "Retain", description="Whether the run's files stay when the Experiment is deleted."
    )
    failure_policy: FailurePolicy = Field(
        default_factory=lambda: FailurePolicy.model_validate({}),
        description="What to do when an evaluation cannot be carried out.",
    )

    def document(self) -> dict[str, Any]:
        """Return the spec as plain JSON values with the names that a person writes."""
        found: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return found

    def digest(self) -> str:
        """Return the sha256 of what makes two searches the same: the immutable fields."""
        document = self.document()
        # An absent warmStart is left out, as in the digests of versions that did not know it.
        fixed = {name: document[name] for name in IMMUTABLE if document[name] is not None}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


# What else Kubernetes has in an object's metadata; kubevo does not look at it.
_OTHER_METADATA = (
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "selfLink",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "ownerReferences",
    "managedFields",
)


class Metadata(SpecModel):
    """The part of an object's metadata that matters here; the rest belongs to Kubernetes."""

    name: ObjectName = Field(description="Lower-case letters, digits, '-' and '.'.")
    namespace: NamespaceName | None = Field(None, exclude=True, description="Where it lives.")
    labels: MetadataLabels = Field({}, exclude=True, description="Labels.")
    annotations: MetadataAnnotations = Field({}, exclude=True, description="Annotations.")

    @model_validator(mode="before")
    @classmethod
    def _leaves_the_rest_to_kubernetes(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: item for key, item in value.items() if key not in _OTHER_METADATA}


class Experiment(SpecModel):
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
        lines = dict.fromkeys(
            sentence(Experiment, error) for error in exc.errors(include_url=False)
        )
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
