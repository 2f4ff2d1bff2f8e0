"""What only an evaluator knows about a spec: the network, the layouts and the fingerprint.

A fingerprint names everything that could change a result without changing the spec. It is taken
once, pinned for the run's life, and taken again by every worker before its first episode.
"""

import hashlib
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from kubevo_core import decode, networks, spec
from kubevo_core.errors import EnvironmentRefused, GenomeError
from kubevo_core.genome import Genome
from kubevo_core.messages import Description
from kubevo_core.networks import Network
from kubevo_core.noise import noise
from kubevo_evaluator.environments import Environment, make
from kubevo_evaluator.layouts import ActionLayout, Observation, ObservationLayout
from kubevo_evaluator.policies import Policy, make_policy, resolve
from kubevo_evaluator.rollout import play

__all__ = ["describe", "fingerprint", "network_for", "one_thread", "self_test"]

# Of the fixed forward and of the self-test; part of every fingerprint.
FIXED_SEED = 20_171_218
FORWARDS = 4
TEST_STEPS = 4


def describe(environment: spec.Environment, policy: spec.Policy) -> Description:
    """Make the environment and the policy once and describe them.

    Raises:
        EnvironmentRefused: the spec cannot be played by anyone.
        WorkerUnfit: this machine lacks something.
    """
    made = make(environment)
    try:
        network = network_for(policy, made.observation, made.actions)
        backend = resolve(policy.backend)
        with one_thread():
            player = make_policy(backend, network, made.actions, policy.precision)
            prints = fingerprint(environment, backend, policy.precision, network, player)
            failure = self_test(made, player)
    finally:
        made.close()
    if failure is not None:
        raise EnvironmentRefused(
            f"spec.environment {environment.id!r}: its first steps failed: {failure}"
        )
    return Description(network.id, backend, str(made.observation), str(made.actions), prints)


def network_for(
    policy: spec.Policy, observation: ObservationLayout, actions: ActionLayout
) -> Network:
    """Return the network of a spec for an environment's layouts.

    Raises:
        EnvironmentRefused: it does not read such observations, or is too large.
    """
    sizes: tuple[int, ...] = (actions.outputs,)
    if policy.network == "mlp":
        inputs = observation.shape[0] if observation.kind == "vector" else 1
        sizes = (inputs, *policy.hidden_layers, actions.outputs)
    try:
        found = networks.network(networks.network_id(policy.network, sizes))
    except GenomeError as exc:
        raise EnvironmentRefused(
            f"spec.policy.network does not fit the environment: {exc}"
        ) from exc
    if found.observation != observation.kind:
        cure = "dqn or large-dqn" if observation.kind == "pixels" else "mlp"
        raise EnvironmentRefused(
            f"spec.policy.network: {policy.network!r} expects observations of kind "
            f"{found.observation}, the environment gives {observation}: use {cure}"
        )
    return found


def fingerprint(
    environment: spec.Environment, backend: str, precision: str, network: Network, policy: Policy
) -> dict[str, str]:
    """Return what could change a result on this machine; leaves fixed weights in ``policy``.

    Entries: backend, precision, ``forward`` (sha256 of the values of a few fixed forwards), the
    versions of the libraries that play, and ``rom`` (md5) of an Atari game.
    """
    found = {"backend": backend, "precision": precision, "forward": _forward(network, policy)}
    for name in (backend, *_distributions(environment)):
        version = _version(name)
        if version is not None:
            found[name] = version
    if environment.is_atari:
        from kubevo_evaluator.atari import rom_md5

        found["rom"] = rom_md5(environment.id)
    return found


def self_test(environment: Environment, policy: Policy) -> str | None:
    """Play a few steps with the weights that are loaded; return why that failed, or None.

    Raises:
        WorkerUnfit: this machine lacks something.
    """
    played = play(environment, policy, FIXED_SEED, TEST_STEPS)
    return played.failure.text if played.failure is not None else None


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep the linear algebra libraries to one thread: more would change the last bits."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):
        yield


def _forward(network: Network, policy: Policy) -> str:
    policy.load(decode.parameters(Genome(network.id, FIXED_SEED)))
    digest = hashlib.sha256()
    for number in range(FORWARDS):
        values = policy.values(_fixed_observation(network, number))
        digest.update(values.astype("<f4").tobytes())
    return digest.hexdigest()


def _fixed_observation(network: Network, number: int) -> Observation:
    values = noise(FIXED_SEED + number, network.inputs)
    if network.observation == "vector":
        return values
    return np.clip(values * 64 + 128, 0, 255).astype(np.uint8).reshape(networks.PIXELS)


def _distributions(environment: spec.Environment) -> list[str]:
    if environment.is_atari:
        return ["ale-py"]
    from kubevo_evaluator.gymnasium_environment import LIBRARIES, family, find, module_of

    found = find(environment.id)
    own = family(found)
    if own is None:  # somebody's module: its top-level package is most often its distribution
        library: str | None = module_of(found).partition(".")[0]
    else:
        library = LIBRARIES.get(own)
    return ["gymnasium", library] if library else ["gymnasium"]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None  # a module on the path, not an installed distribution
