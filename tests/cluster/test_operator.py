"""The operator on a real API server: what a person does with kubectl, and what it then says."""

import json

import pytest
from site_of_tests import Site, document

DIGESTS = ("populationDigest", "resultDigest")


async def test_cartpole_succeeds_with_the_bytes_of_a_local_run(site: Site, local):
    await site.operator()
    await site.apply(document("cart"))
    await site.wait("cart", "Succeeded")
    status = (await site.get("cart"))["status"]
    expected = local(document("cart"))
    assert {name: status[name] for name in DIGESTS} == {name: expected[name] for name in DIGESTS}
    assert float(status["best"]["fitness"]) == expected["best"]["fitness"]
    assert status["best"]["digest"] == expected["best"]["digest"]
    assert float(status["finalTest"]["mean"]) == expected["finalTest"]["mean"]
    assert status["reason"] == "MaxGenerations"
    await site.until(lambda: not site.evaluators("cart"), "its evaluators end")
    assert "Succeeded" not in [
        e["reason"] for e in await site.events("cart") if e["type"] == "Warning"
    ]


async def test_a_suspended_search_rests_and_goes_on_to_the_same_bytes(site: Site, local):
    await site.operator()
    await site.apply(document("cart", generations=5000))
    await site.generation("cart", 2)
    await site.patch("cart", {"suspend": True})
    await site.wait("cart", "Suspended")
    await site.until(lambda: not site.evaluators("cart"), "its evaluators end")
    before = (await site.get("cart"))["status"]["progress"]["generation"]
    await site.patch("cart", {"suspend": False})
    await site.generation("cart", before + 1)
    await site.same("cart", local(document("cart", generations=await site.stop("cart"))))


async def test_a_raised_budget_goes_on_to_the_bytes_of_one_that_had_it_from_the_start(
    site: Site, local
):
    await site.operator()
    await site.apply(document("cart", generations=4, ttlSecondsAfterFinished=3600))
    await site.wait("cart", "Succeeded")
    first = (await site.get("cart"))["status"]["resultDigest"]
    await site.patch("cart", {"budget": {"maxGenerations": 8}})
    await site.generation("cart", 7)
    await site.wait("cart", "Succeeded")
    assert (await site.get("cart"))["status"]["resultDigest"] != first
    await site.same("cart", local(document("cart", generations=8)))


async def test_a_finished_search_that_may_not_go_on_says_so(site: Site):
    await site.operator()
    await site.apply(document("cart", resumePolicy="Never"))
    await site.wait("cart", "Succeeded")
    await site.patch("cart", {"budget": {"maxGenerations": 8}})
    await site.wait("cart", "Ready", reason="ResumeRefused")
    status = (await site.get("cart"))["status"]
    assert status["progress"]["generation"] == 2
    assert site.condition(status, "Succeeded")["status"] == "True"


async def test_a_finished_experiment_is_deleted_after_its_time(site: Site):
    await site.operator()
    await site.apply(document("cart", ttlSecondsAfterFinished=1))
    await site.gone("cart")
    assert site.directories("cart"), "retention Retain keeps the directory"


@pytest.mark.parametrize("retention", ["Retain", "Delete"])
async def test_a_deletion_in_a_generation_leaves_nothing_but_what_retention_keeps(
    site: Site, retention
):
    operator = await site.operator()
    await site.apply(document("cart", generations=500, retention=retention))
    await site.generation("cart", 1)
    streams = await site.broker_id("cart")
    assert await site.has_streams(streams)
    assert 'experiment="cart"' in await operator.metrics()
    await site.kubectl("delete", "evo", "cart", "--wait=false")
    await site.gone("cart")
    await site.until(lambda: not site.evaluators("cart"), "its evaluators end")
    assert not await site.has_streams(streams)
    assert 'experiment="cart"' not in await operator.metrics()
    assert bool(site.directories("cart")) == (retention == "Retain")
    await site.childless("cart")


async def test_a_deletion_does_not_wait_for_a_broker_that_is_gone(site: Site):
    await site.operator()
    await site.apply(document("cart", generations=500))
    await site.generation("cart", 1)
    await site.broker.kill()
    try:
        await site.kubectl("delete", "evo", "cart", "--wait=false")
        await site.gone("cart", 30)
    finally:
        await site.broker.start()


