"""Environments of Gymnasium: classic control, Box2D, MuJoCo, and anyone's ``module:Id-v0``.

Observations become one float32 vector (``flattening`` says in which order). The environment's own
registered time limit ends an episode as usual; ``maxEpisodeSteps`` is the episode loop's business.
Every episode starts by ``reset(seed=episode_seed)``, which must decide all that follows. Box2D's
physics does not keep that promise: a world remembers its earlier episodes, so that the same seed
gives other returns. Its environments are therefore made anew for every episode.
"""

import contextlib
import difflib
import importlib
import importlib.util
import json
import os
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, registry

from kubevo_core import spec
from kubevo_core.errors import EnvironmentRefused, WorkerUnfit
from kubevo_core.noise import Float32Vector
from kubevo_evaluator.flattening import flat_size, writer
from kubevo_evaluator.layouts import Action, ActionLayout, ObservationLayout

__all__ = [
    "LIBRARIES",
    "GymnasiumEnvironment",
    "family",
    "find",
    "installed",
    "make_gymnasium",
    "module_of",
]

# Arguments of gymnasium.make that are ours to set.
RESERVED = ("render_mode", "disable_env_checker", "vectorization_mode")
# What each family of Gymnasium's own environments needs beyond gymnasium itself.
LIBRARIES = {"classic_control": None, "box2d": "Box2D", "mujoco": "mujoco", "toy_text": None}


Construct = Callable[[], gymnasium.Env[Any, Any]]


class GymnasiumEnvironment:
    """One Gymnasium environment; `make_gymnasium` makes it."""

    def __init__(self, construct: Construct, *, remake: bool) -> None:
        self.frames = 0
        self._construct = construct
        self._remake = remake
        self._fresh = True
        self._env = env = construct()
        size = flat_size(env.observation_space)
        self.observation = ObservationLayout("vector", (size,))
        self.actions = action_layout(env.action_space)
        self._write = writer(env.observation_space)
        self._vector: Float32Vector = np.zeros(size, dtype=np.float32)
        self._action_space = env.action_space
        self._whole_numbers = not np.issubdtype(env.action_space.dtype or np.int64, np.floating)

    def reset(self, episode_seed: int) -> Float32Vector:
        """Begin an episode with Gymnasium's own seeding."""
        self.frames = 0
        if self._remake and not self._fresh:
            self._env.close()
            self._env = self._construct()
        self._fresh = False
        observation, _ = self._env.reset(seed=episode_seed)
        self._write(self._vector, observation)
        return self._vector

    def step(self, action: Action) -> tuple[Float32Vector, float, bool]:
        """Play one step; terminated and truncated both end the episode."""
        observation, reward, terminated, truncated, _ = self._env.step(self._native(action))
        self.frames += 1
        self._write(self._vector, observation)
        return self._vector, float(reward), bool(terminated or truncated)

    def render(self) -> npt.NDArray[np.uint8]:
        """Return the picture now; the environment must have been made with ``render``.

        Raises:
            RuntimeError: it gives no picture.
        """
        picture: Any = self._env.render()
        if not isinstance(picture, np.ndarray):
            raise RuntimeError(  # noqa: TRY004 - a setting is wrong, not an argument
                f"expected a picture (render mode rgb_array), got {type(picture).__name__}: "
                "make the environment with render=True, if it has that mode"
            )
        return picture

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _native(self, action: Action) -> Any:
        space = self._action_space
        if isinstance(space, spaces.Discrete):
            return space.start + action
        if isinstance(space, spaces.MultiDiscrete):
            return (np.reshape(action, space.shape) + space.start).astype(space.dtype)
        shaped = np.asarray(action).reshape(space.shape or ())
        return (np.rint(shaped) if self._whole_numbers else shaped).astype(space.dtype)


