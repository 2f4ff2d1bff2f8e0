"""One bad worker beside a good one: whatever is wrong with its machine, the bytes are the same.

A ``sitecustomize`` module on the path spoils the workers of slot 0. The good worker waits until
the bad one has ended once, so the bad one meets the very first task alone.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PLUGINS = Path(__file__).parent.parent / "evaluator/plugins"
FAULTY = "kubevo_worker_environments:KubevoFaulty-v0"
SPOIL = """
import os, resource, sys, time
from pathlib import Path

def spoil(how, folder):
    if how == "temporary folder":
        os.environ["TMPDIR"] = str(folder / "a-file")
    elif how == "rom":
        os.environ["ALE_ROMS_DIR"] = str(folder / "no-roms")
    elif how == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (450 << 20, 450 << 20))
    else:
        sys.path.insert(0, str(folder / how))

if os.environ.get("KUBEVO_WORKER"):
    folder = Path(os.environ["KUBEVO_TEST_FOLDER"])
    _, slot, attempt = os.environ["KUBEVO_WORKER"].split("-")
    if slot == "0":
        if int(attempt) > 0:
            (folder / "bad-ended").touch()
        spoil(os.environ["KUBEVO_TEST_SPOIL"], folder)
    else:
        deadline = time.monotonic() + 60
        while not (folder / "bad-ended").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
"""


def document(environment, network="mlp"):
    layers = {"hiddenLayers": [8]} if network == "mlp" else {}
    genetic = {
        "populationSize": 4,
        "parents": 2,
        "mutationPower": "0.05",
        "eliteCandidates": 2,
        "eliteEpisodes": 1,
        "testEpisodes": 0,
    }
    return {
        "apiVersion": "kubevo.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "bad"},
        "spec": {
            "environment": {"maxEpisodeSteps": 20, **environment},
            "policy": {"network": network, "backend": "numpy", **layers},
            "algorithm": {"type": "GeneticAlgorithm", "geneticAlgorithm": genetic},
            "budget": {"maxGenerations": 2},
        },
    }


@pytest.fixture
def run(tmp_path):
    """Return ``kubevo run`` with a spoilt slot 0 (or none), as a function to (summary, stderr)."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(SPOIL)
    (tmp_path / "a-file").touch()
    (tmp_path / "no-roms").mkdir()
    (tmp_path / "scratch").mkdir()
    for name, body in (
        ("gymnasium", "raise ImportError('libGL.so.1: cannot open shared object file')"),
        ("ale_py", "raise ImportError('libGL.so.1: cannot open shared object file')"),
        ("numpy", "raise SystemError('built for another interpreter')"),
    ):
        package = tmp_path / f"broken {name}" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(body + "\n")

    def call(spec, spoil=None):
        (tmp_path / "bad.yaml").write_text(yaml.safe_dump(spec))
        path = [str(PLUGINS)] if spoil is None else [str(tmp_path / "site"), str(PLUGINS)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "TMPDIR": str(tmp_path / "scratch"),
            "KUBEVO_TEST_FOLDER": str(tmp_path),
            "KUBEVO_TEST_SPOIL": spoil or "",
            "KUBEVO_ACK_WAIT_SECONDS": "5",
        }
        argv = [sys.executable, "-m", "kubevo_cli", "run", "bad.yaml", "--output", "json"]
        argv += ["--workers", "1" if spoil is None else "2"]
        done = subprocess.run(
            argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    return call


SCRATCH = {"id": FAULTY, "kwargs": {"fault": '"scratch"'}}
MEMORY = {"id": FAULTY, "kwargs": {"fault": '"memory"'}}
PONG = {"id": "ALE/Pong-v5"}


@pytest.mark.parametrize(
    ("environment", "network", "spoil", "says"),
    [
        (SCRATCH, "mlp", "temporary folder", "OSError|NotADirectoryError"),
        (MEMORY, "mlp", "memory", "Memory"),
        ({"id": "CartPole-v1"}, "mlp", "broken gymnasium", "libGL.so.1"),
        ({"id": "CartPole-v1"}, "mlp", "broken numpy", "another interpreter"),
        (PONG, "dqn", "broken ale_py", "libGL.so.1"),
        (PONG, "dqn", "rom", "ROM"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_bad_worker_changes_nothing(run, tmp_path, environment, network, spoil, says):
    spec = document(environment, network)
    expected, _ = run(spec)
    summary, err = run(spec, spoil)
    assert "worker_ended: worker 0 ended with code" in err  # the fault hit
    (log,) = Path(summary["dataDir"]).glob("logs/worker-0.log")
    assert any(word in log.read_text() for word in says.split("|")), log.read_text()[-2000:]
    for name in ("populationDigest", "resultDigest", "best", "frames", "episodes"):
        assert summary[name] == expected[name], name
