"""How an Experiment is: the service's summary as a value, with the few names that scripts need."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Status"]


@dataclass(frozen=True)
class Status:
    """One look at an Experiment; ``document`` is all that the service said.

    ``state`` is Pending, Waiting, Running, Suspended, Succeeded, Failed, or Interrupted (a local
    run that nobody works on). ``generation`` is the newest one that every repeat has finished, None
    before the first; ``generations`` the budget's; ``frames_per_second`` and ``eta_seconds`` are
    what the search had at its last report.
    """

    namespace: str
    name: str
    state: str
    reason: str
    message: str
    environment: str
    generation: int | None
    generations: int | None
    frames: int
    frames_per_second: float
    eta_seconds: float | None
    best_fitness: float | None
    elite_fitness: float | None
    document: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def is_finished(self) -> bool:
        """Whether the search has ended, in success or in failure."""
        return self.state in ("Succeeded", "Failed")

    @property
    def has_succeeded(self) -> bool:
        """Whether the search has reached one of its stops."""
        return self.state == "Succeeded"

    @staticmethod
    def of(document: Mapping[str, Any]) -> "Status":
        """Return the status that a Summary or a Detail of the service says."""
        best, elite = document.get("best") or {}, document.get("elite") or {}
        return Status(
            namespace=document["namespace"],
            name=document["name"],
            state=document["state"],
            reason=document.get("reason", ""),
            message=document.get("message", ""),
            environment=document.get("environment", ""),
            generation=document.get("generation"),
            generations=document.get("generations"),
            frames=document.get("frames", 0),
            frames_per_second=document.get("framesPerSecond", 0.0),
            eta_seconds=document.get("etaSeconds"),
            best_fitness=best.get("fitness"),
            elite_fitness=elite.get("fitness"),
            document=document,
        )
