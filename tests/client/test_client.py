"""The client against a real `kubevo serve`: looking, downloading, errors."""

import json
import socket

import numpy as np
import pytest
from safetensors import safe_open

from kubevo_client import (
    AccessRefused,
    Client,
    ExperimentFailed,
    NotThere,
    RequestRefused,
    ServiceError,
    ServiceUnavailable,
)
from kubevo_core import decode
from kubevo_core.errors import FormatError, UserError
from kubevo_core.genome import parse
from kubevo_runtime.store import find_runs, open_run

# ---- looking


def run_of(served, name):
    return next(run for run in map(open_run, find_runs(served.directory)) if run.name == name)


def test_all_experiments_are_listed_by_name(client):
    found = list(client.experiments())
    assert [status.name for status in found] == ["first", "second", "third"]
    assert {status.state for status in found} == {"Succeeded"}


def test_a_list_can_be_narrowed_by_state_and_namespace(client):
    assert list(client.experiments(state="Running")) == []
    assert len(list(client.experiments("local", state="Succeeded"))) == 3


def test_a_status_tells_how_far_it_is_and_how_good(client, served):
    status = client.experiment("first").status()
    row = run_of(served, "first").repeat(0).history()[-1]
    assert status.is_finished
    assert status.has_succeeded
    assert (status.generation, status.generations, status.frames) == (2, 3, row["frames"])
    assert status.best_fitness == row["best"]["mean"]
    assert status.elite_fitness == row["elite"]["mean"]
    assert status.document["environment"] == status.environment == "CartPole-v1"


def test_a_history_is_the_stored_rows_as_columns(client, served):
    rows = run_of(served, "first").repeat(0).history()
    history = client.experiment("first").history()
    assert len(history) == len(rows) == 3
    assert history["max"].tolist() == [row["fitness"]["max"] for row in rows]
    assert history.columns["generation"] == [0, 1, 2]
    assert [row["best"] for row in history.rows()] == [row["best"]["mean"] for row in rows]


def test_a_column_that_is_not_known_is_named_with_those_that_are(client):
    with pytest.raises(UserError, match="expected one of generation, max"):
        client.experiment("first").history()["fitness"]


def test_a_repeat_can_be_chosen(client):
    experiment = client.experiment("second")
    assert [experiment.history(repeat).repeat for repeat in (0, 1)] == [0, 1]
    assert experiment.best(1).repeat == 1
    assert experiment.best().fitness == max(experiment.best(each).fitness for each in (0, 1))


def test_failed_episodes_are_told_newest_first(client, served):
    found = list(client.experiment("second").failures(0))
    assert found
    assert {each["failure"] for each in found} == {"synthetic failure"}
    generations = [each["generation"] for each in found]
    assert generations == sorted(generations, reverse=True)
    assert list(client.experiment("first").failures()) == []


def test_experiments_are_compared_over_their_repeats(client):
    found = client.compare(["second", "local/first"])
    assert [item["id"] for item in found] == ["local/second", "local/first"]
    assert len(found[0]["result"]["values"]) == 2


# ---- the best


def test_the_best_is_the_runs_best_genome(client, served):
    best = client.experiment("first").best()
    row = run_of(served, "first").repeat(0).history()[-1]["best"]
    assert (best.fitness, best.generation, best.digest) == (
        row["mean"],
        row["generation"],
        row["genome"],
    )
    assert parse(best.document["genome"]) == best.genome


def test_a_genome_that_is_not_what_its_digest_names_is_refused(client):
    from kubevo_client.genomes import Best

    best = client.experiment("first").best()
    forged = {**best.document, "digest": "0" * 64}
    with pytest.raises(FormatError, match="expected the digest 0000"):
        Best.of(forged, best._transport, ("local", "first"))


def test_downloaded_weights_are_those_that_the_genome_decodes_to(client, tmp_path):
    best = client.experiment("first").best()
    path = best.download("model.safetensors", tmp_path)
    assert path == tmp_path / "model.safetensors"
    with safe_open(path, "np") as file:
        flat = np.concatenate([file.get_tensor(f"{k}{i}").ravel() for i in (1, 2) for k in "wb"])
        assert file.metadata()["sha256"] == best.load_policy().sha256 == decode.sha256(flat)
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_file_that_exists_is_overwritten_only_by_force(client, tmp_path):
    best = client.experiment("first").best()
    target = tmp_path / "mine.json"
    target.write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        best.download("genome.json", target)
    assert target.read_text() == "precious"
    best.download("genome.json", target, force=True)
    assert json.loads(target.read_text())["network"] == best.genome.network


