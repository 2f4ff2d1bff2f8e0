"""One episode of one genome: what identifies it, what was asked, and what came back."""

from dataclasses import dataclass
from typing import NamedTuple

from kubevo_core.genome import Genome, Mutation
from kubevo_core.seeding import Purpose

__all__ = ["Demand", "Episode", "Key"]


class Key(NamedTuple):
    """The identity of one episode, everywhere: subjects, messages, results, checkpoints.

    ``slot`` is the individual's number in its population, or N for the carried elite; tests use
    slot 0. ``digest`` is the whole genome digest, so that speculation can never mix results up.
    """

    repeat: int
    generation: int
    purpose: Purpose
    slot: int
    digest: str
    episode: int


@dataclass(frozen=True, slots=True)
class Demand:
    """An episode that the engine wants played: ``base`` plus at most one ``mutation``."""

    key: Key
    base: Genome
    mutation: Mutation | None
    episode_seed: int


@dataclass(frozen=True, slots=True)
class Episode:
    """What playing an episode gave.

    ``episode_return`` is the sum of rewards, None when the episode failed; ``frames`` counts what
    was played up to the end or the failure; ``failure`` says why in one line.
    """

    key: Key
    episode_return: float | None
    steps: int
    frames: int
    failure: str | None = None
