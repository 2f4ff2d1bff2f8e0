"""``README.md``: the model card, in the layout that the Hugging Face hub reads."""

import json
from typing import Any

import yaml

from kubevo_api.exports.model import Facts, Model
from kubevo_api.exports.requirements import requirements, shell_words
from kubevo_core import decode
from kubevo_core.networks import network

__all__ = ["model_card"]


def model_card(model: Model) -> bytes:
    """Return the card: what it is, how good it is, how to play and to verify it."""
    front = yaml.safe_dump(_front(model), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{front}---", *_about(model), *_use(model), *_verify(model)]
    return ("\n\n".join(parts) + "\n").encode()


def _environment(model: Model) -> str:
    return model.environment.id if model.environment else "an environment that is not recorded here"


def _front(model: Model) -> dict[str, Any]:
    tags = ["reinforcement-learning", "deep-reinforcement-learning", "neuroevolution"]
    found: dict[str, Any] = {
        "library_name": "kubevo",
        "pipeline_tag": "reinforcement-learning",
        "tags": tags,
    }
    facts = model.facts
    if model.environment is None:
        return found
    tags.append(model.environment.id)
    if facts is not None and facts.final_test_mean is not None:
        metric = {"type": "mean_reward", "name": "mean_reward", "value": _plus_minus(facts)}
        game = {"type": model.environment.id, "name": model.environment.id}
        task = {"type": "reinforcement-learning", "name": "reinforcement-learning"}
        result = {"task": task, "dataset": game, "metrics": [metric]}
        found["model-index"] = [{"name": facts.experiment, "results": [result]}]
    return found


def _plus_minus(facts: Facts) -> str:
    assert facts.final_test_mean is not None
    if facts.final_test_interval is None:
        return f"{facts.final_test_mean:.2f}"
    low, high = facts.final_test_interval
    return f"{facts.final_test_mean:.2f} +/- {(high - low) / 2:.2f}"


def _about(model: Model) -> list[str]:
    facts, shape = model.facts, network(model.genome.network)
    name = facts.experiment if facts else model.genome.digest[:16]
    lines = [f"# {name}"]
    lines.append(
        f"A policy for **{_environment(model)}**, evolved by a genetic algorithm (Such et al. 2017) "
        f"with kubevo: the network `{shape.id}` with {shape.size:,} parameters, which is written as "
        f"{len(model.genome.mutations) + 1} seeds."
    )
    if facts is None:
        return lines
    rows = [("found in", f"generation {facts.generation} of repeat {facts.repeat}")]
    if facts.fitness is not None:
        rows.append(
            (f"mean of {facts.validation_episodes} validation episodes", f"{facts.fitness:g}")
        )
    if facts.final_test_mean is not None:
        text = f"{facts.final_test_mean:g}"
        if facts.final_test_interval is not None:
            low, high = facts.final_test_interval
            text += f" (95 % CI {low:g} to {high:g})"
        rows.append((f"mean of {facts.final_test_episodes} held-out episodes", text))
    rows += [
        ("frames of the search", f"{facts.frames:,}"),
        ("seed of the search", str(facts.seed)),
        ("backend", facts.backend or "not recorded"),
        *model.precision_document.items(),
        ("kubevo", facts.version),
        ("Experiment", f"{facts.namespace}/{facts.experiment} ({facts.uid})"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    lines.append(f"| | |\n|---|---|\n{table}")
    return lines


def _use(model: Model) -> list[str]:
    environment = model.environment
    if environment is None:
        return []
    play = ["python policy.py --episodes 100"]
    if model.facts is not None and model.facts.final_test_episodes:
        play.append("python policy.py --final    # the held-out episodes above, once more")
    commands = "\n".join([f"pip install {shell_words(requirements(environment))}", *play])
    parts = [
        "## Play it",
        f"`policy.py` plays `model.safetensors` beside it; it does not need kubevo.\n\n```sh\n{commands}\n```",
    ]
    if environment.is_atari:
        parts.append("The emulator, ale-py, is licensed under GPL-2.0-only.")
    text = json.dumps(model.environment_document, indent=2)
    parts.append(f"The environment, exactly:\n\n```json\n{text}\n```")
    return parts


def _verify(model: Model) -> list[str]:
    digest = decode.sha256(model.weights)
    known = "the genome alone"
    if model.precision_document:
        known = f"the genome and the precision {model.precision}, to which the search rounds them"
    text = (
        f"The weights follow from {known}. The data of `model.safetensors` behind its header "
        f"is the flat float32 vector, with sha256\n`{digest}`;\nthe genome's own digest is\n"
        f"`{model.genome.digest}`. Both come out again with\n\n"
        "```sh\nkubevo export genome.json -o model.safetensors\n```"
    )
    return ["## Verify it", text]
