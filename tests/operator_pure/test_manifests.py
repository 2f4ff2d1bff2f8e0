"""The children: what exists in each mode, who owns it, and what a pod may not do."""

import base64
import itertools
import json
import re
from dataclasses import replace

import pytest

from kubevo_operator import manifests
from kubevo_operator.manifests import Broker, Owner

MODES = ["Operator", "Fixed", "KEDA", "HPA", "External"]
CREDENTIALS = "-----BEGIN NATS USER JWT-----\nabc\n"


def by_kind(children):
    return {child["kind"]: child for child in children}


@pytest.fixture
def build(owner, spec_of, defaults):
    def build(
        *, labels=None, replicas=2, credentials=CREDENTIALS, to=owner, defaults=defaults, **b
    ):
        made = manifests.children(to, spec_of(**b), labels or {}, defaults, replicas, credentials)
        return by_kind(made)

    return build


def pod_of(children):
    return children["Deployment"]["spec"]["template"]


def env_of(container):
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


@pytest.mark.parametrize("mode", MODES)
def test_a_child_either_must_exist_or_must_not(mode, owner, spec_of, defaults):
    spec = spec_of(scaling={"mode": mode})
    made = manifests.children(owner, spec, {}, defaults, 1, CREDENTIALS)
    there = {(c["apiVersion"], c["kind"], c["metadata"]["name"]) for c in made}
    gone = set(manifests.absent(owner, spec, defaults))
    assert not there & gone
    kinds = {kind for _, kind, _ in there | gone}
    assert kinds == {
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ScaledObject",
        "Secret",
    }


