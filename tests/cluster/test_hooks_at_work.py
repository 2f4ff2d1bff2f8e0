"""What the chart's hooks do where an operator, a broker and evaluators really run."""

import asyncio
import time

import pytest_asyncio
from site_of_tests import Site, document

from kubevo_operator.cluster import connect
from kubevo_operator.handlers import FINALIZER
from kubevo_operator.smoke import smoke
from kubevo_operator.uninstall import Plan, uninstall

PATIENCE_SECONDS = 60.0


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(control_plane):
    found = await connect(str(control_plane.admin))
    yield found
    await found.aclose()


async def test_the_smoke_test_succeeds_and_leaves_nothing(site: Site, cluster):
    await site.operator()
    status = await smoke(cluster, site.namespace, "kubevo-test", PATIENCE_SECONDS)
    assert len(status["resultDigest"]) == 64

    async def is_gone() -> bool:
        return await site.uid("evo", "kubevo-test") is None

    await site.until(is_gone, "the Experiment is gone")
    assert not list(site.folder.rglob("kubevo-test-*/spec.yaml"))


async def test_an_uninstall_suspends_a_search_that_a_new_operator_then_carries_on(
    site: Site, cluster, local
):
    operator = await site.operator()
    await site.apply(document("cart", generations=5000))
    await site.generation("cart", 1)
    plan = Plan(
        namespace=site.system,
        namespaces=(site.namespace,),
        operator="none",  # no Deployment here: the process is ended by hand
        operator_pods="app=none",
        deleted=(),
        patience_seconds=PATIENCE_SECONDS,
    )
    began = time.monotonic()
    await uninstall(cluster, plan)
    assert time.monotonic() - began < PATIENCE_SECONDS
    status = (await site.get("cart"))["status"]
    conditions = {row["type"]: row["status"] for row in status["conditions"]}
    assert conditions["Suspended"] == "True"
    assert conditions["Succeeded"] == "Unknown"
    await operator.stop()
    await uninstall(cluster, plan)
    assert FINALIZER not in (await site.get("cart"))["metadata"].get("finalizers", [])

    await site.operator()
    await site.patch("cart", {"suspend": False})
    await site.generation("cart", status["progress"]["generation"] + 1)
    search = document("cart", generations=await site.stop("cart"))
    await site.same("cart", await asyncio.to_thread(local, search))
