"""``kubevo run`` as a person sees it: real processes, a real broker, CartPole in small."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

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
DIGESTS = ("populationDigest", "resultDigest")


def document(generations=3, **spec):
    return {
        "apiVersion": "kubevo.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "cart"},
        "spec": {
            "seed": 1,
            "environment": {"id": "CartPole-v1", "maxEpisodeSteps": 50},
            "policy": {"network": "mlp", "hiddenLayers": [8], "backend": "numpy"},
            "algorithm": {"type": "GeneticAlgorithm", "geneticAlgorithm": GENETIC},
            "budget": {"maxGenerations": generations},
            **spec,
        },
    }


class Running:
    """One ``kubevo run`` under way, its output in files."""

    def __init__(self, folder, arguments, environment, command="run"):
        self.out, self.err = folder / "stdout", folder / "stderr"
        argv = [sys.executable, "-m", "kubevo_cli", command, *map(str, arguments)]
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                argv, cwd=folder, env={**os.environ, "KUBEVO_ACK_WAIT_SECONDS": "2", **environment}, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip

    def until(self, text, seconds=60):
        """Wait until stderr says something."""
        deadline = time.monotonic() + seconds
        while text not in self.err.read_text():
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < deadline, self.err.read_text()
            time.sleep(0.005)
        return self

    def send(self, number):
        assert self.process.poll() is None, "it ended before the fault: " + self.err.read_text()
        self.process.send_signal(number)
        return self

    def wait(self, seconds=90):
        """Wait for the end; return (code, stdout, stderr)."""
        code = self.process.wait(seconds)
        out, err = self.out.read_text(), self.err.read_text()
        assert "Traceback" not in err, err
        return code, out, err

    def children(self):
        """Return the pids of broker and workers, by the part of the command that names them."""
        found = {"nats-server": [], "kubevo_evaluator": []}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                command = (path / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue  # it ended while we looked
            if parent == self.process.pid:
                for name, pids in found.items():
                    if name in command and "processes.py" not in command:
                        pids.append(int(path.name))
        return found


def is_gone(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_gone(pids, seconds=10):
    deadline = time.monotonic() + seconds
    while not all(map(is_gone, pids)):
        assert time.monotonic() < deadline, [pid for pid in pids if not is_gone(pid)]
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path):
    """Return a starter of runs of ``cart.yaml``; whatever still runs at the end is killed."""
    started = []

    def begin(*arguments, spec=None, **environment):
        if spec is not None:
            (tmp_path / "cart.yaml").write_text(yaml.safe_dump(spec))
        if arguments[:1] != ("--help",):
            arguments = ("cart.yaml", *arguments)
        started.append(Running(tmp_path, arguments, environment))
        return started[-1]

    yield begin
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Return the summary of an undisturbed run, by its number of generations."""
    found = {}

    def summary(generations):
        if generations not in found:
            folder = tmp_path_factory.mktemp("reference")
            (folder / "cart.yaml").write_text(yaml.safe_dump(document(generations)))
            run = Running(folder, ["cart.yaml", "--output", "json", "--workers", "1"], {})
            code, out, err = run.wait()
            assert code == 0, err
            found[generations] = json.loads(out)
        return found[generations]

    return summary


def same(out, expected):
    summary = json.loads(out)
    assert [summary[name] for name in DIGESTS] == [expected[name] for name in DIGESTS]
    for name in ("best", "elite", "finalTest", "evaluations", "episodes", "frames", "generation"):
        assert summary[name] == expected[name], name
    return summary


LONG = 30  # generations; long enough that a fault hits in the midst of the run


def test_a_run_prints_one_json_object_and_nothing_else(start, tmp_path):
    code, out, _ = start("--output", "json", "--workers", "2", spec=document()).wait()
    assert code == 0
    assert out.count("\n") == 1
    summary = json.loads(out)
    assert set(summary) == {
        "experiment", "generation", "reason", "best", "elite", "populationDigest",
        "resultDigest", "finalTest", "evaluations", "episodes", "frames", "wallSeconds",
        "dataDir", "repeats",
    }  # fmt: skip
    assert (summary["experiment"], summary["generation"]) == ("cart", 2)
    assert summary["reason"] == "maxGenerations"
    assert {"fitness", "genome", "digest", "generation"} <= set(summary["best"])
    assert {"fitness", "genome", "digest"} <= set(summary["elite"])
    assert summary["finalTest"]["episodes"] == len(summary["finalTest"]["episodeReturns"]) == 2
    assert Path(summary["dataDir"]).parent.parent == tmp_path / "kubevo-data"


def test_totals_count_finished_generations_only(reference):
    summary = reference(3)
    store = open_run(Path(summary["dataDir"])).repeat(0)
    history = store.history()
    # 3 x 8 individuals, and at most 3 candidates a generation with 2 episodes each.
    assert summary["evaluations"] == sum(row["evaluations"] for row in history) <= 3 * (8 + 3)
    assert summary["episodes"] == sum(row["episodes"] for row in history) <= 3 * (8 + 6)
    assert summary["frames"] == history[-1]["frames"]
    assert summary["frames"] == checkpoint.decode(store.latest().payload).finished.frames


def test_the_number_of_workers_changes_nothing(start, reference):
    code, out, _ = start("--workers", "3", "--output", "json", spec=document()).wait()
    assert code == 0
    same(out, reference(3))


