"""Shared by all tests: the golden files, a minimal spec, and the synthetic evaluation."""

import fcntl
import hashlib
import json
import os
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from threadpoolctl import threadpool_limits

from kubevo_core import checkpoint, container
from kubevo_core import spec as specs
from kubevo_core.evaluation import Demand, Episode
from kubevo_core.generation import (
    Limits,
    Phase,
    Settings,
    ask,
    close_tests,
    completed_tests,
    finish,
    is_complete,
    start,
    tell,
)
from kubevo_core.seeding import mix
from kubevo_core.selection import digest_word
from kubevo_runtime.store import Run, create_run

NETWORK = "mlp-4-16-2"

HERE = Path(__file__).parent
Play = Callable[[Demand], Episode]


def pytest_configure() -> None:
    # A shell without job control starts what it puts into the background with SIGINT ignored, and
    # so would every program that the tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # As in the programs: several processes with threads of BLAS that spin would wait for each other.
    threadpool_limits(1)
    # How long an example takes depends on what runs beside it, and is no property of ours.
    hypothesis.settings.register_profile(
        "kubevo", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("kubevo")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, Callable[[], Any]], Any]:
    """Return a memory of what is dear: made once for a key, also when several processes run the tests.

    Keys and what is made are values of JSON; who comes while it is being made waits for it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    folder.mkdir(exist_ok=True)

    def recall(key: Any, make: Callable[[], Any]) -> Any:
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        with (folder / name).open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            known = file.read()
            if not known:
                known = json.dumps(make())
                file.write(known)
        return json.loads(known)

    return recall


@pytest.fixture(scope="session")
def golden_noise() -> dict[str, Any]:
    return json.loads((HERE / "golden/noise-v1.json").read_text())


@pytest.fixture(scope="session")
def golden_engine() -> dict[str, Any]:
    return json.loads((HERE / "golden/engine-v1.json").read_text())


def synthetic(law: str = "noise", fail_every: int = 41) -> Play:
    """Return the evaluation of ``golden/engine-v1.json``: a pure function of genome and seed."""

    def play(demand: Demand) -> Episode:
        genome = demand.base.child(demand.mutation) if demand.mutation else demand.base
        assert genome.digest == demand.key.digest
        v = mix(digest_word(genome.digest) ^ demand.episode_seed)
        steps = 1 + v % 50
        if v % fail_every == 0:
            return Episode(demand.key, None, steps, 4 * steps, "synthetic failure")
        if law == "noise":
            value = ((v >> 11) % 1000) / 8
        else:
            value = sum(mix(m.seed) % 7 for m in genome.mutations) + ((v >> 20) % 16) / 16
        return Episode(demand.key, value, steps, 4 * steps)

    return play


@pytest.fixture(scope="session")
def synthetic_play() -> Callable[..., Play]:
    return synthetic


@pytest.fixture(scope="session")
def make_settings() -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        values: dict[str, Any] = {
            "seed": 1,
            "repeat": 0,
            "network": "mlp-4-16-2",
            "population_size": 6,
            "parents": 3,
            "mutation_power": "0.05",
            "elite_candidates": 3,
            "elite_episodes": 2,
            "episodes_per_evaluation": 1,
            "test_episodes": 0,
            "test_every_generations": 0,
        }
        return Settings(**{**values, **changes})

    return make


@pytest.fixture(scope="session")
def case_settings(make_settings: Callable[..., Settings]) -> Callable[..., tuple[Settings, Limits]]:
    """Return the settings and limits of a golden case."""

    def of(case: dict[str, Any], repeat: int, **changes: Any) -> tuple[Settings, Limits]:
        spec, budget = case["spec"], case["spec"]["budget"]
        settings = make_settings(
            seed=spec["seed"],
            repeat=repeat,
            population_size=spec["populationSize"],
            parents=spec["parents"],
            mutation_power=spec["mutationPower"],
            elite_candidates=spec["eliteCandidates"],
            elite_episodes=spec["eliteEpisodes"],
            episodes_per_evaluation=spec["episodesPerEvaluation"],
            **changes,
        )
        target = budget.get("targetFitness")
        return settings, Limits(
            None if target is None else float(target),
            budget.get("maxGenerations"),
            budget.get("maxFrames"),
        )

    return of


@pytest.fixture(scope="session")
def experiment_document() -> Callable[..., dict[str, Any]]:
    """Return a small valid Experiment; keyword arguments replace fields of its spec."""

    def make(**changes: Any) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "seed": 1,
            "environment": {"id": "CartPole-v1"},
            "policy": {"network": "mlp", "hiddenLayers": [16], "backend": "numpy"},
            "algorithm": {
                "type": "GeneticAlgorithm",
                "geneticAlgorithm": {
                    "populationSize": 6,
                    "parents": 3,
                    "mutationPower": "0.05",
                    "eliteCandidates": 3,
                    "eliteEpisodes": 2,
                    "testEpisodes": 3,
                },
            },
            "budget": {"maxGenerations": 3},
        }
        spec.update(changes)
        return {
            "apiVersion": "kubevo.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": {"name": "test"},
            "spec": spec,
        }

    return make


@pytest.fixture(scope="session")
def make_experiment(
    experiment_document: Callable[..., dict[str, Any]],
) -> Callable[..., specs.Experiment]:
    def make(**changes: Any) -> specs.Experiment:
        return specs.parse(experiment_document(**changes), "test")

    return make


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the scenario traces anew")


def fill(
    run: Run, experiment: specs.Experiment, play: Callable[..., Any], network: str = NETWORK
) -> None:
    """Carry each repeat of ``experiment`` to its end in the run's directory."""
    for repeat in range(experiment.spec.repeats):
        limits, store = Limits.of(experiment.spec), run.repeat(repeat)
        state, seconds = start(Settings.of(experiment.spec, repeat, network)), 0.0
        while state.phase is not Phase.STOPPED:
            for demand in ask(state, limits):
                tell(state, play(demand))
            for report in completed_tests(state):
                store.append_test(report.row())
                state = close_tests(state, [(report.generation, report.purpose)])
            if is_complete(state):
                seconds += 0.5
                state = finish(state, limits, seconds)
                done = state.finished
                sealed = container.seal(
                    container.Header(run.uid, repeat, done.generation), checkpoint.encode(state)
                )
                store.save(done.generation, sealed, done.row(), checkpoint.scores(done))


@pytest.fixture(scope="session")
def make_run_in(
    experiment_document: Callable[..., dict[str, Any]], synthetic_play: Callable[..., Play]
) -> Callable[..., Run]:
    """Return a maker of finished runs in a directory."""

    def make(
        root: Path, name: str = "test", law: str = "climb", fail_every: int = 10**6, **changes: Any
    ) -> Run:
        document = experiment_document(**changes)
        document["metadata"]["name"] = name
        experiment = specs.parse(document, "test")
        uid = f"{zlib.crc32(f'{root.name}/{name}'.encode()):08x}-0000-4000-8000-000000000000"
        run = create_run(root, "local", name, uid, experiment.document())
        fill(run, experiment, synthetic_play(law, fail_every))
        return run

    return make


@pytest.fixture
def make_run(tmp_path: Path, make_run_in: Callable[..., Run]) -> Callable[..., Run]:
    """Return a maker of finished runs in ``<tmp_path>/<root>``."""

    def make(root: str = "data", name: str = "test", **changes: Any) -> Run:
        return make_run_in(tmp_path / root, name, **changes)

    return make
