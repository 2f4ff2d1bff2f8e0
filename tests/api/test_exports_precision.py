"""Files of a bfloat16 search hold and play the rounded weights, and say so."""

import dataclasses
import io
import json
import struct
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from kubevo_api.exports import FORMATS
from kubevo_api.exports.model import Facts, Model
from kubevo_core import decode, spec
from kubevo_core.genome import Genome, from_json
from kubevo_core.networks import network
from kubevo_core.seeding import Purpose, derive
from kubevo_evaluator.evaluation import evaluate_genome
from kubevo_evaluator.layouts import ActionLayout
from kubevo_evaluator.policies import make_policy

# Its episodes are others once its weights are rounded.
GENOME = Genome("mlp-4-16-2", 25)
CART = spec.Environment.model_validate({"id": "CartPole-v1", "maxEpisodeSteps": 40})
FACTS = Facts(
    experiment="test", namespace="local", uid="u", repeat=0, generation=3, fitness=12.5,
    validation_episodes=30, final_test_mean=11.0, final_test_interval=(10.0, 12.5),
    final_test_episodes=4, frames=1234, seed=5, backend="numpy", version="0",
)  # fmt: skip
PLAIN = Model(GENOME, CART, "discrete 2", FACTS)
ROUNDED = dataclasses.replace(PLAIN, precision="bfloat16")
WEIGHTS = decode.weights(GENOME, "bfloat16")


def header_and_data(content: bytes):
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def test_the_weights_are_the_rounded_ones():
    header, data = header_and_data(FORMATS["model.safetensors"].write(ROUNDED))
    assert data == WEIGHTS.tobytes()
    assert header["__metadata__"]["sha256"] == decode.sha256(WEIGHTS)
    assert json.loads(header["__metadata__"]["genome"])["precision"] == "bfloat16"


def test_the_script_gives_the_returns_that_the_search_saw(tmp_path):
    for name in ("policy.py", "model.safetensors"):
        (tmp_path / name).write_bytes(FORMATS[name].write(ROUNDED))
    command = [sys.executable, "-I", "policy.py", "--episodes", "8", "--seed", "9", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    seeds = [derive(9, Purpose.TEST, number) for number in range(8)]
    returns = {
        precision: [
            each.episode_return
            for each in evaluate_genome(GENOME, CART, "numpy", seeds, precision=precision)
        ]
        for precision in decode.PRECISIONS
    }
    assert json.loads(done.stdout)["episodeReturns"] == returns["bfloat16"]
    assert returns["bfloat16"] != returns["float32"]


def test_the_script_refuses_the_weights_of_another_precision(tmp_path):
    (tmp_path / "policy.py").write_bytes(FORMATS["policy.py"].write(ROUNDED))
    (tmp_path / "model.safetensors").write_bytes(FORMATS["model.safetensors"].write(PLAIN))
    command = [sys.executable, "-I", "policy.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "other weights" in done.stderr


@pytest.mark.parametrize("identifier", ["mlp-4-16-2", "dqn-6"])
def test_onnx_computes_with_the_rounded_weights(identifier):
    net, genome = network(identifier), Genome(identifier, 25)
    content = FORMATS["model.onnx"].write(Model(genome, precision="bfloat16"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options)
    draw = np.random.default_rng(1)
    if net.observation == "pixels":
        seen = draw.integers(0, 256, (5, 84, 84, 4), np.uint8)
    else:
        seen = draw.normal(size=(5, net.inputs)).astype(np.float32)
    values, _ = session.run(None, {"observation": seen})
    policy = make_policy("numpy", net, ActionLayout("discrete", (net.outputs,)), "bfloat16")
    policy.load(decode.parameters(genome))
    expected = np.stack([policy.values(each).copy() for each in seen])
    assert np.abs(values - expected).max() <= 1e-5 * np.abs(expected).max()
    told = {each.key: each.value for each in onnx.load_model(io.BytesIO(content)).metadata_props}
    assert told["precision"] == "bfloat16"
    assert told["sha256"] == decode.sha256(decode.weights(genome, "bfloat16"))


def test_the_genome_as_json_says_its_precision():
    text = FORMATS["genome.json"].write(ROUNDED).decode()
    assert from_json(text) == GENOME
    assert json.loads(text)["precision"] == "bfloat16"


def test_the_card_says_what_the_weights_follow_from():
    card = FORMATS["README.md"].write(ROUNDED).decode()
    assert "| precision | bfloat16 |" in card
    assert "the precision bfloat16, to which the search rounds them" in card
    assert decode.sha256(WEIGHTS) in card


@pytest.mark.parametrize("name", FORMATS)
def test_a_float32_file_says_nothing_of_precision(name):
    """A genome alone means float32, and files written before there was another stay as they are."""
    content = FORMATS[name].write(PLAIN)
    assert content != FORMATS[name].write(ROUNDED)
    assert b"precision" not in content
