"""An evaluator records: a video of bounded length and size, or a reason, and nothing else changes."""

import asyncio
import threading

import imageio_ffmpeg
import pytest
from threadpoolctl import threadpool_info

from kubevo_core import messages, names, recordings, spec
from kubevo_core.evaluation import Key
from kubevo_core.genome import Genome
from kubevo_core.messages import Context, Task
from kubevo_core.seeding import Purpose
from kubevo_evaluator import recorder, recording, worker
from kubevo_evaluator.description import describe
from kubevo_evaluator.evaluation import evaluate_genome
from kubevo_evaluator.recording import record
from kubevo_evaluator.settings import Settings
from kubevo_runtime.testing import FakeBus

GENOME = Genome("mlp-4-4-2", 7)
POLICY = {"network": "mlp", "hiddenLayers": [4], "backend": "numpy"}
CART = {"id": "CartPole-v1", "maxEpisodeSteps": 40}


@pytest.fixture
def cart(environment_spec):
    return environment_spec("CartPole-v1", maxEpisodeSteps=40)


def test_a_recording_is_an_mp4_of_one_picture_a_step(cart, tmp_path):
    made = record(GENOME, cart, "numpy", 3)
    assert made.failure is None
    assert made.content[4:8] == b"ftyp"
    (tmp_path / "video.mp4").write_bytes(made.content)
    pictures, _ = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "video.mp4"))
    assert pictures == made.pictures > 5


def test_a_long_episode_is_recorded_up_to_the_bound(cart, tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "MOST_SECONDS", 0.2)
    made = record(GENOME, cart, "numpy", 3)
    assert (made.pictures, made.failure) == (6, None)
    (tmp_path / "video.mp4").write_bytes(made.content)
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "video.mp4"))[0] == 6


def test_a_large_video_is_a_failure_with_its_size(cart, monkeypatch):
    monkeypatch.setattr(recordings, "MOST_BYTES", 100)
    made = record(GENOME, cart, "numpy", 3)
    assert made.content == b""
    assert "too large: expected at most 100 bytes" in made.failure


# imageio-ffmpeg leaves the pipe to an encoder that died to the garbage collector.
DEAD_PIPE = "ignore::pytest.PytestUnraisableExceptionWarning"


@pytest.mark.filterwarnings(DEAD_PIPE)
@pytest.mark.parametrize("program", ["/no/such/ffmpeg", "/bin/false"])
def test_without_a_working_encoder_it_is_a_failure(cart, monkeypatch, program):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", program)
    made = record(GENOME, cart, "numpy", 3)
    assert made.content == b""
    assert made.failure


def test_an_environment_without_pictures_is_a_failure(environment_spec, plugin):
    blind = environment_spec(f"{plugin}:KubevoShifted-v0")
    assert "picture" in record(Genome("mlp-13-4-2", 7), blind, "numpy", 3).failure


