"""What the service answers, as pydantic models: the OpenAPI document is made from them.

Fields are camelCase on the wire. Numbers that a resource keeps as decimal texts are numbers here.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = [
    "Best",
    "Comparison",
    "Detail",
    "Elite",
    "Evaluators",
    "Extension",
    "Failures",
    "FinalTest",
    "FitnessOf",
    "Generation",
    "Generations",
    "Histogram",
    "HistoryPage",
    "IndividualView",
    "Lineage",
    "Population",
    "Problem",
    "Scores",
    "State",
    "Summaries",
    "Summary",
    "Tests",
    "Version",
    "Videos",
]

State = Literal["Pending", "Waiting", "Running", "Suspended", "Succeeded", "Failed", "Interrupted"]
Action = Literal["suspend", "resume", "stop", "extend"]
Interval = tuple[float, float]


class Model(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(description="The status in words.")
    status: int = Field(description="HTTP's status.")
    detail: str = Field("", description="Expected, actual, where, and what to do about it.")
    instance: str = Field("", description="Path of the request.")
    errors: list[dict[str, str]] | None = Field(
        None, description="For 422: one `field` and `message` for each wrong argument."
    )


class FitnessOf(Model):
    """A fitness and the genome that has it."""

    fitness: float
    generation: int
    repeat: int = 0
    digest: str | None = Field(None, description="sha256 of the genome's text, 64 hex digits.")


class Elite(Model):
    """The newest elite."""

    fitness: float
    generation: int


class Evaluators(Model):
    """Evaluator processes."""

    desired: int
    ready: int


class FinalTest(Model):
    """The held-out test of the best genome at the end."""

    mean: float
    ci95: Interval | None = Field(None, description="95 % interval of the mean.")
    episodes: int


class Summary(Model):
    """One Experiment in a list."""

    namespace: str
    name: str
    uid: str
    created: str | None
    labels: dict[str, str]
    environment: str
    network: str
    state: State
    reason: str = Field(description="Why it is in this state, one word; may be empty.")
    message: str = Field(description="The same for a person, with the next action.")
    repeats: int
    generation: int | None = Field(description="Newest one that every repeat has finished.")
    generations: int | None = Field(description="The budget's maxGenerations.")
    frames: int
    frames_per_second: float
    eta_seconds: float | None
    best: FitnessOf | None
    elite: Elite | None
    evaluators: Evaluators | None
    start_time: str | None
    completion_time: str | None
    updated: str | None = Field(description="When its newest checkpoint was saved.")
    has_data: bool = Field(description="Whether the run's directory is at hand.")


class Summaries(Model):
    """A page of Experiments."""

    items: list[Summary]
    next_page: str | None = Field(
        None, serialization_alias="continue", description="What asks for the next page, if any."
    )
    total: int = Field(description="How many match on all pages.")


class Detail(Summary):
    """One Experiment."""

    spec: dict[str, Any]
    status: dict[str, Any]
    final_test: FinalTest | None
    population_digest: str | None
    result_digest: str | None
    actions: list[Action] = Field(description="What can be done with it now.")


Column = list[float | int | None]


class HistoryPage(Model):
    """Finished generations as columns of equal length; null where a value is not known."""

    repeat: int
    repeats: int
    rows: int
    first: int | None
    last: int | None
    columns: dict[str, Column]


class TestView(Model):
    """A held-out test."""

    generation: int
    purpose: Literal["test", "final"]
    mean: float | None = Field(description="Null when an episode failed.")
    ci95: Interval | None
    episodes: int


class Tests(Model):
    """The held-out tests of a repeat."""

    repeat: int
    items: list[TestView]


class Range(Model):
    """Generations without a gap, both ends included."""

    start: int = Field(serialization_alias="from")
    end: int = Field(serialization_alias="to")


class Generations(Model):
    """Which generations there are, and of which the genomes are kept."""

    repeat: int
    first: int | None
    last: int | None
    retained: list[Range]
    rule: str = Field(description="What decides which are kept.")


class FitnessStats(Model):
    """Fitness over a population; null when every evaluation failed."""

    max: float | None
    mean: float | None
    median: float | None
    min: float | None


class Generation(Model):
    """One finished generation."""

    generation: int
    repeat: int
    fitness: FitnessStats
    failed: int
    elite: float | None = Field(description="Validation mean of the elite.")
    elite_slot: int | None
    best: float | None = Field(description="Validation mean of the best so far.")
    best_generation: int | None
    population_size: int
    frames: int = Field(description="Charged from the start to here.")
    steps: int
    evaluations: int
    seconds: float = Field(description="Running time from the start to here.")
    genomes_retained: bool


class Histogram(Model):
    """Fitness of a population in bins of equal width."""

    edges: list[float]
    counts: list[int]
    failed: int


class Scores(Model):
    """Fitness, frames and parent by slot, thinned out evenly when there are more than asked for."""

    population_size: int
    columns: dict[str, Column]


class IndividualView(Model):
    """One individual of a generation."""

    slot: int
    digest: str
    genome: str
    mutations: int
    fitness: float | None
    episode_returns: list[float | None]
    steps: list[int]
    frames: int
    parent: int = Field(description="Its parent's slot in the generation before; -1: none.")
    failures: list[str]


class Population(Model):
    """A page of a generation's individuals."""

    generation: int
    repeat: int
    items: list[IndividualView]
    next_page: str | None = Field(None, serialization_alias="continue")


