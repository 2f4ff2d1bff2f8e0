"""Recordings beside a search, over the broker in memory: when, what is kept, what they may not do."""

import asyncio
import hashlib

import pytest

from kubevo_core import messages, recordings
from kubevo_core.evaluation import Demand, Key
from kubevo_core.genome import parse
from kubevo_core.messages import DescribeAnswer, Description, ResultReport
from kubevo_core.seeding import Purpose, derive
from kubevo_runtime import events
from kubevo_runtime import recordings as beside
from kubevo_runtime.bus import QueueMissing
from kubevo_runtime.experiment import run_experiment
from kubevo_runtime.store import create_run, open_run
from kubevo_runtime.testing import FakeBus

DESCRIPTION = Description("mlp-4-16-2", "numpy", "4 numbers", "2 actions", {"backend": "numpy"})
UID = "1a2b3c4d-0000-4000-8000-000000000000"


class Killed(Exception):
    """Stands for the end of the driver's process."""


async def film(bus, held, task):
    """Record as an evaluator does: a video that names its episode, in two parts."""
    content = f"video {task.key.generation} {task.key.digest} {task.episode_seed}".encode()
    name = hashlib.sha256(content).hexdigest()[:32]
    await bus.put_recording_part(name, 0, content[:5])
    await bus.put_recording_part(name, 1, content[5:])
    return recordings.Video(name, len(content), hashlib.sha256(content).hexdigest(), 9)


async def work(bus, play, record, seen=None):
    """Be a worker; ``record`` gives a recording's video, the text of a failure, or None for none."""
    while True:
        await asyncio.sleep(0)
        try:
            held = await bus.pull(5)
        except QueueMissing:
            continue
        if held is None:
            continue
        task = messages.decode_task(held.body)
        if isinstance(task, str):
            answer = DescribeAnswer(DESCRIPTION, None)
            await bus.put_result(held.episode, messages.encode_describe_answer(answer))
        elif task.key.purpose is Purpose.RECORD:
            if seen is not None:
                seen.append(task.key.generation)
            assert isinstance(task.base, int) or await bus.get_blob(task.base) is not None
            made = await record(bus, held, task)
            if made is None:
                continue
            body = made
            if not isinstance(made, bytes):
                failed = isinstance(made, str)
                answer = recordings.Answer(None if failed else made, made if failed else None, "w")
                body = recordings.encode_answer(answer)
            await bus.put_result(held.episode, body)
        else:
            text = f"kubevo-1:{task.network}:{task.base}".encode()
            if not isinstance(task.base, int):
                text = await bus.get_blob(task.base)
            if text is None:  # a new coordinator puts it there again
                await held.nak()
                continue
            demand = Demand(task.key, parse(text.decode()), task.mutation, task.episode_seed)
            report = ResultReport(play(demand), "w", task.context, {})
            await bus.put_result(held.episode, messages.encode_result(report))
        await held.ack()


async def run(tmp_path, experiment, broker, worker, stop_when=None):
    try:
        directory = open_run(next(tmp_path.glob("local/*")))
        directory.replace_experiment(experiment.document())
    except StopIteration:
        directory = create_run(tmp_path, "local", "test", UID, experiment.document())
    directory.claim()
    heard = []

    def sink(event):
        heard.append(event)
        if stop_when is not None and stop_when(event):
            raise Killed

    search = asyncio.create_task(
        run_experiment(directory, experiment, broker.coordinator(), sink, lambda: 0.0)
    )
    helper = asyncio.create_task(worker)
    try:
        await asyncio.wait({search, helper}, return_when=asyncio.FIRST_COMPLETED)
        if not search.done():
            helper.result()
        return await search, heard, directory.repeat(0)
    except Killed:
        return None, heard, directory.repeat(0)
    finally:
        for task in (search, helper):
            task.cancel()
        await asyncio.gather(search, helper, return_exceptions=True)


@pytest.fixture
def experiment(make_experiment):
    def make(every, generations=6, **spec):
        return make_experiment(
            recording={"everyGenerations": every}, budget={"maxGenerations": generations}, **spec
        )

    return make


@pytest.fixture
async def plain(tmp_path, experiment, synthetic_play):
    broker = FakeBus()
    outcomes, _, store = await run(
        tmp_path / "plain", experiment(0), broker, work(broker.worker(), synthetic_play(), None)
    )
    assert not (store.path / "videos").exists()
    assert broker.recordings is None
    return outcomes.states[0].finished


def faults(heard):
    return [e.message for e in heard if isinstance(e, events.Fault) and e.kind == "recording"]


async def test_due_elites_and_the_best_are_recorded_and_the_search_is_the_same(
    tmp_path, experiment, synthetic_play, plain
):
    broker = FakeBus()
    outcomes, heard, store = await run(
        tmp_path, experiment(2), broker, work(broker.worker(), synthetic_play(), film)
    )
    done = outcomes.states[0].finished
    assert done.digests == plain.digests
    assert sorted(store.videos()) == sorted({1, 3, 5, done.best.generation})
    best, seed = done.best.generation, experiment(2).spec.seed
    text = f"video {best} {done.best.genome.digest} {derive(seed, Purpose.RECORD, 0, best)}"
    assert store.videos()[best].read_text() == text
    assert {e.generation for e in heard if isinstance(e, events.Recorded)} == set(store.videos())
    assert faults(heard) == []
    assert [type(event) for event in heard[-2:]] == [events.Stopped, events.Ended]
    assert not [name for name in (*broker.results, *broker.tasks) if name.startswith("record")]
    assert broker.recordings == {}


