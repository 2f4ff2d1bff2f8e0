"""The worker over the broker in memory: what it answers, in which order, and what it refuses."""

import asyncio
from dataclasses import replace

import pytest

from kubevo_core import messages, names
from kubevo_core.errors import BusUnavailable, UserError, WorkerUnfit
from kubevo_core.genome import Genome, Mutation
from kubevo_evaluator.settings import Settings
from kubevo_evaluator.worker import Recycle


async def test_a_task_becomes_a_result_and_leaves_the_queue(rig):
    there = rig()
    episode = there.add()
    there.start()
    await there.until(lambda: not there.fake.tasks)
    report = there.result(episode)
    assert report.worker == "w0"
    assert report.context == there.context.digest
    assert report.episode.episode_return == report.episode.frames == report.episode.steps > 0
    assert set(report.seconds) == {"decode", "play"}


async def test_two_workers_give_the_same_result_for_one_task(rig):
    found = []
    for name in ("w0", "w1"):
        there = rig()
        episode = there.add(3)
        there.start(name)
        await there.until(lambda there=there: not there.fake.tasks)
        found.append(there.result(episode).episode)
    assert found[0] == found[1]


class DyingBus:
    """A worker's bus whose process dies right after (or instead of) storing a result."""

    def __init__(self, fake, *, stores):
        self._bus = fake.worker()
        self._fake = fake
        self._stores = stores
        self.died = asyncio.Event()

    def __getattr__(self, name):
        return getattr(self._bus, name)

    async def put_result(self, episode, body):
        assert self._fake.states()[episode] == "held"  # not acknowledged before
        if self._stores:
            await self._bus.put_result(episode, body)
        self.died.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("stores", [True, False], ids=["after the result", "before the result"])
async def test_a_worker_killed_before_its_ack_costs_one_replay_and_changes_nothing(rig, stores):
    there = rig()
    episode = there.add()
    bus = DyingBus(there.fake, stores=stores)
    dying = there.start("dying", bus=bus)
    await asyncio.wait_for(bus.died.wait(), 20)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    there.start("other")
    there.fake.advance(25)
    await there.until(lambda: not there.fake.tasks)
    assert len(there.fake.results) == 1
    assert there.result(episode).worker == ("dying" if stores else "other")


class OutageBus:
    """A worker's bus that is unreachable for the first result."""

    def __init__(self, fake):
        self._bus = fake.worker()
        self.outages = 0

    def __getattr__(self, name):
        return getattr(self._bus, name)

    async def put_result(self, episode, body):
        if self.outages == 0:
            self.outages += 1
            raise BusUnavailable("no answer")
        return await self._bus.put_result(episode, body)


async def test_a_result_that_cannot_be_stored_is_played_again_by_the_same_worker(rig):
    there = rig()
    episode = there.add()
    bus = OutageBus(there.fake)
    there.start(bus=bus)
    await there.until(lambda: bus.outages == 1)
    assert there.fake.states() == {episode: "held"}
    there.fake.advance(25)
    await there.until(lambda: not there.fake.tasks)
    assert list(there.fake.results) == [episode]


async def test_an_exception_of_the_environment_is_reported_and_is_no_result(rig, faulty):
    there = rig(faulty("ValueError"))
    episode = there.add()
    alone = there.start()
    while not alone.done():  # each delay of the give-back
        await asyncio.sleep(0.005)
        there.fake.advance(0.1)
    with pytest.raises(Recycle, match="no other worker took"):
        await alone
    reports = [messages.decode_failure(body) for _, _, body in there.fake.failures]
    assert [(r.type, r.message, r.steps, r.worker) for r in reports] == [
        ("ValueError", "broken physics", 5, "w0")
    ]
    assert there.fake.results == {}
    assert episode in there.fake.tasks


async def test_a_second_process_reports_the_very_same_failure(rig, faulty):
    there = rig(faulty("ValueError"))
    there.add()
    for name in ("w0", "w1"):
        one = there.start(name)
        there.fake.advance(25)
        while not one.done():
            await asyncio.sleep(0.005)
            there.fake.advance(0.1)
        assert isinstance(one.exception(), Recycle)
    first, second = (messages.decode_failure(body) for _, _, body in there.fake.failures)
    assert replace(first, worker="") == replace(second, worker="")
    assert (first.worker, second.worker) == ("w0", "w1")


