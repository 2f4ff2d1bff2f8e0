"""The operator's rights are exactly what it asks the API server for, read off the audit log."""

import json
from pathlib import Path

import yaml
from scaled_objects import SCALED_OBJECTS
from site_of_tests import ACCOUNT, Site, document

ROOT = Path(__file__).parents[2]


def granted() -> set[tuple[str, str, str]]:
    rules = [
        rule
        for role in yaml.safe_load_all((ROOT / "operator/rbac.yaml").read_text())
        for rule in role["rules"]
    ]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


async def test_every_right_is_used_and_no_other_is_asked_for(site: Site):
    plane = site.control_plane
    keys = await site.keys()
    await site.forget_keys()
    maker = await site.operator()
    await site.broker_config()
    await maker.stop()
    await site.give_keys(keys)
    plane.kubectl("apply", "-f", "-", stdin=json.dumps(SCALED_OBJECTS))
    try:
        await use_everything(site)
    finally:
        plane.kubectl("delete", "crd", "scaledobjects.keda.sh", "--wait=false")
    used = plane.requests(f"{site.system}:{ACCOUNT}")
    # Asked for by an admission plugin about a request, never as one.
    rights = granted() - {("kubevo.dev", "experiments/finalizers", "update")}
    assert used - rights == set()
    assert rights - used == set()


async def use_everything(site: Site) -> None:
    operator = await site.operator(KUBEVO_RESYNC_SECONDS="1", KUBEVO_NATS_MONITORING="nats:8222")
    await site.apply(document("cart", generations=5000, scaling={"mode": "KEDA"}))
    for mode, kind in (("HPA", "scaledobject.keda.sh"), ("Operator", "hpa")):

        async def is_there(kind: str = kind) -> bool:
            return await site.uid(kind, "cart-evaluator") is not None

        async def is_gone(kind: str = kind) -> bool:
            return await site.uid(kind, "cart-evaluator") is None

        await site.until(is_there, f"the {kind} is there")
        await site.patch("cart", {"scaling": {"mode": mode}})
        await site.until(is_gone, f"the {kind} is gone")
    await operator.stop()
    await site.operator(KUBEVO_RESYNC_SECONDS="1", KUBEVO_NETWORK_POLICIES="false")

    async def is_open() -> bool:
        return await site.uid("networkpolicy", "cart-evaluator") is None

    await site.until(is_open, "the NetworkPolicy is gone")
    budget = {"maxGenerations": 1}
    await site.patch("cart", {"budget": budget, "ttlSecondsAfterFinished": 0})
    await site.gone("cart")
