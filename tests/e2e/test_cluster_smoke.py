"""The cluster itself: pods, Services by name, volumes, PodSecurity, evictions and the kernel's kills."""

import socket
import ssl
import urllib.request

import pytest
from cluster_access import Cluster
from cluster_commands import CommandFailed

PORT = 8080
LABELS = {"app": "web"}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def container(image, script, **more):
    command = ["/bin/sh", "-c", script]
    return {
        "name": "main",
        "image": image,
        "command": command,
        "securityContext": RESTRICTED,
        **more,
    }


def pod(name, image, script, **more):
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [container(image, script, **more)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def web(image, replicas=2):
    """Return a volume's claim, a web server on it, and its Service."""
    server = container(
        image,
        f"echo $HOSTNAME >> /data/served; exec httpd -f -v -p {PORT} -h /data",
        ports=[{"containerPort": PORT}],
        readinessProbe={
            "httpGet": {"path": "/served", "port": PORT},
            "periodSeconds": 1,
        },
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
    )
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    # The volume is for one node.
    same_node = {"labelSelector": {"matchLabels": LABELS}, "topologyKey": "kubernetes.io/hostname"}
    spec = {
        "affinity": {
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [same_node]}
        },
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"fsGroup": 65532},
        "containers": [server],
        "volumes": [volume],
    }
    template = {"metadata": {"labels": LABELS}, "spec": spec}
    return (
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "10Mi"}},
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": LABELS},
                "template": template,
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": LABELS, "ports": [{"port": 80, "targetPort": PORT}]},
        },
    )


def serve(cluster: Cluster, namespace, busybox):
    cluster.apply(*web(busybox), namespace=namespace)
    cluster.wait("deploy/web", "condition=Available", namespace=namespace)


def names(cluster: Cluster, namespace):
    return {each["metadata"]["name"] for each in cluster.pods("app=web", namespace)}


def test_restricted_pods_serve_by_name_share_a_volume_and_are_seen_into(
    cluster: Cluster, namespace, busybox
):
    serve(cluster, namespace, busybox)
    written = cluster.exec("deploy/web", "cat", "/data/served", namespace=namespace)
    assert set(written.split()) == names(cluster, namespace)

    url = f"http://web.{namespace}.svc.cluster.local/served"
    script = f"wget -q -O - http://web/served && wget -q -O - {url}"
    cluster.apply(pod("client", busybox, script), namespace=namespace)
    cluster.wait("pod/client", "jsonpath={.status.phase}=Succeeded", namespace=namespace)
    assert cluster.logs("client", namespace=namespace) == 2 * written
    client = cluster.get("pod", "client", namespace=namespace)["status"]["podIP"]
    logs = [cluster.logs(name, namespace=namespace) for name in names(cluster, namespace)]
    assert any(client in log for log in logs)

    with (
        cluster.forward("web", 80, namespace=namespace) as address,
        urllib.request.urlopen(f"http://{address}/served", timeout=10) as answer,
    ):
        assert answer.read().decode() == written


