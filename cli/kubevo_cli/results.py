"""``kubevo history`` and ``kubevo best``: what a run has found, read from its directory.

Both read only; the run may be going on meanwhile.
"""

import shlex
from pathlib import Path
from typing import Any

from kubevo_cli import output
from kubevo_cli.sources import BestOfRun, best_of, open_only_run, rows
from kubevo_runtime.intervals import mean_interval

__all__ = ["show_best", "show_history"]

LONGEST_GENOME = 160
COLUMNS = {
    "repeat": ("repeat",),
    "generation": ("generation",),
    "fitnessMax": ("fitness", "max"),
    "fitnessMean": ("fitness", "mean"),
    "fitnessMedian": ("fitness", "median"),
    "fitnessMin": ("fitness", "min"),
    "failed": ("failed",),
    "eliteMean": ("elite", "mean"),
    "eliteGenome": ("elite", "genome"),
    "bestMean": ("best", "mean"),
    "bestGenome": ("best", "genome"),
    "bestGeneration": ("best", "generation"),
    "evaluations": ("evaluations",),
    "episodes": ("episodes",),
    "steps": ("steps",),
    "frames": ("frames",),
    "runningSeconds": ("runningSeconds",),
    "generationDigest": ("generationDigest",),
}
# Heading of the text table -> column; "failed" is shown only where something failed.
TABLE = {
    "generation": "generation",
    "max": "fitnessMax",
    "mean": "fitnessMean",
    "median": "fitnessMedian",
    "elite": "eliteMean",
    "best": "bestMean",
    "frames": "frames",
    "seconds": "runningSeconds",
    "failed": "failed",
}


def show_history(directory: Path, repeat: int | None, form: str) -> None:
    """Print a run's generations as ``text``, ``json`` (a list of rows) or ``csv``.

    Raises:
        KubevoError: as the tree in `kubevo_core.errors` says.
    """
    run = open_only_run(directory)
    chosen, history = rows(run, repeat)
    if form == "json":
        output.write_json(history)
        return
    if form == "csv":
        cells = [[_value(row, path) for path in COLUMNS.values()] for row in history]
        output.write_csv(list(COLUMNS), cells)
        return
    if not history:
        output.say(f"{run.path}: no generation of repeat {chosen} is finished yet")
        return
    if repeat is None and chosen > 0:
        output.say(f"repeat {chosen}, the one with the highest best; --repeat shows another")
    shown = [name for name in TABLE if name != "failed" or any(row["failed"] for row in history)]
    output.write_table(
        shown, [[_value(row, COLUMNS[TABLE[name]]) for name in shown] for row in history]
    )


def _value(row: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = row
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def show_best(directory: Path, repeat: int | None, form: str, *, genome_only: bool) -> None:
    """Print a run's best genome and how good it is.

    Raises:
        KubevoError: as the tree in `kubevo_core.errors` says.
    """
    found = best_of(open_only_run(directory), repeat)
    if genome_only:
        output.write(found.best.genome.text)
        return
    document = _document(found)
    if form == "json":
        output.write_json(document)
        return
    text = found.best.genome.text
    long = len(text) > LONGEST_GENOME
    fields = {
        "score": f"{output.number(found.best.mean)} (mean of "
        f"{document['validationEpisodes']} validation episodes)",
        "generation": str(found.best.generation),
        "repeat": f"{found.repeat} of {found.experiment.spec.repeats}",
        "environment": found.experiment.spec.environment.id,
        "test": _test_text(document["finalTest"]),
        "mutations": str(len(found.best.genome.mutations)),
        "precision": document["precision"],
        "digest": found.best.genome.digest,
        "genome": f"{text[:LONGEST_GENOME]}… (all of it: --genome)" if long else text,
    }
    output.write_fields(fields)
    where = shlex.quote(str(directory))
    which = f" --repeat {repeat}" if repeat is not None else ""
    output.say(
        f"\nnext:\n  kubevo evaluate {where}{which} --episodes 100\n"
        f"  kubevo play {where}{which} --record best.mp4\n"
        f"  kubevo export {where}{which} -o best.safetensors\n"
        f"  kubevo plot {where} -o curve.png"
    )


def _document(found: BestOfRun) -> dict[str, Any]:
    best = found.best
    return {
        "experiment": found.run.name,
        "environment": found.experiment.spec.environment.id,
        "fitness": best.mean,
        "validationEpisodes": found.experiment.spec.algorithm.genetic_algorithm.elite_episodes,
        "genome": best.genome.text,
        "digest": best.genome.digest,
        "generation": best.generation,
        "repeat": found.repeat,
        "mutations": len(best.genome.mutations),
        "precision": found.experiment.spec.policy.precision,
        "finalTest": _final_test(found),
        "dataDir": str(found.run.path),
    }


def _final_test(found: BestOfRun) -> dict[str, Any] | None:
    """Return the last held-out test of this very genome at a stop, with its interval."""
    tests = [
        row
        for row in found.run.repeat(found.repeat).tests()
        if row["purpose"] == "final" and row["genome"] == found.best.genome.digest
    ]
    if not tests:
        return None
    last = tests[-1]
    interval = mean_interval(last["episodeReturns"]) if last["mean"] is not None else None
    return {
        "mean": last["mean"],
        "ci95": list(interval) if interval else None,
        "episodes": last["episodes"],
        "episodeReturns": last["episodeReturns"],
    }


def _test_text(test: dict[str, Any] | None) -> str:
    if test is None:
        return "none yet (the best is tested when the run stops)"
    if test["mean"] is None:
        return f"failed: not all of {test['episodes']} fresh episodes gave a return"
    interval = test["ci95"]
    shown = (
        f", 95 % CI {output.number(interval[0])} to {output.number(interval[1])}"
        if interval
        else ""
    )
    return f"{output.number(test['mean'])}{shown} (mean of {test['episodes']} fresh episodes)"