@pytest.mark.filterwarnings(DEAD_PIPE)
def test_nothing_is_left_in_the_temporary_folder(cart, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    record(GENOME, cart, "numpy", 3)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/bin/false")
    record(GENOME, cart, "numpy", 3)
    assert list(tmp_path.iterdir()) == []


class Rig:
    """A broker in memory with a pinned context, and one worker on it."""

    def __init__(self, **policy):
        policy = {**POLICY, **policy}
        self.fake = FakeBus()
        self.fake.is_made = True
        self.fake.recordings = {}
        described = describe(
            spec.Environment.model_validate(CART), spec.Policy.model_validate(policy)
        )
        self.context = Context(CART, policy, 3600, described)
        self.fake.blobs[self.context.digest] = self.context.encode()
        self.fake.blobs["context"] = self.context.digest.encode()

    def add(self, purpose, slot=0):
        genome = Genome("mlp-4-4-2", 7 + slot)
        key = Key(0, 0, purpose, slot, genome.digest, 0)
        task = Task(key, 11, genome.network, genome.init_seed, None, self.context.digest)
        subject = names.episode_subject(key)
        if purpose is Purpose.RECORD:
            subject = names.record_subject(key)
        assert self.fake.add_task(subject, messages.encode_task(task))
        return subject

    def start(self):
        settings = Settings("memory", "fake", worker="w0")
        made = worker.Worker(settings, self.fake.worker(), asyncio.Event())
        return asyncio.create_task(made.run())

    async def work(self):
        """Let a worker do all there is."""
        working = self.start()
        while self.fake.tasks:
            await asyncio.sleep(0.005)
            if working.done():
                working.result()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    def answer(self, subject):
        return recordings.decode_answer(self.fake.results[subject][1])


async def test_a_recording_task_becomes_a_video_in_parts_and_an_answer(monkeypatch):
    monkeypatch.setattr(recordings, "PART_BYTES", 1000)
    there = Rig()
    subject = there.add(Purpose.RECORD)
    await there.work()
    video = there.answer(subject).video
    parts = there.fake.recordings[video.object]
    assert list(parts) == list(range(len(parts)))
    assert len(parts) > 2
    assert max(map(len, parts.values())) == 1000
    content = await there.fake.coordinator().recording(video.object, video.size)
    assert content[4:8] == b"ftyp"
    assert there.fake.failures == []


async def test_a_recording_is_of_the_weights_that_the_search_plays(cart):
    there = Rig(precision="bfloat16")
    subject = there.add(Purpose.RECORD, slot=34)
    await there.work()
    genome = Genome("mlp-4-4-2", 7 + 34)
    played = {
        precision: evaluate_genome(genome, cart, "numpy", [11], precision=precision)[0].steps
        for precision in ("float32", "bfloat16")
    }
    assert played["float32"] != played["bfloat16"]
    assert there.answer(subject).video.pictures == played["bfloat16"] + 1


async def test_a_recording_in_between_leaves_the_results_and_the_threads_as_they_are():
    found, threads = [], []
    for records in (False, True):
        there = Rig()
        subjects = []
        for slot in range(3):
            subjects.append(there.add(Purpose.POPULATION, slot))
            if records:
                there.add(Purpose.RECORD, slot)
        await there.work()
        threads.append([each["num_threads"] for each in threadpool_info()])
        reports = [messages.decode_result(there.fake.results[name][1]) for name in subjects]
        found.append([report.episode for report in reports])
        assert len(there.fake.recordings) == 3 * records
    assert found[0] == found[1]
    assert threads[0] == threads[1]


async def test_a_recording_that_took_many_workers_is_not_tried_again(monkeypatch):
    def never(*arguments):
        raise AssertionError("played")

    monkeypatch.setattr(recorder, "record", never)
    there = Rig()
    subject = there.add(Purpose.RECORD)
    for _ in range(recordings.MOST_DELIVERIES):
        await there.fake.take_task().nak()
    await there.work()
    assert (
        f"{recordings.MOST_DELIVERIES} workers took this recording" in there.answer(subject).failure
    )


async def test_a_recording_that_hangs_is_answered_and_its_process_replaced(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(recorder, "RECORD_SECONDS", 0.1)
    monkeypatch.setattr(recorder, "record", lambda *_: release.wait(20))
    there = Rig()
    subject = there.add(Purpose.RECORD)
    with pytest.raises(worker.Recycle, match="hangs"):
        await there.start()
    release.set()
    assert "not done after 0.1 s" in there.answer(subject).failure
    assert there.fake.tasks == {}


async def test_without_a_place_for_videos_the_answer_says_so():
    there = Rig()
    there.fake.recordings = None
    subject = there.add(Purpose.RECORD)
    await there.work()
    assert "could not be sent" in there.answer(subject).failure


def test_whatever_it_raises_is_a_reason(cart, monkeypatch):
    for raised in (MemoryError(), SystemExit(3), ImportError("libGL"), OSError(28, "No space")):

        def fail(*_, raised=raised, **__):
            raise raised

        monkeypatch.setattr(recording, "evaluate_genome", fail)
        assert record(GENOME, cart, "numpy", 3).failure.startswith(type(raised).__name__)