def test_the_api_server_is_reached_and_trusted_by_its_services_name(
    cluster: Cluster, namespace, busybox
):
    # It answers plain HTTP with an error, which shows the way from a pod; busybox checks no certificate.
    script = "wget -O - http://kubernetes.default.svc:443/ 2>&1; true"
    cluster.apply(pod("client", busybox, script), namespace=namespace)
    cluster.wait("pod/client", "jsonpath={.status.phase}=Succeeded", namespace=namespace)
    assert "400 Bad Request" in cluster.logs("client", namespace=namespace)
    if cluster.layout is None:
        pytest.skip("Service addresses are reached from here only on our own node")
    authorities = cluster.get("configmap", "kube-root-ca.crt", namespace=namespace)
    context = ssl.create_default_context(cadata=authorities["data"]["ca.crt"])
    address = cluster.get("service", "kubernetes", namespace="default")["spec"]["clusterIP"]
    with (
        socket.create_connection((address, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="kubernetes.default.svc") as secured,
    ):
        assert ("DNS", "kubernetes.default.svc") in secured.getpeercert()["subjectAltName"]


def test_a_volume_outlives_its_pods_and_goes_with_its_claim(cluster: Cluster, namespace, busybox):
    serve(cluster, namespace, busybox)
    first = names(cluster, namespace)
    for name in first:
        cluster.delete_pod(name, namespace=namespace)
    cluster.wait("deploy/web", "condition=Available", namespace=namespace)
    served = cluster.exec("deploy/web", "cat", "/data/served", namespace=namespace).split()
    assert first < set(served)
    volume = cluster.get("pvc", "data", namespace=namespace)["spec"]["volumeName"]
    cluster.kubectl("delete", "deploy/web", "pvc/data", namespace=namespace)
    cluster.wait(f"pv/{volume}", "delete", namespace=namespace)


def test_a_pod_that_is_not_restricted_is_refused(cluster: Cluster, namespace, busybox):
    bare = pod("bare", busybox, "true")
    del bare["spec"]["containers"][0]["securityContext"]
    with pytest.raises(CommandFailed, match='violates PodSecurity "restricted'):
        cluster.apply(bare, namespace=namespace)


def test_an_eviction_waits_for_the_disruption_budget(cluster: Cluster, namespace, busybox):
    serve(cluster, namespace, busybox)
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": LABELS}},
    }
    cluster.apply(budget, namespace=namespace)
    before = names(cluster, namespace)
    cluster.wait("pdb/web", "jsonpath={.status.currentHealthy}=2", namespace=namespace)
    with pytest.raises(CommandFailed, match="disruption budget"):
        cluster.evict(min(before), namespace=namespace)
    budget["spec"]["minAvailable"] = 1
    cluster.apply(budget, namespace=namespace)
    cluster.wait("pdb/web", "jsonpath={.status.disruptionsAllowed}=1", namespace=namespace)
    cluster.evict(min(before), namespace=namespace)
    cluster.until("another pod", lambda: len(names(cluster, namespace) - before) == 1)
    assert max(before) in names(cluster, namespace)


def test_a_drained_nodes_pods_come_back_after_it(cluster: Cluster, namespace, busybox):
    serve(cluster, namespace, busybox)
    before = names(cluster, namespace)
    with cluster.drain("app=web", namespace=namespace) as (node,):
        assert cluster.get("node", node)["spec"]["unschedulable"]
    cluster.wait("deploy/web", "condition=Available", namespace=namespace)
    assert not names(cluster, namespace) & before


def test_a_container_beyond_its_memory_is_killed_and_the_status_says_so(
    cluster: Cluster, namespace, busybox
):
    resources = {"limits": {"memory": "32Mi"}}
    eater = pod("eater", busybox, "exec tail /dev/zero", resources=resources)
    cluster.apply(eater, namespace=namespace)
    cluster.wait("pod/eater", "jsonpath={.status.phase}=Failed", namespace=namespace)
    status = cluster.get("pod", "eater", namespace=namespace)["status"]
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_container_whose_memory_is_exhausted_starts_again(cluster: Cluster, namespace, busybox):
    limits = {"limits": {"memory": "64Mi"}}
    large = "held=$(head -c 12000000 /dev/zero | tr '\\0' x); sleep 3600; echo $held"
    victim = pod("victim", busybox, large, resources=limits)
    victim["spec"]["restartPolicy"] = "Always"
    cluster.apply(victim, namespace=namespace)
    resident = ("sh", "-c", "grep -q 'VmRSS:[^0-9]*[0-9]\\{5\\}' /proc/1/status && echo large")
    cluster.until(
        "the memory is held", lambda: cluster.exec("victim", *resident, namespace=namespace)
    )
    cluster.exhaust_memory("victim", namespace=namespace)

    def restarted():
        status = cluster.get("pod", "victim", namespace=namespace)["status"]["containerStatuses"][0]
        return status if status["restartCount"] and status["ready"] else None

    status = cluster.until("the restart", restarted)
    assert status["lastState"]["terminated"]["reason"] == "OOMKilled"