@pytest.mark.parametrize("fault", ["OSError", "MemoryError", "ImportError", "SystemExit"])
async def test_what_the_machine_lacks_is_no_verdict(rig, faulty, fault):
    there = rig(faulty(fault))
    episode = there.add()
    with pytest.raises(WorkerUnfit, match=fault):
        await asyncio.wait_for(there.start(), 20)
    there.fake.advance(1.1)
    held = there.fake.take_task()  # another worker gets it, without waiting for the lease
    assert (held.episode, held.deliveries) == (episode, 2)
    assert there.fake.results == {}
    assert there.fake.failures == []


async def test_another_fingerprint_refuses_before_it_takes_a_task(rig):
    there = rig()
    description = there.context.description
    prints = {**description.fingerprint, "gymnasium": "0.0.1"}
    there.pin(replace(there.context, description=replace(description, fingerprint=prints)))
    episode = there.add()
    with pytest.raises(WorkerUnfit, match=r"gymnasium: expected 0\.0\.1, here .*same image"):
        await asyncio.wait_for(there.start(), 20)
    assert there.fake.tasks[episode].deliveries == 0


async def test_an_episode_over_its_time_limit_is_given_to_another_worker(rig, faulty, tmp_path):
    there = rig(faulty("block", tmp_path), timeout_seconds=1)
    episode = there.add()
    try:
        with pytest.raises(WorkerUnfit, match=r"took longer than 1 s .*taskTimeoutSeconds"):
            await asyncio.wait_for(there.start(), 20)
    finally:
        (tmp_path / "go").touch()  # the thread ends
    assert there.fake.results == {}
    assert there.fake.failures == []
    there.fake.advance(1.1)
    assert there.fake.take_task().episode == episode


def _version_2(there):
    body = messages.encode_task(there.task())
    return body.replace(b'"v":1', b'"v":2')


@pytest.mark.parametrize(
    "body",
    [
        lambda there: b"{not json",
        lambda there: b"\xff\xfe",
        lambda there: b"[]",
        lambda there: b'{"v":1,"genome":"00"}',
        _version_2,
        lambda there: messages.encode_task(there.task(base="0" * 64)),
        lambda there: messages.encode_task(there.task(context="0" * 16)),
        lambda there: messages.encode_task(there.task(network="mlp-9-9-9", mutation=None)),
        lambda there: messages.encode_describe_task("f" * 16),
    ],
    ids=["no json", "no text", "a list", "no fields", "version 2", "no base", "no context",
         "another network", "no context to describe"],
)  # fmt: skip
async def test_a_task_that_cannot_be_played_yet_is_kept_for_later(rig, body):
    there = rig()
    bad = there.add_raw("r0.g0.population.s9.00.e0", body(there))
    good = there.add()
    worker = there.start()
    await there.until(lambda: good not in there.fake.tasks)
    task = there.fake.tasks[bad]
    assert (task.deliveries, task.lease_end) == (1, None)
    assert 1 <= task.ready_at <= 5
    assert list(there.fake.results) == [good]
    assert not worker.done()


@pytest.mark.parametrize("blob", [b"\xff\x00", b"kubevo-1:mlp-4-4-2:1", b"uber-1:mlp-4-4-2:1"])
async def test_a_damaged_base_is_kept_for_later_and_plays_once_it_is_mended(rig, blob):
    there = rig()
    base = Genome(there.context.description.network, 99)
    mutation = Mutation(5, "0.05")
    key = there.task().key._replace(digest=base.child(mutation).digest)
    episode = there.add(key=key, base=base.digest, mutation=mutation)
    there.fake.blobs[base.digest] = blob
    there.start()
    await there.until(lambda: there.fake.tasks[episode].ready_at == 5)
    assert there.fake.results == {}
    there.fake.blobs[base.digest] = base.text.encode()
    there.fake.advance(5.1)
    await there.until(lambda: not there.fake.tasks)
    assert there.result(episode).episode.key == key


