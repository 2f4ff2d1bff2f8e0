"""The command line on a real API server with the real operator and service, as a person uses it."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors import safe_open
from service_of_tests import Service
from site_of_tests import Site, document

from kubevo_client import Client
from kubevo_core import decode
from kubevo_core.genome import parse


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Kubevo:
    """The command, as a process, in a site's namespace by its kubeconfig's context."""

    def __init__(self, site: Site, kubeconfig: Path | None = None) -> None:
        self.site = site
        found = json.loads((kubeconfig or site.control_plane.admin).read_text())
        found["contexts"][0]["context"]["namespace"] = site.namespace
        self.kubeconfig = site.folder / f"config-{len(list(site.folder.glob('config-*')))}.json"
        self.kubeconfig.write_text(json.dumps(found))

    async def start(self, *arguments: object) -> asyncio.subprocess.Process:
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        environment.pop("KUBEVO_SERVICE", None)
        environment.pop("KUBEVO_TOKEN", None)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "kubevo_cli",
            *map(str, arguments),
            cwd=self.site.folder,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: object, code: int = 0) -> Done:
        return await self.end(await self.start(*arguments), code)

    async def end(self, process: asyncio.subprocess.Process, code: int = 0) -> Done:
        async with asyncio.timeout(90):
            out, err = await process.communicate()
        done = Done(process.returncode or 0, out.decode(), err.decode())
        assert "Traceback" not in done.err, done.err
        assert done.code == code, done
        return done


async def test_a_search_is_listed_changed_and_watched_to_its_end(site: Site):
    kubevo = Kubevo(site)
    assert "there are no Experiments in the namespace" in (await kubevo("ls")).err
    await site.operator()
    await site.apply(document("cart", generations=5000))
    await site.generation("cart", 1)

    heading, row = (await kubevo("get")).out.splitlines()
    assert heading.split()[:4] == ["NAME", "ENVIRONMENT", "GENERATION", "BEST"]
    assert row.split()[:2] == ["cart", "CartPole-v1"]
    assert "Running" in row
    wide = (await kubevo("ls", "-A", "-o", "wide")).out.splitlines()
    assert wide[0].split()[0] == "NAMESPACE"
    # Another test's namespace may be on its way out.
    assert site.namespace in [row.split()[0] for row in wide[1:]]
    listed = json.loads((await kubevo("get", "-o", "json")).out)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["cart"]
    assert "managedFields" not in listed["items"][0]["metadata"]

    assert (await kubevo("suspend", "cart")).out == "experiment.kubevo.dev/cart suspended\n"
    await site.wait("cart", "Suspended")
    assert "status       Suspended" in (await kubevo("get", "cart")).out
    assert "is suspended already" in (await kubevo("suspend", "cart")).out
    await kubevo("watch", "cart", "--timeout", 1, code=1)
    assert "resumed" in (await kubevo("resume", "cart")).out
    await site.wait("cart", "Running")

    watching = await kubevo.start("watch", "cart")
    assert "stops after the generation that runs now" in (await kubevo("stop", "cart")).out
    told = (await kubevo.end(watching)).out.splitlines()
    assert told[-1].startswith("cart  Succeeded  generation ")
    last = (await site.get("cart"))["status"]["progress"]["generation"]
    assert "has ended already" in (await kubevo("stop", "cart")).out

    await kubevo("extend", "cart", "--generations", "+2")
    await site.generation("cart", last + 1)
    assert (await site.get("cart"))["spec"]["budget"]["maxGenerations"] == last + 3, last
    found = json.loads((await kubevo("watch", "-o", "json")).out.splitlines()[-1])
    assert found["status"]["progress"]["generation"] == last + 2


async def test_a_watch_ends_with_a_failure_a_deletion_or_its_time(site: Site):
    kubevo = Kubevo(site)
    await site.apply(document("odd"))
    late = await kubevo("watch", "odd", "--timeout", 1, code=1)
    assert "1 seconds were not enough for odd" in late.err
    watching = await kubevo.start("watch", "odd")
    condition = {
        "type": "Failed",
        "status": "True",
        "reason": "AllEvaluationsFailed",
        "message": "nothing was played",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    patch = json.dumps({"status": {"conditions": [condition]}})
    arguments = ("--subresource=status", "--type=merge", "-p", patch)
    await site.kubectl("patch", "evo", "odd", *arguments)
    failed = await kubevo.end(watching, code=1)
    assert failed.out.splitlines()[-1].split("  ") == ["odd", "Failed", "nothing was played"]
    await site.apply(document("gone"))
    watching = await kubevo.start("watch", "gone")
    assert watching.stdout is not None
    first = await watching.stdout.readline()
    assert first.startswith(b"gone  Pending")
    await site.kubectl("delete", "evo", "gone")
    assert "gone was deleted meanwhile" in (await kubevo.end(watching, code=1)).err


async def test_mistakes_and_missing_rights_are_told_with_their_cure(site: Site):
    kubevo = Kubevo(site)
    await site.apply(document("cart"))
    missing = await kubevo("get", "carts", code=2)
    assert "no Experiment 'carts'" in missing.err
    assert "did you mean cart?" in missing.err
    assert "expected one of t, got 'x'" in (await kubevo("ls", "--context", "x", code=2)).err
    low = await kubevo("extend", "cart", "--generations", "0", code=2)
    assert "--generations: expected a number" in low.err
    refused = await kubevo("extend", "cart", "--frames", "9" * 30, code=2)
    assert "spec.budget.maxFrames" in refused.err
    plane = site.control_plane
    plane.kubectl("create", "serviceaccount", "nobody", "-n", site.namespace)
    stranger = Kubevo(site, plane.service_account(site.namespace, "nobody"))
    denied = await stranger("ls", code=1)
    assert 'cannot list resource "experiments"' in denied.err
    assert "ask for a Role with that verb" in denied.err
    nowhere = await kubevo("best", "cart", code=2)
    assert "there is no ServiceAccount 'kubevo-user'" in nowhere.err
    assert f"kubectl create serviceaccount kubevo-user -n {site.namespace}" in nowhere.err


async def test_results_come_from_the_service_with_a_token_of_an_account(site: Site):
    kubevo = Kubevo(site)
    await site.operator()
    async with Service(site) as service:
        url = f"http://127.0.0.1:{service._port}"
        await service.token("kubevo-user", "get,list,watch")
        await site.apply(document("cart", generations=3))
        following = await kubevo.start("logs", "cart", "-f", "--service", url)
        await site.wait("cart", "Succeeded")
        told = (await kubevo.end(following)).out
        assert "Succeeded" in told.splitlines()[-1]

        found = json.loads((await kubevo("best", "cart", "--service", url, "-o", "json")).out)
        status = (await site.get("cart"))["status"]
        assert found["digest"] == status["best"]["digest"] == parse(found["genome"]).digest
        await kubevo("best", "cart", "-o", "model.safetensors", "--service", url)
        with safe_open(site.folder / "model.safetensors", "np") as file:
            weights = decode.parameters(parse(found["genome"]))
            assert file.metadata()["sha256"] == decode.sha256(weights)
        again = await kubevo("best", "cart", "-o", "model.safetensors", "--service", url, code=2)
        assert "exists already" in again.err
        compared = (await kubevo("compare", "cart", "--service", url)).out.splitlines()
        assert compared[1].split()[:2] == ["cart", "CartPole-v1"]
        logs = (await kubevo("logs", "cart", "--service", url, "-o", "json")).out.splitlines()
        kinds = {json.loads(line)["type"] for line in logs if '"condition"' in line}
        assert "Succeeded" in kinds
        account = f"{site.namespace}/missing"
        denied = await kubevo(
            "best", "cart", "--service", url, "--service-account", account, code=2
        )
        assert "there is no ServiceAccount 'missing'" in denied.err


async def test_a_client_waits_for_a_search_changes_it_and_plays_its_best(site: Site):
    await site.operator()
    async with Service(site) as service:
        token = await service.token("editor", "get,list,watch,patch")
        client = Client(f"http://127.0.0.1:{service._port}", token, namespace=site.namespace)
        await site.apply(document("cart", generations=5000))
        await site.generation("cart", 1)
        experiment = client.experiment("cart")
        waiting = asyncio.create_task(asyncio.to_thread(experiment.wait, 90))
        await asyncio.to_thread(experiment.suspend)
        await site.wait("cart", "Suspended")
        assert not waiting.done()
        await asyncio.to_thread(experiment.resume)
        await site.wait("cart", "Running")
        await asyncio.to_thread(experiment.stop)
        assert await waiting is experiment
        status = await asyncio.to_thread(experiment.status)
        assert status.has_succeeded
        assert status.generation is not None
        await asyncio.to_thread(experiment.extend, generations=status.generation + 2)
        await site.generation("cart", status.generation + 1)
        await asyncio.to_thread(experiment.wait, 60)
        policy = (await asyncio.to_thread(experiment.best)).load_policy()
        assert policy.act([0.0, 0.1, 0.0, -0.1]) in (0, 1)
        nobody = await service.token("nobody")
        stranger = Client(f"http://127.0.0.1:{service._port}", nobody, namespace=site.namespace)
        with pytest.raises(Exception, match="may not get"):
            await asyncio.to_thread(stranger.experiment("cart").status)
