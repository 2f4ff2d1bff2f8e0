"""The node as a process: started in its namespaces, waited for, ended, and why it has ended.

The first process is noted with its start time, so that a number which another process has by now is
never taken for it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import host
from layout import NODE, NODE_ADDRESS, Layout, programs

READY_SECONDS = 90.0
# Our children that live: Python warns of one that is forgotten.
STARTED: list[subprocess.Popen[str]] = []


class Measured(list[tuple[str, float]]):
    """The seconds of each phase, since the phase before."""

    def __init__(self) -> None:
        super().__init__()
        self._since = time.monotonic()

    def ended(self, name: str) -> None:
        """Note and print a phase that ends now."""
        now = time.monotonic()
        self.append((name, now - self._since))
        print(f"{now - self._since:7.1f} s  {name}", file=sys.stderr, flush=True)
        self._since = now


def node_pid(layout: Layout) -> int:
    """Return the node's first process, if it is still that one; else 0."""
    return _noted(layout.pid_file)


def note_process(path: Path, pid: int) -> None:
    """Note a process with its start time."""
    path.write_text(json.dumps({"pid": pid, "start": host.start_time(pid)}))


def is_process(path: Path, pid: int = 0) -> bool:
    """Return whether the process that was noted lives (and is ``pid``)."""
    found = _noted(path)
    return bool(found) and pid in (0, found)


def _noted(path: Path) -> int:
    try:
        noted = json.loads(path.read_text())
    except (OSError, ValueError):
        return 0
    same = noted["start"] and host.start_time(noted["pid"]) == noted["start"]
    return int(noted["pid"]) if same else 0


def start_node(layout: Layout, binaries: list[Path], phases: Measured) -> None:
    node = Path(__file__).with_name("node.py")
    with (layout.logs / "node.log").open("ab") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--propagation=slave", "--net", "--pid", "--fork",
             "--kill-child", sys.executable, node, layout.folder, *binaries],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            start_new_session=True,
        )  # fmt: skip
    STARTED.append(process)
    note_process(layout.pid_file, process.pid)
    assert process.stdin is not None
    assert process.stdout is not None
    network = Path(f"/proc/{process.pid}/ns/net")
    own = Path("/proc/self/ns/net").readlink()
    # The parent enters the namespaces itself before it makes the child.
    while not host.children(process.pid) or network.readlink() == own:
        if process.poll() is not None:
            raise SystemExit(_why(layout))
        time.sleep(0.01)
    host.connect(process.pid)
    process.stdin.write("connected\n")
    process.stdin.close()
    for line in process.stdout:
        said = json.loads(line)
        if said.get("ready"):
            process.stdout.close()
            return
        phases.ended(said["phase"])
    raise SystemExit(_why(layout))


def wait_for_node(layout: Layout) -> None:
    """Wait for what the first pod needs: a ready node, an account, a name server."""
    checks = (
        ("get", "--raw", "/api/v1/namespaces/default/serviceaccounts/default"),
        ("get", "--raw", "/apis/storage.k8s.io/v1/storageclasses/local"),
        ("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=1s"),
    )
    deadline = time.monotonic() + READY_SECONDS
    while True:
        said = [_kubectl(layout, *check) for check in checks]
        failed = [done.stderr.strip() for done in said if done.returncode]
        if not failed and _has_dns():
            return
        if time.monotonic() > deadline or not node_pid(layout):
            raise SystemExit(f"{_why(layout)}\n{'; '.join(failed)}")
        time.sleep(0.1)


def end_node(layout: Layout) -> None:
    """End the namespaces' first process, with it every other, and undo what is outside."""
    pid = node_pid(layout)
    if pid:
        # PID 1 of the namespace: its parent ends by itself when the kernel has ended all the others.
        for each in host.children(pid) or [pid]:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        deadline = time.monotonic() + host.GONE_SECONDS
        while node_pid(layout) and time.monotonic() < deadline:
            time.sleep(0.02)
    STARTED[:] = [process for process in STARTED if process.poll() is None]
    host.remove_control_groups()
    host.disconnect()
    host.restore_kernel_settings(layout.folder / "kernel.json")


def _kubectl(layout: Layout, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run kubectl as the administrator."""
    command = [str(programs()["kubectl"]), f"--kubeconfig={layout.admin}", *arguments]
    environment = {**os.environ, "KUBECACHEDIR": str(layout.folder / "cache")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def _has_dns() -> bool:
    try:
        with socket.create_connection((NODE_ADDRESS, 53), timeout=1):
            return True
    except OSError:
        return False


def _why(layout: Layout) -> str:
    """Return why the node ended and the last lines of what its programs said."""
    failed = layout.folder / "failed"
    why = failed.read_text().strip() if failed.exists() else "the node did not become ready"
    name = why.split()[0]
    log = layout.logs / f"{name}.log"
    log = log if log.exists() else layout.logs / "node.log"
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    return f"{why}; logs are in {layout.logs}; the end of {log.name}:\n{last}"
