"""Seeds to noise to weights, against the reference vectors; the first failing group names the fault."""

import hashlib

import numpy as np
import pytest

from kubevo_core import decode, networks
from kubevo_core.genome import Genome, Mutation
from kubevo_core.noise import keys, noise, quantiles
from kubevo_core.seeding import derive, mix


def hexes(values):
    return [np.float32(value).astype("<f4").tobytes().hex() for value in values]


def test_the_packaged_table_is_the_reference_table(golden_noise):
    table = quantiles()
    assert hashlib.sha256(table.tobytes()).hexdigest() == golden_noise["table_sha256"]
    for index, sample in golden_noise["table_samples"].items():
        assert hexes([table[int(index)]]) == [sample["hex"]]


def test_mix_keys_and_derive_match(golden_noise):
    assert [mix(int(case["in"])) for case in golden_noise["mix"]] == [
        int(case["out"]) for case in golden_noise["mix"]
    ]
    for seed, expected in golden_noise["keys"].items():
        assert keys(int(seed)) == (int(expected["k0"]), int(expected["k1"]))
    for case in golden_noise["derive"]:
        path = map(int, case["path"])
        assert derive(int(case["root"]), int(case["purpose"]), *path) == int(case["seed"])


def test_noise_matches(golden_noise):
    for seed, expected in golden_noise["noise_first_16"].items():
        assert hexes(noise(int(seed), 16)) == expected
    whole = golden_noise["noise_sha256_n"]
    for seed, expected in whole["sha256"].items():
        assert decode.sha256(noise(int(seed), whole["n"])) == expected


def test_layouts_match(golden_noise):
    for identifier, expected in golden_noise["layouts"].items():
        found = [
            {"name": t.name, "shape": list(t.shape), "kind": "bias"}
            if t.std is None
            else {
                "name": t.name,
                "shape": list(t.shape),
                "kind": "weight",
                "fan_in": t.fan_in,
                "std": t.std,
            }
            for t in networks.network(identifier).layout
        ]
        assert found == [
            {**entry, **({"fan_in": int(entry["fan_in"])} if "fan_in" in entry else {})}
            for entry in expected
        ]


@pytest.mark.parametrize("cached", [False, True])
def test_decoded_parameters_match(golden_noise, cached):
    cache = decode.ParameterCache(64 << 20) if cached else None
    for case in golden_noise["decode"]:
        chain = tuple(Mutation(int(m["seed"]), m["sigma"]) for m in case["chain"])
        theta = decode.parameters(Genome(case["layout"], int(case["init_seed"]), chain), cache)
        assert len(theta) == case["n_params"]
        assert hexes(theta[:8]) == case["first_8"]
        assert hexes(theta[-8:]) == case["last_8"]
        assert decode.sha256(theta) == case["sha256"]
