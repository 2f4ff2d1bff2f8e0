"""Where a warm start's genomes come from, what is refused, and that they are looked up once."""

import asyncio
import os
import shutil

import pytest

from kubevo_core import checkpoint, imports
from kubevo_core.errors import StoreError, WarmStartRefused
from kubevo_core.genome import Genome
from kubevo_core.imports import Source
from kubevo_core.spec import WarmStart
from kubevo_runtime import events
from kubevo_runtime.experiment import run_experiment
from kubevo_runtime.publisher import Bases
from kubevo_runtime.store import create_run, open_run
from kubevo_runtime.testing import FakeBus
from kubevo_runtime.warm_start import import_file, recall, resolve

ALL_KEPT = {"keepLast": 100}


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 0.01
        return self.now


class Died(Exception):
    """Stands for the end of the process."""


def uid(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


@pytest.fixture
def search(tmp_path, make_experiment, synthetic_play, synthetic_worker):
    """Run an Experiment in ``tmp_path``, going on where it is; return its outcomes."""

    async def run(
        number, name="source", *, die_at=None, seen=None, network="mlp-4-16-2", fail_every=41,
        namespace="lab", root=tmp_path, **spec,
    ):  # fmt: skip
        experiment = make_experiment(**spec)
        document = experiment.document()
        document["metadata"]["name"] = name
        found = list(root.glob(f"*/*-{uid(number)[:8]}"))
        directory = (
            open_run(found[0])
            if found
            else create_run(root, namespace, name, uid(number), document)
        )
        directory.claim()
        bus = FakeBus()

        def sink(event):
            if seen is not None:
                seen.append(event)
            if die_at is not None and isinstance(event, die_at):
                raise Died

        worker = asyncio.create_task(
            synthetic_worker(bus.worker(), synthetic_play(fail_every=fail_every), network)
        )
        try:
            return await run_experiment(directory, experiment, bus.coordinator(), sink, Clock())
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    return run


def run_of(tmp_path, number):
    return open_run(next(tmp_path.glob(f"*/*-{uid(number)[:8]}")))


def finished(tmp_path, number, repeat, generation):
    return checkpoint.decode(run_of(tmp_path, number).repeat(repeat).load(generation)).finished


def warm(**fields):
    return WarmStart.model_validate(fields)


def refusal(tmp_path, asks=99, **fields):
    with pytest.raises(WarmStartRefused) as caught:
        resolve(tmp_path, "lab", warm(**fields), uid(asks))
    return str(caught.value)


def digests(outcomes):
    return outcomes.population_digest, outcomes.result_digest, outcomes.reason


# --- what is found --------------------------------------------------------------------------------


async def test_the_best_of_the_best_repeat_is_the_default(tmp_path, search):
    outcomes = await search(1, repeats=2)
    found = resolve(tmp_path, "lab", warm(experiment="source"), uid(99))
    assert found.genomes == (outcomes.best.genome,)
    assert found.source == Source(
        "source", uid(1), outcomes.chosen, outcomes.best.generation, selected=False
    )


async def test_a_repeat_may_be_named(tmp_path, search):
    outcomes = await search(1, repeats=2)
    for repeat in (0, 1):
        found = resolve(tmp_path, "lab", warm(experiment="source", repeat=repeat), uid(99))
        assert found.genomes == (outcomes.finished[repeat].best.genome,)


@pytest.mark.parametrize("generation", [0, 1, 2])
async def test_a_generation_gives_the_parents_that_it_selected(tmp_path, search, generation):
    await search(1, checkpoint=ALL_KEPT)
    found = resolve(tmp_path, "lab", warm(uid=uid(1), generation=generation), uid(99))
    done = finished(tmp_path, 1, 0, generation)
    assert found.genomes == tuple(genome for _, genome in done.parents)
    assert found.genomes[0] == done.elite.genome


async def test_of_namesakes_the_last_that_was_claimed_is_the_source(tmp_path, search):
    for number in (1, 2, 3):
        await search(number, seed=number)
    for number, when in ((1, 100), (2, 300), (3, 200)):
        os.utime(run_of(tmp_path, number).path / "OWNER", (when, when))
    found = resolve(tmp_path, "lab", warm(experiment="source"), uid(99))
    assert found.source.uid == uid(2)
    itself = resolve(tmp_path, "lab", warm(experiment="source"), uid(2))
    assert itself.source.uid == uid(3)
    assert resolve(tmp_path, "lab", warm(uid=uid(1)), uid(99)).source.uid == uid(1)


async def test_a_damaged_neighbour_hides_nothing(tmp_path, search):
    await search(1)
    broken = tmp_path / "lab" / "source-00000000"
    broken.mkdir()
    (broken / "OWNER").write_text("{")
    assert resolve(tmp_path, "lab", warm(experiment="source"), uid(99)).source.uid == uid(1)


# --- what is refused ------------------------------------------------------------------------------


async def test_a_source_that_is_not_there_is_named_with_what_is(tmp_path, search):
    assert "'other' in" in (text := refusal(tmp_path, experiment="other"))
    assert "found no other run" in text
    await search(1)
    assert "found source: start that one first" in refusal(tmp_path, experiment="other")
    assert f"source ({uid(1)})" in refusal(tmp_path, uid=uid(5))
    assert "found no other run" in refusal(tmp_path, asks=1, uid=uid(1))


async def test_a_source_in_another_namespace_is_not_found(tmp_path, search):
    await search(1, namespace="elsewhere")
    assert "expected a kept run 'source'" in refusal(tmp_path, experiment="source")


async def test_a_source_that_has_finished_nothing_is_refused(tmp_path, search):
    with pytest.raises(Died):
        await search(1, die_at=events.Described)
    assert "has not finished a generation yet" in refusal(tmp_path, experiment="source")
    text = refusal(tmp_path, experiment="source", repeat=0)
    assert "has not finished a generation of repeat 0 yet" in text


async def test_a_repeat_that_the_source_has_not_is_refused(tmp_path, search):
    await search(1)
    text = refusal(tmp_path, experiment="source", repeat=1)
    assert "expected one of the repeats 0 to 0" in text


async def test_a_pruned_generation_names_the_rule_and_what_is_kept(tmp_path, search):
    await search(1, budget={"maxGenerations": 8}, checkpoint={"keepLast": 2, "keepEvery": 4})
    kept = run_of(tmp_path, 1).repeat(0).generations()
    gone = next(number for number in range(8) if number not in kept)
    text = refusal(tmp_path, experiment="source", generation=gone)
    assert f"generation {gone} of the source source" in text
    assert f"keepLast 2 and keepEvery 4 (and the best's generation) have kept {kept}"[:-1].replace(
        "[", ""
    ) in text  # fmt: skip


async def test_a_generation_that_is_still_to_come_is_refused(tmp_path, search):
    await search(1)
    text = refusal(tmp_path, experiment="source", generation=3)
    assert "got 3, the last one is 2: wait" in text


async def test_a_source_whose_evaluations_all_failed_is_refused(tmp_path, search):
    await search(1, repeats=2, fail_every=1)
    assert "every evaluation of every repeat has failed" in refusal(tmp_path, experiment="source")
    assert "repeat 1, every evaluation has failed" in refusal(
        tmp_path, experiment="source", repeat=1
    )


async def test_a_source_of_which_nothing_verifies_is_refused(tmp_path, search):
    await search(1)
    for file in run_of(tmp_path, 1).path.glob("repeat-0/generations/*.ck"):
        file.write_bytes(file.read_bytes()[:-1])
    assert "cannot be read" in refusal(tmp_path, experiment="source")


async def test_a_source_with_another_network_is_refused_before_anything_is_written(
    tmp_path, search
):
    await search(1)
    with pytest.raises(WarmStartRefused, match=r"mlp-4-8-2 .*source.* has genomes of mlp-4-16-2"):
        await search(2, "target", network="mlp-4-8-2", warmStart={"experiment": "source"})
    target = run_of(tmp_path, 2)
    assert target.description() is None
    assert target.imported() is None
    assert not target.is_played()


# --- the search that starts from it ---------------------------------------------------------------


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("generation", [None, 1])
async def test_a_warm_search_killed_before_its_first_checkpoint_goes_on_to_the_same_bytes(
    tmp_path, search, repeats, generation
):
    await search(1, checkpoint=ALL_KEPT)
    spec = {
        "warmStart": {"experiment": "source", "generation": generation},
        "repeats": repeats,
        "checkpoint": ALL_KEPT,
    }
    expected = digests(await search(2, "reference", **spec))
    for moment in (events.Described, events.ResultTaken, events.GenerationFinished):
        with pytest.raises(Died):
            await search(3, "target", die_at=moment, **spec)
    assert digests(await search(3, "target", **spec)) == expected
    first = finished(tmp_path, 3, repeats - 1, 0).population
    parents = finished(tmp_path, 1, 0, 1).parents if generation else None
    best = finished(tmp_path, 1, 0, 2).best.genome
    wanted = [genome for _, genome in parents] if parents else [best]
    assert [individual.genome for individual in first[: len(wanted)]] == wanted
    assert all(i.base in wanted and i.mutation for i in first[len(wanted) :])


async def test_a_base_stays_until_no_repeat_names_it():
    bus = FakeBus()
    bases, (one, other) = Bases(bus.coordinator()), (Genome("mlp-4-16-2", n) for n in (1, 2))
    await bases.put(0, [one, other], again=False)
    await bases.put(1, [one], again=False)
    await bases.keep_only(0, {other.digest})
    assert sorted(bus.blobs) == sorted([one.digest, other.digest])
    await bases.keep_only(1, ())
    assert list(bus.blobs) == [other.digest]
    bus.blobs.clear()  # a broker that lost its store
    await bases.put(0, [other], again=False)
    assert bus.blobs == {}
    await bases.put(0, [other], again=True)
    assert bus.blobs == {other.digest: other.text.encode()}


async def test_the_source_is_not_needed_once_it_is_imported(tmp_path, search):
    await search(1)
    spec = {"warmStart": {"experiment": "source"}}
    expected = digests(await search(2, "reference", **spec))
    with pytest.raises(Died):
        await search(3, "target", die_at=events.ResultTaken, **spec)
    shutil.rmtree(run_of(tmp_path, 1).path)
    seen = []
    assert digests(await search(3, "target", seen=seen, **spec)) == expected
    assert [e.imported.source.uid for e in seen if isinstance(e, events.WarmStarted)] == [uid(1)]


async def test_a_finished_first_generation_needs_no_import_any_more(tmp_path, search):
    await search(1)
    spec = {"warmStart": {"experiment": "source"}}
    await search(2, "target", **spec)
    shutil.rmtree(run_of(tmp_path, 1).path)
    (run_of(tmp_path, 2).path / "import.ck").unlink()
    longer = await search(2, "target", budget={"maxGenerations": 4}, **spec)
    assert longer.generation == 3


@pytest.fixture
async def prepared(tmp_path, search, make_experiment):
    """Return a target's run whose import is kept, and its spec; nothing is played."""
    await search(1)
    spec = {"warmStart": {"experiment": "source"}}
    with pytest.raises(Died):
        await search(2, "target", die_at=events.WarmStarted, repeats=2, **spec)
    return run_of(tmp_path, 2), make_experiment(repeats=2, **spec).spec


async def test_an_import_is_written_once(prepared):
    run, spec = prepared
    before = (run.path / "import.ck").stat()
    import_file(run, recall(run, spec))
    assert (run.path / "import.ck").stat() == before
    assert imports.decode(run.imported()) == recall(run, spec)


async def test_a_damaged_import_is_an_error_that_names_its_file(prepared):
    run, spec = prepared
    file = run.path / "import.ck"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(StoreError, match=r"import\.ck: .*or remove it to look its source up"):
        recall(run, spec)
    file.unlink()
    assert recall(run, spec).source.uid == uid(1)


async def test_an_import_that_some_repeats_have_started_from_is_never_looked_up_again(
    tmp_path, search, prepared
):
    run, spec = prepared
    source = run_of(tmp_path, 1).path / "repeat-0"
    shutil.copytree(source, run.path / "repeat-0")
    assert recall(run, spec) == imports.decode(run.imported())
    (run.path / "import.ck").unlink()
    with pytest.raises(StoreError, match=r"import\.ck, which all of them start from, is gone"):
        recall(run, spec)


async def test_a_source_that_was_corrected_before_anything_was_played_counts(
    search, prepared, make_experiment
):
    run, _ = prepared
    await search(4, "other", seed=4)
    corrected = make_experiment(repeats=2, warmStart={"experiment": "other"}).spec
    assert recall(run, corrected).source.uid == uid(4)
