"""A downloaded genome plays here as it did in the search."""

import gymnasium
import numpy as np
import pytest

from kubevo_client import Best
from kubevo_client.policy import Policy, action_layout
from kubevo_core import decode, spec
from kubevo_core.errors import UserError
from kubevo_core.genome import parse
from kubevo_core.networks import network
from kubevo_evaluator.evaluation import evaluate_genome
from kubevo_evaluator.layouts import ActionLayout

DISCRETE = ActionLayout("discrete", (2,))


def genome_of(identifier, seed=7):
    return parse(f"kubevo-1:{identifier}:{seed}")


def play(policy, environment, seed):
    observation, _ = environment.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = environment.step(policy.act(observation))
        total, over = total + float(reward), terminated or truncated
    return total


def test_the_best_plays_its_environment_as_the_evaluator_does(client):
    experiment = client.experiment("first")
    best = experiment.best()
    wanted = spec.Environment.model_validate(experiment.detail()["spec"]["environment"])
    expected = evaluate_genome(best.genome, wanted, "numpy", [3, 4])
    environment = gymnasium.make("CartPole-v1")
    for policy in (best.load_policy(), best.load_policy(environment)):
        returns = [play(policy, environment, seed) for seed in (3, 4)]
        assert returns == [each.episode_return for each in expected]
    environment.close()


def test_the_best_of_a_bfloat16_search_plays_its_rounded_weights():
    text = "kubevo-1:mlp-4-16-2:25"  # its episodes are others once its weights are rounded
    document = {
        "fitness": 1.0,
        "generation": 0,
        "repeat": 0,
        "genome": text,
        "digest": parse(text).digest,
        "actions": "discrete 2",
    }
    environment, returns = gymnasium.make("CartPole-v1"), {}
    wanted = spec.Environment.model_validate({"id": "CartPole-v1"})
    for precision in decode.PRECISIONS:
        told = {**document, "precision": precision}
        policy = Best.of(told, None, ("local", "first")).load_policy(environment)
        assert policy.sha256 == decode.sha256(decode.weights(policy.genome, precision))
        returns[precision] = [play(policy, environment, seed) for seed in (11, 12, 13)]
        expected = evaluate_genome(
            policy.genome, wanted, "numpy", [11, 12, 13], precision=precision
        )
        assert returns[precision] == [each.episode_return for each in expected]
    environment.close()
    assert returns["float32"] != returns["bfloat16"]
    assert Best.of(document, None, ("local", "first")).precision == "float32"


def test_weights_are_decoded_from_the_genome_and_cannot_be_changed():
    policy = Policy(genome_of("mlp-4-16-2"), DISCRETE)
    assert policy.sha256 == decode.sha256(decode.parameters(policy.genome))
    with pytest.raises(ValueError, match="read-only"):
        policy.parameters[0] = 1


def test_values_are_the_callers_own():
    policy = Policy(genome_of("mlp-4-16-2"), DISCRETE)
    first = policy.values([1, 0, 0, 0])
    kept = first.copy()
    policy.values([0, 1, 0, 0])
    assert first.tolist() == kept.tolist()


def test_an_action_is_the_index_of_the_largest_value():
    policy = Policy(genome_of("mlp-4-16-2"), DISCRETE)
    observation = [0.1, -0.2, 0.3, 0.4]
    assert policy.act(observation) == int(policy.values(observation).argmax())


def test_pixels_need_no_environment_to_be_understood():
    layout, _ = action_layout(network("dqn-6"), None, {}, None)
    policy = Policy(genome_of("dqn-6"), layout)
    assert policy.act(np.zeros((84, 84, 4), np.uint8)) in range(6)
    with pytest.raises(UserError, match=r"expected an observation of \(84, 84, 4\) uint8"):
        policy.act(np.zeros((4, 84, 84), np.uint8))


def test_an_observation_of_another_size_is_refused():
    policy = Policy(genome_of("mlp-4-16-2"), DISCRETE)
    with pytest.raises(UserError, match="expected an observation of 4 values, got 3"):
        policy.act([1, 2, 3])


@pytest.mark.parametrize("name", ["MountainCarContinuous-v0", "Pendulum-v1", "FrozenLake-v1"])
def test_an_environments_own_spaces_are_read_and_written(name):
    environment = gymnasium.make(name)
    observation, _ = environment.reset(seed=1)
    shapes = {
        "MountainCarContinuous-v0": "mlp-2-4-1",
        "Pendulum-v1": "mlp-3-4-1",
        "FrozenLake-v1": "mlp-16-4-4",
    }
    genome = genome_of(shapes[name])
    layout, _ = action_layout(network(genome.network), environment, {}, None)
    action = Policy(genome, layout, environment).act(observation)
    assert environment.action_space.contains(action)
    environment.close()


def test_an_environment_that_does_not_fit_is_refused():
    environment = gymnasium.make("Acrobot-v1")
    layout, _ = action_layout(network("mlp-4-16-2"), environment, {}, None)
    with pytest.raises(UserError, match="gives 2 values, the action space takes 3"):
        Policy(genome_of("mlp-4-16-2"), layout, environment)
    layout, _ = action_layout(network("mlp-4-16-3"), environment, {}, None)
    with pytest.raises(UserError, match="reads 4 values, this environment shows 6"):
        Policy(genome_of("mlp-4-16-3"), layout, environment)
    environment.close()


def test_a_continuous_action_is_never_taken_for_a_choice():
    layout, _ = action_layout(network("mlp-2-4-1"), None, {"id": "MountainCarContinuous-v0"}, None)
    assert layout is not None
    assert layout.kind == "continuous"


def test_a_module_that_the_service_names_is_not_imported():
    layout, why = action_layout(network("mlp-2-4-1"), None, {"id": "antigravity:Game-v0"}, None)
    assert layout is None
    policy = Policy(genome_of("mlp-2-4-1"), layout, None, why)
    assert policy.values([0, 0]).shape == (1,)
    with pytest.raises(UserError, match=r"a module of its own\): load_policy\(env\)"):
        policy.act([0, 0])


def test_an_environment_that_is_not_installed_is_no_error_until_it_matters():
    layout, why = action_layout(network("mlp-2-4-1"), None, {"id": "Nowhere-v3"}, None)
    assert (layout, "cannot be made here" in why) == (None, True)
