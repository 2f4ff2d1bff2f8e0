"""``logs``: what happened to a search and which episodes failed; or what its evaluators say."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from kubevo_cli import output
from kubevo_cli.cluster import views
from kubevo_cli.cluster.kubernetes_api import Cluster, NotFound, connect
from kubevo_cli.cluster.options import ClusterOptions, ServiceOptions
from kubevo_cli.cluster.service import open_service
from kubevo_client import Event, Experiment, Status
from kubevo_core.errors import KubevoError

__all__ = ["evaluator_logs", "search_logs"]

Document = dict[str, Any]
Record = Mapping[str, Any]
EXPERIMENT_LABEL = "kubevo.dev/experiment"
CONTAINER = "evaluator"
LOOK_SECONDS = 3.0
READ_SECONDS = 30.0
FAILURE = "failure"


# --- the search --------------------------------------------------------------------------------------


def search_logs(
    name: str,
    cluster: ClusterOptions,
    service: ServiceOptions,
    *,
    repeat: int | None,
    tail: int,
    follow: bool,
    form: str,
) -> None:
    """Print a search's conditions and its newest ``tail`` failed episodes, oldest first.

    With ``follow`` then what happens, until the search has ended.

    Raises:
        KubevoError: as `kubevo_client.errors` and `kubevo_cli.cluster.kubernetes_api` say.
    """
    client, namespace = open_service(cluster, service)
    experiment = client.experiment(name, namespace)
    show = _show_json if form == "json" else _show_text
    # The stream begins with the status, and the place of its events says what is known by then.
    events = experiment.events() if follow else iter(())
    first = next(events, None)
    detail = experiment.detail()
    failures = _newest(experiment, repeat, tail) if detail["hasData"] else []
    for condition in sorted(
        detail["status"].get("conditions") or (),
        key=lambda each: each.get("lastTransitionTime") or "",
    ):
        show({"kind": "condition", **condition})
    for failure in failures:
        show({"kind": FAILURE, **failure})
    if first is not None:
        _follow(experiment, first, events, show)


def _newest(experiment: Experiment, repeat: int | None, count: int) -> list[Document]:
    found: list[Document] = []
    for failure in experiment.failures(repeat):
        if len(found) >= count:
            break
        found.append(failure)
    return found[::-1]


def _follow(
    experiment: Experiment, first: Event, events: Iterator[Event], show: Callable[[Record], None]
) -> None:
    said = ""
    event: Event | None = first
    while event is not None:
        if event.kind == "generation":
            row = event.document["row"]
            show({"kind": "generation", "repeat": event.document["repeat"], **row})
            if row.get("failed"):
                _failures_of(experiment, event, show)
        elif event.kind == "deleted":
            raise KubevoError(f"{experiment.namespace}/{experiment.name} was deleted meanwhile")
        elif event.kind == "status":
            status = Status.of(event.document)
            text = f"{status.state}{f' ({status.reason})' if status.reason else ''}"
            if text != said:
                said = text
                show({"kind": "state", "state": status.state, "message": status.message})
            if status.is_finished:
                return
        event = next(events, None)


def _failures_of(experiment: Experiment, event: Event, show: Callable[[Record], None]) -> None:
    """Show the failed episodes of one generation, which are among the newest."""
    generation = event.document["row"]["generation"]
    found = []
    for failure in experiment.failures(event.document["repeat"]):
        if failure["generation"] < generation:
            break
        if failure["generation"] == generation:
            found.append(failure)
    for failure in reversed(found):
        show({"kind": FAILURE, **failure})


def _show_json(record: Record) -> None:
    output.write(json.dumps(record, allow_nan=False))


def _show_text(record: Record) -> None:
    output.write(_TEXTS[record["kind"]](record))


def _condition_text(record: Record) -> str:
    is_so = "" if record["status"] == "True" else f" {record['status']}"
    return (
        f"{record.get('lastTransitionTime') or '-'}  {record['type']}{is_so}"
        f"  {record.get('reason') or '-'}  {record.get('message') or ''}"
    ).rstrip()


def _failure_text(record: Record) -> str:
    return (
        f"failed: generation {record['generation']}, {record['purpose']}, slot {record['slot']}, "
        f"episode {record['episode']}, genome {record['genome'][:12]}: {record['failure']}"
    )


def _generation_text(record: Record) -> str:
    values = "  ".join(
        f"{name} {output.number(record.get(name))}" for name in ("max", "mean", "elite", "best")
    )
    failed = f"  failed {record['failed']}" if record.get("failed") else ""
    return (
        f"repeat {record['repeat']} generation {record['generation']}  {values}  "
        f"frames {output.number(record.get('frames'))}{failed}"
    )


_TEXTS: dict[str, Callable[[Record], str]] = {
    "condition": _condition_text,
    FAILURE: _failure_text,
    "generation": _generation_text,
    "state": lambda record: f"{record['state']}  {record['message']}".rstrip(),
}


# --- its evaluators ----------------------------------------------------------------------------------


class _Process(NamedTuple):
    """One run of an evaluator process: a container that is started anew is another one."""

    pod: str
    container: str
    restarts: int


def evaluator_logs(name: str, options: ClusterOptions, *, tail: int, follow: bool) -> None:
    """Print what the evaluators say, each line with its pod and container.

    With ``follow`` also what those say that come later, until the search has ended and they are
    gone.

    Raises:
        KubevoError: as `kubevo_cli.cluster.kubernetes_api` says.
    """
    cluster = connect(options)
    cluster.experiment(cluster.namespace, name)
    if follow:
        _follow_evaluators(cluster, name, tail)
        return
    processes = _processes(cluster, name)
    if not processes:
        output.say(f"{name} has no evaluators now: their number follows the work that there is")
    for process in processes:
        _copy(cluster, process, tail, follow=False)


def _follow_evaluators(cluster: Cluster, name: str, tail: int) -> None:
    readers: dict[_Process, threading.Thread] = {}
    while True:
        for process in _processes(cluster, name):
            if process not in readers:
                # A daemon, so that Ctrl-C need not wait for what an evaluator says next.
                reader = threading.Thread(
                    target=_copy,
                    args=(cluster, process, tail),
                    kwargs={"follow": True},
                    daemon=True,
                )
                readers[process] = reader
                reader.start()
        is_quiet = not any(reader.is_alive() for reader in readers.values())
        found = views.summary_of(cluster.experiment(cluster.namespace, name))
        if is_quiet and found.state in ("Succeeded", "Failed"):
            return
        time.sleep(LOOK_SECONDS)


def _processes(cluster: Cluster, name: str) -> list[_Process]:
    """Return the evaluator processes that can have said something."""
    path = f"/api/v1/namespaces/{cluster.namespace}/pods"
    query = {"labelSelector": f"{EXPERIMENT_LABEL}={name}"}
    return sorted(
        _Process(pod["metadata"]["name"], status["name"], status.get("restartCount", 0))
        for pod in cluster.request("GET", path, query=query)["items"]
        for status in pod.get("status", {}).get("containerStatuses") or ()
        if status["name"].partition("-")[0] == CONTAINER
        and "waiting" not in status.get("state", {})
    )


def _copy(cluster: Cluster, process: _Process, tail: int, *, follow: bool) -> None:
    pod, container, _ = process
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/log"
    query = {"tailLines": str(tail), "container": container}
    if follow:
        query["follow"] = "true"
    try:
        for line in cluster.lines(path, query, None if follow else READ_SECONDS):
            # One write a line: several may speak at once.
            output.write(f"[{pod}/{container}] {line.decode(errors='replace').rstrip()}")
    except NotFound:  # it went while we looked
        pass
    except KubevoError as exc:
        output.say(f"[{pod}/{container}] {exc}")
