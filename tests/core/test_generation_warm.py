"""A search that starts from imported genomes: who is in generation 0, and the same bytes always."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubevo_core import checkpoint, imports
from kubevo_core.errors import CheckpointCorrupt, CheckpointVersionError, WarmStartRefused
from kubevo_core.generation import (
    Limits,
    Outcome,
    Phase,
    ask,
    close_tests,
    completed_tests,
    finish,
    is_complete,
    resume,
    start,
    tell,
)
from kubevo_core.generation_report import population_digest, result_digest
from kubevo_core.genome import MAX_TEXT_BYTES, Genome, Mutation
from kubevo_core.imports import Imported, Source
from kubevo_core.seeding import Purpose, derive, derive_hash
from kubevo_core.selection import rendezvous

NETWORK = "mlp-4-16-2"
LIMITS = Limits(max_generations=4)


def genome(number, mutations=2):
    chain = tuple(Mutation(10 * number + index, "0.05") for index in range(mutations))
    return Genome(NETWORK, number, chain)


def imported(count):
    return [genome(number, number % 4) for number in range(count)]


def restarted(state, genomes, rng):
    """Return the state that a new process has: the checkpoint's, plus some results seen again."""
    if state.finished is None:
        fresh = start(state.settings, genomes)
    else:
        found = checkpoint.decode(checkpoint.encode(state))
        fresh = resume(state.settings, found.finished, found.tests, found.stop)
    for episode in [e for e in state.results.values() if rng.random() < 0.8]:
        tell(fresh, episode)
    return fresh


def run(settings_, genomes, play, rng, *, workers=1, restart=0.0):
    """Play a whole search with ``workers`` in flight, in any order; a process may end any time."""
    state, flight = start(settings_, genomes), []
    while state.phase is not Phase.STOPPED:
        demands = ask(state, LIMITS)
        if is_complete(state):
            state = finish(state, LIMITS, 0.0)
            continue
        if reports := completed_tests(state):
            state = close_tests(state, [(r.generation, r.purpose) for r in reports])
            continue
        flight = [demand for demand in flight if demand.key in state.open]
        waiting = [demand for demand in demands if demand not in flight]
        while waiting and len(flight) < workers:
            flight.append(waiting.pop(rng.randrange(len(waiting))))
        episode = play(flight.pop(rng.randrange(len(flight))))
        assert tell(state, episode) is Outcome.ACCEPTED
        if rng.random() < restart:
            state, flight = restarted(state, genomes, rng), []
    return state


def digests(state):
    return population_digest([state.finished]), result_digest([state.finished]), state.stop


def first_finished(settings_, genomes, play):
    state = start(settings_, genomes)
    while state.finished is None:
        for demand in ask(state, LIMITS):
            tell(state, play(demand))
        if is_complete(state):
            state = finish(state, LIMITS, 0.0)
    return state


def test_imported_genomes_come_first_and_the_rest_are_their_children(make_settings):
    settings_, genomes = make_settings(seed=7, repeat=3), imported(2)
    population = start(settings_, genomes).population
    assert [individual.genome for individual in population[:2]] == genomes
    assert {individual.parent_slot for individual in population[:2]} == {-1}
    digests_of = [each.digest for each in genomes]
    for slot, individual in enumerate(population[2:], 2):
        parent = rendezvous(derive_hash(7, Purpose.PARENT, 3, 0, slot), digests_of)
        assert individual.base.digest == parent
        assert individual.parent_slot == digests_of.index(parent)
        seed = derive(7, Purpose.MUTATION, 3, 0, slot)
        assert individual.mutation == Mutation(seed, settings_.mutation_power)
        assert individual.genome == individual.base.child(individual.mutation)


def test_without_imported_genomes_generation_0_is_as_ever(make_settings):
    assert start(make_settings(), ()).population == start(make_settings()).population


def test_a_genome_counts_once_and_those_beyond_the_population_are_dropped(make_settings):
    one, other = imported(2)
    twice = start(make_settings(), [one, other, one]).population
    assert twice == start(make_settings(), [one, other]).population
    many = imported(9)
    assert [i.genome for i in start(make_settings(), many).population] == many[:6]


