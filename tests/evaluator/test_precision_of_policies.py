"""A bfloat16 search plays rounded weights, on every backend, and so does all that comes after it."""

import numpy as np
import pytest

from kubevo_core import decode, spec
from kubevo_core.errors import GenomeError
from kubevo_core.genome import Genome, Mutation
from kubevo_core.networks import network
from kubevo_evaluator import native
from kubevo_evaluator.description import describe
from kubevo_evaluator.environments import make
from kubevo_evaluator.evaluation import Evaluator, evaluate_genome
from kubevo_evaluator.native_policy import NativePolicy
from kubevo_evaluator.policies import make_policy
from kubevo_evaluator.recording import record
from kubevo_evaluator.rollout import play

LEVELS = [] if native.missing() else list(native.levels())
BACKENDS = ["numpy", *(["native"] if LEVELS else [])]
# Its episodes are others once its weights are rounded.
GENOME, SEEDS = Genome("mlp-4-16-2", 25), [11, 12, 13]


@pytest.fixture
def cart(environment_spec):
    return environment_spec("CartPole-v1", maxEpisodeSteps=40)


def returns(genome, world, backend, precision):
    played = evaluate_genome(genome, world, backend, SEEDS, precision=precision)
    return [each.episode_return for each in played]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_genome_gives_the_episodes_that_its_search_saw(cart, backend):
    policy = spec.Policy.model_validate(
        {"network": "mlp", "hiddenLayers": [16], "precision": "bfloat16", "backend": backend}
    )
    with Evaluator(cart, policy, describe(cart, policy), 1 << 20) as searching:
        decoded = searching.decode(GENOME, None)
        seen = [searching.play(decoded, seed)[0].episode_return for seed in SEEDS]
    assert returns(GENOME, cart, backend, "bfloat16") == seen
    assert returns(GENOME, cart, backend, "float32") != seen


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_policy_of_bfloat16_plays_the_rounded_weights(cart, backend):
    made = make(cart)
    rounding = make_policy(backend, network(GENOME.network), made.actions, "bfloat16")
    rounding.load(decode.parameters(GENOME))
    plain = make_policy(backend, network(GENOME.network), made.actions, "float32")
    plain.load(decode.weights(GENOME, "bfloat16"))
    made.close()
    for seen in np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32):
        assert rounding.values(seen).tobytes() == plain.values(seen).tobytes()


@pytest.mark.skipif(not LEVELS, reason="the native kernel is not built here")
def test_every_backend_and_instruction_set_plays_the_same_actions(environment_spec):
    world = environment_spec("ALE/Pong-v5", maxEpisodeSteps=60)
    genome = Genome("dqn-6", 3, (Mutation(11, "0.05"),))
    made = make(world)
    policies = [make_policy("numpy", network(genome.network), made.actions, "bfloat16")]
    policies += [
        NativePolicy(network(genome.network), made.actions, "bfloat16", level) for level in LEVELS
    ]
    found = []
    for policy in policies:
        policy.load(decode.parameters(genome))
        taken = Noting(policy)
        played = play(made, taken, 5, world.max_episode_steps)
        found.append((taken.actions, [values.tobytes() for values in taken.values], played))
    made.close()
    assert len(found[0][0]) > 30
    assert len(set(found[0][0])) > 1
    for actions, values, played in found[1:]:
        assert (actions, played) == (found[0][0], found[0][2])
        assert values == found[1][1]  # of the kernel every bit


class Noting:
    """A policy that notes what it does."""

    def __init__(self, policy):
        self._policy = policy
        self.actions, self.values = [], []

    def act(self, observation):
        self.values.append(self._policy.values(observation).copy())
        self.actions.append(self._policy.act(observation))
        return self.actions[-1]


def test_a_recording_is_of_the_rounded_weights(cart):
    pictures = {
        precision: record(GENOME, cart, "numpy", SEEDS[0], precision).pictures
        for precision in decode.PRECISIONS
    }
    for precision, found in pictures.items():
        assert found - 1 == returns(GENOME, cart, "numpy", precision)[0]
    assert pictures["float32"] != pictures["bfloat16"]


def test_another_precision_is_refused(cart):
    with pytest.raises(GenomeError, match="expected float32 or bfloat16, got 'float16'"):
        evaluate_genome(GENOME, cart, "auto", SEEDS, precision="float16")
