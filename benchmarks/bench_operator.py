"""Many Experiments under one operator: that all finish, and what it costs.

A real API server, a real broker, real evaluator processes and one operator, whose CPU and memory are
sampled, whose status patches are counted at the API server, and which is killed in the middle. Run it
by `make bench-operator [ARGS="--experiments 100"]`.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/cluster"))

from binaries import binaries
from broker_process import BrokerProcess
from control_plane import ControlPlane
from kubelet import INHERITED, ProcessKubelet
from site_of_tests import IMAGE, Site, document

CRD = ROOT / "crds/experiments.yaml"
# Each process has a session, and Linux shares the CPU among sessions: this is nice for a session.
MEEK = 'echo 19 > /proc/self/autogroup 2>/dev/null; exec nice -n 19 "$0" "$@"'
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
STATUS_SECONDS = 5.0
MOST_CORES, MOST_MEBIBYTES, MOST_BYTES, MOST_RESUME_SECONDS = 0.5, 512, 16 * 1024, 15.0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mebibytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


class Sampler:
    """CPU and memory of the operators that work, one after the other."""

    def __init__(self) -> None:
        self.cores: list[float] = []
        self.mebibytes: list[float] = []

    async def watch(self, pid: int) -> None:
        """Take a sample a second until the process ends."""
        before, since = cpu_seconds(pid), time.monotonic()
        while True:
            await asyncio.sleep(1)
            try:
                used, now = cpu_seconds(pid), time.monotonic()
                self.mebibytes.append(resident_mebibytes(pid))
            except (OSError, IndexError):
                return
            self.cores.append((used - before) / (now - since))
            before, since = used, now


async def statuses(site: Site) -> dict[str, dict]:
    items = json.loads(await site.kubectl("get", "evo", "-o", "json"))["items"]
    return {item["metadata"]["name"]: item for item in items}


def is_done(item: dict) -> bool:
    return Site.condition(item.get("status") or {}, "Succeeded").get("status") == "True"


async def finished(site: Site, count: int, wanted: float) -> None:
    """Wait until a share of the Experiments is finished, with progress."""
    while True:
        items = await statuses(site)
        done = sum(map(is_done, items.values()))
        reached = [
            i.get("status", {}).get("progress", {}).get("generation", -1) for i in items.values()
        ]
        print(
            f"  {done} of {count} finished, generations {min(reached)} to {max(reached)}",
            flush=True,
        )
        if done >= wanted * count:
            return
        await asyncio.sleep(5)


async def resumed(site: Site, before: dict[str, dict]) -> float:
    """Return the seconds from the successor's lease until every unfinished search is driven again."""
    open_ = {
        name: item.get("status", {}).get("takeover", 0)
        for name, item in before.items()
        if not is_done(item)
    }
    log = site.operators[-1].log
    while "leading" not in log.read_text():  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(0.05)
    leading = time.monotonic()
    while True:
        now = await statuses(site)
        waiting = [
            name
            for name, takeover in open_.items()
            if now[name].get("status", {}).get("takeover", 0) <= takeover
            or Site.condition(now[name]["status"], "Running").get("reason") == "Resuming"
        ]
        if not waiting:
            return time.monotonic() - leading
        await asyncio.sleep(0.2)


def count_patches(site: Site, items: list[dict]) -> tuple[int, float]:
    """Return (status patches, most of one Experiment beyond one in 5 s and one a condition change)."""
    written, excess = 0, []
    for item in items:
        patches = site.patches(item["metadata"]["uid"])
        changes = sum(a.conditions != b.conditions for a, b in pairwise(patches))
        allowed = (patches[-1].at - patches[0].at) / STATUS_SECONDS + changes + 1
        excess.append(len(patches) - allowed)
        written += len(patches)
    return written, max(excess)


async def measure(count: int, generations: int, folder: Path) -> dict[str, float]:
    async with (
        ControlPlane(await asyncio.to_thread(binaries), folder / "plane") as plane,
        BrokerProcess(folder / "broker") as broker,
        ProcessKubelet(
            plane.admin,
            folder / "pods",
            # On a cluster they have machines of their own; here they must not starve the rest.
            {IMAGE: ["/bin/sh", "-c", MEEK, sys.executable, "-m", "kubevo_evaluator"]},
            INHERITED,
            look_seconds=1.0,
        ) as kubelet,
    ):
        plane.define(CRD)
        plane.kubectl("create", "namespace", "bench")
        site = Site(plane, kubelet, broker, "bench", folder)
        site.install()
        settings = {
            "KUBEVO_STATUS_SECONDS": str(STATUS_SECONDS),
            "KUBEVO_ACK_WAIT_SECONDS": "20",
            "KUBEVO_LEASE_SECONDS": "15",
            "KUBEVO_RENEW_SECONDS": "10",
            "KUBEVO_RETRY_SECONDS": "2",
        }
        sampler = Sampler()
        operator = await site.operator(**settings)
        sampling = asyncio.create_task(sampler.watch(operator.process.pid))
        started = time.monotonic()
        specs = [document(f"e-{i}", generations, scaling={"max": 1}) for i in range(count)]
        await site.kubectl("create", "-f", "-", stdin=json.dumps({
            "apiVersion": "v1", "kind": "List", "items": specs}))  # fmt: skip
        await finished(site, count, 0.2)
        print("  kill -9 of the operator", flush=True)
        await operator.kill()
        await sampling
        before = await statuses(site)
        operator = await site.operator(**settings)
        sampling = asyncio.create_task(sampler.watch(operator.process.pid))
        again = await resumed(site, before)
        await finished(site, count, 1.0)
        seconds = time.monotonic() - started
        items = await statuses(site)
        written, excess = count_patches(site, list(items.values()))
        largest = max(len(json.dumps(item)) for item in items.values())
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
        await operator.kill()
    return {
        "experiments": count,
        "seconds": seconds,
        "cores (mean)": statistics.mean(sampler.cores),
        "cores (max of a second)": max(sampler.cores),
        "MiB (mean)": statistics.mean(sampler.mebibytes),
        "MiB (max)": max(sampler.mebibytes),
        "resumed after the lease, s": again,
        "status patches": written,
        "patches beyond the rule, most of one": excess,
        "largest object, bytes": largest,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Many Experiments under one operator")
    parser.add_argument("--experiments", type=int, default=100)
    parser.add_argument("--generations", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options.experiments, options.generations, Path(folder)))
    for name, value in found.items():
        print(f"{name:40} {value:12.2f}")
    good = (
        found["cores (mean)"] < MOST_CORES
        and found["MiB (mean)"] < MOST_MEBIBYTES
        and found["largest object, bytes"] < MOST_BYTES
        and found["resumed after the lease, s"] <= MOST_RESUME_SECONDS
        and found["patches beyond the rule, most of one"] <= 1
    )
    print("all hold" if good else "MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
