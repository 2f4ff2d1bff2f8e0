"""What the driver tells the outside while it works: plain values for progress, metrics and logs.

A sink is a function that takes one event. It must return at once and may never influence a search.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kubevo_core.generation import Outcome, Stop
from kubevo_core.generation_report import Finished
from kubevo_core.imports import Imported
from kubevo_core.messages import Description, ResultReport

__all__ = [
    "Described",
    "Describing",
    "Ended",
    "Event",
    "Fault",
    "GenerationFinished",
    "Progress",
    "Recorded",
    "ResultTaken",
    "Resumed",
    "Sink",
    "Stopped",
    "TestFinished",
    "WarmStarted",
]


@dataclass(frozen=True)
class Describing:
    """An evaluator is asked to describe the spec; one task waits for a worker."""


@dataclass(frozen=True)
class Described:
    """An evaluator has described the spec; the answer is stored."""

    description: Description


@dataclass(frozen=True)
class WarmStarted:
    """Generation 0 starts from imported genomes, which the run's directory keeps."""

    imported: Imported


@dataclass(frozen=True)
class Resumed:
    """A repeat goes on after its last checkpoint; ``skipped`` says which files did not verify.

    ``evaluations`` and ``failed`` count all finished generations; ``saved_at`` is when the
    checkpoint was written, in seconds since 1970; ``stop`` is set where the repeat is over.
    """

    repeat: int
    generation: int
    skipped: tuple[str, ...]
    finished: Finished
    evaluations: int
    failed: int
    checkpoint_bytes: int
    saved_at: float
    stop: Stop | None


@dataclass(frozen=True)
class ResultTaken:
    """A result was read from the broker; ``read_back``: it had come before this process started."""

    outcome: Outcome
    report: ResultReport
    read_back: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a generation is, in episodes; the total grows when candidates become certain.

    ``open`` counts the episodes that are demanded and have no result: of this generation, of the
    next one's children, of tests, and a recording. It says how many workers could be busy.
    """

    repeat: int
    generation: int
    played: int
    wanted: int
    open: int = 0


@dataclass(frozen=True)
class GenerationFinished:
    """A generation's checkpoint is durable."""

    finished: Finished
    seconds: float
    checkpoint_bytes: int


@dataclass(frozen=True)
class TestFinished:
    """A held-out test was answered; ``row`` is its line in ``tests.jsonl``."""

    repeat: int
    row: dict[str, Any]


@dataclass(frozen=True)
class Recorded:
    """The video of a generation is kept; ``removed`` are the older ones that went for it."""

    repeat: int
    generation: int
    video_bytes: int
    pictures: int
    removed: tuple[int, ...]


@dataclass(frozen=True)
class Stopped:
    """A repeat is over, its last test answered."""

    repeat: int
    stop: Stop


@dataclass(frozen=True)
class Ended:
    """The Experiment is no longer driven: it is over, was interrupted, or failed."""


@dataclass(frozen=True)
class Fault:
    """Something went wrong that the run survives; ``kind`` is a constant for counting."""

    kind: str
    message: str


Event = (
    Describing
    | Described
    | WarmStarted
    | Resumed
    | ResultTaken
    | Progress
    | GenerationFinished
    | TestFinished
    | Recorded
    | Stopped
    | Ended
    | Fault
)
Sink = Callable[[Event], None]
