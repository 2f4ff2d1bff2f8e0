"""Arrival order, restarts and interleaving cannot show; and what is handed out is never wrong."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubevo_core import checkpoint
from kubevo_core.certainty import Validation, certain_candidates, possible_parents
from kubevo_core.errors import IllegalTransition
from kubevo_core.evaluation import Episode
from kubevo_core.generation import (
    Limits,
    Outcome,
    Phase,
    Stop,
    ask,
    close_tests,
    completed_tests,
    finish,
    is_complete,
    reopen,
    resume,
    start,
    tell,
)
from kubevo_core.generation_report import population_digest, result_digest
from kubevo_core.seeding import Purpose
from kubevo_core.selection import candidates, elite, next_parents, ranking

specs = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "population_size": st.integers(2, 9),
        "episodes_per_evaluation": st.integers(1, 2),
        "elite_episodes": st.integers(1, 3),
        "test_episodes": st.integers(0, 2),
        "test_every_generations": st.integers(0, 2),
    }
).flatmap(
    lambda fields: st.fixed_dictionaries(
        {
            **{name: st.just(value) for name, value in fields.items()},
            "parents": st.integers(1, fields["population_size"]),
            "elite_candidates": st.integers(2, fields["population_size"]),
        }
    )
)


def restarted(state, play, rng):
    """Return the state that a new process has: the checkpoint's, plus some results seen again."""
    if state.finished is None:
        fresh = start(state.settings)
    else:
        snapshot = checkpoint.decode(checkpoint.encode(state))
        fresh = resume(state.settings, snapshot.finished, snapshot.tests, snapshot.stop)
    kept = [episode for episode in state.results.values() if rng.random() < 0.8]
    for episode in kept:
        tell(fresh, episode)
    return fresh


def run(settings_, play, limits, rng, *, restart=0.0, duplicate=0.0, workers=1):
    """Play a whole search with ``workers`` in flight; any result may come twice, or late."""
    state = start(settings_)
    flight, seen = [], []
    while state.phase is not Phase.STOPPED:
        demands = ask(state, limits)
        if is_complete(state):
            state = finish(state, limits, 0.0)
            continue
        reports = completed_tests(state)
        if reports:
            state = close_tests(state, [(r.generation, r.purpose) for r in reports])
            continue
        flight = [d for d in flight if d.key in state.open]
        waiting = [d for d in demands if d not in flight]
        while waiting and len(flight) < workers:
            flight.append(waiting.pop(rng.randrange(len(waiting))))
        episode = play(flight.pop(rng.randrange(len(flight))))
        assert tell(state, episode) is Outcome.ACCEPTED
        seen.append(episode)
        if rng.random() < duplicate:
            before, again = len(state.results), rng.choice(seen)
            if again.key not in state.open:  # a restart may have forgotten it
                assert tell(state, again) is not Outcome.ACCEPTED
                assert len(state.results) == before
        if rng.random() < restart:
            state, flight = restarted(state, play, rng), []
    return state


def digests(state):
    return population_digest([state.finished]), result_digest([state.finished]), state.stop


@settings(max_examples=60, deadline=None)
@given(
    specs, st.sampled_from(["noise", "quality"]), st.sampled_from([2, 5, 41]), st.integers(0, 99)
)
def test_any_order_any_restarts_any_workers_give_the_same_bytes(
    make_settings, synthetic_play, fields, law, fail_every, seed
):
    play, limits = synthetic_play(law, fail_every), Limits(max_generations=4)
    rng = random.Random(seed)
    reference = digests(run(make_settings(**fields), play, limits, rng))
    for workers, restart, duplicate in ((1, 0.05, 0.5), (3, 0.02, 0.1), (50, 0.0, 0.3)):
        again = run(
            make_settings(**fields),
            play,
            limits,
            rng,
            restart=restart,
            duplicate=duplicate,
            workers=workers,
        )
        assert digests(again) == reference


@settings(max_examples=80, deadline=None)
@given(specs, st.sampled_from([2, 3, 41]), st.integers(0, 2**32))
def test_ask_never_hands_out_a_genome_that_could_still_change(
    make_settings, synthetic_play, fields, fail_every, seed
):
    """Each demand must be what a search gives that is played generation after generation."""
    play, limits = synthetic_play("noise", fail_every), Limits(max_generations=4)
    settings_ = make_settings(**fields)
    reference = start(settings_)
    strict = {}
    while reference.phase is not Phase.STOPPED:
        for demand in ask(reference, limits):
            if demand.key.generation == reference.generation or demand.key.purpose > 5:
                strict[demand.key] = demand
                tell(reference, play(demand))
        if is_complete(reference):
            reference = finish(reference, limits, 0.0)
        done = [(r.generation, r.purpose) for r in completed_tests(reference)]
        reference = close_tests(reference, done)

    rng, state = random.Random(seed), start(settings_)
    while state.phase is Phase.EVALUATING:
        demands = ask(state, limits)
        if is_complete(state):
            state = finish(state, limits, 0.0)
            continue
        assert [strict.get(demand.key) for demand in demands if demand.key in strict] == [
            demand for demand in demands if demand.key in strict
        ]
        stop_next = reference.finished.generation == state.generation
        assert stop_next or all(demand.key in strict for demand in demands)
        tell(state, play(rng.choice(demands)))


