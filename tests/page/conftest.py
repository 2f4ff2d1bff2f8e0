"""A real server over real run directories, searched synthetically, and a real browser before it."""

import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    ViewportSize,
    async_playwright,
    expect,
)

from kubevo_core import checkpoint, container, spec
from kubevo_core import generation as engine
from kubevo_core.evaluation import Demand, Episode
from kubevo_runtime.store import create_run

SCREENSHOTS = Path(__file__).parent / "screenshots"
# Nothing that the browser does by itself reaches the network.
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
NETWORK = "mlp-4-16-2"
DESKTOP: ViewportSize = {"width": 1360, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 740}
# A chromium on a machine that builds beside its tests takes its time; a test goes on as soon as it can.
PATIENCE_MILLISECONDS = 60_000
SECONDS_A_GENERATION = 1.5

Play = Callable[[Demand], Episode]


# --- run directories -------------------------------------------------------------------------------


def document(name: str, **changes: Any) -> dict[str, Any]:
    """Return an Experiment; ``changes`` replace parts of its genetic algorithm or its budget."""
    genetic = {
        "populationSize": changes.get("population", 24),
        "parents": 6,
        "mutationPower": "0.05",
        "eliteCandidates": 3,
        "eliteEpisodes": 5,
        "testEpisodes": 6,
        "testEveryGenerations": 4,
    }
    return {
        "apiVersion": "kubevo.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "seed": changes.get("seed", 7),
            "repeats": changes.get("repeats", 1),
            "environment": {"id": changes.get("environment", "CartPole-v1")},
            "policy": {"network": "mlp", "hiddenLayers": [16]},
            "algorithm": {"type": "GeneticAlgorithm", "geneticAlgorithm": genetic},
            "budget": {"maxGenerations": changes.get("generations", 100)},
        },
    }


class Search:
    """A run that is searched one generation at a time, by a function instead of an environment."""

    def __init__(self, root: Path, name: str, play: Play, **changes: Any) -> None:
        self._play = play
        stored = document(name, **changes)
        self._spec = spec.parse(stored, "test").spec
        uid = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
        self.run = create_run(root, "local", name, uid, stored)
        self.run.claim()
        self.run.save_description(
            {
                "network": NETWORK,
                "backend": "numpy",
                "observation": "vector 4 float32",
                "actions": "discrete 2",
                "fingerprint": {"backend": "numpy"},
            }
        )
        self._states = [
            engine.start(engine.Settings.of(self._spec, repeat, NETWORK))
            for repeat in range(self._spec.repeats)
        ]

    def advance(self, generations: int = 1) -> None:
        """Search ``generations`` more, and save each as the driver does."""
        for repeat in range(len(self._states)):
            for _ in range(generations):
                self._states[repeat] = self._finished(self._states[repeat])
                self._save(repeat, self._states[repeat])

    def _finished(self, state: engine.State) -> engine.State:
        limits = engine.Limits.of(self._spec)
        while not engine.is_complete(state):
            for demand in engine.ask(state, limits):
                engine.tell(state, self._play(demand))
        return engine.finish(state, limits, SECONDS_A_GENERATION * (state.generation + 1))

    def _save(self, repeat: int, state: engine.State) -> None:
        store, done = self.run.repeat(repeat), state.finished
        assert done is not None
        header = container.Header(self.run.uid, repeat, done.generation)
        sealed = container.seal(header, checkpoint.encode(state))
        store.save(done.generation, sealed, done.row(), checkpoint.scores(done))
        # All episodes of a test, once the search has ended.
        for demand in engine.ask(state, engine.Limits(max_generations=0)) if state.stop else ():
            engine.tell(state, self._play(demand))
        for report in engine.completed_tests(state):
            store.append_test(report.row())
            state = engine.close_tests(state, [(report.generation, report.purpose)])


