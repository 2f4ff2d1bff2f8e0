"""What every bus promises; the same tests over the one in memory and over a real nats-server."""

import asyncio

import pytest

from kubevo_core.errors import BusUnavailable
from kubevo_runtime.bus import Backlog, QueueMissing, WorkerBus

SOON = 5.0  # something is expected; a test ends as soon as it comes
NOTHING = 0.2  # nothing is expected
TASK = "r0.g0.population.s0.0123456789abcdef.e0"


def task_of(generation: int, slot: int = 0) -> str:
    return f"r0.g{generation}.population.s{slot}.0123456789abcdef.e0"


async def pull_all(worker: WorkerBus) -> list[str]:
    episodes = []
    while held := await worker.pull(NOTHING):
        episodes.append(held.episode)
        await held.ack()
    return sorted(episodes)


async def test_a_task_arrives_as_it_was_published(rig):
    assert await rig.coordinator.publish_task(TASK, b"body")
    held = await rig.worker.pull(SOON)
    assert (held.episode, held.body, held.deliveries) == (TASK, b"body", 1)


async def test_an_empty_queue_gives_nothing(rig):
    assert await rig.worker.pull(NOTHING) is None


async def test_a_waiting_worker_gets_a_task_when_it_is_published(rig):
    pulling = asyncio.create_task(rig.worker.pull(SOON))
    await rig.coordinator.publish_task(TASK, b"")
    held = await pulling or await rig.worker.pull(SOON)
    assert held.episode == TASK


async def test_a_task_tells_its_place_in_the_queue(rig):
    for slot in range(3):
        await rig.coordinator.publish_task(task_of(0, slot), b"")
    await rig.until_backlog(pending=3, held=0)
    held = [await rig.worker.pull(SOON), await rig.other_worker.pull_ready()]
    assert [(each.number, each.behind) for each in held] == [(1, 2), (2, 1)]
    await held[0].nak()
    again = [await rig.worker.pull(SOON), await rig.other_worker.pull(SOON)]
    assert [each.number for each in again] == [3, 4]
    assert sorted(each.deliveries for each in again) == [1, 2]


async def test_a_task_that_lies_ready_is_taken_and_none_is_no_wait(rig):
    assert await rig.worker.pull_ready() is None
    await rig.coordinator.publish_task(TASK, b"body")
    await rig.until_backlog(pending=1, held=0)
    held = await rig.worker.pull_ready()
    assert (held.episode, held.body, held.deliveries) == (TASK, b"body", 1)
    assert await rig.worker.pull_ready() is None


async def test_a_task_goes_to_who_waits_before_who_looks(rig):
    assert not await rig.worker.is_anyone_idle()
    pulling = asyncio.create_task(rig.other_worker.pull(SOON))
    await rig.until_somebody_waits()
    await rig.coordinator.publish_task(TASK, b"")
    assert await rig.worker.pull_ready() is None
    assert (await pulling).episode == TASK


async def test_a_queue_that_is_not_there_has_nothing_ready_and_nobody_idle(rig):
    await rig.coordinator.delete()
    assert await rig.worker.pull_ready() is None
    assert not await rig.worker.is_anyone_idle()


async def test_a_queued_task_is_not_queued_again(rig):
    await rig.coordinator.publish_task(TASK, b"")
    assert not await rig.coordinator.publish_task(TASK, b"")
    await rig.until_backlog(pending=1, held=0)


async def test_a_held_task_is_not_queued_again(rig):
    await rig.coordinator.publish_task(TASK, b"")
    await rig.worker.pull(SOON)
    assert not await rig.coordinator.publish_task(TASK, b"")
    assert await rig.coordinator.backlog() == Backlog(pending=0, held=1)


async def test_an_acknowledged_task_may_be_queued_again(rig):
    await rig.coordinator.publish_task(TASK, b"")
    held = await rig.worker.pull(SOON)
    await held.ack()
    async with asyncio.timeout(SOON):  # an ack is not waited for
        while not await rig.coordinator.publish_task(TASK, b""):
            pass
    await rig.until_backlog(pending=1, held=0)


