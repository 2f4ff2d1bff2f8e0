"""A genome's files: the same bytes everywhere, the same actions in ONNX, the same returns by the script."""

import dataclasses
import io
import json
import struct
import subprocess
import sys

import gymnasium
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from gymnasium import spaces

from kubevo_api.exports import FORMATS
from kubevo_api.exports.model import Facts, Model
from kubevo_api.exports.requirements import requirements
from kubevo_api.exports.scripts import player
from kubevo_core import decode, spec
from kubevo_core.errors import UserError
from kubevo_core.genome import Genome, Mutation
from kubevo_core.networks import network
from kubevo_core.seeding import Purpose, derive
from kubevo_evaluator.environments import make
from kubevo_evaluator.evaluation import evaluate_genome
from kubevo_evaluator.flattening import flat_size, writer
from kubevo_evaluator.gymnasium_environment import action_layout
from kubevo_evaluator.policies import make_policy
from kubevo_evaluator.rollout import play

ATARI = {"frameSkip": 4, "stickyActionProbability": "0.25", "maxNoops": 30}


def environment(identifier, steps, **fields):
    document = {"id": identifier, "maxEpisodeSteps": steps, **fields}
    return spec.Environment.model_validate(document)


def model_for(world: spec.Environment, family: str = "mlp", hidden=(8,)) -> Model:
    """Return some genome that fits an environment."""
    made = make(world)
    try:
        outputs, inputs = made.actions.outputs, int(np.prod(made.observation.shape))
        actions = str(made.actions)
    finally:
        made.close()
    sizes = [inputs, *hidden, outputs] if family == "mlp" else [outputs]
    genome = Genome("-".join([family, *map(str, sizes)]), 7, (Mutation(11, "0.5"),))
    facts = Facts(
        experiment="test", namespace="local", uid="u", repeat=1, generation=3, fitness=12.5,
        validation_episodes=30, final_test_mean=11.0, final_test_interval=(10.0, 12.5),
        final_test_episodes=4, frames=1234, seed=5, backend="numpy", version="0",
    )  # fmt: skip
    return Model(genome, world, actions, facts)


WORLDS = {
    "CartPole": (environment("CartPole-v1", 200), "mlp"),
    "Pendulum": (environment("Pendulum-v1", 200), "mlp"),
    "a one-hot observation": (
        environment("FrozenLake-v1", 50, kwargs={"is_slippery": "false"}),
        "mlp",
    ),
    "Box2D": (environment("LunarLander-v3", 150), "mlp"),
    "MuJoCo": (environment("HalfCheetah-v5", 100), "mlp"),
    "Atari, sticky": (environment("ALE/Pong-v5", 120, atari=ATARI), "dqn"),
    "Atari with FIRE and lives": (
        environment("ALE/Breakout-v5", 150, atari={"maxNoops": 3, "terminalOnLifeLoss": True}),
        "dqn",
    ),
    "Atari, all actions": (
        environment("ALE/TicTacToe3D-v5", 40, atari={"fullActionSpace": True, "frameSkip": 1}),
        "dqn",
    ),
}


def download(model: Model, folder) -> None:
    for name in ("policy.py", "model.safetensors"):
        (folder / name).write_bytes(FORMATS[name].write(model))


def run(folder, *arguments: str):
    command = [sys.executable, "-I", "policy.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", WORLDS)
