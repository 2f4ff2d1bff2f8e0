"""Whatever dies: operators, evaluators, the broker, the API server; the bytes stay the same.

Another schedule: KUBEVO_CHAOS_SEED=7 pytest tests/cluster/test_operator_chaos.py
"""

import asyncio
import os
import random
import signal
from contextlib import suppress

from broker_process import BrokerProcess
from site_of_tests import Site, document

from kubevo_runtime.store import open_run

SEED = int(os.environ.get("KUBEVO_CHAOS_SEED", "1"))
# Long enough that a fault mostly hits a task that somebody holds.
SLOW = {"environment": {"id": "CartPole-v1", "maxEpisodeSteps": 500}}
ENDLESS = 5000  # generations: a search goes on until `ends_as` has seen enough


async def ends_as(site: Site, local) -> None:
    """Let a search go on for two generations, stop it, and compare it with a local run as long."""
    reached = (await site.get("cart"))["status"]["progress"]["generation"]
    await site.generation("cart", reached + 2)
    generations = await site.stop("cart")
    await site.same("cart", local(document("cart", generations=generations, **SLOW)))


async def test_kills_of_everything_change_no_byte(site: Site, local):
    schedule = random.Random(SEED)
    await site.operator()
    await site.apply(document("cart", generations=ENDLESS, **SLOW))
    await site.generation("cart", 1)
    faults = ["operator", "broker", "evaluators", "api"] * 2 + ["operator", "evaluators"]
    schedule.shuffle(faults)

    async def is_held() -> bool:
        return await site.held("cart") > 0

    restarting = asyncio.create_task(_restart_operators(site))
    try:
        for fault in faults:
            await asyncio.sleep(schedule.uniform(0.1, 0.5))
            await site.until(is_held, "somebody holds work")
            await _inflict(site, fault, schedule)
        await ends_as(site, local)
    finally:
        restarting.cancel()
        await asyncio.gather(restarting, return_exceptions=True)


async def _restart_operators(site: Site) -> None:
    """Start another when one has ended, as a Deployment does: an API server may outlast a Lease."""
    while True:
        await site.operators[-1].process.wait()
        with suppress(AssertionError):  # it ended as well, since the API server is still away
            await site.operator()


async def _inflict(site: Site, fault: str, schedule: random.Random) -> None:
    if fault == "operator":
        await site.operators[-1].kill()
    elif fault == "broker":
        await site.broker.kill()
        await asyncio.sleep(schedule.uniform(0, 0.5))
        await site.broker.start()
    elif fault == "evaluators":
        for pid in site.evaluators("cart"):
            os.kill(pid, signal.SIGKILL)
    else:
        await site.control_plane.kill_api_server()
        await site.control_plane.start_api_server()


async def test_a_leader_that_was_frozen_is_refused_and_ends(site: Site, local):
    old = await site.operator()
    await site.apply(document("cart", generations=ENDLESS, **SLOW))
    await site.generation("cart", 1)
    new = await site.operator()
    assert 'experiment="cart"' not in await new.metrics(), "the second one stands by"
    before = (await site.get("cart"))["status"]["takeover"]
    old.send(signal.SIGSTOP)
    await site.until_status("cart", lambda s: s["takeover"] > before)
    reached = (await site.get("cart"))["status"]["progress"]["generation"]
    await site.generation("cart", reached + 1)
    old.send(signal.SIGCONT)
    async with asyncio.timeout(20):
        assert await old.process.wait() == 1
    assert "must_end" in old.log.read_text()
    await ends_as(site, local)


async def test_a_save_after_somebody_elses_takeover_is_refused_and_ends_the_operator(
    site: Site, local
):
    operator = await site.operator()
    await site.apply(document("cart", generations=ENDLESS, **SLOW))
    await site.generation("cart", 1)
    # Only the directory: the Lease and the object would still let the operator go on.
    taken = await asyncio.to_thread(open_run(site.directories("cart")[0]).claim)
    async with asyncio.timeout(30):
        assert await operator.process.wait() == 1
    said = operator.log.read_text()
    assert "must_end" in said
    assert "takeover" in said
    await site.operator()
    await site.until_status("cart", lambda s: s["takeover"] > taken)
    await ends_as(site, local)


async def test_a_clean_exit_is_quick_and_hands_over_at_once(site: Site, local):
    old = await site.operator(KUBEVO_LEASE_SECONDS="60", KUBEVO_RENEW_SECONDS="40")
    await site.apply(document("cart", generations=ENDLESS, **SLOW))
    await site.generation("cart", 1)
    await site.operator(KUBEVO_LEASE_SECONDS="60", KUBEVO_RENEW_SECONDS="40")
    before = (await site.get("cart"))["status"]["takeover"]
    old.send(signal.SIGTERM)
    async with asyncio.timeout(10):
        assert await old.process.wait() == 0
    await site.until_status("cart", lambda s: s["takeover"] > before, seconds=15)
    await ends_as(site, local)


async def test_the_keys_are_made_once_and_serve_after_restarts(site: Site, local, tmp_path):
    broker = BrokerProcess(tmp_path / "broker")
    await site.forget_keys()
    first = await site.operator(KUBEVO_NATS_URL=broker.url)
    await site.apply(document("cart", generations=ENDLESS))
    broker.authority = await site.broker_config()  # as the broker's pod mounts it
    keys = await site.keys()
    async with broker:
        await site.generation("cart", 0)
        credentials = (await site.child("secret", "cart-nats"))["data"]
        await first.kill()
        await broker.kill()
        await broker.start()
        before = (await site.get("cart"))["status"]["progress"]["generation"]
        await site.operator(KUBEVO_NATS_URL=broker.url)
        await site.generation("cart", before + 1)
        generations = await site.stop("cart")
        assert await site.keys() == keys
        assert await site.broker_config() == broker.authority
        assert (await site.child("secret", "cart-nats"))["data"] == credentials
        await site.same("cart", local(document("cart", generations=generations)))
        await site.kubectl("delete", "evo", "cart", "--timeout=30s")