async def test_a_purged_task_may_be_queued_again_at_once(rig):
    await rig.coordinator.publish_task(TASK, b"")
    await rig.worker.pull(SOON)
    assert await rig.coordinator.purge_task(TASK) == 1
    assert await rig.coordinator.purge_task(TASK) == 0
    assert await rig.coordinator.publish_task(TASK, b"again")
    assert (await rig.worker.pull(SOON)).body == b"again"


async def test_a_late_ack_of_a_purged_task_leaves_the_new_one(rig):
    await rig.coordinator.publish_task(TASK, b"")
    old = await rig.worker.pull(SOON)
    await rig.coordinator.purge_task(TASK)
    await rig.coordinator.publish_task(TASK, b"again")
    await old.ack()
    assert (await rig.other_worker.pull(SOON)).body == b"again"


async def test_many_tasks_are_published_once_each(rig):
    tasks = [(task_of(0, slot), b"x" * 330) for slot in range(200)]
    assert await rig.coordinator.publish_tasks(tasks) == 200
    assert await rig.coordinator.publish_tasks(tasks) == 0
    await rig.until_backlog(pending=200, held=0)


async def test_two_workers_share_the_queue_without_overlap(rig):
    await rig.coordinator.publish_tasks([(task_of(0, slot), b"") for slot in range(20)])
    shares = await asyncio.gather(pull_all(rig.worker), pull_all(rig.other_worker))
    assert sorted(shares[0] + shares[1]) == sorted(task_of(0, slot) for slot in range(20))


@pytest.mark.alone
async def test_a_silent_workers_task_goes_to_another_one(rig):
    await rig.coordinator.publish_task(TASK, b"")
    await rig.worker.pull(SOON)
    assert await rig.other_worker.pull(NOTHING) is None
    await rig.pass_time(1.0)
    again = await rig.other_worker.pull(SOON)
    assert (again.episode, again.deliveries) == (TASK, 2)


@pytest.mark.alone
async def test_signs_of_life_keep_a_task(rig):
    await rig.coordinator.publish_task(TASK, b"")
    held = await rig.worker.pull(SOON)
    for _ in range(6):
        await rig.pass_time(0.3)
        await held.in_progress()
    assert await rig.other_worker.pull(NOTHING) is None
    assert await rig.coordinator.backlog() == Backlog(pending=0, held=1)


async def test_a_task_given_back_comes_again_at_once(rig):
    await rig.coordinator.publish_task(TASK, b"")
    await (await rig.worker.pull(SOON)).nak()
    assert (await rig.other_worker.pull(SOON)).deliveries == 2


@pytest.mark.alone
async def test_a_task_given_back_with_a_delay_comes_after_it(rig):
    await rig.coordinator.publish_task(TASK, b"")
    await (await rig.worker.pull(SOON)).nak(delay_seconds=0.6)
    assert await rig.other_worker.pull(NOTHING) is None
    assert await rig.coordinator.backlog() == Backlog(pending=0, held=1)
    await rig.pass_time(0.6)
    assert (await rig.other_worker.pull(SOON)).deliveries == 2


async def strand(rig) -> None:
    """Use up a task's three deliveries: two given back, one left to its lease's end."""
    await rig.coordinator.publish_task(TASK, b"")
    for _ in range(3):
        assert await rig.coordinator.dead_letters(10) == []
        held = await rig.worker.pull(SOON)
        await held.nak() if held.deliveries < 3 else None
    await rig.pass_time(1.3)
    assert await rig.worker.pull(NOTHING) is None


async def test_a_task_that_used_up_its_deliveries_is_a_dead_letter_until_purged(rig):
    await strand(rig)
    assert await rig.coordinator.dead_letters(10) == [TASK]
    assert await rig.coordinator.dead_letters(10) == [TASK]
    assert await rig.coordinator.backlog() == Backlog(pending=0, held=0)
    assert not await rig.coordinator.publish_task(TASK, b"")
    assert await rig.coordinator.purge_task(TASK) == 1
    assert await rig.coordinator.dead_letters(10) == []
    assert await rig.coordinator.publish_task(TASK, b"")
    assert (await rig.worker.pull(SOON)).deliveries == 1


