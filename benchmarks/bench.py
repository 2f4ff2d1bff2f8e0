"""Speed as ratios within one run, each beside its must-level and its aim.

Absolute times on shared machines mean little, so each figure is the median over interleaved rounds
of (CPU seconds of one thing / CPU seconds of another) in one process; only the scaling figure
compares wall time, because that is what it is about. Run it by `make bench [OUT=file.json]`.

The file holds ``{"figures": {name: {"value", "must", "aim", "better": "higher" | "lower"}}}``.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import asyncio
import json
import logging
import math
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kubevo_cli.workers import WorkerPool
from kubevo_core import decode, names, spec
from kubevo_core.evaluation import Demand, Key
from kubevo_core.genome import Genome, Mutation
from kubevo_core.messages import Context, encode_task, task_of
from kubevo_core.networks import network
from kubevo_core.noise import add_noise, scaled_quantiles
from kubevo_core.seeding import Purpose
from kubevo_evaluator.description import describe
from kubevo_evaluator.environments import make
from kubevo_evaluator.policies import make_policy
from kubevo_evaluator.rollout import play
from kubevo_evaluator.settings import Settings
from kubevo_evaluator.worker import Worker
from kubevo_runtime.broker import LocalBroker
from kubevo_runtime.bus import BusSettings, connect_coordinator, connect_worker
from kubevo_runtime.logs import configure

GAME = "ALE/Frostbite-v5"
ROUNDS = 5
STEPS = 256
SIGMA = "0.002"
# Both last over 0.4 s an evaluation on numpy. Overhead is measured on the larger network, whose
# decoding costs most; scaling on the one that stays in a core's cache, because two workers on
# large-dqn also share the memory's bandwidth, which is no property of what carries their work.
OVERHEAD = ("large-dqn", 800)
SCALING = ("dqn", 1200)


@dataclass(frozen=True)
class Figure:
    """One ratio: what is measured, and how good it must and should be."""

    about: str
    must: float
    aim: float
    better: str
    measure: Callable[[], float]


def cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def ratio(one: Callable[[], object], other: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median of one / other over interleaved rounds, after a warm-up."""
    one(), other()
    return statistics.median(cpu(one) / cpu(other) for _ in range(rounds))


def game(**atari: int) -> spec.Environment:
    document = {"id": GAME, "atari": {"maxNoops": 0, **atari}}
    return spec.Environment.model_validate(document)


def emulator() -> Callable[[], None]:
    """Return raw emulation of STEPS steps: frame skip inside the emulator, no picture taken."""
    import ale_py
    from ale_py import roms

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("frame_skip", 4)
    ale.loadROM(str(roms.get_rom_path("frostbite")))
    actions, start = ale.getMinimalActionSet(), ale.cloneState()
    order = np.random.default_rng(0).integers(len(actions), size=STEPS).tolist()

    def run() -> None:
        ale.restoreState(start)
        for index in order:
            ale.act(actions[index])
            if ale.game_over():
                ale.restoreState(start)

    return run


def preprocessed() -> Callable[[], None]:
    environment = make(game())
    order = np.random.default_rng(0).integers(environment.actions.outputs, size=STEPS).tolist()

    def run() -> None:
        environment.reset(0)
        for index in order:
            if environment.step(index)[2]:
                environment.reset(0)

    return run


def played(backend: str, steps: int = STEPS) -> Callable[[], None]:
    environment = make(game())
    net = network(f"large-dqn-{environment.actions.outputs}")
    policy = make_policy(backend, net, environment.actions)
    policy.load(decode.parameters(Genome(net.id, 7)))

    def run() -> None:
        left, seed = steps, 0
        while left > 0:
            left -= play(environment, policy, seed, left).steps
            seed += 1

    return run


def episode_start() -> float:
    import ale_py
    from ale_py import roms

    environment = make(game())
    path = str(roms.get_rom_path("frostbite"))

    def load_rom() -> None:
        ale = ale_py.ALEInterface()
        ale.loadROM(path)
        ale.reset_game()

    def ours() -> None:
        for _ in range(20):
            environment.reset(0)

    return ratio(ours, load_rom) / 20


