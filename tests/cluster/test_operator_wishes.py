"""What a person wants after the start, or beside the operator: edits, own objects, late deletions."""

import json
from pathlib import Path

from site_of_tests import Site, document


def hide_owner(directory: Path) -> None:
    """Let the run's directory be unreadable for a while, as a volume in trouble is."""
    (directory / "OWNER").rename(directory / "OWNER.hidden")
    (directory / "OWNER").mkdir()


def show_owner(directory: Path) -> None:
    (directory / "OWNER").rmdir()
    (directory / "OWNER.hidden").rename(directory / "OWNER")


async def test_data_that_is_to_be_kept_after_all_outlives_every_sweep(site: Site):
    operator = await site.operator()
    await site.apply(document("cart", retention="Delete"))
    await site.wait("cart", "Succeeded")
    await site.patch("cart", {"retention": "Retain"})
    await site.kubectl("delete", "evo", "cart", "--timeout=60s")
    await operator.stop()
    second = await site.operator()  # it sweeps at its start
    await site.apply(document("after"))
    await site.wait("after", "Succeeded")
    assert site.directories("cart")
    assert second.is_running


async def test_what_arrived_in_part_is_cleared_by_the_next_sweep(site: Site):
    left = site.data / ".arriving" / "died" / "run"
    left.mkdir(parents=True)
    (left / "spec.yaml").write_text("spec: {}")
    await site.operator()

    async def is_cleared() -> bool:
        return not left.parent.exists()

    await site.until(is_cleared, "the sweep clears what arrived in part")


async def test_an_edit_that_changes_no_budget_is_obeyed_without_a_word(site: Site):
    await site.operator()
    await site.apply(document("cart"))
    await site.wait("cart", "Succeeded")
    await site.patch("cart", {"ttlSecondsAfterFinished": 3600})
    await site.until_status("cart", lambda s: s["observedGeneration"] == 2)
    status = (await site.get("cart"))["status"]
    assert site.condition(status, "Ready")["reason"] == "MaxGenerations"
    assert not [e for e in await site.events("cart") if e["reason"] == "ResumeRefused"]


async def test_a_larger_budget_is_obeyed_once_a_volume_in_trouble_is_well_again(site: Site):
    await site.operator()
    await site.apply(document("cart"))
    await site.wait("cart", "Succeeded")
    directory = site.directories("cart")[0]
    hide_owner(directory)
    await site.patch("cart", {"budget": {"maxGenerations": 5}})
    status = await site.wait("cart", "Degraded", reason="VolumeUnavailable")
    assert site.condition(status, "Succeeded")["status"] == "True", "an end stays an end"
    assert status["observedGeneration"] == 1, "the edit is not obeyed yet"
    show_owner(directory)
    await site.generation("cart", 4)
    await site.wait("cart", "Succeeded")
    await site.wait("cart", "Degraded", status="False")


async def test_an_autoscaler_of_ones_own_is_left_alone(site: Site):
    await site.operator(KUBEVO_RESYNC_SECONDS="1")
    await site.apply(document("cart", generations=2000, scaling={"mode": "External"}))
    await site.generation("cart", 1)
    await site.kubectl("autoscale", "deployment/cart-evaluator", "--min=1", "--max=3")
    mine = await site.uid("hpa", "cart-evaluator")
    before = site.condition((await site.get("cart"))["status"], "EvaluatorsReady")
    generation = (await site.get("cart"))["status"]["progress"]["generation"]
    await site.patch("cart", {"scaling": {"mode": "Operator"}})
    await site.generation("cart", generation + 20)
    assert await site.uid("hpa", "cart-evaluator") == mine
    assert before["status"] == "True"


async def test_an_object_with_a_childs_name_is_not_taken_over(site: Site):
    await site.operator(KUBEVO_RESYNC_SECONDS="1")
    await site.kubectl("create", "secret", "generic", "cart-nats", "--from-literal=mine=1")
    await site.apply(document("cart", generations=3))
    status = await site.wait("cart", "Degraded", reason="ObjectRefused")
    assert "cart-nats" in site.condition(status, "Degraded")["message"]
    secret = await site.child("secret", "cart-nats")
    assert "mine" in secret["data"]
    assert "ownerReferences" not in secret["metadata"]
    await site.kubectl("delete", "secret", "cart-nats")
    await site.wait("cart", "Succeeded")


async def test_an_autoscaler_takes_over_as_many_pods_as_there_are(site: Site):
    await site.operator(KUBEVO_RESYNC_SECONDS="1")
    fixed = {"mode": "Fixed", "replicas": 3}
    await site.apply(document("cart", generations=5000, scaling=fixed))
    await site.until(lambda: len(site.evaluators("cart")) == 3, "three evaluators")
    before = set(site.evaluators("cart"))
    await site.generation("cart", 1)
    await site.patch("cart", {"scaling": {"mode": "HPA", "max": 4, "replicas": 0}})

    async def is_ruled() -> bool:
        return await site.uid("hpa", "cart-evaluator") is not None

    await site.until(is_ruled, "an autoscaler")
    generation = (await site.get("cart"))["status"]["progress"]["generation"]
    await site.generation("cart", generation + 20)
    assert set(site.evaluators("cart")) == before


async def test_what_is_deleted_while_no_operator_runs_is_cleaned_up_by_the_next(site: Site):
    operator = await site.operator()
    await site.apply(document("cart", generations=2000, retention="Delete"))
    await site.generation("cart", 1)
    streams = await site.broker_id("cart")
    await operator.kill()
    await site.kubectl("delete", "evo", "cart", "--wait=false")
    await site.operator()
    await site.gone("cart")
    assert not await site.has_streams(streams)
    assert not site.directories("cart")


async def test_several_namespaces_are_looked_after_and_no_other(site: Site):
    second, third = f"{site.namespace}-b", f"{site.namespace}-c"
    for name in (second, third):
        await site.kubectl("create", "namespace", name, namespaced=False)
        site.watch(name)
    try:
        await site.operator(KUBEVO_NAMESPACES=f"{site.namespace},{second}")
        text = json.dumps(document("cart"))
        for name in (site.namespace, second, third):
            await site.kubectl("apply", "-n", name, "-f", "-", stdin=text, namespaced=False)
        for name in (site.namespace, second):
            await site.kubectl(
                "wait", "--for=condition=Succeeded", "evo/cart", "-n", name, "--timeout=60s",
                namespaced=False,
            )  # fmt: skip
        other = await site.kubectl(
            "get", "evo", "cart", "-n", third, "-o", "json", namespaced=False
        )
        assert "status" not in json.loads(other)
    finally:
        for name in (second, third):
            await site.kubectl(
                "delete", "evo", "cart", "-n", name, "--timeout=30s", namespaced=False
            )
            await site.kubectl("delete", "namespace", name, "--wait=false", namespaced=False)


async def test_a_standby_is_ready_and_ends_at_once(site: Site):
    await site.operator()
    standby = await site.operator()
    await site.until(standby.is_ready, "the standby is ready")
    assert await standby.stop() < 5


async def test_a_leader_that_ends_leaves_its_lease_to_the_next(site: Site):
    operator = await site.operator()
    await site.until(operator.is_ready, "the operator leads")
    await operator.stop()
    lease = json.loads(
        await site.kubectl(
            "get", "lease", "kubevo-operator", "-n", site.system, "-o", "json", namespaced=False
        )
    )
    assert not lease["spec"].get("holderIdentity")
