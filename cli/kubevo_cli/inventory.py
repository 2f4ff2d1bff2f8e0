"""``kubevo networks``, ``environments`` and ``version``: what this installation has.

``version`` reads the installed distributions' metadata and imports none of them.
"""

import asyncio
import importlib.metadata
import platform
import subprocess

from kubevo_cli import output
from kubevo_core import networks

__all__ = ["show_environments", "show_network", "show_networks", "show_versions"]

# A family that is not here takes one number, its actions.
FORMS = {"mlp": ("mlp-<inputs>[-<hidden>…]-<outputs>", (4, 16, 2))}
ACTIONS = (18,)
MISSING = "not installed"
DISTRIBUTIONS = (
    "numpy",
    "nats-py",
    "pydantic",
    "safetensors",
    "gymnasium",
    "ale-py",
    "box2d",
    "mujoco",
    "torch",
)


def show_networks(form: str) -> None:
    """Print each family of networks with an example."""
    found = []
    for family in networks.FAMILIES:
        written, sizes = FORMS.get(family, (f"{family}-<actions>", ACTIONS))
        example = networks.network(networks.network_id(family, sizes))
        found.append(
            {
                "family": family,
                "id": written,
                "observation": _observation(example),
                "example": example.id,
                "parameters": example.size,
            }
        )
    if form == "json":
        output.write_json(found)
        return
    output.write_table(list(found[0]), [list(each.values()) for each in found])


def show_network(identifier: str, form: str) -> None:
    """Print one network's tensors in the order of the parameter vector.

    Raises:
        GenomeError: no such network.
    """
    found = networks.network(identifier)
    if form == "json":
        output.write_json(
            {
                "id": found.id,
                "observation": _observation(found),
                "inputs": found.inputs,
                "outputs": found.outputs,
                "parameters": found.size,
                "tensors": [{"name": t.name, "shape": list(t.shape)} for t in found.layout],
            }
        )
        return
    output.write_fields(
        {
            "id": found.id,
            "observation": _observation(found),
            "outputs": str(found.outputs),
            "parameters": output.number(found.size),
        }
    )
    output.write("")
    output.write_table(
        ["tensor", "shape", "parameters"],
        [[t.name, "x".join(map(str, t.shape)), t.size] for t in found.layout],
    )


def _observation(network: networks.Network) -> str:
    if network.observation == "pixels":
        return f"pixels {'x'.join(map(str, networks.PIXELS))}"
    return "vector"


def show_environments(containing: str, form: str) -> None:
    """Print the environments that this installation can make and whose id has ``containing``."""
    from kubevo_evaluator.environments import known

    found = [each for each in known() if containing.lower() in each.id.lower()]
    if form == "json":
        output.write_json(
            [
                {
                    "id": each.id,
                    "kind": each.kind,
                    "observation": each.observation,
                    "actions": each.actions,
                }
                for each in found
            ]
        )
        return
    if not found:
        output.say(f"no environment here has {containing!r} in its id; others: module:Id-v0")
        return
    output.write_table(["id", "kind"], [[each.id, each.kind] for each in found])


def show_versions(form: str) -> None:
    """Print versions, the broker that ``kubevo run`` would use, and which backends there are."""
    base = {
        "kubevo": _version("kubevo") or MISSING,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    libraries = {name: _version(name) for name in DISTRIBUTIONS}
    broker, backends = _nats_server(), _backends()
    if form == "json":
        output.write_json(
            {**base, "libraries": libraries, "natsServer": broker, "backends": backends}
        )
        return
    found = {name: version or MISSING for name, version in libraries.items()}
    server = (
        f"not usable: {broker['reason']}"
        if broker["reason"]
        else f"{broker['version']} ({broker['path']})"
    )
    computed = {f"backend {name}": reason or "available" for name, reason in backends.items()}
    output.write_fields({**base, **found, "nats-server": server, **computed})


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _nats_server() -> dict[str, str | None]:
    from kubevo_core.errors import BusError
    from kubevo_runtime.broker import find_server

    try:
        path = asyncio.run(find_server())
    except BusError as exc:
        return {"path": None, "version": None, "reason": str(exc)}
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    return {"path": str(path), "version": said.stdout.split()[-1].lstrip("v"), "reason": None}


def _backends() -> dict[str, str | None]:
    """Return each backend with why it is not available (None: it is)."""
    from kubevo_evaluator.policies import BACKENDS

    return {name: backend.unavailable() for name, backend in BACKENDS.items()}
