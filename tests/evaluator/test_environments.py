"""Conformance of environments, determinism first; and what `make` refuses."""

import numpy as np
import pytest

from kubevo_core.errors import EnvironmentRefused, WorkerUnfit
from kubevo_evaluator.environments import known, make
from kubevo_evaluator.rollout import play

STICKY = {"atari": {"stickyActionProbability": "0.25"}}
MIXED = "kubevo_test_environments:KubevoMixed-v0"
CASES = [
    pytest.param(("CartPole-v1", {}), id="cartpole"),
    pytest.param(("Acrobot-v1", {}), id="acrobot"),
    pytest.param(("Pendulum-v1", {"kwargs": {"g": "9.8"}}), id="pendulum"),
    pytest.param(("MountainCarContinuous-v0", {}), id="mountain-car"),
    pytest.param(("LunarLander-v3", {}), id="lunar-lander"),
    pytest.param(("BipedalWalker-v3", {}), id="bipedal-walker"),
    pytest.param(("HalfCheetah-v5", {}), id="half-cheetah"),
    pytest.param(("ALE/Pong-v5", {}), id="pong"),
    pytest.param(("ALE/Frostbite-v5", STICKY), id="frostbite-sticky"),
    pytest.param((MIXED, {}), id="plugin"),
]
pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture(params=CASES)
def environment(request, environment_spec):
    identifier, fields = request.param
    made = make(environment_spec(identifier, **fields))
    yield made
    made.close()
    made.close()


def trace(environment, fixed_actions, seed, steps=150):
    """Return the digest of every observation and reward of an episode."""
    policy = fixed_actions(environment.actions, seed)
    observation, ended = environment.reset(seed), False
    found = [observation.tobytes()]
    while not ended and len(found) < steps:
        observation, reward, ended = environment.step(policy.act(observation))
        found += [observation.tobytes(), float(reward).hex()]
    return [*found, environment.frames]


def test_an_episode_is_decided_by_its_seed_alone(environment, fixed_actions):
    first = trace(environment, fixed_actions, 1)
    assert trace(environment, fixed_actions, 1) == first
    others = [trace(environment, fixed_actions, seed) for seed in (2, 3)]
    assert all(other != first for other in others)
    assert trace(environment, fixed_actions, 1) == first


def test_another_instance_plays_the_same_episode(
    request, environment, fixed_actions, environment_spec
):
    identifier, fields = request.node.callspec.params["environment"]
    other = make(environment_spec(identifier, **fields))
    trace(other, fixed_actions, 9)
    assert trace(other, fixed_actions, 1) == trace(environment, fixed_actions, 1)
    other.close()


def test_observations_have_the_layout_and_are_finite(environment, fixed_actions):
    layout = environment.observation
    policy = fixed_actions(environment.actions, 4)
    observation = environment.reset(4)
    for _ in range(5):
        assert observation.shape == layout.shape
        assert observation.dtype == (np.uint8 if layout.kind == "pixels" else np.float32)
        assert observation.flags.c_contiguous
        assert np.isfinite(observation).all()
        observation, reward, ended = environment.step(policy.act(observation))
        assert isinstance(reward, float)
        assert isinstance(ended, bool)


def test_an_episode_is_cut_after_max_steps(environment, fixed_actions):
    played = play(environment, fixed_actions(environment.actions, 1), 3, 2)
    assert played.steps == 2
    assert played.failure is None
    assert played.frames == environment.frames >= 2


def test_the_environments_own_time_limit_still_ends_an_episode(environment_spec, fixed_actions):
    environment = make(environment_spec("Pendulum-v1"))
    assert play(environment, fixed_actions(environment.actions, 1), 3, 5000).steps == 200


def test_a_dict_is_flattened_by_sorted_key(environment_spec):
    environment = make(environment_spec(MIXED))
    observation = environment.reset(5)
    assert environment.observation.shape == (3 + 2 + 5 + 4,)
    assert observation[:3].sum() == 1
    assert observation[5:7].sum() == observation[7:10].sum() == 1
    assert set(observation[3:5]) <= {0.0, 1.0}
    assert np.abs(observation[10:]).max() <= 1


def test_discrete_actions_begin_where_their_space_does(environment_spec):
    environment = make(environment_spec("kubevo_test_environments:KubevoShifted-v0"))
    environment.reset(1)
    assert environment.step(1)[1] == 6.0


def test_a_picture_has_three_colours(environment_spec):
    for identifier in ("CartPole-v1", "ALE/Pong-v5"):
        environment = make(environment_spec(identifier), render=True)
        environment.reset(1)
        picture = environment.render()
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        environment.close()


def test_a_picture_of_an_environment_made_without_is_refused(environment_spec):
    environment = make(environment_spec(MIXED))
    environment.reset(1)
    with pytest.raises((RuntimeError, NotImplementedError)):
        environment.render()


@pytest.mark.parametrize(
    ("identifier", "fields", "message"),
    [
        ("CartPole-v0", {}, "use 'CartPole-v1'"),
        ("CartPole", {}, "use 'CartPole-v1'"),
        ("Taxi-v3", {}, "use 'Taxi-v4'"),
        ("LunarLander-v2", {}, "use 'LunarLander-v3'"),
        ("Cartpol-v1", {}, "CartPole-v1"),
        ("PongNoFrameskip-v4", {}, "ALE/Pong-v5"),
        ("ALE/Frostbit-v5", {}, "did you mean ALE/Frostbite-v5"),
        ("ALE/Pong-v4", {}, "did you mean ALE/Pong-v5"),
        ("CartPole-v1", {"kwargs": {"gravity": "1"}}, "gravity"),
        ("CartPole-v1", {"kwargs": {"render_mode": '"human"'}}, "set by kubevo"),
        ("kubevo_test_environments:KubevoWords-v0", {}, "Text"),
        ("kubevo_test_environments:KubevoMixd-v0", {}, "KubevoMixed-v0"),
    ],
)
def test_what_cannot_be_made_is_refused_with_a_cure(environment_spec, identifier, fields, message):
    with pytest.raises(EnvironmentRefused) as caught:
        make(environment_spec(identifier, **fields))
    assert message in str(caught.value)


def test_a_module_that_does_not_exist_is_refused(environment_spec):
    with pytest.raises(EnvironmentRefused, match="there is no module 'no_such_module'"):
        make(environment_spec("no_such_module:Game-v0"))


def test_a_module_that_lacks_something_makes_the_worker_unfit(
    environment_spec, monkeypatch, tmp_path
):
    (tmp_path / "half_installed.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkerUnfit, match="cannot be imported: No module named 'no_such_library'"):
        make(environment_spec("half_installed:Game-v0"))


def test_a_missing_rom_of_a_known_game_makes_the_worker_unfit(
    environment_spec, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    monkeypatch.setattr("kubevo_evaluator.atari._idle", {})
    with pytest.raises(WorkerUnfit, match="reinstall ale-py"):
        make(environment_spec("ALE/Pong-v5"))


def test_known_environments_are_those_that_can_be_named():
    found = {each.id: each for each in known()}
    assert sum(each.kind == "atari" for each in found.values()) == 104
    assert found["CartPole-v1"].kind == "classic control"
    assert found["LunarLander-v3"].kind == "box2d"
    assert found["ALE/Pong-v5"].observation == "pixels 84x84x4 uint8"
    assert "CartPole-v0" not in found
    assert list(found) == sorted(found)


def test_an_environment_without_pictures_says_so(environment_spec):
    with pytest.raises(
        EnvironmentRefused, match=r"offers no pictures.*play it without a recording"
    ):
        make(environment_spec(MIXED), render=True)