async def _raise(bus, held, task):
    return "no renderer"


async def _garbage(bus, held, task):
    return b"garbage"


async def _damaged(bus, held, task):
    video = await film(bus, held, task)
    return recordings.Video(video.object, video.size, "0" * 64, video.pictures)


async def _gone(bus, held, task):
    return recordings.Video("0" * 32, 100, "0" * 64, 5)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (_raise, "no renderer"),
        (_garbage, "cannot be read"),
        (_damaged, "another sha256"),
        (_gone, "were gone before"),
    ],
)
async def test_a_recording_that_fails_is_a_fault_and_changes_nothing(
    tmp_path, experiment, synthetic_play, plain, record, reason
):
    broker = FakeBus()
    outcomes, heard, store = await run(
        tmp_path, experiment(6), broker, work(broker.worker(), synthetic_play(), record)
    )
    assert outcomes.states[0].finished.digests == plain.digests
    assert store.videos() == {}
    assert reason in faults(heard)[0]
    assert not [name for name in (*broker.results, *broker.tasks) if name.startswith("record")]


async def test_a_recording_that_nobody_answers_holds_the_end_for_a_bounded_time(
    tmp_path, experiment, synthetic_play, plain, monkeypatch
):
    monkeypatch.setattr(beside, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(beside, "LONGEST_FINISH_SECONDS", 0.6)
    monkeypatch.setattr(beside, "LOOK_SECONDS", 0.02)

    async def hangs(bus, held, task):
        await held.in_progress()

    broker = FakeBus()
    outcomes, heard, store = await run(
        tmp_path, experiment(6), broker, work(broker.worker(), synthetic_play(), hangs)
    )
    assert outcomes.states[0].finished.digests == plain.digests
    assert "no worker was done in time" in faults(heard)[0]
    assert store.videos() == {}


async def test_a_recording_that_used_up_its_deliveries_is_given_up(
    tmp_path, experiment, synthetic_play, plain
):
    async def dies(bus, held, task):
        await held.nak()

    broker = FakeBus(max_deliver=2)
    outcomes, heard, _ = await run(
        tmp_path, experiment(6), broker, work(broker.worker(), synthetic_play(), dies)
    )
    assert outcomes.states[0].finished.digests == plain.digests
    assert "used up its deliveries" in faults(heard)[0]


async def test_a_full_volume_of_videos_stops_nothing(tmp_path, experiment, synthetic_play, plain):
    async def films_much(bus, held, task):
        content = bytes(recordings.PART_BYTES) * 9
        for part in range(9):
            await bus.put_recording_part("ab" * 16, part, content[: recordings.PART_BYTES])
        digest = hashlib.sha256(content).hexdigest()
        return recordings.Video("ab" * 16, len(content), digest, 5)

    broker = FakeBus()
    small = experiment(2, checkpoint={"quotaMebibytes": 1})
    outcomes, heard, store = await run(
        tmp_path, small, broker, work(broker.worker(), synthetic_play(), films_much)
    )
    assert outcomes.states[0].finished.digests == plain.digests
    assert store.videos() == {}
    assert "the quota is 1,048,576" in faults(heard)[0]


async def test_only_the_loaded_generation_is_recorded_again_after_a_resume(
    tmp_path, experiment, synthetic_play, plain
):
    broker, first, again = FakeBus(), [], []

    async def never(bus, held, task):
        return None

    await run(
        tmp_path,
        experiment(2),
        broker,
        work(broker.worker(), synthetic_play(), never, first),
        stop_when=lambda e: isinstance(e, events.GenerationFinished) and e.finished.generation == 3,
    )
    broker.advance(60)
    outcomes, _, store = await run(
        tmp_path, experiment(2), broker, work(broker.worker(), synthetic_play(), film, again)
    )
    best = outcomes.states[0].finished.best.generation
    assert outcomes.states[0].finished.digests == plain.digests
    assert set(store.videos()) == {3, 5, best}
    before = len(again)
    await run(tmp_path, experiment(2), broker, work(broker.worker(), synthetic_play(), film, again))
    assert len(again) == before, "what has a video is not recorded again"


async def test_videos_beyond_the_newest_and_the_best_are_removed(
    tmp_path, experiment, synthetic_play, monkeypatch
):
    monkeypatch.setattr(recordings, "MOST_KEPT", 3)
    broker = FakeBus()
    outcomes, _, store = await run(
        tmp_path, experiment(1, 12), broker, work(broker.worker(), synthetic_play(), film)
    )
    best = outcomes.states[0].finished.best.generation
    assert len(store.videos()) == 3
    assert {11, best} <= set(store.videos())
    assert best >= 0


async def test_an_open_recording_counts_as_work_for_one_worker(
    tmp_path, experiment, synthetic_play
):
    broker = FakeBus()
    _, heard, _ = await run(
        tmp_path, experiment(6), broker, work(broker.worker(), synthetic_play(), film)
    )
    last = [event for event in heard if isinstance(event, events.Progress)][-1]
    assert last.open == 1


async def test_a_recordings_key_is_never_a_key_of_the_search():
    assert Purpose.RECORD not in {Purpose.POPULATION, Purpose.VALIDATION}
    assert Key(0, 0, Purpose.RECORD, 0, "d", 0) != Key(0, 0, Purpose.POPULATION, 0, "d", 0)