def test_most_of_the_next_generation_overlaps_with_the_validation(make_settings, synthetic_play):
    """With T=20 and C=10 all parents but one are fixed once the population is complete."""
    state = start(make_settings(population_size=200, parents=20, elite_candidates=10))
    play, limits = synthetic_play(), Limits(max_generations=5)
    while state.generation == 0:
        for demand in ask(state, limits):
            tell(state, play(demand))
        if is_complete(state):
            state = finish(state, limits, 0.0)
    for demand in ask(state, limits):
        if demand.key.purpose is Purpose.POPULATION and demand.key.generation == 1:
            tell(state, play(demand))
    demands = ask(state, limits)
    children = [d for d in demands if d.key.generation == 2]
    assert {d.key.purpose for d in demands if d.key.generation == 1} == {Purpose.VALIDATION}
    assert 0.8 < len(children) / 200 < 1
    purposes = [d.key.purpose for d in demands]
    assert purposes.index(Purpose.POPULATION) > purposes.index(Purpose.VALIDATION)


def test_nothing_is_asked_for_beyond_the_last_generation(make_settings, synthetic_play):
    state, limits = start(make_settings()), Limits(max_generations=1)
    for demand in ask(state, limits):
        tell(state, synthetic_play()(demand))
    assert {d.key.generation for d in ask(state, limits)} == {0}


def test_the_carried_elite_is_validated_from_the_start_of_a_generation(
    make_settings, synthetic_play
):
    state, limits = start(make_settings()), Limits(max_generations=3)
    while state.generation == 0:
        for demand in ask(state, limits):
            tell(state, synthetic_play()(demand))
        if is_complete(state):
            state = finish(state, limits, 0.0)
    first = ask(state, limits)[: state.settings.elite_episodes]
    assert {(d.key.purpose, d.key.slot) for d in first} == {(Purpose.VALIDATION, 6)}
    assert {d.base for d in first} == {state.carried}


def test_repeats_do_not_depend_on_each_other(make_settings, synthetic_play):
    limits = Limits(max_generations=2)
    results = [
        digests(run(make_settings(repeat=r), synthetic_play(), limits, random.Random(r)))
        for r in (0, 1, 0)
    ]
    assert results[0] == results[2] != results[1]


def test_asking_twice_gives_the_same_answer(make_settings, synthetic_play):
    state, limits = start(make_settings()), Limits(max_generations=3)
    assert ask(state, limits) == ask(state, limits)
    tell(state, synthetic_play()(ask(state, limits)[0]))
    assert ask(state, limits) == ask(state, limits)


@pytest.mark.parametrize("extra", [1, 3])
def test_a_raised_budget_gives_the_bytes_of_a_larger_one_from_the_start(
    make_settings, synthetic_play, extra
):
    rng, play = random.Random(1), synthetic_play()
    settings_ = make_settings(test_episodes=2)
    larger = Limits(max_generations=2 + extra)
    state = run(settings_, play, Limits(max_generations=2), rng)
    state = reopen(state, larger)
    assert state.phase is Phase.EVALUATING
    while state.phase is not Phase.STOPPED:
        demands = ask(state, larger)
        if is_complete(state):
            state = finish(state, larger, 0.0)
        elif demands:
            tell(state, play(demands[0]))
        done = [(r.generation, r.purpose) for r in completed_tests(state)]
        state = close_tests(state, done)
    assert digests(state) == digests(run(settings_, play, larger, rng))


def test_reopening_within_the_old_budget_stays_stopped(make_settings, synthetic_play):
    limits = Limits(max_generations=2)
    state = run(make_settings(), synthetic_play(), limits, random.Random(1))
    assert reopen(state, limits).stop is Stop.MAX_GENERATIONS


def test_finishing_early_raises_and_changes_nothing(make_settings):
    state = start(make_settings())
    before = (len(state.open), dict(state.results), state.generation, state.phase)
    with pytest.raises(IllegalTransition, match="6 are missing"):
        finish(state, Limits(max_generations=2), 0.0)
    assert (len(state.open), dict(state.results), state.generation, state.phase) == before


def test_finishing_a_stopped_search_raises(make_settings, synthetic_play):
    limits = Limits(max_generations=1)
    state = run(make_settings(), synthetic_play(), limits, random.Random(0))
    with pytest.raises(IllegalTransition, match="finish is illegal in phase stopped"):
        finish(state, limits, 0.0)
    with pytest.raises(IllegalTransition, match="reopen needs a finished generation"):
        reopen(start(make_settings()), limits)


