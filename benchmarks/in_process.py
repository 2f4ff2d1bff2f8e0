"""Ratios within one process: CPU seconds of one piece of work over those of another."""

import statistics
import time
from collections.abc import Callable

import numpy as np

from kubevo_core import decode, spec
from kubevo_core.evaluation import Demand, Key
from kubevo_core.genome import Genome, Mutation
from kubevo_core.messages import encode_task, task_of
from kubevo_core.networks import network
from kubevo_core.noise import add_noise, scaled_quantiles
from kubevo_core.seeding import Purpose
from kubevo_evaluator.environments import make
from kubevo_evaluator.policies import make_policy
from kubevo_evaluator.rollout import play

GAME = "ALE/Frostbite-v5"
ROUNDS = 5
STEPS = 256
SIGMA = "0.002"


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


def played(backend: str) -> Callable[[], None]:
    environment = make(game())
    net = network(f"large-dqn-{environment.actions.outputs}")
    policy = make_policy(backend, net, environment.actions)
    policy.load(decode.parameters(Genome(net.id, 7)))

    def run() -> None:
        left, seed = STEPS, 0
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


def torch_loop() -> float:
    return 1 / ratio(played("torch"), emulator())


def numpy_loop() -> float:
    return 1 / ratio(played("numpy"), emulator())


def preprocessing() -> float:
    return 1 / ratio(preprocessed(), emulator())
