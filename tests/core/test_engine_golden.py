"""Every reference run, reproduced by an engine that overlaps and takes results in any order."""

import random

import pytest

from kubevo_core.fitness import format_fitness, mean_return
from kubevo_core.generation import Phase, ask, finish, is_complete, start, tell
from kubevo_core.generation_report import population_digest, result_digest
from kubevo_core.seeding import Purpose, derive, derive_hash
from kubevo_core.selection import (
    candidates,
    elite,
    next_parents,
    ranking,
    rendezvous,
    rendezvous_many,
)

CASES = [
    f"{letter}-{law}"
    for letter in (
        "a",
        "b",
        "c",
        "d",
        "e-sparse",
        "e-narrow",
        "e-none-evaluated",
        "e-none-eligible",
        "f-target",
        "f-frames",
        "f-order",
        "g-wide",
    )
    for law in ("noise", "quality")
]


def number(text):
    return None if text == "failed" else float.fromhex(text) if "x" in text else float(text)


def test_seeds_by_purpose(golden_engine):
    for case in golden_engine["derive"]:
        assert derive(case["root"], Purpose[case["purpose"]], *case["path"]) == case["seed"]


def test_rendezvous(golden_engine):
    for case in golden_engine["rendezvous"]:
        h = derive_hash(
            case["seed"], Purpose.PARENT, case["repeat"], case["generation"], case["slot"]
        )
        assert h == int(case["h"])
        assert rendezvous(h, case["parents"]) == case["chosen"]
        assert rendezvous_many([h], case["parents"]) == [case["chosen"]]


def test_fitness(golden_engine):
    for case in golden_engine["fitness"]:
        assert format_fitness(mean_return([number(r) for r in case["returns"]])) == case["fitness"]


def test_selection(golden_engine):
    for case in golden_engine["selection"]:
        genomes, n = case["genomes"], case["populationSize"]
        order = ranking([number(f) for f in case["fitness"]])
        assert order == case["ranking"]
        ranked = [(slot, genomes[slot]) for slot in order]
        carried = (n, case["oldElite"]) if case["oldElite"] else None
        validated = candidates(carried, ranked, case["eliteCandidates"])
        assert [list(pair) for pair in validated] == case["candidates"]
        chosen = elite(validated, [number(m) for m in case["means"]])
        winner = carried if chosen is None else validated[chosen]
        assert (winner and list(winner)) == case["elite"]
        if winner is None:
            continue
        assert [list(p) for p in next_parents(winner, ranked, case["parents"])] == case[
            "nextParents"
        ]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("arrival", ["in order", "reversed", "shuffled"])
def test_a_whole_run(golden_engine, case_settings, synthetic_play, name, arrival):
    case = next(case for case in golden_engine["cases"] if case["case"] == name)
    play = synthetic_play(case["law"], case["failEvery"])
    pick = {
        "in order": lambda d: d[0],
        "reversed": lambda d: d[-1],
        "shuffled": random.Random(name).choice,
    }[arrival]
    finished = []
    for expected in case["repeats"]:
        settings, limits = case_settings(case, expected["repeat"])
        state = start(settings)
        generations = []
        while state.phase is Phase.EVALUATING:
            demands = ask(state, limits)
            if is_complete(state):
                state = finish(state, limits, 0.0)
                generations.append(state.finished)
            else:
                tell(state, play(pick(demands)))
        for done, row in zip(generations, expected["generations"], strict=True):
            check(done, row)
        assert state.stop == expected["stop"]
        finished.append(state.finished)
    assert population_digest(finished) == case["populationDigest"]
    assert result_digest(finished) == case["resultDigest"]


def test_all_cases_are_played(golden_engine):
    assert sorted(CASES) == sorted(case["case"] for case in golden_engine["cases"])


def check(done, row):
    assert [i.genome.digest[:16] for i in done.population] == row["genomes"]
    if "texts" in row:
        assert [i.genome.text for i in done.population] == row["texts"]
    if "parentSlots" in row:
        assert [i.parent_slot for i in done.population] == row["parentSlots"]
        assert [i.base.digest[:16] for i in done.population] == row["parentGenomes"]
    assert [format_fitness(f) for f in done.fitnesses] == row["fitness"]
    shown = [
        [slot, digest[:16], format_fitness(mean)]
        for (slot, digest), mean in zip(done.candidates, done.means, strict=True)
    ]
    assert shown == row["candidates"]
    winner = [done.elite.slot, done.elite.genome.digest[:16]] if done.elite else None
    assert winner == row["elite"]
    assert [[slot, genome.digest[:16]] for slot, genome in done.parents] == row["parents"]
    assert done.frames == row["frames"]
    assert done.digest == row["generationDigest"]
