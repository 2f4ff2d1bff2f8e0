"""The loop over the shipped fake broker and a real directory: what it keeps, asks again, survives."""

import asyncio
import random

import pytest

from kubevo_core import messages, names
from kubevo_core.errors import BrokerFull, BusUnavailable, EnvironmentRefused, Poisoned
from kubevo_core.evaluation import Demand, Episode, Key
from kubevo_core.genome import parse
from kubevo_core.messages import DescribeAnswer, Description, FailureReport, ResultReport
from kubevo_core.seeding import Purpose
from kubevo_runtime import events
from kubevo_runtime.bus import QueueMissing
from kubevo_runtime.experiment import run_experiment
from kubevo_runtime.store import create_run, open_run
from kubevo_runtime.testing import FakeBus

DESCRIPTION = Description("mlp-4-16-2", "numpy", "4 numbers", "2 actions", {"backend": "numpy"})
UID = "1a2b3c4d-0000-4000-8000-000000000000"


class Killed(Exception):
    """Stands for the end of the driver's process on the very line that told the sink."""


class Clock:
    """Time goes on by the same step each time somebody looks."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


async def work(bus, play, name="w0", *, die_after=None, rng=None, refuse=None):
    """Be a worker: pull, play synthetically, publish, acknowledge."""
    done = 0
    while die_after is None or done < die_after:
        await asyncio.sleep(0)  # everybody gets a turn, also when a task is always there
        try:
            held = await bus.pull(5)
        except QueueMissing:
            held = None
        if held is None:
            await asyncio.sleep(0)
            continue
        task = messages.decode_task(held.body)
        if isinstance(task, str):
            answer = DescribeAnswer(None if refuse else DESCRIPTION, refuse)
            await bus.put_result(held.episode, messages.encode_describe_answer(answer))
            await held.ack()
            continue
        if isinstance(task.base, int):
            base = parse(f"kubevo-1:{task.network}:{task.base}")
        else:
            text = await bus.get_blob(task.base)
            if text is None:  # a new coordinator puts it there again
                await held.nak()
                continue
            base = parse(text.decode())
        outcome = play(Demand(task.key, base, task.mutation, task.episode_seed))
        if isinstance(outcome, FailureReport):
            await bus.put_failure(held.episode, messages.encode_failure(outcome))
            await held.nak()
            continue
        report = ResultReport(outcome, name, task.context, {"decode": 0.0, "play": 0.1})
        await bus.put_result(held.episode, messages.encode_result(report))
        if rng is None or rng.random() < 0.8:  # else die between result and acknowledgement
            await held.ack()
        done += 1


async def run(tmp_path, experiment, broker, *workers, stop_when=None, clock_step=0.01):
    try:
        directory = open_run(next(tmp_path.glob("local/*")))
    except StopIteration:
        directory = create_run(tmp_path, "local", "test", UID, experiment.document())
    directory.claim()
    seen = []

    def sink(event):
        seen.append(event)
        if stop_when is not None and stop_when(event):
            raise Killed

    search = asyncio.create_task(
        run_experiment(directory, experiment, broker.coordinator(), sink, Clock(clock_step))
    )
    helpers = [asyncio.create_task(worker) for worker in workers]
    try:
        return await search, seen
    except Killed:
        return None, seen
    finally:
        for task in (search, *helpers):
            task.cancel()
        await asyncio.gather(search, *helpers, return_exceptions=True)


def digests(outcomes):
    return [(state.finished.digests, state.stop) for state in outcomes.states]


async def reference(tmp_path, experiment, play):
    broker = FakeBus()
    outcomes, _ = await run(tmp_path / "reference", experiment, broker, work(broker.worker(), play))
    return digests(outcomes)


def finished(seen):
    return [
        (e.finished.repeat, e.finished.generation)
        for e in seen
        if isinstance(e, events.GenerationFinished)
    ]


async def test_a_run_ends_with_its_checkpoints_history_and_final_test(
    tmp_path, make_experiment, synthetic_play
):
    broker = FakeBus()
    outcomes, seen = await run(
        tmp_path, make_experiment(), broker, work(broker.worker(), synthetic_play())
    )
    store = open_run(next(tmp_path.glob("local/*"))).repeat(0)
    assert [row["generation"] for row in store.history()] == [0, 1, 2]
    assert store.latest().generation == 2
    assert [row["purpose"] for row in store.tests()] == ["final"]
    assert len(store.tests()[0]["episodeReturns"]) == 3
    assert finished(seen) == [(0, 0), (0, 1), (0, 2)]
    assert [type(event) for event in seen[:2]] == [events.Describing, events.Described]
    assert [type(event) for event in seen[-2:]] == [events.Stopped, events.Ended]
    assert outcomes.states[0].finished.digests[-1] == store.history()[-1]["generationDigest"]


async def test_the_checkpoint_is_durable_before_anyone_hears_of_the_generation(
    tmp_path, make_experiment, synthetic_play
):
    broker, order = FakeBus(), []

    def heard(event):
        if isinstance(event, events.GenerationFinished):
            store = open_run(next(tmp_path.glob("local/*"))).repeat(0)
            order.append((event.finished.generation, store.latest().generation))
            tasks = [name for name in broker.tasks if f"g{event.finished.generation}." in name]
            assert not tasks or "validation" not in tasks[0]
        return False

    await run(
        tmp_path,
        make_experiment(),
        broker,
        work(broker.worker(), synthetic_play()),
        stop_when=heard,
    )
    assert order == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("repeats", [1, 2])
async def test_any_number_of_careless_workers_gives_the_same_bytes(
    tmp_path, make_experiment, synthetic_play, repeats
):
    experiment, play = make_experiment(repeats=repeats), synthetic_play()
    expected = await reference(tmp_path, experiment, play)
    broker, rng = FakeBus(), random.Random(5)
    workers = [work(broker.worker(), play, f"w{n}", rng=rng) for n in range(4)]

    async def leases_end():
        while True:
            await asyncio.sleep(0.01)
            broker.advance(25)

    outcomes, _ = await run(tmp_path, experiment, broker, *workers, leases_end())
    assert digests(outcomes) == expected


@pytest.mark.parametrize("kept", [True, False], ids=["broker kept", "broker lost its store"])
async def test_a_driver_that_dies_anywhere_goes_on_to_the_same_bytes(
    tmp_path, make_experiment, synthetic_play, kept
):
    experiment, play = make_experiment(budget={"maxGenerations": 4}), synthetic_play()
    expected = await reference(tmp_path, experiment, play)
    broker, rng, kills, known = FakeBus(), random.Random(7), 0, set()
    for _ in range(60):
        count, known = rng.randrange(1, 30 if kept else 90), set(known)

        def enough(event, known=known):
            nonlocal count
            key = event.report.episode.key if isinstance(event, events.ResultTaken) else id(event)
            count -= not kept or key not in known  # what is read back is no progress
            known.add(key)
            return count <= 0

        outcomes, _ = await run(
            tmp_path, experiment, broker, work(broker.worker(), play), stop_when=enough
        )
        if outcomes is not None:
            break
        kills += 1
        broker.advance(25)
        if not kept:
            broker.lose_store()
    assert kills >= 3
    assert digests(outcomes) == expected


async def test_a_finished_run_is_not_played_again(tmp_path, make_experiment, synthetic_play):
    broker, play, played = FakeBus(), synthetic_play(), []

    def counted(demand):
        played.append(demand.key)
        return play(demand)

    first, _ = await run(tmp_path, make_experiment(), broker, work(broker.worker(), counted))
    count = len(played)
    again, seen = await run(tmp_path, make_experiment(), broker, work(broker.worker(), counted))
    assert digests(again) == digests(first)
    assert len(played) == count
    assert finished(seen) == []


async def test_a_raised_budget_goes_on_where_the_run_stopped(
    tmp_path, make_experiment, synthetic_play
):
    larger = make_experiment(budget={"maxGenerations": 5})
    expected = await reference(tmp_path, larger, synthetic_play())
    broker = FakeBus()
    await run(tmp_path, make_experiment(), broker, work(broker.worker(), synthetic_play()))
    outcomes, seen = await run(tmp_path, larger, broker, work(broker.worker(), synthetic_play()))
    assert digests(outcomes) == expected
    assert finished(seen) == [(0, 3), (0, 4)]


async def test_the_broker_holds_nothing_of_finished_generations(
    tmp_path, make_experiment, synthetic_play
):
    broker = FakeBus()
    await run(tmp_path, make_experiment(), broker, work(broker.worker(), synthetic_play()))
    assert [name for name in broker.results if not name.startswith("describe")] == []
    assert broker.tasks == {}
    assert len([key for key in broker.blobs if len(key) == 64]) <= 2


async def test_a_refusal_is_the_users_error(tmp_path, make_experiment, synthetic_play):
    broker = FakeBus()
    with pytest.raises(EnvironmentRefused, match="no such game"):
        await run(
            tmp_path,
            make_experiment(),
            broker,
            work(broker.worker(), synthetic_play(), refuse="no such game"),
        )


def raising(play, bad_slot=2):
    """Return an evaluation whose environment raises for one individual of generation 0."""

    def outcome(demand, name="w0"):
        key = demand.key
        if (key.generation, key.slot, key.purpose) == (0, bad_slot, Purpose.POPULATION):
            return FailureReport(key, "ValueError", "broken physics", 12, 3, name)
        return play(demand)

    return outcome


async def test_a_failure_that_two_workers_report_becomes_a_result(
    tmp_path, make_experiment, synthetic_play
):
    broker, play = FakeBus(), raising(synthetic_play())
    workers = [work(broker.worker(), lambda d, n=name: play(d, n), name) for name in ("w0", "w1")]
    _, seen = await run(tmp_path, make_experiment(), broker, *workers)
    history = open_run(next(tmp_path.glob("local/*"))).repeat(0).history()
    assert history[0]["failed"] == 1
    failed = [
        e.report.episode
        for e in seen
        if isinstance(e, events.ResultTaken) and e.report.episode.failure
    ]
    assert failed[0] == Episode(failed[0].key, None, 3, 12, "ValueError: broken physics")


async def test_one_bad_worker_writes_no_history(tmp_path, make_experiment, synthetic_play):
    experiment = make_experiment()
    expected = await reference(tmp_path, experiment, synthetic_play())
    broker = FakeBus()
    bad = work(
        broker.worker(), lambda d: FailureReport(d.key, "OSError", "disk", 0, 0, "bad"), "bad"
    )
    good = work(broker.worker(), synthetic_play(), "good")
    outcomes, seen = await run(tmp_path, experiment, broker, bad, good)
    assert digests(outcomes) == expected
    assert any(isinstance(e, events.Fault) and e.kind == "environment_exception" for e in seen)


def dying(bus, play):
    """Be a worker that plays all but one individual, of which it dies."""

    async def run_():
        while True:
            try:
                held = await bus.pull(5)
            except QueueMissing:
                held = None
            if held is None:
                await asyncio.sleep(0)
                continue
            if "g0.population.s1." in held.episode:
                await held.nak()
                continue
            task = messages.decode_task(held.body)
            if isinstance(task, str):
                answer = messages.encode_describe_answer(DescribeAnswer(DESCRIPTION, None))
                await bus.put_result(held.episode, answer)
            else:
                base = (
                    parse((await bus.get_blob(task.base)).decode())
                    if isinstance(task.base, str)
                    else parse(f"kubevo-1:{task.network}:{task.base}")
                )
                demand = Demand(task.key, base, task.mutation, task.episode_seed)
                report = ResultReport(play(demand), "w", task.context, {})
                await bus.put_result(held.episode, messages.encode_result(report))
            await held.ack()

    return run_()


async def test_an_evaluation_that_kills_every_worker_stops_the_run_resumable(
    tmp_path, make_experiment, synthetic_play
):
    broker = FakeBus(max_deliver=3)
    with pytest.raises(Poisoned, match=r"episode r0\.g0\.population\.s1\..*onPoison: Score"):
        await run(
            tmp_path,
            make_experiment(),
            broker,
            dying(broker.worker(), synthetic_play()),
            clock_step=5.0,
        )
    expected = await reference(tmp_path, make_experiment(), synthetic_play())
    broker.advance(25)
    outcomes, _ = await run(
        tmp_path, make_experiment(), broker, work(broker.worker(), synthetic_play()), clock_step=5.0
    )
    assert digests(outcomes) == expected


async def test_poison_may_be_scored_as_failed(tmp_path, make_experiment, synthetic_play):
    broker = FakeBus(max_deliver=3)
    experiment = make_experiment(failurePolicy={"onPoison": "Score"})
    await run(
        tmp_path, experiment, broker, dying(broker.worker(), synthetic_play()), clock_step=5.0
    )
    row = open_run(next(tmp_path.glob("local/*"))).repeat(0).history()[0]
    assert row["failed"] == 1


async def test_garbage_on_the_broker_is_counted_and_left_alone(
    tmp_path, make_experiment, synthetic_play
):
    broker = FakeBus()
    await broker.coordinator().ensure()
    key = Key(0, 0, Purpose.POPULATION, 0, "0" * 64, 0)
    await broker.worker().put_result(names.episode_subject(key), b"{not json")
    stranger = ResultReport(Episode(key, 1e9, 1, 1), "x", "c", {})
    subject = names.episode_subject(key._replace(slot=1))
    await broker.worker().put_result(subject, messages.encode_result(stranger))
    outcomes, seen = await run(
        tmp_path, make_experiment(), broker, work(broker.worker(), synthetic_play())
    )
    assert digests(outcomes) == await reference(tmp_path, make_experiment(), synthetic_play())
    assert next(e.kind for e in seen if isinstance(e, events.Fault)) == "unreadable_result"


async def test_a_stream_that_is_filled_with_what_is_no_result_is_told_and_emptied(
    tmp_path, make_experiment, synthetic_play
):
    broker, play = FakeBus(), synthetic_play()

    def flood(event):
        if isinstance(event, events.GenerationFinished):
            for number in range(200):
                broker.store_result(f"junk.{number}", b"x")
            broker.most_results = 200
        return False

    with pytest.raises(BrokerFull, match="stream of results on the broker is full"):
        await run(
            tmp_path,
            make_experiment(),
            broker,
            patient(broker.worker(), play),
            stop_when=flood,
            clock_step=5.0,
        )
    assert not broker.has_room
    outcomes, seen = await run(tmp_path, make_experiment(), broker, work(broker.worker(), play))
    assert digests(outcomes) == await reference(tmp_path, make_experiment(), play)
    assert finished(seen)[0] == (0, 1)  # what was saved before stays


async def patient(bus, play):
    """Be a worker that waits for room, as the real one does by its connection."""
    while True:
        try:
            await work(bus, play)
        except BusUnavailable:
            await asyncio.sleep(0)
