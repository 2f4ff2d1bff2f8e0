import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from kubevo_core import decode
from kubevo_core.genome import Genome
from kubevo_core.networks import network
from kubevo_core.noise import noise
from kubevo_evaluator.environments import make
from kubevo_evaluator.layouts import ActionLayout
from kubevo_evaluator.numpy_policy import NumpyPolicy
from kubevo_evaluator.policies import make_policy, resolve
from kubevo_evaluator.torch_policy import TorchPolicy

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", ["dqn-18", "large-dqn-6", "mlp-5-7-3"])
def test_torch_gives_the_values_of_numpy(name):
    net = network(name)
    actions = ActionLayout("discrete", (net.outputs,))
    policies = [NumpyPolicy(net, actions), TorchPolicy(net, actions)]
    x = noise(4, net.inputs)
    if net.observation == "pixels":
        x = np.clip(x * 60 + 128, 0, 255).astype(np.uint8).reshape(84, 84, 4)
    for seed in (1, 2):
        theta = decode.parameters(Genome(name, seed), decode.ParameterCache(1 << 30))
        assert not theta.flags.writeable
        for policy in policies:
            policy.load(theta)
        np.testing.assert_allclose(
            policies[0].values(x), policies[1].values(x), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("game", ["ALE/Frostbite-v5", "ALE/Pong-v5"])
def test_torch_takes_numpys_action_on_visited_observations(environment_spec, game):
    environment = make(environment_spec(game))
    net = network(f"dqn-{environment.actions.outputs}")
    reference, other = (kind(net, environment.actions) for kind in (NumpyPolicy, TorchPolicy))
    visited = different = 0
    # Two libraries with two threads each would wait for one another on every layer.
    limits = threadpool_limits(1)
    for genome in range(10):
        theta = decode.parameters(Genome(net.id, genome))
        reference.load(theta)
        other.load(theta)
        observation, ended = environment.reset(genome), False
        for _ in range(1000):
            if ended:
                observation = environment.reset(genome + visited)
            action = reference.act(observation)
            visited += 1
            different += action != other.act(observation)
            observation, _, ended = environment.step(action)
    limits.restore_original_limits()
    environment.close()
    assert visited == 10_000
    assert different <= visited / 10_000


def test_auto_never_means_torch():
    assert resolve("auto") in ("native", "numpy")
    policy = make_policy("torch", network("mlp-4-2"), ActionLayout("discrete", (2,)))
    assert isinstance(policy, TorchPolicy)
