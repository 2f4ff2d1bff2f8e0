"""``kubevo run`` with a warm start: another run below the same --data is where it begins."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from kubevo_core import checkpoint
from kubevo_runtime.store import find_run, open_run

GENETIC = {
    "populationSize": 8,
    "parents": 3,
    "mutationPower": "0.05",
    "eliteCandidates": 3,
    "eliteEpisodes": 2,
    "testEpisodes": 2,
}


def document(name, generations=2, layers=(8,), **spec):
    return {
        "apiVersion": "kubevo.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "seed": 1,
            "environment": {"id": "CartPole-v1", "maxEpisodeSteps": 50},
            "policy": {"network": "mlp", "hiddenLayers": list(layers), "backend": "numpy"},
            "algorithm": {"type": "GeneticAlgorithm", "geneticAlgorithm": GENETIC},
            "budget": {"maxGenerations": generations},
            **spec,
        },
    }


@pytest.fixture
def run(tmp_path):
    """Return ``kubevo run`` of a document as a function to (code, summary, stderr)."""

    def call(written, *arguments):
        (tmp_path / "file.yaml").write_text(yaml.safe_dump(written))
        done = subprocess.run(
            [sys.executable, "-m", "kubevo_cli", "run", "file.yaml", "--data", "data",
             "--workers", "2", "--output", "json", *arguments],
            cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout or "null"), done.stderr

    return call


def first_population(tmp_path, name):
    found = open_run(find_run(tmp_path / "data", name=name))
    return checkpoint.decode(found.repeat(0).load(0)).finished.population


def test_a_search_goes_on_from_the_best_of_another_one(tmp_path, run):
    code, source, err = run(document("source"))
    assert code == 0, err
    code, _, err = run(document("target", warmStart={"experiment": "source"}))
    assert code == 0, err
    assert "warm start: 1 genome of source (" in err
    population = first_population(tmp_path, "target")
    assert population[0].genome.text == source["best"]["genome"]
    assert {individual.base for individual in population[1:]} == {population[0].genome}


def test_a_search_goes_on_from_one_of_another_precision(tmp_path, run):
    """Genomes hold no rounded weights; each search plays them in its own precision."""
    _, source, _ = run(document("source", generations=1))
    policy = {**document("")["spec"]["policy"], "precision": "bfloat16"}
    wanted = document("target", generations=1, policy=policy, warmStart={"experiment": "source"})
    code, _, err = run(wanted)
    assert code == 0, err
    assert first_population(tmp_path, "target")[0].genome.text == source["best"]["genome"]


def test_a_source_that_is_missing_or_does_not_fit_leaves_a_correctable_file(tmp_path, run):
    code, _, err = run(document("target", warmStart={"experiment": "source"}))
    assert code == 2
    assert "warmStart.experiment: expected a kept run 'source'" in err
    assert not list(tmp_path.glob("data/local/*"))

    assert run(document("source", generations=1))[0] == 0
    code, _, err = run(document("target", layers=(4,), warmStart={"experiment": "source"}))
    assert code == 2
    assert "mlp-4-4-2" in err
    assert "has genomes of mlp-4-8-2" in err

    code, _, err = run(document("target", warmStart={"experiment": "source"}), "--resume")
    assert code == 0, err
    assert len(list(tmp_path.glob("data/local/target-*"))) == 1
