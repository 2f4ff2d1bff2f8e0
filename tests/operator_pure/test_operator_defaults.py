"""What the operator's settings mean for the evaluators: where the broker is, above all."""

import pytest

from kubevo_operator.defaults import Defaults
from kubevo_operator.settings import OperatorSettings


def defaults_for(url, **environment):
    settings = OperatorSettings.from_environment(
        {
            "KUBEVO_NATS_URL": url,
            "KUBEVO_DATA": "/data",
            "KUBEVO_EVALUATOR_IMAGE": "evaluator:1",
            "KUBEVO_NAMESPACE": "home",
            **environment,
        }
    )
    return Defaults.of(settings, "A" * 56)


@pytest.mark.parametrize(
    ("url", "namespace", "ports"),
    [
        ("nats://kubevo-nats:4222", "home", (4222,)),
        ("tls://kubevo-nats.messaging:4333", "messaging", (4333,)),
        ("nats://kubevo-nats.messaging.svc.cluster.local", "messaging", (4222,)),
        ("nats://a.messaging.svc:1,nats://b.messaging.svc:2", "messaging", (1, 2)),
    ],
)
def test_the_brokers_pods_are_known_by_its_service(url, namespace, ports):
    broker = defaults_for(url).broker
    assert broker.namespace == namespace
    assert broker.ports == ports
    assert broker.labels == {"app.kubernetes.io/name": "kubevo-nats"}


@pytest.mark.parametrize("url", ["nats://10.0.0.7:4222", "nats://broker.example.com:4222"])
def test_of_a_broker_outside_only_the_port_is_known(url):
    broker = defaults_for(url).broker
    assert (broker.labels, broker.ports) == ({}, (4222,))


def test_of_a_broker_that_others_rule_only_the_port_is_known():
    found = defaults_for("nats://kubevo-nats:4222", KUBEVO_NATS_TOKEN="hidden")
    assert found.broker.labels == {}
    assert "hidden" not in repr(found)


def test_evaluators_may_reach_the_broker_by_another_address():
    found = defaults_for("nats://x:1", KUBEVO_EVALUATOR_NATS_URL="nats://nats.home:2")
    assert found.nats_url == "nats://nats.home:2"
    assert found.broker.ports == (2,)
