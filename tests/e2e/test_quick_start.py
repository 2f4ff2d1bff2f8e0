"""The README's four commands, and what a user and a platform team do next with what they installed."""

import json

import pytest
from cluster_commands import CommandFailed
from product import (
    CHART,
    RELEASE,
    SYSTEM,
    Kubevo,
    cartpole,
    digests,
    experiment,
    quick_start,
)
from safetensors.numpy import load

from kubevo_core import decode
from kubevo_core.genome import from_json

READY_SECONDS = 60
READER = "kubevo-e2e-reader"
MADE = ("experiment/cartpole", f"serviceaccount/{READER}", f"rolebinding/{READER}")
ENFORCE = "pod-security.kubernetes.io/enforce"


@pytest.fixture(scope="module")
def solved(installed):
    """Run the README's other commands, in `default`, and return what the last one prints."""
    kubevo, kubectl = installed.kubevo, installed.kubevo.cluster.kubectl
    labels = kubevo.cluster.get("namespace", "default")["metadata"].get("labels", {})
    label = f"{ENFORCE}={labels[ENFORCE]}" if ENFORCE in labels else f"{ENFORCE}-"
    # What a session left that was killed.
    kubectl("delete", *MADE, "--ignore-not-found", namespace="default")
    try:
        kubectl("label", "namespace", "default", f"{ENFORCE}=restricted", "--overwrite")
        *commands, last = quick_start()[1:]
        for command in commands:
            kubevo.shell(command)
        yield kubevo.shell(last)
    finally:
        kubectl("label", "namespace", "default", label, "--overwrite")
        kubectl("delete", *MADE, "--ignore-not-found", namespace="default")


def test_the_quick_start_has_four_commands():
    commands = quick_start()
    assert len(commands) == 4, commands
    assert commands[0].startswith(f"helm install {RELEASE} charts/{CHART.name} ")
    assert commands[1] == "kubectl apply -f examples/cartpole.yaml"


def test_everything_is_ready_within_a_minute(installed):
    print(f"helm install to all ready: {installed.seconds:.1f} s")
    assert installed.seconds <= READY_SECONDS  # the issue's own limit, not a measurement


def test_cartpole_is_solved_to_the_bytes_of_a_local_run(kubevo: Kubevo, solved, laptop):
    assert "cartpole" in solved
    status = kubevo.succeeded("cartpole", "default")
    assert status["reason"] == "TargetFitness"
    local = json.loads(
        laptop(
            "run", CHART.parents[1] / "examples/cartpole.yaml", "--data", "d", "--output", "json"
        )
    )
    assert digests(status) == digests(local)
    assert status["best"]["digest"] == local["best"]["digest"]


def test_the_model_comes_through_the_service_with_a_service_accounts_token(kubevo, solved):
    kubevo.account(READER, "default", "kubevo-experiment-viewer")
    token = kubevo.token(READER, "default")
    best = kubevo.get("cartpole", "default")["status"]["best"]
    path = "/api/v1/namespaces/default/experiments/cartpole/best"
    with kubevo.service("kubevo-api", 80) as service:
        assert service.get(path).status == 401
        model = service.get(f"{path}/model.safetensors", token)
        genome = from_json(service.get(f"{path}/genome.json", token).body.decode())
        assert service.get("/").body.lstrip().startswith(b"<!doctype html>")
        assert b"kubevo_api" in service.get("/metrics").body
    assert genome.digest == best["digest"]
    weights = decode.parameters(genome)
    loaded = load(model.body)
    assert sum(tensor.size for tensor in loaded.values()) == weights.size
    head = json.loads(model.body[8 : 8 + int.from_bytes(model.body[:8], "little")])
    assert head["__metadata__"]["sha256"] == decode.sha256(weights)


def test_the_operators_metrics_tell_of_the_search(kubevo: Kubevo, solved):
    with kubevo.service("kubevo-operator", 8080) as service:
        text = service.get("/metrics").body.decode()
    assert 'kubevo_generation{experiment="cartpole",namespace="default"' in text


def test_the_installation_tests_itself(kubevo: Kubevo):
    said = kubevo.cluster.helm("test", RELEASE, "--logs", "--timeout", "5m", namespace=SYSTEM)
    assert "Phase:          Succeeded" in said


def test_a_viewer_reads_and_does_not_write(kubevo: Kubevo, namespace):
    kubevo.apply(experiment("kept", cartpole(2, suspend=True)), namespace)
    viewer = kubevo.account("viewer", namespace, "view")  # the cluster's own role, by aggregation
    editor = kubevo.account("editor", namespace, "edit")
    kubectl = kubevo.cluster.kubectl
    assert "kept" in kubectl("get", "evo", f"--as={viewer}", namespace=namespace)
    change = ("patch", "evo", "kept", "--type=merge", "-p", '{"spec": {"suspend": false}}')
    with pytest.raises(CommandFailed, match='cannot patch resource "experiments"'):
        kubectl(*change, f"--as={viewer}", namespace=namespace)
    with pytest.raises(CommandFailed, match='cannot create resource "experiments"'):
        kubectl(
            "create", "-f", CHART.parents[1] / "examples/acrobot.yaml", f"--as={viewer}",
            namespace=namespace,
        )  # fmt: skip
    kubectl(*change, f"--as={editor}", namespace=namespace)
    kubevo.succeeded("kept", namespace)


def test_a_wrong_value_is_refused_with_its_path(kubevo: Kubevo):
    with pytest.raises(CommandFailed, match=r"operator[./]replicas"):
        kubevo.cluster.helm("template", CHART, "--set", "operator.replicas=none")
