"""Ratios within one process: CPU seconds of one piece of work over those of another."""

import statistics
import time
from collections.abc import Callable
from functools import cache

import numpy as np

from kubevo_core import decode, spec
from kubevo_core.evaluation import Demand, Key
from kubevo_core.genome import Genome, Mutation
from kubevo_core.messages import encode_task, task_of
from kubevo_core.networks import Conv, network
from kubevo_core.noise import scaled_quantiles
from kubevo_core.seeding import Purpose
from kubevo_evaluator import native
from kubevo_evaluator.environments import Environment, make
from kubevo_evaluator.numpy_policy import same_padding
from kubevo_evaluator.policies import Policy, make_policy
from kubevo_evaluator.rollout import play

FROSTBITE, PONG = "ALE/Frostbite-v5", "ALE/Pong-v5"
FAMILY = "large-dqn"
ROUNDS = 11  # single ones spread by a fifth on a shared machine
# Random individuals, with steps enough that a game is more than its first picture.
INDIVIDUALS = (1, 2, 3, 4)
STEPS = 300
SIGMA = "0.002"
AGREEMENT_GENOMES, AGREEMENT_STEPS = 10, 1000  # of each of two games


def cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def ratio(one: Callable[[], object], other: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median of one / other over interleaved rounds, after a warm-up."""
    one(), other()
    return statistics.median(cpu(one) / cpu(other) for _ in range(rounds))


def environment(game: str) -> Environment:
    document = {"id": game, "atari": {"maxNoops": 0}}
    return make(spec.Environment.model_validate(document))


def policies(played: Environment, backend: str, precision: str = "float32") -> list[Policy]:
    """Return the individuals of all figures, with their weights laid out."""
    net = network(f"{FAMILY}-{played.actions.outputs}")
    made = []
    for individual in INDIVIDUALS:
        policy = make_policy(backend, net, played.actions, precision)
        policy.load(decode.parameters(Genome(net.id, individual), link=native.add_noise))
        made.append(policy)
    return made


@cache
def actions(game: str) -> list[list[int]]:
    """Return what each individual does in its first STEPS steps."""
    played = environment(game)
    found = []
    for policy in policies(played, "native"):
        observation, taken = played.reset(0), []
        for _ in range(STEPS):
            taken.append(policy.act(observation))
            observation, _, ended = played.step(taken[-1])
            if ended:
                observation = played.reset(0)
        found.append(taken)
    return found


def emulator(game: str) -> Callable[[], None]:
    """Return raw emulation of the same actions: frame skip inside the emulator, no picture taken."""
    import ale_py
    from ale_py import roms

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("frame_skip", 4)
    ale.loadROM(str(roms.get_rom_path(game.removeprefix("ALE/").removesuffix("-v5").lower())))
    codes, start = ale.getMinimalActionSet(), ale.cloneState()
    orders = [[codes[index] for index in taken] for taken in actions(game)]

    def run() -> None:
        for order in orders:
            ale.restoreState(start)
            for code in order:
                ale.act(code)
                if ale.game_over():
                    ale.restoreState(start)

    return run


def preprocessed(game: str) -> Callable[[], None]:
    played, orders = environment(game), actions(game)

    def run() -> None:
        for order in orders:
            played.reset(0)
            for index in order:
                if played.step(index)[2]:
                    played.reset(0)

    return run


def loop(game: str, backend: str, precision: str = "float32") -> Callable[[], None]:
    """Return our episode loop: emulator, preprocessing and policy, STEPS steps an individual."""
    played = environment(game)
    made = policies(played, backend, precision)

    def run() -> None:
        for policy in made:
            left = STEPS
            while left > 0:
                left -= play(played, policy, 0, left).steps

    return run


def usual(game: str) -> Callable[[], None]:
    """Return as many steps as they are usually played: Gymnasium's wrappers and eager torch."""
    import gymnasium
    import torch
    import torch.nn.functional as F  # noqa: N812 - its name everywhere
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    torch.set_num_threads(1)
    made = gymnasium.make(game, frameskip=1, repeat_action_probability=0.0)
    stacked = FrameStackObservation(AtariPreprocessing(made, noop_max=0), 4)
    generator = torch.Generator().manual_seed(7)
    convs, side, layers = [], 84, []
    net = network(f"{FAMILY}-{int(made.action_space.n)}")
    for layer in net.layers:
        if isinstance(layer, Conv):
            side, before, after = same_padding(side, layer.kernel, layer.stride)
            weight = torch.randn(
                layer.outputs, layer.inputs, layer.kernel, layer.kernel, generator=generator
            )
            convs.append((weight * 0.05, layer.stride, (before, after, before, after)))
        else:
            layers.append(torch.randn(layer.outputs, layer.inputs, generator=generator) * 0.02)

    @torch.inference_mode()
    def act(observation: np.ndarray) -> int:
        x = torch.from_numpy(observation).unsqueeze(0).float().div_(255)
        for weight, stride, padding in convs:
            x = F.relu(F.conv2d(F.pad(x, padding), weight, stride=stride))
        x = F.relu(F.linear(x.flatten(1), layers[0]))
        return int(F.linear(x, layers[1]).argmax())

    def run() -> None:
        observation, _ = stacked.reset(seed=0)
        for _ in range(STEPS * len(INDIVIDUALS)):
            observation, _, terminated, truncated, _ = stacked.step(act(np.asarray(observation)))
            if terminated or truncated:
                observation, _ = stacked.reset()

    return run


def episode_start() -> float:
    import ale_py
    from ale_py import roms

    played = environment(FROSTBITE)
    path = str(roms.get_rom_path("frostbite"))

    def load_rom() -> None:
        ale = ale_py.ALEInterface()
        ale.loadROM(path)
        ale.reset_game()

    def ours() -> None:
        for _ in range(20):
            played.reset(0)

    return ratio(ours, load_rom) / 20


def link(add: decode.Link) -> float:
    import torch

    torch.set_num_threads(1)
    size = network("large-dqn-18").size
    theta, other = np.zeros(size, np.float32), torch.zeros(size)
    table = scaled_quantiles(SIGMA)
    generator = torch.Generator().manual_seed(1)
    return ratio(
        lambda: add(theta, 1, table, None),
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
            weights = decode.parameters(base, cache, native.add_noise)
            decode.mutate(weights, Mutation(123, SIGMA), buffer, native.add_noise)

        children[deep] = child
    return ratio(children[999], children[0], rounds=11)


def task_bytes() -> float:
    sizes = []
    for deep in (1, 1000):
        base, mutation = genome_of(deep - 1), Mutation(4294967295, SIGMA)
        key = Key(0, deep, Purpose.POPULATION, 999, base.child(mutation).digest, 0)
        sizes.append(len(encode_task(task_of(Demand(key, base, mutation, 4294967295), "c" * 16))))
    return sizes[1] / sizes[0]


def loop_over_raw(game: str, backend: str, precision: str = "float32") -> float:
    return 1 / ratio(loop(game, backend, precision), emulator(game))


def loop_over_usual(precision: str) -> float:
    return 1 / ratio(loop(FROSTBITE, "native", precision), usual(FROSTBITE))


def preprocessing(game: str) -> float:
    return 1 / ratio(preprocessed(game), emulator(game))


def same_actions() -> float:
    """Return the share of visited observations in which the native policy does as torch does."""
    same = visited = 0
    for game in (FROSTBITE, PONG):
        played = environment(game)
        net = network(f"{FAMILY}-{played.actions.outputs}")
        ours, theirs = (make_policy(name, net, played.actions) for name in ("native", "torch"))
        for individual in range(AGREEMENT_GENOMES):
            theta = decode.parameters(Genome(net.id, individual))
            ours.load(theta)
            theirs.load(theta)
            observation, ended = played.reset(individual), False
            for _ in range(AGREEMENT_STEPS):
                if ended:
                    observation = played.reset(individual + visited)
                action = ours.act(observation)
                same += action == theirs.act(observation)
                visited += 1
                observation, _, ended = played.step(action)
    return same / visited
