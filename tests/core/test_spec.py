"""One table of good and bad specs: each bad one says where, expected, actual, cure."""

import copy

import pytest

from kubevo_core.errors import SpecError
from kubevo_core.spec import differences, parse

GA = ("spec", "algorithm", "geneticAlgorithm")
REMOVE = object()


def changed(document, path, value):
    document = copy.deepcopy(document)
    at = document
    for name in path[:-1]:
        at = at.setdefault(name, {})
    if value is REMOVE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return document


GOOD = [
    (("metadata", "name"), "a.b-c"),
    (("metadata", "labels"), {"team": "x"}),
    (("status",), {"anything": 1}),
    (("spec", "seed"), 2**32 - 1),
    (("spec", "repeats"), 32),
    (("spec", "environment"), {"id": "my_plugin:MyEnv-v0", "kwargs": {"gravity": "-9.8"}}),
    (("spec", "environment", "kwargs"), {"mode": '"hard"', "on": "true", "n": "null"}),
    (("spec", "environment", "maxEpisodeSteps"), 1),
    (("spec", "policy", "hiddenLayers"), []),
    (("spec", "policy", "backend"), "torch"),
    ((*GA, "mutationPower"), "0.000001"),
    ((*GA, "populationSize"), 100_000),
    ((*GA, "testEpisodes"), 0),
    (("spec", "budget"), {"targetFitness": "-100.5"}),
    (("spec", "budget"), {"maxWallClockSeconds": 60}),
    (
        ("spec", "evaluator"),
        {"resources": {"limits": {"cpu": "2"}}, "podTemplate": {"a": {"b": 1}}},
    ),
    (("spec", "checkpoint"), {"keepLast": 1, "keepEvery": 10}),
    (("spec", "failurePolicy"), {"onPoison": "Score"}),
]

BAD = [
    (("apiVersion",), "kubevo.dev/v2", "apiVersion: expected 'kubevo.dev/v1alpha1', got"),
    (("kind",), "Experimnt", "kind: expected 'Experiment'"),
    (("kind",), REMOVE, "kind is required and missing"),
    (("metadata", "name"), "Upper", "metadata.name: expected a text like"),
    (("metadata", "name"), "x" * 53, "metadata.name: expected at most 52 characters"),
    (("metadata", "name"), "-a", "metadata.name"),
    (("spec", "sed"), 1, "spec.sed: unknown field; did you mean 'seed'?"),
    (("spec", "zzz"), 1, "spec.zzz: unknown field; known here: seed"),
    ((*GA, "populationsize"), 4, "did you mean 'populationSize'?"),
    (("spec", "policy", "hidden_layers"), [3], "did you mean 'hiddenLayers'?"),
    (("spec", "seed"), -1, "spec.seed: expected at least 0, got -1"),
    (("spec", "seed"), 2**32, "spec.seed: expected at most 4294967295"),
    (("spec", "seed"), "1", 'spec.seed: expected an integer, got "1"'),
    (("spec", "seed"), 1.5, "spec.seed: expected an integer, got 1.5"),
    (("spec", "seed"), True, "spec.seed: expected an integer, got true"),
    (("spec", "repeats"), 33, "spec.repeats: expected at most 32"),
    (("spec", "environment"), REMOVE, "spec.environment is required and missing"),
    (("spec", "environment"), "CartPole-v1", "spec.environment: expected a mapping"),
    (("spec", "environment", "id"), "", "spec.environment.id"),
    (("spec", "environment", "id"), "a b", "spec.environment.id: expected a text like"),
    (("spec", "environment", "kwargs"), {"g": -9.8}, 'put it in quotes: "-9.8"'),
    (("spec", "environment", "kwargs"), {"g": "{}"}, "expected a JSON scalar as text"),
    (("spec", "environment", "kwargs"), {"g": "hard"}, "expected a JSON scalar as text"),
    (("spec", "environment", "kwargs"), {"g": "NaN"}, "expected a JSON scalar as text"),
    (("spec", "environment", "kwargs"), {"a-b": "1"}, "expected a text like"),
    (("spec", "environment", "atari"), {}, "atari is only for environments named ALE/"),
    (("spec", "environment"), {"id": "ALE/Pong-v5"}, "policy.network mlp reads vectors"),
    (("spec", "environment"), {"id": "ALE/Pong-v5", "kwargs": {"a": "1"}}, "kwargs is not used"),
    (
        ("spec", "environment"),
        {"id": "ALE/Pong-v5", "atari": {"stickyActionProbability": "1.5"}},
        'expected a probability from "0" to "1"',
    ),
    (
        ("spec", "environment"),
        {"id": "ALE/Pong-v5", "atari": {"frameSkip": 0}},
        "at least 1, got 0",
    ),
    (("spec", "policy", "network"), "mpl", "expected 'mlp', 'dqn' or 'large-dqn', got \"mpl\""),
    (("spec", "policy", "hiddenLayers"), [0], "hiddenLayers.0: expected at least 1, got 0"),
    (("spec", "policy", "hiddenLayers"), [1] * 9, "expected at most 8 items, got 9"),
    (("spec", "policy"), {"network": "dqn", "hiddenLayers": [4]}, "hiddenLayers is only for"),
    (("spec", "policy", "precision"), "bfloat16", "expected 'float32'"),
    (("spec", "algorithm", "type"), "CMA", "expected 'GeneticAlgorithm'"),
    (("spec", "algorithm", "geneticAlgorithm"), REMOVE, "geneticAlgorithm is required and missing"),
    ((*GA, "populationSize"), 1, "populationSize: expected at least 2, got 1"),
    ((*GA, "parents"), 7, "parents must be at most populationSize, got parents 7 and"),
    ((*GA, "parents"), 0, "parents: expected at least 1, got 0"),
    ((*GA, "eliteCandidates"), 1, "eliteCandidates: expected at least 2, got 1"),
    ((*GA, "eliteCandidates"), 9, "eliteCandidates must be at most populationSize"),
    ((*GA, "mutationPower"), "abc", "mutationPower: expected a decimal from 0.000001 to 10"),
    ((*GA, "mutationPower"), 0.002, "mutationPower: expected a text, got 0.002; put it in quotes"),
    ((*GA, "mutationPower"), "0", "mutationPower: expected a decimal"),
    ((*GA, "eliteEpisodes"), 0, "eliteEpisodes: expected at least 1"),
    (("spec", "budget"), {}, "a search needs an end"),
    (("spec", "budget"), REMOVE, "spec.budget is required and missing"),
    (("spec", "budget"), {"targetFitness": 475}, 'put it in quotes: "475"'),
    (("spec", "budget"), {"targetFitness": "1e3"}, "expected a decimal number in quotes"),
    (("spec", "budget"), {"maxGenerations": 0}, "maxGenerations: expected at least 1"),
    (("spec", "evaluator"), {"taskTimeoutSeconds": 0}, "taskTimeoutSeconds: expected at least 1"),
    (("spec", "evaluator"), {"resources": {"limit": {}}}, "expected 'requests' or 'limits'"),
    (("spec", "checkpoint"), {"keepLast": 0}, "keepLast: expected at least 1"),
    (("spec", "failurePolicy"), {"onPoison": "Ignore"}, "expected 'Fail' or 'Score'"),
]


