"""The evaluator pods: one container a process, locked down, with what a person adds merged in.

Pure. An evaluator is one single-threaded process, so a pod of several has several equal containers:
each is restarted by itself, and its exit code and last words are its own in the pod's status.
"""

from collections.abc import Mapping
from typing import Any

from kubevo_core.spec import Evaluator
from kubevo_operator.defaults import Defaults
from kubevo_operator.evaluators import EVALUATOR
from kubevo_operator.pod_template import merge_pod_spec
from kubevo_operator.resources import processes_per_pod, shares

__all__ = ["AUTHORITY", "CREDENTIALS", "FOLDER", "GRACE_SECONDS", "TOKEN", "pod_spec"]

Document = dict[str, Any]
# Keys of the Secret, which are names of files in the folder where it is mounted.
CREDENTIALS = "user.creds"
AUTHORITY = "ca.crt"
TOKEN = "token"  # noqa: S105 - a name
FOLDER = "/var/run/kubevo/nats"
USER = 10001
GRACE_SECONDS = 30
TEMPORARY_BYTES = "256Mi"


def pod_spec(
    evaluator: Evaluator,
    defaults: Defaults,
    experiment: str,
    secret: Document,
    selector: Mapping[str, str],
) -> Document:
    """Return the spec of an Experiment's pods; ``experiment`` is its id on the broker."""
    processes = processes_per_pod(evaluator)
    added = evaluator.pod_template.spec
    grace = added.get("terminationGracePeriodSeconds")
    grace = grace if isinstance(grace, int) and grace > 0 else GRACE_SECONDS
    containers = [
        _container(evaluator, defaults, experiment, secret, index, processes, grace)
        for index in range(processes)
    ]
    for container, resources in zip(containers, shares(evaluator, processes), strict=True):
        container["resources"] = resources
    ours: Document = {
        "containers": containers,
        "volumes": _volumes(secret),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": dict(selector)},
            }
        ],
    }
    if defaults.image_pull_secrets:
        ours["imagePullSecrets"] = [{"name": name} for name in defaults.image_pull_secrets]
    return merge_pod_spec(ours, added)


def _container(
    evaluator: Evaluator,
    defaults: Defaults,
    experiment: str,
    secret: Document,
    index: int,
    processes: int,
    grace_seconds: int,
) -> Document:
    mounts: list[Document] = [{"name": "kubevo-tmp", "mountPath": "/tmp"}]  # noqa: S108 - a mount
    if _files(secret):
        mounts.append({"name": "kubevo-nats", "mountPath": FOLDER, "readOnly": True})
    return {
        "name": f"{EVALUATOR}-{index}" if index else EVALUATOR,
        "image": evaluator.image or defaults.image,
        "imagePullPolicy": defaults.image_pull_policy,
        "env": _environment(defaults, experiment, secret, index, processes, grace_seconds),
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # So that a crash tells why in the pod's status, where `evaluators.look` finds it.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _environment(
    defaults: Defaults,
    experiment: str,
    secret: Document,
    index: int,
    processes: int,
    grace_seconds: int,
) -> list[Document]:
    pod = {"fieldRef": {"fieldPath": "metadata.name"}}
    # Two different workers must confirm a failure, so each process has a name of its own.
    worker: list[Document] = [{"name": "KUBEVO_WORKER", "valueFrom": pod}]
    if processes > 1:
        worker = [
            {"name": "KUBEVO_POD", "valueFrom": pod},
            {"name": "KUBEVO_WORKER", "value": f"$(KUBEVO_POD)-{index}"},
        ]
    values = {
        "KUBEVO_NATS_URL": defaults.nats_url,
        "KUBEVO_EXPERIMENT_ID": experiment,
        "KUBEVO_ACK_WAIT_SECONDS": f"{defaults.ack_wait_seconds:g}",
        # An episode may finish in two thirds of the pod's grace; the rest is for the way out.
        "KUBEVO_GRACE_SECONDS": str(max(1, grace_seconds * 2 // 3)),
    }
    files = {CREDENTIALS: "KUBEVO_NATS_CREDENTIALS", AUTHORITY: "KUBEVO_NATS_TLS_CA"}
    values |= {files[key]: f"{FOLDER}/{key}" for key in _files(secret)}
    found = worker + [{"name": name, "value": value} for name, value in values.items()]
    if TOKEN in secret["data"]:
        reference = {"name": secret["metadata"]["name"], "key": TOKEN}
        found.append({"name": "KUBEVO_NATS_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    return found


def _files(secret: Document) -> list[str]:
    return [key for key in (CREDENTIALS, AUTHORITY) if key in secret["data"]]


def _volumes(secret: Document) -> list[Document]:
    found: list[Document] = [{"name": "kubevo-tmp", "emptyDir": {"sizeLimit": TEMPORARY_BYTES}}]
    if _files(secret):
        items = [{"key": key, "path": key} for key in _files(secret)]
        source = {"secretName": secret["metadata"]["name"], "items": items, "defaultMode": 0o440}
        found.append({"name": "kubevo-nats", "secret": source})
    return found
