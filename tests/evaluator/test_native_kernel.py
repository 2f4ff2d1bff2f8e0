import hashlib
import threading

import numpy as np
import pytest

from kubevo_core import decode
from kubevo_core.errors import WorkerUnfit
from kubevo_core.genome import Genome, Mutation
from kubevo_core.networks import PIXELS, Conv, Dense, Network, network
from kubevo_core.noise import add_noise, keys, noise, quantiles, scaled_quantiles
from kubevo_evaluator import native
from kubevo_evaluator.layouts import ActionLayout
from kubevo_evaluator.native_policy import NativePolicy
from kubevo_evaluator.numpy_policy import same_padding
from kubevo_evaluator.policies import make_policy

_kernel = pytest.importorskip("kubevo_evaluator.native._kernel", reason=str(native.missing()))

LEVELS = _kernel.levels()  # of this machine, right or wrong
PRECISIONS = ("float32", "bfloat16")
# Of the logits of 2,000 observations each, for weights that change every 1,000.
CHUNK = 2_000
GOLDEN = {
    ("dqn-18", "float32"): [
        "2fa7ed5129308e6d7f89b9e669e02387b061ceffd884b47144a5aef4352ab42d",
        "cf6c0b1c95e4be4bc0192e37fa67f559c10752916818f8a2c6a16b415a6bdb9f",
        "4d48f00584b50938174ad022b7942cb0736bef9c2562ae79aa3dcfd1eb9f1b00",
        "a4e4db618cc73df7d88c1b5d075348c7fa37e7344935c92e2ed220e0fc886360",
        "29ba431c4614fcf3c4d34c2a511a915aacde6402abe1b4409e8f60258bbb6b25",
    ],
    ("dqn-18", "bfloat16"): [
        "3c4349e5ba3b52c5889c133c072e9a59dcb78742c125581a9541671b2371fe89",
        "6494d93d1888aa52cc8c002414d372ecba217a48f969c0636b75ee01d64f5b7b",
        "1c8cb00746555fb441ca895a2d1671895df9f40260f32ff5146afe68a5b30857",
        "5fd68e5c3cc4becd683f520a610c5f4f0201dc2f28e5d844323a2f94b3437e2a",
        "cd62b8adf092f54c10710398b4099bb95967e02dbf8aa77fa46f2b16b162fb68",
    ],
    ("large-dqn-18", "float32"): [
        "65a1bcfbc0cf3a8737dba5fe760f6bf70fab79ea5f5c5a8ee93ae4d34f62b3ee",
        "47ed4a4f1b0cf53b7805042540c6687163de908eb5ba855704ef172c9fca5e85",
        "f5064e70646758235a4dc20841a36cbe56a9f83db68dadf22653dabecaf0f99c",
        "b674bb34e151f3c7d97792639a2045143f11572d3d0f904aa57b0245af0b5fcc",
        "0cd060306b77758a694a433dd7a931251afc067c16ed20256186638b943c3508",
    ],
    ("large-dqn-18", "bfloat16"): [
        "8949f33cb6d6eef7fd96131ba97ca611d37b9b495c80f367c47dcdf3a04e18b6",
        "ac4525c2fe34263a4a27e0ca78a1da3ec32bbd0311a18d5aca5f9e2dd0f38e3c",
        "12afaa763ed1a9586d99c4bcf73c47be1e2d0705ccbb8eec92a4d81c5b68a80f",
        "8875bead8319e37d96c0b7436a3c803676c02d8c40993071410e8d18013752c9",
        "55ab1ce9c8ddb2b5544bd2f75d24d034621bd3722bf4ced82a9aa4b96049fe66",
    ],
    ("mlp-24-64-64-4", "float32"): [
        "41c6e5a41f5cc5d46f7ca49c31fda9f9c698e63f3994d923ba74af8501e0b035",
        "d3750ca9cba3b0f830e71e0a2224961cd8fe084ad35295ed2e39f4de3017787b",
        "d97d7d10417e64ff3d11ad2d1f2151b8b3480243dd2a2532f0ff432f70daff6f",
        "05aca297ed2f5397c097bf78f1a1042f6f90eb20e883ef17d1c80b67e193750d",
        "12fd38d6e268b98ba78ccf268fb275e42762e0221b728899dfe31e5fc6fe7d88",
    ],
    ("mlp-24-64-64-4", "bfloat16"): [
        "2f41b4c77818cb43be9df2075b179ce8b4971d43a2b44a9d949c551fef875c6c",
        "7249993d252cffea9896a7de9f591f7839eb6df73ec079487a9790736cf6c2dc",
        "36d5b2ce9d006e55879bb2f270a5748697e2846154d48835038fdc456b0bcdaa",
        "2e681d82fa0fc0fd3c48cc553ebd63ab8e2c2b3b6756657a01be5971001028f3",
        "7810044c6f049b1437bf994a6a536828a6dd9f82e89b704022e6ba65010f9822",
    ],
}


