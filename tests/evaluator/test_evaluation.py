import dataclasses

import numpy as np
import pytest

from kubevo_core import decode
from kubevo_core.errors import EnvironmentRefused, GenomeError, WorkerUnfit
from kubevo_core.genome import Genome, Mutation
from kubevo_evaluator.description import describe
from kubevo_evaluator.evaluation import Evaluator, evaluate_genome
from kubevo_evaluator.policies import make_policy

MIXED = "kubevo_test_environments:KubevoMixed-v0"
MUTATION = Mutation(7, "0.5")


@pytest.fixture
def described(environment_spec, policy_spec, plugin):
    def make(identifier="CartPole-v1", network="mlp", hidden=(8,), **fields):
        environment, policy = environment_spec(identifier, **fields), policy_spec(network, *hidden)
        return environment, policy, describe(environment, policy)

    return make


def test_a_description_names_what_could_change_a_result(described):
    _, _, description = described()
    assert description.network == "mlp-4-8-2"
    assert description.backend == "numpy"
    assert description.observation == "vector 4 float32"
    assert description.actions == "discrete 2"
    prints = description.fingerprint
    assert set(prints) == {"backend", "precision", "forward", "numpy", "gymnasium"}
    assert len(prints["forward"]) == 64


@pytest.mark.parametrize(
    ("identifier", "extra"),
    [("LunarLander-v3", {"gymnasium", "Box2D"}), (MIXED, {"gymnasium"})],
)
def test_a_fingerprint_has_the_versions_of_what_plays(described, identifier, extra):
    prints = described(identifier)[2].fingerprint
    assert set(prints) - {"backend", "precision", "forward", "numpy"} == extra


def test_an_atari_fingerprint_has_the_rom(described):
    _, _, description = described("ALE/Pong-v5", "dqn", ())
    assert description.network == "dqn-6"
    assert {"ale-py", "rom"} <= set(description.fingerprint)


def test_describing_twice_gives_the_same(described):
    assert described()[2] == described()[2]


@pytest.mark.parametrize(
    ("identifier", "network", "message"),
    [("CartPole-v1", "dqn", "use mlp"), ("ALE/Pong-v5", "mlp", "use dqn or large-dqn")],
)
def test_a_network_that_does_not_fit_is_refused(described, identifier, network, message):
    with pytest.raises(EnvironmentRefused, match=message):
        described(identifier, network, ())


def test_an_environment_that_fails_at_once_is_refused(described):
    with pytest.raises(EnvironmentRefused, match="the cable broke"):
        described(MIXED, kwargs={"fail_at": "2"})


def test_the_same_episode_gives_the_same_result_with_any_cache(described):
    environment, policy, description = described(maxEpisodeSteps=300)
    base = Genome(description.network, 3, (Mutation(1, "0.5"), Mutation(2, "0.5")))
    found = []
    for cache_bytes in (0, 1 << 20):
        with Evaluator(environment, policy, description, cache_bytes) as evaluator:
            for order in ((None, MUTATION), (MUTATION, None)):
                played = {m: evaluator.play(evaluator.decode(base, m), 11)[0] for m in order}
                found.append((played[None], played[MUTATION]))
            child = evaluator.play(evaluator.decode(base.child(MUTATION), None), 11)[0]
            assert child == found[-1][1]
    assert all(each == found[0] for each in found)


def test_a_candidate_is_decoded_once_for_all_its_episodes(described, monkeypatch):
    environment, policy, description = described()
    base = Genome(description.network, 3)
    with Evaluator(environment, policy, description, 0) as evaluator:
        loads = []
        load = evaluator._policy.load
        monkeypatch.setattr(evaluator._policy, "load", lambda w: (loads.append(1), load(w)))
        for seed in range(5):
            _, seconds = evaluator.play(evaluator.decode(base, MUTATION), seed)
            assert set(seconds) == {"decode", "play"}
        assert len(loads) == 1
        evaluator.play(evaluator.decode(base, None), 1)
        assert len(loads) == 2


def test_decoded_weights_stay_while_anybody_has_them_and_their_memory_is_used_again(described):
    environment, policy, description = described()
    base = Genome(description.network, 3)
    mutations = [Mutation(seed, "0.5") for seed in range(4)]
    with Evaluator(environment, policy, description, 1 << 20) as evaluator:
        kept = [evaluator.decode(base, mutation) for mutation in mutations]
        evaluator.play(kept[2], 1)
        evaluator.play(kept[0], 1)
        for each, mutation in zip(kept, mutations, strict=True):
            expected = decode.parameters(base.child(mutation))
            assert np.array_equal(each.parameters, expected)
        place = kept[1].parameters.ctypes.data
        del each, kept[1]
        again = evaluator.decode(base, Mutation(9, "0.5"))
        assert again.parameters.ctypes.data == place