@pytest.mark.parametrize("mode", MODES)
def test_every_child_belongs_to_its_experiment(mode, build, owner):
    for child in build(scaling={"mode": mode}).values():
        [reference] = child["metadata"]["ownerReferences"]
        assert reference == {
            "apiVersion": "kubevo.dev/v1alpha1",
            "kind": "Experiment",
            "name": owner.name,
            "uid": owner.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
        assert child["metadata"]["namespace"] == owner.namespace
        assert child["metadata"]["labels"]["kubevo.dev/experiment"] == owner.name
        assert child["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "kubevo-operator"


def test_the_same_arguments_give_the_same_bytes(build):
    assert json.dumps(build()) == json.dumps(build())


@pytest.mark.parametrize("name", ["a", "my.run.v1", "x" * 52])
def test_every_name_and_label_is_one_that_kubernetes_takes(name, build):
    subdomain = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
    label = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
    children = build(to=Owner("lab", name, "1a2b"), scaling={"mode": "KEDA"})
    for child in children.values():
        # The controllers put the name of a ScaledObject into a label.
        assert len(child["metadata"]["name"]) <= 63
        assert subdomain.fullmatch(child["metadata"]["name"])
        for value in child["metadata"]["labels"].values():
            assert label.fullmatch(value)


def test_the_selector_is_name_and_instance_and_the_pods_have_it(build, owner):
    children = build(
        evaluator={
            "podTemplate": {
                "metadata": {"labels": {"app.kubernetes.io/instance": "other", "team": "a"}}
            }
        }
    )
    wanted = {
        "app.kubernetes.io/name": "kubevo-evaluator",
        "app.kubernetes.io/instance": "cartpole",
    }
    assert children["Deployment"]["spec"]["selector"] == {"matchLabels": wanted}
    assert children["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": wanted}
    labels = pod_of(children)["metadata"]["labels"]
    assert wanted.items() <= labels.items()
    assert labels["team"] == "a"
    assert manifests.selector_text(owner) == (
        "app.kubernetes.io/instance=cartpole,app.kubernetes.io/name=kubevo-evaluator"
    )


def test_a_pod_satisfies_the_restricted_profile(build):
    for evaluator in ({}, {"processesPerPod": 3}):
        spec = pod_of(build(evaluator=evaluator))["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not any("hostPath" in volume for volume in spec["volumes"])
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"name": "kubevo-tmp", "mountPath": "/tmp"} in container["volumeMounts"]
        assert "sizeLimit" in spec["volumes"][0]["emptyDir"]


def test_an_evaluator_is_told_where_its_work_is(build):
    [container] = pod_of(build())["spec"]["containers"]
    assert env_of(container) == {
        "KUBEVO_NATS_URL": "nats://broker:4222",
        "KUBEVO_EXPERIMENT_ID": "cartpole-1a2b3c4d000040008000000000000000",
        "KUBEVO_NATS_CREDENTIALS": "/var/run/kubevo/nats/user.creds",
        "KUBEVO_WORKER": {"fieldRef": {"fieldPath": "metadata.name"}},
        "KUBEVO_ACK_WAIT_SECONDS": "20",
        "KUBEVO_GRACE_SECONDS": "20",
    }
    assert container["image"] == "registry.test/evaluator:1"
    assert container["resources"] == {
        "requests": {"cpu": "1", "memory": "512Mi"},
        "limits": {"memory": "1Gi"},
    }


def test_the_grace_of_an_episode_follows_the_pods(build):
    template = {"spec": {"terminationGracePeriodSeconds": 120}}
    pod = pod_of(build(evaluator={"podTemplate": template}))["spec"]
    assert pod["terminationGracePeriodSeconds"] == 120
    assert env_of(pod["containers"][0])["KUBEVO_GRACE_SECONDS"] == "80"


def test_the_secret_holds_the_credentials_and_the_pod_mounts_them(build):
    children = build()
    secret = children["Secret"]
    assert base64.b64decode(secret["data"]["user.creds"]).decode() == CREDENTIALS
    volume = pod_of(children)["spec"]["volumes"][1]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"] == "cartpole-nats"


def test_new_credentials_make_new_pods_and_the_digest_tells_nothing(build):
    before, after = pod_of(build()), pod_of(build(credentials="other"))
    assert before["metadata"]["annotations"] != after["metadata"]["annotations"]
    assert CREDENTIALS not in json.dumps(before)


def test_a_token_and_an_authority_come_by_the_secret_and_never_by_the_manifest(build, defaults):
    shared = replace(defaults, nats_token="hidden", certificate_authority="PEM")
    children = build(credentials="", defaults=shared)
    [container] = pod_of(children)["spec"]["containers"]
    env = env_of(container)
    assert env["KUBEVO_NATS_TOKEN"] == {"secretKeyRef": {"name": "cartpole-nats", "key": "token"}}
    assert env["KUBEVO_NATS_TLS_CA"] == "/var/run/kubevo/nats/ca.crt"
    assert "KUBEVO_NATS_CREDENTIALS" not in env
    assert "hidden" not in json.dumps(children["Deployment"]) + repr(shared)
    items = pod_of(children)["spec"]["volumes"][1]["secret"]["items"]
    assert items == [{"key": "ca.crt", "path": "ca.crt"}]


def test_a_broker_without_secrets_needs_no_secret(build):
    children = build(credentials="")
    assert "Secret" not in children
    assert len(pod_of(children)["spec"]["volumes"]) == 1


def test_replicas_are_left_to_whoever_rules_them(build):
    assert "replicas" not in build(replicas=None)["Deployment"]["spec"]
    assert build(replicas=0)["Deployment"]["spec"]["replicas"] == 0


def test_several_processes_are_equal_containers_with_names_of_their_own(build):
    pod = pod_of(build(evaluator={"resources": {"limits": {"cpu": "3500m", "memory": "3Gi"}}}))
    containers = pod["spec"]["containers"]
    assert [c["name"] for c in containers] == ["evaluator", "evaluator-1", "evaluator-2"]
    assert [c["resources"]["limits"]["cpu"] for c in containers] == ["1167m", "1167m", "1166m"]
    workers = [env_of(c)["KUBEVO_WORKER"] for c in containers]
    assert workers == [f"$(KUBEVO_POD)-{i}" for i in range(3)]
    # A variable can only name one that stands before it.
    assert [item["name"] for item in containers[0]["env"]][:2] == ["KUBEVO_POD", "KUBEVO_WORKER"]


def test_a_queue_label_of_the_experiment_or_the_template_reaches_the_pods(build):
    queue = {"kueue.x-k8s.io/queue-name": "gpu"}
    template = {"podTemplate": {"metadata": {"labels": queue}}}
    for children in (build(labels=queue | {"team": "a"}), build(evaluator=template)):
        assert queue.items() <= children["Deployment"]["metadata"]["labels"].items()
        assert queue.items() <= pod_of(children)["metadata"]["labels"].items()
        assert "team" not in pod_of(children)["metadata"]["labels"]


def test_pods_may_reach_name_servers_and_the_broker_only(build, defaults):
    broker = Broker((4222,), {"app": "nats"}, "kubevo")
    policy = build(defaults=replace(defaults, broker=broker))["NetworkPolicy"]["spec"]
    assert policy["ingress"] == []
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    names, to_broker = policy["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert to_broker["ports"] == [{"protocol": "TCP", "port": 4222}]
    [peer] = to_broker["to"]
    assert peer["podSelector"] == {"matchLabels": {"app": "nats"}}
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kubevo"}}


def test_an_operator_without_network_policies_removes_the_old_ones(build, owner, spec_of, defaults):
    shared = replace(defaults, network_policies=False)
    assert "NetworkPolicy" not in build(defaults=shared)
    wanted = ("networking.k8s.io/v1", "NetworkPolicy", "cartpole-evaluator")
    assert wanted in manifests.absent(owner, spec_of(), shared)


def test_keda_follows_the_experiments_own_queue(build, defaults):
    shared = replace(defaults, nats_monitoring="broker:8222", nats_account="A" + "B" * 55)
    scaling = {"mode": "KEDA", "min": 1, "max": 20, "tasksPerReplica": 5, "idleSeconds": 90}
    spec = build(defaults=shared, replicas=None, scaling=scaling, evaluator={"processesPerPod": 2})[
        "ScaledObject"
    ]["spec"]
    [trigger] = spec["triggers"]
    assert trigger["metadata"]["stream"] == "T_cartpole-1a2b3c4d000040008000000000000000"
    assert trigger["metadata"]["consumer"] == "eval-0"
    assert trigger["metadata"]["lagThreshold"] == "10"
    assert trigger["metadata"]["account"] == shared.nats_account
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    bounds = (spec["minReplicaCount"], spec["maxReplicaCount"], spec["cooldownPeriod"])
    assert bounds == (1, 20, 90)


def test_keda_is_paused_at_zero_when_nobody_is_wanted(build):
    paused = build(replicas=0, scaling={"mode": "KEDA", "min": 3})
    assert paused["ScaledObject"]["metadata"]["annotations"] == {
        "autoscaling.keda.sh/paused-replicas": "0"
    }
    assert paused["ScaledObject"]["spec"]["minReplicaCount"] == 0
    assert paused["Deployment"]["spec"]["replicas"] == 0
    running = build(replicas=None, scaling={"mode": "KEDA", "min": 3})
    assert "annotations" not in running["ScaledObject"]["metadata"]


def test_an_autoscaler_keeps_one_pod_and_goes_down_after_the_window(build):
    scaling = {"mode": "HPA", "max": 7, "scaleDownStabilizationSeconds": 400}
    spec = build(replicas=None, scaling=scaling)["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 7)
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 400
    assert spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0


def test_two_experiments_of_a_namespace_share_no_child(build):
    one = build(to=Owner("lab", "one", "1" * 8), scaling={"mode": "KEDA"})
    two = build(to=Owner("lab", "two", "2" * 8), scaling={"mode": "KEDA"})
    for a, b in itertools.product(one.values(), two.values()):
        assert (a["kind"], a["metadata"]["name"]) != (b["kind"], b["metadata"]["name"])


@pytest.mark.parametrize("mode", ["Operator", "HPA"])
def test_every_field_is_one_that_the_api_has(mode, build, defaults):
    from kubernetes import client  # slow to import, and only a dictionary of the API here

    shared = replace(defaults, broker=Broker((1,), {"a": "b"}, "n"), nats_token="t")
    shared = replace(shared, certificate_authority="c", image_pull_secrets=("s",))
    api = client.ApiClient()
    models = {
        "Secret": "V1Secret",
        "Deployment": "V1Deployment",
        "PodDisruptionBudget": "V1PodDisruptionBudget",
        "NetworkPolicy": "V1NetworkPolicy",
        "HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler",
    }
    for kind, child in build(
        scaling={"mode": mode}, evaluator={"processesPerPod": 2}, defaults=shared
    ).items():
        read = api.sanitize_for_serialization(
            api.deserialize(json.dumps(child), models[kind], None)
        )
        assert read == child
