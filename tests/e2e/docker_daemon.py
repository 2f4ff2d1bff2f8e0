"""A container engine for machines where none answers: ``docker_daemon.py COMMAND [ARGUMENT ...]``.

Runs the command with the engine of DOCKER_HOST or the default socket if that answers, else (as root,
with Debian's docker.io) with a dockerd of our own, which has neither a bridge nor firewall rules:
builds and containers take the machine's network. Several may use it at once; the last one ends it.
Its images stay until ``docker_daemon.py --remove``.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path("/var/tmp/kubevo-docker")
SOCKET = f"unix://{FOLDER}/docker.sock"
PID_FILE = FOLDER / "docker.pid"
START_SECONDS, END_SECONDS = 60, 60


@contextmanager
def docker_environment() -> Iterator[dict[str, str]]:
    """Hold an engine; the value is the environment with which ``docker`` finds it.

    Raises:
        SystemExit: none answers, and none can be started; the message says what to install.
    """
    if _answers(dict(os.environ)):
        yield dict(os.environ)
        return
    _must_be_able()
    FOLDER.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "DOCKER_HOST": SOCKET}
    with (FOLDER / "gate").open("w") as gate, (FOLDER / "users").open("w") as users:
        fcntl.flock(gate, fcntl.LOCK_EX)
        started = None if _answers(environment) else _start(environment)
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            yield environment
        finally:
            fcntl.flock(gate, fcntl.LOCK_EX)
            if _is_last(users.fileno()):
                _stop(started)


def remove() -> None:
    """Remove every trace of our engine: images, containers, the folder.

    Raises:
        SystemExit: somebody uses it.
    """
    if not FOLDER.exists():
        return
    with (FOLDER / "users").open("w") as users:
        if not _is_last(users.fileno()):
            raise SystemExit(f"{FOLDER}: the engine is in use; wait for the others to end")
        _stop(None)
        # What a killed engine has left mounted would be emptied instead of removed.
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            target = line.split()[1]
            if Path(target).is_relative_to(FOLDER):
                subprocess.run(["umount", "--lazy", target], check=True)
        shutil.rmtree(FOLDER)


def _is_last(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _answers(environment: dict[str, str]) -> bool:
    if shutil.which("docker") is None:
        return False
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    return done.returncode == 0


def _must_be_able() -> None:
    missing = [name for name in ("docker", "dockerd") if shutil.which(name) is None]
    if os.geteuid() or missing:
        raise SystemExit(
            "no container engine answers: start docker, set DOCKER_HOST, or be root on a machine "
            f"with docker and dockerd ({' and '.join(missing) or 'both are here'}; on Debian: "
            "apt-get install docker.io)"
        )


def _start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    PID_FILE.unlink(missing_ok=True)
    command = ["dockerd", "--host", SOCKET, "--pidfile", str(PID_FILE)]
    command += ["--data-root", str(FOLDER / "data"), "--exec-root", str(FOLDER / "exec")]
    command += ["--bridge", "none", "--iptables=false", "--ip-forward=false"]
    log = FOLDER / "dockerd.log"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C must end the command first and the engine after it.
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    try:
        while not _answers(environment):
            if started.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"dockerd does not answer; its last words in {log}:\n{_last(log)}")
            time.sleep(0.2)
    except BaseException:  # Ctrl-C, too
        started.terminate()
        raise
    return started


def _stop(started: subprocess.Popen[bytes] | None) -> None:
    try:
        pid = int(PID_FILE.read_text())
        told = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except (OSError, ValueError):
        return  # it has ended
    if str(PID_FILE) not in told:
        return  # the number is another program's by now
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS
    while Path(f"/proc/{pid}").exists():
        if started is not None and started.pid == pid and started.poll() is not None:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"dockerd (pid {pid}) does not end; see {FOLDER}/dockerd.log")
        time.sleep(0.1)


def _last(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])


def main() -> int:
    """Run the command line's command and return its exit code."""
    command = sys.argv[1:]
    if not command:
        raise SystemExit(
            "usage: docker_daemon.py COMMAND [ARGUMENT ...] | docker_daemon.py --remove"
        )
    if command == ["--remove"]:
        remove()
        return 0
    # So that a tidy end also follows `kill` and a CI's time limit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with docker_environment() as environment:
        return _run(command, environment)


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command until it ends by itself: whoever interrupts it waits for what it tidies up."""
    started: list[subprocess.Popen[bytes]] = []

    def forward(*_: object) -> None:
        if not started:
            sys.exit(128 + signal.SIGTERM)
        started[0].send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, forward)
    # The terminal tells the command as well. A handler, since a child would inherit SIG_IGN.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)
    started.append(subprocess.Popen(command, env=environment))
    code = started[0].wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