def test_a_worker_with_another_fingerprint_is_unfit_and_told_why(described):
    environment, policy, description = described()
    other = dataclasses.replace(
        description, fingerprint={**description.fingerprint, "forward": "00", "gymnasium": "0.1"}
    )
    with pytest.raises(WorkerUnfit) as caught:
        Evaluator(environment, policy, other, 0).open()
    assert "forward: expected 00, here " in str(caught.value)
    assert "gymnasium: expected 0.1, here " in str(caught.value)
    assert "numpy: " not in str(caught.value)


def test_another_layout_than_described_makes_the_worker_unfit(described):
    environment, policy, description = described()
    other = dataclasses.replace(description, actions="discrete 3")
    with pytest.raises(WorkerUnfit, match="discrete 3"):
        Evaluator(environment, policy, other, 0).open()


def test_an_evaluator_that_is_not_open_says_so(described):
    environment, policy, description = described()
    evaluator = Evaluator(environment, policy, description, 0)
    decoded = evaluator.decode(Genome("mlp-4-8-2", 1), None)
    with pytest.raises(RuntimeError, match="not open"):
        evaluator.play(decoded, 1)


def test_a_genome_of_another_network_is_refused(described):
    with Evaluator(*described(), 0) as evaluator, pytest.raises(GenomeError, match="mlp-4-9-2"):
        evaluator.play(evaluator.decode(Genome("mlp-4-9-2", 1), None), 1)


def test_an_environment_that_fails_mid_episode_is_made_again(described):
    environment, policy, description = described(MIXED, kwargs={"fail_at": "9"})
    with Evaluator(environment, policy, description, 0) as evaluator:
        before = evaluator._environment
        for _ in range(2):
            played, _ = evaluator.play(evaluator.decode(Genome(description.network, 1), None), 5)
            assert (played.steps, played.frames) == (8, 8)
            assert played.failure.text == "ValueError: the cable broke"
            assert played.failure.confirm
        assert evaluator._environment is not before


def test_an_environment_that_cannot_be_read_here_makes_the_worker_unfit(described):
    fields = {"kwargs": {"fail_at": "9", "error": '"OSError"'}}
    environment, policy, description = described(MIXED, **fields)
    unfit = pytest.raises(WorkerUnfit, match="step 9")
    with Evaluator(environment, policy, description, 0) as evaluator, unfit:
        evaluator.play(evaluator.decode(Genome(description.network, 1), None), 5)


def test_closing_twice_is_harmless(described):
    evaluator = Evaluator(*described(), 0)
    evaluator.open()
    evaluator.close()
    evaluator.close()


def test_one_call_plays_a_genome(described, environment_spec):
    environment, policy, description = described()
    genome = Genome(description.network, 4)
    seen, pictures = [], []
    played = evaluate_genome(
        genome,
        environment,
        "auto",
        [1, 2, 3],
        lambda number, each: seen.append((number, each)),
        on_step=lambda env, steps, reward: pictures.append(env.render().shape),
        render=True,
    )
    with Evaluator(environment, policy, description, 0) as evaluator:
        assert played == [
            evaluator.play(evaluator.decode(genome, None), seed)[0] for seed in (1, 2, 3)
        ]
    assert seen == list(enumerate(played))
    assert len(pictures) == sum(each.steps + 1 for each in played)


def test_one_call_goes_on_after_a_failed_episode(environment_spec, plugin):
    environment = environment_spec(MIXED, kwargs={"fail_at": "3"})
    played = evaluate_genome(Genome("mlp-14-5", 1), environment, "numpy", [1, 2])
    assert [each.steps for each in played] == [2, 2]


def test_a_genome_is_refused_where_it_does_not_fit(environment_spec):
    with pytest.raises(EnvironmentRefused, match="mlp-5-2"):
        evaluate_genome(Genome("mlp-5-2", 1), environment_spec("CartPole-v1"), "numpy", [1])


def test_a_backend_that_is_not_here_makes_the_worker_unfit(monkeypatch):
    from kubevo_core.networks import network
    from kubevo_evaluator.layouts import ActionLayout

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    actions, net = ActionLayout("discrete", (2,)), network("dqn-2")
    with pytest.raises(WorkerUnfit, match=r"install kubevo\[torch\]"):
        make_policy("torch", net, actions)
    with pytest.raises(WorkerUnfit, match="expected one of native, numpy, torch"):
        make_policy("abacus", net, actions)
    assert make_policy("numpy", net, actions).load(np.zeros(net.size, dtype=np.float32)) is None
