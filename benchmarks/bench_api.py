"""The REST service under load: latencies at p99, its memory, and what a search notices of it.

A real `kubevo serve` over a directory of 1,000 runs, one of 10,000 generations and one whose model has
16 MB; clients on the same machine. Run it by `make bench-api`. A latency here is that of a shared
machine with two cores, on which the clients compute as well.
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
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from conftest import fill, synthetic
from kubevo_core import spec
from kubevo_runtime.store import Run, create_run

BASE = "/api/v1/namespaces/local/experiments"
STREAMS, DOWNLOADERS, ROUNDS = 200, 20, 6
ROUND_SECONDS = 5.0
MOST_SLOWER = 1.02
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


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

    async def listen(self) -> None:
        """Open an event stream and read it for ever."""
        self.ask(f"{BASE}/long/events")
        while await self._reader.read(65536):
            pass

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


async def under_load(server: Server, say: Callable[..., None]) -> None:
    for name, path, clients, requests in (
        ("list of 1,000 Experiments", "/api/v1/experiments?limit=1000", 4, 25),
        ("history of 10,000 generations, whole", f"{BASE}/long/history", 4, 10),
        ("history of 10,000 generations, 500 points", f"{BASE}/long/history?points=500", 4, 50),
        ("one Experiment", f"{BASE}/long", 4, 100),
    ):
        found, size = await latencies(server, path, clients, requests)
        say(name, statistics.median(found), p99(found), size, server.mebibytes)
    streams = [await Connection(server).open() for _ in range(STREAMS)]
    listening = [asyncio.create_task(stream.listen()) for stream in streams]
    await asyncio.sleep(2)
    found, size = await latencies(server, f"{BASE}/long", 4, 50)
    say(
        f"one Experiment beside {STREAMS} event streams",
        statistics.median(found),
        p99(found),
        size,
        server.mebibytes,
    )
    path = f"{BASE}/large/best/model.safetensors"
    found, size = await latencies(server, path, DOWNLOADERS, 3)
    say(
        f"a model, {DOWNLOADERS} clients at once",
        statistics.median(found),
        p99(found),
        size,
        server.mebibytes,
    )
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    for stream in streams:
        stream.close()


def slower(root: Path) -> float:
    """Return the driver's CPU seconds a generation while it is looked at, over those while it is not.

    Rounds with and without 200 event streams and a client that asks ten times a second, in turn.
    """
    (root / "x.json").write_text(json.dumps(document("watched", 1_000_000)))
    command = [sys.executable, "-m", "kubevo_cli", "run", str(root / "x.json"), "--workers", "1"]
    command += ["--data", str(root / "run"), "--set", "spec.environment.maxEpisodeSteps=50"]
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not list((root / "run").glob("local/*/repeat-0/history.jsonl")):
            time.sleep(0.2)
        server = serve(root / "run")
        try:
            time.sleep(2)
            return asyncio.run(_compare(driver.pid, server))
        finally:
            server.process.terminate()
            server.process.wait()
    finally:
        driver.terminate()
        driver.wait()


async def _compare(driver: int, server: Server) -> float:
    connection = await Connection(server).open()
    path = f"{BASE}/watched"

    async def generation() -> int:
        reader = await Connection(server).open()
        reader.ask(f"{path}/generations")
        text = await reader._reader.readuntil(b"]")
        reader.close()
        return int(text.split(b'"last":')[1].split(b",")[0])

    async def a_round(beside: Callable[[], Awaitable[None]]) -> float:
        before, used = await generation(), _cpu(driver)
        task = asyncio.ensure_future(beside())
        await asyncio.sleep(ROUND_SECONDS)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        after, spent = await generation(), _cpu(driver) - used
        return spent / (after - before)

    async def look() -> None:
        streams = [await Connection(server).open() for _ in range(STREAMS)]
        listening = []
        for stream in streams:
            stream.ask(f"{path}/events")
            listening.append(asyncio.ensure_future(_drain(stream)))
        try:
            while True:
                await connection.get(f"{path}/history?points=300")
                await asyncio.sleep(0.1)
        finally:
            for task in listening:
                task.cancel()
            for stream in streams:
                stream.close()

    ratios = []
    for _ in range(ROUNDS):
        alone = await a_round(lambda: asyncio.sleep(ROUND_SECONDS))
        ratios.append(await a_round(look) / alone)
    return statistics.median(ratios)


async def _drain(connection: Connection) -> None:
    while await connection._reader.read(65536):
        pass


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        sys.stderr.write(f"making {asked.experiments} runs\n")
        for number in range(asked.experiments - 2):
            make(root, f"run-{number:04}", 1)
        lengthen(make(root, "long", 2), 10_000)
        make(root, "large", 3, "large-dqn-18")
        server = serve(root)
        print("| answer | median | p99 | bytes | service's memory |\n|---|---|---|---|---|")

        def say(name: str, median: float, worst: float, size: int, mebibytes: float) -> None:
            print(
                f"| {name} | {1000 * median:.1f} ms | {1000 * worst:.1f} ms | {size:,} | "
                f"{mebibytes:.0f} MiB |",
                flush=True,
            )

        try:
            asyncio.run(under_load(server, say))
        finally:
            server.process.terminate()
            server.process.wait()
        ratio = slower(Path(folder))
        print(f"\nthe driver's CPU a generation, looked at / alone: {ratio:.3f} (≤ {MOST_SLOWER})")
    return 0 if ratio <= MOST_SLOWER else 1


if __name__ == "__main__":
    sys.exit(main())
