"""Environments by id: the interface that the episode loop plays, and who makes one.

``ALE/<Game>-v5`` is played by our own Atari loop (``atari``), everything else by Gymnasium
(``gymnasium_environment``). To add a kind, write a class with this interface and a line in `make`;
the conformance suite in tests/evaluator says when it is right.
"""

import importlib.util
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kubevo_core import spec
from kubevo_evaluator.layouts import Action, ActionLayout, Observation, ObservationLayout

__all__ = ["Environment", "KnownEnvironment", "known", "make"]


class Environment(Protocol):
    """One game that is played again and again, each episode a function of its seed alone.

    ``frames`` counts what was played since the reset: emulator frames in Atari (no-ops and FIRE
    included), else one a step. An observation is valid until the next call.
    """

    frames: int

    @property
    def observation(self) -> ObservationLayout:
        """Layout of the observations."""

    @property
    def actions(self) -> ActionLayout:
        """Layout of the actions."""

    def reset(self, episode_seed: int) -> Observation:
        """Begin an episode and return its first observation."""

    def step(self, action: Action) -> tuple[Observation, float, bool]:
        """Play one step and return observation, reward, and whether the episode has ended."""

    def render(self) -> npt.NDArray[np.uint8]:
        """Return the picture now: uint8 of shape (height, width, 3)."""

    def close(self) -> None:
        """Let go of what the environment holds; closing twice is harmless."""


@dataclass(frozen=True)
class KnownEnvironment:
    """An environment that this installation can make; layouts only where they are free to tell."""

    id: str
    kind: str
    observation: str | None
    actions: str | None


def make(environment: spec.Environment, *, render: bool = False) -> Environment:
    """Make the environment that a spec names; ``render`` before pictures are taken.

    Raises:
        EnvironmentRefused: no such id or game, arguments or spaces that cannot be used.
        WorkerUnfit: a library, a file or memory is missing on this machine.
    """
    if environment.is_atari:
        from kubevo_evaluator.atari import make_atari

        return make_atari(environment)
    from kubevo_evaluator.gymnasium_environment import make_gymnasium

    return make_gymnasium(environment, render=render)


def known() -> list[KnownEnvironment]:
    """Return the environments whose libraries are installed here, newest versions, sorted by id."""
    found = []
    if importlib.util.find_spec("ale_py") is not None:
        from kubevo_evaluator.atari import PIXELS, games

        found += [KnownEnvironment(id_, "atari", str(PIXELS), None) for id_ in games()]
    if importlib.util.find_spec("gymnasium") is not None:
        from kubevo_evaluator.gymnasium_environment import installed

        found += [KnownEnvironment(id_, kind, None, None) for id_, kind in installed()]
    return sorted(found, key=lambda each: each.id)
