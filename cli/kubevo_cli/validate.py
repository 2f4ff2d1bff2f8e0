"""``kubevo validate``: whether an Experiment file is valid, with all its problems at once.

Nothing is played: whether the environment exists is said by ``kubevo run``, before its first
generation.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml

from kubevo_cli import output
from kubevo_cli.files import load_experiment
from kubevo_core.errors import UserError
from kubevo_core.spec import Experiment

__all__ = ["validate"]

INVALID = 2


def validate(file: Path, assignments: Sequence[str], form: str, *, show: bool) -> int:
    """Print the verdict, with ``show`` also the complete spec, and return 0, or 2 for invalid."""
    try:
        experiment = load_experiment(file, assignments)
    except UserError as exc:
        if form == "json":
            output.write_json({"valid": False, "problems": str(exc).splitlines()})
        else:
            output.say(f"error: {exc}")
        return INVALID
    if form == "json":
        complete = {"experiment": experiment.document()} if show else {}
        output.write_json({"valid": True, "problems": [], **complete})
    elif show:
        output.say(_sentence(file, experiment))
        text = yaml.safe_dump(experiment.document(), sort_keys=False, allow_unicode=True)
        output.write(text.rstrip("\n"))
    else:
        output.write(_sentence(file, experiment))
    return 0


def _sentence(file: Path, experiment: Experiment) -> str:
    genetic = experiment.spec.algorithm.genetic_algorithm
    repeats = f", {experiment.spec.repeats} repeats" if experiment.spec.repeats > 1 else ""
    return (
        f"{file}: valid: {experiment.metadata.name}, {experiment.spec.environment.id}, "
        f"{experiment.spec.policy.network}, population {genetic.population_size}{repeats}"
    )
