"""What a finished run says: one JSON object, the same whoever reads it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kubevo_core.generation import State
from kubevo_core.generation_report import Best, Finished, population_digest, result_digest
from kubevo_core.spec import Experiment
from kubevo_runtime.store import Run

__all__ = ["summarise"]


def summarise(experiment: Experiment, run: Run, states: Sequence[State]) -> dict[str, Any]:
    """Return the summary of a run whose repeats have all stopped.

    Totals count finished generations only; the generation is the lowest of the repeats, the best
    the highest, of the lowest repeat on a tie.
    """
    finished = [_finished(state) for state in states]
    rows = [row for repeat in range(len(states)) for row in run.repeat(repeat).history()]
    chosen = max(range(len(finished)), key=lambda r: (_mean(finished[r].best), -r))
    best, elite = finished[chosen].best, finished[chosen].elite
    return {
        "experiment": experiment.metadata.name,
        "generation": min(done.generation for done in finished),
        "reason": str(states[chosen].stop),
        "best": {
            "fitness": best.mean,
            "genome": best.genome.text,
            "digest": best.genome.digest,
            "generation": best.generation,
            "repeat": chosen,
        }
        if best
        else None,
        "elite": {
            "fitness": elite.mean,
            "genome": elite.genome.text,
            "digest": elite.genome.digest,
            "repeat": chosen,
        }
        if elite
        else None,
        "populationDigest": population_digest(finished),
        "resultDigest": result_digest(finished),
        "finalTest": _final_test(run, chosen, best),
        "evaluations": sum(row["evaluations"] for row in rows),
        "episodes": sum(row["episodes"] for row in rows),
        "frames": sum(done.frames for done in finished),
        "wallSeconds": round(max(done.running_seconds for done in finished), 3),
        "dataDir": str(Path(run.path)),
        "repeats": [
            {
                "repeat": done.repeat,
                "generation": done.generation,
                "reason": str(state.stop),
                "best": done.best.mean if done.best else None,
                "frames": done.frames,
            }
            for done, state in zip(finished, states, strict=True)
        ],
    }


def _finished(state: State) -> Finished:
    assert state.finished is not None
    return state.finished


def _mean(best: Best | None) -> float:
    return best.mean if best is not None else float("-inf")


def _final_test(run: Run, repeat: int, best: Best | None) -> dict[str, Any] | None:
    rows = [row for row in run.repeat(repeat).tests() if row["purpose"] == "final"]
    if not rows or best is None or rows[-1]["genome"] != best.genome.digest:
        return None
    return {name: rows[-1][name] for name in ("mean", "episodes", "episodeReturns")}
