"""A cluster as the tests use it: its commands, what befalls pods, and images.

The same for the node that `local_cluster.py` brings up and for the cluster of KUBECONFIG; only what
needs the node itself (loading images) is skipped there.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from busybox import static_busybox
from cluster_commands import CommandFailed, Commands
from layout import Layout
from node_images import archive, import_archive, load_from_docker

PUBLIC_BUSYBOX = "docker.io/library/busybox:1.36"
LOCAL_BUSYBOX = "kubevo.dev/busybox:local"
APPLETS = (
    "cat",
    "echo",
    "grep",
    "head",
    "hostname",
    "httpd",
    "ls",
    "nslookup",
    "seq",
    "sh",
    "sleep",
    "tail",
    "tr",
    "wget",
)


# The kernel kills the largest process first, so these stay smaller than the container's own: each holds
# a quarter of its size. (With cgroup v2 it kills the whole container whichever it is.)
EXHAUST = """\
while read -r name value unit; do [ "$name" = VmRSS: ] && break; done < /proc/1/status
for i in $(seq 1000); do
  { head -c $((value * 256)) /dev/zero; sleep 60; } | tail -c $((value * 256)) > /dev/null &
done
wait
"""


class Cluster(Commands):
    """A cluster by its administrator's kubeconfig; ``layout`` is there when its node is ours.

    ``stays``: it outlives the tests, which therefore take away what they have made.
    """

    def __init__(self, kubeconfig: Path, layout: Layout | None, *, stays: bool = True) -> None:
        super().__init__(kubeconfig)
        self.layout, self.stays = layout, stays

    # --- what happens to pods -----------------------------------------------------------------------

    def delete_pod(self, name: str, *, namespace: str, at_once: bool = False) -> None:
        """Delete a pod and wait until it is gone; ``at_once``: without its grace."""
        options = ["--grace-period=0", "--force"] if at_once else []
        self.kubectl("delete", "pod", name, *options, namespace=namespace)

    def evict(self, name: str, *, namespace: str) -> None:
        """Ask for a pod's eviction once, as a drain does for each.

        Raises:
            CommandFailed: refused, for example by a PodDisruptionBudget.
        """
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
        }
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
        self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))

    def exhaust_memory(self, pod: str, *, namespace: str, container: str = "") -> None:
        """Let the kernel kill a container's first process for want of memory.

        The container must have a limit, a shell, and most of its memory in that process.
        """
        with suppress(CommandFailed):  # the command ends with its container
            self.exec(pod, "sh", "-c", EXHAUST, namespace=namespace, container=container)

    @contextmanager
    def drain(self, selector: str, *, namespace: str, seconds: float = 60) -> Iterator[list[str]]:
        """Cordon the nodes of the pods with these labels and evict those; uncordon at the block's end.

        On the one node, what comes in the place of the evicted waits until then.
        """
        pods = self.pods(selector, namespace)
        running = [pod for pod in pods if pod["status"].get("phase") == "Running"]
        nodes = sorted({pod["spec"]["nodeName"] for pod in running})
        assert nodes, f"no pod {selector} runs in {namespace}; there is nothing to drain"
        options = ["--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={seconds:.0f}s"]
        try:
            self.kubectl("drain", *nodes, f"--pod-selector={selector}", *options)
            yield nodes
        finally:
            self.kubectl("uncordon", *nodes)

    # --- images -------------------------------------------------------------------------------------

    def load_image(self, *names: str) -> None:
        """Copy images from docker to the node."""
        load_from_docker(self._node().socket, names)

    def busybox(self) -> str:
        """Return the name of an image with a shell, httpd and wget, loading it into our own node."""
        if self.layout is None:
            return PUBLIC_BUSYBOX
        program = static_busybox()
        if program is None:
            pytest.fail("there is no static busybox here: make cluster-packages (Debian)")
        files = {"bin/busybox": program.read_bytes()}
        links = {f"bin/{name}": "busybox" for name in APPLETS}
        import_archive(self.layout.socket, archive(LOCAL_BUSYBOX, files, links, ["/bin/sh"]))
        return LOCAL_BUSYBOX

    def _node(self) -> Layout:
        if self.layout is None:
            pytest.skip("KUBECONFIG's cluster has no node of ours to load images into")
        return self.layout
