"""What each user may do on a real nats-server in operator mode, and that it stays so."""

import asyncio
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog

from kubevo_core import names
from kubevo_core.errors import BusError
from kubevo_operator.nats_accounts import broker_config, evaluator_credentials
from kubevo_runtime.bus import (
    Backlog,
    QueueMissing,
    connect_coordinator,
    connect_worker,
    experiments_on,
)
from kubevo_runtime.processes import start_child, stop_child

TASK = "r0.g0.population.s0.0123456789abcdef.e0"
MINE, OTHER = "mine-11111111", "other-22222222"


@pytest.fixture
async def broker(shared_operated_broker):
    """Return the shared broker with the streams of two Experiments, made anew."""
    broker = shared_operated_broker
    for experiment in (MINE, OTHER):
        async with connect_coordinator(broker.settings(experiment, worker=False)) as coordinator:
            await coordinator.delete()
            await coordinator.ensure()
            await coordinator.put_blob("key", b"blob")
    return broker


async def work_once(coordinator, worker, body=b"task"):
    """Carry one task all the way round."""
    assert await coordinator.publish_task(TASK, body)
    held = await worker.pull(5)
    assert held.body == body
    await held.in_progress()
    await held.nak()
    held = await worker.pull(5)
    assert held.deliveries == 2
    assert await worker.put_result(TASK, b"result")
    assert not await worker.put_result(TASK, b"again")
    await worker.put_failure(TASK, b"failure")
    await held.ack()
    reader = coordinator.failures(">")
    assert await reader.fetch(1, 5) == [b"failure"]
    await reader.aclose()
    async with asyncio.timeout(5):
        while await coordinator.backlog() != Backlog(0, 0):
            pass
    assert await coordinator.result(TASK) == b"result"


@pytest.mark.parametrize("extra", ["", "feature_flags { js_ack_fc_v2: true }"])
async def test_evaluators_do_their_experiments_work(make_broker, extra):
    broker = await make_broker(extra=extra)
    async with (
        connect_coordinator(broker.settings(MINE, worker=False)) as coordinator,
        connect_worker(broker.settings(MINE, worker=True)) as worker,
    ):
        await coordinator.ensure()
        await coordinator.put_blob("key", b"blob")
        await work_once(coordinator, worker)
        assert await worker.get_blob("key") == b"blob"
        assert await worker.get_blob("none") is None
        await coordinator.open_recordings()
        for part, body in enumerate((b"one ", b"two")):
            await worker.put_recording_part("f" * 32, part, body)
        assert await coordinator.recording("f" * 32, 7) == b"one two"
        await coordinator.purge(">")
        assert await coordinator.result(TASK) is None
        await work_once(coordinator, worker)
        await coordinator.drop_blob("key")
        assert await coordinator.blob_keys() == []
        await coordinator.delete()


async def test_the_longest_id_works(shared_operated_broker):
    experiment = names.experiment_id("x" * 52, secrets.token_hex(16))
    broker = shared_operated_broker
    async with (
        connect_coordinator(broker.settings(experiment, worker=False)) as coordinator,
        connect_worker(broker.settings(experiment, worker=True)) as worker,
    ):
        await coordinator.ensure()
        await work_once(coordinator, worker)
        await coordinator.delete()


async def test_an_evaluator_whose_queue_is_deleted_is_told(shared_operated_broker):
    experiment = "gone-33333333"
    broker = shared_operated_broker
    async with connect_worker(broker.settings(experiment, worker=True)) as worker:
        with pytest.raises(QueueMissing, match=r"has no streams of Experiment 'gone-33333333'"):
            await worker.pull(0.5)
        assert await worker.get_blob("key") is None


