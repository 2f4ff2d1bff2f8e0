"""The only episode loop: one policy plays one episode of one environment.

What an environment raises is a value, the episode's failure. What says that this *process* cannot
play (a library, a file, memory) is `WorkerUnfit`. What a policy raises is our bug and goes through.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from kubevo_core.errors import KubevoError, WorkerUnfit
from kubevo_evaluator.environments import Environment
from kubevo_evaluator.policies import Policy

__all__ = ["FailureCause", "OnStep", "Played", "play"]

MESSAGE_LENGTH = 500
# What another machine may not have; never a verdict about a genome.
UNFIT = (OSError, MemoryError, ImportError)

# Called with the environment, the steps played and the last reward; first after the reset (0, 0.0).
OnStep = Callable[[Environment, int, float], None]


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Why an episode has no return.

    ``confirm`` is True for an exception of the environment: it counts only when a second worker
    process reports the same. A non-finite return follows from the numbers alone.
    """

    type: str
    message: str
    confirm: bool = True

    @property
    def text(self) -> str:
        """The cause in one line."""
        return f"{self.type}: {self.message}" if self.message else self.type


@dataclass(frozen=True, slots=True)
class Played:
    """What an episode gave: the sum of its rewards, or None and the failure.

    ``steps`` and ``frames`` count what was played, up to the failure if there is one.
    """

    episode_return: float | None
    steps: int
    frames: int
    failure: FailureCause | None = None


def play(
    environment: Environment,
    policy: Policy,
    episode_seed: int,
    max_steps: int,
    on_step: OnStep | None = None,
) -> Played:
    """Play one episode until it ends or ``max_steps`` steps are played.

    Rewards are added as float64 in their order, so equal rewards give an equal return.

    Raises:
        WorkerUnfit: OSError, MemoryError or ImportError of the environment.
    """
    total, steps, ended = 0.0, 0, False
    try:
        observation = environment.reset(episode_seed)
    except Exception as exc:  # noqa: BLE001 - the environment's edge: anything may come
        return Played(None, 0, environment.frames, _cause(exc, "reset"))
    if on_step is not None:
        on_step(environment, 0, 0.0)
    while not ended and steps < max_steps:
        action = policy.act(observation)
        try:
            observation, reward, ended = environment.step(action)
        except Exception as exc:  # noqa: BLE001 - the environment's edge: anything may come
            return Played(None, steps, environment.frames, _cause(exc, f"step {steps + 1}"))
        total += reward
        steps += 1
        if on_step is not None:
            on_step(environment, steps, reward)
    if not math.isfinite(total):
        cause = FailureCause("non-finite return", f"the rewards add up to {total}", confirm=False)
        return Played(None, steps, environment.frames, cause)
    return Played(total, steps, environment.frames)


def _cause(exc: Exception, where: str) -> FailureCause:
    if isinstance(exc, KubevoError):
        raise exc
    name, message = type(exc).__name__, " ".join(str(exc).split())[:MESSAGE_LENGTH]
    if isinstance(exc, UNFIT):
        raise WorkerUnfit(
            f"the environment cannot be played here: {where}: {name}: {message}"
        ) from exc
    return FailureCause(name, message)
