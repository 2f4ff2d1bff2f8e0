"""The configuration of the node's programs, written anew at each start: pure text from the layout."""

import json
import secrets
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from layout import (
    CONTROL_GROUP,
    NODE,
    NODE_ADDRESS,
    PAUSE_IMAGE,
    POD_NETWORK,
    SERVER,
    Layout,
)

# Who asks the API server: (user, groups). The names are those that its built-in roles are bound to.
USERS = {
    "admin": ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "coredns": ("kubevo:dns", "system:masters"),
    "local-path": ("kubevo:local-path", "system:masters"),
}
CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # A root without CAP_SYS_RESOURCE cannot lower the score; every pod would fail.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/config/cni"
"""
# There is no way out of the cluster, so every other name is unknown at once, not after a time-out.
COREFILE = """\
cluster.local in-addr.arpa {{
  bind {address}
  errors
  ready {address}:8181
  kubernetes {{
    kubeconfig {kubeconfig} kubevo
    ttl 1
  }}
  cache 5
}}
. {{
  bind {address}
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""
CNI = {
    "cniVersion": "0.4.0",
    "name": "kubevo",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": POD_NETWORK}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}


def write_files(layout: Layout) -> None:
    """Write every program's configuration and the administrator's kubeconfig."""
    for folder in (layout.config("cni"), layout.logs, layout.volumes):
        folder.mkdir(parents=True, exist_ok=True)
    tokens = {name: secrets.token_hex(16) for name in USERS}
    layout.config("tokens.csv").write_text(
        "".join(
            f'{tokens[name]},{user},{user},"{group}"\n' for name, (user, group) in USERS.items()
        )
    )
    for name, token in tokens.items():
        path = layout.admin if name == "admin" else layout.kubeconfig(name)
        path.touch(0o600)
        path.write_text(json.dumps(_kubeconfig(layout, token), indent=1))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    layout.config("sa.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    layout.config("sa.pub").write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    layout.config("containerd.toml").write_text(
        CONTAINERD.format(folder=layout.folder, pause=PAUSE_IMAGE)
    )
    layout.config("cni").joinpath("10-kubevo.conflist").write_text(json.dumps(CNI))
    layout.config("resolv.conf").write_text(f"nameserver {NODE_ADDRESS}\n")
    layout.config("kubelet.json").write_text(json.dumps(_kubelet(layout), indent=1))
    layout.config("scheduler.json").write_text(json.dumps(_scheduler(layout), indent=1))
    layout.config("Corefile").write_text(
        COREFILE.format(address=NODE_ADDRESS, kubeconfig=layout.kubeconfig("coredns"))
    )


def _kubeconfig(layout: Layout, token: str) -> dict[str, Any]:
    # kube-apiserver makes this certificate at its first start.
    cluster = {
        "server": SERVER,
        "certificate-authority": str(layout.folder / "certs/apiserver.crt"),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kubevo", "cluster": cluster}],
        "users": [{"name": "kubevo", "user": {"token": token}}],
        "contexts": [{"name": "kubevo", "context": {"cluster": "kubevo", "user": "kubevo"}}],
        "current-context": "kubevo",
    }


def _scheduler(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(layout.kubeconfig("kube-scheduler"))},
        "leaderElection": {"leaderElect": False},
        # What waits for an uncordoned node is tried again within a second, not within ten.
        "podInitialBackoffSeconds": 1,
        "podMaxBackoffSeconds": 1,
    }


def _kubelet(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # The API server has no client certificate, and nobody else reaches the node's address.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "address": NODE_ADDRESS,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CONTROL_GROUP}",
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{layout.socket}",
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "failSwapOn": False,
        # Images come from `load`, not from a registry: one that is collected does not come back.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "resolvConf": str(layout.config("resolv.conf")),
    }
