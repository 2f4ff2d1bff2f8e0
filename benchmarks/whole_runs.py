"""Ratios of whole searches: `kubevo run` of an example, start-up, validation and final test included."""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

KUBEVO = Path(sys.executable).parent / "kubevo"
EXAMPLE = Path(__file__).parent.parent / "examples" / "frostbite.yaml"
ROUNDS = 5
# The network of all other figures, and a search of about a minute.
SETTINGS = {
    "spec.policy.network": "large-dqn",
    "spec.budget.maxGenerations": 1,
    "spec.algorithm.geneticAlgorithm.populationSize": 80,
    "spec.algorithm.geneticAlgorithm.testEpisodes": 0,
}


def evaluations_per_second(backend: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        settings = {**SETTINGS, "spec.policy.backend": backend}
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        command = [KUBEVO, "run", EXAMPLE, "--workers", "2", "--data", folder, *sets]
        done = subprocess.run([*command, "--output", "json"], capture_output=True, check=True)
        found = json.loads(done.stdout)
        return found["evaluations"] / found["wallSeconds"]


def native_over_torch() -> float:
    return statistics.median(
        evaluations_per_second("native") / evaluations_per_second("torch") for _ in range(ROUNDS)
    )