def link() -> float:
    import torch

    torch.set_num_threads(1)
    size = network("large-dqn-18").size
    theta, other = np.zeros(size, np.float32), torch.zeros(size)
    table = scaled_quantiles(SIGMA)
    generator = torch.Generator().manual_seed(1)
    return ratio(
        lambda: add_noise(theta, 1, table),
        lambda: other.add_(torch.randn(size, generator=generator), alpha=0.002),
        rounds=11,
    )


def genome_of(depth: int) -> Genome:
    return Genome("large-dqn-18", 7, tuple(Mutation(seed, SIGMA) for seed in range(depth)))


def depth() -> float:
    children = {}
    for deep in (999, 0):
        cache = decode.ParameterCache(64 << 20)
        base = genome_of(deep)
        vector = decode.initial(base.network, base.init_seed)  # its value does not matter here
        cache.put(base.digest, vector)
        buffer = np.empty_like(vector)

        def child(
            base: Genome = base, cache: decode.ParameterCache = cache, buffer: np.ndarray = buffer
        ) -> None:
            decode.mutate(decode.parameters(base, cache), Mutation(123, SIGMA), out=buffer)

        children[deep] = child
    return ratio(children[999], children[0], rounds=11)


def task_bytes() -> float:
    sizes = []
    for deep in (1, 1000):
        base, mutation = genome_of(deep - 1), Mutation(4294967295, SIGMA)
        key = Key(0, deep, Purpose.POPULATION, 999, base.child(mutation).digest, 0)
        sizes.append(len(encode_task(task_of(Demand(key, base, mutation, 4294967295), "c" * 16))))
    return sizes[1] / sizes[0]


# --- through a real broker ------------------------------------------------------------------------


def long_context(family: str, steps: int) -> Context:
    environment = {"id": GAME, "atari": {"maxNoops": 0}, "maxEpisodeSteps": steps}
    policy = {"network": family, "backend": "numpy"}
    described = describe(
        spec.Environment.model_validate(environment), spec.Policy.model_validate(policy)
    )
    return Context(environment, policy, 600, described)


def demands(context: Context, count: int, generation: int) -> list[Demand]:
    """Return ``count`` children of one parent, which a worker decodes by one link each."""
    assert context.description is not None
    base = Genome(context.description.network, 7)
    found = []
    for slot in range(count):
        mutation = Mutation(slot, SIGMA)
        digest = base.child(mutation).digest
        key = Key(0, generation, Purpose.POPULATION, slot, digest, 0)
        found.append(Demand(key, base, mutation, 1))
    return found


