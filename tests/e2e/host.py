"""What the cluster leaves on the machine outside its namespaces, and how each of it is taken away.

Three things besides the folder: the network interface with its routes, which goes with its other end in
the namespace; a control group a controller; and some kernel settings that the kubelet changes for the
whole machine. Every function can be called twice.
"""

import contextlib
import ipaddress
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from layout import (
    CONTROL_GROUP,
    HOST_ADDRESS,
    HOST_INTERFACE,
    LINK_NETWORK,
    NODE_ADDRESS,
    NODE_INTERFACE,
    POD_NETWORK,
    SERVICE_NETWORK,
)

GONE_SECONDS = 20.0
GROUPS = Path("/sys/fs/cgroup")
# What the kubelet sets (its default, "modify").
KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def start_time(pid: int) -> str:
    """Return when a process started, in clock ticks; empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that are not reaped."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended while we look
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def check_network() -> None:
    """Refuse a machine that uses our addresses.

    Raises:
        SystemExit: a route of the machine overlaps with one of the cluster's networks.
    """
    ours = [ipaddress.ip_network(net) for net in (LINK_NETWORK, POD_NETWORK, SERVICE_NETWORK)]
    listed = subprocess.run(
        ["ip", "-json", "route", "show"], capture_output=True, text=True, check=True
    )
    for route in json.loads(listed.stdout or "[]"):
        if route["dst"] == "default" or route.get("dev") == HOST_INTERFACE:
            continue
        taken = ipaddress.ip_network(route["dst"], strict=False)
        if any(taken.overlaps(net) for net in ours):
            raise SystemExit(
                f"the cluster needs {LINK_NETWORK}, {POD_NETWORK} and {SERVICE_NETWORK}, but this "
                f"machine has a route to {route['dst']} by {route.get('dev')}; take it away, or use "
                "a cluster of your own (KUBECONFIG)"
            )


def load_modules() -> None:
    """Load what pods' networks and images need of the kernel; they stay, others may use them by then.

    Raises:
        SystemExit: one is neither there nor can be loaded.
    """
    missing = _missing_modules()
    if missing and shutil.which("modprobe"):
        for name in missing:  # a failure shows below
            subprocess.run(["modprobe", "--quiet", name], check=False)
        missing = _missing_modules()
    if missing:
        raise SystemExit(
            f"the cluster needs the kernel's {' and '.join(missing)}, which could not be loaded from "
            f"here; load them on the machine that has this kernel: modprobe -a {' '.join(missing)}"
        )


def _missing_modules() -> list[str]:
    # By what they bring, not by a list of modules: they may be built in.
    missing = (
        [] if Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() else ["br_netfilter"]
    )
    if "overlay" not in Path("/proc/filesystems").read_text().split():
        missing.append("overlay")
    return missing


def connect(pid: int) -> None:
    """Make the network interface between the machine and a process's network namespace."""
    _ip("link", "add", HOST_INTERFACE, "type", "veth", "peer", "name", NODE_INTERFACE, "netns", pid)
    _ip("address", "add", f"{HOST_ADDRESS}/30", "dev", HOST_INTERFACE)
    _ip("link", "set", HOST_INTERFACE, "up")
    for network in (POD_NETWORK, SERVICE_NETWORK):
        _ip("route", "add", network, "via", NODE_ADDRESS)


def disconnect() -> None:
    """Remove the interface, should it have outlived its namespace."""
    if Path("/sys/class/net", HOST_INTERFACE).exists():
        subprocess.run(["ip", "link", "delete", HOST_INTERFACE], check=False, capture_output=True)


def note_kernel_settings(path: Path) -> None:
    """Write down what the kubelet will change; a note of an earlier start stays."""
    if not path.exists():
        found = {name: Path("/proc/sys", name).read_text().strip() for name in KERNEL_SETTINGS}
        path.write_text(json.dumps(found))


def restore_kernel_settings(path: Path) -> None:
    """Set back what was noted."""
    if path.exists():
        for name, value in json.loads(path.read_text()).items():
            if Path("/proc/sys", name).read_text().strip() != value:
                Path("/proc/sys", name).write_text(value)


def control_groups() -> list[Path]:
    """Return our control groups and those of the pods below, the deepest first."""
    tops = [top / CONTROL_GROUP for top in (GROUPS, *GROUPS.iterdir())]
    found = [Path(folder) for top in tops for folder, _, _ in os.walk(top)]
    return sorted(found, key=lambda path: -len(path.parts))


def remove_control_groups() -> None:
    """Remove our control groups, once the last process of each has ended."""
    for group in control_groups():
        _remove(group)


def traces() -> list[str]:
    """Return what a cluster that is gone should not have left."""
    interface = Path("/sys/class/net", HOST_INTERFACE)
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return [
        *map(str, control_groups()),
        *([HOST_INTERFACE] if interface.exists() else []),
        *(line for line in mounts if "kubevo-cluster" in line),
    ]


def _remove(group: Path) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError as exc:
            if time.monotonic() > deadline:
                left = (group / "cgroup.procs").read_text().split()
                raise SystemExit(f"{group} cannot be removed, processes {left}: {exc}") from exc
            time.sleep(0.05)
        else:
            return


def _ip(*arguments: object) -> None:
    command = ["ip", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
