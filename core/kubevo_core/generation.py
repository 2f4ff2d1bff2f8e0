"""The engine: a search as a monotone dataflow, with no clock, no network and no barrier.

``start`` or ``resume`` gives a `State`; ``ask`` says which episodes to play; ``tell`` takes what
came back; when ``is_complete``, ``finish`` selects and gives the next state. Arrival order,
worker counts and restarts cannot show: everything random is derived from (seed, who asks), and
``ask`` hands out work only once no missing result can change it (``kubevo_core.certainty``).

The algorithm is Such et al. 2017 (truncation selection, Gaussian mutation, one elite found by
re-testing the best candidates); reference runs in ``tests/golden/engine-v1.json``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from kubevo_core.demands import (
    child_of,
    note_fitness,
    open_certain,
    open_generation,
    open_tests,
    parent_hash,
    played_keys,
    ranked_slots,
    validation_keys,
    validation_slot,
)
from kubevo_core.errors import IllegalTransition
from kubevo_core.evaluation import Demand, Episode
from kubevo_core.first_generation import LONGEST_MUTATION_BYTES, first_population
from kubevo_core.fitness import mean_return
from kubevo_core.generation_report import Best, Elite, Finished, Individual, TestReport
from kubevo_core.genome import MAX_TEXT_BYTES, Genome
from kubevo_core.search import Limits, Outcome, Phase, Settings, State, Stop, Test
from kubevo_core.seeding import Purpose
from kubevo_core.selection import candidates, elite, next_parents, rendezvous

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


# Which operation is legal in which phase; an illegal one raises and changes nothing.
LEGAL: dict[str, frozenset[Phase]] = {
    "ask": frozenset(Phase),
    "tell": frozenset(Phase),
    "finish": frozenset({Phase.EVALUATING}),
    "close_tests": frozenset(Phase),
    "reopen": frozenset(Phase),
}


def _require(operation: str, state: State) -> None:
    if state.phase not in LEGAL[operation]:
        raise IllegalTransition(
            f"{operation} is illegal in phase {state.phase} (repeat {state.settings.repeat}, "
            f"generation {state.generation}); legal: {', '.join(sorted(LEGAL[operation]))}"
        )


# --- the populations ----------------------------------------------------------------------------


def start(settings: Settings, imported: Sequence[Genome] = ()) -> State:
    """Return the state before generation 0: from INIT seeds, or from ``imported`` genomes.

    Raises:
        WarmStartRefused: an imported genome has another network.
    """
    population = first_population(settings, imported)
    state = State(settings, Phase.EVALUATING, 0, population, None, None, 0, 0.0, ())
    open_generation(state)
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
            digest = rendezvous(parent_hash(settings, generation, slot), genomes)
            child = child_of(settings, generation, slot, genomes[digest])
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
    open_generation(following)
    open_tests(following)
    return following


# --- what to play -------------------------------------------------------------------------------


def ask(state: State, limits: Limits) -> list[Demand]:
    """Return every episode that is determined and has no result, most urgent first.

    The same state gives the same answer, always: this is the retry mechanism. At least: the
    population, the carried elite's validation, another candidate's once it is certain, and each
    child of the next generation as soon as its parent is; never work that ``limits`` exclude.
    """
    if state.phase is Phase.EVALUATING and state.stale_look:
        state.stale_look = False
        open_certain(state, limits)
    return list(state.open.values())


# --- what came back -----------------------------------------------------------------------------


def tell(state: State, episode: Episode) -> Outcome:
    """Take one result; anything but ACCEPTED changes nothing."""
    key = episode.key
    if key in state.open:
        del state.open[key]
        state.results[key] = episode
        if key.purpose is Purpose.POPULATION and key.generation == state.generation:
            note_fitness(state, key.slot)
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
    open_certain(state, Limits(max_generations=0))
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
    ranked = [(slot, genomes[slot].digest) for slot in ranked_slots(state)]
    carried = (n, state.carried.digest) if state.carried is not None else None
    validated = candidates(carried, ranked, settings.elite_candidates)
    lowest: dict[str, int] = {}
    for slot, genome in enumerate(genomes):
        lowest.setdefault(genome.digest, slot)
    keys = [
        validation_keys(state, validation_slot(state, digest, lowest), digest)
        for _, digest in validated
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
            tuple(state.results[key] for key in played_keys(state, slot, genome.digest))
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
        (
            Stop.GENOME_TOO_LONG,
            any(g.text_bytes + LONGEST_MUTATION_BYTES > MAX_TEXT_BYTES for _, g in done.parents),
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
    open_tests(stopped)
    return stopped


def reopen(state: State, limits: Limits) -> State:
    """Judge the last finished generation anew, for limits that were changed since.

    Right after ``resume``: raised limits let a stopped search go on, bit-equal to one that had them
    from its start (a pending final test is dropped); lowered ones stop it where it is. A search
    whose evaluations all failed stays stopped.
    """
    _require("reopen", state)
    done = state.finished
    if done is None:
        raise IllegalTransition("reopen needs a finished generation; this search has none")
    stop = _judge(done, limits)
    if stop is None:
        if state.phase is Phase.EVALUATING:
            return state
        tests = tuple(test for test in state.tests if test.purpose is not Purpose.FINAL)
        return _next_generation(replace(state, tests=tests), {})
    if state.phase is Phase.EVALUATING:
        tests = (*state.tests, *_tests_of(state.settings, done, stop))
        return resume(state.settings, done, tuple(dict.fromkeys(tests)), stop)
    return replace(state, stop=stop)