async def test_a_describe_task_is_answered_once(rig):
    there = rig()
    unpinned = replace(there.context, description=None)
    there.fake.blobs[unpinned.digest] = unpinned.encode()
    subject = names.describe_subject(unpinned.digest)
    there.add_raw(subject, messages.encode_describe_task(unpinned.digest))
    there.start()
    await there.until(lambda: not there.fake.tasks)
    answer = messages.decode_describe_answer(there.fake.results[subject][1])
    assert answer.description == there.context.description
    assert answer.refused is None


async def test_an_unknown_environment_is_an_answer_and_no_crash(rig):
    there = rig()
    environment = {**there.context.environment, "id": "CartPoel-v1"}
    unknown = replace(there.context, description=None, environment=environment)
    there.fake.blobs[unknown.digest] = unknown.encode()
    subject = names.describe_subject(unknown.digest)
    there.add_raw(subject, messages.encode_describe_task(unknown.digest))
    worker = there.start()
    await there.until(lambda: not there.fake.tasks)
    answer = messages.decode_describe_answer(there.fake.results[subject][1])
    assert "did you mean CartPole-v1" in answer.refused
    assert not worker.done()


@pytest.mark.alone
async def test_an_idle_worker_stops_at_once(rig):
    there, stopping = rig(), asyncio.Event()
    worker = there.start(stopping=stopping)
    done = there.add()
    await there.until(lambda: done not in there.fake.tasks)
    stopping.set()
    await asyncio.wait_for(worker, 2)


async def test_a_stopping_worker_finishes_its_episode_and_takes_no_other(rig, faulty, tmp_path):
    there, stopping = rig(faulty("block", tmp_path)), asyncio.Event()
    worker = there.start(stopping=stopping)
    first, second = there.add(0), there.add(1)
    await there.until(lambda: any(tmp_path.glob("started-*")))
    stopping.set()
    await asyncio.sleep(0)
    (tmp_path / "go").touch()
    await asyncio.wait_for(worker, 20)
    assert list(there.fake.results) == [first]
    assert there.fake.states() == {second: "pending"}


async def test_a_stopping_worker_out_of_grace_gives_its_task_back_at_once(rig, faulty, tmp_path):
    there, stopping = rig(faulty("block", tmp_path)), asyncio.Event()
    worker = there.start(stopping=stopping, grace=0.05)
    episode = there.add()
    await there.until(lambda: any(tmp_path.glob("started-*")))
    stopping.set()
    with pytest.raises(Recycle, match="given back"):
        await asyncio.wait_for(worker, 20)
    there.running.remove(worker)
    (tmp_path / "go").touch()
    there.start("other")
    await there.until(lambda: not there.fake.tasks)  # no time has passed on the broker
    assert there.result(episode).worker == "other"


async def test_signs_of_life_keep_a_long_episode_from_being_handed_out_again(rig, faulty, tmp_path):
    there = rig(faulty("block", tmp_path))
    episode = there.add()
    there.start(ack_wait=0.06)  # a sign of life every 20 ms
    await there.until(lambda: any(tmp_path.glob("started-*")))
    task = there.fake.tasks[episode]
    for _ in range(5):
        before = task.lease_end
        there.fake.advance(15)  # of the broker's 20
        await there.until(lambda before=before: task.lease_end > before)
        assert there.fake.take_task() is None
    (tmp_path / "go").touch()
    await there.until(lambda: not there.fake.tasks)
    assert task.deliveries == 1
    assert there.result(episode).worker == "w0"


def test_settings_name_what_is_missing():
    with pytest.raises(UserError, match="needs KUBEVO_NATS_URL and KUBEVO_EXPERIMENT_ID"):
        Settings.from_environment({})


def test_settings_name_what_is_no_number():
    environ = {"KUBEVO_NATS_URL": "x", "KUBEVO_EXPERIMENT_ID": "y", "KUBEVO_GRACE_SECONDS": "soon"}
    with pytest.raises(UserError, match="'soon'"):
        Settings.from_environment(environ)
