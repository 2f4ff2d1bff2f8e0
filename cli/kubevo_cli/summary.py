"""What a finished run says: one JSON object, the same whoever reads it."""

from pathlib import Path
from typing import Any

from kubevo_core.spec import Experiment
from kubevo_runtime.outcomes import Outcomes, final_test
from kubevo_runtime.store import Run

__all__ = ["summarise"]


def summarise(experiment: Experiment, run: Run, outcomes: Outcomes) -> dict[str, Any]:
    """Return the summary of a run whose repeats have all stopped; `Outcomes` says what counts."""
    finished, chosen = outcomes.finished, outcomes.chosen
    rows = [row for done in finished for row in run.repeat(done.repeat).history()]
    best, elite = finished[chosen].best, finished[chosen].elite
    return {
        "experiment": experiment.metadata.name,
        "generation": outcomes.generation,
        "reason": str(outcomes.reason),
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
        "populationDigest": outcomes.population_digest,
        "resultDigest": outcomes.result_digest,
        "finalTest": final_test(run, chosen, best),
        "evaluations": sum(row["evaluations"] for row in rows),
        "episodes": sum(row["episodes"] for row in rows),
        "frames": outcomes.frames,
        "wallSeconds": round(outcomes.running_seconds, 3),
        "dataDir": str(Path(run.path)),
        "repeats": [
            {
                "repeat": done.repeat,
                "generation": done.generation,
                "reason": str(state.stop),
                "best": done.best.mean if done.best else None,
                "frames": done.frames,
            }
            for done, state in zip(finished, outcomes.states, strict=True)
        ],
    }
