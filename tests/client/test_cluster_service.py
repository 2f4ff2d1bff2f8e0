"""The way to the service through the Kubernetes API: the pod, the port-forward, the token, the logs."""

import json
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).parent))

from pod_peer import Peer, pod

from kubevo_cli.__main__ import main

SERVICE = {"app.kubernetes.io/name": "kubevo", "app.kubernetes.io/component": "operator"}


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Work in a fresh folder and without settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("KUBEVO_SERVICE", "KUBEVO_TOKEN", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def peer(served):
    return Peer(
        pods=[
            pod("old", ready=False, **SERVICE),
            pod("kubevo-1", **SERVICE),
            pod("stranger", app="other"),
        ],
        forwards={"kubevo-1": served.port},
        token=served.token,
    )


@pytest.fixture
def kubevo(peer, capsys, tmp_path):
    running = peer.start()
    (tmp_path / "config").write_text(running.kubeconfig("local"))

    def call(*arguments, code=0):
        capsys.readouterr()
        found = main([str(each) for each in (*arguments, "--kubeconfig", "config")])
        out, err = capsys.readouterr()
        assert "Traceback" not in err, err
        assert found == code, err
        return out, err

    yield call
    running.stop()


def test_the_service_is_reached_by_a_port_forward_with_a_fresh_token(kubevo, peer, client):
    out, _ = kubevo("best", "first", "-o", "json")
    assert json.loads(out)["digest"] == client.experiment("first").best().digest
    forwards = [each for each in peer.asked if each.endswith("portforward")]
    assert set(forwards) == {"GET /api/v1/namespaces/kubevo-system/pods/kubevo-1/portforward"}
    token = "POST /api/v1/namespaces/local/serviceaccounts/kubevo-user/token"
    assert peer.asked.count(token) == 1


def test_a_file_comes_through_a_port_forward_whole(kubevo, tmp_path):
    kubevo("best", "third", "-o", "weights.safetensors")
    with safe_open(tmp_path / "weights.safetensors", "np") as file:
        assert file.metadata()["kubevo"] == "weights-1"
    _, err = kubevo("best", "third", "-o", "policy.py")
    assert "it plays the weights beside it" in err
    assert {path.name for path in tmp_path.iterdir()} == {
        "config",
        "policy.py",
        "weights.safetensors",
    }


def test_an_account_of_another_namespace_can_be_named(kubevo, peer):
    kubevo("compare", "first", "second", "--service-account", "team/me")
    assert "POST /api/v1/namespaces/team/serviceaccounts/me/token" in peer.asked


def test_a_given_token_is_used_and_none_is_asked_for(kubevo, peer, served):
    kubevo("best", "first", "--genome", "--token", served.token)
    assert not [each for each in peer.asked if each.startswith("POST")]


def test_searches_are_compared_with_the_best_first(kubevo):
    out, _ = kubevo("compare", "first", "third", "-o", "text")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0][:4] == ["NAME", "ENVIRONMENT", "REPEATS", "IQM"]
    assert {row[0] for row in rows[1:]} == {"first", "third"}
    values = [float(row[3].replace(",", "")) for row in rows[1:]]
    assert values == sorted(values, reverse=True)


def test_logs_tell_conditions_then_failed_episodes_the_newest_last(kubevo):
    out, _ = kubevo("logs", "second", "--repeat", 0, "--tail", 3)
    lines = out.splitlines()
    assert "Succeeded" in lines[0]
    assert [line.startswith("failed: generation") for line in lines] == [False, True, True, True]
    generations = [int(line.split()[2].rstrip(",")) for line in lines[1:]]
    assert generations == sorted(generations)


def test_logs_of_a_search_that_has_ended_are_followed_to_their_end(kubevo):
    out, _ = kubevo("logs", "first", "-f", "-o", "json")
    found = [json.loads(line) for line in out.splitlines()]
    assert found[-1]["kind"] == "state"
    assert found[-1]["state"] == "Succeeded"


