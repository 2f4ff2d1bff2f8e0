"""One Experiment's children as plain dicts, ready for server-side apply.

Pure: the same arguments give the same documents, and a document names only the fields that the
operator wants to own. Names are deterministic, every child belongs to its Experiment. `children` is
what must exist in the spec's scaling mode, `absent` what must not.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubevo_core import names
from kubevo_core.spec import API_VERSION, ExperimentSpec
from kubevo_operator.defaults import Broker, Defaults
from kubevo_operator.pods import AUTHORITY, CREDENTIALS, TOKEN, pod_spec
from kubevo_operator.resources import processes_per_pod

__all__ = [
    "EXPERIMENT_LABEL",
    "Broker",
    "Defaults",
    "Owner",
    "absent",
    "children",
    "evaluator_name",
    "processes_per_pod",
    "secret_name",
    "selector",
    "selector_text",
]

Document = dict[str, Any]
EXPERIMENT_LABEL = "kubevo.dev/experiment"
QUEUE_LABELS = "kueue.x-k8s.io/"
PAUSED = "autoscaling.keda.sh/paused-replicas"
CREDENTIALS_DIGEST = "kubevo.dev/credentials"
PROGRESS_SECONDS = 600
POLLING_SECONDS = 10
CPU_PERCENT = 60
SCALED_OBJECT = ("keda.sh/v1alpha1", "ScaledObject")
AUTOSCALER = ("autoscaling/v2", "HorizontalPodAutoscaler")
NETWORK_POLICY = ("networking.k8s.io/v1", "NetworkPolicy")


@dataclass(frozen=True)
class Owner:
    """The Experiment that the children belong to."""

    namespace: str
    name: str
    uid: str


def evaluator_name(owner: Owner) -> str:
    """Return the name of an Experiment's Deployment, and of what is about it."""
    return f"{owner.name}-evaluator"


def secret_name(owner: Owner) -> str:
    """Return the name of the Secret that its evaluators reach the broker with."""
    return f"{owner.name}-nats"


def selector(owner: Owner) -> dict[str, str]:
    """Return the labels that select an Experiment's evaluator pods; they never change."""
    return {"app.kubernetes.io/name": "kubevo-evaluator", "app.kubernetes.io/instance": owner.name}


def selector_text(owner: Owner) -> str:
    """Return the selector as the scale subresource and ``kubectl get -l`` take it."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector(owner).items()))


def children(
    owner: Owner,
    spec: ExperimentSpec,
    labels: Mapping[str, str],
    defaults: Defaults,
    replicas: int | None,
    credentials: str,
) -> tuple[Document, ...]:
    """Return what must exist; ``labels`` are the Experiment's, ``credentials`` a creds text.

    ``replicas`` None leaves the number of pods to whoever rules it, 0 ends them in every mode: what
    the operator says of it is then a field that it owns, and gives back with the next None.
    """
    secret = _secret(owner, defaults, credentials)
    found = [
        *([secret] if secret["data"] else []),
        _deployment(owner, spec, labels, defaults, replicas, secret),
        _disruption_budget(owner),
        *([_network_policy(owner, defaults.broker)] if defaults.network_policies else []),
    ]
    if spec.scaling.mode == "KEDA":
        found.append(_scaled_object(owner, spec, defaults, is_paused=replicas == 0))
    if spec.scaling.mode == "HPA":
        found.append(_autoscaler(owner, spec))
    return tuple(found)


def absent(
    owner: Owner, spec: ExperimentSpec, defaults: Defaults | None = None
) -> tuple[tuple[str, str, str], ...]:
    """Return (apiVersion, kind, name) of what must not exist in the spec's scaling mode."""
    name, mode = evaluator_name(owner), spec.scaling.mode
    found = []
    if mode != "KEDA":
        found.append((*SCALED_OBJECT, name))
    if mode != "HPA":
        found.append((*AUTOSCALER, name))
    if defaults is not None and not defaults.network_policies:
        found.append((*NETWORK_POLICY, name))
    return tuple(found)


def _metadata(owner: Owner, name: str) -> Document:
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": _labels(owner),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "Experiment",
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _labels(owner: Owner) -> dict[str, str]:
    return selector(owner) | {
        "app.kubernetes.io/component": "evaluator",
        "app.kubernetes.io/part-of": "kubevo",
        "app.kubernetes.io/managed-by": "kubevo-operator",
        EXPERIMENT_LABEL: owner.name,
    }


def _secret(owner: Owner, defaults: Defaults, credentials: str) -> Document:
    texts = {
        CREDENTIALS: credentials,
        AUTHORITY: defaults.certificate_authority,
        TOKEN: defaults.nats_token or "",
    }
    # `data`, not `stringData`: server-side apply can own and compare only what is stored.
    data = {key: base64.b64encode(t.encode()).decode() for key, t in texts.items() if t}
    metadata = _metadata(owner, secret_name(owner))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "immutable": False,
        "data": data,
    }


