"""What a test of the operator does: apply, patch, wait and look, in a namespace of its own."""

import asyncio
import json
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import yaml
from broker_process import BrokerProcess
from control_plane import GivenCluster, free_ports
from kubelet import INHERITED, ProcessKubelet

from kubevo_core import checkpoint, names
from kubevo_runtime.bus import BusSettings, connect_coordinator, experiments_on
from kubevo_runtime.processes import start_child, tail
from kubevo_runtime.store import find_runs, open_run

IMAGE = "kubevo-evaluator:test"
ROOT = Path(__file__).parents[2]
ACCOUNT = "kubevo-operator"
WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.1
DIGESTS = ("populationDigest", "resultDigest")
# What is looked at again and again, so by plain requests: each kubectl is a tenth of a second of CPU.
PATHS = {
    "deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "events": "/api/v1/namespaces/{}/events",
    "evo": "/apis/kubevo.dev/v1alpha1/namespaces/{}/experiments",
    "hpa": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "networkpolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "poddisruptionbudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "pods": "/api/v1/namespaces/{}/pods",
    "scaledobject.keda.sh": "/apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects",
    "secret": "/api/v1/namespaces/{}/secrets",
}
Document = dict[str, Any]


def document(name: str, generations: int = 3, **spec: Any) -> Document:
    """Return a small CartPole search without a target."""
    return {
        "apiVersion": "kubevo.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "seed": 1,
            "environment": {"id": "CartPole-v1", "maxEpisodeSteps": 50},
            "policy": {"network": "mlp", "hiddenLayers": [8], "backend": "numpy"},
            "algorithm": {
                "type": "GeneticAlgorithm",
                "geneticAlgorithm": {
                    "populationSize": 10,
                    "parents": 4,
                    "mutationPower": "0.05",
                    "eliteCandidates": 3,
                    "eliteEpisodes": 3,
                    "testEpisodes": 3,
                },
            },
            "budget": {"maxGenerations": generations},
            **spec,
        },
    }


class Patch(NamedTuple):
    """One status patch, as the API server's audit log has it; ``at`` in seconds since 1970."""

    at: float
    status: Document

    @property
    def conditions(self) -> list[tuple[str, str, str]]:
        found = self.status.get("conditions") or []
        return [(item["type"], item["status"], item["reason"]) for item in found]