def test_the_imported_are_asked_for_by_their_whole_history(make_settings):
    state = start(make_settings(), imported(6))
    for demand in ask(state, LIMITS):
        assert demand.mutation is None
        assert demand.base.digest == demand.key.digest


def test_genomes_of_another_network_are_refused_with_both_names(make_settings):
    with pytest.raises(WarmStartRefused, match=r"mlp-4-16-2.*has genomes of mlp-4-8-2"):
        start(make_settings(), [Genome("mlp-4-8-2", 1)])


def test_a_genome_that_could_not_have_children_is_refused(make_settings):
    chain = tuple(Mutation(4_000_000_000 + index, "0.000001") for index in range(26_213))
    long = Genome(NETWORK, 1, chain)
    assert long.text_bytes > MAX_TEXT_BYTES - 21
    with pytest.raises(WarmStartRefused, match="could not have children"):
        start(make_settings(), [long])


def test_a_checkpoint_of_a_warm_generation_0_gives_all_of_it_back(make_settings, synthetic_play):
    settings_ = make_settings(test_episodes=2, test_every_generations=1)
    state = first_finished(settings_, imported(3), synthetic_play())
    payload = checkpoint.encode(state)
    found = checkpoint.decode(payload)
    assert found.finished == state.finished
    again = resume(settings_, found.finished, found.tests, found.stop)
    assert again.population == state.population
    assert checkpoint.encode(again) == payload


specs = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "repeat": st.integers(0, 1),
        "population_size": st.integers(3, 9),
        "episodes_per_evaluation": st.integers(1, 2),
        "elite_episodes": st.integers(1, 3),
        "test_episodes": st.integers(0, 2),
    }
)


@settings(max_examples=40, deadline=None)
@given(specs, st.integers(1, 11), st.sampled_from([2, 5, 41]), st.integers(0, 99))
def test_any_order_any_restarts_any_workers_give_the_same_warm_bytes(
    make_settings, synthetic_play, fields, count, fail_every, seed
):
    play, rng = synthetic_play("noise", fail_every), random.Random(seed)
    settings_, genomes = make_settings(**fields), imported(count)
    reference = digests(run(settings_, genomes, play, rng))
    for workers, restart in ((1, 0.05), (3, 0.02), (50, 0.0)):
        assert digests(run(settings_, genomes, play, rng, workers=workers, restart=restart)) == (
            reference
        )


def test_repeats_start_from_the_same_genomes_and_go_their_own_ways(make_settings):
    first, second = (start(make_settings(repeat=r), imported(2)).population for r in (0, 1))
    assert first[:2] == second[:2]
    assert first[2:] != second[2:]


# --- the file -------------------------------------------------------------------------------------

SOURCE = Source("lander", "1a2b", 1, 12, selected=True)


def test_an_import_comes_back_with_its_order_and_its_source():
    found = Imported(tuple(reversed(imported(5))), SOURCE, '{"experiment": "lander"}')
    payload = imports.encode(found)
    assert imports.decode(payload) == found
    assert imports.encode(imports.decode(payload)) == payload


@pytest.mark.parametrize("cut", [0, 7, 8, 40, -1])
def test_a_cut_import_is_corrupt(cut):
    payload = imports.encode(Imported(tuple(imported(2)), SOURCE, ""))
    with pytest.raises(CheckpointCorrupt):
        imports.decode(payload[:cut])


def test_a_checkpoint_is_no_import_and_an_import_no_checkpoint(make_settings, synthetic_play):
    state = first_finished(make_settings(), (), synthetic_play())
    with pytest.raises(CheckpointCorrupt):
        imports.decode(checkpoint.encode(state))
    with pytest.raises(CheckpointCorrupt):
        checkpoint.decode(imports.encode(Imported(tuple(imported(2)), SOURCE, "")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'version\\": 1', b'version\\": 2', "the import has version 2, this program reads 1"),
        (b'\\"kubevo-1\\"', b'\\"kubevo-9\\"', "dialect 'kubevo-9', this program reads kubevo-1"),
    ],
)
def test_an_import_of_a_newer_program_is_refused_by_name(old, new, message):
    payload = imports.encode(Imported(tuple(imported(2)), SOURCE, ""))
    assert payload.count(old) == 1
    with pytest.raises(CheckpointVersionError, match=message):
        imports.decode(payload.replace(old, new))