async def test_a_dead_letter_is_told_from_held_and_queued_tasks(rig):
    await strand(rig)
    await rig.coordinator.publish_tasks([(task_of(1, slot), b"") for slot in range(3)])
    await rig.worker.pull(SOON)
    assert await rig.coordinator.dead_letters(10) == [TASK]
    assert await rig.coordinator.dead_letters(0) == []
    assert await rig.coordinator.backlog() == Backlog(pending=2, held=1)


async def test_the_first_result_wins(rig):
    assert await rig.worker.put_result(TASK, b"first")
    assert not await rig.other_worker.put_result(TASK, b"second")
    assert not await rig.coordinator.put_result(TASK, b"third")
    assert await rig.coordinator.result(TASK) == b"first"
    assert await rig.coordinator.results(">").fetch(10, SOON) == [b"first"]


async def test_an_episode_without_a_result_has_none(rig):
    assert await rig.coordinator.result(TASK) is None


async def test_a_reader_begins_at_the_beginning(rig):
    for slot in range(3):
        await rig.worker.put_result(task_of(0, slot), b"%d" % slot)
    for _ in range(2):
        reader = rig.coordinator.results("r0.>")
        assert await reader.fetch(2, SOON) == [b"0", b"1"]
        assert await reader.fetch(2, SOON) == [b"2"]
        assert await reader.fetch(2, NOTHING) == []
        await reader.aclose()


async def test_a_waiting_reader_gets_what_arrives(rig):
    reader = rig.coordinator.results("r0.>")
    assert await reader.fetch(10, NOTHING) == []
    for slot in range(3):
        reading = asyncio.create_task(reader.fetch(10, SOON))
        await rig.worker.put_result(task_of(0, slot), b"%d" % slot)
        assert (await reading or await reader.fetch(10, SOON)) == [b"%d" % slot]
    await reader.aclose()


async def test_a_reader_sees_what_matches_alone(rig):
    await rig.worker.put_result("r0.g0.population.s0.d.e0", b"zero")
    await rig.worker.put_result("r1.g0.population.s0.d.e0", b"one")
    reader = rig.coordinator.results("r1.>")
    assert await reader.fetch(10, SOON) == [b"one"]
    assert await reader.fetch(10, NOTHING) == []
    await reader.aclose()


async def test_a_readers_closing_is_final_for_it_alone(rig):
    first, second = rig.coordinator.results(">"), rig.coordinator.results(">")
    await rig.worker.put_result(TASK, b"x")
    assert await first.fetch(1, SOON) == [b"x"]
    await first.aclose()
    await first.aclose()
    assert await second.fetch(1, SOON) == [b"x"]
    await second.aclose()


async def test_failures_are_kept_side_by_side(rig):
    await rig.worker.put_failure(TASK, b"a")
    await rig.other_worker.put_failure(TASK, b"b")
    reader = rig.coordinator.failures(">")
    read: list[bytes] = []
    while len(read) < 2:
        read += await reader.fetch(10, SOON)
    assert read == [b"a", b"b"]
    await reader.aclose()


async def test_a_generations_purge_leaves_the_others_and_strands_none(rig):
    for generation in (0, 1):
        tasks = [(task_of(generation, slot), b"") for slot in range(4)]
        await rig.coordinator.publish_tasks(tasks)
        for slot in (8, 9):
            await rig.worker.put_result(task_of(generation, slot), b"%d" % generation)
    await rig.coordinator.publish_tasks([(task_of(1, 4), b"")])
    held = [await rig.worker.pull(SOON) for _ in range(6)]
    await rig.coordinator.purge("r0.g0.population.>")
    left = {task_of(1, slot) for slot in range(5)}
    for task in held:
        await task.nak()
    assert await pull_all(rig.other_worker) == sorted(left)
    reader = rig.coordinator.results(">")
    read: list[bytes] = []
    while more := await reader.fetch(10, NOTHING):
        read += more
    assert read == [b"1", b"1"]
    await reader.aclose()
    assert await rig.coordinator.dead_letters(10) == []


