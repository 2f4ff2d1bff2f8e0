"""What ``kubevo run`` says when it cannot run: one clear message, an exit code, nothing lost."""

import json
import os
import shutil
import socket
import subprocess
import sys
import venv
import zlib
from pathlib import Path

import pytest
import yaml

from kubevo_core import container
from kubevo_core.errors import BusError
from kubevo_runtime.broker import LocalBroker
from kubevo_runtime.store import find_run

PLUGINS = Path(__file__).parent.parent / "evaluator/plugins"
FAULTY = "kubevo_worker_environments:KubevoFaulty-v0"
GENETIC = {
    "populationSize": 8,
    "parents": 3,
    "mutationPower": "0.05",
    "eliteCandidates": 3,
    "eliteEpisodes": 2,
    "testEpisodes": 2,
}


def document(**spec):
    return {
        "apiVersion": "kubevo.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "cart"},
        "spec": {
            "seed": 1,
            "environment": {"id": "CartPole-v1", "maxEpisodeSteps": 50},
            "policy": {"network": "mlp", "hiddenLayers": [8], "backend": "numpy"},
            "algorithm": {"type": "GeneticAlgorithm", "geneticAlgorithm": GENETIC},
            "budget": {"maxGenerations": 3},
            **spec,
        },
    }


@pytest.fixture
def run(tmp_path):
    """Return ``kubevo run cart.yaml`` as a function to (code, stdout, stderr)."""

    def call(*arguments, spec=None, python=sys.executable, unset=(), **environment):
        if spec is not None:
            (tmp_path / "cart.yaml").write_text(yaml.safe_dump(spec))
        env = {**os.environ, **environment}
        for name in unset:
            env.pop(name, None)
        done = subprocess.run(
            [python, "-m", "kubevo_cli", "run", "cart.yaml", *map(str, arguments)],
            cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert "Traceback (most recent call last):\n" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return call


def errors(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"environment": {"id": "CartPoel-v1"}}, "no environment 'CartPoel-v1'; did you mean Cart"),
        (
            {
                "environment": {"id": "ALE/Frostbyte-v5"},
                "policy": {"network": "dqn", "backend": "numpy"},
            },
            "did you mean ALE/Frostbite-v5",
        ),
        ({"policy": {"network": "dqn", "backend": "numpy"}}, "'dqn' expects observations of kind"),
        ({"environment": {"id": "CartPole-v1", "kwargs": {"gravty": "9"}}}, "gravty"),
    ],
    ids=["environment", "game", "network", "argument"],
)
def test_what_cannot_be_played_is_refused_and_leaves_nothing_behind(run, tmp_path, spec, message):
    code, out, err = run("--workers", "1", spec=document(**spec))
    assert (code, out) == (2, "")
    (line,) = errors(err)
    assert message in line
    assert list(tmp_path.glob("kubevo-data/*/*")) == []


def test_a_corrected_file_starts_where_nothing_was_played(run, tmp_path):
    (tmp_path / "half_made.py").write_text("import no_such_library\n")
    lacking = document(environment={"id": "half_made:Game-v0"})
    code, _, err = run("--workers", "1", spec=lacking, PYTHONPATH=str(tmp_path))
    assert code == 1
    assert "no worker stays alive" in err
    code, out, _ = run("--workers", "1", "--resume", "--output", "json", spec=document())
    assert (code, json.loads(out)["generation"]) == (0, 2)