def action_layout(space: spaces.Space[Any]) -> ActionLayout:
    """Return how a network's values become actions of ``space``.

    Raises:
        TypeError: the space is not Discrete, MultiDiscrete or Box.
    """
    if isinstance(space, spaces.Discrete):
        return ActionLayout("discrete", (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return ActionLayout("multi-discrete", tuple(space.nvec.ravel().tolist()))
    if isinstance(space, spaces.Box):
        low, high = space.low.ravel().tolist(), space.high.ravel().tolist()
        return ActionLayout("continuous", low=tuple(low), high=tuple(high))
    raise TypeError(f"expected Discrete, MultiDiscrete or Box, got {type(space).__name__}")


def find(environment_id: str) -> EnvSpec:
    """Return Gymnasium's registration of an id, after importing the module it names, if any.

    Raises:
        EnvironmentRefused: no such module, or nothing of that name and version.
        WorkerUnfit: the module is there, but cannot be imported here.
    """
    module, colon, name = environment_id.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except ImportError as exc:
            missing = exc.name if isinstance(exc, ModuleNotFoundError) else None
            if missing and f"{module}.".startswith(f"{missing}."):  # the named one, not its needs
                raise EnvironmentRefused(
                    f"spec.environment.id {environment_id!r}: there is no module {missing!r}; "
                    "correct the id, or install the module in the evaluators"
                ) from exc
            raise WorkerUnfit(
                f"spec.environment.id {environment_id!r}: module {module!r} cannot be imported: "
                f"{exc}; install it in the evaluator, or correct the id"
            ) from exc
    found = registry.get(name)
    if found is None:
        raise _unknown(environment_id, name)
    if module_of(found).startswith("ale_py"):
        game = name.partition("-")[0].removesuffix("NoFrameskip")
        raise EnvironmentRefused(
            f"spec.environment.id: {name!r} is an old name of an Atari game: use "
            f"'ALE/{game}-v5'; frame skip and sticky actions are set in spec.environment.atari"
        )
    newest = _newest(found)
    if family(found) is not None and newest.id != name:
        raise EnvironmentRefused(f"spec.environment.id: {name!r} is out of date: use {newest.id!r}")
    return found


def installed() -> list[tuple[str, str]]:
    """Return (id, family) of Gymnasium's own environments whose libraries are installed."""
    found = []
    for name, registration in registry.items():
        kind = family(registration)
        if kind not in LIBRARIES or registration.namespace or _newest(registration).id != name:
            continue
        library = LIBRARIES[kind]
        if library is None or importlib.util.find_spec(library) is not None:
            found.append((name, kind.replace("_", " ")))
    return found


def family(registration: EnvSpec) -> str | None:
    """Return which of Gymnasium's own families an environment belongs to."""
    module = module_of(registration).split(".")
    return module[2] if module[:2] == ["gymnasium", "envs"] and len(module) > 2 else None


def module_of(registration: EnvSpec) -> str:
    """Return the module of an environment's class; it may be registered by name or as itself."""
    entry = registration.entry_point
    return entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")


def make_gymnasium(environment: spec.Environment, *, render: bool = False) -> GymnasiumEnvironment:
    """Make the environment of a Gymnasium id.

    Raises:
        EnvironmentRefused: unknown id, arguments that do not fit, or unsupported spaces.
        WorkerUnfit: a library or file is missing here.
    """
    found = find(environment.id)
    arguments = {name: json.loads(text) for name, text in environment.arguments.items()}
    reserved = [name for name in RESERVED if name in arguments]
    if reserved:
        raise EnvironmentRefused(
            f"spec.environment.kwargs: {reserved[0]!r} is set by kubevo; remove it"
        )
    if render:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pictures without a screen
    if family(found) == "box2d":
        _import_box2d()

    def construct() -> gymnasium.Env[Any, Any]:
        return _construct(environment.id, found, arguments, "rgb_array" if render else None)

    try:
        return GymnasiumEnvironment(construct, remake=family(found) == "box2d")
    except TypeError as exc:
        raise EnvironmentRefused(
            f"spec.environment.id {environment.id!r}: its observations or actions cannot be "
            f"used: {exc}; wrap the environment, or choose another"
        ) from exc


def _import_box2d() -> None:
    # Its generated code warns while it is imported; where warnings are errors, that error ends
    # the whole process with a segmentation fault.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(ImportError):  # gymnasium.make says it better
            importlib.import_module("Box2D")


def _construct(
    environment_id: str, found: EnvSpec, arguments: dict[str, Any], render_mode: str | None
) -> gymnasium.Env[Any, Any]:
    modes = _render_modes(found)
    if render_mode is not None and modes is not None and render_mode not in modes:
        raise EnvironmentRefused(
            f"the environment {environment_id!r} offers no pictures (render mode {render_mode}); "
            "play it without a recording"
        )
    try:
        if render_mode is not None:  # not every environment knows the argument
            arguments = {**arguments, "render_mode": render_mode}
        return gymnasium.make(found, disable_env_checker=True, **arguments)
    except (ImportError, OSError, MemoryError, gymnasium.error.DependencyNotInstalled) as exc:
        raise WorkerUnfit(
            f"the environment {environment_id!r} cannot be made on this machine: "
            f"{type(exc).__name__}: {exc}"
        ) from exc
    except Exception as exc:  # a constructor is the user's code and may raise anything
        raise EnvironmentRefused(
            f"spec.environment {environment_id!r} with kwargs {json.dumps(arguments)} cannot be "
            f"made: {type(exc).__name__}: {str(exc)[:500]}"
        ) from exc


def _render_modes(found: EnvSpec) -> list[str] | None:
    """Return the render modes that an environment's class declares, None where it cannot be told."""
    if not isinstance(found.entry_point, str):
        metadata = getattr(found.entry_point, "metadata", None)
    else:
        module, _, name = found.entry_point.partition(":")
        try:
            metadata = getattr(getattr(importlib.import_module(module), name), "metadata", None)
        except (ImportError, AttributeError):
            return None  # gymnasium.make says it better
    return list(metadata["render_modes"]) if metadata and "render_modes" in metadata else None


def _newest(found: EnvSpec) -> EnvSpec:
    same = [
        each
        for each in registry.values()
        if (each.namespace, each.name) == (found.namespace, found.name)
    ]
    return max(same, key=lambda each: -1 if each.version is None else each.version)


def _unknown(environment_id: str, name: str) -> EnvironmentRefused:
    stem = name.rpartition("-v")[0] or name
    newest = {_newest(each).id for id_, each in registry.items() if id_.rpartition("-v")[0] == stem}
    if newest:
        return EnvironmentRefused(
            f"spec.environment.id: no environment {environment_id!r}: use {max(newest)!r}"
        )
    names = [
        each
        for each in registry
        if each.startswith("ALE/") or "ale_py" not in str(registry[each].entry_point)
    ]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return EnvironmentRefused(
        f"spec.environment.id: no environment {environment_id!r}"
        + (f"; did you mean {', '.join(close)}?" if close else "")
        + " (kubevo environments lists the installed ones; others need their module: module:Id-v0)"
    )
