"""A genome in the formats that people use: one writer each, from a `Model` to bytes.

Writers are pure and deterministic: the same model gives the same bytes. Nothing of HTTP or of a
cluster is imported here, so that the command line has the same files as the service. To add a
format, write a function and add its line to ``FORMATS``.
"""

from collections.abc import Callable
from typing import NamedTuple

from kubevo_api.exports.model import Facts, Model
from kubevo_api.exports.model_card import model_card
from kubevo_api.exports.onnx_model import onnx_bytes
from kubevo_api.exports.policy_script import policy_script
from kubevo_api.exports.weights import genome_json, safetensors_bytes

__all__ = ["FORMATS", "Facts", "Format", "Model"]


class Format(NamedTuple):
    """A kind of file: its media type, and what writes it."""

    media_type: str
    write: Callable[[Model], bytes]


# By file name; `kubevo export` chooses by the suffix.
FORMATS: dict[str, Format] = {
    "genome.json": Format("application/json", genome_json),
    "model.safetensors": Format("application/vnd.safetensors", safetensors_bytes),
    "model.onnx": Format("application/vnd.onnx", onnx_bytes),
    "policy.py": Format("text/x-python; charset=utf-8", policy_script),
    "README.md": Format("text/markdown; charset=utf-8", model_card),
}
