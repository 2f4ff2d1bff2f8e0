"""The spec as a type: what is read, kept, compared; the table of verdicts is operator_resource's."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubevo_core import spec as module
from kubevo_core.errors import SpecError
from kubevo_core.genome import canonical_sigma
from kubevo_core.spec import IMMUTABLE, Environment, ExperimentSpec, differences, parse

GA = ("spec", "algorithm", "geneticAlgorithm")


def changed(document, path, value):
    document = copy.deepcopy(document)
    at = document
    for name in path[:-1]:
        at = at.setdefault(name, {})
    at[path[-1]] = value
    return document


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_no_mapping_is_no_experiment(document):
    with pytest.raises(SpecError, match="expected an Experiment"):
        parse(document, "x.yaml")


@pytest.mark.parametrize("metadata", [None, [], "text", 3, {}])
def test_metadata_must_be_a_mapping_with_a_name(experiment_document, metadata):
    with pytest.raises(SpecError, match="metadata"):
        parse({**experiment_document(), "metadata": metadata}, "x.yaml")


def test_what_kubectl_prints_is_read(experiment_document):
    document = experiment_document()
    document["metadata"] |= {"uid": "1", "managedFields": [{}], "labels": {"team": "x"}}
    document["status"] = {"anything": 1}
    assert parse(document, "x.yaml").metadata.name == "test"


def test_every_problem_gets_its_line(experiment_document):
    document = changed(experiment_document(), ("spec", "seed"), -1)
    document = changed(document, (*GA, "populationSize"), 1)
    with pytest.raises(SpecError) as caught:
        parse(document, "x.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("x.yaml: ") for line in lines)


def test_an_unknown_field_without_a_likeness_gets_the_list(experiment_document):
    with pytest.raises(SpecError, match=r"spec\.zzz: unknown field; known here: seed, repeats"):
        parse(changed(experiment_document(), ("spec", "zzz"), 1), "x.yaml")


def test_a_value_is_shown_on_one_line_and_cut(experiment_document):
    document = changed(experiment_document(), ("spec", "environment", "id"), "a\n" * 60)
    with pytest.raises(SpecError) as caught:
        parse(document, "x.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.endswith('..."')
    assert len(line) < 250


def test_null_is_absent_and_a_whole_float_is_whole(experiment_document):
    document = changed(experiment_document(), ("spec", "seed"), 1.0)
    document = changed(document, ("spec", "warmStart"), None)
    document = changed(document, ("spec", "scaling"), None)
    assert parse(document, "x") == parse(experiment_document(), "x")


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
    live = parse(experiment_document(budget={"maxGenerations": 9}, suspend=True), "x").spec
    other = parse(experiment_document(seed=2), "x").spec
    warm = parse(experiment_document(warmStart={"experiment": "before"}), "x").spec
    assert differences(old, live) == []
    assert len({old.digest(), other.digest(), warm.digest()}) == 3
    assert old.digest() == live.digest()
    assert differences(old, other) == ["spec.seed: 1 -> 2"]
    assert differences(warm, old)[0].startswith('spec.warmStart: {"experiment": "before"')


def test_a_digest_does_not_depend_on_the_version_that_computes_it(experiment_document):
    digest = parse(experiment_document(), "x").spec.digest()
    assert digest == "7730548abd74be3ecb70354d4de19dd06f8b236c185e900f75e8ad7772ce38ac"


def test_every_immutable_field_is_one():
    fields = ExperimentSpec.model_fields
    assert set(IMMUTABLE) <= {info.alias or name for name, info in fields.items()}


def test_every_field_has_a_description():
    for name in module.__all__:
        model = getattr(module, name)
        if isinstance(model, type) and name != "Experiment":
            for field, info in model.model_fields.items():
                assert info.description, f"{name}.{field}"


@given(st.from_regex(r"[0-9]{0,3}(\.[0-9]{0,7})?", fullmatch=True))
def test_sigma_is_what_genomes_take(text):
    spec = {"populationSize": 10, "parents": 1, "eliteCandidates": 2, "mutationPower": text}
    try:
        module.GeneticAlgorithm.model_validate(spec)
        is_good = True
    except ValueError:
        is_good = False
    try:
        is_canonical = canonical_sigma(text) == text
    except ValueError:
        is_canonical = False
    assert is_good == is_canonical


@given(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**17), 10**17),
        st.floats(allow_nan=False, allow_infinity=False, min_value=-1e90, max_value=1e90),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    )
)
def test_every_json_scalar_is_taken(value):
    text = json.dumps(value, ensure_ascii=False)
    environment = Environment.model_validate({"id": "X-v0", "kwargs": {"k": text}})
    assert json.loads(environment.arguments["k"]) == value


@given(st.text(st.sampled_from('0123456789.eE+-"\\untrfalsx[]{} \n٣é'), max_size=8))
def test_what_is_taken_as_a_json_scalar_is_one(text):
    try:
        Environment.model_validate({"id": "X-v0", "kwargs": {"k": text}})
    except ValueError:
        return
    found = json.loads(text)
    assert not isinstance(found, (dict, list))
    json.dumps(found, allow_nan=False)
