"""The fleet: who rules its size, why it does not start, and how seldom the status is written."""

import asyncio
import itertools
import json

import pytest
from scaled_objects import SCALED_OBJECTS
from site_of_tests import Site, document

LEFT_BYTES = 50_000  # of a quota of one mebibyte: room for some generations of a hundred


async def replicas(site: Site) -> int:
    return int((await site.child("deployment", "cart-evaluator"))["spec"]["replicas"])


async def test_pods_that_an_autoscaler_rules_are_not_fought_over(site: Site):
    await site.operator(KUBEVO_RESYNC_SECONDS="1")
    await site.apply(document("cart", generations=2000, scaling={"mode": "HPA", "max": 4}))
    await site.generation("cart", 1)
    found = await site.child("hpa", "cart-evaluator")
    assert (found["spec"]["minReplicas"], found["spec"]["maxReplicas"]) == (1, 4)
    await site.kubectl("scale", "deployment/cart-evaluator", "--replicas=3")
    await site.until(lambda: len(site.evaluators("cart")) == 3, "three evaluators")
    await asyncio.sleep(3)  # three resyncs
    assert await replicas(site) == 3
    await site.patch("cart", {"suspend": True})
    await site.until(lambda: not site.evaluators("cart"), "suspended: none, whoever rules")
    await site.patch("cart", {"suspend": False, "scaling": {"mode": "Operator"}})
    await site.until(lambda: bool(site.evaluators("cart")), "the operator rules again")

    async def is_unruled() -> bool:
        return await site.uid("hpa", "cart-evaluator") is None

    await site.until(is_unruled, "the autoscaler is gone")


async def test_keda_that_is_not_there_is_said_and_one_that_comes_is_used(site: Site):
    await site.operator(KUBEVO_RESYNC_SECONDS="1", KUBEVO_NATS_MONITORING="nats:8222")
    await site.apply(document("cart", generations=2000, scaling={"mode": "KEDA"}))
    await site.wait("cart", "Degraded", reason="KEDAMissing")
    await site.generation("cart", 1)  # and goes on with the Deployment's one pod
    plane = site.control_plane
    plane.kubectl("apply", "-f", "-", stdin=json.dumps(SCALED_OBJECTS))
    try:
        await site.wait("cart", "Degraded", status="False")
        found = (await site.child("scaledobject.keda.sh", "cart-evaluator"))["spec"]
        assert found["scaleTargetRef"]["name"] == "cart-evaluator"
        trigger = found["triggers"][0]
        assert trigger["type"] == "nats-jetstream"
        assert trigger["metadata"]["stream"].startswith("T_cart-")
        assert trigger["metadata"]["account"] == site.broker.keys.account
    finally:
        await site.kubectl("delete", "evo", "cart", "--timeout=30s")
        plane.kubectl("delete", "crd", "scaledobjects.keda.sh", "--wait=false")


async def test_a_full_cluster_is_the_reason_and_room_is_the_cure(site: Site):
    await site.operator()
    site.kubelet.most_pods, before = 0, site.kubelet.most_pods
    try:
        await site.apply(document("cart"))
        await site.wait("cart", "EvaluatorsReady", status="False", reason="Unschedulable")
        message = site.condition((await site.get("cart"))["status"], "EvaluatorsReady")["message"]
        assert "Insufficient cpu" in message
        running = site.condition((await site.get("cart"))["status"], "Running")
        assert (running["status"], running["reason"]) == ("False", "Unschedulable")
    finally:
        site.kubelet.most_pods = before
    await site.wait("cart", "Succeeded")


async def refuses_pods(site: Site) -> bool:
    """Return whether the quota counts already: it does only after a controller has seen it."""
    try:
        await site.kubectl("run", "probe", "--image=probe", "--dry-run=server")
    except RuntimeError as exc:
        return "exceeded quota" in str(exc)
    return False


async def test_a_quota_is_the_reason(site: Site):
    await site.operator()
    await site.kubectl("create", "quota", "none", "--hard=pods=0")
    await site.until(lambda: refuses_pods(site), "pods over the quota are refused")
    await site.apply(document("cart"))
    await site.wait("cart", "EvaluatorsReady", status="False", reason="QuotaExceeded")
    await site.kubectl("delete", "quota", "none")
    await site.wait("cart", "Succeeded", seconds=120)


@pytest.mark.parametrize("seconds", [2])
async def test_a_status_is_written_seldom(site: Site, seconds):
    await site.operator(KUBEVO_STATUS_SECONDS=str(seconds))
    await site.apply(document("cart", generations=5000))
    await site.generation("cart", 1)
    await asyncio.sleep(4 * seconds)  # a search that goes on, and four times to say so
    await site.stop("cart")
    uid = (await site.get("cart"))["metadata"]["uid"]
    written = site.patches(uid)
    assert len(written) >= 3
    changes = sum(a.conditions != b.conditions for a, b in itertools.pairwise(written))
    rule = (written[-1].at - written[0].at) / seconds + changes + 1
    assert len(written) <= rule + 1, (len(written), changes)
    largest = max(len(json.dumps(patch.status)) for patch in written)
    assert largest < 16 * 1024


async def test_a_broker_that_is_away_is_the_reason_until_it_comes_back(site: Site, local):
    await site.operator()
    await site.apply(document("cart", generations=5000))
    await site.generation("cart", 1)
    await site.broker.kill()
    try:
        await site.wait("cart", "Ready", status="False", reason="BrokerUnreachable")
        running = site.condition((await site.get("cart"))["status"], "Running")
        assert running["status"] == "False"
        reached = (await site.get("cart"))["status"]["progress"]["generation"]
    finally:
        await site.broker.start()
    await site.generation("cart", reached + 2)
    await site.same("cart", local(document("cart", generations=await site.stop("cart"))))


async def test_a_run_over_its_quota_stops_alone_and_goes_on_with_more(site: Site, local):
    checkpoint = {"keepLast": 1000, "quotaMebibytes": 1}
    fleet = {"mode": "Fixed", "replicas": 1}
    big = document("big", generations=1, checkpoint=checkpoint, scaling=fleet)
    big["spec"]["environment"]["maxEpisodeSteps"] = 2
    big["spec"]["algorithm"]["geneticAlgorithm"]["populationSize"] = 100
    await site.operator()
    await site.apply(big)
    await site.wait("big", "Succeeded")
    # Most of the room is taken by a file of the run's own, the rest by the search's checkpoints.
    (site.directories("big")[0] / "repeat-0" / "ballast").write_bytes(bytes((1 << 20) - LEFT_BYTES))
    await site.patch("big", {"budget": {"maxGenerations": 12}})
    await site.wait("big", "Ready", status="False", reason="VolumeFull", seconds=120)
    reached = (await site.get("big"))["status"]["progress"]["generation"]
    assert 0 < reached < 11
    await site.apply(document("small"))
    await site.wait("small", "Succeeded")
    await site.patch("big", {"checkpoint": {"quotaMebibytes": 100}})
    await site.generation("big", 11)
    await site.wait("big", "Succeeded", seconds=120)
    alone = {"budget": {"maxGenerations": 12}, "checkpoint": {"keepLast": 1}}
    await site.same("big", local(big | {"spec": big["spec"] | alone}))
