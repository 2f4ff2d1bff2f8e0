import re
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kubevo_core.evaluation import Episode
from kubevo_core.generation import Limits, Outcome, Stop, ask, finish, is_complete, start, tell
from kubevo_core.messages import ResultReport
from kubevo_runtime import exposition
from kubevo_runtime.events import (
    Fault,
    GenerationFinished,
    Progress,
    ResultTaken,
    Resumed,
    Stopped,
)
from kubevo_runtime.exposition import Metrics


@pytest.fixture
def finished(make_settings, synthetic_play):
    """Return a finished generation, and the key of one of its episodes."""
    state, limits = start(make_settings()), Limits(max_generations=2)
    while not is_complete(state):
        for demand in ask(state, limits):
            tell(state, synthetic_play()(demand))
    key = next(iter(state.results))
    return finish(state, limits, 0.0).finished, key


def samples(metrics):
    lines = generate_latest(metrics.registry).decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def feed(sink, finished):
    """Give a sink one event of every kind that makes a series."""
    done, key = finished
    report = ResultReport(Episode(key, 1.0, 10, 40), "w", "c", {"play": 0.2, "decode": 0.01})
    sink(ResultTaken(Outcome.ACCEPTED, report))
    sink(ResultTaken(Outcome.DUPLICATE, report))
    sink(ResultTaken(Outcome.ACCEPTED, ResultReport(Episode(key, None, 1, 4), "w", "c", {})))
    sink(Progress(0, 0, 2, 6, open=4))
    sink(GenerationFinished(done, 1.5, 2048))
    sink(Fault("broker", "gone"))


def test_events_become_metrics(finished):
    metrics = Metrics()
    feed(metrics.of("lab", "x"), finished)

    found = samples(metrics)

    labels = 'experiment="x",namespace="lab"'
    assert found[f'kubevo_results_total{{{labels},outcome="accepted"}}'] == "2.0"
    assert found[f'kubevo_results_total{{{labels},outcome="duplicate"}}'] == "1.0"
    assert found[f"kubevo_frames_total{{{labels}}}"] == "44.0"
    assert found[f"kubevo_failed_episodes_total{{{labels}}}"] == "1.0"
    assert found[f'kubevo_generation{{{labels},repeat="0"}}'] == "0.0"
    assert found[f'kubevo_checkpoint_bytes{{{labels},repeat="0"}}'] == "2048.0"
    assert found[f'kubevo_open_episodes{{{labels},repeat="0"}}'] == "4.0"
    assert found['kubevo_faults_total{experiment="x",kind="broker",namespace="lab"}'] == "1.0"
    best = float(found[f'kubevo_best_fitness{{{labels},repeat="0"}}'])
    assert best == finished[0].best.mean
    assert found[f'kubevo_episode_seconds_count{{{labels},phase="play"}}'] == "1.0"


def test_every_metric_is_documented_and_none_names_an_individual(finished):
    metrics = Metrics()
    feed(metrics.of("lab", "x"), finished)
    families = {family.name for family in metrics.registry.collect()}
    documented = {
        name.removesuffix("_total")
        for name in re.findall(r"^(kubevo_\w+)", exposition.__doc__, re.MULTILINE)
    }
    assert families == documented
    used = set(re.findall(r"\w+(?==\")", str(samples(metrics))))
    assert used == {"namespace", "experiment", "repeat", "stat", "outcome", "phase", "kind", "le"}


def test_a_forgotten_experiment_leaves_no_series_and_the_others_stay(finished):
    metrics = Metrics(CollectorRegistry())
    feed(metrics.of("lab", "y"), finished)
    before = samples(metrics)
    late = metrics.of("lab", "x")
    feed(late, finished)
    feed(metrics.of("other", "x"), finished)

    metrics.forget("lab", "x")
    metrics.forget("other", "x")
    feed(late, finished)  # an event that was under way

    timeless = {k: v for k, v in samples(metrics).items() if "_created" not in k}
    assert timeless == {k: v for k, v in before.items() if "_created" not in k}
    metrics.forget("lab", "never seen")


def test_a_namesake_starts_from_zero(finished):
    metrics = Metrics()
    assert metrics.of("lab", "x") is metrics.of("lab", "x")
    feed(metrics.of("lab", "x"), finished)
    metrics.forget("lab", "x")
    metrics.of("lab", "x")(Fault("broker", "gone"))
    values = [float(v) for k, v in samples(metrics).items() if "_created" not in k]
    assert values == [1.0]


def test_a_resumed_search_shows_its_last_generation_at_once(finished):
    metrics, (done, _) = Metrics(), finished
    sink = metrics.of("lab", "x")
    sink(Resumed(0, 0, (), done, 9, 0, 2048, 0.0, None))
    sink(Stopped(0, Stop.MAX_FRAMES))
    found = samples(metrics)
    assert found['kubevo_generation{experiment="x",namespace="lab",repeat="0"}'] == "0.0"
    assert found['kubevo_open_episodes{experiment="x",namespace="lab",repeat="0"}'] == "0.0"


def test_metrics_are_served_on_loopback():
    metrics = Metrics()
    metrics.of("local", "x")(Fault("broker", "gone"))
    server, thread = metrics.serve(0)
    try:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert 'kubevo_faults_total{experiment="x",kind="broker",namespace="local"} 1.0' in text
