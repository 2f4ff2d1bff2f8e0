"""Every wrong input gives one clear message, an exit code, and no traceback; and the small commands."""

import json
import os
import subprocess
import sys

import pytest

from kubevo_cli import __main__ as program
from kubevo_core.errors import IllegalTransition
from kubevo_core.networks import FAMILIES

GENETIC = "spec.algorithm.geneticAlgorithm"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("spec.polcy=1", "spec.polcy: unknown field; did you mean 'policy'?"),
        ("spec.seed=many", "spec.seed: expected an integer"),
        (f"{GENETIC}.mutationPower=abc", "mutationPower: expected a decimal from 0.000001 to 10"),
        (f"{GENETIC}.populationSize=1", "populationSize: expected at least 2, got 1"),
        (f"{GENETIC}.parents=7", "parents must be at most populationSize, got parents 7"),
        ("spec.policy.network=transformer", "spec.policy.network: expected 'mlp', 'dqn'"),
        ("spec.environment.id=null", "spec.environment.id is required and missing"),
        ("metadata.name=Bad_Name", "metadata.name: expected a text like"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_wrong_experiment_is_refused_with_its_field(
    kubevo, experiment_file, tmp_path, command, assignment, message
):
    done = kubevo(command, experiment_file(), "--set", assignment)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["validate", "missing.yaml"], 2, "missing.yaml: no such file"),
        (["validate", "."], 2, "cannot be read: Is a directory"),
        (["run", "missing.yaml"], 2, "missing.yaml: no such file"),
        (["history", "missing"], 1, "found nothing there"),
        (["history", "."], 1, "expected one run in ., found none"),
        (["best", "."], 1, "expected one run in ., found none"),
        (["best", __file__], 1, "found a file"),
        (["plot", ".", "-o", "x.png"], 1, "expected one run in ., found none"),
        (["plot", ".", "-o", "x.gif"], 2, "ends in .pdf or .png or .svg, got '.gif'"),
        (
            ["export", "kubevo-1:mlp-4-2:1", "-o", "x.pt"],
            2,
            "ends in .json or .md or .onnx or .py or .safetensors",
        ),
        (["export", "kubevo-1:mlp-4-2:1", "-o", "no/x.json"], 2, "the folder no does not exist"),
        (["export", "kubevo-9:mlp-4-2:1", "-o", "x.json"], 2, "unknown genome dialect 'kubevo-9'"),
        (["export", "uber-1:mlp-4-2:1", "-o", "x.json"], 2, "unknown genome dialect 'uber-1'"),
        (["export", "kubevo-1:rnn-4-2:1", "-o", "x.json"], 2, "unknown network 'rnn-4-2'"),
        (["export", "kubevo-1:mlp-4-2:x", "-o", "x.json"], 2, "init seed: expected an integer"),
        (["export", "kubevo-1:mlp-4-2:1:2*3*", "-o", "x.json"], 2, "mutation 1 of the genome"),
        (["export", "nothing", "-o", "x.json"], 2, "no such file or directory"),
        (["export", "-", "-o", "x.json"], 2, "stdin: unknown genome dialect ''"),
        (["export", "{}", "-o", "x.json"], 2, "not a genome in JSON"),
        (["evaluate", "kubevo-1:mlp-4-2:1"], 2, "name it, such as --env CartPole-v1"),
        (["evaluate", "kubevo-1:mlp-4-2:1", "--env", "CartPol-v1"], 2, "did you mean CartPole-v1"),
        (["evaluate", "kubevo-1:mlp-4-2:1", "--env", "a b"], 2, "environment.id: expected a text"),
        (
            ["evaluate", "kubevo-1:mlp-3-2:1", "--env", "CartPole-v1"],
            2,
            "mlp-3-2 reads vector of 3",
        ),
        (
            ["evaluate", "kubevo-1:mlp-4-2:1", "--env", "x", "--set", "spec.seed=1"],
            2,
            "begins with",
        ),
        (["evaluate", "kubevo-1:mlp-4-2:1", "--env", "ALE/Pong-v5"], 2, "shows pixels"),
        (["play", "kubevo-1:mlp-4-2:1", "--env", "CartPole-v1", "--record", "x.avi"], 2, ".mp4"),
        (["networks", "mlp-4"], 2, "an mlp needs at least"),
        (["networks", "rnn-1"], 2, "unknown network 'rnn-1'"),
        (["run", "x.yaml", "--workers", "0"], 2, "greater than or equal to 1"),
        (["evaluate", "kubevo-1:mlp-4-2:1", "--backend", "jax"], 2, "--backend"),
        (["history", ".", "--output", "xml"], 2, "--output"),
        (["histroy"], 2, "No such command"),
    ],
    ids=lambda value: " ".join(map(os.path.basename, value)) if isinstance(value, list) else None,
)
def test_a_wrong_argument_gives_one_message(kubevo, tmp_path, arguments, code, message):
    done = kubevo(*arguments)
    assert (done.code, done.out) == (code, ""), done.err
    assert message in " ".join(done.err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_two_runs_in_a_directory_are_listed(kubevo, make_run):
    make_run("data", "one")
    make_run("data", "two")
    done = kubevo("best", "data")
    assert done.code == 1
    assert "found 2; name one by its directory" in done.err
    assert "local/one-" in done.err
    assert "local/two-" in done.err


def test_a_repeat_that_is_not_there_is_refused(kubevo, make_run):
    make_run(repeats=2)
    for command in ("history", "best"):
        done = kubevo(command, "data", "--repeat", 2)
        assert (done.code, "repeats 0 to 1" in done.err) == (2, True)
    assert "repeats 0 to 1" in kubevo("plot", "data", "--repeat", 5, "-o", "x.png").err


def test_checkpoints_that_are_all_corrupt_are_an_error(kubevo, make_run):
    run = make_run()
    for path in run.path.glob("repeat-0/generations/*.ck"):
        path.write_bytes(path.read_bytes()[:-1])
    done = kubevo("best", "data")
    assert done.code == 1
    assert "no checkpoint in" in done.err


def test_a_run_without_a_generation_is_told_as_such(kubevo, make_run):
    run = make_run()
    for path in (*run.path.glob("repeat-0/generations/*"), *run.path.glob("repeat-0/*.jsonl")):
        path.unlink()
    assert "no generation with a best genome is finished yet" in kubevo("best", "data").err
    assert "is finished yet" in kubevo("plot", "data", "-o", "x.png").err
    done = kubevo("history", "data")
    assert (done.code, done.out) == (0, "")
    assert "is finished yet" in done.err
    assert kubevo("history", "data", "--output", "json").out == "[]\n"


def test_an_unwritable_target_is_an_error_without_a_traceback(kubevo):
    done = kubevo("export", "kubevo-1:mlp-4-2:1", "-o", "/proc/x.json")
    assert done.code == 1
    assert "/proc/" in done.err


# ---- the program's edge


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (SystemExit(), 0), (SystemExit(3), 3), (SystemExit("x"), 1)],
)
def test_an_end_gives_its_exit_code(error, code):
    assert program._exit_code(raising(error)) == code


