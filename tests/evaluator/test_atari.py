"""Our Atari loop against Gymnasium's wrappers, and against itself, over all 104 games."""

import hashlib

import ale_py
import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from kubevo_core.errors import EnvironmentRefused
from kubevo_core.seeding import derive
from kubevo_evaluator.atari import games, make_atari, rom_md5

ALL = sorted(games())
CHUNKS = [ALL[start::8] for start in range(8)]
# In these a restored state plays on differently from a fresh start, though always the same way (a
# bug of ale-py 0.12.1), so both sides begin restored. All others begin fresh in Gymnasium.
RESTORED = {"ALE/Qbert-v5", "ALE/Tetris-v5"}
PLAIN = {"maxNoops": 0, "fireReset": False}


def atari(environment_spec, game, **fields):
    return make_atari(environment_spec(game, atari=fields))


def gymnasiums(game, **more):
    gymnasium.register_envs(ale_py)
    base = gymnasium.make(
        game, frameskip=1, repeat_action_probability=0.0, disable_env_checker=True
    )
    return FrameStackObservation(AtariPreprocessing(base, noop_max=0, **more), 4)


def actions(environment, seed, steps):
    return [derive(seed, 99, number) % environment.actions.outputs for number in range(steps)]


def begin_in_our_state(ours, theirs):
    """Reset Gymnasium's environment and put its emulator into our snapshot."""
    theirs.reset(seed=0)
    preprocessing = theirs.env
    emulator = theirs.unwrapped.ale
    assert np.array_equal(emulator.getScreen(), ours._console.screen)
    grey = emulator.getScreenGrayscale()
    emulator.act(0)  # as ours: it must have played before (BURN_IN_FRAMES)
    emulator.restoreState(ours._console.start)
    preprocessing.obs_buffer[0][:] = grey
    preprocessing.obs_buffer[1].fill(0)
    preprocessing.lives = emulator.lives()
    theirs.obs_queue.extend([preprocessing._get_obs()] * 4)
    return np.stack(theirs.obs_queue)


def assert_equal_play(ours, theirs, seed, steps):
    """Play the same actions in both and compare every picture, reward and memory."""
    wrapped = theirs.unwrapped.ale
    restored = theirs.spec.id in RESTORED
    first = begin_in_our_state(ours, theirs) if restored else theirs.reset(seed=0)[0]
    observation = ours.reset(seed)
    assert np.array_equal(observation, np.moveaxis(first, 0, -1))
    for number, action in enumerate(actions(ours, seed, steps)):
        expected, reward, terminated, _, _ = theirs.step(action)
        observation, our_reward, ended = ours.step(action)
        assert np.array_equal(observation, np.moveaxis(expected, 0, -1)), number
        assert (our_reward, ended) == (float(reward), terminated), number
        assert bytes(wrapped.getRAM()) == ours.ram()
        if ended:
            break


@pytest.mark.parametrize("chunk", CHUNKS, ids=[f"chunk{number}" for number in range(8)])
def test_pictures_and_rewards_equal_gymnasiums(environment_spec, chunk):
    for game in chunk:
        ours, theirs = atari(environment_spec, game, **PLAIN), gymnasiums(game)
        assert_equal_play(ours, theirs, 1, 200)
        theirs.close()
        ours.close()


@pytest.mark.parametrize("skip", [1, 2, 5])
def test_pictures_equal_gymnasiums_at_any_frame_skip(environment_spec, skip):
    ours = atari(environment_spec, "ALE/Breakout-v5", frameSkip=skip, **PLAIN)
    theirs = gymnasiums("ALE/Breakout-v5", frame_skip=skip)
    assert_equal_play(ours, theirs, 2, 300)
    theirs.close()


def test_a_lost_life_ends_an_episode_as_in_gymnasium(environment_spec):
    ours = atari(environment_spec, "ALE/Breakout-v5", terminalOnLifeLoss=True, **PLAIN)
    theirs = gymnasiums("ALE/Breakout-v5", terminal_on_life_loss=True)
    assert_equal_play(ours, theirs, 3, 500)
    assert ours.frames < 2000
    theirs.close()


def digest_of_play(environment, seed, steps):
    digest = hashlib.sha256(environment.reset(seed))
    digest.update(environment.render())
    total = 0.0
    for action in actions(environment, seed, steps):
        observation, reward, ended = environment.step(action)
        total += reward
        digest.update(environment.ram())
        digest.update(observation)
        if ended:
            break
    return total, environment.frames, digest.hexdigest()


@pytest.mark.parametrize("chunk", CHUNKS, ids=[f"chunk{number}" for number in range(8)])
def test_an_episode_is_the_same_before_and_after_other_play(environment_spec, chunk):
    """Check return, frames, and memory and picture after every step of sticky games, 500 steps.

    Without an opening even the first picture must be free of the episode before.
    """
    fields = {"stickyActionProbability": "0.25", **PLAIN}
    first = {}
    for game in chunk:
        environment = atari(environment_spec, game, **fields)
        first[game] = digest_of_play(environment, 1, 500)
        digest_of_play(environment, 2, 250)
        environment.close()
    for game in chunk:
        environment = atari(environment_spec, game, **fields)
        assert digest_of_play(environment, 1, 500) == first[game], game
        environment.close()


