import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from kubevo_core import checkpoint
from kubevo_core.errors import CheckpointCorrupt, CheckpointVersionError
from kubevo_core.generation import Limits, ask, finish, is_complete, resume, start, tell

LIMITS = Limits(max_generations=50)


def played(settings_, play, generations, limits=LIMITS):
    state, rng = start(settings_), random.Random(3)
    while state.generation < generations:
        demands = ask(state, limits)
        if is_complete(state):
            state = finish(state, limits, 1.5)
        else:
            tell(state, play(rng.choice(demands)))
    return state


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from([2, 3, 41]))
def test_a_checkpoint_holds_all_that_was_finished(
    make_settings, synthetic_play, generations, seed, episodes, fail_every
):
    settings_ = make_settings(
        seed=seed, episodes_per_evaluation=episodes, test_episodes=2, test_every_generations=1
    )
    state = start(settings_)
    play = synthetic_play("noise", fail_every)
    while state.generation < generations and state.stop is None:
        for demand in ask(state, LIMITS):
            tell(state, play(demand))
        if is_complete(state):
            state = finish(state, LIMITS, 2.5)
    payload = checkpoint.encode(state)

    found = checkpoint.decode(payload)

    assert found == checkpoint.Snapshot(state.finished, state.tests, state.stop)
    again = resume(settings_, found.finished, found.tests, found.stop)
    assert (again.phase, again.population, again.carried) == (
        state.phase,
        state.population,
        state.carried,
    )
    assert checkpoint.encode(again) == payload


def test_partial_results_of_the_next_generation_are_not_in_it(make_settings, synthetic_play):
    state = played(make_settings(), synthetic_play(), 2)
    before = checkpoint.encode(state)
    tell(state, synthetic_play()(ask(state, LIMITS)[0]))
    assert checkpoint.encode(state) == before


def test_its_size_grows_by_bytes_a_link_not_by_weights(make_settings, synthetic_play):
    small = len(checkpoint.encode(played(make_settings(), synthetic_play(), 2)))
    large = len(checkpoint.encode(played(make_settings(), synthetic_play(), 40)))
    assert large - small < 40 * (32 + 8 * 6)


def test_scores_are_sixteen_bytes_an_individual(make_settings, synthetic_play):
    done = played(make_settings(), synthetic_play("noise", 3), 2).finished
    table = np.frombuffer(checkpoint.scores(done), checkpoint.SCORE)
    assert len(checkpoint.scores(done)) == 16 * 6
    assert [None if np.isnan(f) else f for f in table["fitness"].tolist()] == done.fitnesses
    assert table["parent"].tolist() == [i.parent_slot for i in done.population]


def test_a_newer_version_is_refused_by_name(make_settings, synthetic_play):
    payload = checkpoint.encode(played(make_settings(), synthetic_play(), 1))
    with pytest.raises(CheckpointVersionError, match="has version 2, this program reads 1"):
        checkpoint.decode(payload.replace(b'version\\": 1', b'version\\": 2'))


@pytest.mark.parametrize("name", ["base", "returns", "digests", "pool_init"])
def test_arrays_that_do_not_fit_are_refused(make_settings, synthetic_play, name):
    payload = checkpoint.encode(played(make_settings(), synthetic_play(), 1))
    arrays = load(payload)
    arrays[name] = arrays[name][:0]
    size = int.from_bytes(payload[:8], "little")
    import json

    metadata = json.loads(payload[8 : 8 + size])["__metadata__"]
    broken = save(arrays, metadata)
    if name == "digests":
        assert checkpoint.decode(broken).finished.digests == ()
    else:
        with pytest.raises(CheckpointCorrupt, match="do not fit"):
            checkpoint.decode(broken)


@pytest.mark.parametrize("payload", [b"", b"\x00" * 8, b"\xff" * 64, b"{}"])
def test_garbage_is_refused(payload):
    with pytest.raises(CheckpointCorrupt):
        checkpoint.decode(payload)
