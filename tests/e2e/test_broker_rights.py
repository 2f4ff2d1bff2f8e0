"""Who may do what at the broker, asked from real pods with real credentials, or without."""

import json
from pathlib import Path

import pytest
from product import RESTRICTED, SYSTEM, Kubevo, cartpole, experiment

from kubevo_core import names

URL = f"nats://kubevo-nats.{SYSTEM}.svc:4222"
INTRUDER = (Path(__file__).parent / "in_pods/intruder.py").read_text()


@pytest.fixture
def two(kubevo: Kubevo, namespace):
    """Make two Experiments that have their credentials, and return their names on the broker."""
    ids = {}
    for name in ("mine", "theirs"):
        kubevo.apply(experiment(name, cartpole(100_000, scaling={"max": 1})), namespace)
    for name in ("mine", "theirs"):
        kubevo.reach(name, namespace, 0)
        ids[name] = names.experiment_id(name, kubevo.get(name, namespace)["metadata"]["uid"])
    return ids


def intrude(kubevo: Kubevo, namespace, name, subjects, secret=None):
    """Run the intruder in a pod of its own and return what it prints."""
    evaluator = kubevo.cluster.pods("kubevo.dev/experiment=mine", namespace)[0]
    image = evaluator["spec"]["containers"][0]["image"]
    credentials = "/credentials/user.creds" if secret else ""
    container = {
        "name": "main",
        "image": image,
        "command": ["python", "-c", INTRUDER, URL, credentials, json.dumps(subjects)],
        "securityContext": evaluator["spec"]["containers"][0]["securityContext"],
    }
    spec = {
        "restartPolicy": "Never",
        "securityContext": evaluator["spec"]["securityContext"],
        "containers": [container],
    }
    if secret:
        container["volumeMounts"] = [{"name": "credentials", "mountPath": "/credentials"}]
        spec["volumes"] = [{"name": "credentials", "secret": {"secretName": secret}}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    kubevo.cluster.apply(pod, namespace=namespace)
    done = "jsonpath={.status.phase}=Succeeded"
    kubevo.cluster.wait(f"pod/{name}", done, namespace=namespace, seconds=90)
    return json.loads(kubevo.cluster.logs(name, namespace=namespace).splitlines()[-1])


def secret_of(kubevo: Kubevo, namespace, name):
    found = kubevo.cluster.get("secret", f"{name}-nats", namespace=namespace)
    assert "user.creds" in found["data"], list(found["data"])
    return found["metadata"]["name"]


def test_a_pod_without_credentials_is_refused(kubevo: Kubevo, namespace, two):
    subjects = {"publish": [], "subscribe": [">"]}
    found = intrude(kubevo, namespace, "stranger", subjects)
    assert "authorization" in found["refused"].lower()


def test_one_experiments_credentials_do_not_touch_anothers_subjects(kubevo: Kubevo, namespace, two):
    theirs, mine = two["theirs"], two["mine"]
    subjects = {
        "publish": [
            names.result_subject(theirs, "r0.g0.population.s0.x.e0"),
            names.task_subject(theirs, "x"),
            f"$JS.API.STREAM.DELETE.{names.result_stream(theirs)}",
            f"$JS.API.STREAM.PURGE.{names.task_stream(mine)}",
        ],
        "subscribe": [names.result_subject(theirs, ">"), names.result_subject(mine, ">"), ">"],
    }
    secret = secret_of(kubevo, namespace, "mine")
    said = intrude(kubevo, namespace, "neighbour", subjects, secret)["said"]
    denied = "\n".join(said).lower()
    assert denied.count("permissions violation") == 7, said
    before = kubevo.generation("theirs", namespace)
    kubevo.reach("theirs", namespace, before + 2)


def test_namespaces_are_restricted(kubevo: Kubevo, namespace):
    for each in (SYSTEM, namespace):
        labels = kubevo.cluster.get("namespace", each)["metadata"]["labels"]
        assert RESTRICTED.items() <= labels.items()