async def test_blobs_are_kept_replaced_and_dropped(rig):
    assert await rig.worker.get_blob("key") is None
    await rig.coordinator.put_blob("key", b"old")
    await rig.coordinator.put_blob("key", b"new")
    await rig.coordinator.put_blob("empty", b"")
    assert await rig.worker.get_blob("key") == b"new"
    assert await rig.worker.get_blob("empty") == b""
    assert await rig.coordinator.blob_keys() == ["empty", "key"]
    await rig.coordinator.drop_blob("key")
    await rig.coordinator.drop_blob("key")
    assert await rig.worker.get_blob("key") is None
    assert await rig.coordinator.blob_keys() == ["empty"]


async def test_a_deleted_queue_is_told_from_an_empty_one(rig):
    assert await rig.worker.pull(NOTHING) is None
    await rig.coordinator.delete()
    with pytest.raises(QueueMissing, match="start the coordinator"):
        await rig.worker.pull(NOTHING)
    assert not issubclass(QueueMissing, BusUnavailable)


async def test_a_queue_deleted_under_a_waiting_worker_is_told_too(rig):
    pulling = asyncio.create_task(rig.worker.pull(4.0))
    # A request that meets the deletion on its way is answered by nobody: the next pull tells then.
    await rig.until_somebody_waits()
    await rig.coordinator.delete()
    with pytest.raises(QueueMissing):
        await pulling


async def test_making_the_streams_twice_keeps_what_is_in_them(rig):
    await rig.coordinator.publish_task(TASK, b"")
    await rig.coordinator.ensure()
    await rig.until_backlog(pending=1, held=0)


VIDEO = "0123456789abcdef" * 2


async def test_a_video_arrives_in_the_order_of_its_parts(rig):
    await rig.coordinator.open_recordings()
    parts = [bytes([number]) * 1000 for number in range(40)]
    for number, body in enumerate(parts):
        await rig.worker.put_recording_part(VIDEO, number, body)
    await rig.other_worker.put_recording_part("f" * 32, 0, b"another one")
    assert await rig.coordinator.recording(VIDEO, 40_000) == b"".join(parts)


async def test_a_part_that_is_sent_again_counts_once(rig):
    await rig.coordinator.open_recordings()
    for number, body in ((0, b"lost"), (0, b"first "), (1, b"then")):
        await rig.worker.put_recording_part(VIDEO, number, body)
    assert await rig.coordinator.recording(VIDEO, 10) == b"first then"


async def test_a_video_that_is_not_whole_is_none(rig):
    await rig.coordinator.open_recordings()
    assert await rig.coordinator.recording(VIDEO, 5) is None
    await rig.worker.put_recording_part(VIDEO, 0, b"part")
    assert await rig.coordinator.recording(VIDEO, 5) is None
    assert await rig.coordinator.recording(VIDEO, 3) is None


async def test_a_dropped_video_leaves_the_others(rig):
    await rig.coordinator.open_recordings()
    for name in (VIDEO, "f" * 32):
        await rig.worker.put_recording_part(name, 0, b"video")
    await rig.coordinator.drop_recording(VIDEO)
    await rig.coordinator.drop_recording("0" * 32)
    assert await rig.coordinator.recording(VIDEO, 5) is None
    assert await rig.coordinator.recording("f" * 32, 5) == b"video"


async def test_a_video_goes_with_its_experiment(rig):
    await rig.coordinator.open_recordings()
    await rig.worker.put_recording_part(VIDEO, 0, b"video")
    await rig.coordinator.delete()
    await rig.coordinator.open_recordings()
    assert await rig.coordinator.recording(VIDEO, 5) is None
