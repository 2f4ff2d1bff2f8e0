import re
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kubevo_core.evaluation import Episode
from kubevo_core.generation import Limits, Outcome, Stop, ask, finish, is_complete, start, tell
from kubevo_core.messages import ResultReport
from kubevo_runtime.events import (
    Ended,
    Fault,
    GenerationFinished,
    Progress,
    ResultTaken,
    Resumed,
    Stopped,
)
from kubevo_runtime.exposition import FAMILIES, FAULTS, STATES, Metrics

ROOT = Path(__file__).parents[2]
PARTS = ("core", "operator", "evaluator", "api", "cli")


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


def test_every_metric_is_explained_and_none_names_an_individual(finished):
    metrics = Metrics()
    feed(metrics.of("lab", "x"), finished)
    metrics.situate("lab", "x", "running", desired=2, ready=1)
    assert {family.name for family in metrics.registry.collect()} == {
        f"kubevo_{name}" for name in FAMILIES
    }
    assert all(family.help and family.unit for family in FAMILIES.values())
    used = set(re.findall(r"\w+(?==\")", str(samples(metrics))))
    assert used == {"namespace", "experiment", "le"}.union(*(f.labels for f in FAMILIES.values()))
    shown = {name.partition("{")[0] for name in samples(metrics)}
    for name in FAMILIES:
        assert any(each.startswith(f"kubevo_{name}") for each in shown), f"nothing sets {name}"


def test_every_fault_of_the_sources_is_explained():
    sources = [path for part in PARTS for path in (ROOT / part).rglob("*.py")]
    kinds = {
        kind for path in sources for kind in re.findall(r"\bFault\(\s*\"(\w+)\"", path.read_text())
    }
    assert kinds == set(FAULTS)


def test_counters_are_there_before_they_count():
    metrics = Metrics()
    metrics.of("lab", "x")(Progress(0, 0, 0, 6, open=6))
    found = samples(metrics)
    for kind in FAULTS:
        labels = f'experiment="x",kind="{kind}",namespace="lab"'
        assert found[f"kubevo_faults_total{{{labels}}}"] == "0.0"
    assert found['kubevo_frames_total{experiment="x",namespace="lab"}'] == "0.0"


def test_an_experiment_is_in_one_state_at_a_time():
    metrics = Metrics()
    for state in STATES:
        metrics.situate("lab", "x", state, desired=4, ready=3)
        found = samples(metrics)
        on = [k for k, v in found.items() if k.startswith("kubevo_experiment_state") and v == "1.0"]
        assert on == [f'kubevo_experiment_state{{experiment="x",namespace="lab",state="{state}"}}']
    evaluators = 'kubevo_evaluators{{experiment="x",namespace="lab",state="{}"}}'
    assert found[evaluators.format("desired")] == "4.0"
    assert found[evaluators.format("ready")] == "3.0"


def test_a_generation_shows_its_diversity_and_its_age(finished):
    now = [1000.0]
    metrics, (done, _) = Metrics(wall_clock=lambda: now[0]), finished
    sink, labels = metrics.of("lab", "x"), 'experiment="x",namespace="lab",repeat="0"'
    sink(Progress(0, 0, 0, 6, open=6))
    now[0] = 1010.0
    sink(Progress(0, 0, 2, 6, open=4))
    start = f"kubevo_generation_start_timestamp_seconds{{{labels}}}"
    assert samples(metrics)[start] == "1000.0"

    sink(GenerationFinished(done, 12.0, 2048))

    found = samples(metrics)
    assert found[start] == "1010.0"
    assert found[f"kubevo_checkpoint_timestamp_seconds{{{labels}}}"] == "1010.0"
    assert found[f"kubevo_best_generation{{{labels}}}"] == "0.0"
    assert found[f"kubevo_elite_mutations{{{labels}}}"] == "0.0"
    lineages = 'kubevo_lineages{{experiment="x",group="{}",namespace="lab",repeat="0"}}'
    assert found[lineages.format("population")] == "6.0"
    assert found[lineages.format("parents")] == "3.0"


def test_a_search_that_pauses_has_nothing_open_and_its_pause_is_not_its_age(finished):
    now = [1000.0]
    metrics = Metrics(wall_clock=lambda: now[0])
    sink, labels = metrics.of("lab", "x"), 'experiment="x",namespace="lab",repeat="0"'
    sink(Progress(0, 0, 0, 6, open=6))
    sink(Ended())
    assert samples(metrics)[f"kubevo_open_episodes{{{labels}}}"] == "0.0"

    now[0] = 9000.0
    sink(Resumed(0, 0, (), finished[0], 9, 0, 2048, 990.0, None))
    sink(Progress(0, 1, 0, 6, open=6))

    found = samples(metrics)
    assert found[f"kubevo_checkpoint_timestamp_seconds{{{labels}}}"] == "990.0"
    assert found[f"kubevo_generation_start_timestamp_seconds{{{labels}}}"] == "9000.0"


def test_a_forgotten_experiment_leaves_no_series_and_the_others_stay(finished):
    metrics = Metrics(CollectorRegistry())
    feed(metrics.of("lab", "y"), finished)
    before = samples(metrics)
    late = metrics.of("lab", "x")
    feed(late, finished)
    metrics.situate("lab", "x", "running", desired=1, ready=1)
    feed(metrics.of("other", "x"), finished)

    metrics.forget("lab", "x")
    metrics.forget("other", "x")
    feed(late, finished)  # an event that was under way
    metrics.of("lab", "x")(Ended())  # a search that is cancelled ends after it was forgotten

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
    assert [value for value in values if value] == [1.0]


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