def test_the_script_gives_the_returns_that_the_search_saw(tmp_path, name):
    world, family = WORLDS[name]
    model = model_for(world, family)
    download(model, tmp_path)
    done = run(tmp_path, "--episodes", "3", "--seed", "9", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    seeds = [derive(9, Purpose.TEST, number) for number in range(3)]
    played = evaluate_genome(model.genome, world, "numpy", seeds)
    assert found["episodeReturns"] == [each.episode_return for each in played]


def test_the_script_plays_the_final_test_again(tmp_path):
    model = model_for(WORLDS["CartPole"][0])
    download(model, tmp_path)
    found = json.loads(run(tmp_path, "--final", "--json").stdout)
    seeds = [derive(5, Purpose.FINAL, 1, number) for number in range(4)]
    played = evaluate_genome(model.genome, model.environment, "numpy", seeds)
    assert found["episodeReturns"] == [each.episode_return for each in played]


def test_the_script_refuses_other_weights(tmp_path):
    model = model_for(WORLDS["CartPole"][0])
    download(model, tmp_path)
    other = dataclasses.replace(model, genome=Genome(model.genome.network, 8))
    (tmp_path / "model.safetensors").write_bytes(FORMATS["model.safetensors"].write(other))
    done = run(tmp_path)
    assert done.returncode == 1
    assert "other weights" in done.stderr
    (tmp_path / "model.safetensors").unlink()
    assert "download model.safetensors" in run(tmp_path).stderr


def test_a_script_needs_to_know_the_environment():
    with pytest.raises(UserError, match="environment"):
        FORMATS["policy.py"].write(Model(Genome("mlp-4-2", 1)))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(5, start=-2),
        spaces.MultiDiscrete([2, 3, 4], start=[1, 0, -1]),
        spaces.MultiBinary(3),
        spaces.Box(-1, 1, (2, 3), np.float32),
        spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 255, (2, 2), np.uint8)]),
        spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Tuple([spaces.MultiBinary(2)])}),
    ],
)
def test_the_script_flattens_as_the_search_does(space):
    space.seed(3)
    for _ in range(20):
        value, expected = space.sample(), np.zeros(flat_size(space), np.float32)
        writer(space)(expected, value)
        assert np.array_equal(player.flat(space, value), expected)


class Room(gymnasium.Env):
    """Takes an action of any space and keeps it."""

    def __init__(self, space):
        self.action_space = space


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=2),
        spaces.MultiDiscrete([[2, 3], [4, 2]]),
        spaces.Box(-0.5, np.inf, (3,), np.float32),
        spaces.Box(-3, 3, (2, 2), np.int64),
    ],
)
def test_the_script_decides_as_the_search_does(space):
    from kubevo_evaluator.gymnasium_environment import GymnasiumEnvironment

    layout, world = action_layout(space), object.__new__(player.World)
    world._env = Room(space)
    native = object.__new__(GymnasiumEnvironment)
    native._action_space = space
    native._whole_numbers = not np.issubdtype(space.dtype, np.floating)
    draw = np.random.default_rng(1)
    table = np.float32(draw.normal(size=(50, layout.outputs)) * 2)
    for values in [*table, np.full(layout.outputs, np.nan, np.float32)]:
        values[draw.random(layout.outputs) < 0.1] = np.nan
        expected = native._native(layout.decide(values))
        found = world._action(values)
        assert np.array_equal(found, expected)
        assert np.asarray(found).dtype.kind == np.asarray(expected).dtype.kind


VISITED = [
    (environment("CartPole-v1", 500), "mlp", 4000),
    (environment("Pendulum-v1", 200), "mlp", 4000),
    (environment("ALE/Pong-v5", 2000), "dqn", 2000),
    (environment("ALE/Frostbite-v5", 2000), "large-dqn", 400),
]