def policy(name, precision="float32", level=None):
    net = network(name)
    return NativePolicy(net, ActionLayout("discrete", (net.outputs,)), precision, level)


def observation(net, number):
    """Return pixels from nearly black to nearly white, or a vector."""
    if net.observation == "vector":
        return noise(number, net.inputs)
    seen = noise(number, net.inputs) * np.float32(90) + np.float32(number % 61 * 8 - 120)
    return np.clip(seen, 0, 255).astype(np.uint8).reshape(PIXELS)


def fused(x, w, total):
    """Return x * w + total, rounded once: float32 arrays; by doubles rounded to odd."""
    product = x.astype(np.float64) * w.astype(np.float64)
    found = product + total
    part = found - product
    rest = (product - (found - part)) + (total - part)
    bits = found.view(np.int64)
    away = np.where((rest > 0) == (found > 0), 1, -1)
    inexact = (rest != 0) & (bits % 2 == 0)
    return (bits + np.where(inexact, away, 0)).view(np.float64).astype(np.float32)


def defined(net, theta, seen):
    """Return the last layer's values by the definition in kernel.h."""
    x = seen.astype(np.float32) / np.float32(255) if net.observation == "pixels" else seen
    start = 0
    for layer in net.layers:
        weight, bias = layer.tensors
        w = theta[start : start + weight.size].reshape(weight.shape)
        b = theta[start + weight.size : start + weight.size + bias.size]
        start += weight.size + bias.size
        if isinstance(layer, Conv):
            side, before, after = same_padding(x.shape[0], layer.kernel, layer.stride)
            padded = np.pad(x, ((before, after), (before, after), (0, 0)))
            total = np.broadcast_to(b, (side, side, layer.outputs))
            for row in range(layer.kernel):
                for column in range(layer.kernel):
                    ends = (
                        row + layer.stride * (side - 1) + 1,
                        column + layer.stride * (side - 1) + 1,
                    )
                    patch = padded[row : ends[0] : layer.stride, column : ends[1] : layer.stride]
                    for channel in range(layer.inputs):
                        total = fused(patch[..., channel, None], w[row, column, channel], total)
            x = np.where(total > 0, total, np.float32(0))
            continue
        total = b
        for value, row in zip(x.reshape(-1), w, strict=True):
            total = fused(np.float32([value]), row, total) if value != 0 else total
        if layer.activation == "relu":
            total = np.where(total > 0, total, np.float32(0))
        if layer.activation == "tanh":
            total = np.tanh(total.astype(np.longdouble)).astype(np.float32)
        x = total
    return x


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["dqn-6", "mlp-5-33-7"])
def test_the_values_are_those_of_the_definition_bit_for_bit(name, precision, level):
    net = network(name)
    theta = decode.parameters(Genome(name, 3))
    tested = policy(name, precision, level)
    tested.load(theta)
    rounded = decode.rounded(net, theta, precision)
    for number in (1, 2):
        seen = observation(net, number)
        expected = defined(net, rounded, seen)
        found = tested.values(seen)
        if net.observation == "pixels":
            assert found.tobytes() == expected.tobytes()
        else:  # tanh is only near the exact value
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def logits_digest(name, precision, level, observations):
    net, tested, digest = network(name), policy(name, precision, level), hashlib.sha256()
    for number in observations:
        if number % 1000 == 0:
            tested.load(decode.parameters(Genome(name, number), None, native.add_noise))
        digest.update(tested.values(observation(net, number)).tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("chunk", range(5))
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("name", "precision"), GOLDEN)
def test_ten_thousand_observations_have_the_golden_logits_on_every_instruction_set(
    name, precision, level, chunk
):
    observations = range(chunk * CHUNK, (chunk + 1) * CHUNK)
    assert logits_digest(name, precision, level, observations) == GOLDEN[name, precision][chunk]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("name", "precision"),
    [("dqn-6", "float32"), ("dqn-6", "bfloat16"), ("large-dqn-6", "float32")],
)
def test_what_is_kept_from_one_observation_to_the_next_changes_no_bit(name, precision, level):
    net, keeping = network(name), policy(name, precision, level)
    generator, seen = np.random.default_rng(5), observation(net, 3)
    for step in range(120):
        if step % 10 == 0:
            theta = decode.parameters(Genome(name, step))
            keeping.load(theta)
        row, column = generator.integers(0, 84, 2)
        height, width = generator.integers(0, (84, 5, 2)[step % 3], 2)
        area = seen[row : row + height, column : column + width]
        area[...] = generator.integers(0, 256, area.shape)
        fresh = policy(name, precision, level)
        fresh.load(theta)
        assert keeping.values(seen).tobytes() == fresh.values(seen).tobytes()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_that_overflow_give_the_same_bits_and_one_kind_of_nan(precision, level):
    net = network("mlp-3-20-4")
    theta = decode.parameters(Genome(net.id, 1)).copy()
    theta[::7], theta[1::11], theta[2::13] = np.inf, np.float32(3e38), -np.nan
    tested = policy(net.id, precision, level)
    tested.load(theta)
    seen = np.float32([1, -2, 3e38])
    found = tested.values(seen).copy()
    assert np.isnan(found).any()
    assert set(found[np.isnan(found)].view(np.uint32).tolist()) == {0x7FC00000}
    reference = policy(net.id, precision, "portable")
    reference.load(theta)
    assert found.tobytes() == reference.values(seen).tobytes()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("length", [1, 2, 511, 512, 513, 70_001])
