"""``policy.py``: one file that plays the model lying beside it, without kubevo.

It is ``scripts/player.py`` with the model's own numbers in it, and for Atari the game of
``scripts/atari_world.py`` in place of Gymnasium's. With equal episode seeds it gives exactly the
returns that the search's ``numpy`` backend gives. Its first lines tell what to install in the form
of inline script metadata (PEP 723), so that ``uv run policy.py`` needs nothing else.
"""

import json
import re
from decimal import Decimal
from importlib import resources
from typing import Any

from kubevo_api.exports.model import Model
from kubevo_api.exports.requirements import requirements, shell_words
from kubevo_core import decode, spec
from kubevo_core.errors import UserError
from kubevo_core.networks import Conv, Layer, network

__all__ = ["policy_script"]

BEGIN = "import argparse\n"
EXPORTED = re.compile(r"^__all__ = .*\n\n", re.MULTILINE)
GAME = "# --- the game "
SCRIPT = "# --- the script "
EMPTY = "SETTINGS: dict[str, Any] = {}"


def policy_script(model: Model) -> bytes:
    """Return the script.

    Raises:
        UserError: the model's environment is not known.
    """
    environment = model.environment
    if environment is None:
        raise UserError(
            "policy.py plays the environment that the genome was evolved in, which is not known: "
            "export from a run's directory"
        )
    parts = resources.files("kubevo_api.exports") / "scripts"
    text = (parts / "player.py").read_text(encoding="utf-8")
    text = EXPORTED.sub("", text[text.index(BEGIN) :])
    if environment.is_atari:
        game = _section((parts / "atari_world.py").read_text(encoding="utf-8"))
        text = text.replace(_section(text), game)
    settings = json.dumps(_settings(model, environment), indent=4)
    literal = f'SETTINGS: dict[str, Any] = json.loads(\n    r"""\n{settings}\n"""\n)'
    assert EMPTY in text
    return (_head(model, environment) + text.replace(EMPTY, literal)).encode()


def _section(text: str) -> str:
    return text[text.index(GAME) : text.index(SCRIPT)]


def _head(model: Model, environment: spec.Environment) -> str:
    needs = requirements(environment)
    listed = "".join(f'#     "{name}",\n' for name in needs)
    place = f"\nof the search {model.facts.experiment}" if model.facts else ""
    module = environment.id.rpartition(":")[0]
    also = f"the module {module}, " if module else ""
    return (
        "#!/usr/bin/env python3\n"
        "# /// script\n"
        '# requires-python = ">=3.10"\n'
        f"# dependencies = [\n{listed}# ]\n"
        "# ///\n"
        f'"""Plays {environment.id} with the policy {model.genome.digest[:16]}{place}.\n\n'
        f"It needs {also}model.safetensors beside it, and\n\n"
        f"    pip install {shell_words(needs)}\n"
        "    python policy.py --episodes 100\n\n"
        "Equal seeds give equal returns, on one type of CPU with the same versions of these packages.\n"
        '"""\n\n'
    )


def _settings(model: Model, environment: spec.Environment) -> dict[str, Any]:
    document = environment.model_dump(mode="json", by_alias=True)
    facts = model.facts
    found: dict[str, Any] = {
        "environment": document,
        "network": model.genome.network,
        "digest": model.genome.digest,
        "sha256": decode.sha256(model.weights),
        "layers": [_layer(each) for each in network(model.genome.network).layers],
        "seed": facts.seed if facts else None,
        "repeat": facts.repeat if facts else 0,
        "finalEpisodes": facts.final_test_episodes if facts else 0,
    }
    if environment.is_atari:
        atari = environment.atari or spec.Atari.model_validate({})
        document["atari"] = atari.model_dump(mode="json", by_alias=True)
        found["stickyBelow"] = int(Decimal(atari.sticky_action_probability) * 2**64)
        found["game"] = environment.id.removeprefix("ALE/").removesuffix("-v5").lower()
    return found


def _layer(layer: Layer) -> dict[str, Any]:
    found: dict[str, Any] = {
        "tensors": [tensor.name for tensor in layer.tensors],
        "inputs": layer.inputs,
        "outputs": layer.outputs,
    }
    if isinstance(layer, Conv):
        return found | {"kernel": layer.kernel, "stride": layer.stride, "activation": "relu"}
    return found | {"activation": layer.activation}
