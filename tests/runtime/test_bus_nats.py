"""The bus over a real nats-server that dies, loses its store, is too old, or refuses."""

import asyncio
import json
import shutil
import time

import pytest

from kubevo_core.errors import BrokerFull, BusError, BusUnavailable, ServerTooOld
from kubevo_runtime.bus import Backlog, BusSettings, QueueMissing, connect_coordinator
from kubevo_runtime.bus import connect_worker as connect

TASK = "r0.g0.population.s0.0123456789abcdef.e0"


def episode(slot: int) -> str:
    return f"r0.g0.population.s{slot}.0123456789abcdef.e0"


async def read_all(reader, count: int) -> list[bytes]:
    read: list[bytes] = []
    while len(read) < count:
        read += await reader.fetch(256, 10)
    return read


async def test_what_is_published_during_an_outage_is_stored_after_it(broker, nats_rig):
    await nats_rig.coordinator.ensure()
    await broker.kill(down_seconds=0.5)
    stored = await asyncio.gather(
        nats_rig.coordinator.publish_task(TASK, b"task"),
        nats_rig.worker.put_result(TASK, b"result"),
        nats_rig.worker.put_failure(TASK, b"failure"),
        nats_rig.coordinator.put_blob("key", b"blob"),
    )
    assert stored == [True, True, None, None]
    assert broker.restarts == 1
    assert (await nats_rig.worker.pull(5)).body == b"task"
    assert await nats_rig.coordinator.result(TASK) == b"result"
    assert await nats_rig.other_worker.get_blob("key") == b"blob"


async def test_a_killed_broker_loses_neither_tasks_nor_results(broker, nats_rig):
    """Kill it while tasks are held: each is played to the end, and each result is read once."""
    coordinator, slots = nats_rig.coordinator, range(40)
    await coordinator.ensure()
    await coordinator.publish_tasks([(episode(slot), b"") for slot in slots])
    reader = coordinator.results(">")
    held_at_kills = 0
    done = asyncio.Event()

    async def work(bus) -> None:
        while not done.is_set():
            held = await bus.pull(0.5)
            if held is not None:
                await asyncio.sleep(0.01)
                await bus.put_result(held.episode, held.episode.encode())
                await held.ack()

    workers = [asyncio.create_task(work(bus)) for bus in (nats_rig.worker, nats_rig.other_worker)]
    read: list[bytes] = []
    for kill in range(2):
        while len(read) < 10 * (kill + 1):
            read += await reader.fetch(1, 10)
        held_at_kills += (await coordinator.backlog()).held
        await broker.kill()
    while len(set(read)) < len(slots):
        read += await reader.fetch(256, 10)
    while await coordinator.backlog() != Backlog(0, 0):
        await reader.fetch(1, 0.1)
    done.set()
    await asyncio.gather(*workers)
    await reader.aclose()
    assert set(read) == {episode(slot).encode() for slot in slots}
    assert await coordinator.dead_letters(10) == []
    assert broker.restarts == 2
    assert held_at_kills > 0, "no kill hit a held task: the test proved nothing"


async def test_a_task_held_at_a_kill_is_acknowledged_after_it_or_comes_again(broker, nats_rig):
    await nats_rig.coordinator.ensure()
    await nats_rig.coordinator.publish_task(TASK, b"")
    held = await nats_rig.worker.pull(5)
    await broker.kill()
    await held.in_progress()
    await held.ack()  # lost when the client had not noticed the kill, else sent after it
    await nats_rig.worker.put_result(TASK, b"")  # waits until the broker is back
    async with asyncio.timeout(20):
        while not await nats_rig.coordinator.publish_task(TASK, b"next"):
            again = await nats_rig.worker.pull(0.2)
            if again is not None:
                assert not await nats_rig.worker.put_result(TASK, b"")
                await again.ack()
    assert (await nats_rig.worker.pull(5)).body == b"next"