def test_a_lowered_budget_stops_a_resumed_search_where_it_is(make_settings, synthetic_play):
    settings_ = make_settings(test_episodes=2)
    shorter = Limits(max_generations=2)
    state = start(settings_)
    while state.generation < 2:
        for demand in ask(state, Limits(max_generations=9)):
            tell(state, synthetic_play()(demand))
        if is_complete(state):
            state = finish(state, Limits(max_generations=9), 0.0)
    found = checkpoint.decode(checkpoint.encode(state))
    resumed = resume(settings_, found.finished, found.tests, found.stop)

    stopped = reopen(resumed, shorter)

    assert (stopped.phase, stopped.stop) == (Phase.TESTING, Stop.MAX_GENERATIONS)
    assert {d.key.purpose for d in ask(stopped, shorter)} == {Purpose.FINAL}
    assert reopen(resumed, Limits(max_generations=3)) is resumed


def test_outcomes_of_strange_results(make_settings, synthetic_play):
    state, limits = start(make_settings()), Limits(max_generations=3)
    demand = ask(state, limits)[0]
    episode = synthetic_play()(demand)
    assert tell(state, episode) is Outcome.ACCEPTED
    assert tell(state, episode) is Outcome.DUPLICATE
    foreign = Episode(demand.key._replace(repeat=1), 1.0, 1, 1)
    assert tell(state, foreign) is Outcome.UNKNOWN
    other_genome = Episode(demand.key._replace(slot=1, digest="0" * 64), 1.0, 1, 1)
    assert tell(state, other_genome) is Outcome.UNKNOWN


@pytest.mark.parametrize("seconds", [9.9, 10.0])
def test_the_wall_clock_budget_counts_all_processes(make_settings, synthetic_play, seconds):
    state, limits = start(make_settings()), Limits(max_wall_clock_seconds=10)
    while not is_complete(state):
        for demand in ask(state, limits):
            tell(state, synthetic_play()(demand))
    after = finish(state, limits, seconds)
    assert (after.stop is Stop.MAX_WALL_CLOCK_SECONDS) == (seconds >= 10)


# --- certainty, against every possible completion ------------------------------------------------

LEVELS = (None, 0.0, 1.0)  # what is known: failed, or one of two values
FILLINGS = (None, -1.0, 0.5, 2.0)  # what may come: failed, or below, between and above those


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_certainty_agrees_with_every_completion(data):
    """Sound (nothing certain ever fails) and, on distinct genomes, complete for candidates."""
    n = data.draw(st.integers(2, 4))
    most = data.draw(st.integers(2, n))
    parents = data.draw(st.integers(1, n))
    carried = data.draw(st.sampled_from([None, "E", "g0"]))
    genomes = [f"g{slot}" for slot in range(n)]
    if data.draw(st.booleans()):
        genomes[-1] = "g0"
    known = [data.draw(st.sampled_from([*LEVELS, "missing"])) for _ in range(n)]
    names = sorted({*genomes, *([carried] if carried else [])})
    validated = {d: data.draw(st.sampled_from([*LEVELS, "missing"])) for d in names}

    fitnesses = [None if value == "missing" else value for value in known]
    missing = {genomes[s] for s in range(n) if known[s] == "missing"}
    ranked = list(dict.fromkeys(genomes[s] for s in ranking(fitnesses)))
    certain = certain_candidates(ranked, missing, carried, most)
    validations = {
        d: Validation()
        if validated[d] == "missing"
        else Validation(mean=validated[d], failed=validated[d] is None)
        for d in certain
    }
    union, sure = possible_parents(ranked, missing, carried, most, parents, validations)

    always_candidates, always, ever = None, None, set()
    free = [s for s in range(n) if known[s] == "missing"]
    open_means = [d for d in names if d not in certain or validated[d] == "missing"]
    for filling in itertools.product(FILLINGS, repeat=len(free)):
        whole = list(fitnesses)
        for slot, value in zip(free, filling, strict=True):
            whole[slot] = value
        order = [(s, genomes[s]) for s in ranking(whole)]
        chosen = candidates((n, carried) if carried else None, order, most)
        found = {d for _, d in chosen}
        always_candidates = found if always_candidates is None else always_candidates & found
        for means in itertools.product(FILLINGS, repeat=len(open_means)):
            mean_of = {
                **{d: v for d, v in validated.items() if v != "missing"},
                **dict(zip(open_means, means, strict=True)),
            }
            index = elite(chosen, [mean_of[d] for _, d in chosen])
            if index is None and carried is None:
                continue
            winner = (n, carried) if index is None else chosen[index]
            set_ = {d for _, d in next_parents(winner, order, parents)}
            always = set_ if always is None else always & set_
            ever |= set_
    assert set(certain) <= always_candidates
    if len(set(genomes)) == n and carried != "g0":
        assert set(certain) == always_candidates
    if always is not None and sure:
        assert sure <= always
        assert ever <= union
    if not missing and always is not None:
        assert (sure, union) == (always, ever)
