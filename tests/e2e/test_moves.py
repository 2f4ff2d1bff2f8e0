"""A search that moves between a laptop and the cluster, in the middle, to the same bytes."""

import json
import signal
import time

from product import Kubevo, cartpole, digests, experiment

from kubevo_runtime.store import find_runs, open_run

GENERATIONS = 60


def test_from_the_laptop_to_the_cluster(kubevo: Kubevo, namespace, laptop):
    wanted = experiment("moved", cartpole(GENERATIONS, scaling={"max": 1}))
    expected = laptop.digests(wanted)
    file = laptop.folder / "moved.json"
    file.write_text(json.dumps(wanted))
    process = laptop.start("run", file, "--data", "here")

    def generation():
        loaded = [open_run(p).repeat(0).latest() for p in find_runs(laptop.folder / "here")]
        return max((each.generation for each in loaded if each), default=-1)

    kubevo.cluster.until("some generations here", lambda: generation() >= 5, seconds=120)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    done = generation()
    assert done < GENERATIONS - 1
    said = laptop("push", "here", "-n", namespace)
    assert f"experiment.kubevo.dev/moved goes on (generation {done})" in said
    status = kubevo.succeeded("moved", namespace)
    assert digests(status) == expected


def test_from_the_cluster_to_the_laptop(kubevo: Kubevo, namespace, laptop):
    wanted = experiment("fetched", cartpole(GENERATIONS, scaling={"max": 1}))
    expected = laptop.digests(wanted)
    kubevo.account("kubevo-user", namespace, "kubevo-experiment-viewer")
    kubevo.apply(wanted, namespace)
    kubevo.reach("fetched", namespace, 3)
    laptop("suspend", "fetched", "-n", namespace)
    condition = "condition=Suspended"
    kubevo.cluster.wait("experiment/fetched", condition, namespace=namespace, seconds=60)
    done = kubevo.generation("fetched", namespace)
    assert done < GENERATIONS - 1
    path = laptop("pull", "fetched", "-n", namespace, "--data", "there").strip()
    assert open_run(laptop.folder / path).repeat(0).latest().generation >= done
    started = time.monotonic()
    out = laptop("run", f"{path}/spec.yaml", "--data", path, "--resume", "--output", "json")
    assert {key: json.loads(out)[key] for key in expected} == expected
    print(f"went on from generation {done} in {time.monotonic() - started:.1f} s")
    # and what stayed behind goes on as well, to the same bytes
    laptop("resume", "fetched", "-n", namespace)
    assert digests(kubevo.succeeded("fetched", namespace)) == expected
