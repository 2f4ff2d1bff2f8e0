"""A real `kubevo serve` over finished runs, and clients of it."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kubevo_client import Client


class Served(NamedTuple):
    directory: Path
    port: int
    token: str
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **arguments) -> Client:
        return Client(self.url, self.token, **arguments)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="session")
def start_service(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Served]]:
    """Return a starter of `kubevo serve`; its processes end with the session."""
    started: list[subprocess.Popen[str]] = []
    log = tmp_path_factory.mktemp("served") / "serve.log"

    def start(directory: Path, port: int = 0) -> Served:
        command = [sys.executable, "-m", "kubevo_cli", "serve", str(directory)]
        with log.open("a") as errors:
            process = subprocess.Popen(
                [*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=errors, text=True
            )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line, log.read_text()
        place, _, token = line.partition("/#token=")
        return Served(directory, int(place.rpartition(":")[2]), token, process)

    yield start
    for process in started:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def served(
    start_service: Callable[..., Served],
    make_run_in: Callable,
    tmp_path_factory: pytest.TempPathFactory,
) -> Served:
    """Return a service over three finished runs; tests only read it."""
    data = tmp_path_factory.mktemp("client") / "data"
    make_run_in(data, "first")
    make_run_in(data, "second", fail_every=5, repeats=2)
    make_run_in(data, "third", law="noise", budget={"maxGenerations": 5})
    return start_service(data)


@pytest.fixture
def client(served: Served) -> Client:
    return served.client()


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