async def with_broker(work: Callable[..., object], family: str, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        async with LocalBroker(path / "store", log=path / "nats.log") as broker:
            settings = BusSettings(url=broker.url, experiment="bench-1", token=broker.token)
            async with connect_coordinator(settings) as bus:
                await bus.ensure()
                context = long_context(family, steps)
                await bus.put_blob(context.digest, context.encode())
                await bus.put_blob("context", context.digest.encode())
                base = demands(context, 1, 0)[0].base
                await bus.put_blob(base.digest, base.text.encode())
                return await work(bus, settings, context, path)  # type: ignore[misc]


async def publish_and_wait(bus, context, count: int, generation: int) -> float:
    """Publish ``count`` tasks and return the wall seconds from the first to the last result."""
    reader = bus.results(names.generation_filter(0, generation, "population"))
    tasks = [
        (names.episode_subject(d.key), encode_task(task_of(d, context.digest)))
        for d in demands(context, count, generation)
    ]
    started = time.perf_counter()
    await bus.publish_tasks(tasks)
    seen = 0
    while seen < count:
        seen += len(await reader.fetch(count, 30))
    seconds = time.perf_counter() - started
    await reader.aclose()
    await bus.purge(names.generation_filter(0, generation, "population"))
    return seconds


async def overhead(bus, settings: BusSettings, context: Context, _: Path) -> float:
    """Return the share of a worker's CPU time that is not emulator, preprocessing or policy."""
    assert context.description is not None
    environment = make(spec.Environment.model_validate(context.environment))
    policy = make_policy("numpy", network(context.description.network), environment.actions)
    weights = []
    for demand in demands(context, 3, 0):
        theta = decode.parameters(demand.base).copy()
        decode.mutate(theta, demand.mutation)
        weights.append(theta)

    def bare() -> None:
        for theta in weights:
            policy.load(theta)
            play(environment, policy, 1, OVERHEAD[1])

    shares = []
    stopping = asyncio.Event()
    worker_settings = Settings(settings.url, settings.experiment, settings.token, worker="bench")
    async with connect_worker(settings) as worker_bus:
        worker = asyncio.create_task(Worker(worker_settings, worker_bus, stopping).run())
        for generation in range(1, ROUNDS + 3):
            started = time.process_time()
            await publish_and_wait(bus, context, len(weights), generation)
            whole = time.process_time() - started
            inner = await asyncio.to_thread(cpu, bare)
            if generation > 2:
                shares.append(1 - inner / whole)
        stopping.set()
        await worker
    return statistics.median(shares)


async def scaling(bus, settings: BusSettings, context: Context, path: Path) -> float:
    """Return how many times as many evaluations a second two workers make as one."""
    environment = {
        **os.environ,
        "KUBEVO_NATS_URL": settings.url,
        "KUBEVO_NATS_TOKEN": settings.token or "",
        "KUBEVO_EXPERIMENT_ID": settings.experiment,
    }
    generation, ratios = 100, []
    for _ in range(ROUNDS):
        seconds = {}
        for workers in (1, 2):
            async with WorkerPool(workers, environment, path / "logs", lambda _: None):
                await publish_and_wait(bus, context, 4 * workers, generation)  # everybody is warm
                seconds[workers] = await publish_and_wait(bus, context, 12, generation + 1)
            generation += 2
        ratios.append(seconds[1] / seconds[2])
    return statistics.median(ratios)


FIGURES: dict[str, Figure] = {
    "torch_loop_over_raw": Figure(
        "torch backend, whole loop / raw emulator (speed)",
        0.22,
        0.30,
        "higher",
        lambda: 1 / ratio(played("torch"), emulator()),
    ),
    "numpy_loop_over_raw": Figure(
        "numpy backend, whole loop / raw emulator (speed)",
        0.15,
        0.25,
        "higher",
        lambda: 1 / ratio(played("numpy"), emulator()),
    ),
    "preprocessing_over_raw": Figure(
        "emulator + preprocessing / raw emulator (speed)",
        0.75,
        0.86,
        "higher",
        lambda: 1 / ratio(preprocessed(), emulator()),
    ),
    "start_over_load_rom": Figure(
        "episode start / loadROM start (time)", 0.02, 0.001, "lower", episode_start
    ),
    "link_over_torch_randn": Figure(
        "one decode link, numpy / (torch.randn + axpy) (time)", 0.7, 0.5, "lower", link
    ),
    "depth_1000_over_depth_1": Figure(
        "child at depth 1000 / at depth 1, parent cached (time)", 1.5, 1.05, "lower", depth
    ),
    "task_bytes_depth_1000_over_depth_1": Figure(
        "task at depth 1000 / at depth 1 (bytes)", 1.1, 1.03, "lower", task_bytes
    ),
    "overhead_share": Figure(
        "time outside emulator, preprocessing and policy (share)",
        0.03,
        0.01,
        "lower",
        lambda: asyncio.run(with_broker(overhead, *OVERHEAD)),
    ),
    "two_workers_over_one": Figure(
        "2 workers / 1 worker, evaluations a wall second",
        1.8,
        1.92,
        "higher",
        lambda: asyncio.run(with_broker(scaling, *SCALING)),
    ),
}


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "?")


def main() -> int:
    configure("console", logging.WARNING)
    parser = argparse.ArgumentParser(description="Speed ratios beside their goals")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("names", nargs="*", help="only these figures")
    options = parser.parse_args()
    print(
        f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    )
    print(f"{'figure':58} {'value':>8} {'must':>9} {'aim':>9}")
    found, missed = {}, 0
    for name, figure in FIGURES.items():
        if options.names and name not in options.names:
            continue
        value = figure.measure()
        good = value >= figure.must if figure.better == "higher" else value <= figure.must
        missed += not good or not math.isfinite(value)
        sign = "≥" if figure.better == "higher" else "≤"
        print(
            f"{figure.about:58} {value:8.4f} {sign}{figure.must:8} {sign}{figure.aim:8}"
            f"{'' if good else '  MISSED'}",
            flush=True,
        )
        found[name] = {
            "value": value,
            "must": figure.must,
            "aim": figure.aim,
            "better": figure.better,
        }
    if options.out:
        options.out.write_text(json.dumps({"figures": found}, indent=2) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
