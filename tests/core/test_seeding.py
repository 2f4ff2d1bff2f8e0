from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from kubevo_core.seeding import Purpose, derive, derive_hash, mix

roots = st.integers(0, 2**32 - 1)
small = st.integers(0, 50)


@given(roots, st.lists(small, max_size=4))
def test_a_seed_is_the_upper_half_of_its_hash(root, path):
    assert derive(root, Purpose.INIT, *path) == derive_hash(root, Purpose.INIT, *path) >> 32


@given(roots)
def test_purposes_and_paths_do_not_collide(root):
    paths = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    hashes = [derive_hash(root, purpose, *path) for purpose, path in product(Purpose, paths)]
    assert len(set(hashes)) == len(hashes)


def test_all_episode_seeds_of_a_large_generation_differ_in_64_bits():
    hashes = {
        derive_hash(7, Purpose.POPULATION, repeat, generation, slot, 0)
        for repeat in range(2)
        for generation in range(5)
        for slot in range(1000)
    }
    assert len(hashes) == 10_000


def test_mix_is_injective_on_a_sample():
    assert len({mix(n) for n in range(50_000)}) == 50_000
