"""What a search has found: histories, generations, individuals, lineages, failures, comparisons."""

import csv
import io
import itertools

import pyarrow.parquet as pq
import pytest
from api_parts import EXPERIMENTS

from kubevo_core import checkpoint, genome

LONG = {"budget": {"maxGenerations": 30}, "checkpoint": {"keepLast": 3}}


def finished(run, generation, repeat=0):
    return checkpoint.decode(run.repeat(repeat).load(generation)).finished


def test_a_history_has_the_rows_of_its_file(make_run, get):
    run = make_run(**LONG)
    rows, found = run.repeat(0).history(), get("test/history")
    assert (found["rows"], found["first"], found["last"]) == (30, 0, 29)
    columns = found["columns"]
    assert columns["generation"] == list(range(30))
    assert columns["max"] == [row["fitness"]["max"] for row in rows]
    assert columns["elite"] == [row["elite"]["mean"] for row in rows]
    assert columns["frames"] == [row["frames"] for row in rows]


def test_a_part_of_a_history_and_a_thinned_one(make_run, get):
    make_run(**LONG)
    part = get("test/history", **{"from": 10, "to": 12})
    assert part["columns"]["generation"] == [10, 11, 12]
    few = get("test/history", points=5)
    assert few["rows"] == 5
    assert few["last"] == few["columns"]["generation"][-1] == 29


