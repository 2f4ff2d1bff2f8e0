"""A real Kubernetes API on this machine: etcd, kube-apiserver and kube-controller-manager.

All on loopback with random ports, as children that end with this process, their logs in one folder.
No node and no kubelet: `kubelet.py` gives pods their processes.
"""

import asyncio
import json
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kubevo_runtime.processes import start_child, stop_child, tail

READY_SECONDS = 60.0
STOP_SECONDS = 5.0
CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "disruption-controller",
    "resourcequota-controller",
)
# The status patches, to count them; and what service accounts ask for, to compare it with their rights.
AUDIT = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Request
    verbs: [patch]
    resources: [{group: kubevo.dev, resources: [experiments/status]}]
  - level: Metadata
    userGroups: [system:serviceaccounts]
  - level: None
"""


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class GivenCluster:
    """A cluster that is there already: KUBEVO_TEST_KUBECONFIG names its administrator's kubeconfig.

    It must have no nodes that would run the evaluators' pods: `kubelet.py` does.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.admin, self.folder = kubeconfig, folder
        self._kubectl: Path | str = "kubectl"

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def start_api_server(self) -> None:
        """Start the API server again, after `kill_api_server`."""
        pytest.skip("the API server of KUBEVO_TEST_KUBECONFIG is not ours to kill")

    kill_api_server = start_api_server

    def audit(self) -> list[dict[str, Any]]:
        """Return the patches of Experiments' status with their bodies, from the audit log."""
        pytest.skip("the audit log of KUBEVO_TEST_KUBECONFIG is not ours to read")

    def requests(self, account: str) -> set[tuple[str, str, str]]:
        """Return (API group, resource, verb) of what a service account was allowed; account: ns:name."""
        pytest.skip("the audit log of KUBEVO_TEST_KUBECONFIG is not ours to read")

    def kubectl(
        self, *arguments: str | Path, stdin: str | None = None, kubeconfig: Path | None = None
    ) -> str:
        """Run kubectl and return what it prints.

        Raises:
            RuntimeError: it failed; the message is what it said.
        """
        command = [self._kubectl, f"--kubeconfig={kubeconfig or self.admin}"]
        done = subprocess.run(
            [*command, *arguments], input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr}")
        return done.stdout

    def define(self, file: Path) -> None:
        """Apply a CustomResourceDefinition and wait until it is served."""
        self.kubectl("apply", "-f", file)
        for left in range(100, -1, -1):
            try:
                # Until the object has a status, this fails at once instead of waiting.
                self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", file)
            except RuntimeError:
                if not left:
                    raise
                time.sleep(0.1)
            else:
                return

    def service_account(self, namespace: str, name: str) -> Path:
        """Return a kubeconfig that acts as a ServiceAccount."""
        token = self.kubectl("create", "token", name, "-n", namespace, "--duration=2h")
        return self._kubeconfig(f"{namespace}-{name}", token.strip())

    def _kubeconfig(self, name: str, token: str) -> Path:
        """Write a kubeconfig with a token for the cluster of the administrator's."""
        document = json.loads(self.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        document["users"] = [{"name": name, "user": {"token": token}}]
        document["contexts"][0]["context"]["user"] = name
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(document))
        path.chmod(0o600)
        return path