def test_a_missing_library_is_told_with_the_extra_that_brings_it(capsys):
    error = ModuleNotFoundError("No module named 'gymnasium'", name="gymnasium.spaces")
    assert program._exit_code(raising(error)) == 1
    assert "pip install 'kubevo[evaluator]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("x", name="x"), ZeroDivisionError("x"), IllegalTransition("x")]
)
def test_an_unexpected_error_is_called_a_bug_with_its_traceback(capsys, error):
    assert program._exit_code(raising(error)) == 70
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "this is a bug" in told


def command(*arguments, **options):
    return python("-m", "kubevo_cli", *arguments, **options)


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], check=False, capture_output=True, text=True, **options
    )


def test_a_reader_that_goes_away_is_met_in_silence(make_run):
    make_run()
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "kubevo_cli", "history", "data"],
        check=False, stdout=writer, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["version"], ["networks"], ["validate", "-"], ["history", "data"], ["best", "data"],
     ["export", "data", "-o", "w.safetensors"]],
    ids=lambda value: value[0],
)  # fmt: skip
def test_commands_that_do_not_play_import_no_environment_library(make_run, arguments):
    make_run()
    code = (
        "import sys; from kubevo_cli.__main__ import main; code = main(sys.argv[1:]);"
        "heavy = {'gymnasium', 'torch', 'ale_py', 'cv2', 'matplotlib', 'nats'} & set(sys.modules);"
        "assert not heavy, heavy; assert code in (0, 2), code"
    )
    done = python("-c", code, *arguments, input="")
    assert done.returncode == 0, done.stderr


def test_help_needs_no_numpy(make_run):
    code = (
        "import sys; from kubevo_cli.__main__ import main; main(['--help']);"
        "assert not {'numpy', 'pydantic', 'yaml'} & set(sys.modules)"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_linear_algebra_has_one_thread_unless_told_otherwise():
    code = (
        "import os, sys; from kubevo_cli.__main__ import main; main(['networks']);"
        "sys.exit(os.environ['OPENBLAS_NUM_THREADS'] + os.environ['OMP_NUM_THREADS'])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = python("-c", code, env={**environment, "OMP_NUM_THREADS": "2"})
    assert done.stderr.strip() == "12"


# ---- the small commands


def test_each_family_of_networks_is_listed_with_its_size(kubevo):
    found = {
        each["family"]: each for each in json.loads(kubevo("networks", "--output", "json").out)
    }
    assert found.keys() == FAMILIES.keys()
    assert found["large-dqn"]["parameters"] == 4_052_658
    assert "large-dqn-<actions>" in kubevo("networks").out


def test_a_networks_tensors_are_listed_in_order(kubevo):
    found = json.loads(kubevo("networks", "mlp-4-16-2", "--output", "json").out)
    assert [each["name"] for each in found["tensors"]] == ["w1", "b1", "w2", "b2"]
    assert found["parameters"] == 114


def test_environments_can_be_filtered(kubevo):
    found = json.loads(kubevo("environments", "--filter", "cartpole", "--output", "json").out)
    assert "CartPole-v1" in [each["id"] for each in found]
    done = kubevo("environments", "--filter", "no such game")
    assert (done.code, done.out) == (0, "")
    assert "no environment here" in done.err


def test_version_tells_libraries_broker_and_backends(kubevo):
    found = json.loads(kubevo("version", "--output", "json").out)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["backends"]["numpy"] is None
    assert found["natsServer"]["version"]
    assert "numpy" in kubevo("version").out


def test_help_is_shown_for_every_command(kubevo):
    from kubevo_cli.app import app

    for each in app.registered_commands:
        done = kubevo(each.callback.__name__, "-h")
        assert done.code == 0
        assert each.callback.__doc__.split(";")[0].split(".")[0][:40] in " ".join(done.out.split())


def test_completion_stays_on():
    asked = {"_KUBEVO_COMPLETE": "complete_bash", "COMP_WORDS": "kubevo hi", "COMP_CWORD": "1"}
    assert command(env={**os.environ, **asked}).stdout.split() == ["history"]
    assert "--show-completion" in command("--help").stdout