API = "$JS.API"
DENIED = [
    names.task_subject(MINE, TASK),
    names.task_subject(OTHER, TASK),
    names.result_subject(OTHER, TASK),
    names.failure_subject(OTHER, TASK),
    names.recording_subject(OTHER, "f" * 32, "0"),
    f"{names.recording_subject(MINE, 'f' * 32, '0')}.more",
    f"{API}.STREAM.CREATE.V_{MINE}",
    f"{API}.STREAM.MSG.GET.V_{MINE}",
    f"{API}.STREAM.PURGE.V_{MINE}",
    f"{API}.CONSUMER.CREATE.V_{MINE}",
    f"{API}.DIRECT.GET.V_{MINE}.{names.recording_subject(MINE, 'f' * 32, '0')}",
    f"$KV.K_{MINE}.key",
    f"$KV.K_{OTHER}.key",
    f"{API}.DIRECT.GET.KV_K_{OTHER}.$KV.K_{OTHER}.key",
    f"{API}.DIRECT.GET.KV_K_{MINE}",
    f"{API}.DIRECT.GET.R_{MINE}.{names.result_subject(MINE, TASK)}",
    f"{API}.INFO",
    f"{API}.STREAM.CREATE.new",
    f"{API}.STREAM.UPDATE.T_{MINE}",
    f"{API}.STREAM.DELETE.T_{MINE}",
    f"{API}.STREAM.DELETE.R_{OTHER}",
    f"{API}.STREAM.PURGE.R_{MINE}",
    f"{API}.STREAM.PURGE.KV_K_{MINE}",
    f"{API}.STREAM.INFO.T_{MINE}",
    f"{API}.STREAM.INFO.R_{OTHER}",
    f"{API}.STREAM.MSG.GET.R_{MINE}",
    f"{API}.STREAM.MSG.GET.T_{OTHER}",
    f"{API}.STREAM.MSG.DELETE.T_{MINE}",
    f"{API}.STREAM.NAMES",
    f"{API}.STREAM.LIST",
    f"{API}.STREAM.SNAPSHOT.R_{MINE}",
    f"{API}.CONSUMER.CREATE.T_{MINE}.more",
    f"{API}.CONSUMER.CREATE.R_{MINE}",
    f"{API}.CONSUMER.DURABLE.CREATE.T_{MINE}.eval-0",
    f"{API}.CONSUMER.DELETE.T_{MINE}.eval-0",
    f"{API}.CONSUMER.PAUSE.T_{MINE}.eval-0",
    f"{API}.CONSUMER.NAMES.T_{MINE}",
    f"{API}.CONSUMER.INFO.T_{OTHER}.eval-0",
    f"{API}.CONSUMER.MSG.NEXT.T_{OTHER}.eval-0",
    f"{API}.CONSUMER.MSG.NEXT.T_{MINE}.eval-1",
    f"$JS.ACK.T_{OTHER}.eval-0.1.1.1.1.0",
    f"$JS.ACK._.hash.T_{OTHER}.eval-0.1.1.1.1.0",
    f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.T_{MINE}.eval-0",
    f"_INBOX_{OTHER}.x",
    f"_INBOX_{MINE}.x",
    "_INBOX.x",
    "$SYS.REQ.SERVER.PING",
    "anything",
]


async def test_evaluators_publish_nothing_but_their_answers(broker, connect_user):
    async with connect_user(broker, MINE) as worker, connect_user(broker, None) as coordinator:
        for subject in DENIED:
            assert await worker.publish(subject), f"{subject} is allowed"
        assert not await worker.publish(names.result_subject(MINE, TASK), b"result")
        js = coordinator.client.jetstream()
        info = {found.config.name: found for found in await js.streams_info()}
        assert {f"T_{MINE}", f"R_{MINE}", f"T_{OTHER}", f"R_{OTHER}"} <= set(info)
        assert info[f"T_{MINE}"].state.messages == info[f"R_{OTHER}"].state.messages == 0
        assert info[f"R_{MINE}"].state.messages == 1


async def test_evaluators_hear_nothing_but_answers_to_them(broker, connect_user):
    listened = [
        ">",
        "_INBOX.>",
        f"_INBOX_{OTHER}.>",
        "*.x",
        names.task_subject(MINE, ">"),
        names.result_subject(MINE, ">"),
        names.result_subject(OTHER, ">"),
        names.recording_subject(MINE, "*", "*"),
        "$JS.API.>",
        "$JS.ACK.>",
        "$JS.EVENT.>",
        "$KV.>",
        "$SYS.>",
    ]
    async with connect_user(broker, MINE) as worker:
        for subject in listened:
            assert await worker.subscribe(subject), f"{subject} is allowed"
        assert not await worker.subscribe(f"_INBOX_{MINE}.x")


async def test_the_coordinators_user_may_do_everything(broker, connect_user):
    async with connect_user(broker, None) as coordinator:
        for subject in DENIED:
            if not subject.startswith("$SYS."):
                assert not await coordinator.publish(subject, b"{}")
        assert not await coordinator.subscribe(">")


