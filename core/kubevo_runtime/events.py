"""What the driver tells the outside while it works: plain values for progress, metrics and logs.

A sink is a function that takes one event. It must return at once and may never influence a search.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kubevo_core.generation import Outcome, Stop
from kubevo_core.generation_report import Finished
from kubevo_core.messages import Description, ResultReport

__all__ = [
    "Described",
    "Event",
    "Fault",
    "GenerationFinished",
    "Progress",
    "ResultTaken",
    "Resumed",
    "Sink",
    "Stopped",
    "TestFinished",
]


@dataclass(frozen=True)
class Described:
    """An evaluator has described the spec; the answer is stored."""

    description: Description


@dataclass(frozen=True)
class Resumed:
    """A repeat goes on after its last checkpoint; ``skipped`` says which files did not verify."""

    repeat: int
    generation: int
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class ResultTaken:
    """A result was read from the broker."""

    outcome: Outcome
    report: ResultReport


@dataclass(frozen=True)
class Progress:
    """How far a generation is, in episodes; the total grows when candidates become certain."""

    repeat: int
    generation: int
    played: int
    wanted: int


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
class Stopped:
    """A repeat is over, its last test answered."""

    repeat: int
    stop: Stop


@dataclass(frozen=True)
class Fault:
    """Something went wrong that the run survives; ``kind`` is a constant for counting."""

    kind: str
    message: str


Event = (
    Described
    | Resumed
    | ResultTaken
    | Progress
    | GenerationFinished
    | TestFinished
    | Stopped
    | Fault
)
Sink = Callable[[Event], None]