class AncestorView(Model):
    """One step of a lineage."""

    generation: int
    slot: int
    fitness: float | None
    elite: bool


class Lineage(Model):
    """An individual and its ancestors, newest first."""

    repeat: int
    items: list[AncestorView]
    complete: bool = Field(description="Whether it reaches the first generation.")


class Best(FitnessOf):
    """A genome that was validated, with what is known of it."""

    genome: str
    mutations: int
    network: str
    parameters: int
    precision: str = Field(description="What its weights are rounded to: `float32` or `bfloat16`.")
    actions: str | None = Field(
        None, description="What its values mean, such as `discrete 2`; null before it is known."
    )
    final_test: FinalTest | None


class Video(Model):
    """One recorded episode."""

    generation: int
    repeat: int
    bytes: int
    url: str


class Videos(Model):
    """The recorded episodes of a repeat."""

    items: list[Video]


class Failure(Model):
    """A failed episode."""

    generation: int
    purpose: str
    slot: int
    episode: int
    genome: str
    failure: str


class Failures(Model):
    """A page of failed episodes, newest first; at most ten of each generation are kept."""

    repeat: int
    items: list[Failure]
    next_page: str | None = Field(None, serialization_alias="continue")


class Curve(Model):
    """The best so far over generations: interquartile mean of the repeats and its interval."""

    x: list[int]
    iqm: list[float | None]
    low: list[float | None]
    high: list[float | None]


class Result(Model):
    """What the repeats ended with: interquartile mean and interval."""

    iqm: float | None
    low: float | None
    high: float | None
    values: list[float]
    of: Literal["final test", "best"] = Field(
        description="Held-out tests where every repeat has one, else the best validations."
    )


class Compared(Model):
    """One Experiment of a comparison."""

    id: str
    environment: str
    repeats: int
    curve: Curve
    result: Result


class Comparison(Model):
    """Experiments side by side."""

    items: list[Compared]
    confidence: float


class Extension(BaseModel):
    """A larger (or smaller) budget: only what is given changes."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    max_generations: int | None = Field(None, ge=1, le=1_000_000_000)
    max_frames: int | None = Field(None, ge=1, le=2**53)
    max_wall_clock_seconds: int | None = Field(None, ge=1, le=2**53)
    target_fitness: str | None = Field(
        None, pattern=r"^-?[0-9]{1,18}(\.[0-9]{1,18})?$", description="A decimal in quotes."
    )


class Version(Model):
    """This service."""

    version: str
    mode: Literal["local", "cluster"]