async def test_a_reply_goes_where_its_user_may_not_publish(broker, connect_user):
    """A limit of nats-server, on which no right can be built; see `names.experiment_id`.

    The server sends answers wherever a request says. So whoever knows another Experiment's id can
    fill its streams with answers; they are never a result that could be read.
    """
    subject = names.result_subject(MINE, "x")
    async with connect_user(broker, MINE) as worker:
        assert not await worker.publish(subject, b"x", reply=names.result_subject(OTHER, "evil"))
        async with connect_coordinator(broker.settings(OTHER, worker=False)) as coordinator:
            reader = coordinator.results("evil")
            found = (await reader.fetch(1, 5))[0]
            await reader.aclose()
            await coordinator.purge(">")
    assert "v" not in json.loads(found)


async def test_a_missing_right_is_told_soon_and_by_name(broker):
    wrong = broker.credentials(MINE)  # a user of another Experiment
    settings = broker.settings(OTHER, worker=True, credentials=wrong, give_up_seconds=300.0)
    async with connect_worker(settings) as worker:
        for attempt in (
            lambda: worker.get_blob("key"),
            lambda: worker.pull(60),
            lambda: worker.put_result(TASK, b""),
            lambda: worker.put_failure(TASK, b""),
        ):
            started = time.monotonic()
            with pytest.raises(BusError, match=r"(?i)permissions violation") as denied:
                await attempt()
            assert time.monotonic() - started < 30
            assert f"Experiment '{OTHER}'" in str(denied.value)


async def test_a_pull_without_the_right_ends_at_once(broker):
    wrong = broker.credentials(MINE)
    settings = broker.settings(OTHER, worker=True, credentials=wrong)
    async with connect_worker(settings) as worker:
        started = time.monotonic()
        with pytest.raises(BusError, match=r"(?i)permissions violation") as denied:
            await worker.pull(60)
        # The broker tells of the answer's inbox first, and of the pull itself right after.
        assert re.search(r"consumer\.msg\.next|_inbox_", str(denied.value).lower())
        assert time.monotonic() - started < 20


async def test_credentials_of_other_keys_are_refused_at_once(broker, make_keys):
    settings = broker.settings(MINE, worker=True)
    foreign = broker.credentials(MINE, make_keys(2))
    started = time.monotonic()
    with pytest.raises(BusError, match=r"Authorization Violation.* made with the keys of this br"):
        async with connect_worker(
            broker.settings(MINE, worker=True, credentials=foreign, connect_seconds=60.0)
        ):
            pass
    assert time.monotonic() - started < 20
    text = settings.credentials.read_text()
    seed = evaluator_credentials(broker.keys, OTHER).split("SEED-----\n")[1]
    mixed = broker.folder / "mixed.creds"
    mixed.write_text(text.split("SEED-----\n")[0] + "SEED-----\n" + seed)
    with pytest.raises(BusError, match="Authorization Violation"):
        async with connect_worker(broker.settings(MINE, worker=True, credentials=mixed)):
            pass


async def test_no_credentials_are_asked_for(broker):
    with pytest.raises(BusError, match="none were given: give a token or a credentials file"):
        async with connect_worker(broker.settings(MINE, worker=True, credentials=None)):
            pass


async def test_a_broker_started_again_needs_nothing(make_broker):
    broker = await make_broker()
    async with (
        connect_coordinator(broker.settings(MINE, worker=False)) as coordinator,
        connect_worker(broker.settings(MINE, worker=True)) as worker,
    ):
        await coordinator.ensure()
        await coordinator.put_blob("key", b"blob")
        await coordinator.publish_task(TASK, b"task")
        config = (broker.folder / "auth.conf").read_bytes()
        await broker.kill()
        await broker.start()
        assert (broker.folder / "auth.conf").read_bytes() == config
        assert (await worker.pull(10)).body == b"task"
        assert await worker.get_blob("key") == b"blob"
    async with connect_worker(broker.settings(MINE, worker=True)) as newcomer:
        assert await newcomer.put_result(TASK, b"result")