@pytest.mark.parametrize("game", ["NoSuchGame-v0", "ALE/NoSuchGame-v5"])
async def test_a_game_that_does_not_exist_is_a_condition_with_a_cure(site: Site, game):
    await site.operator()
    bad, good = document("bad"), document("good")
    bad["spec"]["environment"] = {"id": game}
    if game.startswith("ALE/"):
        bad["spec"]["policy"] = {"network": "dqn"}
    await site.apply(bad)
    await site.apply(good)
    await site.wait("good", "Succeeded")
    await site.wait("bad", "Ready", status="False", reason="EnvironmentRefused")
    message = site.condition((await site.get("bad"))["status"], "Ready")["message"]
    assert "NoSuchGame" in message
    restarts = await site.restarts()
    assert restarts == 0, "no crash loop"
    assert all(operator.is_running for operator in site.operators)


async def test_an_image_that_cannot_be_pulled_is_named(site: Site):
    await site.operator()
    await site.apply(document("cart", evaluator={"image": "nowhere/kubevo:0"}))
    await site.wait("cart", "EvaluatorsReady", status="False", reason="ImagePullFailed")
    message = site.condition((await site.get("cart"))["status"], "EvaluatorsReady")["message"]
    assert "nowhere/kubevo:0" in message
    await site.patch("cart", {"evaluator": {"image": None}})
    await site.wait("cart", "Succeeded")


async def test_a_child_that_is_changed_or_deleted_comes_back(site: Site):
    await site.operator(KUBEVO_RESYNC_SECONDS="2")
    await site.apply(document("cart", generations=2000))
    await site.generation("cart", 1)
    for kind, name in (
        ("deployment", "cart-evaluator"),
        ("poddisruptionbudget", "cart-evaluator"),
        ("networkpolicy", "cart-evaluator"),
        ("secret", "cart-nats"),
    ):
        uid = await site.uid(kind, name)
        await site.kubectl("delete", kind, name)
        await site.changed(lambda k=kind, n=name: site.uid(k, n), uid)
    patch = json.dumps({"spec": {"template": {"spec": {"automountServiceAccountToken": True}}}})
    await site.kubectl("patch", "deployment", "cart-evaluator", "--type=merge", "-p", patch)

    async def mended() -> bool:
        found = await site.child("deployment", "cart-evaluator")
        return found["spec"]["template"]["spec"]["automountServiceAccountToken"] is False

    await site.until(mended, "the Deployment is mended")


async def test_kubectl_scale_sets_the_pods_in_mode_fixed(site: Site):
    await site.operator()
    await site.apply(document("cart", generations=2000, scaling={"mode": "Fixed", "replicas": 1}))
    await site.generation("cart", 0)
    await site.kubectl("scale", "evo/cart", "--replicas=2")
    await site.until(lambda: len(site.evaluators("cart")) == 2, "two evaluators")
    await site.until_status("cart", lambda s: s["evaluators"]["pods"] == 2)


async def test_a_warm_start_works_after_its_source_is_deleted(site: Site):
    await site.operator()
    await site.apply(document("source"))
    await site.wait("source", "Succeeded")
    best = (await site.get("source"))["status"]["best"]["digest"]
    await site.kubectl("delete", "evo", "source", "--timeout=60s")
    await site.apply(document("heir", generations=1, warmStart={"experiment": "source"}))
    await site.wait("heir", "Succeeded")
    assert best in site.genomes("heir", 0)


async def test_a_warm_start_that_does_not_fit_is_a_condition(site: Site):
    await site.operator()
    await site.apply(document("source"))
    await site.wait("source", "Succeeded")
    heir = document("heir", warmStart={"experiment": "source"})
    heir["spec"]["policy"]["hiddenLayers"] = [5]
    await site.apply(heir)
    await site.wait("heir", "Ready", status="False", reason="WarmStartRefused")


async def test_a_namespace_can_be_deleted_with_a_search_under_way(site: Site):
    site.watch_everywhere()
    await site.operator(KUBEVO_NAMESPACES="")
    await site.apply(document("cart", generations=2000))
    await site.generation("cart", 1)
    await site.kubectl("delete", "namespace", site.namespace, "--timeout=60s", namespaced=False)
    await site.until(lambda: not site.evaluators("cart"), "its evaluators end")


async def test_an_experiment_whose_operator_was_removed_first_can_be_let_go(site: Site):
    operator = await site.operator()
    await site.apply(document("cart", generations=2000))
    await site.generation("cart", 1)
    streams = await site.broker_id("cart")
    await operator.kill()
    await site.kubectl("delete", "evo", "cart", "--wait=false")
    # docs/operations.md: nobody is left who would take the finalizer off.
    body = '{"metadata": {"finalizers": null}}'
    await site.kubectl("patch", "evo", "cart", "--type=merge", "-p", body)
    await site.gone("cart")
    assert await site.has_streams(streams)
    site.watch_everywhere()
    await site.operator(KUBEVO_NAMESPACES="")  # whoever comes next sweeps what was left

    async def is_swept() -> bool:
        return not await site.has_streams(streams)

    await site.until(is_swept, "the streams are swept")
