"""A service over a real directory of runs: in this process for most tests, over a socket for some."""

import asyncio
import dataclasses
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from api_parts import AUTHORIZED, EXPERIMENTS, TOKEN
from fastapi.testclient import TestClient

from kubevo_api.access import Access, LocalAccess
from kubevo_api.app import create_app
from kubevo_api.catalogue import Catalogue
from kubevo_api.local import LocalCatalogue
from kubevo_api.runs import Library
from kubevo_api.serve import assemble, listen, serve_forever
from kubevo_api.settings import ApiSettings
from kubevo_runtime.store import Run


@pytest.fixture
def settings(tmp_path: Path) -> ApiSettings:
    return ApiSettings(data=tmp_path / "data", api_cache=tmp_path / "cache", api_streams_each=3)


@pytest.fixture
def client(settings: ApiSettings) -> Iterator[TestClient]:
    """Return a client of a service for ``data``; its ``look`` lets the service look there now."""
    settings.data.mkdir(exist_ok=True)
    library = Library()
    catalogue = LocalCatalogue(settings.data, library)
    context = assemble(settings, catalogue, LocalAccess(TOKEN), library)
    with TestClient(create_app(context), headers=AUTHORIZED) as found:
        found.look = lambda: found.portal.call(catalogue.look)
        yield found


@pytest.fixture
def make_run(client: TestClient, make_run: Callable[..., Run]) -> Callable[..., Run]:
    """Return a maker of finished runs, which the service knows at once."""

    def make(**changes: Any) -> Run:
        run = make_run(**changes)
        client.look()
        return run

    return make


@pytest.fixture
def get(client: TestClient) -> Callable[..., Any]:
    """Return a getter of what a path below an Experiment answers, as JSON."""

    def fetch(path: str, **query: Any) -> Any:
        client.look()
        answer = client.get(f"{EXPERIMENTS}/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return fetch


class Served(NamedTuple):
    """A service of its own, as `kubevo serve` starts it."""

    host: str
    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def starter(folder: Path) -> Iterator[Callable[[Path], Served]]:
    """Give a starter of `kubevo serve`, whose processes end with the context."""
    processes: list[subprocess.Popen[str]] = []

    def start(directory: Path) -> Served:
        command = [sys.executable, "-m", "kubevo_cli", "serve", str(directory), "--port", "0"]
        with (folder / "serve.log").open("w") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line, (folder / "serve.log").read_text()
        place, _, token = line.partition("/#token=")
        host, _, port = place.removeprefix("http://").partition(":")
        return Served(host, int(port), token)

    try:
        yield start
    finally:
        for process in processes:
            process.terminate()
            process.wait(20)
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Path], Served]]:
    """Return a starter of `kubevo serve` for a directory."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def serve_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Path], Served]]:
    """Return a starter of `kubevo serve` for a module's tests."""
    with starter(tmp_path_factory.mktemp("served")) as start:
        yield start


@contextmanager
def served_here(
    settings: ApiSettings, catalogue: Catalogue | None = None, access: Access | None = None
) -> Iterator[Served]:
    """Serve with settings of a test's own, from a thread of this process."""
    settings = dataclasses.replace(settings, api_port=0, api_address="127.0.0.1")
    settings.data.mkdir(exist_ok=True)
    library = Library()
    catalogue = catalogue or LocalCatalogue(settings.data, library)
    context = assemble(settings, catalogue, access or LocalAccess(TOKEN), library)
    ready, over = threading.Event(), threading.Event()

    async def serve(listening: socket.socket) -> None:
        app = create_app(context)
        task = asyncio.create_task(serve_forever(app, settings, listening, ready.set))
        await asyncio.to_thread(over.wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with listen(settings) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(serve(listening)))
        thread.start()
        try:
            assert ready.wait(20)
            yield Served("127.0.0.1", listening.getsockname()[1], TOKEN)
        finally:
            over.set()
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def serve_here() -> Callable[..., AbstractContextManager[Served]]:
    """Return a context that serves with settings of a test's own."""
    return served_here
