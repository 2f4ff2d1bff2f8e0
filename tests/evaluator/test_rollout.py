import math

import numpy as np
import pytest

from kubevo_core.errors import WorkerUnfit
from kubevo_evaluator.rollout import FailureCause, Played, play


def run(environment, fixed_actions, max_steps=100, **more):
    return play(environment, fixed_actions(environment.actions, 1), 7, max_steps, **more)


def test_the_return_is_the_sum_of_the_rewards_in_order(scripted, fixed_actions):
    rewards = [0.1, 1e16, -1e16, 0.1]
    assert run(scripted(rewards), fixed_actions) == Played(sum(rewards), 4, 4)


def test_an_episode_is_cut_after_the_most_steps(scripted, fixed_actions):
    assert run(scripted([1.0] * 10), fixed_actions, max_steps=3) == Played(3.0, 3, 3)


def test_an_exception_in_a_step_is_a_value_with_what_was_played(scripted, fixed_actions):
    played = run(scripted([1.0, 1.0, ValueError("the cable\nbroke")]), fixed_actions)
    assert played == Played(None, 2, 2, FailureCause("ValueError", "the cable broke"))
    assert played.failure.text == "ValueError: the cable broke"
    assert played.failure.confirm


def test_an_exception_in_reset_is_a_value(scripted, fixed_actions):
    played = run(scripted([1.0], on_reset=KeyError("level")), fixed_actions)
    assert played == Played(None, 0, 0, FailureCause("KeyError", "'level'"))


def test_a_long_message_is_cut(scripted, fixed_actions):
    played = run(scripted([ValueError("x" * 10_000)]), fixed_actions)
    assert len(played.failure.message) == 500


@pytest.mark.parametrize("error", [OSError("no file"), MemoryError(), ImportError("no module")])
@pytest.mark.parametrize("where", ["reset", "step"])
def test_what_only_this_machine_lacks_makes_the_worker_unfit(scripted, fixed_actions, error, where):
    environment = scripted([error]) if where == "step" else scripted([1.0], on_reset=error)
    with pytest.raises(WorkerUnfit, match=where) as caught:
        run(environment, fixed_actions)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_return_that_is_not_finite_is_a_failure_that_needs_no_confirmation(
    scripted, fixed_actions, reward
):
    played = run(scripted([1.0, reward, 1.0]), fixed_actions)
    assert (played.episode_return, played.steps, played.frames) == (None, 3, 3)
    assert played.failure.type == "non-finite return"
    assert not played.failure.confirm


def test_what_the_policy_raises_goes_through(scripted):
    class Broken:
        def load(self, parameters):
            return

        def values(self, observation):
            raise AssertionError

        def act(self, observation):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        play(scripted([1.0]), Broken(), 1, 10)


def test_each_step_can_be_watched_from_the_reset_on(scripted, fixed_actions):
    seen = []
    run(
        scripted([1.0, 2.0]),
        fixed_actions,
        on_step=lambda environment, steps, reward: seen.append(
            (environment.render().dtype, steps, reward)
        ),
    )
    assert seen == [(np.uint8, 0, 0.0), (np.uint8, 1, 1.0), (np.uint8, 2, 2.0)]


def test_an_error_of_the_watcher_is_not_the_environments(scripted, fixed_actions):
    def full_disk(environment, steps, reward):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run(scripted([1.0]), fixed_actions, on_step=full_disk)
