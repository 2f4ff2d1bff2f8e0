"""Reading Experiment files and ``--set``."""

import json

import pytest
import yaml

from kubevo_cli.files import load_experiment
from kubevo_core.errors import SpecError, UserError


def test_a_file_is_read_as_the_spec_reads_its_document(experiment_file, make_experiment):
    assert load_experiment(experiment_file()) == make_experiment()


def test_stdin_is_read_as_a_dash(kubevo, experiment_document):
    done = kubevo("validate", "-", stdin=yaml.safe_dump(experiment_document()))
    assert (done.code, done.err) == (0, "")


def test_a_byte_order_mark_is_dropped(experiment_file):
    path = experiment_file()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_experiment(path).metadata.name == "test"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"spec: {seed: 1", "line 1, column"),
        (
            b"spec:\n  seed: 1\n  seed: 2\n",
            "line 3, column 3: not YAML: the key 'seed' is already given",
        ),
        (b"a: 1\n---\nb: 1\n", "line 2, column 1: expected one document, another begins here"),
        (b"\xff\xfe", "expected UTF-8 text, byte 0 is 0xff"),
        (b"a: \x01", "not YAML"),
        (b"a: 2026-13-45", "a value that YAML cannot read"),
        (b"", "got nothing"),
        (b"- 1", "got list"),
        (b"[" * 20_000, "nested too deeply"),
        (b"a: &a [*a]", "an alias contains itself"),
        (b"!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (b"#" * (1024 * 1024 + 1), "at most 1,048,576 bytes"),
        (
            b"a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 10)) for c in b"abcdef"
            ),
            "its aliases expand to",
        ),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_a_file_that_is_no_experiment_is_told_where(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_merge_key_may_be_overridden(experiment_file, experiment_document):
    path = experiment_file()
    text = path.read_text().replace("budget:\n", "budget:\n    <<: {maxGenerations: 9}\n")
    path.write_text(text)
    assert load_experiment(path).spec.budget.max_generations == 3


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("spec.seed=7", 7),
        ("spec.budget.targetFitness=475", "475"),
        ("spec.budget.targetFitness=-3.50", "-3.50"),
        ("spec.budget.targetFitness='12'", "12"),
        ("spec.algorithm.geneticAlgorithm.mutationPower=0.01", "0.01"),
        ("spec.algorithm.geneticAlgorithm.mutationPower=2", "2"),
        ("spec.policy.hiddenLayers=[32, 8]", [32, 8]),
        ("spec.failurePolicy.onPoison=Score", "Score"),
        ("spec.environment.kwargs.gravity=-9.8", "-9.8"),
        ("spec.environment.kwargs.sutton=true", "true"),
        ('spec.environment.kwargs.level="hard"', '"hard"'),
        ("spec.checkpoint.keepLast=5", 5),
        ("metadata.name=another", "another"),
        ("metadata.name=12", "12"),
    ],
)
def test_set_gives_the_type_that_the_spec_wants(experiment_file, assignment, value):
    node = load_experiment(experiment_file(), [assignment]).document()
    for name in assignment.partition("=")[0].split("."):
        node = node[name]
    assert node == value


def test_null_unsets_and_the_last_assignment_wins(experiment_file):
    changes = [
        "spec.budget.maxGenerations=null",
        "spec.budget.maxFrames=5",
        "spec.budget.maxFrames=6",
    ]
    budget = load_experiment(experiment_file(), changes).spec.budget
    assert (budget.max_generations, budget.max_frames) == (None, 6)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("spec.seeed=7", "unknown field; did you mean 'seed'?"),
        ("seed=7", "expected a path that begins with spec. or metadata."),
        ("spec.seed", "expected a path"),
        ("spec..seed=1", "expected a path"),
        ("spec.seed.x=1", "spec.seed is int '1', not a mapping"),
        ("spec.seed=[1", "the value is not YAML"),
        ("spec.seed=many", "spec.seed: expected an integer"),
        ("spec.seed=1.5", "spec.seed: expected an integer"),
        ("spec.algorithm.geneticAlgorithm.mutationPower=1e-3", "trailing zeros"),
        ("spec.environment.kwargs.level=hard", "expected a JSON scalar"),
        ("spec.budget.maxGenerations=null", "a search needs an end"),
    ],
)
def test_a_wrong_assignment_is_told_with_its_path(experiment_file, assignment, message):
    with pytest.raises(SpecError) as caught:
        load_experiment(experiment_file(), [assignment])
    assert message in str(caught.value)


def test_set_does_not_reach_what_an_alias_shares(tmp_path, experiment_document):
    document = experiment_document()
    document["spec"]["evaluator"] = {"resources": {"requests": {"cpu": "1"}}}
    document["spec"]["evaluator"]["resources"]["limits"] = document["spec"]["evaluator"][
        "resources"
    ]["requests"]
    path = tmp_path / "aliased.yaml"
    path.write_text(yaml.safe_dump(document))
    assert "&id001" in path.read_text()
    found = load_experiment(
        path, ["spec.evaluator.resources.limits.cpu=2"]
    ).spec.evaluator.resources
    assert (found["requests"]["cpu"], found["limits"]["cpu"]) == ("1", "2")


def test_validate_shows_every_problem_at_once(kubevo, experiment_file):
    path = experiment_file(seed="x", repeats=99)
    done = kubevo("validate", path, "--output", "json")
    verdict = json.loads(done.out)
    assert (done.code, verdict["valid"], len(verdict["problems"])) == (2, False, 2)
    done = kubevo("validate", path)
    assert done.code == 2
    assert done.out == ""
    assert len(done.err.splitlines()) == 2


def test_validate_shows_the_complete_spec_which_is_valid_again(kubevo, experiment_file, tmp_path):
    done = kubevo("validate", experiment_file(), "--show")
    again = tmp_path / "again.yaml"
    again.write_text(done.out)
    assert load_experiment(again) == load_experiment(experiment_file())
    done = kubevo("validate", again, "--show", "--output", "json")
    assert json.loads(done.out)["experiment"]["spec"]["checkpoint"]["keepLast"] == 3
