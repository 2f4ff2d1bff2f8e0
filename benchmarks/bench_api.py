"""The REST service under load: latencies at p99, its memory, and what a search notices of it.

A real `kubevo serve` over a directory of 1,000 runs: one of 10,000 generations, one whose model has
16 MB, and one that `kubevo run` searches meanwhile, which 200 event streams follow. Run it by
`make bench-api`.

The search (driver, broker, worker) has one core, the service and all clients together another, so
that the last figures tell what being looked at costs a search where cores are not short: its driver's
CPU seconds a generation, and its generations a wall second, with the whole load over without, in
rounds that take turns. The second is the first with the noise of a shared machine: the quartiles say
how much.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from conftest import fill, synthetic
from kubevo_core import spec
from kubevo_runtime.store import Run, create_run

BASE = "/api/v1/namespaces/local/experiments"
STREAMS, DOWNLOADERS, ROUNDS = 200, 20, 20
ROUND_SECONDS = 5.0
MOST_SLOWER = 1.02
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
SEARCH, SERVICE = {CORES[0]}, {CORES[-1]}
WATCHED = "watched"
HISTORY = f"local/{WATCHED}-*/repeat-0/history.jsonl"


# --- what is served --------------------------------------------------------------------------------


def document(name: str, generations: int, **policy: Any) -> dict[str, Any]:
    return {
        "apiVersion": spec.API_VERSION,
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "environment": {"id": "ALE/Pong-v5" if "network" in policy else "CartPole-v1"},
            "policy": {"network": "mlp", "backend": "numpy", **policy},
            "algorithm": {
                "type": "GeneticAlgorithm",
                "geneticAlgorithm": {
                    "populationSize": 4,
                    "parents": 2,
                    "mutationPower": "0.05",
                    "eliteCandidates": 2,
                    "eliteEpisodes": 2,
                    "testEpisodes": 2,
                },
            },
            "budget": {"maxGenerations": generations},
        },
    }


def make(root: Path, name: str, generations: int, network: str | None = None) -> Run:
    policy = {"network": "large-dqn"} if network else {}
    experiment = spec.parse(document(name, generations, **policy), name)
    uid = f"{abs(hash(name)) % 2**32:08x}-0000-4000-8000-{abs(hash(name)) % 2**48:012x}"
    run = create_run(root, "local", name, uid, experiment.document())
    fill(run, experiment, synthetic("climb", 10**6), network or "mlp-4-16-2")
    return run


def lengthen(run: Run, generations: int) -> None:
    """Give a run a history of so many generations."""
    row = run.repeat(0).history()[-1]
    with (run.path / "repeat-0/history.jsonl").open("a") as file:
        for number in range(row["generation"] + 1, generations):
            file.write(json.dumps({**row, "generation": number}) + "\n")


# --- a client ----------------------------------------------------------------------------------------


class Server(NamedTuple):
    """A service that was started."""

    process: "subprocess.Popen[str]"
    port: int
    token: str

    @property
    def mebibytes(self) -> float:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * PAGE / 2**20


def serve(root: Path) -> Server:
    command = [sys.executable, "-m", "kubevo_cli", "serve", str(root), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    place, _, token = process.stdout.readline().strip().partition("/#token=")
    return Server(process, int(place.rpartition(":")[2]), token)


class Connection:
    """One connection that is kept; `get` returns the seconds to the last byte and their number."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def open(self) -> "Connection":
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        return self

    def ask(self, path: str) -> None:
        """Send a request."""
        self._writer.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._server.token}\r\n\r\n".encode()
        )

    async def get(self, path: str) -> tuple[float, int]:
        """Send a request and read the answer."""
        started = time.perf_counter()
        self.ask(path)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        assert b" 200 " in head.split(b"\r\n")[0], head
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        left = length
        while left:
            left -= len(await self._reader.read(min(left, 1 << 20)))
        return time.perf_counter() - started, length

    async def listen(self, path: str) -> None:
        """Open an event stream."""
        self.ask(path)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], head

    async def drain(self) -> int:
        """Read an event stream until it ends or this is cancelled; return the bytes."""
        count = 0
        with suppress(asyncio.CancelledError):
            while data := await self._reader.read(65536):
                count += len(data)
        return count

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


async def latencies(
    server: Server, path: str, clients: int, requests: int
) -> tuple[list[float], int]:
    """Return the seconds of each request of some clients that ask again and again."""
    size = 0

    async def one() -> list[float]:
        nonlocal size
        connection, found = await Connection(server).open(), []
        for _ in range(requests):
            seconds, size = await connection.get(path)
            found.append(seconds)
        connection.close()
        return found

    groups = await asyncio.gather(*(one() for _ in range(clients)))
    return [seconds for group in groups for seconds in group], size


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else values[0]


# --- what is measured --------------------------------------------------------------------------------


@asynccontextmanager
async def listeners(server: Server) -> AsyncIterator[None]:
    """Let STREAMS clients follow the search that is going on; every one must hear of it."""
    streams = [await Connection(server).open() for _ in range(STREAMS)]
    for stream in streams:
        await stream.listen(f"{BASE}/{WATCHED}/events")
    tasks = [asyncio.create_task(stream.drain()) for stream in streams]
    try:
        await asyncio.sleep(1)
        yield
    finally:
        for task in tasks:
            task.cancel()
        heard = await asyncio.gather(*tasks)
        for stream in streams:
            stream.close()
    assert min(heard) > 200, f"a stream heard {min(heard)} bytes"