async def test_a_worker_that_waits_during_an_outage_gets_none_or_a_task(broker, nats_rig):
    await nats_rig.coordinator.ensure()
    pulling = asyncio.create_task(nats_rig.worker.pull(10))
    await broker.kill(down_seconds=0.3)
    await nats_rig.coordinator.publish_task(TASK, b"")
    assert (await pulling).episode == TASK


async def test_a_pull_while_the_broker_is_down_gives_nothing(broker, nats_rig):
    await nats_rig.coordinator.ensure()
    await broker.kill(down_seconds=2)
    assert await nats_rig.worker.pull(0.3) is None
    assert await nats_rig.worker.pull_ready() is None
    assert not await nats_rig.worker.is_anyone_idle()


async def test_an_answer_that_comes_late_is_the_next_task(nats_rig):
    await nats_rig.coordinator.publish_task(TASK, b"")
    inbox = nats_rig.worker._inbox
    await nats_rig.worker.pull_ready()
    await nats_rig.coordinator.publish_task(episode(1), b"")
    assert await inbox.ready(0) is None  # asked, and not waited for
    assert (await nats_rig.worker.pull(5)).episode == episode(1)


async def test_a_reader_goes_on_after_a_restart_where_it_was(broker, nats_rig):
    await nats_rig.coordinator.ensure()
    reader = nats_rig.coordinator.results(">")
    await nats_rig.worker.put_result(episode(0), b"0")
    assert await reader.fetch(10, 5) == [b"0"]
    reading = asyncio.create_task(reader.fetch(10, 10))
    await broker.kill(down_seconds=0.2)
    await nats_rig.worker.put_result(episode(1), b"1")
    assert await reading == [b"1"]
    await reader.aclose()


async def test_a_reader_outlives_its_consumer(nats_rig, broker, settings_of):
    import nats

    await nats_rig.coordinator.ensure()
    reader = nats_rig.coordinator.results(">")
    await nats_rig.worker.put_result(episode(0), b"0")
    assert await reader.fetch(10, 5) == [b"0"]
    client = await nats.connect(broker.url, token=broker.token)
    js = client.jetstream()
    stream = f"R_{settings_of(broker).experiment}"
    for consumer in await js.consumers_info(stream):
        await js.delete_consumer(stream, consumer.name)
    await client.close()
    await nats_rig.worker.put_result(episode(1), b"1")
    assert await reader.fetch(10, 5) == [b"1"]
    await reader.aclose()


async def test_a_broker_that_lost_its_store_is_made_anew(broker, nats_rig, tmp_path):
    coordinator = nats_rig.coordinator
    await coordinator.ensure()
    await coordinator.put_blob("context", b"c")
    await coordinator.publish_task(episode(0), b"")
    reader = coordinator.results(">")
    for slot in (7, 8):
        await nats_rig.worker.put_result(episode(slot), b"%d" % slot)
    assert sorted(await read_all(reader, 2)) == [b"7", b"8"]
    await broker.kill(down_seconds=0.3)
    shutil.rmtree(tmp_path / "broker" / "jetstream")
    assert await reader.fetch(10, 2) == []
    assert await coordinator.backlog() == Backlog(0, 0)
    assert await nats_rig.worker.get_blob("context") == b"c"
    assert await coordinator.publish_task(episode(0), b"")
    assert (await nats_rig.worker.pull(5)).episode == episode(0)
    await nats_rig.worker.put_result(episode(9), b"9")
    assert await reader.fetch(10, 5) == [b"9"]
    await reader.aclose()


async def test_a_full_stream_is_told_from_a_refused_task(broker, settings_of):
    settings = settings_of(broker, task_bytes=2000, give_up_seconds=0.5)
    async with connect_coordinator(settings) as coordinator:
        await coordinator.ensure()
        with pytest.raises(BusUnavailable, match="full"):
            await coordinator.publish_tasks([(episode(slot), b"x" * 500) for slot in range(10)])
        queued = (await coordinator.backlog()).pending
        assert 0 < queued < 10
        held = [(await coordinator.purge_task(episode(slot))) for slot in range(10)]
        assert sum(held) == queued