def session_of(content: bytes) -> onnxruntime.InferenceSession:
    """Load a model to run in this thread alone: more threads would spin while others work."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options)


def test_onnxruntime_takes_the_same_actions():
    """On at least 10,000 observations that the policy itself visits, at most one may differ."""
    total = equal = 0
    for world, family, wanted in VISITED:
        model = model_for(world, family)
        session = session_of(FORMATS["model.onnx"].write(model))
        made = make(world)
        policy = make_policy("numpy", network(model.genome.network), made.actions)
        policy.load(decode.parameters(model.genome))
        seen = visited(made, policy, wanted, world.max_episode_steps)
        made.close()
        values, action = session.run(None, {"observation": np.stack(seen)})
        expected = np.stack([np.asarray(policy.act(each)) for each in seen])
        exact = np.stack([policy.values(each).copy() for each in seen])
        # Sums in another order differ by the size of what is summed, not of what comes out.
        assert np.abs(values - exact).max() <= 1e-5 * np.abs(exact).max()
        if made.actions.kind == "continuous":
            low, high = np.float32(made.actions.low), np.float32(made.actions.high)
            same = np.isclose(np.clip(action, low, high), expected, rtol=1e-4, atol=1e-4).all(
                axis=1
            )
        else:
            same = action == expected
        total, equal = total + len(seen), equal + int(same.sum())
    assert total >= 10_000
    assert equal / total >= 0.9999


def visited(world, policy, count: int, most_steps: int):
    found = []

    class Recording:
        def act(self, observation):
            found.append(observation.copy())
            return policy.act(observation)

    seed = 0
    while len(found) < count:
        play(world, Recording(), seed, min(most_steps, count - len(found)))
        seed += 1
    return found


def test_onnx_of_several_numbers_has_a_block_for_each():
    genome = Genome("mlp-3-4-9", 3)
    content = FORMATS["model.onnx"].write(Model(genome, None, "multi-discrete 2+3+4"))
    session = session_of(content)
    seen = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    values, action = session.run(None, {"observation": seen})
    expected = [[int(block.argmax()) for block in np.split(row, [2, 5])] for row in values]
    assert action.tolist() == expected


def test_onnx_says_what_it_is():
    model = model_for(WORLDS["CartPole"][0])
    loaded = onnx.load_model(io.BytesIO(FORMATS["model.onnx"].write(model)))
    told = {each.key: each.value for each in loaded.metadata_props}
    assert told["digest"] == model.genome.digest
    assert told["sha256"] == decode.sha256(decode.parameters(model.genome))


def test_the_card_names_the_extra_that_an_environment_needs():
    for found in gymnasium.registry.values():
        module = str(found.entry_point)
        extra = next((x for x in ("box2d", "mujoco") if f"gymnasium.envs.{x}" in module), None)
        if extra:
            needs = requirements(environment(found.id, 100))
            assert needs == ["numpy", f"gymnasium[{extra}]"], found.id


@pytest.mark.parametrize(
    "arguments", [("--episodes", "0"), ("--seed", "-1"), ("--model", "policy.py")]
)
def test_the_script_says_what_it_cannot_take(tmp_path, arguments):
    download(model_for(WORLDS["CartPole"][0]), tmp_path)
    done = run(tmp_path, *arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "expected" in done.stderr


def test_the_weights_file_holds_the_flat_vector():
    model = model_for(WORLDS["CartPole"][0])
    content = FORMATS["model.safetensors"].write(model)
    (length,) = struct.unpack("<Q", content[:8])
    theta = np.frombuffer(content, "<f4", offset=8 + length)
    assert np.array_equal(theta, decode.parameters(model.genome))


def test_the_card_is_one_that_the_hub_reads():
    text = FORMATS["README.md"].write(model_for(WORLDS["CartPole"][0])).decode()
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    result = yaml.safe_load(front)["model-index"][0]["results"][0]
    assert result["metrics"][0]["value"] == "11.00 +/- 1.25"
    assert "python policy.py" in body
    atari = FORMATS["README.md"].write(model_for(WORLDS["Atari, sticky"][0], "dqn")).decode()
    assert "GPL-2.0-only" in atari
    bare = FORMATS["README.md"].write(Model(Genome("mlp-4-2", 1))).decode()
    assert "mlp-4-2" in bare


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_model_gives_the_same_bytes(name):
    first, second = (model_for(WORLDS["CartPole"][0]) for _ in range(2))
    assert FORMATS[name].write(first) == FORMATS[name].write(second)
