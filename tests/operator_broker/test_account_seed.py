"""With an account's seed alone, users are made for a broker that somebody else configures."""

import asyncio

import pytest

from kubevo_core.errors import UserError
from kubevo_operator import broker_keys
from kubevo_operator.nats_accounts import AccountKeys, KeysUnusable
from kubevo_operator.settings import OperatorSettings
from kubevo_runtime.bus import connect_coordinator, connect_worker

EXPERIMENT = "seeded-11111111"
LEAST = {"KUBEVO_NATS_URL": "nats://x", "KUBEVO_DATA": "/data", "KUBEVO_EVALUATOR_IMAGE": "x"}


@pytest.fixture
def seeded(shared_operated_broker):
    return AccountKeys.of_seed(shared_operated_broker.keys.account_key.seed + "\n", "a file")


async def test_a_broker_in_operator_mode_takes_its_users(shared_operated_broker, seeded):
    broker = shared_operated_broker
    settings = broker.settings(
        EXPERIMENT, worker=False, credentials=broker.credentials(None, seeded)
    )
    async with connect_coordinator(settings) as coordinator:
        await coordinator.ensure()
        of_worker = broker.settings(
            EXPERIMENT, worker=True, credentials=broker.credentials(EXPERIMENT, seeded)
        )
        async with connect_worker(of_worker) as worker:
            task = "r0.g0.population.s0.0123456789abcdef.e0"
            assert await coordinator.publish_task(task, b"task")
            held = await worker.pull(5)
            assert held.body == b"task"
            await held.ack()
        await coordinator.delete()


def test_the_account_is_the_brokers_and_the_same_seed_gives_the_same(
    shared_operated_broker, seeded
):
    keys = shared_operated_broker.keys
    assert seeded.account == keys.account
    assert seeded == AccountKeys.of_seed(keys.account_key.seed, "another file")


def test_another_kind_of_seed_is_refused_and_not_shown(shared_operated_broker):
    seed = shared_operated_broker.keys.operator_key.seed
    with pytest.raises(
        KeysUnusable, match=r"the account's seed in /etc/seed: .*another kind"
    ) as no:
        AccountKeys.of_seed(seed, "/etc/seed")
    assert seed not in str(no.value)


def test_the_operator_reads_it_from_its_file(shared_operated_broker, seeded, tmp_path):
    path = tmp_path / "account.seed"
    settings = OperatorSettings.from_environment({**LEAST, "KUBEVO_NATS_ACCOUNT_SEED": str(path)})
    with pytest.raises(UserError, match=f"KUBEVO_NATS_ACCOUNT_SEED: cannot read {path}"):
        asyncio.run(broker_keys.keys_of(None, settings))
    path.write_text(seeded.account_key.seed)
    assert asyncio.run(broker_keys.keys_of(None, settings)) == seeded
