"""A genome as weights (safetensors), or as itself (JSON).

The safetensors file is written here, because the library sorts tensors by name: in layout order
the data behind the header is exactly the flat parameter vector, so its sha256 is the one of
``decode.sha256``, and any reader of the format reads it::

    8 bytes   length of the header, little-endian u64
    header    JSON: __metadata__ (kubevo, dialect, network, genome, sha256, environment, scores),
              then each tensor's dtype, shape and offsets; padded with spaces to a multiple of 8
    data      float32, little-endian, tensors in the order of the network's layout
"""

import json
from typing import Any

from kubevo_api.exports.model import Model
from kubevo_core import decode
from kubevo_core.genome import DIALECT
from kubevo_core.networks import network

__all__ = ["genome_json", "safetensors_bytes"]


def safetensors_bytes(model: Model) -> bytes:
    """Return the genome's weights as a safetensors file, tensors in layout order."""
    theta = model.weights
    metadata = {
        "kubevo": "weights-1",
        "dialect": DIALECT,
        "network": model.genome.network,
        "genome": json.dumps(model.genome_document),
        "sha256": decode.sha256(theta),
    }
    if model.environment is not None:
        metadata["environment"] = json.dumps(model.environment_document)
    if model.facts is not None:
        metadata["scores"] = json.dumps(model.facts.scores)
    header: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for tensor in network(model.genome.network).layout:
        end = start + 4 * tensor.size
        header[tensor.name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + theta.astype("<f4", copy=False).tobytes()


def genome_json(model: Model) -> bytes:
    """Return the genome as JSON, with its environment where that is known."""
    document = model.genome_document
    if model.environment is not None:
        document["environment"] = model.environment_document
    return json.dumps(document, indent=2).encode() + b"\n"
