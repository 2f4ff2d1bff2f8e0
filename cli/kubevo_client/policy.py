"""A genome that plays, in numpy: decoded here by the golden rules, never downloaded as weights.

A network gives values; what action they mean is the action space's to say. A Gymnasium environment
says it exactly, and how its observations are flattened; without one the service's own description
is used, or an environment that this machine can make itself.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from kubevo_core import decode, networks, spec
from kubevo_core.errors import EnvironmentRefused, KubevoError, UserError, WorkerUnfit
from kubevo_core.genome import Genome
from kubevo_core.noise import Float32Vector
from kubevo_evaluator.layouts import Action, ActionLayout
from kubevo_evaluator.numpy_policy import NumpyPolicy

__all__ = ["Policy", "action_layout"]

Document = Mapping[str, Any]


class Policy:
    """A genome's network with its weights; `Best.load_policy` makes it.

    With ``environment`` (a Gymnasium environment) observations and actions are that environment's
    own. Without it an observation is a flat vector, or Atari's pixels (84, 84, 4), and an action is
    a number from 0, or a flat array. ``layout`` None: only `values` can be used. ``precision`` is
    that of the genome's search.
    """

    def __init__(
        self,
        genome: Genome,
        layout: ActionLayout | None,
        environment: Any = None,
        why: str = "",
        precision: str = "float32",
    ) -> None:
        self.genome = genome
        self.precision = decode.require_precision(precision)
        self.network = networks.network(genome.network)
        self._layout = layout
        self._why = why
        self._weights: Float32Vector | None = None
        outputs = self.network.outputs
        if layout is not None and layout.outputs != outputs:
            raise UserError(
                f"the network {genome.network} gives {outputs} values, the action space takes "
                f"{layout.outputs} ({layout}): expected the environment that it was evolved in"
            )
        self._numpy = NumpyPolicy(self.network, layout or ActionLayout("discrete", (outputs,)))
        self._spaces = None if environment is None else _Spaces(environment, self.network)

    @property
    def parameters(self) -> Float32Vector:
        """The weights: shape (network.size,), float32, read-only; decoded at the first use."""
        if self._weights is None:
            weights = decode.weights(self.genome, self.precision)
            weights.flags.writeable = False
            self._numpy.load(weights)
            self._weights = weights
        return self._weights

    @property
    def sha256(self) -> str:
        """The digest of the weights, as `kubevo export` and model.safetensors say it."""
        return decode.sha256(self.parameters)

    def values(self, observation: Any) -> Float32Vector:
        """Return the network's last layer for an observation: shape (outputs,).

        Raises:
            UserError: the observation has another shape than the network reads.
        """
        _ = self.parameters
        return self._numpy.values(self._read(observation)).copy()

    def act(self, observation: Any) -> Any:
        """Return the action for an observation.

        Raises:
            UserError: the observation does not fit, or it is not known what the values mean.
        """
        if self._layout is None:
            raise UserError(
                f"what the network's {self.network.outputs} values mean is not known here"
                f"{self._why}: load_policy(env) with the Gymnasium environment, or use values()"
            )
        _ = self.parameters
        found = self._numpy.act(self._read(observation))
        return found if self._spaces is None else self._spaces.action(found)

    def _read(self, observation: Any) -> Any:
        if self.network.observation == "pixels":
            pixels = np.asarray(observation)
            if pixels.shape != networks.PIXELS or pixels.dtype != np.uint8:
                raise UserError(
                    f"expected an observation of {networks.PIXELS} uint8 (frames last), got "
                    f"{pixels.shape} {pixels.dtype}"
                )
            return pixels
        if self._spaces is not None:
            return self._spaces.observation(observation)
        vector = np.asarray(observation, dtype=np.float32).ravel()
        if vector.size != self.network.inputs:
            raise UserError(
                f"expected an observation of {self.network.inputs} values, got {vector.size}"
            )
        return vector


class _Spaces:
    """Translates between a Gymnasium environment's spaces and a network's vectors."""

    def __init__(self, environment: Any, network: networks.Network) -> None:
        from kubevo_evaluator.flattening import flat_size, writer

        self._space = environment.action_space
        if network.observation == "vector":
            size = flat_size(environment.observation_space)
            if size != network.inputs:
                raise UserError(
                    f"the network {network.id} reads {network.inputs} values, this environment "
                    f"shows {size}: expected the one that it was evolved in"
                )
            self._write = writer(environment.observation_space)
            self._vector = np.zeros(size, dtype=np.float32)

    def observation(self, value: Any) -> Float32Vector:
        self._write(self._vector, value)
        return self._vector

    def action(self, action: Action) -> Any:
        space = self._space
        if isinstance(action, int):
            return int(space.start) + action
        if action.dtype == np.int64:
            return (action.reshape(space.shape) + space.start).astype(space.dtype)
        shaped = action.reshape(space.shape)
        whole = not np.issubdtype(space.dtype, np.floating)
        return (np.rint(shaped) if whole else shaped).astype(space.dtype)


def action_layout(
    network: networks.Network, environment: Any, wanted: Document, told: str | None
) -> tuple[ActionLayout | None, str]:
    """Return what a network's values mean, or None and why that is not known.

    ``environment`` is a Gymnasium environment or None, ``wanted`` the spec's environment, ``told``
    what the service says of the actions, such as ``discrete 2``.

    Raises:
        UserError: the action space is of a kind that no network can serve.
    """
    if environment is not None:
        from kubevo_evaluator.gymnasium_environment import action_layout as of_space

        try:
            return of_space(environment.action_space), ""
        except TypeError as exc:
            raise UserError(f"action space: {exc}") from exc
    if network.observation == "pixels":
        return ActionLayout("discrete", (network.outputs,)), ""
    kind, _, sizes = (told or "").partition(" ")
    if kind == "discrete":
        return ActionLayout("discrete", (network.outputs,)), ""
    if kind == "multi-discrete":
        return ActionLayout("multi-discrete", tuple(map(int, sizes.split("+")))), ""
    return _made_here(wanted)


def _made_here(wanted: Document) -> tuple[ActionLayout | None, str]:
    found = spec.Environment.model_validate(wanted)
    if ":" in found.id:
        # The id names a module, and what the service says is never imported.
        return None, f" ({found.id} is of a module of its own)"
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        from kubevo_evaluator import environments

        made = environments.make(found)
    except (ImportError, EnvironmentRefused, WorkerUnfit) as exc:
        reason = str(exc) if isinstance(exc, KubevoError) else f"no {getattr(exc, 'name', exc)}"
        return None, f" ({found.id} cannot be made here: {reason})"
    try:
        return made.actions, ""
    finally:
        made.close()