def _deployment(
    owner: Owner,
    spec: ExperimentSpec,
    labels: Mapping[str, str],
    defaults: Defaults,
    replicas: int | None,
    secret: Document,
) -> Document:
    template = spec.evaluator.pod_template
    queue = {
        key: value
        for key, value in {**labels, **template.metadata.labels}.items()
        if key.startswith(QUEUE_LABELS)
    }
    metadata = _metadata(owner, evaluator_name(owner))
    metadata["labels"] |= queue
    annotations = dict(template.metadata.annotations)
    if CREDENTIALS in secret["data"]:
        # New credentials reach the processes only with new pods. A digest of a long random key
        # tells nothing; a token may be short, and is left out.
        digest = hashlib.sha256(secret["data"][CREDENTIALS].encode()).hexdigest()
        annotations[CREDENTIALS_DIGEST] = digest[:16]
    pod_metadata: Document = {"labels": {**queue, **template.metadata.labels, **_labels(owner)}}
    if annotations:
        pod_metadata["annotations"] = annotations
    identifier = names.experiment_id(owner.name, owner.uid)
    pods = pod_spec(spec.evaluator, defaults, identifier, secret, selector(owner))
    body: Document = {} if replicas is None else {"replicas": replicas}
    body |= {
        "selector": {"matchLabels": selector(owner)},
        # A new pod would find no room in a full namespace, so old ones go first.
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": "50%", "maxSurge": 0},
        },
        "minReadySeconds": 0,
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": PROGRESS_SECONDS,
        "template": {"metadata": pod_metadata, "spec": pods},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": body}


def _disruption_budget(owner: Owner) -> Document:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(owner, evaluator_name(owner)),
        "spec": {
            "maxUnavailable": "50%",
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(owner)},
        },
    }


def _network_policy(owner: Owner, broker: Broker) -> Document:
    """Allow nothing in, and out only to name servers and to the broker."""
    to_broker: Document = {"ports": [{"protocol": "TCP", "port": port} for port in broker.ports]}
    if broker.labels:
        namespaces = {"kubernetes.io/metadata.name": broker.namespace}
        to_broker["to"] = [
            {
                "namespaceSelector": {"matchLabels": namespaces} if broker.namespace else {},
                "podSelector": {"matchLabels": dict(broker.labels)},
            }
        ]
    # A name server may be a pod, or a node's own address that no selector can name.
    to_names = {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}
    return {
        "apiVersion": NETWORK_POLICY[0],
        "kind": NETWORK_POLICY[1],
        "metadata": _metadata(owner, evaluator_name(owner)),
        "spec": {
            "podSelector": {"matchLabels": selector(owner)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [to_names, to_broker],
        },
    }


def _scaled_object(
    owner: Owner, spec: ExperimentSpec, defaults: Defaults, *, is_paused: bool
) -> Document:
    """Let KEDA (2.20 or newer) follow the queue; it must exist after its stream and consumer."""
    scaling, experiment = spec.scaling, names.experiment_id(owner.name, owner.uid)
    metadata = _metadata(owner, evaluator_name(owner))
    if is_paused:
        metadata["annotations"] = {PAUSED: "0"}
    account = {"account": defaults.nats_account}
    if not defaults.nats_account.startswith("$"):
        account["accountID"] = defaults.nats_account
    threshold = scaling.tasks_per_replica * processes_per_pod(spec.evaluator)
    return {
        "apiVersion": SCALED_OBJECT[0],
        "kind": SCALED_OBJECT[1],
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": _target(owner),
            "minReplicaCount": 0 if is_paused else scaling.min,
            "maxReplicaCount": scaling.max,
            "pollingInterval": POLLING_SECONDS,
            "cooldownPeriod": scaling.idle_seconds,
            "fallback": {
                "failureThreshold": 3,
                "replicas": max(1, scaling.min),
                "behavior": "currentReplicasIfHigher",
            },
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(spec)}},
            "triggers": [
                {
                    "type": "nats-jetstream",
                    "metadata": account
                    | {
                        "natsServerMonitoringEndpoint": defaults.nats_monitoring,
                        "stream": names.task_stream(experiment),
                        "consumer": names.CONSUMER,
                        "lagThreshold": str(threshold),
                        "activationLagThreshold": "0",
                    },
                }
            ],
        },
    }


def _autoscaler(owner: Owner, spec: ExperimentSpec) -> Document:
    """Scale by CPU, the one metric that every cluster has: evaluators that wait use none.

    It cannot go to zero; on suspend and at the end the operator sets the Deployment to zero, which
    an autoscaler leaves alone.
    """
    return {
        "apiVersion": AUTOSCALER[0],
        "kind": AUTOSCALER[1],
        "metadata": _metadata(owner, evaluator_name(owner)),
        "spec": {
            "scaleTargetRef": _target(owner),
            "minReplicas": max(1, spec.scaling.min),
            "maxReplicas": spec.scaling.max,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": CPU_PERCENT},
                    },
                }
            ],
            "behavior": _behavior(spec),
        },
    }


def _target(owner: Owner) -> Document:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": evaluator_name(owner)}


def _behavior(spec: ExperimentSpec) -> Document:
    """Return what autoscalers know of our law: up at once, down only after a window."""
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": spec.scaling.scale_down_stabilization_seconds,
            "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
        },
    }