def test_a_link_has_the_bits_of_numpy(level, length):
    theta, table, out = noise(7, length), scaled_quantiles("0.002"), np.zeros(length, np.float32)
    expected = theta.copy()
    add_noise(expected, 0xFFFF_FFFF, table)
    _kernel.add_noise(theta, *keys(0xFFFF_FFFF), table, out, level)
    assert out.tobytes() == expected.tobytes()
    _kernel.add_noise(theta, *keys(0xFFFF_FFFF), table, theta, level)
    assert theta.tobytes() == expected.tobytes()


def wrong_arrays(right):
    """Return what is not quite the array that is wanted, each with its exception."""
    flat = right.reshape(-1)
    twice = np.zeros((2 * right.size,), right.dtype)
    shifted = np.zeros(right.nbytes + 1, np.uint8)[1:].view(right.dtype).reshape(right.shape)
    other = np.float64 if right.dtype == np.float32 else np.int8
    turned = right.astype(right.dtype.newbyteorder(">"))
    return [
        (right[:-1], ValueError),
        (twice[: right.size + 1], ValueError),
        (right[None], ValueError),  # the right number of values in another shape
        (flat if right.ndim > 1 else flat.reshape(-1, 1), ValueError),
        (np.moveaxis(right, -1, 0).copy() if right.ndim > 1 else right[None], ValueError),
        (right.astype(other), TypeError),
        (turned if right.itemsize > 1 else None, TypeError),
        (
            twice[::2].reshape(right.shape) if right.ndim == 1 else right[::-1],
            (ValueError, BufferError),
        ),
        (shifted if right.itemsize > 1 else None, (ValueError, TypeError)),
        (None, TypeError),
        ([0.0] * right.size, TypeError),
        (b"", (ValueError, TypeError, BufferError)),
    ]


def refused(call, right):
    for wrong, exception in wrong_arrays(right):
        with pytest.raises(exception):
            call(wrong)


@pytest.mark.parametrize("name", ["dqn-6", "mlp-5-33-7"])
def test_whatever_is_not_the_right_array_is_an_exception(name):
    net = network(name)
    theta, seen = decode.parameters(Genome(name, 3)), observation(net, 1)
    tested = native.make_net(native_layers(name), bf16=False)
    values = np.zeros(net.outputs, np.float32)
    with pytest.raises(RuntimeError, match="call load first"):
        tested.forward(seen, values)
    refused(tested.load, theta)
    tested.load(theta)
    refused(lambda wrong: tested.forward(wrong, values), seen)
    refused(lambda wrong: tested.forward(seen, wrong), values)
    values.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        tested.forward(seen, values)
    with pytest.raises(TypeError):
        tested.forward(seen)


