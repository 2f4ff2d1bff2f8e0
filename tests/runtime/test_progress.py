"""The view that a status is made of: fed by a real search, and by single events where time counts."""

import asyncio
import math
from dataclasses import replace

import pytest

from kubevo_core.evaluation import Episode, Key
from kubevo_core.generation import Limits, Outcome, Stop
from kubevo_core.messages import Description, ResultReport
from kubevo_core.seeding import Purpose
from kubevo_runtime import events
from kubevo_runtime.experiment import run_experiment
from kubevo_runtime.outcomes import final_test
from kubevo_runtime.progress import ProgressTracker
from kubevo_runtime.store import create_run
from kubevo_runtime.testing import FakeBus

UID = "1a2b3c4d-0000-4000-8000-000000000000"
DESCRIBED = events.Described(Description("mlp-4-16-2", "numpy", "", "", {}))


class Hand:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self):
        return self.now


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 0.01
        return self.now


class Died(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def search(tmp_path, synthetic_play, synthetic_worker):
    """Run an Experiment in ``tmp_path``, going on where it is; tell ``sink`` everything."""

    async def run(experiment, sink):
        run = create_run(tmp_path, "lab", "test", UID, experiment.document())
        run.claim()
        bus, play = FakeBus(), synthetic_play(fail_every=5)
        worker = asyncio.create_task(synthetic_worker(bus.worker(), play))
        try:
            return run, await run_experiment(run, experiment, bus.coordinator(), sink, Clock())
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    return run


def frames(count, *, outcome=Outcome.ACCEPTED, read_back=False):
    key = Key(0, 0, Purpose.POPULATION, 0, "0" * 64, 0)
    return events.ResultTaken(
        outcome, ResultReport(Episode(key, 1.0, 1, count), "w", "", {}), read_back
    )


async def test_a_finished_search_is_seen_as_its_outcomes_and_its_history_say(
    make_experiment, search
):
    tracker = ProgressTracker(Clock(), repeats=2, wall_clock=lambda: 1e9)
    run, outcomes = await search(make_experiment(repeats=2), tracker)
    seen = tracker.snapshot()

    best = outcomes.best
    assert (seen.generation, seen.frames) == (outcomes.generation, outcomes.frames)
    assert (seen.best.fitness, seen.best.generation, seen.best.digest, seen.best.repeat) == (
        best.mean,
        best.generation,
        best.genome.digest,
        outcomes.chosen,
    )
    rows = [run.repeat(repeat).history() for repeat in (0, 1)]
    assert seen.evaluations == sum(row["evaluations"] for each in rows for row in each)
    assert seen.failed == sum(row["failed"] for each in rows for row in each) > 0
    last = rows[outcomes.chosen][-1]
    assert seen.population.median == last["fitness"]["median"]
    assert seen.elite.digest == last["elite"]["genome"]
    test = final_test(run, outcomes.chosen, best)
    assert seen.final_test == (test["mean"], test["episodes"])
    assert seen.checkpoint.generation == 2
    assert seen.checkpoint.saved_at == 1e9
    assert math.isclose(seen.running_seconds, outcomes.running_seconds)
    assert (seen.open_tasks, seen.eta_seconds) == (0, 0.0)
    assert {view.stop for view in seen.repeats} == {Stop.MAX_GENERATIONS}


async def test_a_new_process_starts_from_what_the_one_before_had_counted(make_experiment, search):
    experiment, before = make_experiment(budget={"maxGenerations": 6}), ProgressTracker(Clock())

    def sink(event):
        before(event)
        if isinstance(event, events.GenerationFinished) and event.finished.generation == 3:
            raise Died

    with pytest.raises(Died):
        await search(experiment, sink)
    at_start = []
    after = ProgressTracker(Clock())

    def other_sink(event):
        after(event)
        if isinstance(event, events.Resumed):
            at_start.append(after.snapshot())

    run, _ = await search(experiment, other_sink)
    old, new = before.snapshot(), at_start[0]
    for name in ("generation", "frames", "evaluations", "failed", "best", "elite", "population"):
        assert getattr(new, name) == getattr(old, name), name
    assert (new.checkpoint.generation, new.checkpoint.bytes) == (3, old.checkpoint.bytes)
    rows = run.repeat(0).history()
    assert after.snapshot().evaluations == sum(row["evaluations"] for row in rows)


async def test_open_tasks_are_what_workers_could_do_now(make_experiment, search):
    tracker, told = ProgressTracker(Clock()), []

    def sink(event):
        tracker(event)
        told.append((type(event), tracker.open_tasks))

    await search(make_experiment(), sink)
    assert told[0] == (events.Describing, 1)
    assert told[1] == (events.Described, 0)
    assert told[2] == (events.Progress, 6)
    assert told[-1] == (events.Ended, 0)


def test_before_anything_happened_there_is_nothing_to_say():
    seen = ProgressTracker(Hand(), repeats=3, limits=lambda: Limits(max_generations=5)).snapshot()
    assert (seen.generation, seen.frames, seen.open_tasks) == (-1, 0, 0)
    assert (seen.best, seen.eta_seconds, seen.checkpoint) == (None, None, None)
    assert len(seen.repeats) == 3


def test_frames_per_second_are_those_of_the_last_minute():
    clock = Hand()
    tracker = ProgressTracker(clock)
    tracker(DESCRIBED)
    tracker(frames(10_000, read_back=True))
    tracker(frames(10_000, outcome=Outcome.DUPLICATE))
    for _ in range(10):
        clock.now += 1
        tracker(frames(100))
        tracker(frames(100))
    assert tracker.snapshot().frames_per_second == 200
    clock.now += 30
    assert tracker.snapshot().frames_per_second == 2000 / 40
    clock.now += 40
    assert tracker.snapshot().frames_per_second == 0


def test_a_search_that_ended_has_no_speed_no_demand_and_no_running_time():
    clock = Hand()
    tracker = ProgressTracker(clock)
    tracker(DESCRIBED)
    tracker(events.Progress(0, 0, 2, 8, open=6))
    tracker(frames(100))
    clock.now += 7
    assert (tracker.open_tasks, tracker.snapshot().running_seconds) == (6, 7.0)
    tracker(events.Ended())
    clock.now += 50
    seen = tracker.snapshot()
    assert (seen.open_tasks, seen.frames_per_second, seen.running_seconds) == (0, 0.0, 7.0)


@pytest.mark.parametrize(
    ("limits", "eta"),
    [
        (Limits(), None),
        (Limits(target_fitness=9.0), None),
        (Limits(max_generations=6), 40.0 - 2),
        (Limits(max_generations=4, max_wall_clock_seconds=60), 20 - 2.0),
        (Limits(max_generations=400, max_wall_clock_seconds=60), 60 - 22.0),
        (Limits(max_generations=1), 0.0),
    ],
    ids=str,
)
async def test_the_time_of_arrival_is_that_of_the_first_limit(make_experiment, search, limits, eta):
    """Two generations took 10 s each, and 2 s of the third have passed."""
    finished = []
    await search(
        make_experiment(),
        lambda e: finished.append(e.finished) if isinstance(e, events.GenerationFinished) else None,
    )
    clock = Hand()
    tracker = ProgressTracker(clock, limits=lambda: limits)
    tracker(DESCRIBED)
    for done in finished[:2]:
        slow = replace(done, running_seconds=10.0 * (done.generation + 1))
        tracker(events.GenerationFinished(slow, 10.0, 1))
    clock.now += 2
    assert tracker.snapshot().eta_seconds == eta