async def test_a_full_stream_is_waited_for(broker, settings_of):
    settings = settings_of(broker, task_bytes=2000)
    async with connect_coordinator(settings) as coordinator, connect(settings) as worker:
        await coordinator.ensure()
        tasks = [(episode(slot), b"x" * 500) for slot in range(12)]
        publishing = asyncio.create_task(coordinator.publish_tasks(tasks))
        taken = set()
        while len(taken) < len(tasks):
            held = await worker.pull(5)
            taken.add(held.episode)
            await held.ack()
        assert await publishing == 12


async def test_results_have_room_until_their_stream_is_full(broker, settings_of):
    settings = settings_of(broker, result_bytes=20_000, give_up_seconds=0.5)
    async with connect_coordinator(settings) as coordinator, connect(settings) as worker:
        await coordinator.ensure()
        assert await coordinator.has_room()
        results = (worker.put_result(episode(slot), b"x" * 900) for slot in range(100))
        with pytest.raises(BusUnavailable, match="full"):
            await asyncio.gather(*results)
        assert not await coordinator.has_room()
        await coordinator.purge(">")
        assert await coordinator.has_room()


async def test_a_broker_without_room_for_the_streams_says_so(broker, settings_of):
    settings = settings_of(broker, result_bytes=1 << 52)
    async with connect_coordinator(settings) as coordinator:
        with pytest.raises(BrokerFull, match=r"has no room for the stream R_.* of 4,503,599"):
            await coordinator.ensure()


async def test_a_stream_that_cannot_grow_says_that_the_broker_has_no_room(broker, settings_of):
    async with connect_coordinator(settings_of(broker)) as coordinator:
        await coordinator.ensure()
    larger = settings_of(broker, result_bytes=1 << 52)
    async with connect_coordinator(larger) as coordinator:
        with pytest.raises(BrokerFull, match=r"has no room for the stream R_.* of 4,503,599"):
            await coordinator.ensure()
        assert await coordinator.has_room()  # as it was before


async def test_a_results_stream_without_a_limit_always_has_room(broker, settings_of):
    async with connect_coordinator(settings_of(broker, result_bytes=-1)) as coordinator:
        await coordinator.ensure()
        assert await coordinator.has_room()


async def test_limits_are_brought_up_to_date(broker, settings_of):
    async with connect_coordinator(settings_of(broker, task_bytes=2000)) as coordinator:
        await coordinator.ensure()
        await coordinator.publish_task(episode(0), b"x" * 500)
    async with connect_coordinator(settings_of(broker, ack_wait_seconds=5.0)) as coordinator:
        await coordinator.ensure()
        assert await coordinator.publish_task(episode(1), b"x" * 5000)
        async with asyncio.timeout(10):  # the server counts after it has answered
            while (await coordinator.backlog()).pending != 2:
                pass


async def test_an_oversized_message_is_refused_at_once(nats_rig):
    await nats_rig.coordinator.ensure()
    with pytest.raises(BusError, match="maximum payload"):
        await nats_rig.coordinator.put_blob("key", bytes(2 << 20))


async def test_dead_letters_are_known_to_a_coordinator_that_starts_later(
    broker, nats_rig, settings_of
):
    await nats_rig.coordinator.ensure()
    await nats_rig.coordinator.publish_tasks([(episode(0), b""), (episode(1), b"")])
    first = await nats_rig.worker.pull(5)
    for _ in range(3):
        other = first if first.episode == episode(0) else await nats_rig.worker.pull(5)
        await other.nak()
        first = await nats_rig.worker.pull(5)
    async with connect_coordinator(settings_of(broker)) as later:
        letters = await later.dead_letters(10)
        while not letters:
            await first.in_progress()
            letters = await later.dead_letters(10)
    assert len(letters) == 1