@dataclass
class Data:
    """A data directory and the searches in it."""

    root: Path
    play: Play
    failing: Play
    stack: ExitStack = field(default_factory=ExitStack)

    def search(self, name: str, *, fails: bool = False, **changes: Any) -> Search:
        """Make a run; nothing of it is searched yet."""
        return Search(self.root, name, self.failing if fails else self.play, **changes)

    def hold(self, search: Search) -> None:
        """Work on a run as `kubevo run` does, until the test ends."""
        self.stack.enter_context(search.run.lock())

    def many(self, count: int) -> None:
        """Make runs that have not begun: the cheapest ones that there can be."""
        for number in range(count):
            name = f"sweep-{number:04d}"
            environment = ("CartPole-v1", "Acrobot-v1", "LunarLander-v3")[number % 3]
            uid = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
            create_run(
                self.root, "local", name, uid, document(name, seed=number, environment=environment)
            )


@pytest.fixture
def data(tmp_path: Path, synthetic_play: Callable[..., Play]) -> Iterator[Data]:
    root = tmp_path / "data"
    root.mkdir()

    def failing(demand: Demand) -> Episode:
        return Episode(
            demand.key, None, 3, 12, "ValueError: <b>observation</b> has 5 values, not 4"
        )

    made = Data(root, synthetic_play("climb"), failing)
    with made.stack:
        yield made


# --- the server ------------------------------------------------------------------------------------


class Server:
    """`kubevo serve DIR`, started when its address is first asked for.

    So whatever a test has put into the directory before is there at once. It may be ended and
    started again at the same port.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._url = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it says where it is."""
        port = self._url.partition("/#")[0].rpartition(":")[2] or "0"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kubevo_cli", "serve", str(self._directory), "--port", port],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        found = re.search(r"http://\S+#token=\S+", self._process.stdout.readline())
        if found is None:
            self.stop()
            pytest.fail("kubevo serve did not print where it is")
        self._url = found[0]

    def stop(self) -> None:
        """End it; a second time changes nothing."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    @property
    def url(self) -> str:
        """The address that it prints, with the token."""
        if not self._url:
            self.start()
        return self._url

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return self.url.partition("/#")[0]

    def at(self, place: str) -> str:
        """Return the address of a view with the token, as a person would open it."""
        return f"{self.url}&{place}"


@pytest.fixture
def serve(data: Data) -> Iterator[Server]:
    """Serve ``data``; a run made later appears within a second or so."""
    server = Server(data.root)
    yield server
    server.stop()


# --- the browser -----------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Start one browser for all tests; each tab gets a profile of its own."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield launched
        await launched.close()


class Tab:
    """A page that fails its test when anything goes wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.set_default_timeout(PATIENCE_MILLISECONDS)
        page.on("pageerror", lambda error: self.errors.append(f"{error.name}: {error.message}"))
        page.on("console", self._said)

    def _said(self, message: ConsoleMessage) -> None:
        # The browser itself notes answers such as 404; the page must show them, and is tested for it.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(message.text)

    async def shot(self, name: str, *, full: bool = True) -> None:
        """Keep a picture of what is shown, once nothing moves."""
        SCREENSHOTS.mkdir(exist_ok=True)
        if full:  # what sticks to the window's top would be in the middle
            await self.page.evaluate("window.scrollTo(0, 0)")
        await self.page.screenshot(
            path=SCREENSHOTS / f"{name}.png", full_page=full, animations="disabled"
        )

    async def drawn(self, charts: int = 1) -> None:
        """Wait until so many charts are drawn."""
        await self.page.wait_for_function(
            "n => document.querySelectorAll('.chart .main-svg .xy').length >= n", arg=charts
        )

    async def is_wider_than_the_window(self) -> bool:
        """Tell whether a person would have to scroll sideways."""
        wide: bool = await self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        return wide


OpenTab = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="session")
async def open_tab(browser: Browser) -> AsyncIterator[OpenTab]:
    """Return a function that opens an address in a new browser profile."""
    contexts: list[BrowserContext] = []
    tabs: list[Tab] = []

    async def opened(address: str, *, phone: bool = False, **options: Any) -> Tab:
        context = await browser.new_context(viewport=PHONE if phone else DESKTOP, **options)
        contexts.append(context)
        tab = Tab(await context.new_page())
        tabs.append(tab)
        await tab.page.goto(address)
        return tab

    yield opened
    for context in contexts:
        await context.close()
    assert [error for tab in tabs for error in tab.errors] == []
