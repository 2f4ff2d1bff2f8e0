"""The engine: a search as a monotone dataflow, with no clock, no network and no barrier.

``start`` or ``resume`` gives a `State`; ``ask`` says which episodes to play; ``tell`` takes what
came back; when ``is_complete``, ``finish`` selects and gives the next state. Arrival order,
worker counts and restarts cannot show: everything random is derived from (seed, who asks), and
``ask`` hands out work only once no missing result can change it (``kubevo_core.certainty``).

The algorithm is Such et al. 2017 (truncation selection, Gaussian mutation, one elite found by
re-testing the best candidates); reference runs in ``tests/golden/engine-v1.json``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from kubevo_core.certainty import Validation, certain_candidates, possible_parents
from kubevo_core.errors import IllegalTransition
from kubevo_core.evaluation import Demand, Episode, Key
from kubevo_core.fitness import mean_return
from kubevo_core.generation_report import Best, Elite, Finished, Individual, TestReport
from kubevo_core.genome import MAX_TEXT_BYTES, Genome, Mutation
from kubevo_core.seeding import Purpose, derive, derive_hash
from kubevo_core.selection import (
    candidates,
    elite,
    next_parents,
    ranking,
    rendezvous,
    rendezvous_many,
)
from kubevo_core.spec import ExperimentSpec

__all__ = [
    "Limits",
    "Outcome",
    "Phase",
    "Settings",
    "State",
    "Stop",
    "Test",
    "ask",
    "close_tests",
    "completed_tests",
    "finish",
    "is_complete",
    "reopen",
    "resume",
    "start",
    "tell",
]


class Phase(StrEnum):
    """Where a search is."""

    EVALUATING = "evaluating"  # a generation is being played
    TESTING = "testing"  # stopped; pending tests are being played
    STOPPED = "stopped"  # nothing is left to do


class Stop(StrEnum):
    """Why a search stopped; the values are the reasons that users see, judged in this order."""

    ALL_EVALUATIONS_FAILED = "AllEvaluationsFailed"
    TARGET_FITNESS = "targetFitness"
    MAX_GENERATIONS = "maxGenerations"
    MAX_FRAMES = "maxFrames"
    MAX_WALL_CLOCK_SECONDS = "maxWallClockSeconds"
    GENOME_TOO_LONG = "GenomeTooLong"


class Outcome(StrEnum):
    """What ``tell`` made of a result; only ACCEPTED changes the state."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    STALE = "stale"  # of a generation that is finished or was dropped
    UNKNOWN = "unknown"  # never asked for


