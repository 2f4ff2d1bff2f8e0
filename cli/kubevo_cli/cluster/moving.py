"""``push`` and ``pull``: a search goes on elsewhere, from its directory, to the same bytes.

``push`` makes a suspended Experiment, sends the run into the operator's pod, and lets it go on; dying
anywhere, it can be repeated. ``pull`` fetches the run through the service, by the caller's own right to
read it. Both copy: what was there stays, and the two can be told apart by their uid.
"""

import json
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kubevo_cli import output
from kubevo_cli.cluster.kubernetes_api import (
    Cluster,
    ClusterUnavailable,
    NotFound,
    connect,
    experiments_path,
)
from kubevo_cli.cluster.options import ClusterOptions, ServiceOptions
from kubevo_cli.cluster.pods import Ended, execute, ready_pod
from kubevo_cli.cluster.service import open_service
from kubevo_core import spec
from kubevo_core.errors import StoreError, UserError
from kubevo_runtime.archive import pack, unpack
from kubevo_runtime.store import Run, find_run, open_run

__all__ = ["pull", "push"]

Document = dict[str, Any]
PUSHED_FROM = "kubevo.dev/pushed-from"
COMMAND = ("python", "-m", "kubevo_operator.arrival")
MEBIBYTE = 1024**2
LOCAL = "local"


def push(
    directory: Path,
    name: str | None,
    options: ClusterOptions,
    system: str,
    form: str,
    *,
    suspended: bool,
) -> None:
    """Let a local run go on as an Experiment; ``system`` is the namespace of the operator's pod.

    Raises:
        UserError: there is an Experiment of that name which is none that this push has begun.
        RunInUse: a process searches in the directory.
        KubevoError: as `kubevo_cli.cluster.kubernetes_api` and `kubevo_cli.cluster.pods` say.
    """
    run = open_run(find_run(directory))
    cluster = connect(options)
    pod = ready_pod(cluster, system)  # before anything is made
    with run.lock():
        wanted = _experiment(run, name or run.name, cluster.namespace)
        found = _made(cluster, wanted, run)
        metadata = found["metadata"]
        command = [*COMMAND, metadata["namespace"], metadata["name"], metadata["uid"]]
        arrived = _arrived(execute(cluster, system, pod, command, _counted(pack(run.path))), found)
    goes_on = not (suspended or run.experiment()["spec"].get("suspend"))
    if goes_on:
        found = cluster.patch(found, {"suspend": False})
    if form == "json":
        output.write_json({**arrived, "suspended": not goes_on, **_named(found)})
        return
    generation = arrived.get("generation")
    done = "nothing searched yet" if generation is None else f"generation {generation}"
    state = "goes on" if goes_on else "waits, suspended"
    where = f"-n {metadata['namespace']}"
    output.write(f"experiment.kubevo.dev/{metadata['name']} {state} ({done})")
    output.say(f"\nnext:\n  kubevo {'watch' if goes_on else 'resume'} {metadata['name']} {where}")


def _named(found: Document) -> Document:
    return {key: found["metadata"][key] for key in ("namespace", "name", "uid")}


def _experiment(run: Run, name: str, namespace: str) -> Document:
    document = run.experiment()
    return {
        "apiVersion": document["apiVersion"],
        "kind": document["kind"],
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {PUSHED_FROM: run.uid},
        },
        # The operator must not begin before the run is there.
        "spec": {**document["spec"], "suspend": True},
    }


def _made(cluster: Cluster, wanted: Document, run: Run) -> Document:
    """Return the Experiment: a new one, or what an earlier push of the same run has left."""
    name = wanted["metadata"]["name"]
    try:
        found = cluster.request("GET", experiments_path(cluster.namespace, name))
    except NotFound:
        return cluster.request(
            "POST",
            experiments_path(cluster.namespace),
            body=wanted,
            query={"fieldValidation": "Strict"},
        )
    if (found["metadata"].get("annotations") or {}).get(PUSHED_FROM) != run.uid:
        raise UserError(
            f"there is another Experiment {name!r} in the namespace {cluster.namespace!r}: push "
            f"under another name with --name, or delete that one first"
        )
    if (found.get("status") or {}).get("takeover"):
        raise UserError(
            f"{name!r} was pushed before and its search has begun on the cluster: kubevo watch "
            f"{name} shows it; to push what was searched here since, use another name with --name"
        )
    return _brought_up_to_date(cluster, found, wanted)


def _brought_up_to_date(cluster: Cluster, found: Document, wanted: Document) -> Document:
    """Give what an earlier push has made the spec that the run has now, but for suspend."""
    name = wanted["metadata"]["name"]
    old = spec.parse(found, f"the Experiment {name}").spec
    new = spec.parse(wanted, "the run's spec.yaml").spec
    fixed = spec.differences(old, new)
    if fixed:
        raise UserError(
            f"{name!r} was pushed before, and is another search now; what differs:\n  "
            + "\n  ".join(fixed)
            + "\npush under another name with --name, or delete that one first"
        )
    change = _change(old.document(), new.document())
    change.pop("suspend", None)
    return cluster.patch(found, change) if change else found


def _change(old: Document, new: Document) -> Document:
    """Return what turns ``old`` into ``new`` as a merge patch."""
    found: Document = {}
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            after = _change(before, after)
        found[key] = after
    return found


def _counted(pieces: Iterator[bytes]) -> Iterator[bytes]:
    sent = 0
    for piece in pieces:
        sent += len(piece)
        yield piece
        output.note(f"sent {sent / MEBIBYTE:,.1f} MiB")
    output.note("")


def _arrived(ended: Ended, found: Document) -> Document:
    name = found["metadata"]["name"]
    cure = f"{name} stays suspended: push again, or delete it"
    if ended.code == 0:
        try:
            return dict(json.loads(ended.out))
        except ValueError:
            pass
    said = ended.err.strip() or ended.out.strip() or "nothing"
    if ended.code is None:
        raise ClusterUnavailable(f"the connection ended before the run had arrived; {cure}")
    raise StoreError(f"the run was not taken in: {said[-1000:]}\n{cure}")


def _let_go_on(run: Run) -> None:
    """Clear the suspension that made it safe to fetch the run: here it would stop it at once."""
    experiment = run.experiment()
    if experiment["spec"].get("suspend"):
        experiment["spec"]["suspend"] = False
        run.replace_experiment(experiment)


def pull(
    name: str, data: Path, options: ClusterOptions, service: ServiceOptions, form: str
) -> None:
    """Fetch an Experiment's run into a directory in which `kubevo run --resume` goes on with it.

    Raises:
        RunMismatch: it is there already.
        ServiceError: as the tree in `kubevo_client.errors` says.
        KubevoError: as `kubevo_cli.cluster.kubernetes_api` says.
    """
    client, _ = open_service(options, service)
    with tempfile.TemporaryDirectory(prefix="kubevo-pull-") as folder:
        file = Path(folder) / "run.tar"
        client.experiment(name).download_run(file)
        output.note(f"fetched {file.stat().st_size / MEBIBYTE:,.1f} MiB")
        with file.open("rb") as stream:
            run = unpack(stream, data, LOCAL)
        _let_go_on(run)
        output.note("")
    if form == "json":
        output.write_json({"directory": str(run.path), "name": run.name, "uid": run.uid})
        return
    shown = shlex.quote(str(run.path))
    output.write(str(run.path))
    output.say(f"\nnext:\n  kubevo run {shown}/spec.yaml --data {shown} --resume")
