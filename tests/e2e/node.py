"""The node's first process, PID 1 of its namespaces: it starts the programs and outlives none of them.

`local_cluster.py` starts it (`python node.py FOLDER PROGRAMS...`), writes a line to its stdin when the
network interface is there, and reads from its stdout one line of JSON a phase. When a program ends,
this process says which in ``failed`` and ends too, and with it, by the kernel's hand, every process
and every mount of the namespaces. Standard library only.
"""

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from layout import (
    CONTROL_GROUP,
    NODE,
    NODE_ADDRESS,
    NODE_INTERFACE,
    POD_NETWORK,
    SERVER,
    SERVICE_NETWORK,
    Layout,
    programs,
)
from node_images import import_archive, pause_archive

READY_SECONDS = 60.0
# What Kubernetes and the container runtime write to at paths that cannot all be configured.
COVERED = ("/var/lib", "/var/log")
GROUPS = Path("/sys/fs/cgroup")


class Node:
    """The programs of the node by name."""

    def __init__(self, layout: Layout, found: dict[str, Path]) -> None:
        self._layout, self._programs = layout, found
        self._children: dict[int, str] = {}
        self._since = time.monotonic()

    def run(self) -> None:
        """Bring the node up, say so, and reap until a program ends."""
        self._prepare()
        self._etcd()
        self._start("containerd", "--config", self._layout.config("containerd.toml"))
        self._api_server()
        self._phase("API server ready")
        self._import_pause()
        self._controllers()
        self._phase("node's programs started")
        print(json.dumps({"ready": True}), flush=True)
        self._reap()

    def _prepare(self) -> None:
        layout = self._layout
        run("mount", "-t", "proc", "proc", "/proc")
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        for path in COVERED:
            own = layout.folder / "node" / path.strip("/")
            own.mkdir(parents=True, exist_ok=True)
            run("mount", "--bind", own, path)
        for controller in {GROUPS, *GROUPS.iterdir()}:
            if os.path.ismount(controller):
                (controller / CONTROL_GROUP).mkdir(exist_ok=True)
        run("ip", "link", "set", "lo", "up")
        run("ip", "address", "add", f"{NODE_ADDRESS}/30", "dev", NODE_INTERFACE)
        run("ip", "link", "set", NODE_INTERFACE, "up")
        # A pod's answer to a Service's client on the same bridge must pass the rules, too.
        for name in ("ipv4/ip_forward", "bridge/bridge-nf-call-iptables"):
            Path("/proc/sys/net", name).write_text("1")
        self._phase("network")

    def _etcd(self) -> None:
        self._start(
            "etcd",
            f"--data-dir={self._layout.folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=default=http://127.0.0.1:2380",
        )

    def _api_server(self) -> None:
        layout = self._layout
        self._start(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--cert-dir={layout.folder / 'certs'}",
            "--secure-port=6443",
            "--bind-address=0.0.0.0",
            f"--advertise-address={NODE_ADDRESS}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--authorization-mode=Node,RBAC",
            # No name server of the machine knows the node's name.
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged",
            f"--token-auth-file={layout.config('tokens.csv')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={layout.config('sa.pub')}",
            f"--service-account-signing-key-file={layout.config('sa.key')}",
        )
        self._until("the API server", lambda: answers(f"{SERVER}/readyz"))

    def _import_pause(self) -> None:
        self._until("containerd", self._layout.socket.exists)
        import_archive(self._layout.socket, pause_archive(self._programs["pause"]))

    def _controllers(self) -> None:
        layout = self._layout
        for name, *arguments in (
            (
                "kube-controller-manager",
                f"--kubeconfig={layout.kubeconfig('kube-controller-manager')}",
                f"--service-account-private-key-file={layout.config('sa.key')}",
                f"--root-ca-file={layout.folder / 'certs/apiserver.crt'}",
                "--use-service-account-credentials",
                "--leader-elect=false",
            ),
            ("kube-scheduler", f"--config={layout.config('scheduler.json')}"),
            (
                "kubelet",
                f"--kubeconfig={layout.kubeconfig('kubelet')}",
                f"--config={layout.config('kubelet.json')}",
                f"--hostname-override={NODE}",
                f"--node-ip={NODE_ADDRESS}",
            ),
            (
                "kube-proxy",
                f"--kubeconfig={layout.kubeconfig('kube-proxy')}",
                "--proxy-mode=iptables",
                f"--cluster-cidr={POD_NETWORK}",
                f"--hostname-override={NODE}",
                # The machine's connection tracking is not ours to set.
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-tcp-timeout-close-wait=0",
            ),
        ):
            self._start(name, *arguments)
        self._start("coredns", "-conf", layout.config("Corefile"))
        script = Path(__file__).with_name("local_path.py")
        self._start("local-path", script, layout.folder, program=Path(sys.executable))

    def _start(self, name: str, *arguments: object, program: Path | None = None) -> None:
        argv = [program or self._programs.get(name) or shutil.which(name) or name, *arguments]
        with (self._layout.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._children[child.pid] = name

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not holds():
            self._reap(os.WNOHANG)
            if time.monotonic() > deadline:
                self._fail(f"{what} was not ready within {READY_SECONDS:.0f} s")
            time.sleep(0.05)

    def _reap(self, options: int = 0) -> None:
        """Reap orphans, the containers' shims among them, and fail when a program has ended."""
        while True:
            pid, status = os.waitpid(-1, options)
            if pid == 0:
                return
            if pid in self._children:
                code = os.waitstatus_to_exitcode(status)
                self._fail(f"{self._children[pid]} ended with code {code}")

    def _fail(self, why: str) -> None:
        (self._layout.folder / "failed").write_text(f"{why}\n")
        raise SystemExit(1)

    def _phase(self, name: str) -> None:
        now = time.monotonic()
        print(json.dumps({"phase": name, "seconds": now - self._since}), flush=True)
        self._since = now


def run(*command: object) -> None:
    """Run a command that must succeed; what it says goes to our log."""
    subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)


def answers(url: str) -> bool:
    """Return whether the URL answers 200; its certificate may not exist yet, so is not looked at."""
    context = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(url, context=context, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    if not sys.stdin.readline():  # who started us has died
        raise SystemExit(1)
    Node(Layout(Path(sys.argv[1])), programs(list(map(Path, sys.argv[2:])))).run()
