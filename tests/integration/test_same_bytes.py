"""Same spec, same bytes: whatever the number of workers, their cache, or the number of repeats."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from kubevo_core.spec import ExperimentSpec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")

MLP = {"network": "mlp", "hiddenLayers": [16]}
GAMES: dict[str, tuple[int, dict[str, Any], int]] = {  # longest episode, policy, most repeats
    "CartPole-v1": (100, MLP, 3),
    "LunarLander-v3": (80, MLP, 3),
    "ALE/Frostbite-v5": (40, {"network": "dqn"}, 2),
}
GENERATIONS = 8


@dataclass(frozen=True)
class Played:
    """What a search said: its summary, and the history of each repeat."""

    summary: dict[str, Any]
    histories: list[list[dict[str, Any]]]

    @property
    def digests(self) -> tuple[str, str]:
        return self.summary["populationDigest"], self.summary["resultDigest"]

    def generation_digests(self, repeat: int) -> list[str]:
        return [row["generationDigest"] for row in self.histories[repeat]]


@pytest.fixture(scope="session")
def played(
    new_search: Callable[..., Any],
    experiment: Callable[..., dict[str, Any]],
    once: Callable[[Any, Callable[[], Any]], Any],
) -> Callable[..., Played]:
    """Return a function that carries out a search, each one once a session."""

    def play(game: str, workers: int = 2, repeats: int = 1, **environment: str) -> Played:
        def search() -> Any:
            longest, policy, _ = GAMES[game]
            document = experiment(
                {"id": game, "maxEpisodeSteps": longest},
                policy,
                budget={"maxGenerations": GENERATIONS},
                repeats=repeats,
            )
            search = new_search(document, workers, **environment)
            search.start()
            return search.finish(), [search.history(repeat) for repeat in range(repeats)]

        return Played(*once([game, workers, repeats, environment], search))

    return play


@pytest.mark.parametrize("game", GAMES)
def test_a_search_makes_something_of_its_generations(
    game: str, played: Callable[..., Played]
) -> None:
    rows = played(game).histories[0]
    assert [row["generation"] for row in rows] == list(range(GENERATIONS))
    assert len({row["generationDigest"] for row in rows}) == GENERATIONS


@pytest.mark.parametrize("game", GAMES)
def test_one_worker_gives_the_same_bytes_as_two(game: str, played: Callable[..., Played]) -> None:
    assert played(game, workers=1).digests == played(game).digests


@pytest.mark.parametrize("game", GAMES)
def test_workers_without_a_cache_give_the_same_bytes(
    game: str, played: Callable[..., Played]
) -> None:
    uncached = played(game, KUBEVO_CACHE_MEBIBYTES="0")
    assert uncached.digests == played(game).digests


@pytest.mark.parametrize("game", GAMES)
def test_a_repeat_is_the_same_however_many_there_are(
    game: str, played: Callable[..., Played]
) -> None:
    most = GAMES[game][2]
    runs = [played(game, repeats=repeats) for repeats in range(1, most + 1)]
    for repeat in range(most):
        having = [run.generation_digests(repeat) for run in runs[repeat:]]
        assert all(digests == having[0] for digests in having)
    searches = {tuple(runs[-1].generation_digests(repeat)) for repeat in range(most)}
    assert len(searches) == most, "repeats are independent searches"


def test_the_games_leave_slots_that_are_neither_parents_nor_candidates(
    experiment: Callable[..., dict[str, Any]],
) -> None:
    document = experiment({"id": "CartPole-v1"}, MLP)["spec"]
    ga = ExperimentSpec.model_validate(document).algorithm.genetic_algorithm
    assert max(ga.parents, ga.elite_candidates) < ga.population_size
