"""Bring the one-node cluster up on this machine, load images into it, and take every trace away.

``python local_cluster.py up|build|down|load NAME...``, by `make cluster`, `make e2e`, `make
cluster-down` and `make cluster-load`; `conftest.py` uses the functions. All can be called twice and
after a kill.
"""

import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import host
from layout import Layout, programs, the_layout
from node_files import write_files
from node_images import load_from_docker
from node_process import (
    Measured,
    end_node,
    is_process,
    node_pid,
    note_process,
    start_node,
    wait_for_node,
)

NEEDED = ("containerd", "ctr", "runc", "iptables", "ip", "unshare")
PLUGINS = Path("/usr/lib/cni")


def is_up(layout: Layout) -> bool:
    """Return whether the namespaces' first process lives and became ready; not one cut off halfway."""
    return bool(node_pid(layout)) and layout.ready.exists()


def up_for_a_session(layout: Layout) -> bool:
    """Bring the cluster up for a test session; return whether a person's was up and is used.

    Raises:
        SystemExit: another session's cluster is in use, or as `up`.
    """
    if is_process(layout.session):
        raise SystemExit(
            f"another test session uses the cluster of {layout.folder}; wait for its end"
        )
    end_a_leftover(layout)
    was_up = is_up(layout)
    up(layout, session=True)
    return was_up


def end_a_leftover(layout: Layout) -> None:
    """Take down what a test session left that was cut off: it is full of the tests' things."""
    if layout.session.exists() and not is_process(layout.session):
        down(layout)


def is_sessions(layout: Layout) -> bool:
    """Return whether the cluster was brought up by this very process, for its tests."""
    return is_process(layout.session, os.getpid())


def keep(layout: Layout) -> None:
    """Make the cluster a person's own: no session takes it away."""
    layout.session.unlink(missing_ok=True)


def up(layout: Layout, *, session: bool = False) -> list[tuple[str, float]]:
    """Bring the cluster up unless it is; return each phase's seconds, printed as they end.

    ``session``: note that it is this process's, for its tests.

    Raises:
        SystemExit: not root, a package is missing, or a program failed; the message has its log's end.
    """
    check_machine(layout)
    if is_up(layout):
        return []
    with _alone():
        _clear(layout)
        phases = Measured()
        binaries = sorted({path.parent for path in programs().values()})
        phases.ended("programs built")
        layout.folder.mkdir(parents=True)
        if session:
            note_process(layout.session, os.getpid())
        host.note_kernel_settings(layout.folder / "kernel.json")
        write_files(layout)
        try:
            start_node(layout, binaries, phases)
            wait_for_node(layout)
            layout.ready.touch()
            phases.ended("node ready, DNS, accounts")
        except BaseException:
            end_node(layout)  # the folder stays, for its logs; the next start clears it
            raise
        return phases


def down(layout: Layout) -> None:
    """End everything and remove every trace.

    Raises:
        SystemExit: something is left; the message says what.
    """
    _check_root()
    with _alone():
        _clear(layout)
    if left := host.traces():
        raise SystemExit(f"left after make cluster-down: {', '.join(left)}")


def check_machine(layout: Layout) -> None:
    """Refuse a machine that cannot run a node, with what is missing."""
    _check_root()
    missing = [name for name in NEEDED if not shutil.which(name)]
    missing += [] if (PLUGINS / "bridge").exists() else [f"{PLUGINS}/bridge"]
    if missing:
        raise SystemExit(f"the cluster needs {', '.join(missing)}: make cluster-packages (Debian)")
    covered = [top for top in ("/run", "/var/lib", "/var/log") if layout.folder.is_relative_to(top)]
    if covered:
        raise SystemExit(
            f"KUBEVO_CLUSTER_DIR={layout.folder} is in {covered[0]}; use another place"
        )
    if not is_up(layout):
        host.load_modules()
        host.check_network()


def _check_root() -> None:
    if os.geteuid() != 0 or sys.platform != "linux":
        raise SystemExit(
            f"the cluster needs Linux and root, and this is uid {os.getuid()} on {sys.platform}; "
            "as root: sudo make cluster; or set KUBECONFIG to a cluster of your own"
        )


@contextmanager
def _alone() -> Iterator[None]:
    """Refuse to work beside another `up` or `down`; the name leaves no trace, even after a kill."""
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind("\0kubevo-cluster")
        except OSError as exc:
            raise SystemExit(
                "another make cluster or cluster-down is at work; wait for it"
            ) from exc
        yield


def _clear(layout: Layout) -> None:
    end_node(layout)
    # A mount that is still being taken down, with the namespace, makes the first attempt fail.
    for left in range(50, -1, -1):
        try:
            shutil.rmtree(layout.folder)
        except FileNotFoundError:
            return
        except OSError:
            if not left:
                raise
            time.sleep(0.1)
        else:
            return


def main(arguments: list[str]) -> None:
    """Run one of the commands."""
    layout = the_layout()
    match arguments:
        case ["up"]:
            end_a_leftover(layout)
            up(layout)
            keep(layout)
            print(f"export KUBECONFIG={layout.admin}")
            print(f"export PATH={programs()['kubectl'].parent}:$PATH")
        case ["build"]:
            check_machine(layout)
            programs()
        case ["down"]:
            down(layout)
        case ["load", *names] if names:
            if not is_up(layout):
                raise SystemExit("no cluster is up on this machine: make cluster")
            phases = Measured()
            try:
                load_from_docker(layout.socket, names)
            except RuntimeError as exc:
                raise SystemExit(str(exc)) from exc
            phases.ended(f"{len(names)} images loaded")
        case _:
            raise SystemExit("usage: local_cluster.py up | build | down | load NAME...")


if __name__ == "__main__":
    main(sys.argv[1:])
