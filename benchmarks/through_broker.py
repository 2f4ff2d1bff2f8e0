"""Ratios through a real nats-server and real worker processes, in wall seconds.

Only the time while every worker has the next task waiting is looked at: from one result to a later
one. What a search does at its edges depends on its spec and not on what carries its work.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from kubevo_cli.workers import WorkerPool
from kubevo_core import names, spec
from kubevo_core.evaluation import Demand, Key
from kubevo_core.genome import Genome, Mutation
from kubevo_core.messages import Context, ResultReport, decode_result, encode_task, task_of
from kubevo_core.seeding import Purpose
from kubevo_evaluator.description import describe
from kubevo_runtime.broker import LocalBroker
from kubevo_runtime.bus import BusSettings, connect_coordinator

GAME = "ALE/Frostbite-v5"
ROUNDS = 5
SIGMA = "0.002"
# Both last over 0.4 s an evaluation. Overhead is measured on the larger network, whose decoding costs
# most; scaling on the one that stays in a core's cache, because two workers on large-dqn also share
# the memory's bandwidth, which is no property of what carries their work.
OVERHEAD = ("large-dqn", 1000)
SCALING = ("dqn", 1500)
EVALUATIONS = 16  # a round, for each worker

Arrival = tuple[float, ResultReport]


class Bench:
    """A broker with one experiment's context; ``evaluate`` is a generation of children."""

    def __init__(self, bus, settings: BusSettings, context: Context, folder: Path) -> None:
        self.bus, self.context, self.folder = bus, context, folder
        self.generation = 0
        self.environment = {
            **os.environ,
            "KUBEVO_NATS_URL": settings.url,
            "KUBEVO_NATS_TOKEN": settings.token or "",
            "KUBEVO_EXPERIMENT_ID": settings.experiment,
        }

    def workers(self, count: int) -> WorkerPool:
        """Return worker processes, to be entered."""
        return WorkerPool(count, self.environment, self.folder / "logs", lambda _: None)

    async def evaluate(self, count: int) -> list[Arrival]:
        """Return the results of ``count`` children of one parent, each with when it arrived."""
        self.generation += 1
        subjects = names.generation_filter(0, self.generation, "population")
        reader = self.bus.results(subjects)
        tasks = [
            (names.episode_subject(d.key), encode_task(task_of(d, self.context.digest)))
            for d in children(self.context, count, self.generation)
        ]
        await self.bus.publish_tasks(tasks)
        arrived: list[Arrival] = []
        while len(arrived) < count:
            bodies = await reader.fetch(count, 30)
            arrived += [(time.perf_counter(), decode_result(body)) for body in bodies]
        await reader.aclose()
        await self.bus.purge(subjects)
        return arrived


def children(context: Context, count: int, generation: int) -> list[Demand]:
    """Return ``count`` children of one parent, which a worker decodes by one link each."""
    base = parent(context)
    found = []
    for slot in range(count):
        mutation = Mutation(slot, SIGMA)
        digest = base.child(mutation).digest
        key = Key(0, generation, Purpose.POPULATION, slot, digest, 0)
        found.append(Demand(key, base, mutation, 1))
    return found


def parent(context: Context) -> Genome:
    assert context.description is not None
    return Genome(context.description.network, 7)


def context_of(family: str, steps: int) -> Context:
    environment = {"id": GAME, "atari": {"maxNoops": 0}, "maxEpisodeSteps": steps}
    policy = {"network": family, "backend": "native"}
    described = describe(
        spec.Environment.model_validate(environment), spec.Policy.model_validate(policy)
    )
    return Context(environment, policy, 600, described)


async def with_broker(work: Callable[[Bench], Awaitable[float]], family: str, steps: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with LocalBroker(folder / "store", log=folder / "nats.log") as broker:
            settings = BusSettings(url=broker.url, experiment="bench-1", token=broker.token)
            async with connect_coordinator(settings) as bus:
                await bus.ensure()
                context = context_of(family, steps)
                await bus.put_blob(context.digest, context.encode())
                await bus.put_blob(names.CONTEXT, context.digest.encode())
                base = parent(context)
                await bus.put_blob(base.digest, base.text.encode())
                return await work(Bench(bus, settings, context, folder))


async def outside(bench: Bench) -> float:
    """Return the share of a busy worker's time that it does not spend inside episodes."""
    shares = []
    async with bench.workers(1):
        await bench.evaluate(4)  # warm
        for _ in range(ROUNDS):
            arrived = await bench.evaluate(EVALUATIONS)
            playing = sum(report.seconds["play"] for _, report in arrived[1:])
            shares.append(1 - playing / (arrived[-1][0] - arrived[0][0]))
    return statistics.median(shares)


async def speedup(bench: Bench) -> float:
    """Return how many times as many evaluations a second two workers make as one."""
    ratios = []
    for _ in range(ROUNDS):
        rates = {}
        for workers in (1, 2):
            async with bench.workers(workers):
                await bench.evaluate(4 * workers)  # everybody is warm
                arrived = await bench.evaluate((EVALUATIONS + 2) * workers)
            # While all are busy: the last results arrive when some have nothing left to do.
            inner = arrived[workers - 1 : len(arrived) - workers]
            rates[workers] = (len(inner) - 1) / (inner[-1][0] - inner[0][0])
        ratios.append(rates[2] / rates[1])
    return statistics.median(ratios)


def overhead() -> float:
    return asyncio.run(with_broker(outside, *OVERHEAD))


def scaling() -> float:
    return asyncio.run(with_broker(speedup, *SCALING))
