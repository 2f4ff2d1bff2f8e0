"""What a finished Experiment gave: the same answer for the command, the status and the tests.

Totals count finished generations only; the generation is the lowest of the repeats, the best the
highest, of the lowest repeat on a tie.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kubevo_core.generation import State, Stop
from kubevo_core.generation_report import Best, Finished, population_digest, result_digest
from kubevo_core.messages import Description
from kubevo_runtime.store import Run

__all__ = ["Outcomes", "chosen_repeat", "final_test"]


@dataclass(frozen=True)
class Outcomes:
    """What a finished Experiment gave: its description and the last state of each repeat."""

    description: Description
    states: tuple[State, ...]

    @property
    def finished(self) -> tuple[Finished, ...]:
        """The last finished generation of each repeat."""
        found = tuple(state.finished for state in self.states if state.finished is not None)
        assert len(found) == len(self.states), "a repeat has stopped without a generation"
        return found

    @property
    def chosen(self) -> int:
        """The repeat whose best is the Experiment's."""
        return chosen_repeat([done.best for done in self.finished])

    @property
    def best(self) -> Best | None:
        """The Experiment's best; None when every evaluation has failed."""
        return self.finished[self.chosen].best

    @property
    def reason(self) -> Stop:
        """Why the repeat with the best has stopped."""
        stop = self.states[self.chosen].stop
        assert stop is not None, "a finished repeat has no reason to have stopped"
        return stop

    @property
    def generation(self) -> int:
        """The last generation that every repeat has finished."""
        return min(done.generation for done in self.finished)

    @property
    def frames(self) -> int:
        """Frames charged to all repeats."""
        return sum(done.frames for done in self.finished)

    @property
    def running_seconds(self) -> float:
        """Running time of the repeat that took longest, over all its processes."""
        return max(done.running_seconds for done in self.finished)

    @property
    def population_digest(self) -> str:
        """The populationDigest, 64 hex digits."""
        return population_digest(self.finished)

    @property
    def result_digest(self) -> str:
        """The resultDigest, 64 hex digits."""
        return result_digest(self.finished)


def chosen_repeat(bests: Sequence[Best | None]) -> int:
    """Return the repeat with the highest best, the lowest on a tie."""

    def mean(repeat: int) -> float:
        best = bests[repeat]
        return best.mean if best is not None else float("-inf")

    return max(range(len(bests)), key=lambda repeat: (mean(repeat), -repeat))


def final_test(run: Run, repeat: int, best: Best | None) -> dict[str, Any] | None:
    """Return the held-out test of ``best`` at the stop of its repeat, None without one."""
    rows = [row for row in run.repeat(repeat).tests() if row["purpose"] == "final"]
    if not rows or best is None or rows[-1]["genome"] != best.genome.digest:
        return None
    return {name: rows[-1][name] for name in ("mean", "episodes", "episodeReturns")}
