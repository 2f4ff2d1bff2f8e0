"""What a person installs to play an environment without kubevo: for the script and for the card."""

import shlex
from collections.abc import Sequence

from kubevo_core import spec

__all__ = ["requirements", "shell_words"]

# Gymnasium's own environments that need an extra of it (by test: all of the installed ones).
EXTRAS = {
    "box2d": ("BipedalWalker", "BipedalWalkerHardcore", "CarRacing", "LunarLander", "LunarLanderContinuous"),
    "mujoco": (
        "Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum",
        "InvertedPendulum", "Pusher", "Reacher", "Swimmer", "Walker2d",
    ),
}  # fmt: skip


def requirements(environment: spec.Environment | None) -> list[str]:
    """Return the names of the packages; the one of an id ``module:Id-v0`` cannot be told."""
    if environment is None:
        return ["numpy", "gymnasium"]
    if environment.is_atari:
        return ["numpy", "ale-py", "opencv-python-headless"]
    name = environment.id.rpartition("-v")[0]
    extras = [extra for extra, names in EXTRAS.items() if name in names]
    return ["numpy", f"gymnasium[{extras[0]}]" if extras else "gymnasium"]


def shell_words(names: Sequence[str]) -> str:
    """Return the names as a person types them after ``pip install``."""
    return " ".join(map(shlex.quote, names))
