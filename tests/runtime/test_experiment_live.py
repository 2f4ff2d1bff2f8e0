"""What a host may do while a search runs: edit its live fields, and cancel it anywhere."""

import asyncio
import inspect
import random

import pytest

from kubevo_core import messages, names
from kubevo_core.errors import Poisoned
from kubevo_core.evaluation import Key
from kubevo_core.generation import Limits, Stop, ask, start
from kubevo_core.messages import FailureReport
from kubevo_core.seeding import Purpose
from kubevo_runtime import events
from kubevo_runtime.experiment import can_go_on, run_experiment
from kubevo_runtime.outcomes import final_test
from kubevo_runtime.publisher import Bases, Confirmations, Publisher
from kubevo_runtime.store import create_run
from kubevo_runtime.store_files import DiskFiles
from kubevo_runtime.testing import FakeBus
from kubevo_runtime.threads import to_the_end

UID = "1a2b3c4d-0000-4000-8000-000000000000"


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 0.01
        return self.now


@pytest.fixture
def host(tmp_path, synthetic_play, synthetic_worker):
    """Return a host of one Experiment in ``tmp_path``; ``edit`` sees each event first."""

    async def run(experiment, *, live=None, edit=None, seen=None, folder="run"):
        run = create_run(tmp_path / folder, "lab", "test", UID, experiment.document())
        run.claim()
        bus = FakeBus()

        def sink(event):
            if seen is not None:
                seen.append(event)
            if edit is not None:
                edit(event)

        worker = asyncio.create_task(synthetic_worker(bus.worker(), synthetic_play()))
        try:
            outcomes = await run_experiment(
                run, experiment, bus.coordinator(), sink, Clock(), live=live
            )
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        return run, outcomes

    return run


def digests(outcomes):
    return outcomes.population_digest, outcomes.result_digest, outcomes.reason


def generations(seen, repeat=0):
    done = [e.finished for e in seen if isinstance(e, events.GenerationFinished)]
    return [each.generation for each in done if each.repeat == repeat]


class Edited:
    """A spec that is replaced once a generation has finished."""

    def __init__(self, experiment, later, *, after, repeat=0):
        self.spec, self._later, self._after = experiment.spec, later.spec, (repeat, after)

    def __call__(self, event):
        if isinstance(event, events.GenerationFinished):
            done = event.finished
            if (done.repeat, done.generation) == self._after:
                self.spec = self._later


# --- live fields ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(2, 6), (9, 6)], ids=["raised", "lowered"])
async def test_an_edited_budget_gives_the_bytes_of_one_that_was_so_from_the_start(
    make_experiment, host, before, after
):
    wanted = make_experiment(budget={"maxGenerations": after})
    _, expected = await host(wanted, folder="reference")
    experiment = make_experiment(budget={"maxGenerations": before})
    edited, seen = Edited(experiment, wanted, after=0), []
    _, outcomes = await host(experiment, live=lambda: edited.spec, edit=edited, seen=seen)
    assert digests(outcomes) == digests(expected)
    assert generations(seen) == list(range(6))


async def test_a_budget_below_what_is_done_stops_when_the_running_generation_finishes(
    make_experiment, host
):
    experiment = make_experiment(budget={"maxGenerations": 9})
    edited = Edited(experiment, make_experiment(budget={"maxGenerations": 1}), after=3)
    _, outcomes = await host(experiment, live=lambda: edited.spec, edit=edited)
    assert (outcomes.generation, outcomes.reason) == (4, Stop.MAX_GENERATIONS)


async def test_a_target_may_be_set_while_the_search_runs(make_experiment, host):
    experiment = make_experiment(budget={"maxGenerations": 9})
    later = make_experiment(budget={"maxGenerations": 9, "targetFitness": "-1"})
    edited = Edited(experiment, later, after=1)
    _, outcomes = await host(experiment, live=lambda: edited.spec, edit=edited)
    assert (outcomes.generation, outcomes.reason) == (2, Stop.TARGET_FITNESS)


async def test_a_repeat_that_had_stopped_goes_on_when_the_budget_is_raised(make_experiment, host):
    """One repeat meets the target early; then the target goes, while the other still runs."""
    budgets = {"targetFitness": "75", "maxGenerations": 6}
    wanted = make_experiment(repeats=2, budget={"maxGenerations": 6})
    _, expected = await host(wanted, folder="reference")
    experiment, seen = make_experiment(repeats=2, budget=budgets), []

    def stopped():
        return [event.stop for event in seen if isinstance(event, events.Stopped)]

    _, outcomes = await host(
        experiment, live=lambda: (wanted if stopped() else experiment).spec, seen=seen
    )
    assert stopped()[0] is Stop.TARGET_FITNESS
    assert digests(outcomes) == digests(expected)
    for repeat in (0, 1):
        assert generations(seen, repeat) == list(range(6))


async def test_which_checkpoints_are_kept_may_change_while_the_search_runs(make_experiment, host):
    experiment = make_experiment(budget={"maxGenerations": 8}, checkpoint={"keepLast": 1})
    later = make_experiment(budget={"maxGenerations": 8}, checkpoint={"keepLast": 100})
    edited = Edited(experiment, later, after=3)
    run, _ = await host(experiment, live=lambda: edited.spec, edit=edited)
    assert set(range(3, 8)) <= set(run.repeat(0).generations())
    assert len(run.repeat(0).generations()) <= 6  # and the best of before