async def test_a_broker_with_other_keys_is_waited_for(make_broker, make_keys):
    """What worked once is asked again and again, and taken up once the broker grants it."""
    broker = await make_broker()
    right = broker.keys
    async with (
        connect_coordinator(broker.settings(MINE, worker=False)) as coordinator,
        connect_worker(broker.settings(MINE, worker=True)) as worker,
    ):
        await coordinator.ensure()
        with structlog.testing.capture_logs() as logs:
            await broker.kill()
            broker.keys = make_keys(2)
            await broker.start()
            publishing = asyncio.create_task(coordinator.publish_task(TASK, b"task"))
            while [line["event"] for line in logs].count("broker_refuses") < 2:
                assert await worker.pull(0.1) is None
            await asyncio.wait({publishing}, timeout=1)
            assert not publishing.done()
            await broker.kill()
            broker.keys = right
            await broker.start()
            assert await publishing
            assert (await worker.pull(10)).body == b"task"
    refused = [line for line in logs if line["event"] == "broker_refuses"]
    assert len(refused) == 2, "each of the two says it once, not at each attempt"


async def test_a_refusal_that_lasts_is_named_in_the_end(make_broker, make_keys):
    broker = await make_broker()
    settings = broker.settings(MINE, worker=True, give_up_seconds=2.0)
    async with connect_worker(settings) as worker:
        await broker.kill()
        broker.keys = make_keys(2)
        await broker.start()
        with pytest.raises(BusError, match=r"refused the credentials.*Authorization Violation"):
            await worker.put_result(TASK, b"")


async def test_renewed_credentials_are_taken_up_at_the_next_connect(make_broker, make_keys):
    broker = await make_broker()
    settings = broker.settings(MINE, worker=True)
    async with connect_worker(settings) as worker:
        assert await worker.get_blob("key") is None
        await broker.kill()
        broker.keys = make_keys(2)
        settings.credentials.write_text("in the midst of being written")
        await broker.start()
        async with connect_coordinator(broker.settings(MINE, worker=False)) as coordinator:
            await coordinator.ensure()
            settings.credentials.write_text(evaluator_credentials(broker.keys, MINE))
            assert await worker.put_result(TASK, b"result")


async def test_the_experiments_on_a_broker_are_found(make_broker):
    broker = await make_broker()
    settings = broker.settings("sweep-00000000", worker=False)
    assert await experiments_on(settings) == []
    wanted = sorted(f"some-{number:08x}" for number in range(3))
    for experiment in wanted:
        async with connect_coordinator(broker.settings(experiment, worker=False)) as coordinator:
            await coordinator.ensure()
    async with connect_coordinator(broker.settings(wanted[0], worker=False)) as coordinator:
        await coordinator._connection.js.delete_stream(f"T_{wanted[0]}")
        await coordinator._connection.js.add_stream(name="R_of-somebody-else", subjects=["x"])
        await coordinator._connection.js.add_stream(name="other-00000001", subjects=["y"])
    assert await experiments_on(settings) == wanted


async def test_an_evaluator_process_runs_with_credentials_and_shows_no_seed(broker, tmp_path):
    path = broker.credentials(MINE)
    log = tmp_path / "worker.log"
    worker = await start_child(
        [sys.executable, "-m", "kubevo_evaluator"],
        env={
            **os.environ,
            "KUBEVO_NATS_URL": broker.url,
            "KUBEVO_NATS_CREDENTIALS": str(path),
            "KUBEVO_EXPERIMENT_ID": MINE,
        },
        log=log,
    )
    try:
        async with asyncio.timeout(60):
            while "worker_ready" not in log.read_text():
                assert worker.returncode is None, log.read_text()
                await asyncio.sleep(0.05)
    finally:
        await stop_child(worker, 10)
    seed = path.read_text().split("SEED-----\n")[1].split("\n")[0]
    assert seed.startswith("SU")
    assert seed not in log.read_text() + broker.log.read_text()


async def test_an_evaluator_process_without_a_right_ends_with_the_reason(broker, tmp_path):
    log = tmp_path / "worker.log"
    worker = await start_child(
        [sys.executable, "-m", "kubevo_evaluator"],
        env={
            **os.environ,
            "KUBEVO_NATS_URL": broker.url,
            "KUBEVO_NATS_CREDENTIALS": str(broker.credentials(MINE)),
            "KUBEVO_EXPERIMENT_ID": OTHER,
        },
        log=log,
    )
    async with asyncio.timeout(60):
        assert await worker.wait() == 1
    assert "use the credentials that were made for this Experiment" in log.read_text()


def test_a_configuration_is_accepted_by_the_server_itself(make_keys, tmp_path: Path):
    server = shutil.which("nats-server") or Path(sys.executable).parent / "nats-server"
    config = tmp_path / "auth.conf"
    config.write_text(broker_config(make_keys(3)))
    done = subprocess.run([server, "-t", "-c", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
