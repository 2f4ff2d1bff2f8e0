"""The installed product as its users meet it: the README's commands, Experiments, the service, a laptop.

One release in `kubevo-system` serves a session's tests; whoever takes it away installs it again.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster_access import Cluster
from cluster_commands import Document
from http_of_tests import Answer, ask

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "kubevo"
SYSTEM, RELEASE = "kubevo-system", "kubevo"
IMAGES = ("kubevo-operator", "kubevo-evaluator", "kubevo-nats")
OPERATOR = "app.kubernetes.io/name=kubevo,app.kubernetes.io/component=operator"
RELEASED = "app.kubernetes.io/instance=kubevo"
BROKER = "kubevo.dev/broker=kubevo"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
AUDIENCE = "kubevo-api"
DIGESTS = ("populationDigest", "resultDigest")


def quick_start() -> list[str]:
    """Return the README's commands for a cluster, as they are printed there."""
    section = (ROOT / "README.md").read_text().partition("\n## On Kubernetes\n")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    lines = block[1].replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := line.partition(" #")[0].strip())]


def experiment(name: str, spec: Document, **metadata: Any) -> Document:
    """Return an Experiment."""
    return {
        "apiVersion": "kubevo.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


# So that two fit on a node of two cores, beside all that is kubevo's and Kubernetes' own.
SMALL = {
    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "640Mi"}}
}


def genetic(**changes: Any) -> Document:
    """Return a small algorithm."""
    block = {
        "populationSize": 24,
        "parents": 6,
        "mutationPower": "0.1",
        "eliteCandidates": 3,
        "eliteEpisodes": 4,
        "testEpisodes": 4,
    }
    return {"type": "GeneticAlgorithm", "geneticAlgorithm": {**block, **changes}}


def cartpole(generations: int, **changes: Any) -> Document:
    """Return the spec of a search that takes a second a generation."""
    return {
        "seed": 7,
        "environment": {"id": "CartPole-v1"},
        "policy": {"network": "mlp", "hiddenLayers": [16]},
        "algorithm": genetic(),
        "budget": {"maxGenerations": generations},
        "evaluator": SMALL,
        **changes,
    }


def pong(generations: int, **changes: Any) -> Document:
    """Return the spec of a search from pixels that keeps two evaluators busy for a while."""
    return {
        "seed": 11,
        "environment": {"id": "ALE/Pong-v5", "maxEpisodeSteps": 150},
        "policy": {"network": "dqn"},
        "algorithm": genetic(populationSize=12, eliteCandidates=2, eliteEpisodes=2, testEpisodes=2),
        "budget": {"maxGenerations": generations},
        "evaluator": SMALL,
        "scaling": {"min": 2, "max": 2},
        **changes,
    }


