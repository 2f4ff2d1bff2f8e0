"""Evaluating genomes: environment, policy and decoded weights kept ready between episodes.

An `Evaluator` works on one experiment's tasks; `evaluate_genome` is the one call for a program that
has a genome and wants its returns. Neither keeps anything that could change a result.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np
import structlog

from kubevo_core import decode, networks, spec
from kubevo_core.errors import EnvironmentRefused, GenomeError, WorkerUnfit
from kubevo_core.genome import Genome, Mutation
from kubevo_core.messages import Description
from kubevo_core.networks import Network
from kubevo_evaluator.description import fingerprint, network_for, one_thread, self_test
from kubevo_evaluator.environments import Environment, make
from kubevo_evaluator.policies import Policy, make_policy, resolve
from kubevo_evaluator.rollout import OnStep, Played, play

__all__ = ["Evaluator", "OnEpisode", "evaluate_genome"]

log = structlog.get_logger()

# Called with the episode's number and what it gave.
OnEpisode = Callable[[int, Played], None]


class Evaluator:
    """Plays the episodes of one experiment, after a self-test; a context manager.

    ``cache_bytes`` bounds the weights of base genomes that are kept; 0 changes speed only.
    """

    def __init__(
        self,
        environment: spec.Environment,
        policy: spec.Policy,
        description: Description,
        cache_bytes: int,
    ) -> None:
        self._spec = environment
        self._policy_spec = policy
        self._description = description
        self._network = networks.network(description.network)
        self._cache = decode.ParameterCache(cache_bytes)
        self._loaded: tuple[str, Mutation | None] | None = None
        # A child is made where the last one was: fresh megabytes cost more than the mutation.
        self._child = np.empty(0, dtype=np.float32)
        self._policy: Policy | None = None
        self._environment: Environment | None = None
        self._threads = ExitStack()

    def open(self) -> None:
        """Make environment and policy and test both against the description.

        Raises:
            EnvironmentRefused: the spec cannot be played.
            WorkerUnfit: this process must not evaluate; the message names what differs.
        """
        try:
            self._environment = environment = make(self._spec)
            self._policy = make_policy(
                self._description.backend, self._network, environment.actions
            )
            self._threads.enter_context(one_thread())
            self._check_layouts(environment)
            self._check_fingerprint(self._policy)
            failure = self_test(environment, self._policy)
            if failure is not None:
                raise WorkerUnfit(
                    f"{self._spec.id!r} was described elsewhere, but its first steps failed here: "
                    f"{failure}"
                )
        except BaseException:
            self.close()
            raise

    def evaluate(
        self, base: Genome, mutation: Mutation | None, episode_seed: int
    ) -> tuple[Played, dict[str, float]]:
        """Play one episode of ``base``, mutated if told so; also return the seconds it took.

        Seconds: ``decode`` until the weights are ready, ``play`` for the episode.

        Raises:
            GenomeError: the genome is of another network.
            WorkerUnfit: this process must not evaluate.
        """
        if self._policy is None:
            raise RuntimeError("the evaluator is not open; call open() or use it in a with block")
        started = time.perf_counter()
        self._load(self._policy, base, mutation)
        environment = self._environment or self._make_again()
        decoded = time.perf_counter()
        played = play(environment, self._policy, episode_seed, self._spec.max_episode_steps)
        ended = time.perf_counter()
        if played.failure is not None:
            self._drop_environment()  # what it raised may have left it half-way
        return played, {"decode": decoded - started, "play": ended - decoded}

    def close(self) -> None:
        """Let go of the environment and the weights; closing twice is harmless."""
        self._drop_environment()
        self._policy = None
        self._loaded = None
        self._threads.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _load(self, policy: Policy, base: Genome, mutation: Mutation | None) -> None:
        wanted = (base.digest, mutation)
        if self._loaded == wanted:
            return
        if base.network != self._network.id:
            raise GenomeError(
                f"expected a genome of {self._network.id}, got one of {base.network}: it belongs "
                "to another experiment"
            )
        self._loaded = None
        weights = decode.parameters(base, self._cache)
        if mutation is not None:
            if self._child.size != weights.size:
                self._child = np.empty_like(weights)
            decode.mutate(weights, mutation, out=self._child)
            weights = self._child
        policy.load(weights)
        self._loaded = wanted

    def _make_again(self) -> Environment:
        try:
            self._environment = make(self._spec)
        except EnvironmentRefused as exc:
            raise WorkerUnfit(f"the environment cannot be made a second time: {exc}") from exc
        return self._environment

    def _drop_environment(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            close_environment(environment)

    def _check_layouts(self, environment: Environment) -> None:
        here = (str(environment.observation), str(environment.actions))
        pinned = (self._description.observation, self._description.actions)
        if here != pinned:
            raise WorkerUnfit(
                f"{self._spec.id!r} has other layouts here than when the run was described: "
                f"expected {pinned[0]} and {pinned[1]}, got {here[0]} and {here[1]}: install the "
                "same version of the environment"
            )

        network = network_for(self._policy_spec, environment.observation, environment.actions)
        if network.id != self._network.id:
            raise WorkerUnfit(
                f"the run was described with network {self._network.id}, but its spec means "
                f"{network.id}: it was described for another spec"
            )

    def _check_fingerprint(self, policy: Policy) -> None:
        pinned = self._description.fingerprint
        here = fingerprint(
            self._spec,
            self._description.backend,
            self._policy_spec.precision,
            self._network,
            policy,
        )
        self._loaded = None
        differing = [
            f"{name}: expected {pinned.get(name, 'none')}, here {here.get(name, 'none')}"
            for name in sorted(pinned.keys() | here.keys())
            if pinned.get(name) != here.get(name)
        ]
        if differing:
            raise WorkerUnfit(
                "this worker's fingerprint is not the run's; it would not give the same bytes: "
                + "; ".join(differing)
                + ": use the same image, and for backend numpy or torch the same type of CPU"
            )


def evaluate_genome(
    genome: Genome,
    environment: spec.Environment,
    policy_backend: str,
    episode_seeds: Sequence[int],
    on_episode: OnEpisode | None = None,
    *,
    on_step: OnStep | None = None,
    render: bool = False,
) -> list[Played]:
    """Play one episode for each seed and return them in order.

    ``policy_backend`` may be auto. To record, pass ``render=True`` and an ``on_step`` that calls
    the environment's ``render()``.

    Raises:
        EnvironmentRefused: the environment cannot be played, or not by this genome.
        WorkerUnfit: this machine lacks something.
    """
    network = networks.network(genome.network)
    made: Environment | None = None
    found: list[Played] = []
    try:
        with one_thread():
            made = make(environment, render=render)
            _check_network(network, made)
            policy = make_policy(resolve(policy_backend), network, made.actions)
            policy.load(decode.parameters(genome))
            for number, seed in enumerate(episode_seeds):
                made = made or make(environment, render=render)
                played = play(made, policy, seed, environment.max_episode_steps, on_step)
                found.append(played)
                if on_episode is not None:
                    on_episode(number, played)
                if played.failure is not None:
                    close_environment(made)
                    made = None
    finally:
        if made is not None:
            close_environment(made)
    return found


def close_environment(environment: Environment) -> None:
    """Close an environment; what its own ``close`` raises is logged, for nothing depends on it."""
    try:
        environment.close()
    except Exception as exc:  # noqa: BLE001 - the environment's edge: anything may come
        log.warning("environment_close_failed", error=f"{type(exc).__name__}: {exc}")


def _check_network(network: Network, environment: Environment) -> None:
    shown, wanted = environment.observation, environment.actions.outputs
    inputs = int(np.prod(shown.shape))
    reads, gives = (network.observation, network.inputs), (shown.kind, inputs)
    if reads != gives or network.outputs != wanted:
        raise EnvironmentRefused(
            f"the genome's network {network.id} reads {network.observation} of {network.inputs} "
            f"values and gives {network.outputs}; the environment shows {shown} and takes "
            f"{wanted}: play it in the environment that it was evolved in"
        )