def test_workers_that_all_end_at_once_are_told_with_their_last_lines(run, tmp_path):
    broken = tmp_path / "broken" / "gymnasium"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libm.so.9: no such file')\n")
    code, out, err = run("--workers", "2", spec=document(), PYTHONPATH=str(broken.parent))
    assert (code, out) == (1, "")
    assert "no worker stays alive" in err
    assert "libm.so.9: no such file" in err.partition("error: ")[2]
    # Nothing is lost: mended, the same directory goes on.
    code, out, err = run("--workers", "1", "--resume", "--output", "json")
    assert (code, json.loads(out)["generation"]) == (0, 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_environment_whose_every_episode_fails_stops_with_code_1(run, workers):
    spec = document(environment={"id": FAULTY, "kwargs": {"fault": '"ValueError"'}})
    code, out, err = run(
        "--workers", workers, "--output", "json", spec=spec, PYTHONPATH=str(PLUGINS)
    )
    assert code == 1, err
    summary = json.loads(out)
    assert (summary["reason"], summary["best"]) == ("AllEvaluationsFailed", None)
    assert "environment_exception" in err
    assert "broken physics" in err


@pytest.mark.parametrize("workers", ["0", "-1", "many"])
def test_a_number_of_workers_must_be_one_or_more(run, workers):
    code, out, err = run("--workers", workers, spec=document())
    assert (code, out) == (2, "")
    assert "--workers" in err


def test_a_taken_metrics_port_is_named(run, tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        code, _, err = run("--metrics-port", port, spec=document())
    assert code == 2
    assert f"127.0.0.1:{port}" in err
    assert "choose another --metrics-port" in err
    assert list(tmp_path.glob("kubevo-data/*/*")) == []


async def test_a_taken_broker_port_is_named(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(BusError, match=f"port {port} on 127.0.0.1 is taken"):
            async with LocalBroker(tmp_path / "b", log=tmp_path / "log", port=port):
                pass


def test_a_missing_broker_says_how_to_install_one(run, tmp_path):
    # An interpreter in a folder of its own, without nats-server beside it.
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = tmp_path / "bare/bin/python"
    code, _, err = run(
        spec=document(), python=python, PATH=str(tmp_path / "bare/bin"),
        PYTHONPATH=os.pathsep.join(path for path in sys.path if path),
    )  # fmt: skip
    assert code == 1
    assert "nats-server is neither on PATH nor beside" in err
    assert "pip install 'kubevo[local]'" in err
    assert list(tmp_path.glob("kubevo-data/*/*")) == []


def test_a_directory_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "kubevo-data").write_text("a file")
    code, out, err = run(spec=document())
    assert (code, out) == (2, "")  # wrong usage, as the command line library has it
    assert "kubevo-data" in err
    code, out, err = run("--data", "/proc/nowhere")  # unwritable for root, too
    assert (code, out) == (1, "")
    assert "/proc/nowhere" in err


class Damage:
    """A finished run whose checkpoints are damaged by hand."""

    def __init__(self, folder):
        self.path = find_run(folder / "kubevo-data")
        self.files = sorted(self.path.glob("repeat-0/**/gen-*.ck"))

    def flip(self, file):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


@pytest.fixture
def damage(run, tmp_path):
    assert run("--workers", "1", spec=document())[0] == 0
    return Damage(tmp_path)


def test_a_damaged_newest_checkpoint_costs_one_generation(run, damage):
    before = [file.name for file in damage.files]
    summary = json.loads(run("--resume", "--output", "json", "--workers", "1")[1])
    damage.flip(damage.files[-1])
    code, out, err = run("--resume", "--output", "json", "--workers", "1")
    assert code == 0, err
    assert "resumed after generation 1" in err
    assert f"skipped a checkpoint: {damage.files[-1]}" in err.replace("\n", "")
    assert json.loads(out)["resultDigest"] == summary["resultDigest"]
    assert [file.name for file in Damage(damage.path.parent.parent.parent).files] == before


def test_no_checkpoint_that_verifies_is_an_error_and_nothing_is_overwritten(run, damage):
    for file in damage.files:
        damage.flip(file)
    before = [file.read_bytes() for file in damage.files]
    code, out, err = run("--resume", "--workers", "1")
    assert (code, out) == (1, "")
    assert str(damage.files[0].name) in err
    assert [file.read_bytes() for file in damage.files] == before


def test_a_checkpoint_of_a_newer_version_is_never_skipped(run, damage):
    newest = damage.files[-1]
    content = bytearray(newest.read_bytes())
    head = len(container.MAGIC) + 2
    content[head - 2] += 1
    content[head : head + 4] = zlib.crc32(content[:head]).to_bytes(4, "little")
    newest.write_bytes(content)
    code, out, err = run("--resume", "--workers", "1")
    assert (code, out) == (1, "")
    assert "version" in err
    assert newest.read_bytes() == bytes(content)


def test_a_quota_stops_the_run_resumable(run, tmp_path):
    spec = document(
        checkpoint={"quotaMebibytes": 1}, environment={"id": "CartPole-v1", "maxEpisodeSteps": 2}
    )
    assert run("--workers", "1", spec=spec)[0] == 0
    # What grows is not worth the time here: a file of the run's own takes the room.
    path = find_run(tmp_path / "kubevo-data")
    (path / "repeat-0" / "ballast").write_bytes(bytes(1 << 20))
    spec["spec"]["budget"]["maxGenerations"] = 5
    code, out, err = run("--resume", "--workers", "1", spec=spec)
    assert (code, out) == (1, "")
    assert "the quota is 1,048,576" in err
    assert "quotaMebibytes" in err
    (path / "repeat-0" / "ballast").unlink()
    code, out, err = run("--resume", "--workers", "1", "--output", "json")
    assert (code, json.loads(out)["generation"]) == (0, 4)


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="needs root and unshare for a volume of its own",
)
def test_a_full_volume_stops_the_run_with_its_last_checkpoint_intact(run, tmp_path):
    (tmp_path / "cart.yaml").write_text(yaml.safe_dump(document()))
    (tmp_path / "small").mkdir()
    script = (
        "mount -t tmpfs -o size=8m tmpfs small || exit 77\n"
        '"$0" -m kubevo_cli run cart.yaml --workers 1 --data small || exit 78\n'
        "head -c 100000000 /dev/zero > small/ballast 2>/dev/null\n"
        '"$0" -m kubevo_cli run cart.yaml --workers 1 --data small --resume '
        "--set spec.budget.maxGenerations=5\n"
        'code=$?; rm small/ballast; [ "$code" = 1 ] || exit 79\n'
        '"$0" -m kubevo_cli run cart.yaml --workers 1 --data small --resume --output json '
        "--set spec.budget.maxGenerations=5\n"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("this machine gives no mounts")
    assert done.returncode == 0, done.stderr
    assert len(errors(done.stderr)) == 1
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["generation"] == 4