class ControlPlane(GivenCluster):
    """The three processes; ``async with`` starts and ends them."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        super().__init__(folder / "admin.json", folder)
        self._kubectl = binaries / "kubectl"
        self._binaries = binaries
        self._tokens: dict[str, tuple[str, str]] = {}
        self._admin = secrets.token_hex(16)
        self._controller = secrets.token_hex(16)
        self._children: list[asyncio.subprocess.Process] = []
        self._etcd, self._peer, self._port = free_ports(3)

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._write_files)
        await self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls=http://127.0.0.1:{self._etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{self._etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{self._peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{self._peer}",
            f"--initial-cluster=default=http://127.0.0.1:{self._peer}",
        )
        self._server = await self.start_api_server()
        await self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.folder / 'controller.json'}",
            f"--service-account-private-key-file={self.folder / 'sa.key'}",
            f"--root-ca-file={self.folder / 'certs' / 'apiserver.crt'}",
            "--leader-elect=false",
            "--use-service-account-credentials",
            "--secure-port=0",
            f"--controllers={','.join(CONTROLLERS)}",
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in reversed(self._children):
            await stop_child(child, STOP_SECONDS)

    async def start_api_server(self) -> asyncio.subprocess.Process:
        """Start the API server on its port and etcd, and wait until it is ready."""
        folder = self.folder
        self._server = await self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd}",
            f"--cert-dir={folder / 'certs'}",
            f"--secure-port={self._port}",
            "--bind-address=127.0.0.1",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=Node,RBAC",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'sa.pub'}",
            f"--service-account-signing-key-file={folder / 'sa.key'}",
            f"--audit-policy-file={folder / 'audit.yaml'}",
            f"--audit-log-path={folder / 'audit.log'}",
            "--shutdown-delay-duration=0s",
        )
        async with asyncio.timeout(READY_SECONDS):
            while not await asyncio.to_thread(self._is_ready):
                if self._server.returncode is not None:
                    raise RuntimeError(tail(folder / "kube-apiserver.log", 20))
                await asyncio.sleep(0.1)
        return self._server

    async def kill_api_server(self) -> None:
        """Kill the API server without a word; etcd keeps what it had."""
        self._server.kill()
        await self._server.wait()
        self._children.remove(self._server)

    def audit(self) -> list[dict[str, Any]]:
        """Return the patches of Experiments' status with their bodies, from the audit log."""
        return [line for line in self._audited() if line["level"] == "Request"]

    def requests(self, account: str) -> set[tuple[str, str, str]]:
        """Return (API group, resource, verb) of what a service account was allowed; account: ns:name."""
        found = set()
        for line in self._audited():
            code = line.get("responseStatus", {}).get("code", 0)
            of = line.get("objectRef")  # none: discovery, which everybody may
            user = f"system:serviceaccount:{account}"
            if of is not None and line["user"]["username"] == user and code < 300:
                parts = [of.get("resource", ""), of.get("subresource", "")]
                where = of.get("apiGroup", ""), "/".join(part for part in parts if part)
                found.add((*where, line["verb"]))
                if line["verb"] == "patch" and code == 201:  # an apply that made the object
                    found.add((*where, "create"))
        return found

    def _audited(self) -> list[dict[str, Any]]:
        log = self.folder / "audit.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    async def _start(self, program: str, *arguments: str) -> asyncio.subprocess.Process:
        child = await start_child(
            [self._binaries / program, *arguments], log=self.folder / f"{program}.log"
        )
        self._children.append(child)
        return child

    def _write_files(self) -> None:
        folder = self.folder
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (folder / "sa.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        )
        (folder / "sa.pub").write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        (folder / "audit.yaml").write_text(AUDIT)
        (folder / "tokens.csv").write_text(
            f'{self._admin},admin,admin,"system:masters"\n'
            f"{self._controller},system:kube-controller-manager,kcm\n"
        )
        for name, token in (("admin", self._admin), ("controller", self._controller)):
            # The certificate is made in cert-dir only when the server starts: not verified.
            cluster = {"server": self.url, "insecure-skip-tls-verify": True}
            document = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "t", "cluster": cluster}],
                "users": [{"name": name, "user": {"token": token}}],
                "contexts": [{"name": "t", "context": {"cluster": "t", "user": name}}],
                "current-context": "t",
            }
            path = folder / f"{name}.json"
            path.write_text(json.dumps(document))
            path.chmod(0o600)

    def _is_ready(self) -> bool:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        request = urllib.request.Request(
            f"{self.url}/readyz", headers={"Authorization": f"Bearer {self._admin}"}
        )
        try:
            with urllib.request.urlopen(request, context=context, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