# Which operation is legal in which phase; an illegal one raises and changes nothing.
LEGAL: dict[str, frozenset[Phase]] = {
    "ask": frozenset(Phase),
    "tell": frozenset(Phase),
    "finish": frozenset({Phase.EVALUATING}),
    "close_tests": frozenset(Phase),
    "reopen": frozenset({Phase.TESTING, Phase.STOPPED}),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What never changes during a search."""

    seed: int
    repeat: int
    network: str
    population_size: int
    parents: int
    mutation_power: str
    elite_candidates: int
    elite_episodes: int
    episodes_per_evaluation: int
    test_episodes: int
    test_every_generations: int

    @staticmethod
    def of(spec: ExperimentSpec, repeat: int, network: str) -> "Settings":
        """Return the settings of one repeat of ``spec``."""
        genetic = spec.algorithm.genetic_algorithm
        return Settings(
            seed=spec.seed,
            repeat=repeat,
            network=network,
            population_size=genetic.population_size,
            parents=genetic.parents,
            mutation_power=genetic.mutation_power,
            elite_candidates=genetic.elite_candidates,
            elite_episodes=genetic.elite_episodes,
            episodes_per_evaluation=genetic.episodes_per_evaluation,
            test_episodes=genetic.test_episodes,
            test_every_generations=genetic.test_every_generations,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop; a person may change them while the search runs."""

    target_fitness: float | None = None
    max_generations: int | None = None
    max_frames: int | None = None
    max_wall_clock_seconds: float | None = None

    @staticmethod
    def of(spec: ExperimentSpec) -> "Limits":
        """Return the limits of ``spec``."""
        budget = spec.budget
        return Limits(
            None if budget.target_fitness is None else float(budget.target_fitness),
            budget.max_generations,
            budget.max_frames,
            budget.max_wall_clock_seconds,
        )


@dataclass(frozen=True, slots=True)
class Test:
    """Held-out episodes that somebody is waiting for; they never influence the search."""

    generation: int
    purpose: Purpose
    genome: Genome

    def keys(self, settings: Settings) -> list[Key]:
        """Return the identities of the test's episodes, in episode order."""
        return [
            Key(settings.repeat, self.generation, self.purpose, 0, self.genome.digest, episode)
            for episode in range(settings.test_episodes)
        ]


@dataclass
class State:
    """A search between two checkpoints. ``finish`` replaces it; ``tell`` alone fills its tables.

    The tables (results, open demands, determined children) grow in place, because copying them for
    each result would be quadratic; whoever holds a State owns it.
    """

    settings: Settings
    phase: Phase
    generation: int
    population: tuple[Individual, ...]
    carried: Genome | None
    best: Best | None
    frames: int
    running_seconds: float
    digests: tuple[str, ...]
    finished: Finished | None = None
    stop: Stop | None = None
    tests: tuple[Test, ...] = ()
    results: dict[Key, Episode] = field(default_factory=dict)
    open: dict[Key, Demand] = field(default_factory=dict)
    children: dict[int, Individual] = field(default_factory=dict)
    fitnesses: dict[int, float | None] = field(default_factory=dict)  # of fully played slots
    unplayed: dict[str, int] = field(default_factory=dict)  # digest -> slots not fully played
    stale_look: bool = True  # something arrived since `ask` last looked


def _require(operation: str, state: State) -> None:
    if state.phase not in LEGAL[operation]:
        raise IllegalTransition(
            f"{operation} is illegal in phase {state.phase} (repeat {state.settings.repeat}, "
            f"generation {state.generation}); legal: {', '.join(sorted(LEGAL[operation]))}"
        )


# --- the populations ----------------------------------------------------------------------------


def start(settings: Settings) -> State:
    """Return the state before generation 0: N individuals from INIT seeds."""
    population = []
    for slot in range(settings.population_size):
        seed = derive(settings.seed, Purpose.INIT, settings.repeat, slot)
        genome = Genome(settings.network, seed)
        population.append(Individual(genome, genome, None, -1))
    state = State(settings, Phase.EVALUATING, 0, tuple(population), None, None, 0, 0.0, ())
    _open_generation(state)
    return state


def resume(
    settings: Settings, finished: Finished, tests: Sequence[Test], stop: Stop | None
) -> State:
    """Return the state right after ``finished``, as it was when its checkpoint was written."""
    state = State(
        settings,
        Phase.EVALUATING,
        finished.generation,
        finished.population,
        None,
        finished.best,
        finished.frames,
        finished.running_seconds,
        finished.digests,
        finished,
        stop,
        tuple(tests),
    )
    return _stopped(state) if stop else _next_generation(state, {})


def _child_seed(settings: Settings, generation: int, slot: int) -> Mutation:
    seed = derive(settings.seed, Purpose.MUTATION, settings.repeat, generation, slot)
    return Mutation(seed, settings.mutation_power)


def _parent_hash(settings: Settings, generation: int, slot: int) -> int:
    return derive_hash(settings.seed, Purpose.PARENT, settings.repeat, generation, slot)


def _next_generation(state: State, early: dict[int, Individual]) -> State:
    """Return the state in which the generation after ``state.finished`` is played."""
    settings, done = state.settings, state.finished
    assert done is not None
    assert done.elite is not None
    generation = done.generation + 1
    slots = {genome.digest: slot for slot, genome in done.parents}
    genomes = {genome.digest: genome for _, genome in done.parents}
    population = []
    for slot in range(settings.population_size):
        child = early.get(slot)
        if child is None:
            digest = rendezvous(_parent_hash(settings, generation, slot), genomes)
            child = _child(settings, generation, slot, genomes[digest])
        parent_slot = slots[child.base.digest]  # a KeyError here would be a false certainty
        population.append(replace(child, parent_slot=parent_slot))
    following = replace(
        state,
        phase=Phase.EVALUATING,
        generation=generation,
        population=tuple(population),
        carried=done.elite.genome,
        results={k: r for k, r in state.results.items() if k.generation == generation},
        open={},
        children={},
        fitnesses={},
        unplayed={},
        stop=None,
        stale_look=True,
    )
    _open_generation(following)
    _open_tests(following)
    return following


def _child(settings: Settings, generation: int, slot: int, parent: Genome) -> Individual:
    mutation = _child_seed(settings, generation, slot)
    return Individual(parent.child(mutation), parent, mutation, -1)


# --- what to play -------------------------------------------------------------------------------


def ask(state: State, limits: Limits) -> list[Demand]:
    """Return every episode that is determined and has no result, most urgent first.

    The same state gives the same answer, always: this is the retry mechanism. At least: the
    population, the carried elite's validation, another candidate's once it is certain, and each
    child of the next generation as soon as its parent is; never work that ``limits`` exclude.
    """
    if state.phase is Phase.EVALUATING and state.stale_look:
        state.stale_look = False
        _open_certain(state, limits)
    return list(state.open.values())


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
    for key in _validation_keys(state, slot, individual.genome.digest):
        path = (settings.repeat, state.generation, key.episode)
        _demand(state, key, individual, derive(settings.seed, Purpose.VALIDATION, *path))


def _validation_keys(state: State, slot: int, digest: str) -> list[Key]:
    return [
        Key(state.settings.repeat, state.generation, Purpose.VALIDATION, slot, digest, episode)
        for episode in range(state.settings.elite_episodes)
    ]


def _open_generation(state: State) -> None:
    if state.carried is not None:
        individual = Individual(state.carried, state.carried, None, -1)
        _open_validation(state, state.settings.population_size, individual)
    for slot, individual in enumerate(state.population):
        digest = individual.genome.digest
        state.unplayed[digest] = state.unplayed.get(digest, 0) + 1
        _open_population(state, state.generation, slot, individual)
        _note_fitness(state, slot)  # a child's results may have come before its generation


def _open_tests(state: State) -> None:
    settings = state.settings
    for test in state.tests:
        for key in test.keys(settings):
            at = () if test.purpose is Purpose.FINAL else (test.generation,)
            seed = derive(settings.seed, test.purpose, settings.repeat, *at, key.episode)
            _demand(state, key, Individual(test.genome, test.genome, None, -1), seed)


def _open_certain(state: State, limits: Limits) -> None:
    """Open the validations and the children that the results so far have made certain."""
    settings, missing = state.settings, state.unplayed.keys()
    if len(missing) > max(settings.elite_candidates, settings.parents):
        return  # so many unknown ones may still displace anybody
    digests = [individual.genome.digest for individual in state.population]
    ranked = list(dict.fromkeys(digests[slot] for slot in _ranking(state)))
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
    validations = {d: _validation(state, _slot(state, d, lowest), d) for d in certain}
    union, sure = possible_parents(
        ranked, missing, carried, settings.elite_candidates, settings.parents, validations
    )
    if sure:
        _open_children(state, union, sure, lowest)


def _slot(state: State, digest: str, lowest: dict[str, int]) -> int:
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
    hashes = [_parent_hash(settings, generation, slot) for slot in waiting]
    winners = rendezvous_many(hashes, list(union))
    for slot, digest in zip(waiting, winners, strict=True):
        if digest in sure:
            parent = state.population[lowest[digest]].genome if digest in lowest else state.carried
            assert parent is not None
            child = _child(settings, generation, slot, parent)
            state.children[slot] = child
            _open_population(state, generation, slot, child)


def _ranking(state: State) -> list[int]:
    return ranking([state.fitnesses.get(slot) for slot in range(state.settings.population_size)])


def _note_fitness(state: State, slot: int) -> None:
    """Keep a slot's fitness once all its episodes are there."""
    digest = state.population[slot].genome.digest
    played = _episodes(state, slot, digest)
    if len(played) == state.settings.episodes_per_evaluation:
        state.fitnesses[slot] = mean_return([state.results[k].episode_return for k in played])
        state.unplayed[digest] -= 1
        if not state.unplayed[digest]:
            del state.unplayed[digest]


def _episodes(state: State, slot: int, digest: str) -> list[Key]:
    settings = state.settings
    keys = (
        Key(settings.repeat, state.generation, Purpose.POPULATION, slot, digest, episode)
        for episode in range(settings.episodes_per_evaluation)
    )
    return [key for key in keys if key in state.results]


def _validation(state: State, slot: int, digest: str) -> Validation:
    keys = _validation_keys(state, slot, digest)
    returns = [state.results[key].episode_return for key in keys if key in state.results]
    if any(value is None for value in returns):
        return Validation(failed=True)
    if len(returns) < len(keys):
        return Validation()
    mean = mean_return(returns)
    return Validation(mean=mean, failed=mean is None)


# --- what came back -----------------------------------------------------------------------------


def tell(state: State, episode: Episode) -> Outcome:
    """Take one result; anything but ACCEPTED changes nothing."""
    key = episode.key
    if key in state.open:
        del state.open[key]
        state.results[key] = episode
        if key.purpose is Purpose.POPULATION and key.generation == state.generation:
            _note_fitness(state, key.slot)
        state.stale_look = True
        return Outcome.ACCEPTED
    if key in state.results:
        return Outcome.DUPLICATE
    if key.repeat != state.settings.repeat:
        return Outcome.UNKNOWN
    past = key.generation < state.generation or state.phase is not Phase.EVALUATING
    return Outcome.STALE if past else Outcome.UNKNOWN


def is_complete(state: State) -> bool:
    """Tell whether ``finish`` may be called: everyone is evaluated, every candidate validated."""
    if state.phase is not Phase.EVALUATING:
        return False
    return not any(
        key.generation == state.generation
        and key.purpose in (Purpose.POPULATION, Purpose.VALIDATION)
        for key in state.open
    ) and not (state.stale_look and _uncertain(state))


def _uncertain(state: State) -> bool:
    # `ask` has not looked since the last result: it may still open a validation.
    _open_certain(state, Limits(max_generations=0))
    return any(key.generation == state.generation for key in state.open)


def completed_tests(state: State) -> list[TestReport]:
    """Return the tests whose episodes have all been played."""
    reports = []
    for test in state.tests:
        keys = test.keys(state.settings)
        if all(key in state.results for key in keys):
            episodes = tuple(state.results[key] for key in keys)
            reports.append(TestReport(test.generation, test.purpose, test.genome.digest, episodes))
    return reports


def close_tests(state: State, answered: Iterable[tuple[int, Purpose]]) -> State:
    """Return the state without the tests (generation, purpose) whose answers are kept elsewhere."""
    _require("close_tests", state)
    gone = set(answered)
    tests = tuple(test for test in state.tests if (test.generation, test.purpose) not in gone)
    played = {key for test in state.tests if test not in tests for key in test.keys(state.settings)}
    for key in played:
        state.open.pop(key, None)
        state.results.pop(key, None)
    done = state.phase is Phase.TESTING and not tests
    return replace(state, tests=tests, phase=Phase.STOPPED if done else state.phase)


# --- selection ----------------------------------------------------------------------------------


def finish(state: State, limits: Limits, running_seconds: float) -> State:
    """Select, and return the next state; its ``finished`` is what must now be made durable.

    Save the checkpoint of the returned state BEFORE anything else learns of this generation.
    ``running_seconds`` is the time spent on the search so far, over all its processes.

    Raises:
        IllegalTransition: results are missing, or the search has stopped.
    """
    _require("finish", state)
    if not is_complete(state):
        raise IllegalTransition(
            f"finish needs every result of generation {state.generation}; "
            f"{len(state.open)} are missing"
        )
    done = _select(state, running_seconds)
    stop = _judge(done, limits)
    after = replace(
        state,
        best=done.best,
        frames=done.frames,
        running_seconds=running_seconds,
        digests=done.digests,
        finished=done,
        stop=stop,
        tests=(*state.tests, *_tests_of(state.settings, done, stop)),
    )
    return _stopped(after) if stop else _next_generation(after, state.children)


def _select(state: State, running_seconds: float) -> Finished:
    settings = state.settings
    n = settings.population_size
    genomes = [individual.genome for individual in state.population]
    ranked = [(slot, genomes[slot].digest) for slot in _ranking(state)]
    carried = (n, state.carried.digest) if state.carried is not None else None
    validated = candidates(carried, ranked, settings.elite_candidates)
    lowest: dict[str, int] = {}
    for slot, genome in enumerate(genomes):
        lowest.setdefault(genome.digest, slot)
    keys = [
        _validation_keys(state, _slot(state, digest, lowest), digest) for _, digest in validated
    ]
    episodes = tuple(tuple(state.results[key] for key in each) for each in keys)
    means = [mean_return([episode.episode_return for episode in each]) for each in episodes]

    chosen = elite(validated, means)
    winner: Elite | None = None
    if chosen is not None:
        slot = validated[chosen][0]
        champion = state.carried if slot == n else genomes[slot]
        assert champion is not None
        winner = Elite(slot, champion, means[chosen])
    elif state.carried is not None:
        winner = Elite(n, state.carried, None)

    best = state.best
    if winner is not None and winner.mean is not None and (best is None or winner.mean > best.mean):
        best = Best(winner.genome, winner.mean, state.generation)
    parents: list[tuple[int, Genome]] = []
    if winner is not None:
        chosen_parents = next_parents((winner.slot, winner.genome.digest), ranked, settings.parents)
        parents = [(s, winner.genome if s == n else genomes[s]) for s, _ in chosen_parents]
    return Finished.of(
        repeat=settings.repeat,
        generation=state.generation,
        population=state.population,
        episodes=tuple(
            tuple(state.results[key] for key in _episodes(state, slot, genome.digest))
            for slot, genome in enumerate(genomes)
        ),
        candidates=tuple(validated),
        validations=episodes,
        elite=winner,
        best=best,
        parents=tuple(parents),
        frames_before=state.frames,
        running_seconds=running_seconds,
        digests_before=state.digests,
    )


def _judge(done: Finished, limits: Limits) -> Stop | None:
    generations, mean = done.generation + 1, done.elite.mean if done.elite else None
    verdicts: list[tuple[Stop, bool]] = [
        (Stop.ALL_EVALUATIONS_FAILED, done.elite is None),
        (
            Stop.TARGET_FITNESS,
            limits.target_fitness is not None
            and mean is not None
            and mean >= limits.target_fitness,
        ),
        (Stop.MAX_GENERATIONS, _reached(generations, limits.max_generations)),
        (Stop.MAX_FRAMES, _reached(done.frames, limits.max_frames)),
        (
            Stop.MAX_WALL_CLOCK_SECONDS,
            _reached(done.running_seconds, limits.max_wall_clock_seconds),
        ),
        # A child adds at most 21 bytes: separator, ten digits, '*', sigma.
        (
            Stop.GENOME_TOO_LONG,
            any(genome.text_bytes + 21 > MAX_TEXT_BYTES for _, genome in done.parents),
        ),
    ]
    return next((stop for stop, met in verdicts if met), None)


def _reached(value: float, limit: float | None) -> bool:
    return limit is not None and value >= limit


def _tests_of(settings: Settings, done: Finished, stop: Stop | None) -> list[Test]:
    tests = []
    every, generations = settings.test_every_generations, done.generation + 1
    if settings.test_episodes:
        if every and generations % every == 0 and done.elite is not None:
            tests.append(Test(done.generation, Purpose.TEST, done.elite.genome))
        if stop and done.best is not None:
            tests.append(Test(done.generation, Purpose.FINAL, done.best.genome))
    return tests


def _stopped(state: State) -> State:
    """Return ``state`` with the next generation's work dropped; only tests are still played."""
    results = {k: r for k, r in state.results.items() if k.purpose in (Purpose.TEST, Purpose.FINAL)}
    phase = Phase.TESTING if state.tests else Phase.STOPPED
    stopped = replace(state, phase=phase, results=results, open={}, children={}, unplayed={})
    _open_tests(stopped)
    return stopped


def reopen(state: State, limits: Limits) -> State:
    """Return the state that goes on from a stopped one if ``limits`` were raised since.

    Bit-equal to a search that had these limits from its start; a pending final test is dropped.
    A search whose evaluations all failed stays stopped.
    """
    _require("reopen", state)
    assert state.finished is not None
    stop = _judge(state.finished, limits)
    if stop is not None:
        return replace(state, stop=stop)
    tests = tuple(test for test in state.tests if test.purpose is not Purpose.FINAL)
    return _next_generation(replace(state, tests=tests), {})