def native_layers(name):
    from kubevo_evaluator.native_policy import layers

    return layers(network(name))


def test_a_link_refuses_arrays_that_do_not_fit():
    theta, table, out = noise(7, 100), quantiles().copy(), np.zeros(100, np.float32)
    call = _kernel.add_noise
    refused(lambda wrong: call(theta, 1, 2, wrong, out), table)
    refused(lambda wrong: call(theta, 1, 2, table, wrong), out)
    liar = type("Liar", (np.ndarray,), {"__len__": lambda self: (1 << 62) + 4})
    for wrong in (None, theta.astype(np.float64), theta[::2], 5, theta[None], theta[:4].view(liar)):
        with pytest.raises((TypeError, ValueError, BufferError)):
            call(wrong, 1, 2, table, out)
    long = np.zeros(150, np.float32)
    with pytest.raises(ValueError, match="apart"):
        call(long[:100], 1, 2, table, long[50:])
    with pytest.raises(ValueError, match="apart"):
        call(table, 1, 2, table, table)
    with pytest.raises(ValueError, match="32 bits"):
        call(theta, 1 << 32, 2, table, out)
    with pytest.raises(ValueError, match="no level 'sse9'"):
        call(theta, 1, 2, table, out, "sse9")


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ((), "1 to 32"),
        (((0, 0, 0, 0, 0, 4, 2, 0),) * 33, "1 to 32"),
        (((0, 0, 0, 0, 0, 0, 2, 0),), "out of range"),
        (((0, 0, 0, 0, 0, 4, -2, 0),), "out of range"),
        (((0, 0, 0, 0, 0, 1 << 25, 1 << 25, 0),), "out of range"),
        (((0, 0, 0, 0, 0, 4, 2, 3),), "activation"),
        (((0, 0, 0, 0, 0, 4, 2, 1), (0, 0, 0, 0, 0, 3, 2, 0)), "another number of values"),
        (((4, 2, 6, 1, 1, 4, 16, 1),), "dense layer at the end"),
        (((4, 0, 6, 1, 1, 4, 16, 1),), "out of range"),
        (((9, 1, 6, 1, 1, 4, 16, 1),), "out of range"),
        (((4, 2, 6, 1, 1, 4, 15, 1), (0, 0, 0, 0, 0, 135, 2, 0)), "multiple of 16"),
        (((0, 0, 0, 0, 0, 4, 144, 1), (4, 2, 6, 1, 1, 4, 16, 1)), "another image"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers, reason):
    with pytest.raises(ValueError, match=reason):
        _kernel.Net(layers)


def test_a_network_that_the_kernel_does_not_know_is_refused_by_name():
    conv, dense = Conv("c", 8, 4, 4, 17), Dense("w", "b", 21 * 21 * 17, 2, "none")
    net = Network("odd-2", "pixels", 84 * 84 * 4, 2, (conv, dense))
    with pytest.raises(WorkerUnfit, match=r"network odd-2: .*multiple of 16 .*numpy"):
        make_policy("native", net, ActionLayout("discrete", (2,)))


def test_a_network_that_is_in_use_refuses_a_second_thread():
    tested = policy("large-dqn-18", level="portable")  # tens of milliseconds, without the GIL
    tested.load(decode.parameters(Genome("large-dqn-18", 1)))
    pictures = [observation(network("large-dqn-18"), number) for number in (1, 2)]
    refusals = []

    def play(attempts):
        values = np.zeros(18, np.float32)
        for number in range(attempts):
            if refusals:
                return
            try:
                tested._net.forward(pictures[number % 2], values)
            except RuntimeError as exc:
                refusals.append(str(exc))

    threads = [threading.Thread(target=play, args=(100,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(refusals) == {"another thread is using this network"}


def test_a_genome_decoded_in_c_has_the_golden_digests(golden_noise):
    for case in golden_noise["decode"]:
        chain = tuple(Mutation(int(m["seed"]), m["sigma"]) for m in case["chain"])
        genome = Genome(case["layout"], int(case["init_seed"]), chain)
        for cache in (None, decode.ParameterCache(64 << 20)):
            theta = decode.parameters(genome, cache, native.add_noise)
            assert decode.sha256(theta) == case["sha256"]
