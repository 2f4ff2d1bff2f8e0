"""Where everything of the one-node cluster lies: one folder, one network, and the programs' paths.

The node runs in mount, PID and network namespaces of its own (`node.py`), so what it leaves on the
machine is the folder, one network interface and one control group per controller: `local_cluster.py`
removes them.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))

from binaries import COMMANDS, binaries, built

NODE = "kubevo-node"
HOST_ADDRESS, NODE_ADDRESS = "10.245.0.1", "10.245.0.2"
LINK_NETWORK, POD_NETWORK, SERVICE_NETWORK = "10.245.0.0/30", "10.244.0.0/16", "10.96.0.0/16"
HOST_INTERFACE, NODE_INTERFACE = "kubevo0", "node0"
SERVER = f"https://{NODE_ADDRESS}:6443"
PAUSE_IMAGE = "kubevo.dev/pause:local"
CONTROL_GROUP = "kubevo-cluster"
STORAGE_CLASS = "local"

NODE_PROGRAMS = {
    "control-plane": {
        name: COMMANDS + name for name in ("kube-scheduler", "kubelet", "kube-proxy")
    },
    "coredns": {"coredns": "."},
    "pause": {"pause": "."},
}


@dataclass(frozen=True)
class Layout:
    """The folder of a cluster; every path is below it."""

    folder: Path

    @property
    def admin(self) -> Path:
        """Return the administrator's kubeconfig."""
        return self.folder / "admin.kubeconfig"

    @property
    def pid_file(self) -> Path:
        """Return the file with the pid and the start time of the namespaces' first process."""
        return self.folder / "pid.json"

    @property
    def ready(self) -> Path:
        """Return the file that says that the cluster became ready."""
        return self.folder / "ready"

    @property
    def session(self) -> Path:
        """Return the file with the test session that brought the cluster up; none: a person did."""
        return self.folder / "session.json"

    @property
    def socket(self) -> Path:
        """Return containerd's socket, which the machine shares with the node."""
        return self.folder / "containerd.sock"

    @property
    def logs(self) -> Path:
        """Return the folder of the programs' logs."""
        return self.folder / "logs"

    @property
    def volumes(self) -> Path:
        """Return the folder of the PersistentVolumes."""
        return self.folder / "volumes"

    def kubeconfig(self, name: str) -> Path:
        """Return a component's kubeconfig."""
        return self.folder / "config" / f"{name}.kubeconfig"

    def config(self, name: str) -> Path:
        """Return a configuration file."""
        return self.folder / "config" / name


def the_layout() -> Layout:
    """Return the machine's one cluster: the networks have fixed addresses."""
    return Layout(Path(os.environ.get("KUBEVO_CLUSTER_DIR") or "/var/tmp/kubevo-cluster"))


def programs(folders: list[Path] | None = None) -> dict[str, Path]:
    """Return every program that we build, by name, building what is missing."""
    each = ({module: packages} for module, packages in NODE_PROGRAMS.items())
    found = folders or [binaries(), *map(built, each)]
    return {path.name: path for folder in found for path in sorted(folder.iterdir())}
