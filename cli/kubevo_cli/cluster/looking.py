"""``get``, ``ls`` and ``watch``: Experiments as the Kubernetes API shows them."""

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, Self

import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kubevo_api.models import Summary
from kubevo_cli import output
from kubevo_cli.cluster import views
from kubevo_cli.cluster.kubernetes_api import (
    Cluster,
    ClusterUnavailable,
    WatchExpired,
    connect,
    experiments_path,
)
from kubevo_cli.cluster.options import ClusterOptions
from kubevo_core.errors import KubevoError, UserError

__all__ = ["get", "list_all", "watch", "write_documents"]

Document = dict[str, Any]
Key = tuple[str, str]
WATCH_SECONDS = 30
AGAIN_SECONDS = 2.0
FAILED = 1


def list_all(options: ClusterOptions, form: str) -> None:
    """Print the Experiments of a namespace, or of all.

    Raises:
        KubevoError: as `kubevo_cli.cluster.kubernetes_api` says, here and below.
    """
    cluster = connect(options)
    scope = "" if options.all_namespaces else cluster.namespace
    items, version = cluster.experiments(scope)
    items.sort(key=_key)
    if form in ("json", "yaml"):
        kind = {"apiVersion": "kubevo.dev/v1alpha1", "kind": "ExperimentList"}
        shown = [views.without_noise(item) for item in items]
        write_documents({**kind, "metadata": {"resourceVersion": version}, "items": shown}, form)
        return
    if not items:
        output.say(_nothing(scope))
        return
    found = [views.summary_of(item) for item in items]
    wide = form == "wide"
    output.write_table(
        *views.table(found, time.time(), wide=wide, with_namespace=options.all_namespaces)
    )


def get(name: str, options: ClusterOptions, form: str) -> None:
    """Print one Experiment: how it is; ``wide`` adds its conditions."""
    if options.all_namespaces:
        raise UserError(f"-A shows all Experiments, {name!r} is one: expected one or the other")
    cluster = connect(options)
    found = cluster.experiment(cluster.namespace, name)
    if form in ("json", "yaml"):
        write_documents(views.without_noise(found), form)
        return
    output.write_fields(views.fields(views.summary_of(found), time.time()))
    if form == "wide":
        output.write("")
        conditions = (found.get("status") or {}).get("conditions") or []
        output.write_table(
            ["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"],
            [
                [
                    each["type"],
                    each["status"],
                    each.get("reason") or "-",
                    each.get("lastTransitionTime") or "-",
                    each.get("message") or "-",
                ]
                for each in conditions
            ],
        )


def write_documents(document: Document, form: str) -> None:
    """Print a resource, or a list of them, as ``json`` or ``yaml``."""
    if form == "json":
        output.write(json.dumps(document, indent=2))
    else:
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        output.write(text.rstrip("\n"))


def watch(name: str | None, options: ClusterOptions, form: str, timeout: float | None) -> int:
    """Show progress until the search, or every one there is, has ended; return the exit code.

    0: all succeeded; 1: one failed, was deleted, or ``timeout`` seconds were not enough.
    """
    if name is not None and options.all_namespaces:
        raise UserError(f"-A watches all Experiments, {name!r} is one: expected one or the other")
    cluster = connect(options)
    scope = "" if options.all_namespaces else cluster.namespace
    deadline = None if timeout is None else time.monotonic() + timeout
    shown: dict[Key, Summary] = {}
    with _view(form, wide=form == "wide", with_namespace=options.all_namespaces) as show:
        for documents in _follow(cluster, scope, name or "", deadline):
            if name is not None and not documents:
                if not shown:
                    raise cluster.unknown(scope, name)
                raise KubevoError(f"{name} was deleted meanwhile")
            shown = {key: views.summary_of(each) for key, each in sorted(documents.items())}
            show(list(shown.values()), documents)
            if all(each.state in ("Succeeded", "Failed") for each in shown.values()):
                if not shown:
                    output.say(_nothing(scope))
                return FAILED if any(each.state == "Failed" for each in shown.values()) else 0
    waiting = ", ".join(each.name for each in shown.values() if each.completion_time is None)
    raise KubevoError(
        f"{timeout:g} seconds were not enough for {waiting}: the search goes on; watch again"
    )


