"""Policies: from weights and an observation to an action, behind one interface.

A backend builds the layers of one network once; loading other weights is cheap. The registry says
which backends there are and whether this machine has them; ``auto`` is resolved here, once, when a
run is described.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kubevo_core import decode
from kubevo_core.errors import WorkerUnfit
from kubevo_core.networks import Network
from kubevo_core.noise import Float32Vector
from kubevo_evaluator import native
from kubevo_evaluator.layouts import Action, ActionLayout, Observation

__all__ = ["BACKENDS", "Backend", "Policy", "make_policy", "resolve"]


class Policy(Protocol):
    """A network that plays; it keeps nothing from one step to the next."""

    def load(self, parameters: Float32Vector) -> None:
        """Use these weights: shape (network.size,); they must not change until the next load."""

    def values(self, observation: Observation) -> Float32Vector:
        """Return the network's last layer: shape (outputs,), valid until the next call."""

    def act(self, observation: Observation) -> Action:
        """Return the action for an observation."""


@dataclass(frozen=True)
class Backend:
    """Who computes the forward: how to build it, and why it is not available (None: it is)."""

    build: Callable[[Network, ActionLayout, str], Policy]
    unavailable: Callable[[], str | None]


class _Rounded:
    """A policy of float32 that plays with weights of another precision."""

    def __init__(self, policy: Policy, network: Network, precision: str) -> None:
        self._network, self._precision = network, precision
        self._policy = policy
        self.values, self.act = policy.values, policy.act

    def load(self, parameters: Float32Vector) -> None:
        """Use these weights, rounded."""
        self._policy.load(decode.rounded(self._network, parameters, self._precision))


def _native(network: Network, actions: ActionLayout, precision: str) -> Policy:
    from kubevo_evaluator.native_policy import NativePolicy

    return NativePolicy(network, actions, precision)


def _numpy(network: Network, actions: ActionLayout, precision: str) -> Policy:
    from kubevo_evaluator.numpy_policy import NumpyPolicy

    return _in_precision(NumpyPolicy(network, actions), network, precision)


def _torch(network: Network, actions: ActionLayout, precision: str) -> Policy:
    from kubevo_evaluator.torch_policy import TorchPolicy

    return _in_precision(TorchPolicy(network, actions), network, precision)


def _in_precision(policy: Policy, network: Network, precision: str) -> Policy:
    return policy if precision == "float32" else _Rounded(policy, network, precision)


def _torch_missing() -> str | None:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:  # no origin: a folder that happens to be called torch
        return "torch is not installed here: install kubevo[torch], or use policy.backend numpy"
    return None


BACKENDS: dict[str, Backend] = {
    "native": Backend(_native, native.missing),
    "numpy": Backend(_numpy, lambda: None),
    "torch": Backend(_torch, _torch_missing),
}


def resolve(backend: str) -> str:
    """Return the backend that ``auto`` means here; any other name is returned as it is.

    It means native, which is the fastest on a CPU and gives the same bits on all of them; where
    that was not built, numpy, which for one observation at a time is faster than torch on a CPU
    (measured by ``make bench``) and does not depend on what else is installed.
    """
    if backend != "auto":
        return backend
    return "numpy" if native.missing() else "native"


def make_policy(
    backend: str, network: Network, actions: ActionLayout, precision: str = "float32"
) -> Policy:
    """Build the policy of a resolved backend; ``precision`` is that of its weights.

    Raises:
        GenomeError: there is no such precision.
        WorkerUnfit: the backend is unknown to this version, or its library does not load here.
    """
    decode.require_precision(precision)
    found = BACKENDS.get(backend)
    if found is None:
        raise WorkerUnfit(f"policy.backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    reason = found.unavailable()
    if reason is not None:
        raise WorkerUnfit(f"policy.backend {backend!r}: {reason}")
    try:
        return found.build(network, actions, precision)
    except (ImportError, OSError, MemoryError) as exc:
        raise WorkerUnfit(f"policy.backend {backend!r} does not load here: {exc}") from exc
    except ValueError as exc:
        raise WorkerUnfit(
            f"policy.backend {backend!r} does not know the network {network.id}: {exc}; use another "
            "backend, such as numpy"
        ) from exc
