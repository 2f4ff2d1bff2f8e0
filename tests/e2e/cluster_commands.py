"""kubectl and helm as the tests call them: a command's output, or an exception with what it said."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import binaries

Document = dict[str, Any]


class CommandFailed(RuntimeError):
    """A program of the tests ended with an error; the message is what it said."""


class Commands:
    """What kubectl and helm do and say, with the administrator's kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._home = TemporaryDirectory(prefix="kubevo-e2e-")

    def close(self) -> None:
        """Remove what kubectl and helm have kept."""
        self._home.cleanup()

    # --- commands -----------------------------------------------------------------------------------

    def kubectl(self, *arguments: str | Path, namespace: str = "", stdin: str | None = None) -> str:
        """Run kubectl and return what it prints.

        Raises:
            CommandFailed: it failed.
        """
        command = [self._program("kubectl"), *([f"--namespace={namespace}"] if namespace else [])]
        return self._run([*command, *map(str, arguments)], stdin)

    def helm(self, *arguments: str | Path, namespace: str = "") -> str:
        """Run helm and return what it prints; its caches are in a folder of the tests' own.

        Raises:
            CommandFailed: it failed.
        """
        command = [self._program("helm"), *([f"--namespace={namespace}"] if namespace else [])]
        return self._run([*command, *map(str, arguments)])

    def shell(self, command: str, folder: Path) -> str:
        """Run a command line in ``folder``, with kubectl, helm and kubevo on the path.

        Raises:
            CommandFailed: it failed.
        """
        return self._run(["bash", "-euo", "pipefail", "-c", command], folder=folder)

    def token(self, account: str, *, namespace: str) -> str:
        """Return a ServiceAccount's token, as a pod would have it."""
        return self.kubectl("create", "token", account, namespace=namespace).strip()

    def apply(self, *documents: Document, namespace: str = "") -> None:
        """Apply objects on the server's side."""
        listed = {"apiVersion": "v1", "kind": "List", "items": documents}
        self.kubectl(
            "apply", "--server-side", "-f", "-", namespace=namespace, stdin=json.dumps(listed)
        )

    def get(self, *what: str, namespace: str = "") -> Document:
        """Return an object or a list: ``get("pod", "web-0", namespace=...)``."""
        return dict(json.loads(self.kubectl("get", *what, "-o", "json", namespace=namespace)))

    def pods(self, selector: str, namespace: str) -> list[Document]:
        """Return the pods with these labels that are not being deleted."""
        found = self.get("pods", f"--selector={selector}", namespace=namespace)["items"]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def exec(self, pod: str, *command: str, namespace: str, container: str = "") -> str:
        """Run a command in a pod (or ``deploy/name``) and return what it prints."""
        options = [f"--container={container}"] if container else []
        return self.kubectl("exec", pod, *options, "--", *command, namespace=namespace)

    def logs(self, pod: str, *, namespace: str, container: str = "", previous: bool = False) -> str:
        """Return a container's log; ``previous``: of the run before its restart."""
        options = [f"--container={container}"] if container else []
        options += ["--previous"] if previous else []
        return self.kubectl("logs", pod, *options, namespace=namespace)

    def wait(self, what: str, condition: str, *, namespace: str, seconds: float = 60) -> None:
        """Wait for a condition, as ``kubectl wait --for``: ``wait("deploy/x", "condition=Available")``."""
        options = (f"--for={condition}", f"--timeout={seconds:.0f}s")
        self.kubectl("wait", what, *options, namespace=namespace)

    @staticmethod
    def until(what: str, holds: Callable[[], Any], seconds: float = 60) -> Any:
        """Return what ``holds`` returns once it is true; a failing command counts as not yet."""
        deadline, last = time.monotonic() + seconds, ""
        while True:
            try:
                found = holds()
            except CommandFailed as exc:
                found, last = None, str(exc)
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:.0f} s: {what}. {last}")
            time.sleep(0.2)

    @contextmanager
    def forward(self, what: str, port: int, *, namespace: str) -> Iterator[str]:
        """Forward a local port to a Service's (or ``pod/name``'s) and return ``127.0.0.1:N``."""
        target = what if "/" in what else f"service/{what}"
        command = [self._program("kubectl"), f"--namespace={namespace}", "port-forward", target]
        with subprocess.Popen(
            [*command, f":{port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment(),
        ) as process:
            try:
                assert process.stdout is not None
                said = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:\d+", said)
                if not found:
                    raise CommandFailed(f"kubectl port-forward {target}: {said}")
                yield found[0]
            finally:
                process.terminate()

    def story(self, namespace: str) -> str:
        """Return what a person would look at: objects, events, and the end of every log."""
        parts = [
            self._said("get", "all,pvc", "-o", "wide", namespace=namespace),
            self._said("get", "experiments", "-o", "yaml", namespace=namespace),
            self._said("get", "events", "--sort-by=.lastTimestamp", namespace=namespace),
        ]
        for pod in self.get("pods", namespace=namespace)["items"]:
            name = pod["metadata"]["name"]
            options = ("--all-containers", "--prefix", "--tail=40")
            parts.append(self._said("logs", name, *options, namespace=namespace))
        return "\n".join(parts)

    def _said(self, *arguments: str, namespace: str) -> str:
        try:
            return self.kubectl(*arguments, namespace=namespace)
        except CommandFailed as exc:
            return str(exc)

    def _program(self, name: str) -> str:
        built = binaries.binaries() / name
        return str(built) if built.exists() else shutil.which(name) or name

    def _environment(self) -> dict[str, str]:
        # Nothing of a test cluster in the home of who runs the tests.
        names = ("KUBECACHEDIR", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
        homes = {name: str(Path(self._home.name) / name.lower()) for name in names}
        path = [str(binaries.binaries()), str(Path(sys.executable).parent), os.environ["PATH"]]
        return {
            **os.environ,
            **homes,
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": os.pathsep.join(path),
        }

    def _run(
        self, command: Sequence[str], stdin: str | None = None, folder: Path | None = None
    ) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=self._environment(),
        )
        if done.returncode:
            name = Path(command[0]).name
            raise CommandFailed(f"{name} {' '.join(command[1:])}: {done.stderr}{done.stdout}")
        return done.stdout
