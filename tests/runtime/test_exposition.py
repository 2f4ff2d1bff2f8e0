import re
import urllib.request

from prometheus_client import generate_latest

from kubevo_core.evaluation import Episode
from kubevo_core.generation import Limits, Outcome, ask, finish, is_complete, start, tell
from kubevo_core.messages import ResultReport
from kubevo_runtime import exposition
from kubevo_runtime.events import Fault, GenerationFinished, ResultTaken
from kubevo_runtime.exposition import Metrics


def finished_generation(make_settings, play):
    state, limits = start(make_settings()), Limits(max_generations=2)
    while not is_complete(state):
        for demand in ask(state, limits):
            tell(state, play(demand))
    key = next(iter(state.results))
    return finish(state, limits, 0.0).finished, key


def samples(metrics):
    lines = generate_latest(metrics.registry).decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_events_become_metrics(make_settings, synthetic_play):
    done, key = finished_generation(make_settings, synthetic_play())
    metrics = Metrics("x")
    report = ResultReport(Episode(key, 1.0, 10, 40), "w", "c", {"play": 0.2, "decode": 0.01})
    metrics(ResultTaken(Outcome.ACCEPTED, report))
    metrics(ResultTaken(Outcome.DUPLICATE, report))
    metrics(ResultTaken(Outcome.ACCEPTED, ResultReport(Episode(key, None, 1, 4), "w", "c", {})))
    metrics(GenerationFinished(done, 1.5, 2048))
    metrics(Fault("broker", "gone"))

    found = samples(metrics)

    assert found['kubevo_results_total{experiment="x",outcome="accepted"}'] == "2.0"
    assert found['kubevo_results_total{experiment="x",outcome="duplicate"}'] == "1.0"
    assert found['kubevo_frames_total{experiment="x"}'] == "44.0"
    assert found['kubevo_failed_episodes_total{experiment="x"}'] == "1.0"
    assert found['kubevo_generation{experiment="x",repeat="0"}'] == "0.0"
    assert found['kubevo_checkpoint_bytes{experiment="x",repeat="0"}'] == "2048.0"
    assert found['kubevo_faults_total{experiment="x",kind="broker"}'] == "1.0"
    assert float(found['kubevo_best_fitness{experiment="x",repeat="0"}']) == done.best.mean
    assert found['kubevo_episode_seconds_count{experiment="x",phase="play"}'] == "1.0"


def test_every_metric_is_documented_and_none_names_an_individual():
    metrics = Metrics("x")
    families = {family.name for family in metrics.registry.collect()}
    documented = {
        name.removesuffix("_total")
        for name in re.findall(r"^(kubevo_\w+)", exposition.__doc__, re.MULTILINE)
    }
    assert families == documented
    assert not {"slot", "genome", "digest"} & set(re.findall(r"\w+(?==\")", str(samples(metrics))))


def test_two_experiments_do_not_share_a_registry():
    one, other = Metrics("a"), Metrics("b")
    one(Fault("broker", "gone"))
    assert "kubevo_faults_total" not in str(samples(other))


def test_metrics_are_served_on_loopback():
    metrics = Metrics("x")
    metrics(Fault("broker", "gone"))
    server, thread = metrics.serve(0)
    try:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert b'kubevo_faults_total{experiment="x",kind="broker"} 1.0' in answer.read()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