def test_a_file_that_nobody_offers_is_refused_before_any_request(client, tmp_path):
    with pytest.raises(UserError, match=r"expected one of README\.md, genome\.json"):
        client.experiment("first").best().download("model.pt", tmp_path)


def test_a_video_that_was_not_recorded_leaves_no_file(client, tmp_path):
    with pytest.raises(NotThere, match="nothing is recorded"):
        client.experiment("first").best().download("video.mp4", tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- what a local service cannot do


@pytest.mark.parametrize("action", ["suspend", "resume", "stop"])
def test_a_local_run_cannot_be_changed_and_the_error_says_what_can(client, action):
    with pytest.raises(RequestRefused, match="kubevo run") as caught:
        getattr(client.experiment("first"), action)()
    assert caught.value.status == 405


def test_an_extension_by_nothing_is_refused(client):
    with pytest.raises(UserError, match="expected generations, frames, seconds or target"):
        client.experiment("first").extend()


# ---- errors


def test_an_unknown_experiment_is_the_callers_mistake(client):
    with pytest.raises(NotThere, match="no Experiment 'missing'") as caught:
        client.experiment("missing").status()
    assert isinstance(caught.value, UserError)
    assert caught.value.status == 404


@pytest.mark.parametrize("name", ["../first", "first/history", "first?x=1", "%2e", "", "First"])
def test_a_name_cannot_leave_its_place_in_the_path(client, name):
    with pytest.raises(UserError, match="expected lower-case letters"):
        client.experiment(name)


@pytest.mark.parametrize("token", [None, "x" * 43])
def test_a_missing_or_wrong_token_is_told_as_such(served, token, monkeypatch):
    monkeypatch.delenv("KUBEVO_TOKEN", raising=False)
    with pytest.raises(AccessRefused, match="token") as caught:
        Client(served.url, token).version()
    assert caught.value.status == 401


def test_a_token_with_a_line_break_never_becomes_a_header(served):
    with pytest.raises(UserError, match="no token has"):
        Client(served.url, "a\r\nX: y").version()


def test_a_token_may_be_a_function_that_renews_it(served):
    tokens = iter(["wrong" * 9, served.token])
    client = Client(served.url, lambda: next(tokens))
    with pytest.raises(AccessRefused):
        client.version()
    assert client.version()["mode"] == "local"


def test_a_service_that_does_not_answer_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServiceUnavailable, match=f"127.0.0.1:{port} does not answer: Conn"):
        Client(f"http://127.0.0.1:{port}", "t").version()


def test_a_service_that_says_nothing_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", "t", timeout_seconds=0.2)
        with pytest.raises(ServiceUnavailable, match="timed out"):
            client.version()


def test_something_that_is_no_service_of_ours_is_told_as_such(served):
    with pytest.raises(ServiceError, match="is this the URL of a kubevo service"):
        Client(f"{served.url}/elsewhere", served.token).version()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x", "http://", "http://x:port"])
def test_a_url_that_is_none_is_refused(url, monkeypatch):
    monkeypatch.delenv("KUBEVO_SERVICE", raising=False)
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:8000"):
        Client(url)


def test_the_environment_says_which_service_and_token(served, monkeypatch):
    monkeypatch.setenv("KUBEVO_SERVICE", served.url)
    monkeypatch.setenv("KUBEVO_TOKEN", served.token)
    assert Client().experiment("first").status().state == "Succeeded"


def test_a_directorys_own_service_needs_no_token_to_be_copied(served):
    client = Client.local(served.directory, served.port)
    assert client.experiment("first").best().fitness > 0


def test_a_directory_that_is_not_served_says_how_to_serve_it(tmp_path):
    with pytest.raises(UserError, match="kubevo serve"):
        Client.local(tmp_path)


def test_a_failed_search_is_a_kind_of_service_error():
    assert issubclass(ExperimentFailed, ServiceError)