async def under_load(server: Server, experiments: int, say: Callable[..., None]) -> None:
    async def measure(name: str, path: str, clients: int, requests: int) -> None:
        found, size = await latencies(server, path, clients, requests)
        say(name, statistics.median(found), p99(found), size, server.mebibytes)

    await measure(f"list of {experiments:,} Experiments", "/api/v1/experiments?limit=1000", 4, 50)
    await measure("history of 10,000 generations, whole", f"{BASE}/long/history", 4, 25)
    await measure(
        "history of 10,000 generations, 500 points", f"{BASE}/long/history?points=500", 4, 50
    )
    await measure("one Experiment", f"{BASE}/long", 4, 100)
    model = f"{BASE}/large/best/model.safetensors"
    async with listeners(server):
        beside = f"beside {STREAMS} event streams"
        await measure(f"one Experiment, {beside}", f"{BASE}/long", 4, 100)
        await measure(f"a model, {DOWNLOADERS} clients at once, {beside}", model, DOWNLOADERS, 5)


class Pace(NamedTuple):
    """How a search goes: generations a wall second, and its driver's CPU seconds a generation."""

    generations: float
    cpu: float


async def paces(server: Server, driver: int, history: Path) -> tuple[list[Pace], list[Pace]]:
    """Return the search's pace in rounds without and with the whole load."""

    def generation() -> int:
        # From the file: an answer of the service would be as old as the service is busy.
        with history.open("rb") as file:
            file.seek(-min(history.stat().st_size, 65536), os.SEEK_END)
            return int(
                json.loads(file.read().rpartition(b"\n")[0].rpartition(b"\n")[2])["generation"]
            )

    def cpu() -> float:
        fields = Path(f"/proc/{driver}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    async def a_round() -> Pace:
        before, used, started = generation(), cpu(), time.perf_counter()
        await asyncio.sleep(ROUND_SECONDS)
        done, seconds = generation() - before, time.perf_counter() - started
        return Pace(done / seconds, (cpu() - used) / done)

    async def again_and_again(path: str) -> None:
        connection = await Connection(server).open()
        while True:
            await connection.get(path)

    async def looked_at() -> Pace:
        paths = ["/api/v1/experiments?limit=1000", f"{BASE}/{WATCHED}/history?points=500"]
        paths += [f"{BASE}/large/best/model.safetensors"] * 2
        async with listeners(server):
            clients = [asyncio.create_task(again_and_again(path)) for path in paths]
            found = await a_round()
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        return found

    without, beside = [], []
    for number in range(ROUNDS):
        for is_load in (False, True) if number % 2 else (True, False):
            if is_load:
                beside.append(await looked_at())
            else:
                without.append(await a_round())
    return without, beside


def told(name: str, values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{name}: {middle:.3f} (quartiles {low:.3f} to {high:.3f})"


@contextmanager
def search(root: Path, data: Path) -> Iterator[int]:
    """Let `kubevo run` search for as long as the context lasts; give its process."""
    (root / "x.json").write_text(json.dumps(document(WATCHED, 1_000_000)))
    command = [sys.executable, "-m", "kubevo_cli", "run", str(root / "x.json"), "--workers", "1"]
    command += ["--data", str(data), "--set", "spec.environment.maxEpisodeSteps=50"]
    os.sched_setaffinity(0, SEARCH)
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    os.sched_setaffinity(0, SERVICE)
    try:
        while not list(data.glob(HISTORY)):
            assert driver.poll() is None, "the search has ended"
            time.sleep(0.2)
        yield driver.pid
    finally:
        driver.terminate()
        driver.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        sys.stderr.write(f"making {asked.experiments} runs\n")
        for number in range(asked.experiments - 3):
            make(root, f"run-{number:04}", 1)
        lengthen(make(root, "long", 2), 10_000)
        make(root, "large", 3, "large-dqn-18")
        print("| answer | median | p99 | bytes | service's memory |\n|---|---|---|---|---|")

        def say(name: str, median: float, worst: float, size: int, mebibytes: float) -> None:
            print(
                f"| {name} | {1000 * median:.1f} ms | {1000 * worst:.1f} ms | {size:,} | "
                f"{mebibytes:.0f} MiB |",
                flush=True,
            )

        with search(Path(folder), root) as driver:
            server = serve(root)
            try:
                asyncio.run(under_load(server, asked.experiments, say))
                found = asyncio.run(paces(server, driver, next(root.glob(HISTORY))))
            finally:
                server.process.terminate()
                server.process.wait()
        pairs = list(zip(*found, strict=True))
        ratios = [beside.cpu / alone.cpu for alone, beside in pairs]
        print("\n" + told("the driver's CPU a generation, looked at / alone", ratios))
        speeds = [beside.generations / alone.generations for alone, beside in pairs]
        print(told("generations a wall second, looked at / alone", speeds))
        print(f"expected: the first at most {MOST_SLOWER}")
    return 0 if statistics.median(ratios) <= MOST_SLOWER else 1


if __name__ == "__main__":
    sys.exit(main())