def _view(form: str, *, wide: bool, with_namespace: bool) -> Any:
    """Return a context manager that gives a function which shows the Experiments."""
    if form in ("json", "yaml"):
        return nullcontext(_Stream(form))
    console = Console()
    if console.is_terminal:
        return _Screen(console, wide=wide, with_namespace=with_namespace)
    return nullcontext(_Lines(with_namespace=with_namespace))


class _Lines:
    """A line for an Experiment whenever it says something new."""

    def __init__(self, *, with_namespace: bool) -> None:
        self._with_namespace = with_namespace
        self._told: dict[Key, str] = {}

    def __call__(self, found: list[Summary], _: dict[Key, Document]) -> None:
        for each in found:
            key = (each.namespace, each.name)
            text = views.line(each, with_namespace=self._with_namespace)
            if self._told.get(key) != text:
                self._told[key] = text
                output.write(text)


class _Stream:
    """The resource itself, whenever it changes: one JSON a line, or one YAML document."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._told: dict[Key, str] = {}

    def __call__(self, _: list[Summary], documents: dict[Key, Document]) -> None:
        for key, each in sorted(documents.items()):
            version = each["metadata"]["resourceVersion"]
            if self._told.get(key) == version:
                continue
            self._told[key] = version
            if self._form == "json":
                output.write(json.dumps(views.without_noise(each)))
            else:
                output.write("---")
                write_documents(views.without_noise(each), "yaml")


class _Screen:
    """The table, in place; what is in it when the watch ends stays."""

    def __init__(self, console: Console, *, wide: bool, with_namespace: bool) -> None:
        self._wide, self._with_namespace = wide, with_namespace
        self._found: list[Summary] = []
        # It is drawn anew every second, so that ages go on while nothing happens.
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=1)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def __call__(self, found: list[Summary], _: dict[Key, Document]) -> None:
        self._found = found
        self._live.refresh()

    def _table(self) -> Table:
        headings, rows = views.table(
            self._found, time.time(), wide=self._wide, with_namespace=self._with_namespace
        )
        grid = Table(*headings, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            grid.add_row(*map(Text, row))  # a text, so that a bracket is no markup
        if len(self._found) == 1 and self._found[0].message:
            grid.caption = Text(self._found[0].message)
            grid.caption_justify = "left"
        return grid


def _follow(
    cluster: Cluster, scope: str, name: str, deadline: float | None
) -> Iterator[dict[Key, Document]]:
    """Yield all Experiments by key: as they are, and whenever one changes, until the deadline.

    The first list must succeed; after that an API server that is away is waited for.
    """
    listed, version = cluster.experiments(scope, name)
    known = {_key(item): item for item in listed}
    yield known
    path = experiments_path(scope)
    while (left := WATCH_SECONDS if deadline is None else deadline - time.monotonic()) > 0:
        try:
            for event in cluster.watch(path, version, max(1, min(WATCH_SECONDS, int(left))), name):
                found = event["object"]
                version = found["metadata"]["resourceVersion"]
                if event["type"] == "DELETED":
                    known.pop(_key(found), None)
                elif event["type"] in ("ADDED", "MODIFIED"):
                    known[_key(found)] = found
                else:
                    continue
                yield known
        except (WatchExpired, ClusterUnavailable) as exc:
            if isinstance(exc, ClusterUnavailable):
                output.say(f"{exc} (trying again)")
                time.sleep(AGAIN_SECONDS)
            try:
                listed, version = cluster.experiments(scope, name)
            except ClusterUnavailable:
                continue
            known = {_key(item): item for item in listed}
            yield known


def _key(document: Document) -> Key:
    return document["metadata"]["namespace"], document["metadata"]["name"]


def _nothing(scope: str) -> str:
    where = f"in the namespace {scope!r}" if scope else "in any namespace"
    return f"there are no Experiments {where}"
