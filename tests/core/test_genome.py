import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubevo_core import decode
from kubevo_core.errors import GenomeError
from kubevo_core.genome import DIALECT, Genome, Mutation, canonical_sigma, from_json, parse

seeds = st.integers(0, 2**32 - 1)
sigmas = st.integers(1, 10_000_000).map(lambda n: f"{n / 1_000_000:.6f}".rstrip("0").rstrip("."))
mutations = st.builds(Mutation, seeds, sigmas)
genomes = st.builds(
    Genome,
    st.sampled_from(["mlp-4-16-2", "mlp-3-2", "dqn-6"]),
    seeds,
    st.lists(mutations, max_size=6).map(tuple),
)


def test_the_worked_example_of_the_documentation():
    genome = parse("kubevo-1:large-dqn-18:7:11*0.002")
    assert genome == Genome("large-dqn-18", 7, (Mutation(11, "0.002"),))
    assert genome.digest == hashlib.sha256(b"kubevo-1:large-dqn-18:7:11*0.002").hexdigest()


@given(genomes)
def test_text_and_json_come_back_as_the_same_genome(genome):
    assert parse(genome.text) == genome
    assert from_json(json.dumps(genome.to_json())) == genome
    assert hash(parse(genome.text)) == hash(genome)


@given(genomes, mutations)
def test_a_child_has_the_digest_of_its_text(genome, mutation):
    child = genome.child(mutation)
    assert child.mutations == (*genome.mutations, mutation)
    assert child.digest == hashlib.sha256(child.text.encode()).hexdigest()
    assert child.text_bytes == len(child.text)
    ancestors = [
        Genome(child.network, child.init_seed, child.mutations[:n])
        for n in range(len(child.mutations))
    ]
    assert list(child.ancestor_digests()) == [ancestor.digest for ancestor in ancestors]


@settings(max_examples=40)
@given(genomes.filter(lambda g: g.network.startswith("mlp")), mutations)
def test_parent_plus_last_mutation_is_the_full_replay_bit_for_bit(genome, mutation):
    replayed = decode.parameters(genome.child(mutation))

    theta = decode.parameters(genome).copy()
    decode.mutate(theta, mutation)

    assert theta.tobytes() == replayed.tobytes()


@settings(max_examples=30)
@given(st.lists(mutations, min_size=3, max_size=8), st.integers(0, 3))
def test_a_cache_of_any_size_changes_no_bit(chain, vectors):
    cache = decode.ParameterCache(vectors * 4 * 114)
    for depth in (3, len(chain), 1, 0, 2):
        genome = Genome("mlp-4-16-2", 5, tuple(chain[:depth]))
        assert decode.parameters(genome, cache).tobytes() == decode.parameters(genome).tobytes()


def test_cached_parameters_cannot_be_written():
    vector = decode.parameters(Genome("mlp-4-16-2", 5), decode.ParameterCache(1 << 20))
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1


def test_initial_biases_are_positive_zero():
    theta = decode.initial("mlp-4-16-2", 3)
    assert not np.signbit(theta[64:80]).any()
    assert (theta[64:80] == 0).all()


@pytest.mark.parametrize("sigma", ["0.002", "10", "0.000001", "1", "9.999999"])
def test_canonical_sigmas_are_taken_verbatim(sigma):
    assert canonical_sigma(sigma) == sigma


@pytest.mark.parametrize(
    "sigma",
    [
        "",
        "abc",
        "0",
        "0.0",
        "0.10",
        "1e-3",
        "10.000001",
        "11",
        ".5",
        "05",
        "1.",
        "-1",
        "+1",
        "0.0000001",
        " 1",
        "١",
        "nan",
    ],
)
def test_other_sigmas_are_refused(sigma):
    with pytest.raises(ValueError, match=r"expected a decimal from 0\.000001 to 10"):
        canonical_sigma(sigma)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kubevo-2:mlp-4-16-2:7", "unknown genome dialect 'kubevo-2'"),
        ("", "unknown genome dialect"),
        ("kubevo-1:mlp-4-16-2", "expected kubevo-1:<network>"),
        ("kubevo-1:mlp-4-16-2:7:", "mutation 1"),
        ("kubevo-1:mlp-4-16-2:7:1*0.1,", "mutation 2"),
        ("kubevo-1:mlp-4-16-2:4294967296", "from 0 to 4294967295"),
        ("kubevo-1:mlp-4-16-2:07", "from 0 to 4294967295"),
        ("kubevo-1:mlp-4-16-2:7:11", "expected <seed>\\*<sigma>"),
        ("kubevo-1:mlp-4-16-2:7:11*0.10", "mutation 1 of the genome: expected a decimal"),
        ("kubevo-1:cnn-4:7", "unknown network 'cnn-4'"),
        ("kubevo-1:mlp-04-2:7", "without leading zeros"),
        ("kubevo-1:mlp-4:7", "at least an input and an output"),
        ("kubevo-1:dqn-6-6:7", "the number of actions"),
        ("kubevo-1:mlp-9999999-9999:7", "more than 64,000,000"),
        ("kubevo-1:mlp-4-16-2:7:" + "1*0.1," * 100_000, "more than 524288"),
    ],
)
def test_a_malformed_genome_says_what_is_wrong(text, message):
    with pytest.raises(GenomeError, match=message):
        parse(text)


def test_a_changed_json_genome_is_noticed():
    document = Genome("mlp-4-16-2", 7).to_json()
    with pytest.raises(GenomeError, match="was changed after it was written"):
        from_json(json.dumps({**document, "initSeed": 8}))


@pytest.mark.parametrize(
    "text", ["[]", "{", "{}", '{"dialect": "x"}', "null", '{"dialect":"kubevo-1"}']
)
def test_json_that_is_no_genome_is_refused(text):
    with pytest.raises(GenomeError):
        from_json(text)


def test_the_dialect_is_part_of_the_text():
    assert Genome("mlp-4-16-2", 7).text.startswith(DIALECT + ":")
