"""Which episodes a search wants played, each opened as soon as no missing result can change it.

Opening is monotone: what was opened once stays open until its result is there. The order in which
demands are opened is the order in which they are asked for: validation before children.
"""

from kubevo_core.certainty import Validation, certain_candidates, possible_parents
from kubevo_core.evaluation import Demand, Key
from kubevo_core.fitness import mean_return
from kubevo_core.generation_report import Individual
from kubevo_core.genome import Genome, Mutation
from kubevo_core.search import Limits, Settings, State
from kubevo_core.seeding import Purpose, derive, derive_hash
from kubevo_core.selection import ranking, rendezvous_many

__all__ = [
    "child_of",
    "note_fitness",
    "open_certain",
    "open_generation",
    "open_tests",
    "parent_hash",
    "played_keys",
    "ranked_slots",
    "validation_keys",
    "validation_slot",
]


def _demand(state: State, key: Key, individual: Individual, episode_seed: int) -> None:
    if key not in state.results and key not in state.open:
        state.open[key] = Demand(key, individual.base, individual.mutation, episode_seed)


def _open_population(state: State, generation: int, slot: int, individual: Individual) -> None:
    settings = state.settings
    digest = individual.genome.digest
    for episode in range(settings.episodes_per_evaluation):
        path = (settings.repeat, generation, slot, episode)
        key = Key(settings.repeat, generation, Purpose.POPULATION, slot, digest, episode)
        _demand(state, key, individual, derive(settings.seed, Purpose.POPULATION, *path))


def _open_validation(state: State, slot: int, individual: Individual) -> None:
    settings = state.settings
    for key in validation_keys(state, slot, individual.genome.digest):
        path = (settings.repeat, state.generation, key.episode)
        _demand(state, key, individual, derive(settings.seed, Purpose.VALIDATION, *path))


def validation_keys(state: State, slot: int, digest: str) -> list[Key]:
    """Return the identities of a candidate's validation, in episode order."""
    return [
        Key(state.settings.repeat, state.generation, Purpose.VALIDATION, slot, digest, episode)
        for episode in range(state.settings.elite_episodes)
    ]


def open_generation(state: State) -> None:
    """Open the carried elite's validation, then the population."""
    if state.carried is not None:
        individual = Individual(state.carried, state.carried, None, -1)
        _open_validation(state, state.settings.population_size, individual)
    for slot, individual in enumerate(state.population):
        digest = individual.genome.digest
        state.unplayed[digest] = state.unplayed.get(digest, 0) + 1
        _open_population(state, state.generation, slot, individual)
        note_fitness(state, slot)  # a child's results may have come before its generation


def open_tests(state: State) -> None:
    """Open the episodes of the pending tests."""
    settings = state.settings
    for test in state.tests:
        for key in test.keys(settings):
            at = () if test.purpose is Purpose.FINAL else (test.generation,)
            seed = derive(settings.seed, test.purpose, settings.repeat, *at, key.episode)
            _demand(state, key, Individual(test.genome, test.genome, None, -1), seed)


def open_certain(state: State, limits: Limits) -> None:
    """Open the validations and the children that the results so far have made certain."""
    settings, missing = state.settings, state.unplayed.keys()
    if len(missing) > max(settings.elite_candidates, settings.parents):
        return  # so many unknown ones may still displace anybody
    digests = [individual.genome.digest for individual in state.population]
    ranked = list(dict.fromkeys(digests[slot] for slot in ranked_slots(state)))
    carried = state.carried.digest if state.carried is not None else None
    lowest: dict[str, int] = {}
    for slot, digest in enumerate(digests):
        lowest.setdefault(digest, slot)
    certain = certain_candidates(ranked, missing, carried, settings.elite_candidates)
    for digest in certain:
        if digest != carried:
            _open_validation(state, lowest[digest], state.population[lowest[digest]])

    if limits.max_generations is not None and state.generation + 1 >= limits.max_generations:
        return
    validations = {d: _validation(state, validation_slot(state, d, lowest), d) for d in certain}
    union, sure = possible_parents(
        ranked, missing, carried, settings.elite_candidates, settings.parents, validations
    )
    if sure:
        _open_children(state, union, sure, lowest)


def validation_slot(state: State, digest: str, lowest: dict[str, int]) -> int:
    """Return the slot that names a genome's validation."""
    # The validation of a genome in several slots is one piece of work: the lowest slot names it,
    # since that is known from the start; the carried elite is always slot N.
    if state.carried is not None and digest == state.carried.digest:
        return state.settings.population_size
    return lowest[digest]


def _open_children(state: State, union: set[str], sure: set[str], lowest: dict[str, int]) -> None:
    settings, generation = state.settings, state.generation + 1
    waiting = [slot for slot in range(settings.population_size) if slot not in state.children]
    if not waiting:
        return
    hashes = [parent_hash(settings, generation, slot) for slot in waiting]
    winners = rendezvous_many(hashes, list(union))
    for slot, digest in zip(waiting, winners, strict=True):
        if digest in sure:
            parent = state.population[lowest[digest]].genome if digest in lowest else state.carried
            assert parent is not None
            child = child_of(settings, generation, slot, parent)
            state.children[slot] = child
            _open_population(state, generation, slot, child)


def ranked_slots(state: State) -> list[int]:
    """Return the slots that have a fitness so far, best first."""
    return ranking([state.fitnesses.get(slot) for slot in range(state.settings.population_size)])


def note_fitness(state: State, slot: int) -> None:
    """Keep a slot's fitness once all its episodes are there."""
    digest = state.population[slot].genome.digest
    played = played_keys(state, slot, digest)
    if len(played) == state.settings.episodes_per_evaluation:
        state.fitnesses[slot] = mean_return([state.results[k].episode_return for k in played])
        state.unplayed[digest] -= 1
        if not state.unplayed[digest]:
            del state.unplayed[digest]


def played_keys(state: State, slot: int, digest: str) -> list[Key]:
    """Return the identities of the slot's episodes that have been played."""
    settings = state.settings
    keys = (
        Key(settings.repeat, state.generation, Purpose.POPULATION, slot, digest, episode)
        for episode in range(settings.episodes_per_evaluation)
    )
    return [key for key in keys if key in state.results]


def _validation(state: State, slot: int, digest: str) -> Validation:
    keys = validation_keys(state, slot, digest)
    returns = [state.results[key].episode_return for key in keys if key in state.results]
    if any(value is None for value in returns):
        return Validation(failed=True)
    if len(returns) < len(keys):
        return Validation()
    mean = mean_return(returns)
    return Validation(mean=mean, failed=mean is None)


def _child_seed(settings: Settings, generation: int, slot: int) -> Mutation:
    seed = derive(settings.seed, Purpose.MUTATION, settings.repeat, generation, slot)
    return Mutation(seed, settings.mutation_power)


def parent_hash(settings: Settings, generation: int, slot: int) -> int:
    """Return the hash by which a child chooses its parent (`selection.rendezvous`)."""
    return derive_hash(settings.seed, Purpose.PARENT, settings.repeat, generation, slot)


def child_of(settings: Settings, generation: int, slot: int, parent: Genome) -> Individual:
    """Return the child in ``slot`` of ``generation``; its parent's slot is filled in later."""
    mutation = _child_seed(settings, generation, slot)
    return Individual(parent.child(mutation), parent, mutation, -1)