async def test_a_closing_worker_gives_back_what_it_had_not_taken(broker, nats_rig, settings_of):
    lasting = settings_of(broker, ack_wait_seconds=600.0)
    async with connect_coordinator(lasting) as coordinator, connect(lasting) as leaving:
        await coordinator.ensure()
        pulling = asyncio.create_task(leaving.pull(10))
        await nats_rig.until_somebody_waits()
        pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)
        await coordinator.publish_task(TASK, b"")
        while (await coordinator.backlog()).held == 0:
            pass
    held = await nats_rig.worker.pull(20)  # long before the lease ends
    assert held.deliveries == 2


@pytest.mark.alone
async def test_a_connection_closes_in_two_seconds_in_any_state(broker, settings_of):
    async with connect(settings_of(broker)) as worker:
        assert await worker.get_blob("key") is None
        with pytest.raises(QueueMissing):
            await worker.pull(0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 2
    async with connect(settings_of(broker)) as worker:
        await broker.kill(down_seconds=3)
        assert await worker.pull(0.1) is None
        started = time.monotonic()
    assert time.monotonic() - started < 2


@pytest.mark.alone
async def test_a_wrong_token_is_refused_at_once(broker, settings_of):
    started = time.monotonic()
    with pytest.raises(BusError, match="check the token") as refused:
        async with connect(settings_of(broker, token="wrong-one")):
            pass
    assert time.monotonic() - started < 2
    assert "wrong-one" not in str(refused.value)


@pytest.mark.alone
async def test_no_server_at_all_is_told_within_the_time_given(broker, settings_of):
    settings = settings_of(broker, connect_seconds=0.5, url="nats://127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1:1.*Connect call failed"):
        async with connect_coordinator(settings):
            pass
    assert time.monotonic() - started < 2.5


async def test_an_old_server_is_refused_by_both_versions():
    info = {"version": "2.9.10", "server_id": "X", "max_payload": 1048576, "headers": True}

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = BusSettings(url=f"nats://127.0.0.1:{port}", experiment="x")
        with pytest.raises(ServerTooOld, match=r"2\.10\.23 or newer, found 2\.9\.10"):
            async with connect(settings):
                pass


async def test_a_long_outage_ends_with_an_error_that_says_why(broker, settings_of):
    async with connect(settings_of(broker, give_up_seconds=0.5)) as worker:
        await broker.kill(down_seconds=10)
        with pytest.raises(BusUnavailable, match=r"gave no answer for 0\.5 s"):
            await worker.put_result(TASK, b"")


def test_a_token_is_not_shown():
    settings = BusSettings(url="nats://h:1", experiment="x", token="hidden")
    assert "hidden" not in repr(settings)


async def test_videos_wait_in_a_bounded_place_that_only_recording_claims(broker, settings_of):
    settings = settings_of(broker)
    async with connect_coordinator(settings) as coordinator, connect(settings) as worker:
        await coordinator.ensure()
        js = coordinator._connection.js
        assert not [info for info in await js.streams_info() if info.config.name[:2] == "V_"]
        await coordinator.open_recordings()
        config = (await js.stream_info(f"V_{settings.experiment}")).config
        assert (config.max_bytes, config.max_age) == (64 << 20, 86_400)
        part = bytes(128 << 10)
        for number in range(128):  # the largest video
            await worker.put_recording_part("ab" * 16, number, part)
        assert await coordinator.recording("ab" * 16, 16 << 20) == part * 128
        await coordinator.drop_recording("ab" * 16)
        assert (await js.stream_info(f"V_{settings.experiment}")).state.messages == 0
        await coordinator.delete()
        assert await js.streams_info() == []


async def test_a_place_for_videos_that_the_broker_lost_is_made_again(broker, nats_rig, tmp_path):
    await nats_rig.coordinator.ensure()
    await nats_rig.coordinator.open_recordings()
    await nats_rig.worker.put_recording_part("ab" * 16, 0, b"video")
    await broker.kill(down_seconds=0.3)
    shutil.rmtree(tmp_path / "broker" / "jetstream")
    assert await nats_rig.coordinator.recording("ab" * 16, 5) is None
    await nats_rig.worker.put_recording_part("ab" * 16, 0, b"again")
    assert await nats_rig.coordinator.recording("ab" * 16, 5) == b"again"
