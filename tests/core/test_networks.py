import pytest

from kubevo_core.networks import FAMILIES, Conv, network, network_id


@pytest.mark.parametrize(
    ("identifier", "size"),
    [("dqn-18", 1_008_450), ("large-dqn-18", 4_052_658), ("mlp-4-16-2", 114), ("mlp-3-2", 8)],
)
def test_parameter_counts(identifier, size):
    assert network(identifier).size == size == sum(t.size for t in network(identifier).layout)


def test_every_family_has_an_id_that_names_it():
    for family in FAMILIES:
        sizes = (4, 8, 2) if family == "mlp" else (6,)
        found = network(network_id(family, sizes))
        assert found.id == network_id(family, sizes)
        assert found.outputs == sizes[-1]


def test_same_padding_gives_21_11_11():
    convs = [layer for layer in network("large-dqn-6").layers if isinstance(layer, Conv)]
    side = 84
    sides = []
    for conv in convs:
        side = -(-side // conv.stride)
        sides.append(side)
    assert sides == [21, 11, 11]


def test_tensor_names_are_unique():
    for identifier in ("mlp-4-16-16-2", "dqn-6", "large-dqn-6"):
        names = [tensor.name for tensor in network(identifier).layout]
        assert len(set(names)) == len(names)
