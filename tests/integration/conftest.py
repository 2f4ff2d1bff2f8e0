"""Real searches for these tests: `kubevo run` as a process of its own, watched and ended by pid.

Every process of a run inherits a mark in its environment, so that the run's processes are known
exactly: for killing one of them, and for finding that none was left behind.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubevo_core import names
from kubevo_runtime.store import open_run

MARK = "KUBEVO_TEST_RUN"
LEFT_SECONDS = 20.0
LOOK_AGAIN_SECONDS = 0.01
GA = {
    "populationSize": 10,
    "parents": 4,
    "mutationPower": "0.05",
    "eliteCandidates": 3,
    "eliteEpisodes": 2,
    "testEpisodes": 2,
}


def wait_until(condition: Callable[[], Any], what: str, seconds: float = LEFT_SECONDS) -> Any:
    """Return the first true value of ``condition``; fail when none comes in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(LOOK_AGAIN_SECONDS)
    return value


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may just have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@dataclass(frozen=True)
class Child:
    """A process of a run; ``worker`` is its name in results, if it is one."""

    pid: int
    worker: str | None
    is_broker: bool


@dataclass
class Search:
    """One search, carried by one `kubevo run` after another on the same directory."""

    document: dict[str, Any]
    folder: Path
    workers: int
    environment: dict[str, str]
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    starts: int = 0
    driver: "subprocess.Popen[bytes]" = field(init=False)

    @property
    def directory(self) -> Path:
        """The run's own directory, once it is there."""
        found = [path.parent for path in (self.folder / "data").glob("local/*/OWNER")]
        assert len(found) == 1, f"expected one run, found {found}"
        return found[0]

    @property
    def broker_id(self) -> str:
        """What names the run on its broker."""
        run = open_run(self.directory)
        return names.experiment_id(run.name, run.uid)

    def start(self, *, resume: bool = False) -> None:
        """Start the command, as the leader of a process group of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "experiment.yaml"
        file.write_text(yaml.safe_dump(self.document))
        argv = [sys.executable, "-m", "kubevo_cli", "run", str(file), "--output", "json"]
        argv += ["--workers", str(self.workers), "--data", str(self.folder / "data")]
        self.starts += 1
        with self._log("out").open("wb") as out, self._log("err").open("wb") as err:
            self.driver = subprocess.Popen(
                [*argv, "--resume"] if resume else argv,
                env={**os.environ, **self.environment, MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def _log(self, stream: str) -> Path:
        return self.folder / f"{stream}-{self.starts}.log"

    def require_running(self) -> None:
        """Fail with the command's own words when it has ended."""
        code = self.driver.poll()
        assert code is None, f"kubevo run ended with code {code}:\n{self._said()}"

    def _said(self) -> str:
        return self._log("err").read_text()[-3000:]

    def finish(self, seconds: float = 200) -> dict[str, Any]:
        """Wait for success and for the end of all processes, and return the summary."""
        try:
            code = self.driver.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"kubevo run was not done within {seconds:g} s:\n{self._said()}")
        assert code == 0, f"kubevo run ended with code {code}:\n{self._said()}"
        wait_until(lambda: not self.children(), "the end of all processes of the run")
        summary: dict[str, Any] = json.loads(self._log("out").read_text())
        return summary

    def children(self) -> list[Child]:
        """Return the broker and the workers that live now, by the mark that they inherited."""
        found = []
        wanted = f"{MARK}={self.mark}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.driver.pid:
                continue
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
                program = (entry / "cmdline").read_bytes().split(b"\0")[0]
            except OSError:  # ended, or somebody else's
                continue
            if wanted in variables:
                prefix = b"KUBEVO_WORKER="
                name = next((v[len(prefix) :] for v in variables if v.startswith(prefix)), None)
                found.append(
                    Child(
                        int(entry.name),
                        name.decode() if name else None,
                        program.endswith(b"/nats-server"),
                    )
                )
        return found

    def kill(self) -> None:
        """Kill the command's process group with SIGKILL; its children must end with it, by pid."""
        pids = {child.pid for child in self.children()}
        os.killpg(self.driver.pid, signal.SIGKILL)
        assert self.driver.wait(LEFT_SECONDS) == -signal.SIGKILL
        wait_until(
            lambda: not self.children() and not any(_is_alive(pid) for pid in pids),
            f"the end of the children {sorted(pids)} after the SIGKILL of their parent",
        )

    def history(self, repeat: int = 0) -> list[dict[str, Any]]:
        """Return the rows of a repeat's history."""
        file = self.directory / f"repeat-{repeat}" / "history.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]

    def end(self) -> None:
        """End whatever is still there, for a test that failed."""
        if self.starts and self.driver.poll() is None:
            send(self.driver.pid, signal.SIGKILL)
            self.driver.wait(LEFT_SECONDS)
        for child in self.children() if self.starts else ():
            send(child.pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has reaped yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def make_document(
    environment: dict[str, Any], policy: dict[str, Any], **spec: Any
) -> dict[str, Any]:
    """Return a small Experiment without a target; ``spec`` replaces its fields."""
    ga = {**GA, **spec.pop("ga", {})}
    return {
        "apiVersion": "kubevo.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "same"},
        "spec": {
            "seed": 7,
            "environment": environment,
            "policy": {**policy, "backend": "numpy"},
            "algorithm": {"type": "GeneticAlgorithm", "geneticAlgorithm": ga},
            "budget": {"maxGenerations": 8},
            "checkpoint": {"keepLast": 1000},
            **spec,
        },
    }


@pytest.fixture(scope="session")
def experiment() -> Callable[..., dict[str, Any]]:
    return make_document


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(scope="session")
def new_search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Search]]:
    """Return a maker of searches that are not started yet; what is left of them ends here."""
    made: list[Search] = []

    def make(document: dict[str, Any], workers: int = 2, **environment: str) -> Search:
        folder = tmp_path_factory.mktemp("search")
        made.append(Search(document, folder, workers, environment))
        return made[-1]

    yield make
    for search in made:
        search.end()