def test_text_says_what_to_type_next_and_that_works(start, tmp_path):
    code, out, err = start("--workers", "1", spec=document()).wait()
    assert (code, out) == (0, "")
    commands = [line.strip() for line in err.partition("next:\n")[2].splitlines()]
    assert [shlex.split(command)[1] for command in commands] == ["best", "plot", "play", "evaluate"]
    for command in commands:
        words = [sys.executable, "-m", "kubevo_cli", *shlex.split(command)[1:]]
        words = ["3" if word == "100" else word for word in words]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
    assert (tmp_path / "curve.png").stat().st_size > 0
    assert (tmp_path / "best.mp4").stat().st_size > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on_to_the_same_bytes(start, reference, tmp_path, number):
    run = start("--workers", "2", "--output", "json", spec=document(LONG)).until("generation 3 ")
    children = run.children()
    assert len(children["nats-server"]) == 1
    assert len(children["kubevo_evaluator"]) == 2
    code, out, err = run.send(number).wait()
    assert (code, out) == (130, "")
    wait_gone([pid for pids in children.values() for pid in pids], 1)
    command = err.rpartition("go on with: ")[2].strip()
    words = shlex.split(command)
    assert words[:3] == ["kubevo", "run", "cart.yaml"]
    code, out, err = start(*words[3:]).wait()
    assert code == 0, err
    assert "resumed after generation" in err
    same(out, reference(LONG))


def test_a_killed_driver_takes_its_children_along_and_resumes_to_the_same_bytes(start, reference):
    arguments = ("--workers", "2", "--output", "json", "--resume")
    for generation in (2, 12):
        run = start(*arguments, spec=document(LONG)).until(f"generation {generation} ")
        children = run.children()
        run.send(signal.SIGKILL)
        assert run.process.wait(10) == -signal.SIGKILL
        wait_gone([pid for pids in children.values() for pid in pids])
    code, out, err = start(*arguments).wait()
    assert code == 0, err
    same(out, reference(LONG))


def test_killed_workers_and_a_killed_broker_change_nothing(start, reference):
    run = start("--workers", "2", "--output", "json", spec=document(LONG)).until("generation 1 ")
    hit = 0
    for generation, name in ((1, "kubevo_evaluator"), (6, "nats-server")):
        run.until(f"generation {generation} ")
        for pid in run.children()[name]:
            os.kill(pid, signal.SIGKILL)
            hit += 1
    assert hit >= 3
    code, out, err = run.wait()
    assert code == 0, err
    assert "ended with code -9" in err
    same(out, reference(LONG))


def test_resume_starts_where_nothing_was_written(start, reference):
    code, out, _ = start("--resume", "--output", "json", "--workers", "1", spec=document()).wait()
    assert code == 0
    same(out, reference(3))


def test_a_finished_run_answers_at_once_when_it_is_resumed(start, tmp_path):
    first = start("--output", "json", "--workers", "1", spec=document()).wait()
    again = start("--resume", "--output", "json", "--workers", "1").wait()
    assert (again[0], json.loads(again[1])) == (0, json.loads(first[1]))


def test_another_search_is_refused_with_the_difference(start, tmp_path):
    assert start("--workers", "1", spec=document()).wait()[0] == 0
    stored = find_run(tmp_path / "kubevo-data") / "spec.yaml"
    before = stored.read_bytes()
    changes = ("spec.seed=2", "spec.policy.precision=bfloat16")
    code, out, err = start("--resume", "--set", changes[0], "--set", changes[1]).wait()
    assert (code, out) == (1, "")
    assert "spec.seed: 1 -> 2" in err
    assert 'spec.policy.precision: "float32" -> "bfloat16"' in err
    assert "without --resume" in err
    assert stored.read_bytes() == before


def test_a_raised_budget_goes_on_to_the_bytes_of_the_larger_one(start, reference):
    assert start("--workers", "1", spec=document()).wait()[0] == 0
    arguments = ("--resume", "--workers", "1", "--output", "json")
    code, out, err = start(*arguments, spec=document(6)).wait()
    assert code == 0, err
    same(out, reference(6))


def test_a_second_process_on_one_directory_is_refused(start, tmp_path, reference):
    # However long the second one takes to start, the first is still at work.
    run = start("--workers", "1", spec=document(100_000)).until("generation 1 ")
    words = [sys.executable, "-m", "kubevo_cli", "run", "cart.yaml", "--resume"]
    second = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout) == (1, "")
    assert f"in use by another process (pid {run.process.pid} on" in second.stderr
    run.send(signal.SIGTERM)
    code, _, err = run.wait()
    assert code == 130
    enough = int(re.findall(r"^generation (\d+) ", err, re.MULTILINE)[-1]) + 3
    arguments = ("--resume", "--workers", "1", "--output", "json")
    code, out, err = start(*arguments, spec=document(enough)).wait()
    assert code == 0, err
    same(out, reference(enough))


def test_metrics_are_served_while_it_runs(start, tmp_path):
    run = start("--workers", "1", "--metrics-port", "0", spec=document(LONG))
    run.until("generation 2 ")
    (url,) = re.findall(r"metrics at (http\S+)", run.err.read_text())
    with urllib.request.urlopen(url, timeout=5) as page:
        text = page.read().decode()
    run.send(signal.SIGTERM)
    assert "--metrics-port 0" in run.wait()[2]
    for name in ("generation", "elite_fitness", "results_total", "frames_total"):
        assert f'kubevo_{name}{{experiment="cart"' in text, name