@pytest.mark.parametrize("game", ["ALE/Pong-v5", *sorted(RESTORED)])
def test_a_new_emulator_plays_as_one_that_has_played(environment_spec, game, monkeypatch):
    monkeypatch.setattr("kubevo_evaluator.atari._idle", {})
    environment = atari(environment_spec, game, **PLAIN)
    first = digest_of_play(environment, 1, 100)
    for steps in (1, 3, 50):
        digest_of_play(environment, 2, steps)
        assert digest_of_play(environment, 1, 100) == first


def test_two_environments_of_one_game_do_not_share_an_emulator(environment_spec):
    one, two = (atari(environment_spec, "ALE/Pong-v5") for _ in range(2))
    expected = digest_of_play(one, 1, 50)
    one.reset(1)
    two.reset(2)
    found = 0.0
    for action in actions(one, 1, 50):
        found += one.step(action)[1]
        two.step(0)
    assert (found, one.frames, one.ram()) == (expected[0], expected[1], one.ram())
    assert digest_of_play(two, 1, 50) == expected
    one.close()
    two.close()


def test_a_closed_environment_gives_its_console_to_the_next(environment_spec):
    one = atari(environment_spec, "ALE/Pong-v5")
    emulator = one._ale
    one.close()
    one.close()
    two, three = (atari(environment_spec, "ALE/Pong-v5") for _ in range(2))
    assert two._ale is emulator
    assert three._ale is not emulator
    with pytest.raises(RuntimeError, match="closed"):
        one.reset(1)
    two.close()
    three.close()


def test_no_ops_come_from_the_seed_and_reach_both_ends(environment_spec):
    environment = atari(environment_spec, "ALE/Freeway-v5", maxNoops=3, fireReset=True)
    frames = set()
    for seed in range(40):
        environment.reset(seed)
        frames.add(environment.frames)
    assert frames == {0, 1, 2, 3}
    environment.close()


def test_fire_is_pressed_at_the_start_and_after_a_lost_life(environment_spec):
    def play(fire):
        environment = atari(environment_spec, "ALE/Breakout-v5", maxNoops=0, fireReset=fire)
        environment.reset(1)
        start, ended, steps = environment.frames, False, 0
        while not ended and steps < 2000:
            _, _, ended = environment.step(0)
            steps += 1
        environment.close()
        return start, ended

    # Without FIRE the ball never comes; with it, five balls are lost by standing still.
    assert play(fire=True) == (4, True)
    assert play(fire=False) == (0, False)


def test_sticky_actions_repeat_about_as_often_as_told(environment_spec):
    environment = atari(environment_spec, "ALE/Pong-v5", stickyActionProbability="0.25", **PLAIN)
    acted = []

    class Recorder:
        def __init__(self, ale):
            self.ale = ale

        def act(self, code):
            acted.append(code)
            return self.ale.act(code)

        def __getattr__(self, name):
            return getattr(self.ale, name)

    environment._ale = Recorder(environment._ale)
    environment.reset(3)
    for number in range(500):
        environment.step(number % 2 * 2)
    # An action changes with every step; the first frame of a step repeats the last in 25 %.
    late = sum(acted[4 * n] != environment._codes[n % 2 * 2] for n in range(500))
    assert 90 < late < 165
    environment.close()


def test_the_emulator_is_asked_for_grey_only_when_a_colour_is_new(environment_spec, monkeypatch):
    monkeypatch.setattr("kubevo_evaluator.atari._idle", {})
    environment = atari(environment_spec, "ALE/Seaquest-v5")
    asked = []

    class Counter:
        def __init__(self, ale):
            self.ale = ale

        def getScreenGrayscale(self):  # noqa: N802 - the emulator's name
            asked.append(True)
            return self.ale.getScreenGrayscale()

        def __getattr__(self, name):
            return getattr(self.ale, name)

    environment._ale = Counter(environment._ale)
    digest_of_play(environment, 1, 300)
    assert 1 <= len(asked) <= 30
    asked.clear()
    digest_of_play(environment, 1, 300)
    assert not asked
    environment.close()


def test_a_probability_of_one_never_leaves_the_no_op(environment_spec):
    environment = atari(environment_spec, "ALE/Pong-v5", stickyActionProbability="1", **PLAIN)
    plain = atari(environment_spec, "ALE/Pong-v5", **PLAIN)
    environment.reset(1)
    plain.reset(1)
    for _ in range(50):
        environment.step(2)
        plain.step(0)
    assert environment.ram() == plain.ram()
    environment.close()
    plain.close()


def test_actions_are_the_minimal_set_unless_all_are_wanted(environment_spec):
    minimal = atari(environment_spec, "ALE/Pong-v5")
    full = atari(environment_spec, "ALE/Pong-v5", fullActionSpace=True)
    assert str(minimal.actions) == "discrete 6"
    assert str(full.actions) == "discrete 18"
    minimal.close()
    full.close()


def test_a_rom_is_known_by_its_md5():
    assert len(rom_md5("ALE/Pong-v5")) == 32
    with pytest.raises(EnvironmentRefused):
        rom_md5("ALE/Nothing-v5")
