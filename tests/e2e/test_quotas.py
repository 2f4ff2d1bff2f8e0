"""Two Experiments of two namespaces: one fills what it may have, and stops alone, with a reason."""

import json
import os
from pathlib import Path

import pytest
from product import BROKER, SYSTEM, Kubevo, cartpole, digests, experiment, genetic

from kubevo_core import names

FLOOD = (Path(__file__).parent / "in_pods/flood.py").read_text()


@pytest.fixture
def neighbour(kubevo: Kubevo, installed):
    """Return another namespace, with a search that goes on and on."""
    name = f"e2e-{os.urandom(4).hex()}"
    kubevo.namespace(name)
    yield name
    kubevo.cluster.kubectl("delete", "namespace", name, "--wait=false")


def goes_on(kubevo: Kubevo, namespace):
    kubevo.reach("other", namespace, kubevo.generation("other", namespace) + 2)
    assert kubevo.condition("other", namespace, "Ready")["status"] == "True"


def stops_alone(kubevo: Kubevo, namespace, reason):
    def is_told():
        found = kubevo.condition("greedy", namespace, "Ready")
        return found["status"] == "False" and found["reason"] == reason

    kubevo.cluster.until(f"greedy is not Ready: {reason}", is_told, seconds=240)


def test_the_volume(kubevo: Kubevo, namespace, neighbour, laptop):
    kubevo.apply(experiment("other", cartpole(100_000, scaling={"max": 1})), neighbour)
    changes = {
        # Large checkpoints of short episodes, so that a MiB is full in a minute.
        "environment": {"id": "CartPole-v1", "maxEpisodeSteps": 5},
        "algorithm": genetic(populationSize=400, eliteCandidates=2, eliteEpisodes=1),
        "scaling": {"max": 1},
    }
    checkpoint = {"keepLast": 1000, "quotaMebibytes": 1}
    greedy = experiment("greedy", cartpole(100_000, checkpoint=checkpoint, **changes))
    kubevo.apply(greedy, namespace)
    stops_alone(kubevo, namespace, "VolumeFull")
    assert "quota" in kubevo.condition("greedy", namespace, "Ready")["message"]
    goes_on(kubevo, neighbour)
    # and with more room it goes on, to the same bytes as one that always had it
    more = {"quotaMebibytes": 100}
    status, generations = kubevo.end("greedy", namespace, checkpoint=more)
    assert digests(status) == laptop.digests(experiment("greedy", cartpole(generations, **changes)))


def test_the_broker(kubevo: Kubevo, namespace, neighbour, laptop):
    kubevo.apply(experiment("other", cartpole(100_000, scaling={"max": 1})), neighbour)
    alone = {"scaling": {"max": 1}}
    kubevo.apply(experiment("greedy", cartpole(100_000, **alone)), namespace)
    kubevo.reach("greedy", namespace, 1)
    (pod,) = kubevo.evaluators("greedy", namespace)
    environment = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
    uid = kubevo.get("greedy", namespace)["metadata"]["uid"]
    identifier = names.experiment_id("greedy", uid)
    inbox, subject = f"_INBOX_{identifier}", names.result_subject(identifier, "junk")
    broker = (environment["KUBEVO_NATS_URL"], environment["KUBEVO_NATS_CREDENTIALS"])
    command = ("python", "-c", FLOOD, *broker, inbox, subject)
    said = kubevo.cluster.exec(pod["metadata"]["name"], *command, namespace=namespace)
    assert "maximum bytes" in said
    stops_alone(kubevo, namespace, "BrokerFull")
    goes_on(kubevo, neighbour)
    # it is emptied, and the search goes on to the same bytes
    status, generations = kubevo.end("greedy", namespace)
    assert digests(status) == laptop.digests(experiment("greedy", cartpole(generations, **alone)))


def test_streams_that_the_broker_has_no_room_for(kubevo: Kubevo, namespace, neighbour):
    kubevo.apply(experiment("other", cartpole(100_000, scaling={"max": 1})), neighbour)
    large = genetic(populationSize=90_000, episodesPerEvaluation=3)
    kubevo.apply(experiment("greedy", cartpole(3, algorithm=large, repeats=32)), namespace)
    stops_alone(kubevo, namespace, "BrokerFull")
    goes_on(kubevo, neighbour)
    assert kubevo.cluster.pods(BROKER, SYSTEM)
    assert json.dumps(kubevo.condition("greedy", namespace, "Ready")).count("has no room")