@pytest.mark.parametrize("follow", [(), ("-f",)])
def test_each_line_of_an_evaluator_has_its_pod_and_container(kubevo, peer, follow):
    label = {"kubevo.dev/experiment": "cart"}
    peer.pods += [pod("cart-a", **label), pod("cart-b", **label)]
    peer.logs = {
        "cart-a/evaluator": "one\ntwo\n",
        "cart-a/evaluator-1": "three\n",
        "cart-b/evaluator": "four\n",
        "cart-b/evaluator-1": "",
    }
    peer.experiments["cart"] = {
        "metadata": {"name": "cart", "namespace": "local", "uid": "u"},
        "spec": {"environment": {"id": "CartPole-v1"}, "policy": {"network": "mlp"}},
        "status": {"conditions": [{"type": "Succeeded", "status": "True"}]},
    }
    out, _ = kubevo("logs", "cart", "--evaluators", *follow)
    lines = out.splitlines()
    assert sorted(lines) == [
        "[cart-a/evaluator-1] three",
        "[cart-a/evaluator] one",
        "[cart-a/evaluator] two",
        "[cart-b/evaluator] four",
    ]
    assert lines.index("[cart-a/evaluator] one") < lines.index("[cart-a/evaluator] two")


def test_a_search_without_evaluators_is_told_as_such(kubevo, peer):
    peer.experiments["cart"] = {"metadata": {"name": "cart", "namespace": "local"}}
    assert kubevo("logs", "cart", "--evaluators") == (
        "",
        "cart has no evaluators now: their number follows the work that there is\n",
    )


# ---- errors


def test_no_pod_that_is_ready_is_told_with_what_was_looked_for(kubevo, peer):
    peer.pods = [pod("old", ready=False, **SERVICE)]
    _, err = kubevo("best", "first", code=2)
    assert "expected one that is ready in the namespace 'kubevo-system'" in err
    assert "found 1 that are not ready" in err
    assert "--service-namespace" in err


def test_a_port_forward_that_is_not_allowed_names_the_right(kubevo, peer):
    peer.forwards.clear()
    _, err = kubevo("best", "first", code=1)
    assert "pods/portforward" in err
    assert len(err.splitlines()) == 1


def test_an_account_that_is_not_there_is_told_with_how_to_make_it(kubevo, peer):
    peer.token = ""
    _, err = kubevo("compare", "first", code=2)
    assert "kubectl create serviceaccount kubevo-user -n local" in err


def test_an_unknown_experiment_is_told_by_the_service(kubevo):
    _, err = kubevo("best", "missing", code=2)
    assert "no Experiment 'missing'" in err


def test_a_cluster_that_does_not_answer_is_told_in_a_line(kubevo, tmp_path):
    config = json.loads((tmp_path / "config").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (tmp_path / "config").write_text(json.dumps(config))
    _, err = kubevo("ls", code=1)
    assert err.startswith("error: the Kubernetes API at http://127.0.0.1:1 does not answer: ")
    assert "refused" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("content", [None, "", "nonsense: [", "{}"])
def test_a_kubeconfig_that_is_none_is_told_with_its_name(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "broken").write_text(content)
    assert main(["ls", "--kubeconfig", "broken"]) == 2
    err = capsys.readouterr().err
    assert "expected a kubeconfig at broken" in err
    assert len(err.splitlines()) == 1


def test_a_name_that_is_no_directory_needs_a_cluster(tmp_path, capsys):
    assert main(["best", "nothing", "--kubeconfig", "missing"]) == 2
    assert "nothing is no directory here, and as an Experiment: no cluster" in (
        capsys.readouterr().err
    )


def test_a_directorys_service_needs_no_cluster_at_all(served, capsys):
    arguments = ["--service", served.url, "--token", served.token, "--kubeconfig", "missing"]
    assert main(["best", "first", *arguments]) == 0
    assert "CartPole-v1" in capsys.readouterr().out
    assert main(["best", "first", *arguments[:2], "--kubeconfig", "missing"]) == 2
    assert "expected a token in --token or KUBEVO_TOKEN" in capsys.readouterr().err


def test_a_form_that_is_none_is_refused_with_those_that_are(kubevo):
    _, err = kubevo("best", "first", "-o", "model.pt", code=2)
    assert "expected text, wide, json, yaml, or a file to write that ends in" in err