class Laptop:
    """The `kubevo` command on this machine, in a folder of its own."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        for name in ("KUBEVO_SERVICE", "KUBEVO_TOKEN"):
            self._environment.pop(name, None)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "kubevo_cli", *map(str, arguments)],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """Run a command to its end and return what it prints."""
        process = self.start(*arguments)
        out, err = process.communicate()
        assert process.returncode == code, f"kubevo {arguments}: {process.returncode}\n{err}{out}"
        return out

    def digests(self, found: Document, data: str = "") -> Document:
        """Return the digests of the same search, run here; without ``data`` in a folder of its own."""
        file = self.folder / f"{found['metadata']['name']}-{time.monotonic_ns()}.json"
        file.write_text(json.dumps(found))
        out = self("run", file, "--data", data or file.with_suffix(""), "--output", "json")
        summary = json.loads(out)
        return {key: summary[key] for key in DIGESTS}


class Kubevo:
    """A cluster with kubevo in it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    # --- the release --------------------------------------------------------------------------------

    def install(self, *values: str, command: str = "") -> float:
        """Install the chart (or run ``command``), wait until all is ready, and return the seconds."""
        self.namespace(SYSTEM)
        started = time.monotonic()
        if command:
            self.shell(shlex.join([*shlex.split(command), *_values_file()]))
        else:
            options = (*_values_file(), *_set(values))
            self.cluster.helm("install", RELEASE, CHART, *options, namespace=SYSTEM)
        self.ready()
        return time.monotonic() - started

    def is_installed(self) -> bool:
        """Tell whether the release is there."""
        return RELEASE in self.cluster.helm("list", "--all", "--short", namespace=SYSTEM).split()

    def upgrade(self, chart: Path, *values: str) -> None:
        """Upgrade the release and wait until all is ready."""
        options = (*_values_file(), *_set(values), "--wait")
        self.cluster.helm("upgrade", RELEASE, chart, *options, namespace=SYSTEM)
        self.ready()

    def ready(self) -> None:
        """Wait until every pod of the release is ready."""
        for what in ("deployment/kubevo-operator", "statefulset/kubevo-nats"):
            options = ("--timeout=180s", "--watch=true")
            self.cluster.kubectl("rollout", "status", what, *options, namespace=SYSTEM)

    def uninstall(self) -> None:
        """Uninstall the release and wait until its pods are gone."""
        self.cluster.helm("uninstall", RELEASE, "--wait", namespace=SYSTEM)
        self.cluster.until(
            "no pod of the release",
            lambda: not self.cluster.get("pods", "-l", RELEASED, namespace=SYSTEM)["items"],
            seconds=90,
        )

    def namespace(self, name: str) -> None:
        """Make a namespace that takes restricted pods only."""
        metadata = {"name": name, "labels": RESTRICTED}
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def shell(self, command: str) -> str:
        """Run a command line as a person would, from the checkout, and return what it prints."""
        return self.cluster.shell(command, ROOT)

    # --- Experiments --------------------------------------------------------------------------------

    def apply(self, found: Document, namespace: str) -> None:
        """Apply an Experiment as users do, strictly validated."""
        self.cluster.kubectl(
            "apply", "--validate=strict", "-f", "-", namespace=namespace, stdin=json.dumps(found)
        )

    def get(self, name: str, namespace: str) -> Document:
        """Return an Experiment."""
        return self.cluster.get("experiment", name, namespace=namespace)

    def patch(self, name: str, namespace: str, spec: Document) -> None:
        """Merge into an Experiment's spec."""
        options = ("--type=merge", "-p", json.dumps({"spec": spec}))
        self.cluster.kubectl("patch", "experiment", name, *options, namespace=namespace)

    def generation(self, name: str, namespace: str) -> int:
        """Return the newest finished generation that the status tells; -1: none."""
        progress = (self.get(name, namespace).get("status") or {}).get("progress") or {}
        return int(progress.get("generation", -1))

    def reach(self, name: str, namespace: str, generation: int, seconds: float = 180) -> None:
        """Wait until a generation is finished."""
        self.cluster.until(
            f"{name} at generation {generation}",
            lambda: self.generation(name, namespace) >= generation,
            seconds,
        )

    def condition(self, name: str, namespace: str, kind: str) -> Document:
        """Return a condition; an empty one where it is not there yet."""
        conditions = (self.get(name, namespace).get("status") or {}).get("conditions") or []
        return next((each for each in conditions if each["type"] == kind), {"status": ""})

    def succeeded(self, name: str, namespace: str, seconds: float = 300) -> Document:
        """Wait until a search has succeeded and return its status."""
        condition = "condition=Succeeded"
        self.cluster.wait(f"experiment/{name}", condition, namespace=namespace, seconds=seconds)
        return dict(self.get(name, namespace)["status"])

    def end(self, name: str, namespace: str, **changes: Any) -> tuple[Document, int]:
        """Let an open-ended search end soon; return its status and how many generations it had.

        It may have more than it is allowed then: the status that tells where it is is seconds old.
        """
        limit = self.generation(name, namespace) + 3
        self.patch(name, namespace, {**changes, "budget": {"maxGenerations": limit}})
        status = self.succeeded(name, namespace, seconds=400)
        return status, int(status["progress"]["generation"]) + 1

    def evaluators(self, name: str, namespace: str) -> list[Document]:
        """Return an Experiment's evaluators' pods that run."""
        pods = self.cluster.pods(f"kubevo.dev/experiment={name}", namespace)
        return [pod for pod in pods if pod["status"].get("phase") == "Running"]

    # --- the service --------------------------------------------------------------------------------

    def account(self, name: str, namespace: str, role: str) -> str:
        """Make a ServiceAccount with a ClusterRole in its namespace, and return its full name."""
        kubectl = self.cluster.kubectl
        kubectl("create", "serviceaccount", name, namespace=namespace)
        subject = f"--serviceaccount={namespace}:{name}"
        kubectl(
            "create", "rolebinding", name, f"--clusterrole={role}", subject, namespace=namespace
        )
        return f"system:serviceaccount:{namespace}:{name}"

    def token(self, account: str, namespace: str) -> str:
        """Return a token of an account for the service."""
        options = (f"--audience={AUDIENCE}", "--duration=1h")
        return self.cluster.kubectl("create", "token", account, *options, namespace=namespace)

    @contextmanager
    def service(self, service: str, port: int) -> Iterator["Service"]:
        """Reach a Service of the release by its address, or elsewhere through a port-forward."""
        found = self.cluster.get("service", service, namespace=SYSTEM)["spec"]["clusterIP"]
        if self.cluster.layout is not None and found != "None":
            yield Service(f"{found}:{port}")  # our own node's addresses are reached from here
            return
        with self.cluster.forward(service, port, namespace=SYSTEM) as address:
            yield Service(address)


class Service:
    """HTTP to a Service."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, token: str = "") -> Answer:
        """Ask for a path."""
        return ask(f"http://{self._address}{path}", token.strip())


def digests(status: Document) -> Document:
    """Return the digests of a status."""
    return {key: status[key] for key in DIGESTS}


def _values_file() -> list[str]:
    """Return the option for what a cluster needs, such as where its images lie (KUBEVO_E2E_VALUES)."""
    given = os.environ.get("KUBEVO_E2E_VALUES")
    return ["--values", str(Path(given).resolve())] if given else []


def _set(values: tuple[str, ...]) -> list[str]:
    return [word for value in values for word in ("--set", value)]