def test_a_history_comes_as_csv_and_parquet(make_run, client):
    make_run(**LONG)
    answer = client.get(f"{EXPERIMENTS}/test/history", params={"format": "csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["generation"]) for row in rows] == list(range(30))
    answer = client.get(f"{EXPERIMENTS}/test/history", params={"format": "parquet"})
    assert pq.read_table(io.BytesIO(answer.content)).num_rows == 30


def test_repeats_are_apart_and_the_best_is_the_default(make_run, get, client):
    run = make_run(repeats=3)
    bests = [run.repeat(r).history()[-1]["best"]["mean"] for r in range(3)]
    chosen = max(range(3), key=lambda r: (bests[r], -r))
    assert get("test/history")["repeat"] == chosen
    assert get("test/history", repeat=2)["columns"]["best"][-1] == bests[2]
    answer = client.get(f"{EXPERIMENTS}/test/history", params={"repeat": 3})
    assert answer.status_code == 404
    assert "0 to 2" in answer.json()["detail"]


def test_tests_have_their_intervals(make_run, get):
    make_run()
    (final,) = [each for each in get("test/tests")["items"] if each["purpose"] == "final"]
    low, high = final["ci95"]
    assert low <= final["mean"] <= high
    assert final["episodes"] == 3


def test_generations_say_which_genomes_are_kept(make_run, get):
    run = make_run(**LONG)
    run.repeat(0).prune(3, 0, 29)
    found = get("test/generations")
    assert (found["first"], found["last"]) == (0, 29)
    assert found["retained"] == [{"from": 27, "to": 29}]
    assert "keepLast 3" in found["rule"]
    assert get("test/generations/29")["genomesRetained"]
    assert not get("test/generations/5")["genomesRetained"]


def test_a_generation_is_shown_as_it_was(make_run, get):
    run = make_run()
    done, found = finished(run, 1), get("test/generations/1")
    known = [value for value in done.fitnesses if value is not None]
    assert found["fitness"]["max"] == max(known)
    assert found["elite"] == done.elite.mean
    assert found["populationSize"] == len(done.population)


def test_a_population_is_paged_and_sorted(make_run, get):
    run = make_run()
    done, slots, page = finished(run, 2), [], None
    while True:
        query = {"limit": 4} | ({"continue": page} if page else {})
        found = get("test/generations/2/population", **query)
        slots += [item["slot"] for item in found["items"]]
        page = found["continue"]
        if page is None:
            break
    assert slots == list(range(len(done.population)))
    best = get("test/generations/2/population", sort="-fitness", limit=1)["items"][0]
    assert best["fitness"] == max(value for value in done.fitnesses if value is not None)


def test_an_individual_is_the_one_of_the_checkpoint(make_run, get):
    run = make_run()
    individual, found = finished(run, 2).population[3], get("test/generations/2/individuals/3")
    assert genome.parse(found["genome"]) == individual.genome
    assert (found["digest"], found["parent"]) == (individual.genome.digest, individual.parent_slot)


def test_genomes_that_were_pruned_are_gone_with_the_rule(make_run, client, get):
    run = make_run(**LONG)
    run.repeat(0).prune(3, 0, 29)
    for path in ("population", "individuals/0", "individuals/0/genome.json"):
        answer = client.get(f"{EXPERIMENTS}/test/generations/5/{path}")
        assert answer.status_code == 410, path
        assert "keepLast 3" in answer.json()["detail"]
    # What is never pruned is still there.
    assert sum(get("test/generations/5/histogram", bins=3)["counts"]) == 6
    assert get("test/generations/5/scores")["columns"]["slot"] == list(range(6))


@pytest.mark.parametrize("path", ["generations/30", "generations/30/population", "generations/30/histogram", "generations/2/individuals/6", "generations/30/individuals/0/lineage", "generations/2/individuals/7/lineage", "generations/0/individuals/6/lineage"])  # fmt: skip
def test_what_is_not_there_is_not_found(make_run, client, path):
    make_run()
    assert client.get(f"{EXPERIMENTS}/test/{path}").status_code == 404


def test_a_page_of_long_genomes_is_shorter(make_run, get, monkeypatch):
    run = make_run()
    monkeypatch.setattr("kubevo_api.routes.results.PAGE_BYTES", 100)
    slots, query = [], {}
    while query is not None:
        found = get("test/generations/2/population", **query)
        assert 0 < len(found["items"]) <= 3
        slots += [item["slot"] for item in found["items"]]
        query = {"continue": found["continue"]} if found["continue"] else None
    assert slots == list(range(len(finished(run, 2).population)))


def test_a_lineage_leads_back_to_the_start_through_pruned_generations(make_run, get):
    run = make_run(**LONG)
    run_of = {g: finished(run, g) for g in range(30)}
    run.repeat(0).prune(3, 0, 29)
    found = get("test/generations/29/individuals/0/lineage")
    assert found["complete"]
    assert [item["generation"] for item in found["items"]] == list(range(29, -1, -1))
    genomes = []
    for item in found["items"]:
        done = run_of[item["generation"]]
        carried = item["slot"] == len(done.population)
        genomes.append(
            run_of[item["generation"] - 1].elite.genome
            if carried
            else done.population[item["slot"]].genome
        )
    for child, parent in itertools.pairwise(genomes):
        assert child == parent or child.mutations[:-1] == parent.mutations


def test_the_elite_has_a_lineage(make_run, get):
    run = make_run()
    found = get("test/elite/lineage")
    assert found["items"][0]["slot"] == finished(run, 2).elite.slot
    assert found["items"][0]["elite"]


def test_failures_outlive_their_checkpoints(make_run, get):
    run = make_run(fail_every=3, **LONG)
    run.repeat(0).prune(1, 0, 29)
    found = get("test/logs", limit=5)
    assert len(found["items"]) == 5
    assert found["items"][0]["failure"] == "synthetic failure"
    generations = [item["generation"] for item in found["items"]]
    assert generations == sorted(generations, reverse=True)
    assert get("test/logs", limit=5, **{"continue": found["continue"]})["items"] != found["items"]


def test_searches_are_compared_by_their_repeats(make_run, client):
    make_run(name="a", repeats=4)
    make_run(name="b", repeats=1, budget={"maxGenerations": 5})
    answer = client.get("/api/v1/compare", params={"ids": "local/a,local/b"})
    first, second = answer.json()["items"]
    assert first["result"]["of"] == "final test"
    assert len(first["result"]["values"]) == 4
    assert first["result"]["low"] <= first["result"]["iqm"] <= first["result"]["high"]
    assert first["curve"]["x"] == [0, 1, 2]
    assert second["result"]["low"] is None
    assert second["curve"]["low"] == [None] * 5


@pytest.mark.parametrize(("ids", "status"), [("", 422), ("local", 422), ("local/none", 404)])
def test_a_comparison_with_what_is_not_there_is_refused(client, ids, status):
    assert client.get("/api/v1/compare", params={"ids": ids}).status_code == status