@pytest.mark.parametrize(("path", "value"), GOOD, ids=str)
def test_a_good_spec_is_taken(experiment_document, path, value):
    experiment = parse(changed(experiment_document(), path, value), "x.yaml")
    assert parse(experiment.document(), "again").document() == experiment.document()


@pytest.mark.parametrize(("path", "value", "message"), BAD, ids=str)
def test_a_bad_spec_says_what_is_wrong(experiment_document, path, value, message):
    with pytest.raises(SpecError) as caught:
        parse(changed(experiment_document(), path, value), "x.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("x.yaml: ")
    assert message in lines[0]


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_no_mapping_is_no_experiment(document):
    with pytest.raises(SpecError, match="expected an Experiment"):
        parse(document, "x.yaml")


def test_every_problem_gets_its_line(experiment_document):
    document = changed(experiment_document(), ("spec", "seed"), -1)
    document = changed(document, (*GA, "populationSize"), 1)
    with pytest.raises(SpecError) as caught:
        parse(document, "x.yaml")
    assert len(str(caught.value).splitlines()) == 2


def test_defaults_are_the_papers(experiment_document):
    document = experiment_document(
        environment={"id": "ALE/Frostbite-v5"},
        policy={"network": "large-dqn"},
        algorithm={"geneticAlgorithm": {}},
    )
    spec = parse(document, "x").spec
    genetic = spec.algorithm.genetic_algorithm
    assert (genetic.population_size, genetic.parents, genetic.mutation_power) == (1000, 20, "0.002")
    assert (genetic.elite_candidates, genetic.elite_episodes) == (10, 30)
    assert spec.environment.max_episode_steps == 5000


def test_only_immutable_fields_make_another_search(experiment_document):
    old = parse(experiment_document(), "x").spec
    live = parse(experiment_document(budget={"maxGenerations": 9}), "x").spec
    other = parse(experiment_document(seed=2), "x").spec
    assert differences(old, live) == []
    assert old.digest() == live.digest() != other.digest()
    assert differences(old, other) == ["spec.seed: 1 -> 2"]


def test_every_field_has_a_description():
    from kubevo_core import spec as module

    for name in module.__all__:
        model = getattr(module, name)
        if isinstance(model, type) and name != "Experiment":
            for field, info in model.model_fields.items():
                assert info.description, f"{name}.{field}"