async def test_whether_a_finished_run_can_go_on_is_told_from_its_directory(make_experiment, host):
    experiment = make_experiment(repeats=2)
    run, outcomes = await host(experiment)
    assert not can_go_on(run, experiment.spec)
    assert not can_go_on(run, make_experiment(repeats=2, budget={"maxFrames": 1}).spec)
    assert can_go_on(run, make_experiment(repeats=2, budget={"maxGenerations": 4}).spec)
    assert final_test(run, outcomes.chosen, outcomes.best)["episodes"] == 3


# --- cancelled anywhere ---------------------------------------------------------------------------


class Points:
    """Counts the places at which a cancellation may hit, and cancels at one of them."""

    def __init__(self, loop):
        self._loop, self._left, self._task = loop, -1, None

    def arm(self, task, left):
        self._task, self._left = task, left

    def pass_one(self, *, threaded=False):
        self._left -= 1
        if self._left == 0 and threaded:
            self._loop.call_soon_threadsafe(self._task.cancel)
        elif self._left == 0:
            self._task.cancel()


class CancelledFiles(DiskFiles):
    """The real files; each change of the disk is a place to cancel at."""

    def __init__(self, points):
        self._points = points

    def write(self, handle, content, offset):
        self._points.pass_one(threaded=True)
        super().write(handle, content, offset)

    def rename(self, source, target):
        self._points.pass_one(threaded=True)
        super().rename(source, target)


def cancelled_bus(bus, points):
    """Return the coordinator's view of ``bus``; each call is a place to cancel at."""

    class Coordinator:
        def __getattr__(self, name):
            method = getattr(bus.coordinator(), name)
            if not inspect.iscoroutinefunction(method):
                return method

            async def call(*arguments, **keywords):
                points.pass_one()
                await asyncio.sleep(0)  # here a cancellation arrives, before the call has an effect
                answer = await method(*arguments, **keywords)
                points.pass_one()
                await asyncio.sleep(0)
                return answer

            return call

    return Coordinator()


@pytest.mark.parametrize("seed", range(6))
async def test_a_search_cancelled_anywhere_and_called_again_gives_the_same_bytes(
    tmp_path, make_experiment, synthetic_play, synthetic_worker, host, seed
):
    experiment = make_experiment(repeats=2, budget={"maxGenerations": 3})
    reference, expected = await host(experiment, folder="reference")
    points, rng = Points(asyncio.get_running_loop()), random.Random(seed)
    run = create_run(
        tmp_path, "lab", "test", UID, experiment.document(), files=CancelledFiles(points)
    )
    run.claim()
    bus, cancelled, outcomes = FakeBus(), 0, None
    worker = asyncio.create_task(synthetic_worker(bus.worker(), synthetic_play()))
    try:
        while outcomes is None:
            search = asyncio.create_task(
                run_experiment(
                    run,
                    experiment,
                    cancelled_bus(bus, points),
                    lambda event: points.pass_one(),
                    Clock(),
                )
            )
            points.arm(search, rng.randrange(1, 60 + 4 * cancelled))
            try:
                outcomes = await search
            except asyncio.CancelledError:
                cancelled += 1
                bus.advance(25)
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    assert cancelled >= 10
    assert digests(outcomes) == digests(expected)
    for repeat in (0, 1):
        store, other = run.repeat(repeat), reference.repeat(repeat)
        assert [r["generationDigest"] for r in store.history()] == [
            r["generationDigest"] for r in other.history()
        ]
        assert store.tests() == other.tests()


async def test_a_cancelled_write_ends_before_its_caller_does():
    loop, begun, done = asyncio.get_running_loop(), asyncio.Event(), []
    let_go = asyncio.Event()

    def work():
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(let_go.wait(), loop).result()
        done.append("written")

    task = asyncio.create_task(to_the_end(work))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["written"]


# --- poison ---------------------------------------------------------------------------------------


async def die_of_it(bus, publisher, demand):
    """Let every worker that takes the demand die, until the publisher has had enough."""
    while True:
        held = await bus.worker().pull(1)
        await held.nak()
        await publisher.recover([demand], "Fail")


async def test_poison_names_genome_episode_last_worker_and_where_the_logs_are(
    make_settings, synthetic_play
):
    bus, demand = FakeBus(max_deliver=1), ask(start(make_settings()), Limits())[0]
    subject = names.episode_subject(demand.key)
    for worker in (None, "pod-7"):
        publisher = Publisher(
            bus.coordinator(),
            "context",
            lambda event: None,
            repeat=0,
            bases=Bases(bus.coordinator()),
            logs="kubectl logs -l app=x",
            last_worker=lambda key, worker=worker: worker,
        )
        await publisher.publish([demand])
        with pytest.raises(Poisoned, match="look at kubectl logs -l app=x, then") as caught:
            await die_of_it(bus, publisher, demand)
        error = caught.value
        assert (error.genome, error.episode, error.worker) == (demand.key.digest, subject, worker)
        assert demand.key.digest in str(error)
        assert ("the last that is known was pod-7" in str(error)) == (worker == "pod-7")
        await bus.coordinator().purge_task(subject)


async def test_the_last_worker_is_the_one_that_reported_the_episode_last():
    reported, key = Confirmations(), Key(0, 0, Purpose.POPULATION, 1, "0" * 64, 0)
    assert reported.last_worker(key) is None
    for worker in ("w1", "w2"):
        report = FailureReport(key, "ValueError", worker, 1, 1, worker)
        reported.confirm(messages.decode_failure(messages.encode_failure(report)))
    assert reported.last_worker(key) == "w2"
