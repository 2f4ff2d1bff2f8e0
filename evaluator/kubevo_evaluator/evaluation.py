"""Evaluating genomes: environment, policy and decoded weights kept ready between episodes.

An `Evaluator` works on one experiment's tasks; `evaluate_genome` is the one call for a program that
has a genome and wants its returns. Neither keeps anything that could change a result.
"""

import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import structlog

from kubevo_core import decode, networks, spec
from kubevo_core.errors import EnvironmentRefused, GenomeError, WorkerUnfit
from kubevo_core.genome import Genome, Mutation
from kubevo_core.messages import Description
from kubevo_core.networks import Network
from kubevo_core.noise import Float32Vector
from kubevo_evaluator import native
from kubevo_evaluator.description import fingerprint, network_for, one_thread, self_test
from kubevo_evaluator.environments import Environment, make
from kubevo_evaluator.policies import Policy, make_policy, resolve
from kubevo_evaluator.rollout import OnStep, Played, play

AT_ONCE = 1 << 14  # parameters

__all__ = ["Decoded", "Evaluator", "OnEpisode", "evaluate_genome"]

log = structlog.get_logger()

# Called with the episode's number and what it gave.
OnEpisode = Callable[[int, Played], None]


@dataclass(frozen=True, eq=False)
class Decoded:
    """The weights of a genome, a base's digest and perhaps a mutation, and the seconds they took."""

    genome: tuple[str, Mutation | None]
    parameters: Float32Vector
    seconds: float


class Evaluator:
    """Plays the episodes of one experiment, after a self-test; a context manager.

    One thread may decode the next genome while another one plays; each of them is one thread.
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
        # A child is made where one was that nobody has any more: fresh megabytes cost more than
        # the mutation. There are two, the one that plays and the next.
        self._unused: list[Float32Vector] = []
        self._decoded: Decoded | None = None  # last
        self._loaded: Decoded | None = None
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
                self._description.backend,
                self._network,
                environment.actions,
                self._policy_spec.precision,
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

    @property
    def decodes_at_once(self) -> bool:
        """Whether decoding takes less time than handing it to a thread."""
        return self._network.size <= AT_ONCE

    def decode(self, base: Genome, mutation: Mutation | None) -> Decoded:
        """Return the weights of ``base``, mutated if told so.

        Raises:
            GenomeError: the genome is of another network.
        """
        wanted = (base.digest, mutation)
        if self._decoded is not None and self._decoded.genome == wanted:
            return self._decoded
        if base.network != self._network.id:
            raise GenomeError(
                f"expected a genome of {self._network.id}, got one of {base.network}: it belongs "
                "to another experiment"
            )
        started = time.perf_counter()
        self._decoded = None  # its memory may be the next child's
        weights = decode.parameters(base, self._cache, native.add_noise)
        if mutation is None:
            self._decoded = Decoded(wanted, weights, time.perf_counter() - started)
            return self._decoded
        child = self._unused.pop() if self._unused else np.empty_like(weights)
        decode.mutate(weights, mutation, child, native.add_noise)
        self._decoded = Decoded(wanted, child, time.perf_counter() - started)
        weakref.finalize(self._decoded, self._unused.append, child)
        return self._decoded

    def play(self, decoded: Decoded, episode_seed: int) -> tuple[Played, dict[str, float]]:
        """Play one episode with decoded weights; also return the seconds that it took.

        Seconds: ``decode`` until the weights are ready, ``play`` for the episode.

        Raises:
            WorkerUnfit: this process must not evaluate.
        """
        if self._policy is None:
            raise RuntimeError("the evaluator is not open; call open() or use it in a with block")
        started, decoding = time.perf_counter(), 0.0
        if self._loaded is not decoded:
            self._policy.load(decoded.parameters)
            self._loaded, decoding = decoded, decoded.seconds
        environment = self._environment or self._make_again()
        ready = time.perf_counter()
        played = play(environment, self._policy, episode_seed, self._spec.max_episode_steps)
        ended = time.perf_counter()
        if played.failure is not None:
            self._drop_environment()  # what it raised may have left it half-way
        return played, {"decode": decoding + ready - started, "play": ended - ready}

    def close(self) -> None:
        """Let go of the environment and the weights; closing twice is harmless."""
        self._drop_environment()
        self._policy = None
        self._decoded = self._loaded = None
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
                + " and setting of OPENBLAS_CORETYPE"
            )


def evaluate_genome(
    genome: Genome,
    environment: spec.Environment,
    policy_backend: str,
    episode_seeds: Sequence[int],
    on_episode: OnEpisode | None = None,
    *,
    precision: str = "float32",
    on_step: OnStep | None = None,
    render: bool = False,
) -> list[Played]:
    """Play one episode for each seed and return them in order.

    ``policy_backend`` may be auto; ``precision`` is that of the genome's search. To record, pass
    ``render=True`` and an ``on_step`` that calls the environment's ``render()``.

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
            policy = make_policy(resolve(policy_backend), network, made.actions, precision)
            policy.load(decode.parameters(genome, link=native.add_noise))
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