class Operator:
    """One operator process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, port: int) -> None:
        self.process, self.log, self._port = process, log, port

    async def fetch(self, path: str) -> str:
        url = f"http://127.0.0.1:{self._port}{path}"

        def get() -> str:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(get)

    async def is_ready(self) -> bool:
        try:
            return "ok" in await self.fetch("/readyz")
        except urllib.error.HTTPError as exc:
            exc.close()
            return False

    async def metrics(self) -> str:
        return await self.fetch("/metrics")

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def stop(self) -> float:
        """End it as Kubernetes does; return the seconds that it took."""
        started = time.monotonic()
        self.send(signal.SIGTERM)
        assert await self.process.wait() == 0, tail(self.log, 30)
        return time.monotonic() - started

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None


class Site:
    """A namespace with everything that an operator needs."""

    def __init__(
        self,
        control_plane: GivenCluster,
        kubelet: ProcessKubelet,
        broker: BrokerProcess,
        namespace: str,
        folder: Path,
    ) -> None:
        self.control_plane, self.kubelet, self.broker = control_plane, kubelet, broker
        self.namespace, self.folder = namespace, folder
        self.system = f"{namespace}-system"
        self.data = folder / "data"
        self.operators: list[Operator] = []
        self._kubeconfig = Path()

    # --- the operator --------------------------------------------------------------------------

    def install(self) -> None:
        """Make the operator's account, with exactly the rights of operator/rbac.yaml."""
        system = self.system
        cluster_role, role = yaml.safe_load_all((ROOT / "operator/rbac.yaml").read_text())
        items: list[Document] = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": system}},
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": ACCOUNT, "namespace": system},
            },
            *self._granted(cluster_role, "kubevo-watch", self.namespace),
            *self._granted(role, role["metadata"]["name"], system),
            # One broker serves every test, so its keys are there already, as after a restore.
            self._keys_secret(self.broker.keys.secret_data()),
        ]
        self._create(*items)
        self._kubeconfig = self.control_plane.service_account(system, ACCOUNT)

    def _create(self, *items: Document) -> None:
        """Create objects by one kubectl."""
        found = {"apiVersion": "v1", "kind": "List", "items": items}
        self.control_plane.kubectl("create", "-f", "-", stdin=json.dumps(found))

    def _granted(self, rights: Document, name: str, namespace: str) -> list[Document]:
        """Return the Role with these rights in a namespace, bound to the operator's account."""
        metadata = {"name": name, "namespace": namespace}
        group = "rbac.authorization.k8s.io"
        return [
            {**rights, "kind": "Role", "metadata": metadata},
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.system}],
            },
        ]

    def _keys_secret(self, keys: Document) -> Document:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "kubevo-nats-keys", "namespace": self.system},
            "data": keys,
        }

    def watch(self, namespace: str) -> None:
        """Give the account the same rights in another namespace."""
        rights = next(yaml.safe_load_all((ROOT / "operator/rbac.yaml").read_text()))
        self._create(*self._granted(rights, "kubevo-watch", namespace))

    def watch_everywhere(self) -> None:
        """Give the account the cluster-wide rights, for an operator that looks after all namespaces."""
        role = next(yaml.safe_load_all((ROOT / "operator/rbac.yaml").read_text()))
        plane, name = self.control_plane, f"kubevo-{self.namespace}"
        role["metadata"]["name"] = name
        plane.kubectl("apply", "-f", "-", stdin=json.dumps(role))
        account = f"{self.system}:{ACCOUNT}"
        plane.kubectl(
            "create", "clusterrolebinding", name, f"--clusterrole={name}",
            f"--serviceaccount={account}",
        )  # fmt: skip

    async def operator(self, **environment: str) -> Operator:
        """Start an operator that looks after this namespace, and wait until it works or stands by."""
        port = free_ports(1)[0]
        number = len(self.operators)
        log = self.folder / f"operator-{number}.log"
        settings = {
            **INHERITED,
            "KUBECONFIG": str(self._kubeconfig),
            "KUBEVO_NATS_URL": self.broker.url,
            "KUBEVO_DATA": str(self.data),
            "KUBEVO_EVALUATOR_IMAGE": IMAGE,
            "KUBEVO_NAMESPACE": self.system,
            "KUBEVO_NAMESPACES": self.namespace,
            "KUBEVO_IDENTITY": f"operator-{number}",
            "KUBEVO_HTTP_ADDRESS": "127.0.0.1",
            "KUBEVO_HTTP_PORT": str(port),
            "KUBEVO_LOG_FORMAT": "console",
            "KUBEVO_ACK_WAIT_SECONDS": "3",
            "KUBEVO_LEASE_SECONDS": "5",
            "KUBEVO_RENEW_SECONDS": "3",
            "KUBEVO_RETRY_SECONDS": "1",
            "KUBEVO_STATUS_SECONDS": "1",
            **environment,
        }
        child = await start_child([sys.executable, "-m", "kubevo_operator"], env=settings, log=log)
        found = Operator(child, log, port)
        self.operators.append(found)

        async def serves() -> bool:
            assert child.returncode is None, tail(log, 30)
            try:
                return "ok" in await found.fetch("/healthz")
            except OSError:
                return False

        await self.until(serves, "the operator serves")
        return found

    async def close(self) -> None:
        """Delete what is left of Experiments, then end the operators."""
        plane = self.control_plane
        try:
            if any(o.process.returncode is None for o in self.operators):
                await asyncio.to_thread(
                    plane.kubectl, "delete", "evo", "--all", "-n", self.namespace, "--wait=false"
                )
                await self.until(self._is_empty, "the Experiments go")
        finally:
            for operator in self.operators:
                if operator.process.returncode is None:
                    await operator.kill()
            await asyncio.to_thread(
                plane.kubectl, "delete", "namespace", self.system, "--wait=false"
            )

    async def _is_empty(self) -> bool:
        # A namespace that is gone has none, either.
        return not (await self._read("evo"))["items"]

    # --- what a person does --------------------------------------------------------------------

    async def kubectl(
        self, *arguments: str, stdin: str | None = None, namespaced: bool = True
    ) -> str:
        where = ["-n", self.namespace] if namespaced else []
        return await asyncio.to_thread(self.control_plane.kubectl, *arguments, *where, stdin=stdin)

    async def apply(self, found: Document) -> None:
        await self.kubectl("apply", "-f", "-", stdin=json.dumps(found))

    async def patch(self, name: str, spec: Document) -> None:
        body = json.dumps({"spec": spec})
        await self.kubectl("patch", "evo", name, "--type=merge", "-p", body)

    async def get(self, name: str) -> Document:
        return await self._read("evo", f"/{name}")

    async def child(self, kind: str, name: str) -> Document:
        return await self._read(kind, f"/{name}")

    async def _read(self, kind: str, name: str = "") -> Document:
        """Return an object, or the list of all of its kind, of this namespace.

        Raises:
            RuntimeError: it is not there, or nobody answers; the message says which.
        """
        path = PATHS[kind].format(self.namespace) + name
        try:
            return await self.kubelet.request("GET", path)
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise RuntimeError(f"GET {path}: {exc!r}") from exc

    async def keys(self) -> Document:
        """Return what the Secret with the broker's keys holds."""
        found = await self.kubectl(
            "get", "secret", "kubevo-nats-keys", "-n", self.system, "-o", "json", namespaced=False
        )
        return dict(json.loads(found)["data"])

    async def give_keys(self, keys: Document) -> None:
        """Let the keys be these again."""
        await self.forget_keys()
        await asyncio.to_thread(self._create, self._keys_secret(keys))

    async def forget_keys(self) -> None:
        """Remove the keys, so that the operator makes its own."""
        await self.kubectl(
            "delete", "secret", "kubevo-nats-keys", "-n", self.system, namespaced=False
        )

    async def broker_config(self) -> str:
        """Return what the operator wants the broker to include, as soon as it is there."""
        name = "kubevo-nats-config"
        found: list[str] = []

        async def is_there() -> bool:
            try:
                text = await self.kubectl(
                    "get", "configmap", name, "-n", self.system, "-o", "json", namespaced=False
                )
            except RuntimeError:
                return False
            found.append(json.loads(text)["data"]["auth.conf"])
            return True

        await self.until(is_there, f"ConfigMap {name}")
        return found[-1]

    async def uid(self, kind: str, name: str) -> str | None:
        try:
            return str((await self.child(kind, name))["metadata"]["uid"])
        except RuntimeError:
            return None

    async def events(self, name: str) -> list[Document]:
        found = (await self._read("events"))["items"]
        return [item for item in found if item["involvedObject"]["name"] == name]

    async def restarts(self) -> int:
        """Return how often containers were restarted in this namespace."""
        pods = (await self._read("pods"))["items"]
        return sum(
            container["restartCount"]
            for pod in pods
            for container in pod["status"].get("containerStatuses") or ()
        )

    # --- waiting -------------------------------------------------------------------------------

    async def until(
        self,
        condition: Callable[[], bool | Awaitable[bool]],
        what: str,
        seconds: float = WAIT_SECONDS,
    ) -> None:
        """Wait until something is so; the failure shows what the operators said."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = condition()
                    if found if isinstance(found, bool) else await found:
                        return
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            said = "\n".join(tail(operator.log, 25) for operator in self.operators)
            raise AssertionError(f"not within {seconds:g} s: {what}\n{said}") from None

    async def until_status(
        self, name: str, condition: Callable[[Document], bool], seconds: float = WAIT_SECONDS
    ) -> Document:
        seen: Document = {}

        async def holds() -> bool:
            seen.clear()
            seen.update((await self.get(name)).get("status") or {})
            return bool(seen) and condition(seen)

        try:
            await self.until(holds, "", seconds)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{json.dumps(seen, indent=1)}") from None
        return seen

    @staticmethod
    def condition(status: Document, kind: str) -> Document:
        return next((c for c in status.get("conditions", []) if c["type"] == kind), {})

    async def wait(
        self,
        name: str,
        kind: str,
        status: str = "True",
        reason: str | None = None,
        seconds: float = WAIT_SECONDS,
    ) -> Document:
        def holds(found: Document) -> bool:
            condition = self.condition(found, kind)
            return condition.get("status") == status and reason in (None, condition["reason"])

        return await self.until_status(name, holds, seconds)

    async def generation(self, name: str, number: int) -> None:
        """Wait until a generation is finished."""
        await self.until_status(
            name, lambda s: s.get("progress", {}).get("generation", -1) >= number
        )

    async def stop(self, name: str) -> int:
        """Let a search end after the generation that runs now; return how many it has then."""
        await self.patch(name, {"budget": {"maxGenerations": 1}})
        return int((await self.wait(name, "Succeeded"))["progress"]["generation"]) + 1

    async def gone(self, name: str, seconds: float = WAIT_SECONDS) -> None:
        async def is_gone() -> bool:
            return await self.uid("evo", name) is None

        await self.until(is_gone, f"{name} is gone", seconds)

    async def changed(self, look: Callable[[], Awaitable[str | None]], old: str | None) -> None:
        async def has() -> bool:
            return await look() not in (None, old)

        await self.until(has, "it comes back")

    async def childless(self, name: str) -> None:
        async def is_childless() -> bool:
            kinds = "deployment,secret,pdb,networkpolicy"
            found = json.loads(
                await self.kubectl(
                    "get", kinds, "-l", f"kubevo.dev/experiment={name}", "-o", "json"
                )
            )
            return not found["items"]

        await self.until(is_childless, "the children are gone")

    # --- what is there -------------------------------------------------------------------------

    async def same(self, name: str, expected: Document) -> None:
        status = (await self.get(name))["status"]
        assert [status[d] for d in DIGESTS] == [expected[d] for d in DIGESTS]

    def evaluators(self, name: str) -> list[int]:
        return self.kubelet.pids(self.namespace, name)

    def patches(self, uid: str | None = None) -> list[Patch]:
        """Return the status patches that were accepted, of one Experiment or of all."""
        return [
            Patch(
                datetime.fromisoformat(line["requestReceivedTimestamp"]).timestamp(),
                line["requestObject"]["status"],
            )
            for line in self.control_plane.audit()
            if line["responseStatus"]["code"] < 300
            and uid in (None, line["requestObject"].get("metadata", {}).get("uid"))
        ]

    def directories(self, name: str) -> list[Path]:
        return [path for path in find_runs(self.data) if open_run(path).name == name]

    def genomes(self, name: str, generation: int) -> list[str]:
        """Return the digests of a kept generation's population."""
        payload = open_run(self.directories(name)[0]).repeat(0).load(generation)
        population = checkpoint.decode(payload).finished.population
        return [individual.genome.digest for individual in population]

    def _bus_settings(self, experiment: str) -> BusSettings:
        return BusSettings(
            url=self.broker.url, experiment=experiment, credentials=self.broker.credentials
        )

    async def broker_id(self, name: str) -> str:
        """Return what names an Experiment on the broker."""
        return names.experiment_id(name, (await self.get(name))["metadata"]["uid"])

    async def has_streams(self, identifier: str) -> bool:
        """Tell whether the broker holds streams of an Experiment, which may be gone."""
        return identifier in await experiments_on(self._bus_settings(identifier))

    async def held(self, name: str) -> int:
        """Return how many tasks evaluators hold now."""
        async with connect_coordinator(self._bus_settings(await self.broker_id(name))) as bus:
            return (await bus.backlog()).held

    async def is_finished(self, name: str) -> bool:
        status = (await self.get(name)).get("status") or {}
        return self.condition(status, "Succeeded").get("status") == "True"
